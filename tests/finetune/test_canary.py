"""The canary of a model whose weights are bf16, as on CUDA: how far it is from the same weights in fp32, measured."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from finetune.plan import JobSpec

pytestmark = [
    pytest.mark.integration,
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),  # peft 0.21's call
]
MakeSpec = Callable[..., JobSpec]


def bench_of(spec: JobSpec, dtype: Any) -> Any:
    """A bench whose model has random LoRA weights, and computes as on CUDA: by layers as transformers and peft have them."""
    import torch
    import transformers

    from finetune.bench import Bench
    from finetune.events import NoEvents
    from finetune.guard import Guard
    from finetune.model import load

    model = load(spec.model_copy(update={"compile": True}), torch.device("cpu"), dtype)
    generator = torch.Generator().manual_seed(5)
    for name, param in model.named_parameters():
        if "lora_B" in name:
            param.data.copy_(torch.randn(param.shape, generator=generator) * 0.1)
    tokenizer = transformers.AutoTokenizer.from_pretrained(spec.base_folder)
    return Bench(spec, model, tokenizer, [], [], NoEvents(), Guard())


def test_a_canary_in_bf16_says_how_far_it_is_from_fp32(make_spec: MakeSpec):
    import torch

    from finetune.canary import canary_of

    half, full = bench_of(make_spec(), torch.bfloat16), bench_of(make_spec(), torch.float32)
    before = {name: param.clone() for name, param in half.model.named_parameters()}
    found, exact = canary_of(half), canary_of(full)
    assert found is not None
    assert exact is not None
    assert (found.precision, exact.precision, exact.rounding) == ("bfloat16", "float32", None)
    assert found.rounding is not None
    off = max(abs(one - other) for one, other in zip(found.logits, exact.logits, strict=True))
    effect = max(abs(one - other) for one, other in zip(exact.base_logits, exact.logits, strict=True))
    assert 0 < found.rounding < effect
    assert off < 4 * found.rounding < effect  # what the engine allows: its weights were never rounded to bf16
    assert before.keys() == dict(half.model.named_parameters()).keys()
    for name, param in half.model.named_parameters():
        assert param.dtype == before[name].dtype
        assert torch.equal(param, before[name])

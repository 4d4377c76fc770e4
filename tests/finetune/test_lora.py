"""The lean LoRA layer against peft's own, in float64 on the tiny model."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest

from finetune.encoding import encode_row
from finetune.plan import JobSpec, Recipe
from tests.finetune.conftest import make_rows
from tests.finetune.test_packing import norm_in_float64

pytestmark = pytest.mark.integration
MakeSpec = Callable[..., JobSpec]


def load_double(spec: JobSpec) -> Any:
    """The tiny model in float64 with a LoRA that is not zero."""
    import torch

    from finetune.model import load

    model = load(spec, torch.device("cpu")).double()
    torch.manual_seed(3)
    for name, param in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(param, std=0.1)
    for module in model.modules():
        if type(module).__name__ == "LlamaRMSNorm":
            module.forward = functools.partial(norm_in_float64, module)
    return model.train()


def as_peft(model: Any) -> Any:
    """The same model with peft's own layers."""
    from peft.tuners.lora.layer import Linear

    from finetune.lora import LeanLinear

    for module in model.modules():
        if type(module) is LeanLinear:
            module.__class__ = Linear
    return model


def gradients(model: Any, spec: JobSpec) -> tuple[float, dict[str, Any]]:
    import transformers

    from finetune.step import accumulate

    tokenizer = transformers.AutoTokenizer.from_pretrained(spec.base_folder)
    loss = accumulate(model.get_base_model(), [encode_row(tokenizer, row) for row in make_rows(4)], 4096).loss
    return loss, {name: param.grad for name, param in model.named_parameters() if param.grad is not None}


def test_loss_and_every_gradient_equal_those_of_peft(make_spec: MakeSpec, monkeypatch):
    import torch

    from finetune import layers
    from finetune.lora import LeanLinear

    monkeypatch.setattr(layers, "label_hidden", lambda model, pack: None)  # those call no linear layer
    spec = make_spec()
    lean, plain = load_double(spec), as_peft(load_double(spec))
    assert sum(type(module) is LeanLinear for module in lean.modules()) == 14  # seven a layer
    assert not any(type(module) is LeanLinear for module in plain.modules())
    loss, found = gradients(lean, spec)
    expected_loss, expected = gradients(plain, spec)
    assert loss == pytest.approx(expected_loss, rel=1e-9)
    assert len(found) == 28
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        assert gradient.abs().max() > 0
        torch.testing.assert_close(found[name], gradient, rtol=1e-8, atol=1e-11)


def test_dropout_and_a_switched_off_adapter_go_pefts_way(make_spec: MakeSpec):
    import torch

    spec = make_spec(recipe=Recipe(rank=4, dropout=0.5))
    lean, plain = load_double(spec), as_peft(load_double(spec))
    ids = torch.tensor([[5, 6, 7, 8]])
    found = []
    for model in (lean, plain):
        torch.manual_seed(1)
        dropped = model(input_ids=ids).logits
        with model.disable_adapter():
            found.append((dropped, model(input_ids=ids).logits, model.eval()(input_ids=ids).logits))
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)
    dropped, off, on = found[0]
    assert not torch.allclose(dropped, off)
    assert torch.allclose(off, on)  # `on` was asked inside disable_adapter, too


def test_parameters_keep_pefts_names(make_spec: MakeSpec):
    import peft
    import torch

    from finetune.model import load

    model = load(make_spec(), torch.device("cpu"))
    names = set(peft.get_peft_model_state_dict(model))
    assert "base_model.model.model.layers.1.mlp.down_proj.lora_B.weight" in names
    assert len(names) == 28


def test_a_lora_begun_anew_is_a_fresh_one_of_that_seed(make_spec: MakeSpec):
    import torch

    from finetune.model import load, reset_lora

    used = load(make_spec(recipe=Recipe(rank=4, seed=1)), torch.device("cpu"))
    fresh = load(make_spec(recipe=Recipe(rank=4, seed=7)), torch.device("cpu"))
    for param in used.parameters():
        if param.requires_grad:
            torch.nn.init.ones_(param)
    reset_lora(used, 7)
    pairs = list(zip(used.named_parameters(), fresh.named_parameters(), strict=True))
    assert all(torch.equal(one, other) for (_, one), (_, other) in pairs)
    assert any(param.abs().max() > 0 for (name, param), _ in pairs if "lora_A" in name)

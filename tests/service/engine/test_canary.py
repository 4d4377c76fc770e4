"""An adapter's canary on an engine of another precision than its trainer's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from finetune.adapter import Base, Canary, Manifest, base_digest, write
from prompts.errors import BadInput
from service.engine.adapters import read_adapter

pytestmark = pytest.mark.integration
IDS = (1, 5, 9)


@pytest.mark.parametrize(
    ("trained", "rounding", "engine", "allowed"),
    [("float32", None, "float32", 0.01), ("float32", None, "bfloat16", 0.5), ("bfloat16", None, "float32", 0.5),
     ("bfloat16", 0.07, "float32", 0.28), ("bfloat16", 0.07, "bfloat16", 0.28), ("bfloat16", 0.0, "float32", 0.01)],
)  # fmt: skip
def test_the_coarser_precision_decides_how_far_logits_may_be_off(
    trained: Any, rounding: float | None, engine: str, allowed: float
) -> None:
    import torch

    from service.engine.canary import tolerance

    canary = Canary(ids=IDS, logits=(0.0,), base_logits=(0.0,), precision=trained, rounding=rounding)
    assert tolerance(canary, getattr(torch, engine)) == pytest.approx(allowed)


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # peft 0.21's call
def test_an_adapter_trained_in_bf16_loads_on_an_engine_in_fp32(
    generator: Any, adapters_dir: Path, tiny_folder: Path
) -> None:
    red = adapters_dir / "red"
    exact = canary_of(tiny_folder, red)
    off = {"logits": tuple(one + 0.05 for one in exact.logits), "precision": "bfloat16", "rounding": 0.02}
    install(generator, red, exact.model_copy(update=off), tiny_folder, "half")
    assert "half" in generator.adapters
    with pytest.raises(BadInput, match=r"its logits on the canary are off by 0\.05, allowed is 0\.04"):
        install(generator, red, exact.model_copy(update={**off, "rounding": 0.01}), tiny_folder, "worse")
    with pytest.raises(BadInput, match=r"off by 0\.05, allowed is 0\.01"):
        install(generator, red, exact.model_copy(update={"logits": off["logits"]}), tiny_folder, "full")


def install(generator: Any, like: Path, canary: Canary, base: Path, name: str) -> None:
    """Write an adapter with the weights of `like` beside it, and load it."""
    config = json.loads((like / "adapter_config.json").read_text())
    manifest = Manifest(name=name, base=Base(name="tiny", digest=base_digest(base)), canary=canary)
    write(like.parent / name, (like / "adapter_model.safetensors").read_bytes(), config, manifest)
    generator.load_adapter(name, read_adapter(like.parent / name, like.parent)).result(60)


def canary_of(base: Path, folder: Path) -> Canary:
    """What transformers and peft compute with the adapter in `folder`, and without."""
    import peft
    import torch
    import transformers

    model = transformers.AutoModelForCausalLM.from_pretrained(base).eval()
    ids = torch.tensor([IDS])
    with torch.no_grad():
        without = model(input_ids=ids).logits[0, -1, :16].tolist()
        with_it = peft.PeftModel.from_pretrained(model, folder).eval()(input_ids=ids).logits[0, -1, :16].tolist()
    return Canary(ids=IDS, logits=tuple(with_it), base_logits=tuple(without))

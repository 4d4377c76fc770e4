from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.tiny_model import make_tiny_model

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("tiny") / "model", teachable=False)


@pytest.fixture(scope="session")
def make_lora(tiny_folder: Path) -> Callable[..., Path]:
    """Write a LoRA with random A and B to a folder, as PEFT saves it."""

    def make(folder: Path, *, seed: int = 1, scale: float = 0.5) -> Path:
        import warnings

        import torch
        from peft import LoraConfig, get_peft_model
        from transformers import AutoModelForCausalLM

        torch.manual_seed(seed)
        base = AutoModelForCausalLM.from_pretrained(tiny_folder)
        config = LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj", "down_proj"], task_type="CAUSAL_LM")
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated")  # peft 0.21's call
            model = get_peft_model(base, config)
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=scale)
        model.save_pretrained(folder)
        return folder

    return make


@pytest.fixture
def adapters_dir(tmp_path: Path, make_lora: Callable[..., Path]) -> Path:
    """An adapters folder with `red` and `blue`, and a copy of `red` outside of it."""
    make_lora(tmp_path / "adapters" / "red", seed=1)
    make_lora(tmp_path / "adapters" / "blue", seed=2)
    make_lora(tmp_path / "outside", seed=1)
    return tmp_path / "adapters"


@pytest.fixture(autouse=True)
def importable_in_children(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


@pytest.fixture
def edit_json() -> Callable[..., None]:
    def edit(path: Path, **changes: Any) -> None:
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))

    return edit


@pytest.fixture
def generator(tiny_folder: Path) -> Iterator[Any]:
    import torch

    from service.engine.core import Generator
    from service.engine.limits import Limits
    from service.engine.model import LoadedModel

    made = Generator(LoadedModel(tiny_folder, torch.device("cpu")), Limits(rows=6))
    made.start()
    yield made
    made.stop()

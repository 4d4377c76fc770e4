from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import pytest

from prompts.errors import BadInput
from service.engine.adapters import read_adapter

pytestmark = pytest.mark.integration  # PEFT writes the adapters


def test_a_lora_as_peft_saves_it_is_read(adapters_dir: Path) -> None:
    files = read_adapter(str(adapters_dir / "red"), adapters_dir)
    assert (files.rank, files.alpha, files.target_modules) == (4, 8.0, ("down_proj", "q_proj", "v_proj"))
    assert read_adapter("red", adapters_dir) == files


def test_a_pickle_beside_the_weights_is_refused(adapters_dir: Path) -> None:
    (adapters_dir / "red" / "adapter_model.bin").write_bytes(pickle.dumps({}))
    with pytest.raises(BadInput, match=r"red: it holds 'adapter_model.bin'.*leave only"):
        read_adapter("red", adapters_dir)


def test_a_pickle_named_safetensors_is_refused(adapters_dir: Path) -> None:
    (adapters_dir / "red" / "adapter_model.safetensors").write_bytes(pickle.dumps({"a": 1}))
    with pytest.raises(BadInput, match="not a safetensors file"):
        read_adapter("red", adapters_dir)


@pytest.mark.parametrize("path", ["../outside", "red/../../outside", "/etc", ".", ""])
def test_a_path_out_of_the_adapters_folder_is_refused(adapters_dir: Path, path: str) -> None:
    with pytest.raises(BadInput, match="outside of the adapters folder"):
        read_adapter(path, adapters_dir)


def test_a_link_out_of_the_adapters_folder_is_refused(adapters_dir: Path) -> None:
    (adapters_dir / "sly").symlink_to(adapters_dir.parent / "outside")
    with pytest.raises(BadInput, match="outside of the adapters folder"):
        read_adapter("sly", adapters_dir)


def test_a_linked_file_is_refused(adapters_dir: Path) -> None:
    weights = adapters_dir / "red" / "adapter_model.safetensors"
    weights.unlink()
    weights.symlink_to(adapters_dir / "blue" / "adapter_model.safetensors")
    with pytest.raises(BadInput, match="plain files"):
        read_adapter("red", adapters_dir)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("auto_mapping", {"parent_library": "os", "base_model_class": "x"}),
        ("megatron_config", {"a": 1}),
        ("modules_to_save", ["lm_head"]),
        ("target_modules", "(a+)+$"),
        ("target_modules", []),
        ("rank_pattern", {"(a+)+$": 4}),
        ("use_dora", True),
        ("peft_type", "IA3"),
        ("r", 10**9),
        ("r", True),
        ("lora_alpha", "8"),
        ("something_new", 1),
    ],
)
def test_a_configuration_beyond_a_plain_lora_is_refused(
    adapters_dir: Path, edit_json: Callable[..., None], key: str, value: object
) -> None:
    edit_json(adapters_dir / "red" / "adapter_config.json", **{key: value})
    with pytest.raises(BadInput, match=r"adapter_config\.json"):
        read_adapter("red", adapters_dir)

"""Models as people bring them: what is not whole is refused at the start, in words."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from prompts.errors import BadInput
from service.engine.model_files import check_model_folder
from service.errors import CannotRun

pytestmark = pytest.mark.integration  # a tiny model


@pytest.fixture
def own(tiny_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_folder, tmp_path / "own"))


def load(folder: Path) -> Any:
    import torch

    from service.engine.model import LoadedModel

    return LoadedModel(folder, torch.device("cpu"))


def test_weights_that_lack_a_layer_are_refused_not_made_up(own: Path) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(own / "model.safetensors")
    del weights["model.layers.0.self_attn.q_proj.weight"]
    save_file(weights, own / "model.safetensors", {"format": "pt"})
    with pytest.raises(CannotRun, match=r"its weights lack model\.layers\.0\.self_attn\.q_proj\.weight; get it anew"):
        load(own)


@pytest.mark.parametrize("keep", [3, 200])
def test_a_file_of_weights_that_ends_too_early_is_refused(own: Path, keep: int) -> None:
    weights = own / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:keep])
    with pytest.raises(CannotRun, match=f"the model in {own} cannot be loaded: "):
        load(own)


def test_a_folder_without_a_tokenizer_is_refused(own: Path) -> None:
    (own / "tokenizer.json").unlink()
    with pytest.raises(BadInput, match="holds no tokenizer"):
        check_model_folder(own)


def test_a_model_that_does_not_say_how_far_it_reads_is_refused(own: Path, edit_json: Callable[..., None]) -> None:
    edit_json(own / "config.json", max_position_embeddings=0)
    with pytest.raises(CannotRun, match="max_position_embeddings"):
        load(own)


def test_a_family_whose_heads_all_have_keys_of_their_own_is_answered(own: Path) -> None:
    import torch
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

    from service.engine.asks import Ask
    from service.engine.core import Generator
    from service.engine.limits import Limits

    torch.manual_seed(0)
    vocabulary = json.loads((own / "config.json").read_text())["vocab_size"]
    config = GPTNeoXConfig(
        vocab_size=vocabulary, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64,
        max_position_embeddings=256, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    (own / "model.safetensors").unlink()
    GPTNeoXForCausalLM(config).save_pretrained(own)
    model = load(own)
    assert model.bytes_per_token == 2 * 2 * 32 * 4  # keys and values, layers, width, bytes
    generator = Generator(model, Limits())
    generator.start()
    try:
        asked = Ask(({"role": "user", "content": "hello"},), max_tokens=4, temperature=0)
        assert generator.submit(asked).result(60).completion_tokens > 0
        assert generator.alive
    finally:
        generator.stop()


@pytest.mark.parametrize("name", ["max_position_embeddings", "n_positions", "max_seq_len", "seq_length"])
def test_how_far_a_model_reads_has_several_names(name: str) -> None:
    from finetune.plan.reach import context_tokens

    assert context_tokens({name: 512}) == 512

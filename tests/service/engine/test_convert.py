"""GGUF files made here, converted: the same logits, and text cut as the family's own tokenizer cuts it."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from service.engine.convert import convert, main, mend_tokenizer
from service.engine.converting import BAD_FILE
from tests.tiny_model import make_tiny_model

pytestmark = pytest.mark.integration

COMPOSED = "é"
EXTRA = ["hello", "12"]  # beyond the bytes: a word that no merge leads to, and what the one merge leads to
Make = Callable[[str], Path]


def byte_letters(text: str) -> str:
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    return "".join(bytes_to_unicode()[byte] for byte in text.encode())


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("tiny") / "model", teachable=False)


@pytest.fixture(scope="module")
def gguf_of(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Make:
    """Write the tiny Llama as a GGUF whose tokenizer cuts text by the name given."""
    import gguf
    import torch
    from transformers import AutoModelForCausalLM

    network = AutoModelForCausalLM.from_pretrained(tiny)
    config = network.config
    held = json.loads((tiny / "tokenizer.json").read_text())
    tokens = [token for token, _ in sorted(held["model"]["vocab"].items(), key=lambda item: item[1])]
    tokens += [byte_letters(word) for word in EXTRA]

    def make(cut: str) -> Path:
        path = tmp_path_factory.mktemp("gguf") / f"{cut}.gguf"
        writer = gguf.GGUFWriter(path, "llama")
        writer.add_license("mit")
        writer.add_context_length(config.max_position_embeddings)
        writer.add_embedding_length(config.hidden_size)
        writer.add_block_count(config.num_hidden_layers)
        writer.add_feed_forward_length(config.intermediate_size)
        writer.add_head_count(config.num_attention_heads)
        writer.add_head_count_kv(config.num_key_value_heads)
        writer.add_layer_norm_rms_eps(config.rms_norm_eps)
        writer.add_rope_freq_base(10000.0)
        writer.add_vocab_size(len(tokens))
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre(cut)
        writer.add_token_list(tokens)
        writer.add_token_types([gguf.TokenType.CONTROL] * 3 + [gguf.TokenType.NORMAL] * (len(tokens) - 3))
        writer.add_token_merges(["1 2"])
        writer.add_bos_token_id(1)
        writer.add_eos_token_id(2)
        writer.add_chat_template("{% for m in messages %}{{ m.content }}<|im_end|>{% endfor %}")
        for name, tensor in weights(network, len(tokens), torch).items():
            writer.add_tensor(name, tensor)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return path

    return make


def weights(network: Any, vocabulary: int, torch: Any) -> dict[str, Any]:
    """By llama.cpp's names; queries and keys in its order of the rotated halves."""
    state, config = network.state_dict(), network.config
    embedded = torch.zeros(vocabulary, config.hidden_size)
    embedded[: config.vocab_size] = state["model.embed_tokens.weight"]
    found = {"token_embd.weight": embedded, "output_norm.weight": state["model.norm.weight"]}
    parts = {
        "attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm", "attn_q": "self_attn.q_proj",
        "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj",
        "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj",
    }  # fmt: skip
    heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}
    for layer in range(config.num_hidden_layers):
        for theirs, ours in parts.items():
            tensor = state[f"model.layers.{layer}.{ours}.weight"]
            if theirs in heads:
                out, width = tensor.shape
                halves = tensor.reshape(heads[theirs], 2, out // heads[theirs] // 2, width)
                tensor = halves.swapaxes(1, 2).reshape(out, width)
            found[f"blk.{layer}.{theirs}.weight"] = tensor
    return {name: tensor.contiguous().float().numpy() for name, tensor in found.items()}


def test_a_converted_model_computes_the_same_and_has_its_licence(
    tiny: Path, gguf_of: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    (tmp_path / "made").mkdir()
    convert(gguf_of("llama-bpe"), tmp_path / "made")
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines() if line.startswith("{")]
    assert (told[-1]["stage"], told[-1]["licence"]) == ("done", "mit")
    before, after = (AutoModelForCausalLM.from_pretrained(folder) for folder in (tiny, tmp_path / "made"))
    ids = torch.tensor([[1, 70, 80, 90, 2]])
    with torch.no_grad():
        expected, found = before(ids).logits, after(ids).logits
    torch.testing.assert_close(found[..., : expected.shape[-1]], expected, rtol=1e-5, atol=1e-5)
    assert list((tmp_path / "made").glob("*.safetensors"))
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "made")
    assert tokenizer("hello")["input_ids"] == [259]  # Llama 3 takes a whole word before it merges
    assert tokenizer("<|im_end|>")["input_ids"] == [2]


def tokenizer_of(gguf: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)


def test_qwen_composes_accents_and_smollm_cuts_digits(gguf_of: Make) -> None:
    qwen, smollm = tokenizer_of(gguf_of("qwen2")), tokenizer_of(gguf_of("smollm"))
    apart = unicodedata.normalize("NFD", COMPOSED)
    assert qwen(apart)["input_ids"] != qwen(COMPOSED)["input_ids"]
    mend_tokenizer(qwen, {"tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": "qwen2"})
    assert qwen(apart)["input_ids"] == qwen(COMPOSED)["input_ids"]
    assert len(smollm("12")["input_ids"]) == 1
    mend_tokenizer(smollm, {"tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": "smollm"})
    assert len(smollm("12")["input_ids"]) == 2


@pytest.mark.parametrize("share", [0.3, 0.95], ids=["within its head", "within its tensors"])
def test_a_file_that_ends_too_early_is_said_to_be(gguf_of: Make, tmp_path: Path, share: float) -> None:
    whole = gguf_of("smollm").read_bytes()
    part = tmp_path / "part.gguf"
    part.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(ValueError, match="not fetched whole: fetch it again"):
        convert(part, tmp_path / "made")


def test_a_damaged_file_is_refused_for_good_and_a_disk_that_cannot_be_written_is_not(
    gguf_of: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = gguf_of("smollm")
    (tmp_path / "part.gguf").write_bytes(whole.read_bytes()[:5000])
    assert main([str(tmp_path / "part.gguf"), str(tmp_path / "made")]) == BAD_FILE
    (tmp_path / "file").touch()
    assert main([str(whole), str(tmp_path / "file" / "made")]) == 1
    assert "fetch it again" in capsys.readouterr().err


def test_text_that_is_cut_in_an_unknown_way_is_refused(gguf_of: Make, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"cuts text by 'hitherto-unknown'.*take the model's safetensors"):
        convert(gguf_of("hitherto-unknown"), tmp_path)


@pytest.mark.parametrize(
    ("about", "said"),
    [
        ({"tokenizer.ggml.tokens": ["<|im_end|>"], "tokenizer.ggml.token_type": [3]}, "number 0, and 2"),
        ({"tokenizer.ggml.eos_token_id": 1}, "end token has the number 1, and 2"),
    ],
)
def test_a_special_token_with_another_number_is_refused(gguf_of: Make, about: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        mend_tokenizer(tokenizer_of(gguf_of("llama-bpe")), about)

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch

from finetune import adapter, durable
from finetune.adapter.exporting import ExportSpec, export_peft
from finetune.export import check, gguf_lora, gguf_model, modelfile, run
from finetune.export.families import Layout
from finetune.export.vocabulary import read_vocabulary
from finetune.export.weights import read_lora
from prompts.errors import BadInput
from tests.finetune.export_models import make_adapter, make_model, set_config

IDS = [1, 9, 30, 44, 71, 102, 9, 15]


@pytest.fixture(scope="session", params=["llama", "qwen2", "mistral"])
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A base model and an adapter of it."""
    folder = tmp_path_factory.mktemp(request.param)
    base = make_model(folder / f"tiny-{request.param}", request.param)
    return base, make_adapter(folder / "adapter", base)


@pytest.fixture(scope="session")
def llama(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("one")
    base = make_model(folder / "tiny", "llama")
    return base, make_adapter(folder / "adapter", base)


def spec_of(pair: tuple[Path, Path], target: Path, format_name: str, **changes: Any) -> ExportSpec:
    base, trained = pair
    known: dict[str, Any] = {"adapter_folder": trained, "base_folder": base, "target": target, "format": format_name}
    return ExportSpec(**{**known, "base_name": "org/tiny", "card": "# tiny\n", **changes})


def logits_of(pair: tuple[Path, Path]) -> torch.Tensor:
    return check.reference(*pair, IDS)[0]


@pytest.mark.integration
def test_the_peft_form_loads_in_peft_and_gives_the_same_logits(pair: tuple[Path, Path], tmp_path: Path):
    about = export_peft(spec_of(pair, tmp_path / "out", "peft"), adapter.verify(pair[1]))
    assert torch.equal(check.reference(pair[0], tmp_path / "out", IDS)[0], logits_of(pair))
    config = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "org/tiny"
    assert (tmp_path / "out" / "chat_template.jinja").is_file()
    assert about["files"]["adapter_model.safetensors"] == durable.sha256_of(pair[1] / "adapter_model.safetensors")


@pytest.mark.integration
def test_merged_weights_give_the_logits_of_base_and_adapter(pair: tuple[Path, Path], tmp_path: Path):
    about = run.export(spec_of(pair, tmp_path / "out", "merged"))
    torch.testing.assert_close(check.of_folder(tmp_path / "out", IDS), logits_of(pair), atol=2e-4, rtol=1e-4)
    assert about["out_type"] == "f32"
    assert about["check"]["adapter_effect"] > 1.0


@pytest.mark.integration
@pytest.mark.parametrize(("out_type", "off"), [("f32", 2e-4), ("f16", 0.05)])
def test_a_gguf_read_back_gives_the_logits_of_base_and_adapter(
    pair: tuple[Path, Path], tmp_path: Path, out_type: str, off: float
):
    run.export(spec_of(pair, tmp_path / "out", "gguf", out_type=out_type))
    found = check.of_gguf(tmp_path / "out" / "model.gguf", pair[0], IDS)
    torch.testing.assert_close(found, logits_of(pair), atol=off, rtol=off)
    assert (tmp_path / "out" / "Modelfile").read_text().startswith("# tiny-1")


@pytest.mark.integration
def test_a_gguf_tells_its_family_and_every_token(pair: tuple[Path, Path], tmp_path: Path):
    run.export(spec_of(pair, tmp_path / "out", "gguf"))
    fields = gguf.GGUFReader(tmp_path / "out" / "model.gguf").fields
    config = json.loads((pair[0] / "config.json").read_text())
    arch = "qwen2" if config["model_type"] == "qwen2" else "llama"
    assert fields["general.architecture"].contents() == arch
    assert fields[f"{arch}.attention.head_count_kv"].contents() == 2
    held = json.loads((pair[0] / "tokenizer.json").read_text())
    tokens = fields["tokenizer.ggml.tokens"].contents()
    assert len(tokens) == config["vocab_size"]
    assert {text: tokens.index(text) for text in held["model"]["vocab"]} == held["model"]["vocab"]
    assert fields["tokenizer.chat_template"].contents() == adapter.chat_template(pair[0])


def test_the_llama_family_is_laid_out_in_pairs_and_qwen_is_not(tmp_path: Path, llama: tuple[Path, Path]):
    config = json.loads((llama[0] / "config.json").read_text())
    rows = torch.arange(48.0).reshape(48, 1)
    laid = Layout.of(config).laid_out("model.layers.0.self_attn.q_proj.weight", rows)
    assert laid[:6, 0].tolist() == [0.0, 6.0, 1.0, 7.0, 2.0, 8.0]  # 4 heads of 12: neighbours turn together
    assert torch.equal(Layout.of(config).laid_out("model.layers.0.self_attn.v_proj.weight", rows), rows)
    qwen = Layout.of({**config, "model_type": "qwen2"})
    assert torch.equal(qwen.laid_out("model.layers.0.self_attn.q_proj.weight", rows), rows)


def test_a_gguf_lora_holds_the_pairs_by_llama_cpps_names(pair: tuple[Path, Path], tmp_path: Path):
    run.export(spec_of(pair, tmp_path / "out", "gguf-lora"))
    reader = gguf.GGUFReader(tmp_path / "out" / "adapter.gguf")
    assert reader.fields["general.type"].contents() == "adapter"
    assert reader.fields["adapter.type"].contents() == "lora"
    assert reader.fields["adapter.lora.alpha"].contents() == 8.0
    tensors = {tensor.name: tensor.data for tensor in reader.tensors}
    given = read_lora(pair[1]).pairs["model.layers.1.mlp.down_proj"]
    assert np.array_equal(tensors["blk.1.ffn_down.weight.lora_a"], given.a.numpy())
    assert np.array_equal(tensors["blk.1.ffn_down.weight.lora_b"], given.b.numpy())
    assert len(tensors) == 2 * 2 * 7


def test_a_gguf_lora_names_the_licence_of_its_base(llama: tuple[Path, Path], tmp_path: Path):
    about = gguf_model.About("tiny-1", "org/tiny", "apache-2.0")
    layout = Layout.of(json.loads((llama[0] / "config.json").read_text()))
    gguf_lora.write(read_lora(llama[1]), layout, about, tmp_path / "a.gguf", "f32")
    assert gguf.GGUFReader(tmp_path / "a.gguf").fields["general.license"].contents() == "apache-2.0"


@pytest.mark.integration
def test_rank_stabilised_scaling_is_kept(tmp_path: Path, llama: tuple[Path, Path]):
    stabilised = make_adapter(tmp_path / "rs", llama[0], use_rslora=True)
    run.export(spec_of((llama[0], stabilised), tmp_path / "merged", "merged"))  # checked against peft's own
    run.export(spec_of((llama[0], stabilised), tmp_path / "lora", "gguf-lora"))
    field = gguf.GGUFReader(tmp_path / "lora" / "adapter.gguf").fields["adapter.lora.alpha"]
    assert field.contents() == pytest.approx(16.0)  # 8 / sqrt(4) · 4


@pytest.mark.integration
def test_half_precision_is_written_where_it_is_asked_for(tmp_path: Path, llama: tuple[Path, Path]):
    run.export(spec_of(llama, tmp_path / "out", "merged", out_type="f16"))
    header = adapter.tensor_header(tmp_path / "out" / "model.safetensors")
    assert {entry["dtype"] for entry in header.values()} == {"F16"}
    assert json.loads((tmp_path / "out" / "config.json").read_text())["dtype"] == "float16"


def test_llama3_frequencies_are_written(llama: tuple[Path, Path]):
    config = json.loads((llama[0] / "config.json").read_text())
    rope = {"rope_type": "llama3", "rope_theta": 500_000.0, "factor": 8.0, "low_freq_factor": 1.0,
            "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}  # fmt: skip
    factors = Layout.of({**config, "head_dim": 128, "rope_parameters": rope}).rope_factors()
    from transformers import LlamaConfig
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    whole = LlamaConfig(head_dim=128, rope_parameters=rope, max_position_embeddings=131_072)
    scaled, _ = ROPE_INIT_FUNCTIONS["llama3"](whole, torch.device("cpu"))
    plain = 500_000.0 ** -(torch.arange(0, 128, 2, dtype=torch.float64) / 128)
    torch.testing.assert_close(torch.from_numpy(factors).double(), plain / scaled.double(), rtol=1e-5, atol=1e-5)
    assert (factors.min(), factors.max()) == (1.0, 8.0)


# ------------------------------------------------------------------------------------------------ refusals


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"model_type": "gemma3"}, "no GGUF of model_type 'gemma3'"),
        ({"rope_parameters": {"rope_type": "yarn", "factor": 2.0}}, "rotary positions of type 'yarn'"),
        ({"use_sliding_window": True}, "sliding window"),
        ({"quantization_config": {"quant_method": "gptq"}}, r"quantised \(gptq\)"),
    ],
)
def test_what_cannot_be_written_is_refused_by_name(
    tmp_path: Path, llama: tuple[Path, Path], changes: dict[str, Any], told: str
):
    base = shutil.copytree(llama[0], tmp_path / "base")
    set_config(base, **changes)
    trained = shutil.copytree(llama[1], tmp_path / "trained")
    _trained_on(trained, base)
    with pytest.raises(BadInput, match=told):
        run.export(spec_of((base, trained), tmp_path / "out", "gguf"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["base", "trained"]


def _trained_on(trained: Path, base: Path) -> None:
    """Let an adapter's manifest name another base."""
    held = json.loads((trained / adapter.MANIFEST).read_text())
    held["base"] = adapter.describe_base(base).model_dump()
    (trained / adapter.MANIFEST).write_text(json.dumps(held))


def test_an_unknown_pre_tokenizer_is_refused(tmp_path: Path, llama: tuple[Path, Path]):
    base = shutil.copytree(llama[0], tmp_path / "base")
    held = json.loads((base / "tokenizer.json").read_text())
    held["pre_tokenizer"] = {"type": "Whitespace"}
    (base / "tokenizer.json").write_text(json.dumps(held))
    with pytest.raises(BadInput, match=r"a pre-tokenizer that llama\.cpp has no name for"):
        read_vocabulary(base, 259)


@pytest.mark.parametrize(("file", "what"), [("config.json", "weights"), ("tokenizer.json", "tokenizer")])
def test_another_base_is_refused_with_both_digests(tmp_path: Path, llama: tuple[Path, Path], file: str, what: str):
    base = shutil.copytree(llama[0], tmp_path / "base")
    (base / file).write_text((base / file).read_text() + "\n")
    trained = adapter.describe_base(llama[0])
    wanted = trained.digest if what == "weights" else trained.tokenizer
    now = adapter.base_digest(base) if what == "weights" else adapter.tokenizer_digest(base)
    with pytest.raises(BadInput, match=what) as found:
        run.export(spec_of((base, llama[1]), tmp_path / "out", "merged"))
    assert wanted in str(found.value)
    assert now in str(found.value)


def test_another_chat_template_is_refused(tmp_path: Path, llama: tuple[Path, Path]):
    base = shutil.copytree(llama[0], tmp_path / "base")
    (base / "chat_template.jinja").write_text("{{ messages }}")
    with pytest.raises(BadInput, match="chat template"):
        adapter.check_base(adapter.verify(llama[1]), base)


@pytest.mark.integration
def test_a_failed_canary_leaves_nothing(tmp_path: Path, llama: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Layout, "laid_out", lambda _self, _tensor, rows: rows)  # the order of transformers
    with pytest.raises(check.CanaryFailed, match="nothing was kept"):
        run.export(spec_of(llama, tmp_path / "out", "gguf"))
    assert list(tmp_path.iterdir()) == []


def test_a_target_that_exists_is_refused(tmp_path: Path, llama: tuple[Path, Path]):
    spec = spec_of(llama, tmp_path / "out", "gguf-lora")
    run.export(spec)
    with pytest.raises(BadInput, match="exists already: name a new folder, or add --force"):
        run.export(spec)
    again = spec.model_copy(update={"force": True, "out_type": "f16"})
    assert run.export(again)["out_type"] == "f16"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]


def test_force_replaces_exports_alone(tmp_path: Path, llama: tuple[Path, Path]):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("x")
    with pytest.raises(BadInput, match="is not an export of Turnout"):
        run.export(spec_of(llama, tmp_path / "mine", "gguf-lora", force=True))
    (tmp_path / "link").symlink_to(tmp_path / "mine")
    with pytest.raises(BadInput, match="a link or a file"):
        run.export(spec_of(llama, tmp_path / "link", "gguf-lora", force=True))
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "x"


def test_a_disk_without_room_is_told_before_anything_is_written(
    tmp_path: Path, llama: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
):
    usage = type(shutil.disk_usage(tmp_path))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(100, 99, 1))
    with pytest.raises(durable.DiskFullError, match="no room in"):
        run.export(spec_of(llama, tmp_path / "out", "merged"))
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_fills_up_leaves_nothing(
    tmp_path: Path, llama: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, raise_enospc: Callable[..., Any]
):
    monkeypatch.setattr(run.merged, "write", raise_enospc)
    with pytest.raises(durable.DiskFullError):
        run.export(spec_of(llama, tmp_path / "out", "merged"))
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def raise_enospc() -> Callable[..., Any]:
    import errno

    def fail(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    return fail


# ------------------------------------------------------------------------------------------------ Ollama


class Template:
    """A tokenizer of which the chat template alone is asked."""

    eos_token, bos_token = "<|im_end|>", "<s>"

    def __init__(self, text: str) -> None:
        import jinja2

        self._template = jinja2.Environment().from_string(text)  # noqa: S701 - no page is made of it

    def apply_chat_template(self, messages: Any, *, tokenize: bool, add_generation_prompt: bool) -> str:
        assert not tokenize
        return self._template.render(messages=messages, add_generation_prompt=add_generation_prompt)


CHATML = (
    "{% for m in messages %}{% if loop.first and m['role'] != 'system' %}<|im_start|>system\nBe kind.<|im_end|>\n{% endif %}"
    "<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def test_a_chat_template_becomes_one_of_gos():
    frame = modelfile.frame_of(Template(CHATML))
    assert frame is not None
    assert frame.opening == "<|im_start|>system\nBe kind.<|im_end|>\n"
    assert frame.behind == dict.fromkeys(modelfile.ROLES, "<|im_end|>\n")
    assert frame.in_go("") == (
        '{{ if ne (index .Messages 0).Role "system" }}<|im_start|>system\nBe kind.<|im_end|>\n{{ end }}'
        '{{ range .Messages }}{{ if eq .Role "system" }}<|im_start|>system\n{{ .Content }}<|im_end|>\n'
        '{{ else if eq .Role "user" }}<|im_start|>user\n{{ .Content }}<|im_end|>\n'
        '{{ else if eq .Role "assistant" }}<|im_start|>assistant\n{{ .Content }}<|im_end|>\n{{ end }}{{ end }}'
        "<|im_start|>assistant\n"
    )


@pytest.mark.parametrize(
    "text",
    [
        "{{ raise('no') }}",
        "{% for m in messages %}{{ loop.index }}{{ m['role'] }}{{ m['content'] }}{% endfor %}",
        "{% for m in messages %}{% if not loop.first %}[{{ m['content'] }}]{% endif %}{% endfor %}",
    ],
)
def test_a_chat_template_of_another_form_is_left_to_ollama(text: str):
    assert modelfile.frame_of(Template(text)) is None
    assert "TEMPLATE" not in modelfile.modelfile(Template(text), "x", file="model.gguf", adds_bos=False)

"""`turnout models`: the list, pulls, removals, and small models that are added."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from prompts.errors import BadInput
from service.cli.adding import with_model
from service.cli.main import run
from service.engine.about import about
from service.engine.presets import PRESETS

CONFIG = {"model_type": "phi3", "max_position_embeddings": 131072, "sliding_window": 2047}
CONFIG["rope_scaling"] = {"type": "longrope", "long_factor": [2.0], "short_factor": [1.0]}
CONFIG["original_max_position_embeddings"] = 4096
CARD = "---\nlanguage:\n  - en\nlicense: other\nlicense_name: 'tiny-open'\n---\nlicense: mit\n"
Made = Callable[..., Path]


def write_safetensors(path: Path, **shapes: list[int]) -> None:
    header, at = {}, 0
    for name, shape in shapes.items():
        size = 2 * shape[0] * shape[1]
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(at))


@pytest.fixture
def own(tmp_path: Path) -> Path:
    folder = tmp_path / "own"
    folder.mkdir()
    write_safetensors(folder / "model.safetensors", a=[10, 20], b=[5, 2])
    (folder / "config.json").write_text(json.dumps(CONFIG))
    (folder / "tokenizer.json").write_text("{}")
    (folder / "README.md").write_text(CARD)
    return folder


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Made:
    """Write turnout.yaml and go there; the cache of models is `cache` beside it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TURNOUT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TURNOUT_HOME", str(tmp_path / "home"))

    def write(models: str) -> Path:
        (tmp_path / "turnout.yaml").write_text(models)
        return tmp_path / "turnout.yaml"

    return write


def test_a_model_is_described_from_its_files(own: Path) -> None:
    found = about(own)
    assert (found.parameters, found.dtype, found.family) == (210, "bf16", "phi3")
    assert (found.context_tokens, found.window_tokens) == (4096, 2047)  # where longrope changes its angles
    assert (found.licence, found.digest_of) == ("tiny-open", "samples")
    assert found.size_bytes == sum(path.stat().st_size for path in own.iterdir())


def test_the_list_says_what_is_here_and_what_is_not(own: Path, project: Made, capsys: Any) -> None:
    project(
        "models:\n"
        "  own: {engine: local, source: 'path:own'}\n"
        "  far: {engine: vllm, base_url: 'http://127.0.0.1:9/v1'}\n"
        "  gone: {engine: local, source: 'path:nowhere'}\n"
    )
    assert run(["models", "--json"]) == 0
    rows = {row["alias"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows["own"]["state"] == "here"
    assert rows["own"]["parameters"] == 210
    assert rows["own"]["folder"] == str(own)
    assert rows["far"] == {
        "alias": "far", "engine": "vllm", "tunable": False, "state": "remote",
        "base_url": "http://127.0.0.1:9/v1", "model": "far",
    }  # fmt: skip
    assert rows["gone"]["state"].startswith("bad: model folder")
    assert rows["smollm2-135m"]["state"] == "not pulled"
    assert run(["models", "--check", "--json"]) == 0
    rows = {row["alias"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows["far"]["state"] == "unreachable"


def test_a_model_that_is_not_whole_is_called_bad_with_what_is_wrong(own: Path, project: Made, capsys: Any) -> None:
    project(
        "models:\n  own: {engine: local, source: 'path:own'}\n  file: {engine: local, source: 'path:own/README.md'}\n"
    )

    def state(alias: str) -> str:
        assert run(["models", "--json"]) == 0
        return next(str(row["state"]) for row in json.loads(capsys.readouterr().out) if row["alias"] == alias)

    assert f"README.md is a file: name the folder that it lies in, {own}" in state("file")
    weights = own / "model.safetensors"
    size = weights.stat().st_size
    weights.write_bytes(weights.read_bytes()[:-1])
    assert f"model.safetensors is cut short: it has {size - 1:,} of {size:,} bytes" in state("own")
    write_safetensors(weights, a=[10, 20])
    (own / "config.json").write_text("{")
    assert "config.json is no JSON object" in state("own")


def test_the_table_is_at_most_100_columns_wide(own: Path, project: Made, capsys: Any) -> None:
    project(f"models:\n  {'own' * 5}: {{engine: local, source: 'path:own'}}\n")
    assert run(["models"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 100
    assert "4,096" in "".join(lines)


def test_a_pull_of_several_names_their_folders(own: Path, project: Made, capsys: Any) -> None:
    project("models:\n  one: {engine: local, source: 'path:own'}\n  two: {engine: local, source: 'path:own'}\n")
    assert run(["models", "pull", "one", "two", "--json"]) == 0
    assert [row["folder"] for row in json.loads(capsys.readouterr().out)] == [str(own)] * 2


def test_a_pull_of_a_folder_whose_weights_are_cut_short_says_so(own: Path, project: Made, capsys: Any) -> None:
    project("models:\n  own: {engine: local, source: 'path:own'}\n")
    weights = own / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    assert run(["models", "pull"]) == 2
    assert str(weights) in capsys.readouterr().err


@pytest.mark.parametrize("command", [["pull"], ["prune"], ["rm", "odd"]])
def test_a_source_that_is_none_is_named_by_its_alias(command: list[str], project: Made, capsys: Any) -> None:
    project("models:\n  odd: {engine: local, source: 'pypi:requests'}\n")
    assert run(["models", *command]) == 2
    assert "models.odd: model source 'pypi:requests' is none of" in " ".join(capsys.readouterr().err.split())


def test_a_remote_model_has_nothing_to_pull_or_remove(project: Made, capsys: Any) -> None:
    project("models:\n  far: {engine: vllm, base_url: 'http://127.0.0.1:9/v1'}\n")
    assert run(["models", "pull", "far"]) == 2
    assert run(["models", "rm", "far"]) == 2
    assert "it has no weights on this machine" in capsys.readouterr().err


def test_a_folder_of_one_s_own_is_not_removed(own: Path, project: Made, capsys: Any) -> None:
    project("models:\n  own: {engine: local, source: 'path:own'}\n")
    assert run(["models", "rm", "own"]) == 2
    assert own.is_dir()


def test_pruning_frees_what_no_alias_names(project: Made, tmp_path: Path, capsys: Any) -> None:
    project("models: {}\n")
    old = tmp_path / "cache" / "models" / "old-0123456789ab"
    old.mkdir(parents=True)
    (old / "model.safetensors").write_bytes(bytes(1000))
    old.with_suffix(".lock").touch()
    assert run(["models", "prune", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"freed_bytes": 1000}
    assert not old.exists()


def test_an_added_model_is_one_more_line(project: Made, capsys: Any) -> None:
    before = "# ours\nmodels:   # where from\n    # the first\n    a: {engine: fake}\nserver: {port: 9000}\n"
    file = project(before)
    assert run(["models", "add", "qwen2.5-0.5b", "--json"]) == 0
    added = '    qwen2.5-0.5b: {engine: local, source: "hf:Qwen/Qwen2.5-0.5B-Instruct"}   # Apache-2.0\n'
    assert file.read_text() == before.replace("# where from\n", f"# where from\n{added}")
    assert json.loads(capsys.readouterr().out)["licence"] == "Apache-2.0"
    assert run(["models", "add", "qwen2.5-0.5b"]) == 2


def test_a_file_that_gets_a_model_keeps_its_ends_of_lines_its_rights_and_its_link(
    project: Made, tmp_path: Path
) -> None:
    file = project("")
    shared = tmp_path / "shared.yaml"
    shared.write_bytes(b"models:\r\n  a: {engine: fake}\r\n")
    shared.chmod(0o600)
    file.unlink()
    file.symlink_to(shared)

    assert run(["models", "add", "qwen2.5-0.5b"]) == 0

    assert file.is_symlink()
    assert shared.stat().st_mode & 0o777 == 0o600
    text = shared.read_bytes()
    assert text.count(b"\n") == text.count(b"\r\n") == 3


def test_a_file_that_is_no_text_gets_no_model_and_is_named(project: Made, capsys: Any) -> None:
    file = project("")
    file.write_bytes(b"models: {}  # caf\xe9\n")

    assert run(["models", "add", "qwen2.5-0.5b"]) == 2

    assert "not UTF-8: byte 17" in capsys.readouterr().err
    assert file.read_bytes() == b"models: {}  # caf\xe9\n"


def test_a_file_that_cannot_be_written_stays_as_it_was(
    project: Made, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    file = project("models:\n  a: {engine: fake}\n")

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)

    assert run(["models", "add", "qwen2.5-0.5b"]) == 4

    assert "turnout.yaml cannot be written: No space left on device" in capsys.readouterr().err
    assert file.read_text() == "models:\n  a: {engine: fake}\n"
    assert {path.name for path in file.parent.iterdir()} == {"turnout.yaml"}


@pytest.mark.parametrize(
    "text", ["", "server: {port: 9000}\n", "server: {port: 9000}", "models:\n", "models:\n  a: {engine: fake}"]
)
def test_every_small_model_can_be_added_to_any_file(text: str, tmp_path: Path) -> None:
    for preset in PRESETS:
        found = yaml.safe_load(with_model(text, preset, tmp_path / "turnout.yaml"))
        assert found["models"][preset.alias] == {"engine": "local", "source": preset.source}


def test_models_on_one_line_are_left_and_the_line_to_add_is_shown(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"add this line yourself:\n  smollm2-360m: \{engine: local"):
        with_model("models: {a: {engine: fake}}\n", PRESETS[1], tmp_path / "turnout.yaml")


def test_an_unknown_small_model_is_refused_with_those_that_are_known(project: Made, capsys: Any) -> None:
    project("models: {}\n")
    assert run(["models", "add", "gpt-5"]) == 2
    assert "known are smollm2-135m, smollm2-360m" in capsys.readouterr().err


def test_without_a_name_the_small_models_are_shown(project: Made, capsys: Any) -> None:
    project("models: {}\n")
    assert run(["models", "add", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert {row["licence"] for row in rows} == {"Apache-2.0", "MIT"}


def test_files_of_local_models_are_named_from_the_project(
    own: Path, project: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from service.settings import load_settings

    project("models:\n  own: {engine: local, source: 'path:own', chat_template: own.jinja}\n")
    (tmp_path / "deeper").mkdir()
    monkeypatch.chdir(tmp_path / "deeper")
    spec: Any = load_settings().model("own")
    assert (spec.source, spec.chat_template) == (f"path:{own}", str(tmp_path / "own.jinja"))


def test_the_digest_of_several_weights_is_that_of_their_listing() -> None:
    from service.engine.model_files import weights_digest

    lines = b"11  a.safetensors\n22  b.safetensors\n"  # as sha256sum prints them
    assert weights_digest({"b.safetensors": "22", "a.safetensors": "11"}) == hashlib.sha256(lines).hexdigest()
    assert weights_digest({"a.safetensors": "11"}) == "11"

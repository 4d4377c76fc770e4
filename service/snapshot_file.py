"""The serving snapshot on disk: what a service that is started while its database is away goes on from.

One JSON file in the home, readable by its owner alone, replaced as a whole (temporary file, fsync, rename). It holds keys
by their digests, never a secret, and is only taken by a service of the same database.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

FILE_NAME = "snapshot.json"
FORMAT = 1
ABANDONED_S = 600.0  # no write takes that long


@dataclass(frozen=True, slots=True)
class Saved:
    """One snapshot as plain data: `versions` are `{name, number, digest, content}`, `at` when it was written."""

    at: str
    revision: int
    principals: Mapping[str, list[Any]]
    labels: Mapping[str, Mapping[str, int]]
    newest: Mapping[str, int]
    routes: Mapping[str, Mapping[str, Any]]
    versions: list[dict[str, Any]]
    tuned: Mapping[str, list[str]] = field(default_factory=dict)


def write(home: Path, database_url: str, saved: Saved) -> None:
    """Replace the snapshot on disk. Raises OSError; what was there before then stays."""
    fields = {name: getattr(saved, name) for name in Saved.__slots__}
    data = json.dumps({"format": FORMAT, "database": _identity(database_url), **fields}, separators=(",", ":"))
    descriptor, temporary = tempfile.mkstemp(dir=home, prefix=f".{FILE_NAME}.")  # its owner's alone from the start
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(home / FILE_NAME)
    except OSError:
        with contextlib.suppress(OSError):
            Path(temporary).unlink()
        raise
    _sync(home)


def sweep(home: Path) -> None:
    """Remove what writers that were killed left behind, each as large as the snapshot; one under way now is left alone.

    Raises OSError.
    """
    oldest = time.time() - ABANDONED_S
    for left in home.glob(f".{FILE_NAME}.*"):
        with contextlib.suppress(FileNotFoundError):  # its writer may have finished just now
            if left.stat().st_mtime < oldest:
                left.unlink()


def read(home: Path, database_url: str) -> Saved | None:
    """The snapshot on disk; None where there is none that is whole, of this format and of this database."""
    try:
        data = json.loads((home / FILE_NAME).read_text("utf-8"))
    except (OSError, ValueError):
        return None
    if not isinstance(data, dict) or data.get("format") != FORMAT or data.get("database") != _identity(database_url):
        return None
    return Saved(**{name: data[name] for name in Saved.__slots__}) if set(Saved.__slots__) <= data.keys() else None


def holds_something(home: Path, database_url: str) -> bool:
    """Whether there is a snapshot of this database with a key or a prompt in it."""
    saved = read(home, database_url)
    return saved is not None and bool(saved.principals or saved.newest)


def _identity(database_url: str) -> str:
    """Which database, without the password that its URL may hold."""
    return hashlib.sha256(database_url.encode()).hexdigest()


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

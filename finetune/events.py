"""What a job tells: JSON lines in `events.jsonl`, each written as it happens."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Self

from finetune import durable


class Events:
    """Appends events to a file. A crash leaves whole lines, and perhaps one part of a line that a resume cuts off."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._file = path.open("ab", buffering=0)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def tell(self, kind: str, **details: Any) -> None:
        """Append one event. Raises DiskFullError."""
        line = json.dumps({"type": kind, **details}, ensure_ascii=False).encode() + b"\n"
        try:
            self._file.write(line)
        except OSError as error:
            raise durable.explained(error, self._path.parent, len(line)) from error

    def length_bytes(self) -> int:
        """How long the file is, all of it safely on the disk."""
        os.fsync(self._file.fileno())
        return os.fstat(self._file.fileno()).st_size

    def cut(self, length_bytes: int) -> None:
        """Forget what was told after the file had this length: a resumed job will tell it again."""
        self._file.truncate(min(length_bytes, self.length_bytes()))


class NoEvents(Events):
    """What a process tells that only helps another one, which tells the same."""

    def __init__(self) -> None:
        """Opens nothing."""

    def __exit__(self, *_: object) -> None:
        """Nothing was opened."""

    def tell(self, kind: str, **details: Any) -> None:
        """Nothing."""

    def length_bytes(self) -> int:
        return 0

    def cut(self, length_bytes: int) -> None:
        """Nothing."""

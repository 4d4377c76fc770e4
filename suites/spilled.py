"""Numbers that are only ever added, and gone through later: many of them stand in a temporary file."""

from __future__ import annotations

import tempfile
import weakref
from array import array
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO, cast

HELD = 4096  # numbers in memory, before they go to the file


class Spilled(Sequence[Any]):
    """Numbers of one kind (`kind` as `array` has it), of which at most `HELD` are in memory."""

    def __init__(self, kind: str) -> None:
        self._held: array[Any] = array(kind)
        self._file: BinaryIO | None = None
        self._written = 0

    def append(self, number: float) -> None:
        self._held.append(number)
        if len(self._held) == HELD:
            self._spill()

    def _spill(self) -> None:
        if self._file is None:
            self._file = cast(BinaryIO, tempfile.TemporaryFile())  # noqa: SIM115 - closed when nobody uses it
            weakref.finalize(self, self._file.close)
        self._file.seek(self._written * self._held.itemsize)
        self._held.tofile(self._file)
        self._written += len(self._held)
        self._held = array(self._held.typecode)

    def __len__(self) -> int:
        return self._written + len(self._held)

    def __iter__(self) -> Iterator[Any]:
        for start in range(0, self._written, HELD):
            yield from self._block(start)
        yield from self._held

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        place = range(len(self))[index]
        if place >= self._written:
            return self._held[place - self._written]
        return self._block(place - place % HELD)[place % HELD]

    def _block(self, start: int) -> array[Any]:
        found: array[Any] = array(self._held.typecode)
        if self._file is not None:
            self._file.seek(start * found.itemsize)
            found.frombytes(self._file.read(HELD * found.itemsize))
        return found

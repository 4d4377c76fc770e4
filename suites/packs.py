"""Sequences too long to hold: items are kept as compressed chunks and made anew each time they are read.

A suite of 100,000 cases takes as much memory as one of 1,000: chunks beyond a hundred kilobytes go to a temporary file, and
those of a stored suite are read from the database as they are needed.
"""

from __future__ import annotations

import json
import tempfile
import weakref
import zlib
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache, partial
from typing import Any, Generic, TypeVar, overload

ItemT = TypeVar("ItemT")
ITEMS_A_CHUNK = 256
CHUNKS_KEPT = 4  # of one sequence, as items: a megabyte or two of cases
SPOOLED_BYTES = 128 * 1024  # of compressed chunks in memory, before they go to a temporary file

ChunkReader = Callable[[bytes], list[ItemT]]


class Packed(Sequence[ItemT]):
    """Items in order, read chunk by chunk by `read`. Every chunk but the last holds `ITEMS_A_CHUNK`.

    Reading twice gives equal items, not always the same ones. The chunks that were read last are kept as they are: a suite
    is gone through ten times from its file to its verdict, and most suites are that small.
    """

    def __init__(self, chunks: Sequence[bytes], count: int, read: ChunkReader[ItemT]) -> None:
        self.chunks = chunks
        self._count = count
        self._items = lru_cache(maxsize=CHUNKS_KEPT)(partial(_read_at, chunks, read))

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[ItemT]:
        for number in range(len(self.chunks)):
            yield from self._items(number)

    @overload
    def __getitem__(self, index: int) -> ItemT: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[ItemT]: ...

    def __getitem__(self, index: int | slice) -> ItemT | Sequence[ItemT]:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(self._count))]
        place = range(self._count)[index]
        return self._items(place // ITEMS_A_CHUNK)[place % ITEMS_A_CHUNK]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence):
            return NotImplemented
        return len(self) == len(other) and all(mine == theirs for mine, theirs in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]  # equal to any sequence of equal items, of which few can be hashed

    def __repr__(self) -> str:
        return f"Packed({self._count} items)"


def _read_at(chunks: Sequence[bytes], read: ChunkReader[ItemT], number: int) -> list[ItemT]:
    return read(chunks[number])


class Packer(Generic[ItemT]):
    """Takes items one by one; `write` makes plain data of a chunk of them."""

    def __init__(self, write: Callable[[Sequence[ItemT]], Any]) -> None:
        self._write = write
        self._open: list[ItemT] = []
        self._chunks = Spool()
        self._count = 0

    def add(self, item: ItemT) -> None:
        self._open.append(item)
        self._count += 1
        if len(self._open) == ITEMS_A_CHUNK:
            self._close_chunk()

    def packed(self, read: ChunkReader[ItemT]) -> Packed[ItemT]:
        """All that was added."""
        if self._open:
            self._close_chunk()
        return Packed(self._chunks, self._count, read)

    def _close_chunk(self) -> None:
        self._chunks.append(compress(self._write(self._open)))
        self._open = []


class Spool(Sequence[bytes]):
    """Chunks of bytes one after another, in a temporary file once they are many."""

    def __init__(self, chunks: Iterable[bytes] = ()) -> None:
        self._file = tempfile.SpooledTemporaryFile(max_size=SPOOLED_BYTES)  # noqa: SIM115 - closed when nobody uses it
        weakref.finalize(self, self._file.close)
        self._ends = array("Q", [0])
        for chunk in chunks:
            self.append(chunk)

    def append(self, chunk: bytes) -> None:
        self._file.seek(self._ends[-1])
        self._file.write(chunk)
        self._ends.append(self._ends[-1] + len(chunk))

    def __len__(self) -> int:
        return len(self._ends) - 1

    @overload
    def __getitem__(self, index: int) -> bytes: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[bytes]: ...

    def __getitem__(self, index: int | slice) -> bytes | Sequence[bytes]:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        place = range(len(self))[index]
        self._file.seek(self._ends[place])
        return self._file.read(self._ends[place + 1] - self._ends[place])


def compress(data: Any) -> bytes:
    """Plain data as compressed JSON."""
    return zlib.compress(json.dumps(data, separators=(",", ":")).encode("ascii"), 1)


def expand(chunk: bytes) -> Any:
    """The data that `compress` was given."""
    return json.loads(zlib.decompress(chunk))

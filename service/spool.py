"""Log rows on disk while the database is away: lines of JSON, forced to the disk, written to the database in order later.

`TURNOUT_HOME/spool/N/` belongs to one process, by a lock that the system frees however it ends. Each start makes a new
segment, so a line that a crash tore is the last of its segment, and nothing is ever written behind it.
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import structlog

from service.errors import StorageFailed
from service.outcome import Outcome

SEGMENT_BYTES = 8 * 1024 * 1024
BATCH = 2_000  # rows of one transaction
_MOST_PROCESSES = 64  # of one TURNOUT_HOME
_LOCK = "lock"
log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Entry:
    """One row of the log with its body as `service.bodies.record` makes it, secrets taken out; None where none is kept."""

    outcome: Outcome
    body: dict[str, Any] | None = None


class Spool:
    """Bounded, in order, safe for one thread that appends and one that replays.

    `unreadable` counts lines that could not be read again: torn by a crash, or spoilt on the disk.
    """

    def __init__(self, root: Path, most_bytes: int) -> None:
        self._root = root
        self._most_bytes = most_bytes
        self._lock = threading.Lock()
        self._locks: dict[int, int] = {}  # of each folder that is ours
        self._folder: Path | None = None
        self._segments: deque[Path] = deque()  # oldest first; while `_file` is open, it is the last
        self._file: int | None = None
        self._number = 0
        self._written = 0  # bytes of the segment that is written
        self._replayed: dict[Path, int] = {}  # lines of a segment that the database has
        self._encoder = msgspec.json.Encoder()
        self._decoder = msgspec.json.Decoder(Entry)
        self.bytes = 0
        self.unreadable = 0

    @property
    def is_empty(self) -> bool:
        return not self._segments

    def open(self) -> None:
        """Take over what processes left that have ended; to be called again, for those that end later.

        Raises StorageFailed where the folder cannot be used.
        """
        with self._lock, self._told():
            if self._root.is_dir():
                self._adopt()

    def append(self, entries: Sequence[Entry]) -> None:
        """Write `entries`; they are on the disk when this returns. Raises StorageFailed where the disk or the spool is full.

        Some of them may have been written then: all may be given again, since nothing comes of an entry that is there twice.
        """
        for data in _pieces(self._lines(entries)):
            with self._lock:
                if self.bytes + len(data) > self._most_bytes:
                    raise StorageFailed(
                        f"{self._root}: {self.bytes:,} bytes wait for the database, and recording.spool_mb allows"
                        f" {self._most_bytes:,}; bring the database back, or raise it"
                    )
                with self._told():
                    self._write(data)

    def replay(self, write: Callable[[list[Entry]], None]) -> int:
        """Give the oldest segment to `write`, in batches and in order, then remove it; returns how many entries were given.

        What `write` raises is raised, and the next call goes on behind what it took. After a crash entries are given again:
        `write` passes over what is there already.
        """
        segment = self._oldest()
        if segment is None:
            return 0
        replayed = 0
        for lines in self._read(segment):
            write(list(self._entries(lines)))
            self._replayed[segment] = self._replayed.get(segment, 0) + len(lines)
            replayed += len(lines)
        self._remove(segment)
        return replayed

    def close(self) -> None:
        """Let go of the files; what is in them is for the next process."""
        with self._lock:
            self._end_segment()
            for descriptor in self._locks.values():
                os.close(descriptor)
            self._locks.clear()

    # ---------------------------------------------------------------------------- while the lock is held

    def _adopt(self) -> None:
        """Take the first free folder for what we write, and what lies in every folder that no process holds.

        A folder that cannot be used, such as that of a command that another user once ran, keeps nobody from the others.
        Raises OSError where none can be.
        """
        found: list[Path] = []
        refused: OSError | None = None
        for number in range(_MOST_PROCESSES):
            folder = self._root / str(number)
            if number in self._locks or (self._folder is not None and not folder.is_dir()):
                continue
            try:
                left = self._take(number, folder)
            except OSError as error:
                refused = refused or error
                continue
            found += left or []
            if left is not None and self._folder is None:
                self._folder = folder
                self._number = max((int(path.stem) for path in left), default=0)
        self._segments.extendleft(reversed(found))  # older than what we write
        if self._folder is None and refused is not None:
            raise refused

    def _take(self, number: int, folder: Path) -> list[Path] | None:
        """What lies in a folder, which is ours from now on; None where another process holds it."""
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = _locked(folder / _LOCK)
        if descriptor is None:
            return None
        try:
            left = sorted(path for path in folder.glob("*.jsonl") if path.stem.isdecimal())  # else it is nobody's of us
            size = sum(path.stat().st_size for path in left)
        except OSError:
            os.close(descriptor)  # it may be taken later, with all that lies in it
            raise
        self._locks[number] = descriptor
        self.bytes += size
        return left

    def _write(self, data: bytes) -> None:
        if self._file is None or self._written + len(data) > SEGMENT_BYTES:
            self._begin_segment()
        assert self._file is not None  # noqa: S101 - for the type checker
        try:
            _write_all(self._file, data)
            os.fsync(self._file)
        except OSError:
            self._take_back()
            raise
        self._written += len(data)
        self.bytes += len(data)

    def _take_back(self) -> None:
        """Cut off what a full disk took of a batch, so that nothing stands behind half a line."""
        assert self._file is not None  # noqa: S101 - for the type checker
        try:
            os.ftruncate(self._file, self._written)
        except OSError:
            self._end_segment()

    def _begin_segment(self) -> None:
        self._end_segment()
        if self._folder is None:
            self._root.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._adopt()
        if self._folder is None:
            raise OSError(f"{_MOST_PROCESSES} processes hold the folders of {self._root}")
        path = self._folder / f"{self._number + 1:08}.jsonl"
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
        self._number += 1
        self._segments.append(path)
        _sync_folder(self._folder)

    def _end_segment(self) -> None:
        if self._file is not None:
            os.close(self._file)
        self._file, self._written = None, 0

    def _oldest(self) -> Path | None:
        with self._lock:
            if not self._segments:
                return None
            if len(self._segments) == 1:
                self._end_segment()  # what comes next begins another
            return self._segments[0]

    def _remove(self, segment: Path) -> None:
        with self._lock, self._told():
            segment.unlink(missing_ok=True)
            self._segments.remove(segment)  # only now: one that could not be removed is tried again
            self._replayed.pop(segment, None)
            self.bytes = sum(map(_size, self._segments))

    def _read(self, segment: Path) -> Iterator[list[bytes]]:
        """The lines of a segment that are to be replayed, some at a time; none of one that is gone for good."""
        if not segment.exists():
            log.error("a file of the request log's spool is gone, with its rows", file=str(segment))
            return
        with self._told(), segment.open("rb") as file:
            lines = itertools.islice(file, self._replayed.get(segment, 0), None)
            while batch := list(itertools.islice(lines, BATCH)):
                yield batch

    def _entries(self, lines: Sequence[bytes]) -> Iterator[Entry]:
        for line in lines:
            try:
                yield self._decoder.decode(line)
            except (msgspec.DecodeError, UnicodeDecodeError):
                self.unreadable += 1

    def _lines(self, entries: Sequence[Entry]) -> Iterator[bytes]:
        for entry in entries:
            try:
                yield self._encoder.encode(entry) + b"\n"
            except (UnicodeEncodeError, ValueError, TypeError) as error:  # one bad row must not hold up the others
                self.unreadable += 1
                log.error("a log row cannot be written", id=entry.outcome.id, reason=str(error))

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        """The system's errors as ours."""
        try:
            yield
        except OSError as error:
            raise StorageFailed(
                f"{self._root}: {error.strerror or error}; free some space and check that it is writable"
            ) from error


def _pieces(lines: Iterable[bytes]) -> Iterator[bytes]:
    """Lines joined to no more than a segment holds."""
    piece: list[bytes] = []
    size = 0
    for line in lines:
        if piece and size + len(line) > SEGMENT_BYTES:
            yield b"".join(piece)
            piece, size = [], 0
        piece.append(line)
        size += len(line)
    if piece:
        yield b"".join(piece)


def _locked(path: Path) -> int | None:
    """A descriptor that holds the lock; None where another process does."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:  # somebody made room
        return 0


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _sync_folder(folder: Path) -> None:
    """A new file is on the disk only when its folder is."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

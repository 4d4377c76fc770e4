"""Files of `/v1/files`: received into a temporary file, looked through line by line, kept in the database."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from finetune.data.conversations import read_conversations
from prompts.errors import BadInput, Fault
from service.errors import NoSuchFile
from service.identity import Principal
from service.ids import ago, new_id, now
from service.store import files
from service.store.database import Database

FINE_TUNE, RESULTS = "fine-tune", "fine-tune-results"
CHUNK_BYTES = 1024 * 1024
SHOWN_FAULTS = 20
_BROKEN_OFF_S = 24 * 3600.0  # after which an upload that never ended is forgotten
_SHORTEST_LIFE_S, _LONGEST_LIFE_S = 3600, 30 * 24 * 3600  # as OpenAI has them


@dataclass(frozen=True, slots=True)
class Received:
    """A file as it was sent: its content in `path`, and what its sender says of it."""

    path: Path
    filename: str
    purpose: str
    expires_after_s: int | None = None


class Files:
    """The files of a database. Every method is one transaction, or several that may be broken off anywhere."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def keep(self, received: Received, actor: Principal) -> dict[str, Any]:
        """Store what was received; whoever reads the reply finds it after any crash. Raises BadInput."""
        if received.purpose != FINE_TUNE:
            raise BadInput(
                f"purpose: {received.purpose[:40]!r} is not served here: files are for {FINE_TUNE!r}", param="purpose"
            )
        size_bytes = received.path.stat().st_size
        if not size_bytes:
            raise BadInput("file: it is empty: send one conversation a line", param="file")
        status, details = _looked_through(received)
        with received.path.open("rb") as file:
            digest = "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()
        self._forget_stale()
        at = now()
        file_id = "file-" + "".join(new_id("x").partition("_")[2] for _ in range(2))
        record: dict[str, Any] = {"id": file_id, "created_at": at}
        record |= {"purpose": received.purpose, "filename": received.filename, "size_bytes": size_bytes}
        record |= {"digest": digest, "created_by": actor.id, "expires_at": _expiry(received.expires_after_s)}
        with received.path.open("rb") as file:
            return self._store(record, iter(lambda: file.read(CHUNK_BYTES), b""), status, details)

    def keep_result(self, file_id: str, filename: str, content: bytes, actor: Principal) -> dict[str, Any]:
        """Store what a job gives, under an id that follows from the job; kept again, it is the same."""
        digest = "sha256:" + hashlib.sha256(content).hexdigest()
        record: dict[str, Any] = {"id": file_id, "purpose": RESULTS, "filename": filename, "size_bytes": len(content)}
        record |= {"digest": digest, "created_by": actor.id, "created_at": now(), "expires_at": None}
        return self._store(record, iter([content]), "processed", None)

    def show(self, file_id: str) -> dict[str, Any]:
        """Raises NoSuchFile."""
        with self._database.read() as session:
            record = files.get(session, file_id, now())
        if record is None:
            raise NoSuchFile("file", file_id, "`GET /v1/files` lists those that exist")
        return record

    def page(
        self, *, after: str | None, limit: int, newest_first: bool, purpose: str | None
    ) -> tuple[list[dict[str, Any]], bool]:
        """Files behind the file `after`, and whether more follow. Raises NoSuchFile for an `after` that is not there."""
        behind = self.show(after) if after else None
        with self._database.read() as session:
            found = files.page(
                session, now(), after=behind, limit=limit + 1, newest_first=newest_first, purpose=purpose
            )
        return found[:limit], len(found) > limit

    def content(self, file_id: str) -> Iterator[bytes]:
        """The bytes of a file as they were sent, a piece at a time. Raises NoSuchFile."""
        self.show(file_id)
        return self._chunks(file_id)

    def delete(self, file_id: str, actor: Principal) -> None:
        """Raises NoSuchFile, or Forbidden for another's file unless admin."""
        actor.require_own(self.show(file_id)["created_by"], f"file {file_id!r}", "delete")
        with self._database.write() as session:
            files.remove(session, file_id)

    def _store(
        self, record: dict[str, Any], pieces: Iterator[bytes], status: str, details: str | None
    ) -> dict[str, Any]:
        """The row, its chunks one by one, so that no writer waits for all of them, and last of all that it is whole."""
        with self._database.write() as session:
            files.begin(session, record)
        for number, piece in enumerate(pieces):
            with self._database.write() as session:
                files.add_chunk(session, record["id"], number, zlib.compress(piece, 1))
        with self._database.write() as session:
            files.complete(session, record["id"], status=status, status_details=details)
        return self.show(record["id"])

    def _chunks(self, file_id: str) -> Iterator[bytes]:
        number = 0
        while True:
            with self._database.read() as session:
                packed = files.chunk(session, file_id, number)
            if packed is None:
                return
            yield zlib.decompress(packed)
            number += 1

    def _forget_stale(self) -> None:
        with self._database.write() as session:
            for file_id in files.stale(session, now(), ago(_BROKEN_OFF_S)):
                files.remove(session, file_id)


def _expiry(after_s: int | None) -> str | None:
    if after_s is None:
        return None
    if not _SHORTEST_LIFE_S <= after_s <= _LONGEST_LIFE_S:
        fix = f"give {_SHORTEST_LIFE_S} to {_LONGEST_LIFE_S}"
        raise BadInput(f"expires_after[seconds] is {after_s}: {fix}", param="expires_after[seconds]")
    return (datetime.now(UTC) + timedelta(seconds=after_s)).isoformat(timespec="microseconds")


def _looked_through(received: Received) -> tuple[str, str | None]:
    """`processed`, or `error` with the faults of the first lines that have any."""
    faults: list[Fault] = []
    with received.path.open("rb") as lines:
        for found in read_conversations(_decoded(lines, received.filename, faults), received.filename):
            faults += found if isinstance(found, list) else ()
    return ("error", faults_in_words(faults)) if faults else ("processed", None)


def _decoded(lines: Iterable[bytes], path: str, faults: list[Fault]) -> Iterator[str]:
    """The lines of a UTF-8 text, up to the first that is none, which is put to the faults: those behind it would be, too."""
    for number, line in enumerate(lines, start=1):
        try:
            yield line.decode()
        except UnicodeDecodeError as error:
            message = f"it is not UTF-8 ({error.reason} at byte {error.start + 1} of the line)"
            faults.append(Fault(path, number, message, "save the file as UTF-8"))
            return


def faults_in_words(faults: list[Fault]) -> str:
    """The first of the faults, each with its line and the fix, and how many follow."""
    shown = [f"line {fault.line}: {fault.message} ({fault.fix})" for fault in faults[:SHOWN_FAULTS]]
    more = len(faults) - len(shown)
    said = "; ".join(shown) + (f"; and {more} more" if more else "")
    return said.replace("\0", "\\0").encode("utf-8", "replace").decode()  # as every database can keep it

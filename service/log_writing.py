"""Log rows into the database: as few statements as there are, and no row that it refuses holds up the others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import structlog

from service.errors import StorageFailed
from service.spool import Entry
from service.store import requests
from service.store.database import Database

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Written:
    """Rows that are in the database now and were not before, and rows that it refused."""

    rows: int
    refused: int = 0

    def __add__(self, other: Written) -> Written:
        return Written(self.rows + other.rows, self.refused + other.refused)


def write(database: Database, entries: Sequence[Entry]) -> Written:
    """Write entries as one transaction; where the database refuses what is in one of them, by halves, to lose that one alone.

    What is there already is passed over, so that a batch may be written again. Raises StorageFailed where the database
    takes nothing at all.
    """
    try:
        return Written(_write(database, entries))
    except StorageFailed:
        raise
    except Exception as error:  # noqa: BLE001 - each database and its driver have errors of their own for a value that they refuse
        if len(entries) > 1:
            half = len(entries) // 2
            return write(database, entries[:half]) + write(database, entries[half:])
        return _write_alone(database, entries[0], error)


def _write(database: Database, entries: Sequence[Entry]) -> int:
    bodies = [entry.body for entry in entries if entry.body is not None]
    with database.write() as session:
        rows = requests.add_outcomes(session, [entry.outcome for entry in entries])
        requests.add_bodies(session, bodies)
        return rows


def _write_alone(database: Database, entry: Entry, error: Exception) -> Written:
    """Without its body, where that is at fault."""
    log.error("the database refuses a log row", id=entry.outcome.id, reason=f"{type(error).__name__}: {error}")
    return Written(0, 1) if entry.body is None else write(database, [Entry(entry.outcome)])

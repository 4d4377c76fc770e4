"""Suite versions: numbered and content-addressed like prompts.

Where a suite has many cases, `tests` of its stored content is their number, and they stand in chunks by its digest.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, overload

from service.store.database import Database
from service.store.records import without
from service.store.session import Row, Session, listed
from service.store.tables import SUITE_CASES, SUITE_VERSION


def numbers(session: Session, names: Sequence[str]) -> dict[str, dict[str, int]]:
    """The number behind each digest, by name: every version of these suites, drafts among them."""
    found: dict[str, dict[str, int]] = {}
    for name, digest, number in _of(session, "SELECT name, digest, number FROM suite_version WHERE", names):
        found.setdefault(name, {})[digest] = number
    return found


def meant(session: Session, names: Sequence[str]) -> dict[str, int]:
    """What the bare names of these suites mean now: the number of the version that was pushed last."""
    sql = "SELECT name, pushed_at, number FROM suite_version WHERE pushed_at IS NOT NULL AND"
    rows = _of(session, sql, names)
    return {name: number for name, _, number in sorted(rows)}


def by_number(session: Session, name: str, number: int) -> dict[str, Any] | None:
    return _plain(SUITE_VERSION.get(session, name, number))


def newest(session: Session, name: str) -> dict[str, Any] | None:
    """The version that was pushed last, which is what the bare name means; drafts are none."""
    where = "WHERE name = :name AND pushed_at IS NOT NULL ORDER BY pushed_at DESC LIMIT 1"
    return _plain(SUITE_VERSION.first(session, where, name=name))


def newest_draft(session: Session, name: str) -> dict[str, Any] | None:
    """The draft with the highest number, where it is above that of every pushed version."""
    last = SUITE_VERSION.first(session, "WHERE name = :name ORDER BY number DESC LIMIT 1", name=name)
    return _plain(last) if last is not None and last["pushed_at"] is None else None


def summaries(session: Session, name: str | None = None) -> list[dict[str, Any]]:
    """Every suite version without its cases, newest first within a name."""
    columns = ("name", "number", "digest", "prompt", "created_at")
    where = "" if name is None else "WHERE name = :name "
    values = {} if name is None else {"name": name}
    sql = f"SELECT {', '.join(columns)} FROM suite_version {where}ORDER BY name, number DESC"
    return [dict(zip(columns, row, strict=True)) for row in session.rows(sql, **values)]


def add_all(session: Session, records: Sequence[dict[str, Any]]) -> None:
    SUITE_VERSION.add(session, records)


def set_pushed(session: Session, name: str, number: int, at: str) -> None:
    """Make this version what the bare name means, whenever it was first seen."""
    SUITE_VERSION.set(session, name, number, pushed_at=at)


@dataclass(frozen=True, slots=True)
class Scheduled:
    """A suite whose bare name means a version with a `schedule`, which it had since `pushed_at`."""

    suite: str
    prompt: str
    schedule: str
    has_thresholds: bool
    pushed_at: str


def last_push(session: Session) -> str | None:
    """When a suite was last pushed: until that moves, `scheduled` gives the same."""
    found: str | None = session.value("SELECT MAX(pushed_at) FROM suite_version")
    return found


def scheduled(session: Session) -> list[Scheduled]:
    """Every suite with a schedule, by name. The content is looked into by the database: it may hold many cases."""
    rows = session.rows(
        "SELECT suite.name, suite.prompt, suite.content->>'schedule', suite.content->>'thresholds', suite.pushed_at"
        " FROM suite_version AS suite"
        " JOIN (SELECT name, MAX(pushed_at) AS at FROM suite_version WHERE pushed_at IS NOT NULL GROUP BY name) AS newest"
        " ON newest.name = suite.name AND newest.at = suite.pushed_at"
        " WHERE suite.content->>'schedule' IS NOT NULL ORDER BY suite.name"
    )
    return [
        Scheduled(name, prompt, schedule, any(json.loads(thresholds or "{}").values()), pushed_at)
        for name, prompt, schedule, thresholds, pushed_at in rows
    ]


def of_prompt(session: Session, prompt: str) -> list[str]:
    """The suites that test a prompt, in any of their versions."""
    sql = "SELECT DISTINCT name FROM suite_version WHERE prompt = :prompt"
    return sorted(name for (name,) in session.rows(sql, prompt=prompt))


def _of(session: Session, sql: str, names: Sequence[str]) -> list[Row]:
    """Rows of these suites, some hundred names a query: SQLite bounds the variables of a statement."""
    rows: list[Row] = []
    for start in range(0, len(names), 500):
        wanted, values = listed("name", names[start : start + 500])
        rows += session.rows(f"{sql} name IN {wanted}", **values)
    return rows


def add_chunks(session: Session, digest: str, chunks: Iterable[bytes]) -> None:
    """Keep the cases of a suite, one chunk after another: they are never all in memory."""
    for number, chunk in enumerate(chunks):
        SUITE_CASES.add(session, [{"digest": digest, "number": number, "cases": chunk}], once=True)


class Chunks(Sequence[bytes]):
    """The chunks of a stored suite, each read when it is needed."""

    def __init__(self, database: Database, digest: str, count: int) -> None:
        self._database = database
        self._digest = digest
        self._count = count

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> bytes: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[bytes]: ...

    def __getitem__(self, index: int | slice) -> bytes | Sequence[bytes]:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(self._count))]
        with self._database.read() as session:
            chunk: bytes = SUITE_CASES.one(session, self._digest, range(self._count)[index])["cases"]
            return chunk


def _plain(record: dict[str, Any] | None) -> dict[str, Any] | None:
    return without(record, "id") if record else None

"""Suite versions: numbered and content-addressed like prompts.

Where a suite has many cases, `tests` of its stored content is their number, and they stand in chunks by its digest.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, overload

from sqlalchemy import insert
from sqlmodel import Session, col, select

from service.store.database import Database, insert_once
from service.store.tables import SuiteCases, SuiteVersion


def numbers(session: Session, names: Sequence[str]) -> dict[str, dict[str, int]]:
    """The number behind each digest, by name: every version of these suites, drafts among them."""
    found: dict[str, dict[str, int]] = {}
    query = select(SuiteVersion.name, SuiteVersion.digest, SuiteVersion.number)
    for name, digest, number in _of(session, query, names):
        found.setdefault(name, {})[digest] = number
    return found


def meant(session: Session, names: Sequence[str]) -> dict[str, int]:
    """What the bare names of these suites mean now: the number of the version that was pushed last."""
    query = select(SuiteVersion.name, SuiteVersion.pushed_at, SuiteVersion.number)
    rows = _of(session, query.where(col(SuiteVersion.pushed_at).is_not(None)), names)
    return {name: number for name, _, number in sorted(rows)}


def by_number(session: Session, name: str, number: int) -> dict[str, Any] | None:
    return _plain(
        session.exec(select(SuiteVersion).where(SuiteVersion.name == name, SuiteVersion.number == number)).first()
    )


def newest(session: Session, name: str) -> dict[str, Any] | None:
    """The version that was pushed last, which is what the bare name means; drafts are none."""
    query = select(SuiteVersion).where(SuiteVersion.name == name, col(SuiteVersion.pushed_at).is_not(None))
    return _plain(session.exec(query.order_by(col(SuiteVersion.pushed_at).desc()).limit(1)).first())


def summaries(session: Session, name: str | None = None) -> list[dict[str, Any]]:
    """Every suite version without its cases, newest first within a name."""
    columns = (
        SuiteVersion.name,
        SuiteVersion.number,
        SuiteVersion.digest,
        SuiteVersion.prompt,
        SuiteVersion.created_at,
    )
    query = select(*columns).order_by(col(SuiteVersion.name), col(SuiteVersion.number).desc())  # type: ignore[call-overload]  # five columns: one more than the overloads of select() know
    if name is not None:
        query = query.where(SuiteVersion.name == name)
    return [dict(row._mapping) for row in session.exec(query)]


def add_all(session: Session, records: Sequence[dict[str, Any]]) -> None:
    if records:
        session.execute(insert(SuiteVersion), records)


def set_pushed(session: Session, name: str, number: int, at: str) -> None:
    """Make this version what the bare name means, whenever it was first seen."""
    query = select(SuiteVersion).where(SuiteVersion.name == name, SuiteVersion.number == number)
    row = session.exec(query).one()
    row.pushed_at = at
    session.add(row)


def of_prompt(session: Session, prompt: str) -> list[str]:
    """The suites that test a prompt, in any of their versions."""
    return sorted(set(session.exec(select(SuiteVersion.name).where(SuiteVersion.prompt == prompt))))


def _of(session: Session, query: Any, names: Sequence[str]) -> list[Any]:
    """Rows of these suites, some hundred names a query: SQLite bounds the variables of a statement."""
    parts = (names[start : start + 500] for start in range(0, len(names), 500))
    return [row for part in parts for row in session.execute(query.where(col(SuiteVersion.name).in_(part)))]


def add_chunks(session: Session, digest: str, chunks: Iterable[bytes]) -> None:
    """Keep the cases of a suite, one chunk after another: they are never all in memory."""
    for number, chunk in enumerate(chunks):
        insert_once(session, SuiteCases, [{"digest": digest, "number": number, "cases": chunk}])


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
            return session.get_one(SuiteCases, (self._digest, range(self._count)[index])).cases


def _plain(row: SuiteVersion | None) -> dict[str, Any] | None:
    return row.model_dump(exclude={"id"}) if row else None

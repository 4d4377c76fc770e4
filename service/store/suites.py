"""Suite versions: numbered and content-addressed like prompts."""

from __future__ import annotations

from typing import Any

from sqlalchemy import func
from sqlmodel import Session, col, select

from service.store.tables import SuiteVersion


def by_digest(session: Session, name: str, digest: str) -> dict[str, Any] | None:
    return _plain(
        session.exec(select(SuiteVersion).where(SuiteVersion.name == name, SuiteVersion.digest == digest)).first()
    )


def by_number(session: Session, name: str, number: int) -> dict[str, Any] | None:
    return _plain(
        session.exec(select(SuiteVersion).where(SuiteVersion.name == name, SuiteVersion.number == number)).first()
    )


def newest(session: Session, name: str) -> dict[str, Any] | None:
    """The version that was pushed last, which is what the bare name means; drafts are none."""
    query = select(SuiteVersion).where(SuiteVersion.name == name, col(SuiteVersion.pushed_at).is_not(None))
    return _plain(session.exec(query.order_by(col(SuiteVersion.pushed_at).desc()).limit(1)).first())


def next_number(session: Session, name: str) -> int:
    return (session.exec(select(func.max(SuiteVersion.number)).where(SuiteVersion.name == name)).one() or 0) + 1


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


def add(session: Session, record: dict[str, Any]) -> None:
    session.add(SuiteVersion(**record))
    session.flush()


def set_pushed(session: Session, name: str, number: int, at: str) -> None:
    """Make this version what the bare name means, whenever it was first seen."""
    query = select(SuiteVersion).where(SuiteVersion.name == name, SuiteVersion.number == number)
    row = session.exec(query).one()
    row.pushed_at = at
    session.add(row)
    session.flush()


def _plain(row: SuiteVersion | None) -> dict[str, Any] | None:
    return row.model_dump(exclude={"id"}) if row else None

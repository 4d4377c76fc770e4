"""Runs, their cases as they come, and the cache of completions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from sqlalchemy import func
from sqlmodel import Session, col, select

from service.store.tables import CachedCompletion, CaseRow, Run


def start(session: Session, record: dict[str, Any]) -> dict[str, Any]:
    """Write the run unless it is there already; returns it as it stands."""
    row = session.get(Run, record["id"])
    if row is None:
        row = Run(**record)
    elif row.status != "finished":
        row.status, row.finished_at = "running", None
    session.add(row)
    session.flush()
    return row.model_dump()


def get(session: Session, run_id: str) -> dict[str, Any] | None:
    row = session.get(Run, run_id)
    return row.model_dump() if row else None


def listing(session: Session, suite: str | None, limit: int) -> list[dict[str, Any]]:
    query = select(Run).order_by(col(Run.started_at).desc()).limit(limit)
    if suite is not None:
        query = query.where(Run.suite == suite)
    return [row.model_dump() for row in session.exec(query)]


def newest_finished(session: Session, suite: str, variant: str) -> dict[str, Any] | None:
    query = select(Run).where(Run.suite == suite, Run.variant == variant, Run.status == "finished")
    row = session.exec(query.order_by(col(Run.started_at).desc()).limit(1)).first()
    return row.model_dump() if row else None


def newest_of_suites(session: Session, suites: Sequence[str]) -> list[dict[str, Any]]:
    """The newest finished run of every variant with each of these suites."""
    made = select(Run.suite, Run.variant, func.max(Run.started_at).label("at"))
    newest = (
        made.where(Run.status == "finished", col(Run.suite).in_(suites)).group_by(Run.suite, Run.variant).subquery()
    )
    query = select(Run).join(
        newest,
        (col(Run.suite) == newest.c.suite) & (col(Run.variant) == newest.c.variant) & (Run.started_at == newest.c.at),
    )
    query = query.where(Run.status == "finished").order_by(col(Run.suite))
    return [row.model_dump() for row in session.exec(query)]


def finish(session: Session, run_id: str, status: str, summary: dict[str, Any], at: str) -> None:
    row = session.get_one(Run, run_id)
    row.status, row.summary, row.finished_at = status, summary, at
    session.add(row)


def end_all(session: Session, prefix: str, status: str, at: str) -> None:
    """Close the runs of a job that ended without finishing them, so that nobody waits for them."""
    for row in session.exec(select(Run).where(col(Run.id).startswith(prefix), Run.status == "running")):
        row.status, row.finished_at = status, at
        session.add(row)


def add_case(session: Session, run_id: str, result: dict[str, Any]) -> None:
    """Write one case's result; writing it again changes nothing."""
    session.merge(
        CaseRow(
            run_id=run_id,
            case_id=result["case_id"],
            repeat=result["repeat"],
            position=result["index"],
            status=result["status"],
            result=result,
        )
    )


def cases(session: Session, run_id: str, statuses: tuple[str, ...] = ()) -> Iterator[dict[str, Any]]:
    """Results of a run in the order of its suite, streamed."""
    query = select(CaseRow).where(CaseRow.run_id == run_id).order_by(col(CaseRow.position), col(CaseRow.repeat))
    if statuses:
        query = query.where(col(CaseRow.status).in_(statuses))
    for row in session.exec(query.execution_options(yield_per=500)):
        yield row.result


def cached(session: Session, key: str) -> dict[str, Any] | None:
    row = session.get(CachedCompletion, key)
    return row.completion if row else None


def remember(session: Session, key: str, completion: dict[str, Any], at: str) -> None:
    session.merge(CachedCompletion(key=key, completion=completion, at=at))

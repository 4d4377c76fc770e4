"""Runs, their cases as they come, and the cache of completions."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from sqlalchemy import Text, cast, func, text
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
    """The newest run of all cases that ended."""
    query = select(Run).where(Run.suite == suite, Run.variant == variant, Run.status == "finished")
    query = query.where(col(Run.summary)["filter"].as_string().is_(None))
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


def unfinished(session: Session, suite: str, suite_version: int, variant: str) -> list[dict[str, Any]]:
    """Runs of one suite version and variant that were cut short, newest first."""
    query = select(Run).where(Run.suite == suite, Run.suite_version == suite_version, Run.variant == variant)
    query = query.where(Run.status != "finished").order_by(col(Run.started_at).desc())
    return [row.model_dump() for row in session.exec(query)]


def interrupt(session: Session, run_id: str, at: str) -> int:
    """Close a run that was interrupted; returns how many results are kept of it."""
    row = session.get(Run, run_id)
    if row is not None and row.status == "running":
        row.status, row.finished_at = "interrupted", at
        session.add(row)
    return session.exec(select(func.count()).select_from(CaseRow).where(CaseRow.run_id == run_id)).one()


def finish(session: Session, run_id: str, status: str, summary: dict[str, Any], at: str) -> None:
    row = session.get_one(Run, run_id)
    row.status, row.summary, row.finished_at = status, summary, at
    session.add(row)


def end_all(session: Session, prefix: str, status: str, at: str) -> None:
    """Close the runs of a job that ended without finishing them, so that nobody waits for them."""
    for row in session.exec(select(Run).where(col(Run.id).startswith(prefix), Run.status == "running")):
        row.status, row.finished_at = status, at
        session.add(row)


_ADD_CASE = text(
    "INSERT INTO case_result (run_id, case_id, repeat, position, status, result)"
    " VALUES (:run_id, :case_id, :repeat, :index, :status, :result) ON CONFLICT (run_id, case_id, repeat) DO UPDATE"
    " SET status = excluded.status, result = excluded.result WHERE case_result.status = 'skipped'"
)
_COPY_PASSED = text(
    "INSERT INTO case_result (run_id, case_id, repeat, position, status, result)"
    " SELECT :target, case_id, repeat, position, status, result FROM case_result"
    " WHERE run_id = :source AND status = 'passed' ON CONFLICT DO NOTHING"
)
_REMEMBER = text("INSERT INTO cached_completion (key, completion, at) VALUES (:key, :data, :at) ON CONFLICT DO NOTHING")


def add_cases(session: Session, run_id: str, results: Sequence[dict[str, Any]]) -> None:
    """Write cases' results; writing one again changes nothing, unless it waited for people before.

    Plain SQL: a run has as many of these as cases.
    """
    columns = ("case_id", "repeat", "index", "status")
    rows = [
        {**{name: result[name] for name in columns}, "run_id": run_id, "result": json.dumps(result)}
        for result in results
    ]
    if rows:
        session.connection().execute(_ADD_CASE, rows)


def copy_passed(session: Session, source: str, target: str) -> None:
    """Give one run the results of another that passed."""
    session.connection().execute(_COPY_PASSED, {"source": source, "target": target})


def cases(session: Session, run_id: str, statuses: tuple[str, ...] = ()) -> Iterator[dict[str, Any]]:
    """Results of a run in the order of its suite, streamed.

    One whose row says another status than the result itself has that as `row_status`: somebody changed one of them.
    """
    query = select(CaseRow).where(CaseRow.run_id == run_id).order_by(col(CaseRow.position), col(CaseRow.repeat))
    if statuses:
        query = query.where(col(CaseRow.status).in_(statuses))
    for row in session.exec(query.execution_options(yield_per=500)):
        yield row.result if row.result["status"] == row.status else {**row.result, "row_status": row.status}


def case(session: Session, run_id: str, case_id: str, repeat: int) -> dict[str, Any] | None:
    """One result of a run."""
    row = session.get(CaseRow, (run_id, case_id, repeat))
    return row.result if row else None


def has_cached(session: Session) -> bool:
    """Whether any completion is kept at all."""
    return session.exec(select(CachedCompletion.key).limit(1)).first() is not None


def cached(session: Session, keys: Sequence[str]) -> dict[str, str]:
    """Those of these completions that are kept, as JSON."""
    columns = (CachedCompletion.key, cast(CachedCompletion.completion, Text))
    return dict(session.exec(select(*columns).where(col(CachedCompletion.key).in_(keys))).all())


def remember(session: Session, completions: Sequence[tuple[str, dict[str, Any]]], at: str) -> None:
    """Keep completions by their keys; the first of a key stays."""
    rows = [{"key": key, "data": json.dumps(data), "at": at} for key, data in completions]
    if rows:
        session.connection().execute(_REMEMBER, rows)

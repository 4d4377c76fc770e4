"""Runs, their cases as they come, and the cache of completions."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from service.store.records import read_json
from service.store.session import Session, like, listed
from service.store.tables import CASE_RESULT, RUN


def start(session: Session, record: dict[str, Any]) -> dict[str, Any]:
    """Write the run unless it is there already; returns it as it stands."""
    RUN.add(session, [record], once=True)
    going = "UPDATE run SET status = 'running', finished_at = NULL WHERE id = :id AND status <> 'finished'"
    session.run(going, id=record["id"])
    return RUN.one(session, record["id"])


def get(session: Session, run_id: str) -> dict[str, Any] | None:
    return RUN.get(session, run_id)


def listing(session: Session, suite: str | None, limit: int) -> list[dict[str, Any]]:
    newest = "ORDER BY started_at DESC LIMIT :limit"
    if suite is None:
        return RUN.all(session, newest, limit=limit)
    return RUN.all(session, f"WHERE suite = :suite {newest}", suite=suite, limit=limit)


def newest_finished(
    session: Session, suite: str, variant: str, *, second_chances: bool = True
) -> dict[str, Any] | None:
    """The newest run of all cases that ended, compared with no other; without `second_chances` none that asked again what failed.

    What one came to in a comparison with others says nothing of it by itself.
    """
    where = "WHERE suite = :suite AND variant = :variant AND status = 'finished' ORDER BY started_at DESC"
    for row in session.stream(f"{RUN.select} {where}", suite=suite, variant=variant):
        run = RUN.record(row)
        summary = run["summary"] or {}
        again = summary.get("rerun", {}).get("asks") == "failed"
        if "filter" not in summary and "compared" not in summary and (second_chances or not again):
            return run
    return None


def newest_of_suites(session: Session, suites: Sequence[str]) -> list[dict[str, Any]]:
    """The newest finished run of every variant with each of these suites."""
    if not suites:
        return []
    names, values = listed("suite", suites)
    where = f"""WHERE status = 'finished' AND (suite, variant, started_at) IN (
        SELECT suite, variant, max(started_at) FROM run
        WHERE status = 'finished' AND suite IN {names} GROUP BY suite, variant
    ) ORDER BY suite"""
    return RUN.all(session, where, **values)


_OF_VARIANT = "WHERE suite = :suite AND suite_version = :version AND variant = :variant"


def unfinished(session: Session, suite: str, suite_version: int, variant: str) -> list[dict[str, Any]]:
    """Runs of one suite version and variant that were cut short, newest first."""
    where = f"{_OF_VARIANT} AND status <> 'finished' ORDER BY started_at DESC"
    return RUN.all(session, where, suite=suite, version=suite_version, variant=variant)


def newest(session: Session, suite: str, suite_version: int, variant: str, limit: int = 100) -> list[dict[str, Any]]:
    """Runs of one suite version and variant, ended or not, newest first."""
    where = f"{_OF_VARIANT} ORDER BY started_at DESC LIMIT :limit"
    return RUN.all(session, where, suite=suite, version=suite_version, variant=variant, limit=limit)


def interrupt(session: Session, run_id: str, at: str) -> tuple[int, int]:
    """Close a run that was interrupted; returns how many answers are kept of it, and how many errors."""
    ended = "UPDATE run SET status = 'interrupted', finished_at = :at WHERE id = :id AND status = 'running'"
    session.run(ended, id=run_id, at=at)
    errors = "SELECT count(*) FROM case_result WHERE run_id = :id AND status = 'errored'"
    kept: int = session.value("SELECT count(*) FROM case_result WHERE run_id = :id", id=run_id)
    errored: int = session.value(errors, id=run_id)
    return kept - errored, errored


def finish(session: Session, run_id: str, status: str, summary: dict[str, Any], at: str) -> None:
    RUN.set(session, run_id, status=status, summary=summary, finished_at=at)


def set_summary(session: Session, run_id: str, summary: dict[str, Any]) -> None:
    """What a run that goes on says of itself."""
    RUN.set(session, run_id, summary=summary)


def end_all(session: Session, prefix: str, status: str, at: str) -> None:
    """Close the runs of a job that ended without finishing them, so that nobody waits for them."""
    running = "id LIKE :prefix ESCAPE '/' AND status = 'running'"
    sql = f"UPDATE run SET status = :status, finished_at = :at WHERE {running}"
    session.run(sql, prefix=like(prefix) + "%", status=status, at=at)


_ADD_CASE = (
    "INSERT INTO case_result (run_id, case_id, repeat, position, status, result)"
    " VALUES (:run_id, :case_id, :repeat, :index, :status, :result) ON CONFLICT (run_id, case_id, repeat) DO UPDATE"
    " SET status = excluded.status, result = excluded.result WHERE case_result.status = 'skipped'"
)
_SETTLE_CASE = (
    "UPDATE case_result SET status = :status, result = :result"
    " WHERE run_id = :run_id AND case_id = :case_id AND repeat = :repeat"
)
_COPY = (
    "INSERT INTO case_result (run_id, case_id, repeat, position, status, result)"
    " SELECT :target, case_id, repeat, position, status, result FROM case_result WHERE run_id = :source AND "
)
_COPY_PASSED = (
    _COPY + "case_id IN (SELECT case_id FROM case_result WHERE run_id = :source GROUP BY case_id"
    " HAVING MIN(status) = 'passed' AND MAX(status) = 'passed' AND COUNT(*) = :repeat) ON CONFLICT DO NOTHING"
)
_COPY_JUDGED = _COPY + "status IN ('passed', 'failed') ON CONFLICT DO NOTHING"
_REMEMBER = "INSERT INTO cached_completion (key, completion, at) VALUES (:key, :data, :at) ON CONFLICT DO NOTHING"


def add_cases(session: Session, run_id: str, results: Sequence[dict[str, Any]]) -> None:
    """Write cases' results; writing one again changes nothing, unless it waited for people before."""
    columns = ("case_id", "repeat", "index", "status")
    rows = [
        {**{name: result[name] for name in columns}, "run_id": run_id, "result": _text(result)} for result in results
    ]
    session.run_many(_ADD_CASE, rows)


def settle_cases(session: Session, run_id: str, results: Sequence[dict[str, Any]]) -> None:
    """Write anew what answers came to that are there already, by case and repeat."""
    columns = ("case_id", "repeat", "status")
    rows = [
        {**{name: result[name] for name in columns}, "run_id": run_id, "result": _text(result)} for result in results
    ]
    session.run_many(_SETTLE_CASE, rows)


def copy_passed(session: Session, source: str, target: str, repeat: int) -> int:
    """Give one run the results of another's cases of which all `repeat` repeats passed; returns how many results."""
    return session.run(_COPY_PASSED, source=source, target=target, repeat=repeat)


def copy_judged(session: Session, source: str, target: str) -> int:
    """Give one run the results of another that passed or failed; returns how many."""
    return session.run(_COPY_JUDGED, source=source, target=target)


def cases(session: Session, run_id: str, statuses: tuple[str, ...] = ()) -> Iterator[dict[str, Any]]:
    """Results of a run in the order of its suite, streamed.

    One whose row says another status than the result itself has that as `row_status`: somebody changed one of them.
    """
    names, values = listed("status", statuses) if statuses else ("", {})
    wanted = f" AND status IN {names}" if statuses else ""
    sql = f"SELECT status, result FROM case_result WHERE run_id = :run_id{wanted} ORDER BY position, repeat"
    for status, text in session.stream(sql, run_id=run_id, **values):
        result = read_json(text)
        yield result if result["status"] == status else {**result, "row_status": status}


def case(session: Session, run_id: str, case_id: str, repeat: int) -> dict[str, Any] | None:
    """One result of a run."""
    row = CASE_RESULT.get(session, run_id, case_id, repeat)
    return row["result"] if row else None


def results_of(session: Session, run_id: str, case_ids: Sequence[str]) -> list[dict[str, Any]]:
    """A run's results of these cases, at least one, by repeat."""
    names, values = listed("case", case_ids)
    sql = f"SELECT result FROM case_result WHERE run_id = :run_id AND case_id IN {names} ORDER BY repeat"
    return [read_json(row[0]) for row in session.rows(sql, run_id=run_id, **values)]


def has_cached(session: Session) -> bool:
    """Whether any completion is kept at all."""
    return session.row("SELECT key FROM cached_completion LIMIT 1") is not None


def cached(session: Session, keys: Sequence[str]) -> dict[str, str]:
    """Those of these completions that are kept, as JSON."""
    if not keys:
        return {}
    names, values = listed("key", keys)
    return dict(session.rows(f"SELECT key, completion FROM cached_completion WHERE key IN {names}", **values))


def remember(session: Session, completions: Sequence[tuple[str, dict[str, Any]]], at: str) -> None:
    """Keep completions by their keys; the first of a key stays."""
    session.run_many(_REMEMBER, [{"key": key, "data": _text(data), "at": at} for key, data in completions])


def _text(data: dict[str, Any]) -> str:
    """As JSON: by msgspec, an eighth of the time, except for half a character of an answer, which it does not write."""
    try:
        return _encode(data).decode()
    except UnicodeEncodeError:
        return json.dumps(data)


_encode = msgspec.json.Encoder().encode

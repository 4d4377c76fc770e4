"""Which answers of a run still wait for people."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from service.ratings import rating_id, still_waiting
from service.store import requests, runs
from service.store.database import Database
from suites.judge import Judged
from suites.results import CaseResult

AT = "2026-01-01T00:00:00Z"
CASE, OTHER = "a" * 16, "b" * 16


@pytest.fixture
def database(tmp_path: Path) -> Database:
    found = Database(f"sqlite:///{tmp_path / 'turnout.db'}")
    found.migrate()
    run = {"suite": "s", "suite_version": 1, "variant": "a@1+m", "status": "finished", "started_at": AT}
    answers = [(CASE, 0, "yes"), (CASE, 1, "no"), (CASE, 2, "yes"), (OTHER, 0, "yes")]
    with found.write() as session:
        for name in ("run_1", "run_2"):
            runs.start(session, {**run, "id": name})
            runs.add_cases(session, name, [waiting(*answer) for answer in answers])
    return found


def waiting(case_id: str, repeat: int, output: str) -> dict[str, Any]:
    outcomes = tuple(Judged("human", metric, 1.0, "skipped", None, "nobody has rated it") for metric in (None, "tone"))
    result = CaseResult(case_id, int(case_id == OTHER), repeat, "skipped", outcomes=outcomes, output=output)
    return result.as_dict()


def rate(database: Database, run: str, case_id: str, repeat: int, metric: str, value: float | None = 1.0) -> None:
    row = {"id": f"fb_{run}{repeat}{metric}", "completion_id": rating_id(case_id, run, repeat), "metric": metric}
    with database.write() as session:
        requests.add_feedback(
            session, {**row, "value": value, "comment": "c", "correction": None, "key_id": "k", "at": AT}
        )


def found(database: Database) -> list[tuple[str, int, list[str]]]:
    with database.read() as session:
        return [(each["case_id"], each["repeat"], each["waiting"]) for each in still_waiting(session, "run_1")]


def test_equal_answers_to_one_case_wait_for_one_rating(database: Database) -> None:
    assert found(database) == [
        (CASE, 0, ["human", "tone"]),
        (CASE, 1, ["human", "tone"]),
        (OTHER, 0, ["human", "tone"]),
    ]


def test_what_was_rated_in_any_run_waits_no_more_for_that_metric(database: Database) -> None:
    rate(database, "run_2", CASE, 2, "human")
    assert found(database)[0] == (CASE, 0, ["tone"])
    rate(database, "run_1", CASE, 0, "tone")
    assert found(database) == [(CASE, 1, ["human", "tone"]), (OTHER, 0, ["human", "tone"])]


def test_a_comment_without_a_score_is_no_rating(database: Database) -> None:
    rate(database, "run_1", CASE, 1, "human", value=None)
    assert len(found(database)) == 3

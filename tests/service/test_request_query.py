"""Questions to the request log, on both databases and over HTTP."""

from __future__ import annotations

from typing import Any

import pytest

from service.ids import ago
from service.store import request_query, requests
from service.store.database import Database
from service.store.request_query import Question, newest
from service.store.session import Session
from tests.service.conftest import BOTH, Service
from tests.service.test_request_log import outcome


def at(second: int) -> str:
    return f"2026-01-01T00:00:{second:02}.000000+00:00"


def say(session: Session, number: int, value: Any, *, key: str = "k", metric: str = "rating", second: int = 0) -> None:
    name = f"fb_{number}_{key}_{metric}_{second}_{value}"
    record = {"id": name, "completion_id": f"chatcmpl-{number}", "metric": metric, "value": value, "comment": None,
              "correction": None, "key_id": key, "at": at(second)}  # fmt: skip
    requests.add_feedback(session, record)


def numbers(database: Database, limit: int = 100, **question: Any) -> list[int]:
    with database.read() as session:
        return [int(found["id"].partition("-")[2]) for found in newest(session, Question(**question), limit)]


@BOTH
def test_rows_are_asked_for_by_what_they_are(kind: str, database: Database) -> None:
    with database.write() as session:
        requests.add_outcomes(session, [
            outcome(1, at=at(1)),
            outcome(2, at=at(2), prompt="b", variant="b@1+m"),
            outcome(3, at=at(3), status="cancelled", variant="a@2+m"),
            outcome(4, at=at(4), status="ModelTimeout", trace_id="0af7651916cd43dd8448eb211c80319c"),
            outcome(5, at=at(5), status="ModelRefused", prompt=None, variant="m"),
        ])  # fmt: skip

    assert numbers(database) == [5, 4, 3, 2, 1]
    assert numbers(database, prompt="a") == [4, 3, 1]
    assert numbers(database, variant="a@2+m") == [3]
    assert numbers(database, status="ok") == [2, 1]
    assert numbers(database, status="failed") == [5, 4]
    assert numbers(database, status="ModelTimeout") == [4]
    assert numbers(database, trace_id="0af7651916cd43dd8448eb211c80319c") == [4]
    assert numbers(database, since=at(2), until=at(4)) == [3, 2]
    assert numbers(database, prompt="a", status="ok", since=at(2)) == []


@BOTH
def test_every_row_comes_once_however_small_the_pages_and_equal_the_times(kind: str, database: Database) -> None:
    with database.write() as session:
        requests.add_outcomes(session, [outcome(number, at=at(number // 4)) for number in range(20)])
    found: list[int] = []
    after = None
    while True:
        with database.read() as session:
            page = newest(session, Question(prompt="a", after=after), 3)
        found += [int(each["id"].partition("-")[2]) for each in page]
        if len(page) < 3:
            break
        after = (page[-1]["at"], page[-1]["seq"])

    assert found == list(reversed(range(20)))


@BOTH
def test_rows_are_asked_for_by_the_newest_score_of_each_person(kind: str, database: Database) -> None:
    with database.write() as session:
        requests.add_outcomes(session, [outcome(number, at=at(number)) for number in range(1, 7)])
        requests.add_outcomes(session, [outcome(7, at=at(7), prompt="b")])
        say(session, 1, 0.2)
        say(session, 2, 0.2, second=1)
        say(session, 2, 0.9, second=2)  # the same person thought better of it
        say(session, 3, 0.9, key="k1")
        say(session, 3, 0.1, key="k2")  # two persons are not of one mind
        say(session, 4, 0.1, metric="tone")
        say(session, 5, False)
        say(session, 5, None, second=3)  # a comment takes no score back
        say(session, 6, "good")

    assert numbers(database, metric="rating", below=0.5) == [5, 3, 1]
    assert numbers(database, metric="rating", above=0.5) == [3, 2]
    assert numbers(database, metric="rating", above=0.15, below=0.5) == [1]
    assert numbers(database, metric="rating") == [5, 3, 2, 1]
    assert numbers(database, metric="tone", prompt="a") == [4]
    assert numbers(database, metric="tone", prompt="b") == []


def test_a_rating_of_the_same_instant_that_was_written_later_is_not_lost(tmp_path: Any) -> None:
    database = Database(f"sqlite:///{tmp_path / 'x.db'}")
    database.migrate()
    with database.write() as session:
        requests.add_outcomes(session, [outcome(1)])
        for number, value in enumerate((0.1, 0.9)):
            record = {"id": f"fb_{number}", "completion_id": "chatcmpl-1", "metric": "m", "value": value, "key_id": "k"}
            requests.add_feedback(session, {**record, "at": at(0)})

    assert numbers(database, metric="m", above=0.5) == [1]
    assert numbers(database, metric="m", below=0.5) == []
    database.close()


# ---------------------------------------------------------------------------- over HTTP


@pytest.fixture
def filled(service: Service) -> Service:
    rows = [outcome(number, at=ago(60 * number), prompt="ab"[number % 2]) for number in range(6)]
    with service.context.database.write() as session:
        requests.add_outcomes(session, rows)
    return service


def ids(answer: Any) -> list[str]:
    assert answer.status_code == 200, answer.text
    return [each["id"] for each in answer.json()]


def test_pages_are_linked(filled: Service) -> None:
    answer = filled.call("GET", "/api/requests?prompt=a&limit=2")
    link = answer.headers["link"].removeprefix("<").removesuffix('>; rel="next"')
    last = filled.call("GET", link)

    assert (ids(answer), ids(last)) == (["chatcmpl-0", "chatcmpl-2"], ["chatcmpl-4"])
    assert "link" not in last.headers


def test_an_author_reads_the_log_of_a_prompt_and_an_admin_all_of_it(filled: Service) -> None:
    assert ids(filled.call("GET", "/api/prompts/a/requests", "author")) == ["chatcmpl-0", "chatcmpl-2", "chatcmpl-4"]
    assert filled.call("GET", "/api/requests?prompt=a", "author").status_code == 403
    assert len(ids(filled.call("GET", "/api/requests"))) == 6


def test_ages_are_times(filled: Service) -> None:
    assert ids(filled.call("GET", "/api/requests?since=150s&until=30s")) == ["chatcmpl-1", "chatcmpl-2"]


@pytest.mark.parametrize(
    ("query", "param"),
    [("since=yesterday", "since"), ("until=7w", "until"), ("after=3", "after"), ("after=x,y", "after"),
     ("below=0.5", "metric"), ("limit=1001", "limit"), ("staus=ok", "staus")],
)  # fmt: skip
def test_a_question_that_cannot_be_meant_is_refused(service: Service, query: str, param: str) -> None:
    for path in ("/api/requests", "/api/prompts/a/requests"):
        answer = service.call("GET", f"{path}?{query}")

        assert (answer.status_code, answer.json()["param"]) == (400, param)


def test_what_no_row_can_have_is_told(filled: Service) -> None:
    answer = filled.call("GET", "/api/requests?status=bogus")
    assert (answer.status_code, answer.json()["param"]) == (400, "status")
    assert "'bogus': give ok, cancelled, failed or an error's class, such as " in answer.json()["detail"]
    assert "ModelTimeout" in answer.json()["detail"]
    for path in ("/api/requests?prompt=nope", "/api/prompts/nope/requests"):
        answer = filled.call("GET", path)
        assert (answer.status_code, "no prompt 'nope'" in answer.json()["detail"]) == (404, True)

    with filled.context.database.write() as session:
        requests.add_outcomes(session, [outcome(9, prompt="gone", status="OfOldVersion")])
    assert ids(filled.call("GET", "/api/requests?prompt=gone&status=OfOldVersion")) == ["chatcmpl-9"]
    for query in (
        "prompt=gone&status=failed&since=2099-01-01",
        "status=OfOldVersion&until=2020-01-01",
        "status=RenderError",
    ):
        assert ids(filled.call("GET", f"/api/requests?{query}")) == []


def test_a_question_by_score_looks_only_at_what_was_said_of_the_same_completion(tmp_path: Any) -> None:
    database = Database(f"sqlite:///{tmp_path / 'x.db'}")
    database.migrate()
    sql = "EXPLAIN QUERY PLAN SELECT id FROM request WHERE "
    sql += request_query._RATED.format(bounds=" AND said.score < :below")
    with database.read() as session:
        plan = session.rows(sql, metric="m", below=0.5)
    database.close()

    steps = [step for *_, step in plan]
    assert "SEARCH later USING INDEX feedback_on (completion_id=? AND metric=? AND key_id=?)" in steps
    assert not any(step.startswith("SCAN") for step in steps)

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from service.api.idempotency import once
from tests.service.conftest import AUTHOR, Service, case, make_settings, suite

ONCE = "idempotency-key"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with Service(make_settings(tmp_path_factory.mktemp("home"))).running() as service:
        service.push()
        service.produce(1)
        service.put_suite("triage", suite(case("charged", "billing"), thresholds={"pass_rate": 0.5}))
        yield service


def start(service: Service, key: str, role: str = "author", path: str = "/api/runs", **body: Any) -> Any:
    given = body or {"suite": "triage"}
    return service.call("POST", path, role, json=given, headers={ONCE: key})


def jobs_of(service: Service) -> int:
    return len(service.call("GET", "/api/jobs?limit=500").json())


def test_the_same_key_and_body_start_work_once_and_answer_the_same(service: Service) -> None:
    first = start(service, "one")
    before = jobs_of(service)
    again = start(service, "one")

    assert (first.status_code, again.status_code) == (202, 202)
    assert again.json() == first.json()
    assert jobs_of(service) == before


def test_the_answer_stays_the_same_after_the_work_was_done(service: Service) -> None:
    first = start(service, "done").json()
    service.work(first["job_id"])

    assert start(service, "done").json() == first


def test_the_answer_stays_the_same_when_the_request_would_now_be_refused(service: Service) -> None:
    service.call("PUT", "/api/prompts/support.triage/labels/soon-gone", "author", json={"version": 1})
    body = {"suite": "triage", "prompt": "support.triage@soon-gone"}
    first = start(service, "gone", **body)
    service.call("DELETE", "/api/prompts/support.triage/labels/soon-gone", "author")

    assert start(service, "gone", **body).json() == first.json()
    assert start(service, "another", **body).status_code == 404


def test_the_same_key_and_another_body_is_409_and_starts_nothing(service: Service) -> None:
    start(service, "two")
    before = jobs_of(service)

    answer = start(service, "two", suite="triage", concurrency=2)

    assert (answer.status_code, answer.json()["type"]) == (409, "urn:turnout:error:idempotency_mismatch")
    assert jobs_of(service) == before


def test_a_key_is_its_principals_own(service: Service) -> None:
    assert start(service, "three").json() != start(service, "three", "ci").json()


def test_another_key_or_none_starts_work_again(service: Service) -> None:
    first, other = start(service, "four").json(), start(service, "five").json()
    without = service.call("POST", "/api/runs", "author", json={"suite": "triage"}).json()

    assert len({first["job_id"], other["job_id"], without["job_id"]}) == 3


def test_the_same_key_many_times_at_once_starts_one_job(service: Service) -> None:
    before = jobs_of(service)
    waiting = [
        service.start("POST", "/api/runs", "author", json={"suite": "triage"}, headers={ONCE: "at-once"})
        for _ in range(12)
    ]
    answers = [future.result(30) for future in waiting]

    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.json()["job_id"] for answer in answers}) == 1
    assert jobs_of(service) == before + 1


def test_of_two_at_once_both_are_told_what_was_answered_first(service: Service) -> None:
    given: list[dict[str, Any]] = []

    def slowly(_: str | None) -> dict[str, Any]:
        """The one that took the key first, and is overtaken while it starts the work."""
        given.append(once(service.context, AUTHOR, "overtaken", {}, lambda _: {"status": "running"}))
        return {"status": "queued"}

    given.append(once(service.context, AUTHOR, "overtaken", {}, slowly))
    given.append(once(service.context, AUTHOR, "overtaken", {}, slowly))

    assert given == [{"status": "running"}] * 3


def test_the_same_key_with_many_bodies_at_once_starts_the_work_of_one(service: Service) -> None:
    before = jobs_of(service)
    waiting = [
        service.start(
            "POST", "/api/runs", "author", json={"suite": "triage", "concurrency": n}, headers={ONCE: "bodies"}
        )
        for n in range(1, 9)
    ]
    codes = sorted(future.result(30).status_code for future in waiting)

    assert codes == [202] + [409] * 7
    assert jobs_of(service) == before + 1


def test_a_refused_request_uses_no_key_up(service: Service) -> None:
    assert start(service, "six", suite="no.such").status_code == 404

    assert start(service, "six").status_code == 202


@pytest.mark.parametrize("path", ["/api/gates", "/api/runs"])
def test_every_start_of_work_takes_a_key(service: Service, path: str) -> None:
    body: dict[str, Any] = {"suites": ["triage"]} if path == "/api/gates" else {"suite": "triage"}

    first, again = (start(service, f"start {path}", "ci", path, **body).json() for _ in range(2))

    assert first == again


@pytest.mark.parametrize("key", ["", "x" * 256])
def test_a_key_that_is_empty_or_too_long_is_400(service: Service, key: str) -> None:
    assert start(service, key).status_code == 400

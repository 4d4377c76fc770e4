"""`--rerun-failed`: what a run may ask again, what a gate may not, and what both say of it."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from prompts.errors import ModelRefused
from prompts.messages import Completion, CompletionRequest
from service.models.fake import FakeModel, last_user_text
from suites.gate import read_evidence
from suites.verification import verify_record
from tests.service.conftest import Service, case, make_settings, suite

TICKETS = ["charged by chance", "charged", "password"]
CASES = [case("charged by chance", "billing"), case("charged", "billing"), case("password", "account")]


class Answers:
    """What the model is asked; `wrong` and `refused` give how its next answers to a ticket are spoilt."""

    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()
        self.wrong: dict[str, Iterator[bool]] = {}
        self.refused: dict[str, Iterator[bool]] = {}

    def answer(self, request: CompletionRequest) -> str | None:
        ticket = last_user_text(request)
        self.asked[ticket] += 1
        if next(self.refused.get(ticket, iter(())), False):
            raise ModelRefused("not this time", status=400)
        return "other" if next(self.wrong.get(ticket, iter(())), False) else None

    def take(self) -> dict[str, int]:
        """What was asked since the last time."""
        found, self.asked = self.asked, Counter()
        return dict(found)


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> Answers:
    made, plain = Answers(), FakeModel.complete

    async def complete(model: FakeModel, request: CompletionRequest) -> Completion:
        spoilt = made.answer(request)
        return await plain(FakeModel(spoilt) if spoilt else model, request)

    monkeypatch.setattr(FakeModel, "complete", complete)
    return made


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """`thrice` asks three tickets three times each, `once` once each."""
    with Service(make_settings(tmp_path_factory.mktemp("home"))).running() as service:
        service.push()
        service.produce(1)
        service.put_suite("thrice", suite(*CASES, repeat=3))
        service.put_suite("once", suite(*CASES, thresholds={"pass_rate": 0.9}))
        yield service


def run(service: Service, name: str, **body: Any) -> dict[str, Any]:
    body = {"suite": name, "no_cache": True, "concurrency": 1, **body}
    started = service.call("POST", "/api/runs", "ci", json=body).json()
    found: dict[str, Any] = service.work(started["job_id"])["result"]
    return found


def gate(service: Service, name: str, **body: Any) -> dict[str, Any]:
    body = {"suites": [name], "no_cache": True, "concurrency": 1, "baseline": "none", **body}
    started = service.call("POST", "/api/gates", "ci", json=body).json()
    found: dict[str, Any] = service.work(started["job_id"])["result"]
    return found


def evidence(service: Service, answer: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = service.call("GET", f"/api/evidence/{answer['suites'][0]['evidence_id']}", "ci").json()
    return found


def test_a_case_with_a_failed_repeat_is_asked_again_in_all_its_repeats(service: Service, answers: Answers) -> None:
    answers.wrong["charged by chance"] = iter([False, True, False])
    first = run(service, "thrice")
    answers.take()

    again = run(service, "thrice", rerun_failed=True)

    assert (first["passed"], first["failed"]) == (2, 1)
    assert answers.take() == {"charged by chance": 3}
    assert (again["total"], again["passed"]) == (3, 3)
    assert again["rerun"] == {"of": first["run_id"], "asks": "failed", "kept": 6}


def test_passed_repeats_of_a_flaky_case_are_not_kept(service: Service, answers: Answers) -> None:
    """Each of two runs fails another repeat: kept passes would have made a case of it that passed in all three."""
    answers.wrong["charged by chance"] = itertools.cycle([False, True, False, True, False, False])
    run(service, "thrice")

    again = run(service, "thrice", rerun_failed=True)

    assert (again["passed"], again["failed"]) == (2, 1)


def test_a_gate_asks_nothing_again_that_was_judged(service: Service, answers: Answers) -> None:
    answers.wrong["charged by chance"] = iter([True])
    answers.refused["password"] = iter([True])
    first = run(service, "once")
    answers.take()

    decided = gate(service, "once", rerun_failed=True)

    assert (first["failed"], first["errored"]) == (1, 1)
    assert answers.take() == {"password": 1}
    assert (decided["verdict"], decided["suites"][0]["pass_rate"]) == ("fail", 2 / 3)
    record = evidence(service, decided)
    assert read_evidence(record["content"]).given.candidate.rerun_of == first["run_id"]
    assert verify_record(record) == []
    [note] = decided["notes"]
    assert note.startswith(f"once: the candidate's run keeps what {first['run_id']} judged")


def test_a_gate_keeps_nothing_of_a_run_that_gave_second_chances(service: Service, answers: Answers) -> None:
    first = run(service, "once")
    answers.wrong["charged"] = iter([True])
    failed = run(service, "once")
    mended = run(service, "once", rerun_failed=True)
    answers.take()

    decided = gate(service, "once", rerun_failed=True)

    assert [each["passed"] for each in (first, failed, mended)] == [3, 2, 3]
    given = read_evidence(evidence(service, decided)["content"]).given
    assert (given.candidate.rerun_of, decided["verdict"]) == (failed["run_id"], "fail")


def test_a_run_that_gave_second_chances_is_no_baseline(service: Service, answers: Answers) -> None:
    answers.wrong["charged"] = iter([True])
    first = run(service, "once")
    again = run(service, "once", rerun_failed=True)

    refused = service.call("POST", "/api/gates", "ci", json={"suites": ["once"], "baseline": f"run:{again['run_id']}"})

    assert refused.status_code == 400
    assert "cases that had failed got a second chance" in refused.json()["detail"]
    assert f"give run:{first['run_id']}" in refused.json()["detail"]


def test_a_gate_without_rerun_failed_rests_on_first_answers_and_says_nothing(
    service: Service, answers: Answers
) -> None:
    decided = gate(service, "once")

    assert decided["notes"] == []
    assert read_evidence(evidence(service, decided)["content"]).given.candidate.rerun_of is None
    assert answers.take() == dict.fromkeys(TICKETS, 1)

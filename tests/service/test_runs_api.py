"""Runs and jobs over HTTP; a job is done by the worker's own code in this process."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.service.conftest import Service, case, make_settings, suite, triage

THREE = suite(case("charged twice", "billing"), case("my password", "account"), case("hello", "billing"))


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with Service(make_settings(tmp_path_factory.mktemp("home"))).running() as service:
        service.push()
        service.push(data=triage(model="model-b"))
        service.produce(1)
        service.put_suite("triage", THREE)
        service.put_suite("bounded", {**THREE, "thresholds": {"pass_rate": 0.9}})
        yield service


def start(service: Service, role: str = "author", **body: Any) -> dict[str, Any]:
    answer = service.call("POST", "/api/runs", role, json={"suite": "triage", **body})
    assert answer.status_code == 202, answer.text
    started: dict[str, Any] = answer.json()
    return started


def finish(service: Service, **body: Any) -> dict[str, Any]:
    started = start(service, **body)
    job = service.work(started["job_id"])
    assert job["status"] == "succeeded", job
    run: dict[str, Any] = service.call("GET", f"/api/runs/{started['run_id']}", "author").json()
    return run


def test_a_run_is_queued_done_and_read(service: Service) -> None:
    started = start(service)
    assert started["status"] == "queued"
    waiting = service.call("GET", f"/api/runs/{started['run_id']}", "author").json()
    assert (waiting["status"], waiting["job_id"]) == ("queued", started["job_id"])

    job = service.work(started["job_id"])
    run = service.call("GET", f"/api/runs/{started['run_id']}", "author").json()

    assert job["status"] == "succeeded"
    assert {name: run[name] for name in ("run_id", "status", "suite", "variant", "total", "passed", "failed", "errored",
                                         "skipped", "verdict")} == {
        "run_id": started["run_id"], "status": "finished", "suite": "triage@1", "variant": "support.triage@1+model-a",
        "total": 3, "passed": 2, "failed": 1, "errored": 0, "skipped": 0, "verdict": "fail",
    }  # fmt: skip
    assert run["pass_rate"] == pytest.approx(2 / 3)
    assert job["result"]["run_id"] == started["run_id"]


def test_every_case_is_accounted_for_in_the_order_of_the_suite(service: Service) -> None:
    run = finish(service)
    cases = service.call("GET", f"/api/runs/{run['run_id']}/cases", "author").json()
    failed = service.call("GET", f"/api/runs/{run['run_id']}/cases?status=failed,errored", "author").json()

    assert [(row["index"], row["status"], row["output"]) for row in cases] == [
        (0, "passed", "billing"),
        (1, "passed", "account"),
        (2, "failed", "other"),
    ]
    assert [row["index"] for row in failed] == [2]


def test_a_run_can_be_of_any_version_and_model(service: Service) -> None:
    assert finish(service, prompt="support.triage@2")["variant"] == "support.triage@2+model-b"
    assert finish(service, prompt="support.triage@latest", model="model-a")["variant"] == "support.triage@2+model-a"
    assert finish(service, model="priced")["cost_per_1k_usd"] > 0


def test_a_missed_threshold_is_a_verdict_and_no_failed_job(service: Service) -> None:
    run = finish(service, suite="bounded")

    assert run["verdict"] == "fail"
    assert run["thresholds"] == [{"name": "pass_rate", "bound": 0.9, "value": pytest.approx(2 / 3), "met": False}]


def test_a_dead_model_is_counted_and_the_run_could_not_run(service: Service) -> None:
    run = finish(service, model="dead", concurrency=1)

    assert run["verdict"] == "could_not_run"
    assert run["passed"] + run["failed"] == 0
    assert run["errored"] + run["skipped"] == 3


def test_rerun_failed_keeps_what_passed(service: Service) -> None:
    first = finish(service)
    again = finish(service, rerun_failed=True)

    assert again["run_id"] != first["run_id"]
    assert (again["total"], again["passed"], again["failed"]) == (3, 2, 1)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"suite": "no.such"}, 404),
        ({"suite": "triage@9"}, 404),
        ({"suite": "triage", "prompt": "support.triage@9"}, 404),
        ({"suite": "triage", "prompt": "support.triage@nightly"}, 404),
        ({"suite": "triage", "model": "no-model"}, 400),
        ({"suite": "triage", "prompt": "another"}, 400),
        ({"suite": "triage", "concurrency": 0}, 400),
        ({"suite": "triage", "retries": 3}, 400),
        ({}, 400),
    ],
)
def test_what_can_be_known_to_be_wrong_is_refused_before_anything_is_queued(
    service: Service, body: dict[str, Any], status: int
) -> None:
    before = len(service.call("GET", "/api/jobs?limit=500").json())

    assert service.call("POST", "/api/runs", "author", json=body).status_code == status

    assert len(service.call("GET", "/api/jobs?limit=500").json()) == before


def test_events_tell_of_progress_in_order_and_end_with_the_job(service: Service) -> None:
    started = start(service)
    service.work(started["job_id"])

    events = service.call("GET", f"/api/jobs/{started['job_id']}/events", "author").json()

    assert [event["number"] for event in events] == list(range(1, len(events) + 1))
    assert events[-1]["type"] == "succeeded"
    counted = [event["data"]["done"] for event in events if event["type"] == "cases"]
    assert counted[-1] == 3
    assert counted == sorted(counted)
    assert service.call("GET", f"/api/runs/{started['run_id']}/events", "author").json() == events
    after = service.call("GET", f"/api/jobs/{started['job_id']}/events?after={len(events) - 1}", "author").json()
    assert after == events[-1:]


def test_events_are_streamed_until_the_job_has_ended(service: Service) -> None:
    started = start(service)
    path = f"/api/jobs/{started['job_id']}/events"
    streaming = service.start("GET", path, "author", headers={"accept": "text/event-stream"})
    service.work(started["job_id"])

    text = streaming.result(30).text

    blocks = [dict(line.split(": ", 1) for line in block.split("\n")) for block in text.strip().split("\n\n")]
    assert [block["id"] for block in blocks] == [str(number + 1) for number in range(len(blocks))]
    assert blocks[-1]["event"] == "succeeded"
    assert json.loads(blocks[0]["data"])["number"] == 1


def test_a_waiting_job_is_cancelled_and_resumed(service: Service) -> None:
    started = start(service)
    job = f"/api/jobs/{started['job_id']}"

    assert service.call("POST", f"{job}/cancel", "author").json()["status"] == "cancelled"
    assert service.work(started["job_id"])["status"] == "cancelled"
    resumed = service.call("POST", f"{job}/resume", "author").json()
    assert (resumed["status"], resumed["attempt"]) == ("queued", 2)
    assert service.work(started["job_id"])["status"] == "succeeded"


def test_another_authors_job_is_an_admins_to_cancel(service: Service) -> None:
    started = start(service, role="ci")
    cancel = f"/api/jobs/{started['job_id']}/cancel"

    assert service.call("POST", cancel, "author").status_code == 403
    assert service.call("POST", cancel, "admin").json()["status"] == "cancelled"


def test_a_job_shows_nothing_that_only_workers_need(service: Service) -> None:
    started = start(service)
    job = service.call("GET", f"/api/jobs/{started['job_id']}").json()
    service.call("POST", f"/api/jobs/{started['job_id']}/cancel")

    assert job.keys() == {"job_id", "kind", "spec", "status", "attempt", "created_by", "created_at", "started_at",
                          "finished_at", "result", "error", "cancelling"}  # fmt: skip


@pytest.mark.parametrize("path", ["/api/runs/run_0", "/api/runs/run_0/cases", "/api/runs/run_0/events", "/api/jobs/job_0",
                                  "/api/jobs/job_0/events", "/api/evidence/ev_0", "/api/gates/job_0"])  # fmt: skip
def test_what_does_not_exist_is_404(service: Service, path: str) -> None:
    assert service.call("GET", path).status_code == 404


@pytest.mark.parametrize(
    ("path", "detail"),
    [
        ("/api/runs/run_0/events", "no run 'run_0': `turnout run` says the id of a run, and GET /api/runs lists them"),
        ("/api/runs/nope/cases", "no run 'nope': `turnout run` says the id of a run, and GET /api/runs lists them"),
        ("/api/gates/job_0", "no gate 'job_0'"),
    ],
)
def test_what_does_not_exist_is_named_as_it_was_asked_for(service: Service, path: str, detail: str) -> None:
    assert service.call("GET", path).json()["detail"] == detail


def test_a_run_that_has_not_begun_has_no_cases_yet(service: Service) -> None:
    started = start(service)
    answer = service.call("GET", f"/api/runs/{started['run_id']}/cases", "author")
    service.call("POST", f"/api/jobs/{started['job_id']}/cancel")

    assert (answer.status_code, answer.json()) == (200, [])


def test_a_runs_id_with_more_behind_it_is_no_run(service: Service) -> None:
    run = finish(service)["run_id"]

    assert [service.call("GET", f"/api/runs/{run}_9{rest}").status_code for rest in ("", "/cases", "/events")] == [
        404
    ] * 3


def test_a_status_that_no_case_has_is_refused_with_those_that_there_are(service: Service) -> None:
    run = finish(service)["run_id"]
    answer = service.call("GET", f"/api/runs/{run}/cases?status=failed,broken", "author")

    assert (answer.status_code, answer.json()["param"]) == (400, "status")
    assert answer.json()["detail"] == "status 'broken': give passed, failed, errored, skipped, or several with commas"


def test_jobs_are_listed_of_a_kind_that_there_is(service: Service) -> None:
    finish(service)
    listed = service.call("GET", "/api/jobs?kind=run", "author").json()
    unknown = service.call("GET", "/api/jobs?kind=training", "author")

    assert {job["kind"] for job in listed} == {"run"}
    assert (unknown.status_code, unknown.json()["param"]) == (400, "kind")
    assert unknown.json()["detail"].startswith("kind: no such value 'training': expected one of 'run', 'matrix', ")


def test_a_job_that_is_no_gate_is_not_shown_as_one(service: Service) -> None:
    run = finish(service)["run_id"]
    job = run.replace("run_", "job_")
    answer = service.call("GET", f"/api/gates/{job}", "author")

    assert answer.status_code == 404
    assert answer.json()["detail"] == f"no gate '{job}': that is a job of kind 'run': GET /api/jobs/{job} shows it"


def test_runs_are_listed_newest_first(service: Service) -> None:
    first, second = finish(service), finish(service)

    listed = service.call("GET", "/api/runs?suite=triage&limit=2", "author").json()

    assert [run["run_id"] for run in listed] == [second["run_id"], first["run_id"]]


@pytest.mark.parametrize("path", ["audit", "requests", "runs", "jobs", "calibrations?suite=triage"])
def test_a_list_of_fewer_than_one_or_of_too_many_is_refused_with_the_bounds(service: Service, path: str) -> None:
    most = 1000 if path in ("audit", "requests") else 500
    for limit in (-1, 0, most + 1):
        answer = service.call("GET", f"/api/{path}{'&' if '?' in path else '?'}limit={limit}", "admin")
        assert answer.status_code == 400
        assert "limit" in answer.text
        assert str(most if limit > 0 else 1) in answer.text
    assert service.call("GET", f"/api/{path}{'&' if '?' in path else '?'}limit={most}", "admin").status_code == 200


def test_a_run_of_some_cases_is_marked_and_no_gate_takes_it_for_a_baseline(service: Service) -> None:
    tagged = suite(case("charged twice", "billing", tags=["money"]), case("my password", "account"))
    service.put_suite("tagged", {**tagged, "thresholds": {"pass_rate": 0.5}})

    run = finish(service, suite="tagged", filter={"tags": ["money"]})
    gate = {"suites": ["tagged"], "candidate": "support.triage@1", "baseline": f"run:{run['run_id']}"}
    refused = service.call("POST", "/api/gates", "ci", json=gate)

    assert (run["total"], run["passed"], run["filter"]) == (1, 1, {"tags": ["money"]})
    assert refused.status_code == 400
    assert "has some of the cases only" in refused.json()["detail"]
    assert service.call("POST", "/api/gates", "ci", json={**gate, "filter": {"first": 1}}).status_code == 400


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ({"filter": {"tags": ["none-such"]}}, "the suite's tags are none"),
        ({"filter": {"first": 1}, "rerun_failed": True}, "leave the filter out"),
        ({"filter": {"first": 0}}, "filter"),
        ({"filter": {"frist": 1}}, "frist"),
    ],
)
def test_a_filter_that_cannot_be_is_refused_before_anything_is_queued(
    service: Service, body: dict[str, Any], told: str
) -> None:
    answer = service.call("POST", "/api/runs", "author", json={"suite": "triage", **body})
    assert answer.status_code == 400
    assert told in answer.text


@pytest.mark.integration
def test_a_suite_of_many_cases_is_stored_in_chunks_and_read_whole(service: Service) -> None:
    many = suite(*(case(f"charged {number}", "billing", tags=[str(number)]) for number in range(600)))
    version = service.put_suite("many", many)
    assert service.put_suite("many", many) == version

    shown = service.call("GET", "/api/suites/many", "author").json()
    run = finish(service, suite="many", concurrency=64)
    last = finish(service, suite="many", filter={"tags": ["599"]})

    assert shown["content"]["tests"] == many["tests"]
    assert (run["total"], run["passed"]) == (600, 600)
    cases = service.call("GET", f"/api/runs/{last['run_id']}/cases", "author").json()
    assert [row["index"] for row in cases] == [599]

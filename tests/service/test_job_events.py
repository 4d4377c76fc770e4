"""A job's events as a stream: those that are there, those to come, and its end."""

from __future__ import annotations

import json
from typing import Any

import pytest

from service.api import jobs as api
from service.ids import now
from service.store import jobs
from tests.service.conftest import Service

EVENTS = {"accept": "text/event-stream"}


@pytest.fixture
def ended(service: Service) -> str:
    """A job that ended with three events."""
    with service.context.database.write() as session:
        record = {
            "id": "job_1",
            "kind": "finetune",
            "spec": {},
            "status": "succeeded",
            "created_by": "k",
            "created_at": now(),
        }
        jobs.add(session, record)
        for number in range(1, 4):
            jobs.add_event(session, "job_1", "cases", {"done": number, "total": 3}, now())
    return "job_1"


def read(text: str) -> list[dict[str, Any]]:
    return [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: ")]


def test_a_stream_tells_all_and_ends_with_the_job(service: Service, ended: str) -> None:
    answer = service.call("GET", f"/api/jobs/{ended}/events", "author", headers=EVENTS)

    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.headers["cache-control"] == "no-cache"
    assert [event["number"] for event in read(answer.text)] == [1, 2, 3]
    assert "id: 3\nevent: cases\n" in answer.text


@pytest.mark.parametrize(("last", "expected"), [("2", [3]), ("3", []), ("x", [1, 2, 3]), ("-1", [1, 2, 3])])
def test_a_stream_goes_on_behind_the_event_that_was_seen_last(
    service: Service, ended: str, last: str, expected: list[int]
) -> None:
    answer = service.call("GET", f"/api/jobs/{ended}/events", "author", headers=EVENTS | {"last-event-id": last})

    assert [event["number"] for event in read(answer.text)] == expected


def test_a_quiet_stream_says_that_it_is_still_there(
    service: Service, ended: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api, "KEEP_ALIVE_S", 0.0)
    monkeypatch.setattr(api, "POLL_S", 0.01)
    with service.context.database.write() as session:
        record = {
            "id": "job_2",
            "kind": "finetune",
            "spec": {},
            "status": "queued",
            "created_by": "k",
            "created_at": now(),
        }
        jobs.add(session, record)
    waiting = service.start("GET", "/api/jobs/job_2/events", "author", headers=EVENTS)
    while not waiting.done():
        with service.context.database.write() as session:
            jobs.end(session, jobs.get(session, "job_2", lock=True) or {}, now())
    assert ": still here\n\n" in waiting.result(10).text

"""Suites with a schedule are tested on what takes the traffic, each time once, and train once for the same failure."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from service.errors import StorageFailed
from service.gates import Gates
from service.jobs import Jobs
from service.scheduling import Schedule, last_time
from tests.service.conftest import Service, case, suite, triage

NAME = "support.triage"
SCHEDULED: dict[str, Any] = {"schedule": "0 3 * * *", "thresholds": {"pass_rate": 0.9}}
FAILS = (case("charged", "billing"), case("hello", "billing"))


def tomorrow_at(hour: int, minute: int = 0) -> datetime:
    day = datetime.now(UTC) + timedelta(days=1)
    return day.replace(hour=hour, minute=minute, second=0, microsecond=0)


def schedule_of(service: Service) -> Schedule:
    return Schedule(service.context.database, service.context.gates)


@pytest.fixture
def scheduled(service: Service) -> Service:
    service.produce(service.push())
    service.put_suite(NAME, suite(*FAILS, **SCHEDULED))
    return service


@pytest.mark.parametrize(
    ("schedule", "at", "last"),
    [
        ("0 3 * * *", "2026-03-05T03:00:00", "2026-03-05T03:00:00"),
        ("0 3 * * *", "2026-03-05T02:59:59", "2026-03-04T03:00:00"),
        ("*/15 * * * *", "2026-03-05T10:44:59", "2026-03-05T10:30:00"),
        ("0 9 * * mon", "2026-03-05T10:00:00", "2026-03-02T09:00:00"),
        ("30 23 31 12 *", "2026-03-05T10:00:00", "2025-12-31T23:30:00"),
    ],
)
def test_when_a_schedule_was_last_due(schedule: str, at: str, last: str) -> None:
    found = last_time(schedule, datetime.fromisoformat(at).replace(tzinfo=UTC))
    assert found == datetime.fromisoformat(last).replace(tzinfo=UTC)


def test_nothing_is_due_before_its_time_and_each_time_is_one_job(scheduled: Service) -> None:
    schedule = schedule_of(scheduled)
    assert schedule.submit_due(datetime.now(UTC)) == []
    [first] = schedule.submit_due(tomorrow_at(3))
    assert schedule.submit_due(tomorrow_at(3, 1)) == []
    assert schedule_of(scheduled).submit_due(tomorrow_at(9)) == []  # another worker finds the job
    [second] = schedule.submit_due(tomorrow_at(3) + timedelta(days=1))
    assert first != second


def test_a_missed_time_is_made_up_for_within_a_day_and_once(scheduled: Service) -> None:
    schedule = schedule_of(scheduled)
    assert len(schedule.submit_due(tomorrow_at(3) + timedelta(days=5, hours=7))) == 1
    assert schedule.submit_due(tomorrow_at(3) + timedelta(days=5, hours=8)) == []


def test_a_scheduled_gate_tests_production_afresh_and_says_what_it_missed(scheduled: Service) -> None:
    [job_id] = schedule_of(scheduled).submit_due(tomorrow_at(3))
    job = scheduled.work(job_id)
    assert job["status"] == "succeeded"
    assert job["result"]["verdict"] == "fail"
    assert job["result"]["suites"][0]["candidate"] == f"{NAME}@1+model-a"
    assert job["created_by"] == "schedule"


def test_what_was_pushed_after_its_time_waits_for_the_next(scheduled: Service) -> None:
    late = datetime.now(UTC)
    scheduled.put_suite(NAME, suite(*FAILS, **{**SCHEDULED, "schedule": f"{late.minute} {late.hour} * * *"}))
    just_before = late.replace(second=0, microsecond=0)
    assert schedule_of(scheduled).submit_due(just_before + timedelta(seconds=30)) == []


def test_a_prompt_without_traffic_and_a_suite_without_schedule_are_left_alone(service: Service) -> None:
    service.push()
    service.put_suite(NAME, suite(*FAILS, **SCHEDULED))
    assert schedule_of(service).submit_due(tomorrow_at(3)) == []
    service.produce(1)
    service.put_suite(NAME, suite(*FAILS))
    assert schedule_of(service).submit_due(tomorrow_at(3)) == []


def test_a_suite_without_thresholds_is_a_run(service: Service) -> None:
    service.produce(service.push())
    service.put_suite(NAME, suite(*FAILS, schedule="0 3 * * *"))
    [job_id] = schedule_of(service).submit_due(tomorrow_at(3))
    job = service.work(job_id)
    assert (job["kind"], job["result"]["total"], job["result"]["passed"]) == ("run", 2, 1)


def test_the_same_failure_starts_one_fine_tune_however_often_it_is_due(service: Service) -> None:
    service.produce(service.push())
    training = {"examples": [{"vars": {"ticket": f"example {n}"}, "expected": "billing"} for n in range(20)]}
    fallback = {"when": "thresholds_missed", "base_model": "tunable"}
    service.put_suite(NAME, suite(*FAILS, **SCHEDULED, training=training, fallback=fallback))
    schedule = schedule_of(service)
    started = []
    for day in range(2):
        [job_id] = schedule.submit_due(tomorrow_at(3) + timedelta(days=day))
        started.append(service.work(job_id)["result"]["suites"][0]["fallback"]["job_id"])
    assert started[0] is not None
    assert started[0] == started[1]
    assert len(Jobs(service.context.database).listing(kind="finetune")) == 1


def test_what_cannot_be_asked_is_told_once_and_holds_up_nothing(
    scheduled: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    monkeypatch.setattr("service.scheduling.log.warning", lambda message, **_: told.append(message), raising=False)
    scheduled.push(data=triage(model="priced"))  # production, which the schedule asks, has no price
    scheduled.put_suite(NAME, suite(*FAILS, **{**SCHEDULED, "thresholds": {"cost_per_1k_usd": 1.0}}))
    schedule = schedule_of(scheduled)
    for minute in range(3):
        assert schedule.submit_due(tomorrow_at(3, minute)) == []
    assert told == ["a scheduled suite cannot be run"]


@pytest.mark.parametrize("step", [(Gates, "pinned"), (Jobs, "submit")])
def test_what_the_database_did_not_take_is_asked_again(
    scheduled: Service, monkeypatch: pytest.MonkeyPatch, step: tuple[type, str]
) -> None:
    def full(*_: object, **__: object) -> None:
        raise StorageFailed("the disk is full")

    schedule = schedule_of(scheduled)
    with monkeypatch.context() as patch:
        patch.setattr(*step, full)
        with pytest.raises(StorageFailed):
            schedule.submit_due(tomorrow_at(3))

    assert len(schedule.submit_due(tomorrow_at(3, 1))) == 1


def test_schedules_are_read_anew_when_a_suite_is_pushed(scheduled: Service) -> None:
    schedule = schedule_of(scheduled)
    assert schedule.submit_due(datetime.now(UTC)) == []
    scheduled.put_suite("support.other", suite(*FAILS, schedule="0 4 * * *", prompt=NAME))
    assert len(schedule.submit_due(tomorrow_at(5))) == 2

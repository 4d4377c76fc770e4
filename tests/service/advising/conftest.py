"""A service whose fake model fails in known ways, and advice jobs on it, done in this process."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from service.identity import LOCAL_ADMIN
from service.store import jobs
from service.tuning.claim import Claim
from tests.service.conftest import Service, make_settings, suite, triage

MODELS: dict[str, Any] = {
    "weak": {"engine": "fake", "answers": {"refund": "billing", "login": "Tech."}, "default": "other",
             "price": {"input_per_mtok": 1.0, "output_per_mtok": 2.0}},
    "better": {"engine": "fake", "answers": {"refund": "billing", "invoice": "billing", "login": "tech"}, "default": "other",
               "price": {"input_per_mtok": 50.0, "output_per_mtok": 50.0}},
    "dead": {"engine": "openai", "base_url": "http://127.0.0.1:9/v1", "retries": {"times": 0}},
}  # fmt: skip
WORDS = ("amber", "birch", "cedar", "delta", "ember", "flint", "grove", "hazel", "indigo", "juniper", "kelp", "lotus")
KEYS = (("refund", "billing"), ("login", "tech"), ("thing", "other"), ("invoice", "billing"))


def ticket(number: int, key: str) -> str:
    """Texts that do not resemble each other."""
    return f"{key} {WORDS[number % 12]} {number * 7919 % 10007} {WORDS[(number * 5 + 2) % 12]}"


def examples(count: int = 40) -> list[dict[str, Any]]:
    """A quarter each of refunds, logins, others and invoices, which the weak model takes for others."""
    return [{"vars": {"ticket": ticket(n, KEYS[n % 4][0])}, "expected": KEYS[n % 4][1]} for n in range(count)]


def cases(count: int = 40) -> list[dict[str, Any]]:
    return [
        {"vars": {"ticket": ticket(n, KEYS[n % 4][0])}, "assert": [{"type": "equals", "value": KEYS[n % 4][1]}]}
        for n in range(200, 200 + count)
    ]


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    with Service(make_settings(tmp_path / "home", models=MODELS)).running() as running:
        running.push(data=triage(model="weak"))
        running.call("PUT", "/api/prompts/support.triage/labels/production", json={"version": 1, "reason": "a test"})
        yield running


Advise = Callable[..., dict[str, Any]]


def put_suite(service: Service, **changes: Any) -> None:
    content = suite(*cases(), **{"training": {"examples": examples()}, **changes})
    answer = service.call("PUT", "/api/suites/support.triage", json=content)
    assert answer.status_code in (200, 201), answer.text


@pytest.fixture
def advise(service: Service) -> Advise:
    """Ask for an advice over HTTP and do its job here."""
    from service.advising.loop import advise as work

    def run(changes: dict[str, Any] | None = None, **body: Any) -> dict[str, Any]:
        put_suite(service, **(changes or {}))
        answer = service.call(
            "POST", "/api/advice", "author", json={"suite": "support.triage", "shots": [2, 4], **body}
        )
        assert answer.status_code == 202, answer.text
        return work(claim_of(service, answer.json()["job_id"]))

    return run


def claim_of(service: Service, job_id: str) -> Claim:
    """The job, claimed as a worker would."""
    database = service.context.database
    with database.write() as session:
        job = jobs.claim(session, "w", "2026-01-01T00:00:00Z", jobs.Free((), "2026-01-01T00:00:00Z", job_id))
    assert job is not None
    return Claim(job_id, job["token"], LOCAL_ADMIN, database, service.settings, threading.Event())

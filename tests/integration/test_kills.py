"""kill -9 at any moment: the job goes on, and ends as it would have, with nothing done twice."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable
from typing import Any

import pytest

from service.store import routes
from service.store.tables import ADAPTER, CASE_RESULT, EVIDENCE, LOOK, ROUTE_REVISION
from tests.integration.conftest import PROMPT, Home, processes_of

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]
TIMEOUT_S = 400.0
SLOW = ("before and while it trains", "while it is compared", "while it decides", "after a while")

Moment = tuple[str, str]  # who is killed, and after which event of the job
SCRIPTS: dict[str, list[Moment]] = {
    "before and while it trains": [
        ("worker", "claimed"),
        ("worker", "planned"),
        ("training", "training 1"),
        ("worker", "training 2"),
        ("training", "training 4"),
        ("worker", "training 6"),
    ],
    "while it is compared": [
        ("worker", "adapter"),
        ("engine", "dev"),
        ("worker", "cases 1"),
        ("worker", "cases 4"),
        ("worker", "run 1"),
    ],
    "while it decides": [("worker", "dev"), ("worker", "run 2"), ("worker", "decided"), ("worker", "routed")],
    "after a while": [
        ("worker", "0.6 s"),
        ("worker", "1.3 s"),
        ("worker", "2.1 s"),
        ("training", "1.6 s"),
        ("worker", "2.6 s"),
        ("worker", "3.2 s"),
    ],
    "the whole service": [
        ("service", "planned"),
        ("service", "training 3"),
        ("service", "adapter"),
        ("service", "run 1"),
    ],
}


def test_there_are_at_least_twenty_different_moments():
    assert len({moment for script in SCRIPTS.values() for moment in script}) >= 20


@pytest.mark.parametrize(
    "script", [pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else []) for name in SCRIPTS]
)
@pytest.mark.long
def test_a_killed_fine_tune_ends_as_if_nothing_had_happened(make_home: Callable[..., Home], script: str):
    undisturbed = make_home("undisturbed")
    _work(undisturbed, [], "worker")
    killed = make_home("killed")
    kills = _work(killed, SCRIPTS[script], "service" if script == "the whole service" else "worker")

    assert kills >= len(SCRIPTS[script]) - 2  # the last moments may come after the end on a quick machine
    assert _outcome(killed) == _outcome(undisturbed)
    assert _outcome(killed)["verdict"] == "pass"
    assert _counts(killed) == {"adapter": 1, "evidence": 2, "look": 1, "route": 2, "case_result": 96}


def _work(home: Home, script: list[Moment], kind: str) -> int:
    """Submit the job and see it to its end, killing as the script says; returns how many were killed."""
    job_id = home.submit()
    waiting = list(script)
    kills = 0
    started = time.monotonic()
    main = _start(home, kind)
    began = time.monotonic()
    while home.job(job_id)["status"] not in ("succeeded", "failed", "cancelled"):
        assert time.monotonic() - started < TIMEOUT_S, (home.settings.home / "child.log").read_text()[-3000:]
        come = waiting and _has_come(home, job_id, waiting[0][1], time.monotonic() - began)
        if come and _kill(home, main, waiting[0][0]):
            waiting.pop(0)
            kills += 1
        if main.poll() is not None:
            main = _start(home, kind)
            began = time.monotonic()
        time.sleep(0.012)
    home.end()
    return kills


def _start(home: Home, kind: str) -> Any:
    return home.worker() if kind == "worker" else home.start("service.cli.main", "serve", "--port", "0")


def _has_come(home: Home, job_id: str, moment: str, since_start_s: float) -> bool:
    name, _, number = moment.partition(" ")
    if number == "s":
        return since_start_s >= float(name)
    if name == "claimed":
        return bool(home.job(job_id)["started_at"])
    return sum(event["type"] == name for event in home.events(job_id)) >= int(number or 1)


def _kill(home: Home, main: Any, who: str) -> bool:
    """Whether there was something to kill; where not yet, the moment is waited for."""
    if who in ("worker", "service"):
        main.kill()
        main.wait()
        return True
    module = {"training": "finetune", "engine": "service.engine"}[who]
    pids = processes_of(home.settings.home, module)
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return bool(pids)


def _outcome(home: Home) -> dict[str, Any]:
    """All that must not depend on what was killed: no times, which differ, and no ids made at random."""
    job = home.job("job_loop")
    assert job["status"] == "succeeded", job["error"]
    result = job["result"]
    assert result["verdict"] == "pass", result
    sides = {side: {k: v for k, v in result[side].items() if not k.endswith("_ms")} for side in ("before", "after")}
    with home.database.read() as session:
        [adapter] = routes.adapters(session)
    weights = adapter["manifest"]["files"]["adapter_model.safetensors"]
    names = ("verdict", "evidence_id", "route", "dev", "reasons", "p_value")
    return {**{name: result[name] for name in names}, **sides, "weights": weights}


def _counts(home: Home) -> dict[str, int]:
    with home.database.read() as session:
        counts = {table.name: len(session.rows(table.select)) for table in (ADAPTER, EVIDENCE, LOOK, CASE_RESULT)}
        return {**counts, "route": len(ROUTE_REVISION.all(session, "WHERE prompt = :prompt", prompt=PROMPT))}

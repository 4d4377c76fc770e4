import asyncio
import time

import pytest

from prompts.errors import ModelOverloaded
from prompts.messages import Completion
from suites import runner
from suites.case import Case
from suites.pace import Pace


def cases(count):
    return [Case.model_validate({"vars": {"n": number}}) for number in range(count)]


def test_a_refusal_halves_the_pace_once_for_all_that_were_on_their_way():
    pace = Pace(64)
    asked_at_s = time.monotonic()
    for _ in range(30):
        pace.overloaded(asked_at_s, None)
    assert pace.limit == 32
    pace.overloaded(time.monotonic(), None)
    assert pace.limit == 16


def test_the_pace_never_stands_still_and_comes_back_to_what_was_asked_for():
    pace = Pace(8)
    for _ in range(20):
        pace.overloaded(time.monotonic(), None)
    assert pace.limit == 1
    for _ in range(200):
        pace.answered()
    assert pace.limit == 8


def test_a_retry_after_holds_up_every_worker():
    asked = []

    async def ask(case, repeat):
        asked.append(time.monotonic())
        if len(asked) == 4:
            raise ModelOverloaded("slow down", retry_after_s=0.3)
        await asyncio.sleep(0.01)
        return Completion("")

    summary = asyncio.run(runner.run_suite(cases(40), ask, concurrency=4))
    before = [at for at in asked if at <= asked[3] + 0.005]
    after = [at for at in asked if at > asked[3] + 0.005]
    assert summary.passed == 40
    assert min(after) - asked[3] >= 0.28
    assert len(before) <= 8


def test_an_endpoint_that_takes_few_at_once_is_asked_by_as_many():
    flying = most_served = refused = 0

    async def ask(case, repeat):
        nonlocal flying, most_served, refused
        if flying >= 4:
            refused += 1
            raise ModelOverloaded("too many", retry_after_s=0.01)
        flying += 1
        most_served = max(most_served, flying)
        try:
            await asyncio.sleep(0.002)
        finally:
            flying -= 1
        return Completion("")

    summary = asyncio.run(runner.run_suite(cases(400), ask, concurrency=64))
    assert (summary.passed, summary.errored, most_served) == (400, 0, 4)
    assert summary.retries == refused < 400


def test_what_is_refused_for_ever_is_an_error_with_all_its_attempts():
    async def ask(case, repeat):
        raise ModelOverloaded("no", retry_after_s=0.001)

    summary = asyncio.run(runner.run_suite(cases(2), ask, concurrency=2))
    assert (summary.errored, summary.passed) == (2, 0)
    assert summary.retries == 2 * runner.OVERLOADED_RETRIES


def test_an_endpoint_that_only_refuses_stops_the_run(monkeypatch):
    monkeypatch.setattr(runner, "OVERLOADED_FOR_S", 0.1)

    async def ask(case, repeat):
        raise ModelOverloaded("full", retry_after_s=0.02)

    summary = asyncio.run(runner.run_suite(cases(5000), ask, concurrency=8))
    assert summary.stopped == "model overloaded for 0.1 s: full"
    assert (summary.total, summary.passed) == (5000, 0)
    assert summary.skipped > 4900


def test_whoever_waits_is_let_go_when_the_run_stops():
    async def main():
        pace = Pace(1)
        assert await pace.enter()
        waiting = [asyncio.create_task(pace.enter()) for _ in range(3)]
        await asyncio.sleep(0)
        pace.stop()
        return await asyncio.gather(*waiting)

    assert asyncio.run(main()) == [False, False, False]


def test_a_worker_that_is_cancelled_while_it_waits_passes_its_turn_on():
    async def main():
        pace = Pace(1)
        assert await pace.enter()
        first, second = (asyncio.create_task(pace.enter()) for _ in range(2))
        await asyncio.sleep(0)
        pace.leave()
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        return await asyncio.wait_for(second, 1)

    assert asyncio.run(main()) is True

import asyncio

import pytest

from prompts.errors import ModelOverloaded
from prompts.messages import Completion
from suites import pace as pacing
from suites import runner
from suites.case import Case
from suites.pace import Pace


def cases(count):
    return [Case.model_validate({"vars": {"n": number}}) for number in range(count)]


def flying(pace, count):
    """The rounds of `count` questions that set out together."""

    async def enter():
        return [await pace.enter() for _ in range(count)]

    return asyncio.run(enter())


def test_a_refusal_halves_the_pace_once_for_all_that_were_on_their_way():
    pace = Pace(64)
    rounds = flying(pace, 64)
    for asked_in in rounds[:30]:
        pace.overloaded(asked_in)
        pace.leave()
    assert (pace.limit, pace.flying) == (32, 34)
    pace.leave()
    pace.leave()
    pace.leave()
    pace.overloaded(flying(pace, 1)[0])
    assert pace.limit == 16


def test_a_burst_of_refusals_leaves_as_many_as_were_taken():
    pace = Pace(64)
    for asked_in in flying(pace, 64)[:60]:
        pace.overloaded(asked_in)
        pace.leave()
    assert (pace.limit, pace.flying) == (4, 4)


def test_the_pace_never_stands_still_and_comes_back_to_what_was_asked_for():
    pace = Pace(8)
    for asked_in in flying(pace, 8):
        pace.overloaded(asked_in)
        pace.leave()
    assert pace.limit == 1
    limits = []
    for _ in range(40):
        flying(pace, int(pace.limit) - pace.flying)
        pace.answered()
        limits.append(int(pace.limit))
    assert limits[:4] == [2, 3, 4, 4]  # fast up to half of what was refused, then one a round
    assert limits[-1] == 8


def test_answers_that_did_not_use_the_pace_do_not_raise_it():
    pace = Pace(64)
    pace.overloaded(flying(pace, 64)[0])
    for _ in range(62):
        pace.leave()
    for _ in range(50):
        pace.answered()
    assert pace.limit == 32


def test_a_retry_after_holds_up_only_the_question_that_was_refused():
    asked = []

    async def ask(case, repeat):
        asked.append(case.vars["n"])
        if case.vars["n"] == 3 and asked.count(3) == 1:
            raise ModelOverloaded("slow down", retry_after_s=0.3)
        await asyncio.sleep(0.001)
        return Completion("")

    summary = asyncio.run(runner.run_suite(cases(40), ask, concurrency=4))
    assert (summary.passed, summary.retries) == (40, 1)
    assert (asked.index(3), asked[-1], len(asked)) == (3, 3, 41)


@pytest.mark.parametrize("concurrency", [16, 64])
def test_an_endpoint_that_takes_few_at_once_is_asked_by_as_many(concurrency):
    flying = refused = 0
    taken = []  # how many were served at once, at each question that was taken

    async def ask(case, repeat):
        nonlocal flying, refused
        if flying >= 4:
            refused += 1
            raise ModelOverloaded("too many", retry_after_s=0.1)
        flying += 1
        taken.append(flying)
        try:
            await asyncio.sleep(0.005)
        finally:
            flying -= 1
        return Completion("")

    summary = asyncio.run(runner.run_suite(cases(300), ask, concurrency=concurrency))
    assert (summary.passed, summary.errored, max(taken)) == (300, 0, 4)
    assert summary.retries == refused < concurrency + 60
    assert sum(taken[4:200]) / 196 > 2.5


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


def test_whoever_watches_is_told_that_the_run_waits_and_for_how_long(monkeypatch):
    monkeypatch.setattr(runner, "OVERLOADED_FOR_S", 0.5)
    monkeypatch.setattr(pacing, "FIRST_TOLD_S", 0.1)
    monkeypatch.setattr(pacing, "TOLD_EVERY_S", 0.1)
    told = []

    async def ask(case, repeat):
        raise ModelOverloaded("full", retry_after_s=30)

    summary = asyncio.run(runner.run_suite(cases(20), ask, concurrency=8, on_wait=told.append))
    assert summary.stopped == "model overloaded for 0.5 s: full"
    assert told[0] == "waiting for an overloaded model, 0 s more at most: full"
    assert 2 <= len(told) <= 4


def test_a_run_that_gets_answers_tells_of_no_wait(monkeypatch):
    monkeypatch.setattr(pacing, "FIRST_TOLD_S", 0.02)
    told, asked = [], []

    async def ask(case, repeat):
        asked.append(case.id)
        if len(asked) == 1:
            raise ModelOverloaded("full", retry_after_s=0.1)
        await asyncio.sleep(0.001)
        return Completion("")

    summary = asyncio.run(runner.run_suite(cases(20), ask, concurrency=8, on_wait=told.append))
    assert (summary.passed, told) == (20, [])


def test_whoever_waits_is_let_go_when_the_run_stops():
    async def main():
        pace = Pace(1)
        assert await pace.enter() == 0
        waiting = [asyncio.create_task(pace.enter()) for _ in range(3)]
        await asyncio.sleep(0)
        pace.stop()
        return await asyncio.gather(*waiting)

    assert asyncio.run(main()) == [None, None, None]


def test_a_worker_that_is_cancelled_while_it_waits_passes_its_turn_on():
    async def main():
        pace = Pace(1)
        assert await pace.enter() == 0
        first, second = (asyncio.create_task(pace.enter()) for _ in range(2))
        await asyncio.sleep(0)
        pace.leave()
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        return await asyncio.wait_for(second, 1)

    assert asyncio.run(main()) == 0


def test_questions_that_hang_are_told_with_how_many_and_for_how_long(monkeypatch):
    monkeypatch.setattr(pacing, "SILENT_S", 0.1)
    told = []

    async def ask(case, repeat):
        await asyncio.sleep(60)

    run = runner.run_suite(cases(3), ask, concurrency=3, timeout_s=0.35, retries=0, on_wait=told.append)
    asyncio.run(run)
    assert set(told) == {"waits for 3 answers, the oldest for 0 s; an attempt may take 0.35 s"}
    assert 1 <= len(told) <= 3  # on a busy machine a turn is late


def test_a_slow_run_that_goes_on_getting_answers_tells_of_no_silence(monkeypatch):
    monkeypatch.setattr(pacing, "SILENT_S", 0.2)
    told = []

    async def ask(case, repeat):
        await asyncio.sleep(0.45 if case.vars["n"] == "0" else 0.02)
        return Completion(case.vars["n"])

    asyncio.run(runner.run_suite(cases(20), ask, concurrency=2, on_wait=told.append))
    assert told == []

import asyncio
import time
import tracemalloc

import pytest

from prompts.errors import NO_COMPLETION, MissingVariable, ModelOverloaded, ModelRefused, ModelUnavailable
from prompts.messages import Completion, Usage
from suites.case import Case
from suites.results import CaseResult, Price
from suites.runner import run_suite


def cases(count, **more):
    for number in range(count):
        yield Case.model_validate(
            {"vars": {"n": str(number)}, "assert": [{"type": "equals", "value": "{{ n }}", "metric": "m"}], **more}
        )


async def echo(case, repeat):
    return Completion(case.vars["n"], usage=Usage(10, 1), latency_s=0.02)


async def refuse(case, repeat):
    raise ModelUnavailable("connection refused: http://127.0.0.1:9")


def run(*args, **kwargs):
    results = []
    kwargs.setdefault("on_result", results.append)
    return asyncio.run(run_suite(*args, **kwargs)), results


def test_every_case_is_asked_judged_and_handed_on():
    summary, results = run(cases(50), echo, concurrency=8, price=Price(1.0, 2.0))
    assert (summary.total, summary.passed, summary.pass_rate) == (50, 50, 1.0)
    assert (summary.p50_ms, summary.p95_ms) == (20.0, 20.0)
    assert summary.cost_per_1k_usd == pytest.approx(0.012)
    assert summary.metrics["m"].score == 1.0
    assert sorted(result.index for result in results) == list(range(50))
    assert [outcome.case_id for outcome in summary.outcomes] == [case.id for case in cases(50)]


def test_results_may_be_awaited():
    kept = []

    async def keep(result):
        await asyncio.sleep(0)
        kept.append(result)

    run(cases(5), echo, on_result=keep)
    assert len(kept) == 5


def test_no_more_than_concurrency_are_in_flight_and_cases_are_never_read_ahead():
    flying, most, read = 0, 0, 0

    def counted():
        nonlocal read
        for case in cases(40):
            read += 1
            yield case

    finished = 0

    async def ask(case, repeat):
        nonlocal flying, most, finished
        flying += 1
        most = max(most, flying)
        assert read - finished <= 4
        await asyncio.sleep(0.001)
        flying -= 1
        finished += 1
        return Completion(case.vars["n"])

    run(counted(), ask, concurrency=4)
    assert most == 4


def test_whatever_a_case_raises_is_its_own_outcome():
    async def ask(case, repeat):
        if case.vars["n"] == "1":
            raise MissingVariable("no value for 'ticket'")
        if case.vars["n"] == "2":
            raise RuntimeError("boom")
        if case.vars["n"] == "4":
            raise asyncio.CancelledError("by the client itself")
        if case.vars["n"] == "3":
            raise ModelRefused("content filter", status=400)
        return await echo(case, repeat)

    summary, results = run(cases(6), ask)
    assert (summary.passed, summary.errored, summary.stopped) == (2, 4, "")
    errors = sorted(result.error for result in results if result.status == "errored")
    assert errors == [
        "CancelledError: by the client itself",
        "RuntimeError: boom",
        "content filter",
        "no value for 'ticket'",
    ]
    assert summary.metrics["m"].errored == 4


def test_a_passing_fault_is_asked_again_and_the_retries_are_told():
    seen = {}

    async def ask(case, repeat):
        seen[case.id] = seen.get(case.id, 0) + 1
        if seen[case.id] < 3:
            raise ModelOverloaded("slow down", retry_after_s=0.01)
        return await echo(case, repeat)

    summary, results = run(cases(3), ask, retries=2)
    assert (summary.passed, summary.retries) == (3, 6)
    assert {result.retries for result in results} == {2}


def test_retry_after_is_honoured():
    asked = []

    async def ask(case, repeat):
        asked.append(time.perf_counter())
        if len(asked) == 1:
            raise ModelOverloaded("slow down", retry_after_s=0.6)
        return await echo(case, repeat)

    run(cases(1), ask)
    assert asked[1] - asked[0] >= 0.6


def test_a_retry_after_of_minutes_is_not_waited_for():
    async def ask(case, repeat):
        raise ModelOverloaded("tomorrow", retry_after_s=86400)

    summary, _ = run(cases(1), ask)
    assert (summary.errored, summary.retries) == (1, 0)


@pytest.mark.parametrize("before", [0, 20])
def test_an_endpoint_that_asks_to_wait_an_hour_stops_the_run_whether_or_not_it_had_answered(before):
    asked = 0

    async def ask(case, repeat):
        nonlocal asked
        asked += 1
        number = asked
        await asyncio.sleep(0)
        if number <= before:
            return await echo(case, repeat)
        raise ModelOverloaded("HTTP 429: quota", retry_after_s=3600)

    summary, _ = run(cases(300), ask, concurrency=16)
    assert summary.stopped == "model refused 16 cases in a row and asks to wait 3600 s: HTTP 429: quota"
    assert (summary.passed, summary.passed + summary.errored + summary.skipped) == (before, 300)
    assert 16 <= summary.errored <= 31


def test_a_long_wait_that_only_some_are_asked_stops_nothing():
    async def ask(case, repeat):
        if int(case.vars["n"]) % 2:
            return await echo(case, repeat)
        raise ModelOverloaded("HTTP 429: quota of this key", retry_after_s=3600)

    summary, _ = run(cases(100), ask, concurrency=2)
    assert (summary.stopped, summary.passed, summary.errored) == ("", 50, 50)


def test_an_answer_that_does_not_come_is_a_timeout():
    async def ask(case, repeat):
        if case.vars["n"] == "0":
            await asyncio.sleep(60)
        return await echo(case, repeat)

    summary, _ = run(cases(3), ask, timeout_s=0.05, retries=0)
    assert (summary.passed, summary.errored) == (2, 1)
    assert "no answer within 0.05 s" in summary.first_error


@pytest.mark.parametrize(("count", "concurrency"), [(5000, 64), (5000, 1), (1, 16), (5, 64)])
def test_a_dead_endpoint_stops_the_run_in_seconds(count, concurrency):
    started = time.perf_counter()
    summary, results = run(cases(count), refuse, concurrency=concurrency)
    assert time.perf_counter() - started < 5
    assert summary.stopped == "model unreachable: connection refused: http://127.0.0.1:9"
    assert summary.total == len(results) == count
    assert summary.errored + summary.skipped == count
    assert 1 <= summary.errored <= concurrency


def test_an_endpoint_that_dies_midway_stops_the_run_too():
    asked = 0

    async def ask(case, repeat):
        nonlocal asked
        asked += 1
        if asked > 100:
            raise ModelUnavailable("gone")
        return await echo(case, repeat)

    summary, _ = run(cases(2000), ask, concurrency=8, retries=0)
    assert summary.passed == 100
    assert summary.stopped == "model unreachable: gone"
    assert summary.errored < 100
    assert summary.skipped > 1500


def test_a_few_refused_connections_do_not_stop_a_living_endpoint():
    asked = 0

    async def ask(case, repeat):
        nonlocal asked
        asked += 1
        if asked % 3 == 0:
            raise ModelUnavailable("hiccup")
        return await echo(case, repeat)

    summary, _ = run(cases(60), ask, concurrency=4, retries=0)
    assert summary.stopped == ""
    assert (summary.passed, summary.errored) == (40, 20)


@pytest.mark.parametrize(("concurrency", "most"), [(1, 3), (8, 15), (64, 127)])
@pytest.mark.parametrize("said", ["HTTP 401: no such key, request id 1234567{}", "HTTP 404: no model 'x'"])
def test_what_is_refused_alike_where_nothing_was_answered_stops_the_run(concurrency, most, said):
    asked = 0

    async def ask(case, repeat):
        nonlocal asked
        asked += 1
        await asyncio.sleep(0)
        raise ModelRefused(said.format(asked), status=401)

    summary, _ = run(cases(300), ask, concurrency=concurrency)
    assert summary.stopped.startswith(f"model refused {max(3, concurrency)} cases in a row and answered none: HTTP 40")
    assert max(3, concurrency) <= asked <= most
    assert (summary.errored, summary.skipped) == (asked, 300 - asked)


def test_answers_that_are_no_completions_stop_the_run_whatever_they_say():
    async def ask(case, repeat):
        await asyncio.sleep(0)
        raise ModelRefused(f"not a chat completion: {case.vars['n']}", status=200, code=NO_COMPLETION)

    summary, _ = run(cases(100), ask, concurrency=4)
    assert summary.stopped.startswith("model refused 4 cases in a row and answered none: not a chat completion")


def test_refusals_after_an_answer_or_for_reasons_of_their_own_stop_nothing():
    async def after_one(case, repeat):
        if case.vars["n"] == "0":
            return await echo(case, repeat)
        raise ModelRefused("HTTP 400: content filter", status=400)

    async def of_its_own(case, repeat):
        raise ModelRefused(f"HTTP 400: too long by {case.vars['n']}", status=400)

    for ask, passed in ((after_one, 1), (of_its_own, 0)):
        summary, _ = run(cases(50), ask, concurrency=2)
        assert (summary.stopped, summary.passed, summary.errored) == ("", passed, 50 - passed)


def test_an_answer_of_an_earlier_part_of_the_run_counts():
    _, before = run(cases(1), echo)

    async def ask(case, repeat):
        raise ModelRefused("HTTP 400: content filter", status=400)

    summary, _ = run(cases(20), ask, concurrency=2, finished=before)
    assert (summary.stopped, summary.errored) == ("", 19)


def test_repeats_are_one_outcome_a_case():
    async def ask(case, repeat):
        return Completion(case.vars["n"] if repeat != 1 else "wrong")

    summary, results = run(cases(4), ask, repeat=3, pass_k=2)
    assert (summary.total, summary.passed, len(results)) == (4, 4, 12)
    assert len(summary.flaky) == 4
    summary, _ = run(cases(4), ask, repeat=3)
    assert (summary.passed, summary.failed) == (0, 4)


def test_what_an_interrupted_run_had_finished_is_not_asked_again():
    kept: list[CaseResult] = []

    async def main():
        async def half(case, repeat):
            if int(case.vars["n"]) >= 10:
                task.cancel()
                await asyncio.sleep(1)
            return await echo(case, repeat)

        task = asyncio.create_task(run_suite(cases(20), half, concurrency=1, on_result=kept.append))
        await task

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(main())
    assert len(kept) == 10
    asked = []

    async def ask(case, repeat):
        asked.append(case.id)
        return await echo(case, repeat)

    summary, results = run(cases(20), ask, finished=kept)
    assert (summary.total, summary.passed, len(asked), len(results)) == (20, 20, 10, 10)


def test_a_skipped_result_is_not_finished():
    skipped = [CaseResult(case.id, 0, 0, "skipped") for case in cases(1)]
    summary, _ = run(cases(1), echo, finished=skipped)
    assert (summary.passed, summary.skipped) == (1, 0)


def test_cancelling_ends_every_worker():
    flying = 0

    async def ask(case, repeat):
        nonlocal flying
        flying += 1
        try:
            await asyncio.sleep(60)
        finally:
            flying -= 1
        return Completion("")

    async def main():
        task = asyncio.create_task(run_suite(cases(100), ask, concurrency=5))
        await asyncio.sleep(0.05)
        assert flying == 5
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert flying == 0

    asyncio.run(main())


def test_a_recorder_that_fails_ends_the_run_with_its_own_error():
    def full(result):
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        run(cases(100), echo, on_result=full)


@pytest.mark.integration
def test_memory_does_not_grow_with_the_answers():
    async def ask(case, repeat):
        return Completion(case.vars["n"] + "x" * 10_000)

    tracemalloc.start()
    asyncio.run(run_suite(cases(2000), ask, concurrency=16))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 5_000_000

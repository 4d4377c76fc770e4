"""An alias as it is served, on an upstream that fails as it is told: what comes of it, and what is counted."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest
import structlog

from prompts.errors import BadInput, ModelError, ModelOverloaded, ModelRefused, ModelTimeout, ModelUnavailable
from prompts.messages import Completion, CompletionRequest, Message
from service.errors import EngineFailed
from service.models.fake import FakeModel
from service.models.openai import OpenAIModel
from service.upstream.guard import Guarded
from service.upstream.policy import Policy
from tests.service.upstreams import (
    Upstream,
    answers,
    chunk,
    cut_off,
    resets,
    says,
    silent,
    streams,
)

Work = Callable[[Guarded, Upstream], Awaitable[Any]]
QUICK = {"times": 2, "first_wait_s": 0.01}
BUSY = says(429, {"error": {"message": "busy"}}, {"Retry-After": "0"})


def request(timeout_s: float = 5.0) -> CompletionRequest:
    return CompletionRequest((Message("user", "hello"),), {}, None, timeout_s)


def on(work: Work, **policy: Any) -> Any:
    """`work` on an upstream and the guarded model before it."""

    async def main() -> Any:
        async with Upstream() as upstream:
            model = OpenAIModel(upstream.base_url, "up")
            try:
                return await work(Guarded("m", model, Policy.model_validate({"retries": QUICK, **policy})), upstream)
            finally:
                await model.aclose()

    return asyncio.run(main())


def counts(guarded: Guarded) -> dict[str, Any]:
    """What is counted and is not nothing."""
    zero = Guarded("m", FakeModel("")).standing().as_dict()
    return {name: value for name, value in guarded.standing().as_dict().items() if value != zero[name]}


# ------------------------------------------------------------------------------------------------ retries


@pytest.mark.parametrize(
    "fault",
    [resets(), resets(after=b"HTTP/1.1 200 OK\r\n"), cut_off(), says(500), says(503), says(504), BUSY],
    ids=["reset", "reset in the head", "cut off", "500", "503", "504", "429"],
)
@pytest.mark.parametrize("streamed", [False, True])
def test_what_may_pass_is_asked_again(fault: Any, streamed: bool) -> None:
    async def work(guarded: Guarded, upstream: Upstream) -> None:
        upstream.acts += [fault, fault]
        if streamed:
            chunks = await guarded.stream(request())
            assert "".join([one["choices"][0]["delta"].get("content", "") async for one in chunks if one["choices"]])
            assert chunks.attempts == 3
        else:
            completion = await guarded.complete(request())
            assert (completion.text, completion.attempts) == ("billing", 3)
        failure = guarded.standing().last_failure
        assert {**counts(guarded), "last_failure": failure} == {
            "asked": 3, "failed": 2, "retried": 2, "last_failure": failure
        }  # fmt: skip

    on(work)


def test_the_last_failure_is_told_with_its_attempts() -> None:
    async def work(guarded: Guarded, upstream: Upstream) -> None:
        upstream.otherwise = says(500, {"error": {"message": "broken"}})
        with pytest.raises(ModelUnavailable, match="HTTP 500: broken") as caught:
            await guarded.complete(request())
        assert (caught.value.attempts, len(upstream.asked)) == (3, 3)
        with pytest.raises(ModelUnavailable) as caught:
            await guarded.stream(request())
        assert caught.value.attempts == 3

    on(work)


@pytest.mark.parametrize(
    ("status", "body"),
    [(400, {}), (401, {}), (404, {}), (413, {}), (422, {}), (200, b"<html>"), (200, {"choices": []})],
)
def test_what_will_not_pass_is_asked_once(status: int, body: Any) -> None:
    async def work(guarded: Guarded, upstream: Upstream) -> None:
        upstream.otherwise = says(status, body)
        with pytest.raises(ModelRefused) as caught:
            await guarded.complete(request())
        assert (caught.value.attempts, len(upstream.asked)) == (1, 1)

    on(work)


def test_a_retry_after_is_waited_for() -> None:
    async def work(guarded: Guarded, upstream: Upstream) -> None:
        upstream.acts += [says(429, {}, {"Retry-After": "0.3"})]
        started = time.monotonic()
        assert (await guarded.complete(request())).text == "billing"
        assert time.monotonic() - started >= 0.3

    on(work)


@pytest.mark.parametrize(("told_s", "timeout_s"), [("9", 60.0), ("2", 1.0)], ids=["max_wait_s", "the time left"])
def test_a_retry_after_that_is_too_long_is_passed_on_at_once(told_s: str, timeout_s: float) -> None:
    async def work(guarded: Guarded, upstream: Upstream) -> None:
        upstream.otherwise = says(429, {}, {"Retry-After": told_s})
        started = time.monotonic()
        with pytest.raises(ModelOverloaded) as caught:
            await guarded.complete(request(timeout_s))
        assert time.monotonic() - started < 0.5
        assert (caught.value.retry_after_s, caught.value.attempts) == (float(told_s), 1)

    on(work)


def test_all_tries_share_the_time_of_the_request() -> None:
    async def work(guarded: Guarded, upstream: Upstream) -> None:
        upstream.acts += [says(500)]
        upstream.otherwise = silent()
        started = time.monotonic()
        with pytest.raises(ModelTimeout) as caught:
            await guarded.complete(request(0.5))
        assert 0.4 < time.monotonic() - started < 0.7
        assert caught.value.attempts == 2

    on(work)


def test_waits_grow_with_full_jitter(monkeypatch: pytest.MonkeyPatch) -> None:
    bounds: list[float] = []
    monkeypatch.setattr("random.uniform", lambda low, high: bounds.append(high) or low)

    async def work(guarded: Guarded, upstream: Upstream) -> None:
        upstream.otherwise = says(500)
        with pytest.raises(ModelUnavailable):
            await guarded.complete(request())

    on(work, retries={"times": 5, "first_wait_s": 0.25, "max_wait_s": 1.5})
    assert bounds == [0.25, 0.5, 1.0, 1.5, 1.5]


def test_a_stream_is_never_asked_again_after_its_first_chunk() -> None:
    async def work(guarded: Guarded, upstream: Upstream) -> None:
        upstream.acts += [streams([chunk({"content": "a"})], ends="cut")]
        chunks = await guarded.stream(request())
        assert (await anext(aiter(chunks)))["choices"][0]["delta"] == {"content": "a"}
        with pytest.raises(ModelUnavailable, match="after 1 chunks") as caught:
            await anext(aiter(chunks))
        assert (caught.value.attempts, len(upstream.asked)) == (1, 1)
        assert guarded.standing().in_flight == 0
        assert guarded.standing().counts.failed == 1

    on(work)


# ------------------------------------------------------------------------------------------------ times of a stream


def test_a_first_token_that_does_not_come_is_asked_for_again() -> None:
    async def work(guarded: Guarded, upstream: Upstream) -> None:
        upstream.acts += [streams([], ends="silent"), silent()]
        chunks = await guarded.stream(request())
        assert chunks.attempts == 3
        await chunks.aclose()
        upstream.otherwise = silent()
        with pytest.raises(ModelTimeout, match=r"model 'm': no first token within 0\.1 s"):
            await guarded.stream(request())
        await asyncio.sleep(0.05)
        assert upstream.hung_up >= 5

    on(work, timeouts={"first_token_s": 0.1})


def test_a_stream_that_falls_silent_is_hung_up_on() -> None:
    async def work(guarded: Guarded, upstream: Upstream) -> None:
        upstream.acts += [streams([chunk({"content": "a"})], ends="silent")]
        chunks = await guarded.stream(request())
        assert await anext(aiter(chunks))
        with pytest.raises(ModelTimeout, match=r"fell silent for 0\.1 s"):
            await anext(aiter(chunks))
        await asyncio.sleep(0.05)
        assert upstream.hung_up == 1
        assert guarded.standing().in_flight == 0

    on(work, timeouts={"silence_s": 0.1})


# ------------------------------------------------------------------------------------------------ breaker


BREAKER = {"least": 4, "open_s": 0.5, "probes": 2}


def test_a_burst_of_failures_opens_the_breaker_and_good_answers_close_it() -> None:
    async def work(guarded: Guarded, upstream: Upstream) -> None:
        upstream.otherwise = says(502)
        for _ in range(4):
            with pytest.raises(ModelUnavailable, match="HTTP 502"):
                await guarded.complete(request())
        started = time.monotonic()
        for ask in (guarded.complete, guarded.stream):
            with pytest.raises(
                ModelUnavailable, match=r"model 'm' is not asked: the next try is in 0\.\d s; 4 of its last 4"
            ) as c:
                await ask(request())
            assert c.value.attempts == 0
        assert time.monotonic() - started < 0.1
        assert len(upstream.asked) == 4
        standing = guarded.standing()
        assert (standing.state, standing.opened, standing.counts.refused_by_breaker) == ("open", 1, 2)
        assert 0 < standing.next_try_s <= 0.5
        upstream.otherwise = answers("well again")
        await asyncio.sleep(0.55)
        for _ in range(3):
            assert (await guarded.complete(request())).text == "well again"
        assert guarded.standing().state == "closed"

    with structlog.testing.capture_logs() as logs:
        on(work, retries={"times": 0}, breaker=BREAKER)
    assert [(log["event"], log["model"]) for log in logs] == [
        ("a model is not asked for a while", "m"),
        ("a model is asked again", "m"),
    ]


def test_a_stream_that_has_begun_is_a_good_probe() -> None:
    async def work(guarded: Guarded, upstream: Upstream) -> None:
        upstream.acts += [says(502)] * 4
        for _ in range(4):
            with pytest.raises(ModelUnavailable):
                await guarded.complete(request())
        upstream.otherwise = streams([chunk({"content": "a"})], ends="silent")
        await asyncio.sleep(0.55)
        first = await guarded.stream(request())
        second = await guarded.stream(request())  # the first goes on, and does not hold it up
        assert guarded.standing().state == "closed"
        assert guarded.standing().in_flight == 2
        await first.aclose()
        await second.aclose()
        await second.aclose()
        assert (guarded.standing().in_flight, guarded.standing().counts.hung_up) == (0, 2)

    on(work, retries={"times": 0}, breaker=BREAKER)


@pytest.mark.parametrize(
    ("fault", "opens"),
    [(says(503), True), (says(200, b"<html>"), True), (says(429), False), (says(400), False), (says(404), False)],
    ids=["503", "no completion", "429", "400", "404"],
)
def test_only_what_says_that_the_upstream_is_ill_opens_it(fault: Any, opens: bool) -> None:
    async def work(guarded: Guarded, upstream: Upstream) -> None:
        upstream.acts += [fault] * 9
        for _ in range(6):
            with pytest.raises(ModelError):
                await guarded.complete(request())
        assert (guarded.standing().state == "open") is opens

    on(work, retries={"times": 0}, breaker=BREAKER)


def test_clients_that_leave_do_not_open_it() -> None:
    async def work(guarded: Guarded, upstream: Upstream) -> None:
        upstream.otherwise = silent()
        tasks = [asyncio.create_task(guarded.complete(request())) for _ in range(6)]
        await asyncio.sleep(0.1)
        assert guarded.standing().in_flight == 6
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        await asyncio.sleep(0.05)
        assert counts(guarded) == {"asked": 6, "hung_up": 6}
        assert upstream.hung_up == 6

    on(work, breaker=BREAKER)


class Engine:
    """An embedded engine: slow to start, or unable to."""

    def __init__(self, *, starts: bool) -> None:
        self.starts = starts

    async def complete(self, request: CompletionRequest) -> Completion:
        await asyncio.sleep(0.2)
        if not self.starts:
            raise EngineFailed("the engine ended with 1 before it was ready")
        return Completion("up")

    async def aclose(self) -> None: ...


def test_an_engine_that_is_being_started_is_no_failure_and_one_that_cannot_is() -> None:
    async def main() -> None:
        policy = Policy.model_validate({"breaker": BREAKER})
        guarded = Guarded("local", Engine(starts=True), policy)
        asked = [asyncio.create_task(guarded.complete(request(0.1))) for _ in range(9)]
        assert [(await one).text for one in asked] == ["up"] * 9
        assert counts(guarded) == {"alias": "local", "asked": 9}
        guarded = Guarded("local", Engine(starts=False), policy)
        for _ in range(4):
            with pytest.raises(EngineFailed):
                await guarded.complete(request())
        assert guarded.standing().state == "open"

    asyncio.run(main())


# ------------------------------------------------------------------------------------------------ limits


def test_no_more_than_allowed_are_asked_at_once_and_the_rest_wait_or_are_refused() -> None:
    async def work(guarded: Guarded, upstream: Upstream) -> None:
        upstream.otherwise = answers("x", after_s=0.1)
        tasks = [asyncio.create_task(guarded.complete(request())) for _ in range(5)]
        await asyncio.sleep(0.05)
        assert (guarded.standing().in_flight, guarded.standing().queued, len(upstream.asked)) == (2, 2, 2)
        with pytest.raises(ModelOverloaded, match="model 'm' is full: 2 questions are under way and 2 wait") as caught:
            await tasks[4]
        assert (caught.value.retry_after_s, caught.value.attempts) == (3.0, 0)
        assert [(await task).text for task in tasks[:4]] == ["x"] * 4
        assert counts(guarded) == {"asked": 4, "refused_by_limit": 1}

    on(work, limits={"max_in_flight": 2, "max_queued": 2, "queue_s": 3})


def test_a_wait_in_the_queue_has_its_time_and_is_not_tried_again() -> None:
    async def work(guarded: Guarded, upstream: Upstream) -> None:
        upstream.otherwise = streams([chunk({"content": "a"})], ends="silent")
        chunks = await guarded.stream(request())
        with pytest.raises(ModelOverloaded, match=r"within 0\.1 s"):
            await guarded.complete(request())
        await chunks.aclose()
        upstream.otherwise = answers("x")
        assert (await guarded.complete(request())).text == "x"

    on(work, limits={"max_in_flight": 1, "queue_s": 0.1})


# ------------------------------------------------------------------------------------------------ what nobody waits for


def test_failures_of_what_nobody_waits_for_stop_their_own_kind_alone() -> None:
    async def work(guarded: Guarded, upstream: Upstream) -> None:
        upstream.otherwise = says(500, {})
        for _ in range(3):
            with pytest.raises(ModelUnavailable, match="HTTP 500"):
                await guarded.complete(replace(request(), is_urgent=False))
        with pytest.raises(ModelUnavailable, match="is not asked: the next try is in"):
            await guarded.complete(replace(request(), is_urgent=False))
        upstream.otherwise = answers("x")
        assert (await guarded.complete(request())).text == "x"
        assert (guarded.standing().state, guarded.standing().opened) == ("closed", 0)

    on(work, retries={"times": 0}, breaker={"least": 3})


def test_what_nobody_waits_for_takes_half_of_the_slots_at_most() -> None:
    async def work(guarded: Guarded, upstream: Upstream) -> None:
        upstream.otherwise = answers("x", after_s=0.2)
        beside = [asyncio.create_task(guarded.complete(replace(request(), is_urgent=False))) for _ in range(4)]
        await asyncio.sleep(0.05)
        assert (guarded.standing().in_flight, guarded.standing().queued) == (2, 2)
        started = time.monotonic()
        await asyncio.gather(guarded.complete(request()), guarded.complete(request()))
        assert time.monotonic() - started < 0.3
        assert [(await task).text for task in beside] == ["x"] * 4
        assert (guarded.standing().in_flight, guarded.standing().queued) == (0, 0)

    on(work, limits={"max_in_flight": 4, "queue_s": 3})


# ------------------------------------------------------------------------------------------------ hedges


def test_a_hedge_takes_the_first_answer_and_hangs_up_on_the_other() -> None:
    async def work(guarded: Guarded, upstream: Upstream) -> None:
        upstream.acts += [silent()]
        completion = await guarded.complete(request())
        assert (completion.text, completion.attempts) == ("billing", 2)
        await asyncio.sleep(0.05)
        assert upstream.hung_up == 1
        upstream.acts += [streams([], ends="silent")]
        chunks = await guarded.stream(request())
        assert len([one async for one in chunks]) == 4
        await asyncio.sleep(0.05)
        assert upstream.hung_up == 2
        assert counts(guarded) == {"asked": 4, "hedged": 2, "hung_up": 2}
        assert (await guarded.complete(request())).attempts == 1

    on(work, hedge_after_ms=100)


def test_a_full_or_ailing_upstream_is_not_hedged() -> None:
    async def work(guarded: Guarded, upstream: Upstream) -> None:
        upstream.otherwise = answers("x", after_s=0.1)
        assert (await guarded.complete(request())).attempts == 1

    on(work, hedge_after_ms=20, limits={"max_in_flight": 1})


# ------------------------------------------------------------------------------------------------ what else is asked


def test_a_model_that_cannot_stream_or_embed_is_told_apart() -> None:
    async def main() -> None:
        guarded = Guarded("local", Engine(starts=True))
        chunks = await guarded.stream(request())
        found = [one async for one in chunks]
        assert [one["choices"][0]["delta"].get("content") for one in found if one["choices"]] == ["up", None]
        for work in (guarded.embed(["a"], 1.0), guarded.embeddings({"input": "a"}, 1.0)):
            with pytest.raises(BadInput, match="model 'local' gives no embeddings") as caught:
                await work
            assert caught.value.param == "model"

    asyncio.run(main())


def test_embeddings_are_guarded_alike() -> None:
    async def work(guarded: Guarded, upstream: Upstream) -> None:
        upstream.acts += [says(500), BUSY]
        assert len((await guarded.embed(["a", "b"], 5.0)).vectors) == 2
        assert counts(guarded)["retried"] == 2
        reply = await guarded.embeddings({"input": ["a"], "model": "ours"}, 5.0)
        assert reply["data"][0]["embedding"] == [1.0, 0.0]

    on(work)


def test_embeddings_of_a_model_that_knows_texts_alone_are_written_as_openai_does() -> None:
    async def main() -> None:
        guarded = Guarded("fake", FakeModel(""))
        reply = await guarded.embeddings({"input": "red car"}, 1.0)
        assert (reply["object"], reply["model"], reply["data"][0]["index"]) == ("list", "fake", 0)
        assert reply["usage"] == {"prompt_tokens": 2, "total_tokens": 2}
        for bad in ([], [1, 2], None):
            with pytest.raises(BadInput, match="input: expected a text") as caught:
                await guarded.embeddings({"input": bad}, 1.0)
            assert caught.value.param == "input"

    asyncio.run(main())

"""Streams of an OpenAI-compatible server: chunk by chunk, and every way in which they end."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import pytest

from prompts.errors import ModelError, ModelOverloaded, ModelRefused, ModelTimeout, ModelUnavailable
from prompts.messages import CompletionRequest, Message
from service.models.openai import OpenAIModel
from service.upstream.sse import MOST_EVENT_BYTES
from tests.service.upstreams import (
    Act,
    Asked,
    Upstream,
    chunk,
    chunks_of,
    completion,
    event,
    framed,
    resets,
    says,
    silent,
    stream_head,
    streams,
)

KEY = "sk-very-secret"


def request(timeout_s: float = 5.0, **parameters: Any) -> CompletionRequest:
    return CompletionRequest((Message("user", "hello"),), parameters, None, timeout_s)


def on(*acts: Act, work: Callable[[OpenAIModel, Upstream], Awaitable[Any]]) -> Any:
    async def main() -> Any:
        async with Upstream() as upstream:
            upstream.acts += acts
            model = OpenAIModel(upstream.base_url, "upstream", KEY)
            try:
                return await work(model, upstream)
            finally:
                await model.aclose()

    return asyncio.run(main())


def read(*acts: Act, timeout_s: float = 5.0) -> list[Mapping[str, Any]]:
    """All chunks of one stream."""

    async def work(model: OpenAIModel, _: Upstream) -> list[Mapping[str, Any]]:
        chunks = await model.stream(request(timeout_s))
        return [one async for one in chunks]

    found: list[Mapping[str, Any]] = on(*acts, work=work)
    return found


def test_chunks_come_as_the_upstream_sent_them_with_its_usage_at_the_end() -> None:
    chunks = chunks_of("bill", "ing")

    async def work(model: OpenAIModel, upstream: Upstream) -> None:
        found = [one async for one in await model.stream(request(n=2, logprobs=True))]
        assert found == chunks
        [asked] = upstream.asked
        assert asked.body == {
            "n": 2,
            "logprobs": True,
            "model": "upstream",
            "messages": [{"role": "user", "content": "hello"}],
            "stream": True,
            "stream_options": {"include_usage": True},
        }

    on(streams(chunks), work=work)


def test_the_first_chunk_is_there_before_the_second_was_sent() -> None:
    async def work(model: OpenAIModel, _: Upstream) -> None:
        loop = asyncio.get_running_loop()
        started = loop.time()
        chunks = await model.stream(request())
        assert loop.time() - started < 0.15
        times = [loop.time() - started async for _ in chunks]
        assert times[0] < 0.15
        assert times[-1] > 0.8

    on(streams(chunks_of("a", "b"), between_s=0.2), work=work)


def test_streams_and_completions_share_a_connection() -> None:
    async def work(model: OpenAIModel, upstream: Upstream) -> None:
        for _ in range(3):
            assert len([one async for one in await model.stream(request())]) == 4
            assert (await model.complete(request())).text == "billing"
        assert upstream.connections == 1

    on(work=work)


def test_any_line_ends_comments_and_pieces_will_do() -> None:
    first, second = chunk({"content": "a"}), chunk({"content": "b"}, "stop")
    cut = json.dumps(second).index(",") + 1
    text = (
        ": ping\r\n\r\n"
        + f"event: message\r\ndata: {json.dumps(first)}\r\n\r\n"
        + f"data: {json.dumps(second)[:cut]}\r\ndata: {json.dumps(second)[cut:]}\r\n\r\n"
        + "data: [DONE]\r\n\r\n"
    ).encode()

    async def act(asked: Asked) -> None:
        await asked.send(stream_head())
        for index in range(0, len(text), 7):
            await asked.send(framed(text[index : index + 7]))
        await asked.send(framed(b""))

    assert read(act) == [first, second]


@pytest.mark.parametrize("ends", ["clean", "done"])
def test_a_stream_that_told_why_it_finished_needs_no_done(ends: str) -> None:
    chunks = chunks_of("billing")
    assert read(streams(chunks, ends=ends)) == chunks


def test_done_without_an_empty_line_is_done() -> None:
    async def act(asked: Asked) -> None:
        await asked.send(stream_head() + framed(event(chunk({"content": "a"})) + b"data: [DONE]") + framed(b""))

    assert read(act) == [chunk({"content": "a"})]


def test_a_server_that_does_not_stream_is_given_as_chunks_of_the_whole() -> None:
    calls = [{"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]
    message = {"role": "assistant", "content": None, "tool_calls": calls}
    whole = completion("", choices=[{"index": 0, "message": message, "finish_reason": "tool_calls"}])
    delta, finish, usage = read(says(200, whole))
    assert delta["choices"][0]["delta"] == {**message, "tool_calls": [{"index": 0, **calls[0]}]}
    assert finish["choices"][0]["finish_reason"] == "tool_calls"
    assert usage["usage"]["total_tokens"] == 11


def sends(*events: Mapping[str, Any] | str) -> Act:
    return streams(list(events))


@pytest.mark.parametrize(
    ("act", "error", "told"),
    [
        (says(429, {"error": {"message": f"slow down {KEY}"}}, {"Retry-After": "7"}), ModelOverloaded, "slow down …"),
        (says(500, {}), ModelUnavailable, "HTTP 500"),
        (says(400, {"error": {"message": "no such tool"}}), ModelRefused, "no such tool"),
        (says(200, b"<html>", {"Content-Type": "text/html"}), ModelRefused, "text/html came, beginning '<html>'"),
        (says(200, b"", {"Content-Type": "text/event-stream"}), ModelUnavailable, "after 0 chunks: ended without"),
        (streams([]), ModelUnavailable, "ended without a chunk"),
        (sends("{not json"), ModelRefused, "not a chunk of a chat completion: text/event-stream came"),
        (sends({"object": "something"}), ModelRefused, "not a chunk of a chat completion"),
        (sends({"error": {"message": f"out of memory {KEY}"}}), ModelUnavailable, "told an error: out of memory …"),
        (sends({"error": {"message": "busy", "code": 429}}), ModelOverloaded, "told an error: busy"),
        (sends({"error": "plain"}), ModelUnavailable, "told an error: plain"),
        (resets(), ModelUnavailable, "before it answered"),
        (resets(after=stream_head()), ModelUnavailable, "the upstream hung up in the middle of its reply"),
        (silent(), ModelTimeout, r"no complete answer within 0\.5 s"),
        (streams([], ends="silent"), ModelTimeout, r"no complete answer within 0\.5 s"),
    ],
)
def test_a_stream_that_does_not_begin_raises_at_once(act: Act, error: type[ModelError], told: str) -> None:
    async def work(model: OpenAIModel, upstream: Upstream) -> None:
        with pytest.raises(error, match=told) as caught:
            await model.stream(request(timeout_s=0.5))
        assert type(caught.value) is error
        assert KEY not in str(caught.value)
        assert (await model.complete(request())).text == "billing"

    on(act, work=work)


def test_an_event_without_end_is_given_up() -> None:
    async def work(model: OpenAIModel, _: Upstream) -> None:
        with pytest.raises(ModelUnavailable, match="an event of the stream is longer"):
            await model.stream(request(timeout_s=60))

    on(sends("x" * (MOST_EVENT_BYTES + 10)), work=work)


A = chunk({"content": "a"})


@pytest.mark.parametrize(
    ("act", "error", "told"),
    [
        (streams([A], ends="cut"), ModelUnavailable, "after 1 chunks: the upstream hung up in the middle"),
        (streams([A], ends="clean"), ModelUnavailable, r"after 1 chunks: ended without \[DONE\]"),
        (streams([A], ends="silent"), ModelTimeout, r"after 1 chunks: did not end within 0\.5 s"),
        (streams([A] * 9, between_s=0.2), ModelTimeout, r"did not end within 0\.5 s"),
        (sends(A, "{half"), ModelRefused, "not a chunk"),
        (sends(A, {"error": {"message": "died"}}), ModelUnavailable, "after 1 chunks: told an error: died"),
        (sends(A, {"error": {"message": "died"}, "choices": []}), ModelUnavailable, "told an error: died"),
    ],
)
def test_a_stream_that_breaks_gives_what_came_and_then_raises(act: Act, error: type[ModelError], told: str) -> None:
    async def work(model: OpenAIModel, upstream: Upstream) -> None:
        chunks = await model.stream(request(timeout_s=0.5))
        assert await anext(aiter(chunks)) == A
        with pytest.raises(error, match=told):
            await _all(chunks)
        assert await _all(chunks) == []
        await chunks.aclose()
        assert (await model.complete(request())).text == "billing"

    on(act, work=work)


@pytest.mark.parametrize("read_first", [True, False])
def test_to_close_is_to_hang_up(read_first: bool) -> None:
    async def work(model: OpenAIModel, upstream: Upstream) -> None:
        chunks = await model.stream(request())
        if read_first:
            assert await anext(aiter(chunks)) == A
        await chunks.aclose()
        await chunks.aclose()
        await asyncio.sleep(0.05)
        assert upstream.hung_up == 1

    on(streams([A], ends="silent"), work=work)


def test_to_cancel_a_read_is_to_hang_up() -> None:
    async def work(model: OpenAIModel, upstream: Upstream) -> None:
        chunks = await model.stream(request())
        task = asyncio.create_task(_all(chunks))
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.sleep(0.05)
        assert upstream.hung_up == 1

    on(streams([A], ends="silent"), work=work)


async def _all(chunks: Any) -> list[Any]:
    return [one async for one in chunks]


def test_choices_are_kept_whole() -> None:
    first = {"index": 0, "message": {"role": "assistant", "content": "a"}, "finish_reason": "stop", "logprobs": None}
    second = {**first, "index": 1, "message": {"role": "assistant", "content": "b"}}

    async def work(model: OpenAIModel, _: Upstream) -> None:
        found = await model.complete(request(n=2))
        assert (found.text, found.choices) == ("a", (first, second))

    on(says(200, completion("", choices=[first, second])), work=work)


def test_embeddings_are_passed_through_as_they_are() -> None:
    reply = {"object": "list", "data": [{"embedding": "AACAPw==", "index": 0}], "usage": {"prompt_tokens": 1}}

    async def work(model: OpenAIModel, upstream: Upstream) -> None:
        body = {"model": "ours", "input": [1, 2], "encoding_format": "base64"}
        assert await model.embeddings(body, 5.0) == reply
        assert upstream.asked[0].body == {**body, "model": "upstream"}
        with pytest.raises(ModelRefused, match="not embeddings"):
            await model.embeddings(body, 5.0)

    on(says(200, reply), says(200, {}), work=work)


def test_what_json_alone_cannot_hold_is_sent_all_the_same() -> None:
    async def work(model: OpenAIModel, upstream: Upstream) -> None:
        odd = CompletionRequest((Message("user", "half \ud800"),), {"stop": ("a", "b")})
        await model.complete(odd)
        assert upstream.asked[0].body["messages"][0]["content"] == "half \ud800"
        assert upstream.asked[0].body["stop"] == ["a", "b"]

    on(work=work)


def test_numbers_that_are_no_json_are_read_all_the_same() -> None:
    raw = json.dumps(completion("a", score=float("nan"))).encode()
    assert b"NaN" in raw

    async def work(model: OpenAIModel, _: Upstream) -> None:
        assert (await model.complete(request())).text == "a"

    on(says(200, raw), work=work)

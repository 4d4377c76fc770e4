"""`POST /v1/responses`: OpenAI's Responses API over the same request path, without anything that is stored there."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import Any

from service.answer_stream import AnswerStream
from service.api.chat import provenance
from service.api.exchange import JSON, Exchange, encode
from service.api.fields import given
from service.api.http_errors import body_of_any
from service.api.replaying import refuse_replay_of_stream, replayed
from service.api.response_asks import ask_of
from service.api.response_writer import Event, ResponseWriter
from service.choosing import Ask
from service.completions import Completions, Reply, turnout_of
from service.pending import Caller
from service.replays import Answer
from service.upstream.whole import WholeChunks

PATH = "/v1/responses"
_ECHOED = (
    "instructions", "max_output_tokens", "metadata", "prompt", "reasoning", "safety_identifier", "temperature",
    "tool_choice", "tools", "top_logprobs", "top_p", "user",
)  # fmt: skip
_DEFAULTS: Mapping[str, Any] = {
    "object": "response", "background": False, "error": None, "incomplete_details": None, "instructions": None,
    "max_output_tokens": None, "metadata": {}, "output": [], "parallel_tool_calls": True, "previous_response_id": None,
    "reasoning": {"effort": None, "summary": None}, "store": False, "temperature": None,
    "text": {"format": {"type": "text"}}, "tool_choice": "auto", "tools": [], "top_p": None, "truncation": "disabled",
    "usage": None, "user": None,
}  # fmt: skip


async def responses(exchange: Exchange) -> None:
    """A response of a prompt (`prompt: {id, version, variables}`) or of a model alias with its `input`; nothing is stored."""
    started = time.perf_counter()
    body = await exchange.json()
    ask = ask_of(body, exchange)
    caller = Caller(exchange.principal, started, "resp_", exchange.trace())
    completions = exchange.context.completions
    with exchange.cancelled_when_hung_up():
        if not given(body, "stream", bool):
            answer = await replayed(exchange, lambda: _completed(completions, ask, caller, body))
            await exchange.reply(answer.body, answer.headers)
            return
        refuse_replay_of_stream(exchange)
        await _streamed(exchange, await completions.stream(ask, caller), body)


async def _completed(completions: Completions, ask: Ask, caller: Caller, body: Mapping[str, Any]) -> Answer:
    reply = await completions.complete(ask, caller)
    return Answer(encode(await _whole(reply, body)), (JSON, *provenance(reply)))


async def _whole(reply: Reply, body: Mapping[str, Any]) -> dict[str, Any]:
    """The answer as a stream would build it up, at once."""
    writer = ResponseWriter(_head(reply, body, reply.turnout))
    async for chunk in WholeChunks(reply.completion, reply.served.name):
        _all(writer.add(chunk))
    usage = reply.completion.usage
    _all(writer.end(usage, {}))
    return writer.response(usage, {"completed_at": int(time.time())})


async def _streamed(exchange: Exchange, stream: AnswerStream, body: Mapping[str, Any]) -> None:
    writer = ResponseWriter(_head(stream, body, turnout_of(stream.served, stream.is_valid, stream.repairs)))
    try:
        await exchange.begin_events(provenance(stream))
        await exchange.send_event(_told(writer.begin()))
        async for chunk in stream:
            told = _told(writer.add(chunk))
            if told:
                await exchange.send_event(told)
    except Exception as error:  # noqa: BLE001 - the client is told, and the log where it is a fault of ours
        await exchange.end_events(_told(writer.fail(body_of_any(error, PATH)["error"])))
    else:
        turnout = turnout_of(stream.served, stream.is_valid, stream.repairs)
        more = {"turnout": turnout, "completed_at": int(time.time())}
        await exchange.end_events(_told(writer.end(stream.usage, more)))
    finally:
        await stream.aclose()


def _head(answer: Reply | AnswerStream, body: Mapping[str, Any], turnout: Mapping[str, Any]) -> dict[str, Any]:
    """What is known of a response before it has any output: what was asked for, and who answers."""
    echoed = {name: body[name] for name in _ECHOED if body.get(name) is not None}
    text = {**_DEFAULTS["text"], **(body.get("text") or {})}
    known = {"id": answer.id, "created_at": answer.created_s, "model": answer.served.name, "turnout": turnout}
    return {**_DEFAULTS, **echoed, "text": text, **known}


def _all(events: Iterable[Event]) -> None:
    for _ in events:
        pass


def _told(events: Iterable[Event]) -> bytes:
    return b"".join(_event(event) for event in events)


def _event(event: Event) -> bytes:
    kind: str = event["type"]
    return b"event: " + kind.encode() + b"\ndata: " + encode(event) + b"\n\n"

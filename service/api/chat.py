"""`POST /v1/chat/completions`: OpenAI's chat completions, with prompts as models."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from prompts.errors import BadInput
from service.answer_stream import AnswerStream
from service.api.exchange import JSON, Exchange, Header, encode
from service.api.fields import given, needed, refuse_unknown
from service.api.http_errors import body_of_any
from service.api.replaying import refuse_replay_of_stream, replayed
from service.choosing import Ask
from service.completions import Completions, Reply, turnout_of
from service.pending import Caller
from service.replays import Answer
from service.upstream.whole import only_choice, usage_as_dict

PATH = "/v1/chat/completions"
PASSED_ON = frozenset(
    {
        "audio", "frequency_penalty", "function_call", "functions", "logit_bias", "logprobs", "max_completion_tokens",
        "max_tokens", "modalities", "n", "parallel_tool_calls", "prediction", "presence_penalty", "reasoning_effort",
        "response_format", "seed", "stop", "temperature", "tool_choice", "tools", "top_logprobs", "top_p", "verbosity",
        "web_search_options",
        # of vLLM and other servers
        "chat_template_kwargs", "guided_choice", "guided_grammar", "guided_json", "guided_regex", "min_p", "min_tokens",
        "repetition_penalty", "stop_token_ids", "structured_outputs", "top_k",
    }
)  # fmt: skip
IGNORED = frozenset(  # what is between the client and OpenAI's own service
    {
        "metadata", "moderation", "prompt_cache_key", "prompt_cache_options", "prompt_cache_retention", "service_tier",
        "store",
    }
)  # fmt: skip
OURS = frozenset(
    {"model", "messages", "variables", "placeholders", "user", "safety_identifier", "stream", "stream_options"}
)
KNOWN = OURS | PASSED_ON | IGNORED
_MOST_CHOICES = 128
CACHE_HIT = (b"x-turnout-cache", b"hit")
_DONE = b"data: [DONE]\n\n"


async def chat_completions(exchange: Exchange) -> None:
    """A completion of a prompt (`name`, `name@label`, `name@7`) or of a model alias; with `stream` as it comes."""
    started = time.perf_counter()
    body = await exchange.json()
    ask = ask_of(body, exchange)
    options = given(body, "stream_options", dict) or {}
    completions = exchange.context.completions
    caller = Caller(exchange.principal, started, "chatcmpl-", exchange.trace())
    with exchange.cancelled_when_hung_up():
        if not given(body, "stream", bool):
            answer = await replayed(exchange, lambda: _completed(completions, ask, caller))
            await exchange.reply(answer.body, answer.headers)
            return
        refuse_replay_of_stream(exchange)
        stream = await completions.stream(ask, caller)
        await _streamed(exchange, stream, with_usage=options.get("include_usage") is True)


async def _completed(completions: Completions, ask: Ask, caller: Caller) -> Answer:
    reply = await completions.complete(ask, caller)
    return Answer(encode(whole(reply)), (JSON, *provenance(reply)))


def ask_of(body: Mapping[str, Any], exchange: Exchange) -> Ask:
    """What the body asks for. Raises a BadInput that names its field."""
    refuse_unknown(body, KNOWN)
    messages = given(body, "messages", list) or []
    for message in messages:
        if type(message) is not dict:
            raise BadInput("messages: every message is an object", param="messages")
    count = body.get("n", 1)
    if count is not None and (type(count) is not int or not 1 <= count <= _MOST_CHOICES):
        raise BadInput(f"n: expected a whole number from 1 to {_MOST_CHOICES}, found {count!r:.40}", param="n")
    return Ask(
        needed(body, "model", str),
        messages,
        given(body, "variables", dict),
        given(body, "placeholders", dict),
        {name: value for name, value in body.items() if name in PASSED_ON and value is not None},
        given(body, "safety_identifier", str) or given(body, "user", str) or "",
        exchange.header(b"x-turnout-session"),
        exchange.header(b"x-turnout-variant"),
    )


def provenance(reply: Reply | AnswerStream) -> tuple[Header, ...]:
    """The headers that say who answered, under which id that is recorded, and whether it was answered before."""
    told = (b"x-turnout-variant", reply.served.header), (b"x-turnout-completion-id", reply.id.encode())
    return (*told, CACHE_HIT) if reply.is_cached else told


def whole(reply: Reply) -> dict[str, Any]:
    """The reply's object, its choices as the upstream gave them."""
    completion = reply.completion
    usage, extra = usage_as_dict(completion.usage), dict(completion.extra)
    parts = extra.pop("usage", {})
    if not reply.repairs:  # else they are of the last answer alone
        usage |= parts
    return {
        **extra,
        "id": reply.id,
        "object": "chat.completion",
        "created": reply.created_s,
        "model": reply.served.name,
        "choices": completion.choices or (only_choice(completion),),
        "usage": usage,
        "turnout": reply.turnout,
    }


# -------------------------------------------------------------------------------- streams


async def _streamed(exchange: Exchange, stream: AnswerStream, *, with_usage: bool) -> None:
    """The chunks as they come; what breaks them off is told as an event, since the status has been sent."""
    head = {
        "id": stream.id,
        "object": "chat.completion.chunk",
        "created": stream.created_s,
        "model": stream.served.name,
    }
    told = dict(turnout_of(stream.served, stream.is_valid, stream.repairs))  # in the first chunk
    try:
        await exchange.begin_events(provenance(stream))
        async for chunk in stream:
            shown = _shown(chunk, head, with_usage=with_usage)
            if shown is None:
                continue
            if told:
                shown["turnout"], told = told, {}
            elif stream.is_valid is not None and _is_last(chunk):
                shown["turnout"] = {"valid": stream.is_valid}
            await exchange.send_event(b"data: " + encode(shown) + b"\n\n")
    except Exception as error:  # noqa: BLE001 - the client is told, and the log where it is a fault of ours
        await exchange.end_events(b"event: error\ndata: " + encode(body_of_any(error, PATH)) + b"\n\n")
    else:
        await exchange.end_events(_DONE)
    finally:
        await stream.aclose()


def _shown(chunk: Mapping[str, Any], head: Mapping[str, Any], *, with_usage: bool) -> dict[str, Any] | None:
    """A chunk under our own id and name; None for one that only tells the usage, where nobody asked for it."""
    shown = {**chunk, **head}
    if with_usage:
        shown.setdefault("usage", None)
    elif "usage" in chunk:
        if not chunk.get("choices"):
            return None
        del shown["usage"]
    return shown


def _is_last(chunk: Mapping[str, Any]) -> bool:
    return any(choice.get("finish_reason") for choice in chunk.get("choices") or ())

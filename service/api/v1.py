"""What applications call: OpenAI's protocol, with prompts as models."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any

import msgspec
from litestar import Request, Response, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath
from litestar.response import Stream

from prompts.errors import BadInput
from service.completions import Ask, Reply
from service.context import Context
from service.errors import NotFound
from service.identity import Principal

PASSED_ON = frozenset(
    {
        "frequency_penalty", "logit_bias", "logprobs", "max_completion_tokens", "max_tokens", "n", "presence_penalty",
        "parallel_tool_calls", "reasoning_effort", "response_format", "seed", "stop", "temperature", "tool_choice",
        "tools", "top_logprobs", "top_p", "verbosity",
    }
)  # fmt: skip
IGNORED = frozenset({"metadata", "store", "service_tier", "prediction", "modalities", "prompt_cache_key"})
OURS = frozenset(
    {"model", "messages", "variables", "placeholders", "user", "safety_identifier", "stream", "stream_options"}
)
_encoder = msgspec.json.Encoder()


@post("/v1/chat/completions", opt={"role": "app"}, status_code=200)
async def chat_completions(
    request: Request[Any, Any, Any], context: NamedDependency[Context], principal: NamedDependency[Principal]
) -> Response[Any]:
    """A completion of a prompt (`name`, `name@label`, `name@7`) or of a model alias."""
    body = _decode(await request.body())
    reply = await context.completions.complete(_ask(body), principal)
    headers = {"x-turnout-variant": reply.choice.name}
    if _typed(body, "stream", bool):
        options = body.get("stream_options") or {}
        return Stream(
            _chunks(reply, bool(options.get("include_usage"))), media_type="text/event-stream", headers=headers
        )
    return Response(_encoder.encode(_whole(reply)), media_type="application/json", headers=headers)


@get("/v1/models", opt={"role": "app"})
async def list_models(context: NamedDependency[Context]) -> dict[str, Any]:
    """Prompts and model aliases, as OpenAI lists models."""
    names = [*sorted(context.snapshot.view.newest), *sorted(context.settings.models)]
    return {"object": "list", "data": [_model(name) for name in names]}


@get("/v1/models/{name:path}", opt={"role": "app"})
async def get_model(context: NamedDependency[Context], name: FromPath[str]) -> dict[str, Any]:
    """One prompt or model alias, whose name may hold slashes. Raises NotFound."""
    name = name.removeprefix("/")
    if name not in context.snapshot.view.newest and name not in context.settings.models:
        raise NotFound("model", name)
    return _model(name)


def _model(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "turnout"}


def _decode(raw: bytes) -> dict[str, Any]:
    try:
        body = msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadInput(f"the body is not JSON: {error}") from error
    if not isinstance(body, dict):
        raise BadInput("the body must be a JSON object")
    for name in body:
        if name not in PASSED_ON and name not in OURS and name not in IGNORED:
            raise BadInput(f"unknown field {name!r}", param=name)
    return body


def _ask(body: Mapping[str, Any]) -> Ask:
    model = _typed(body, "model", str, required=True)
    messages = _typed(body, "messages", list) or []
    if not all(isinstance(message, dict) for message in messages):
        raise BadInput("messages: every message is an object", param="messages")
    variables = _typed(body, "variables", dict)
    placeholders = _typed(body, "placeholders", dict)
    unit = _typed(body, "safety_identifier", str) or _typed(body, "user", str) or ""
    _typed(body, "stream_options", dict)
    parameters = {name: value for name, value in body.items() if name in PASSED_ON and value is not None}
    if parameters.get("n", 1) != 1:
        raise BadInput("n: one choice a request is what this server gives", param="n")
    return Ask(model, messages, variables, placeholders, parameters, unit)


def _typed(body: Mapping[str, Any], name: str, kind: type, *, required: bool = False) -> Any:
    value = body.get(name)
    if value is None and not required:
        return None
    if not isinstance(value, kind):
        found = "nothing" if value is None else type(value).__name__
        raise BadInput(f"{name}: expected {kind.__name__}, found {found}", param=name)
    return value


def _whole(reply: Reply) -> dict[str, Any]:
    message = {"role": "assistant", "content": reply.completion.text, **reply.completion.message}
    choice = {"index": 0, "message": message, "finish_reason": reply.completion.finish_reason, "logprobs": None}
    return {**_head(reply, "chat.completion"), "choices": [choice], "usage": _usage(reply), "turnout": reply.turnout}


def _head(reply: Reply, kind: str) -> dict[str, Any]:
    return {"id": reply.id, "object": kind, "created": reply.created_s, "model": reply.choice.name}


def _usage(reply: Reply) -> dict[str, Any]:
    usage = reply.completion.usage
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.total_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
    }


async def _chunks(reply: Reply, with_usage: bool) -> AsyncIterator[bytes]:
    """The finished answer in OpenAI's chunks: first the role and where it came from, then the content."""
    head = _head(reply, "chat.completion.chunk")
    message = {"role": "assistant", "content": reply.completion.text, **reply.completion.message}
    parts = [({"role": "assistant", "content": ""}, None), (message, None), ({}, reply.completion.finish_reason)]
    for index, (delta, finish_reason) in enumerate(parts):
        chunk = {**head, "choices": [{"index": 0, "delta": delta, "finish_reason": finish_reason}]}
        yield _event({**chunk, "turnout": reply.turnout} if index == 0 else chunk)
    if with_usage:
        yield _event({**head, "choices": [], "usage": _usage(reply)})
    yield b"data: [DONE]\n\n"


def _event(data: dict[str, Any]) -> bytes:
    return b"data: " + _encoder.encode(data) + b"\n\n"

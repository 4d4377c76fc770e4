"""For applications that call their model themselves: messages, templates to fill, and word of what has moved."""

from __future__ import annotations

import asyncio
import functools
import json
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Any
from urllib.parse import parse_qsl

from litestar import Request, Response, get
from litestar.di import NamedDependency
from litestar.response import Stream

from prompts.errors import BadInput
from prompts.names import Selector
from prompts.prompt import CompiledPrompt
from prompts.template import MAX_OUTPUT_CHARACTERS
from service.api.etags import etag_of, names
from service.api.exchange import JSON, Exchange, Header, encode
from service.api.fields import given, refuse_unknown
from service.api.prompts import MAX_VERSION, selector
from service.api.strict_query import given_twice
from service.changes import Change, Listener
from service.context import Context
from service.identity import Principal
from service.registry import rendered

APP = {"role": "app"}
KEEP_ALIVE_S = 15.0
REVISION = b"turnout-revision"
_LONGEST_KNOWN = 300  # of a name and its query that are remembered
_RENDER_FIELDS = frozenset({"variables", "messages", "placeholders"})


async def render(exchange: Exchange) -> None:
    """The exact messages, for applications that call their model themselves; the ETag covers them all."""
    chosen = _selector(exchange)
    body = await exchange.optional_json()
    refuse_unknown(body, _RENDER_FIELDS)
    variables, placeholders = given(body, "variables", dict), given(body, "placeholders", dict)
    messages = given(body, "messages", list)
    snapshot = exchange.context.snapshot
    number = snapshot.select(chosen)
    prompt = await _compiled(exchange.context, chosen.name, number)
    shown = rendered(chosen.name, number, prompt, variables or {}, _objects(messages or ()), placeholders or {})
    await _conditional(exchange, encode(shown))


def _objects(messages: Sequence[Any]) -> Sequence[dict[str, Any]]:
    for message in messages:
        if type(message) is not dict:
            raise BadInput("messages: every message is an object", param="messages")
    return messages


async def get_template(exchange: Exchange) -> None:
    """What a client needs to render by itself; where `local` is false, it asks `render`. The ETag is the digest.

    The header `turnout-revision` says how new this is, in the numbers that `/api/changes` counts.
    """
    chosen = _selector(exchange)
    snapshot = exchange.context.snapshot
    revision = snapshot.view.revision  # read first: the answer is at least as new
    number = snapshot.select(chosen)
    prompt = await _compiled(exchange.context, chosen.name, number)
    messages = snapshot.local_messages(chosen.name, number)
    content = prompt.content
    shown = {
        "name": chosen.name,
        "version": number,
        "digest": prompt.digest,
        "model": content.model,
        "parameters": prompt.parameters,
        "variables": content.variables,
        "placeholders": {slot: shape.model_dump(by_alias=True) for slot, shape in content.placeholders.items()},
        "local": messages is not None,
        "messages": messages,
        "max_characters": MAX_OUTPUT_CHARACTERS,
    }
    await _conditional(exchange, encode(shown), prompt.digest, ((REVISION, b"%d" % revision),))


async def _conditional(
    exchange: Exchange, body: bytes, etag: str | None = None, headers: Iterable[Header] = ()
) -> None:
    """`body` under `etag` (by default one of its bytes), or 304 where If-None-Match names that."""
    etag = f'"{etag or etag_of(body)}"'
    sent = ((b"etag", etag.encode()), *headers)
    if names(exchange.header(b"if-none-match") or None, etag):
        await exchange.reply(b"", sent, 304)
    else:
        await exchange.reply(body, (JSON, *sent))


def _selector(exchange: Exchange) -> Selector:
    """The version that the query names. Raises BadInput for a query parameter that there is not."""
    raw: bytes = exchange.scope["query_string"]
    return (_known if len(raw) + len(exchange.name) < _LONGEST_KNOWN else _parsed)(exchange.name, raw)


def _parsed(name: str, raw: bytes) -> Selector:
    if not raw:
        return selector(name, None, None)
    query: dict[str, str] = {}
    for key, value in parse_qsl(raw.decode("latin-1"), keep_blank_values=True):
        if key not in ("version", "label"):
            raise BadInput(f"unknown query parameter {key[:80]!r}: give label, version", param=key[:80])
        if key in query:
            raise given_twice(key)
        if "\0" in value:
            raise BadInput(f"{key}: a query holds no NUL: remove it", param=key)
        query[key] = value
    return selector(name, _number(query.get("version")), query.get("label"))


_known = functools.lru_cache(maxsize=1024)(_parsed)  # applications ask the same way each time: a tenth of a render


def _number(text: str | None) -> int | None:
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= len(str(MAX_VERSION)) and 1 <= int(text) <= MAX_VERSION):
        reason = f"version: expected a whole number from 1 to {MAX_VERSION:,}, found {text[:40]!r}"
        raise BadInput(reason, param="version")
    return int(text)


@get("/api/changes", opt=APP)
async def get_changes(
    request: Request[Any, Any, Any], context: NamedDependency[Context], principal: NamedDependency[Principal]
) -> Response[Any]:
    """The current revision; as server-sent events, where the client accepts them, every move of a prompt as well.

    `hello` comes first, then `changed` with the names of prompts whose labels, newest version or route moved, or `all`
    where some may have been missed: since the Last-Event-ID of a stream before, or by a client that reads too slowly.
    """
    if "text/event-stream" not in request.headers.get("accept", ""):
        return Response({"revision": context.snapshot.view.revision})
    headers = {"cache-control": "no-cache", "x-accel-buffering": "no"}
    stream = _stream(context, principal, request.headers.get("last-event-id"))
    return Stream(stream, media_type="text/event-stream", headers=headers)


async def _stream(context: Context, principal: Principal, seen: str | None) -> AsyncIterator[bytes]:
    snapshot = context.snapshot
    with snapshot.changes.listening() as listener:
        revision = snapshot.view.revision
        yield _event("hello", revision, {"revision": revision})
        if seen is not None and seen != str(revision):
            yield _event("all", revision, {})
        async for chunk in _follow(listener):
            if principal not in snapshot.view.principals.values():
                return  # the key was revoked
            yield chunk


async def _follow(listener: Listener) -> AsyncIterator[bytes]:
    while True:
        change = await listener.next(KEEP_ALIVE_S)
        if listener.is_closed:
            return
        yield b": still here\n\n" if change is None else _told(change)


def _told(change: Change) -> bytes:
    if change.is_all:
        return _event("all", change.revision, {})
    if change.names:
        return _event("changed", change.revision, {"prompts": sorted(change.names)})
    return f"id: {change.revision}\n\n".encode()  # nothing that clients keep: they only learn how far they have read


def _event(kind: str, revision: int, data: dict[str, Any]) -> bytes:
    return f"id: {revision}\nevent: {kind}\ndata: {json.dumps(data)}\n\n".encode()


async def _compiled(context: Context, name: str, number: int) -> CompiledPrompt:
    """A version at hand without a thread; one that nobody asked for before is read from the database in one."""
    if context.snapshot.is_ready(name, number):
        return context.snapshot.prompt(name, number)
    return await asyncio.to_thread(context.snapshot.prompt, name, number)

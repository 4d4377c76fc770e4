"""For applications that call their model themselves: messages, templates to fill, and word of what has moved."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import msgspec
from litestar import Request, Response, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath, JSONBody
from litestar.response import Stream

from prompts.prompt import CompiledPrompt
from prompts.template import MAX_OUTPUT_CHARACTERS
from service.api.etags import conditional
from service.api.prompts import LabelName, Version, selector
from service.changes import Change, Listener
from service.context import Context
from service.identity import Principal
from service.registry import rendered

APP = {"role": "app"}
KEEP_ALIVE_S = 15.0
REVISION = "turnout-revision"


class RenderBody(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """What to render with: values of variables, messages of placeholders, and messages that follow."""

    variables: dict[str, Any] = {}
    messages: list[dict[str, Any]] = []
    placeholders: dict[str, list[dict[str, Any]]] = {}


@post("/api/prompts/{name:str}/render", opt=APP, status_code=200)
async def render(
    request: Request[Any, Any, Any],
    context: NamedDependency[Context],
    name: FromPath[str],
    data: JSONBody[RenderBody],
    version: Version = None,
    label: LabelName = None,
) -> Response[Any]:
    """The exact messages, for applications that call their model themselves; the ETag covers them all."""
    number = context.snapshot.select(selector(name, version, label))
    prompt = await _compiled(context, name, number)
    shown = rendered(name, number, prompt, data.variables, data.messages, data.placeholders)
    return conditional(request, shown)


@get("/api/prompts/{name:str}/template", opt=APP)
async def get_template(
    request: Request[Any, Any, Any],
    context: NamedDependency[Context],
    name: FromPath[str],
    version: Version = None,
    label: LabelName = None,
) -> Response[Any]:
    """What a client needs to render by itself; where `local` is false, it asks `render`. The ETag is the digest.

    The header `turnout-revision` says how new this is, in the numbers that `/api/changes` counts.
    """
    revision = context.snapshot.view.revision  # read first: the answer is at least as new
    number = context.snapshot.select(selector(name, version, label))
    prompt = await _compiled(context, name, number)
    messages = context.snapshot.local_messages(name, number)
    content = prompt.content
    shown = {
        "name": name,
        "version": number,
        "digest": prompt.digest,
        "model": content.model,
        "parameters": content.request_parameters(),
        "variables": content.variables,
        "placeholders": {slot: shape.model_dump(by_alias=True) for slot, shape in content.placeholders.items()},
        "local": messages is not None,
        "messages": messages,
        "max_characters": MAX_OUTPUT_CHARACTERS,
    }
    return conditional(request, shown, prompt.digest, {REVISION: str(revision)})


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

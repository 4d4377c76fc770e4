"""One request to a route that is answered without Litestar: its body in, its answer out, as plain ASGI messages."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
from litestar.types import Receive, Send

from prompts.errors import BadInput
from service.api.hang_ups import Watch, Watches
from service.api.strict_json import parsed_json
from service.context import Context
from service.identity import Principal
from service.traces import Trace, trace_of

Header = tuple[bytes, bytes]
JSON = (b"content-type", b"application/json")
EVENTS = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
)
_WITHOUT_BODY = (204, 304)
_encoder = msgspec.json.Encoder()
encode = _encoder.encode


class _HungUp(Exception):
    """The client left before its request was whole; there is nobody to answer."""


class Exchange:
    """One request and its answer. `name` is what stands in the path for the route's `{name}`, "" where it has none."""

    __slots__ = (
        "_receive",
        "_send",
        "_watches",
        "body",
        "context",
        "headers",
        "is_begun",
        "name",
        "principal",
        "scope",
    )

    def __init__(self, context: Context, scope: Any, receive: Receive, send: Send, watches: Watches, name: str) -> None:
        state: dict[str, Any] = scope["state"]
        self.context = context
        self.scope = scope
        self.principal: Principal = state["principal"]
        self.headers: Mapping[bytes, bytes] = state["headers"]
        self.name = name
        self.body = b""  # as it came, once it was read
        self.is_begun = False  # whether the client has been sent anything
        self._receive = receive
        self._send = send
        self._watches = watches

    def header(self, name: bytes) -> str:
        """A header of the request, "" where it has none."""
        value = self.headers.get(name)
        return value.decode("latin-1") if value else ""

    def trace(self) -> Trace | None:
        """The trace of the request's `traceparent`; where it has none, one that begins here, if traces are kept at all."""
        tracing = self.context.tracing
        return trace_of(self.header(b"traceparent")) or (tracing.begin() if tracing else None)

    def admit(self) -> None:
        """Count the request against its key's limits. Raises RateLimited."""
        limits = self.principal.limits
        if limits is not None:
            self.context.limiter.admit(self.principal.id, limits)

    async def json(self) -> dict[str, Any]:
        """The body, an object. Raises BadInput where it is none, or could mean two things."""
        self.body = body = await self._body()
        if not body:
            raise BadInput("there is no body: send a JSON object")
        found = await parsed_json(body)
        if not isinstance(found, dict):
            raise BadInput("the body must be a JSON object")
        return found

    async def optional_json(self) -> dict[str, Any]:
        """The same; an empty body is an empty object."""
        body = await self._body()
        found = await parsed_json(body) if body else {}
        if not isinstance(found, dict):
            raise BadInput("the body must be a JSON object", param="body")
        return found

    async def _body(self) -> bytes:
        message = await self._receive()
        if message["type"] == "http.request" and not message.get("more_body"):
            return message.get("body", b"")
        pieces = []
        while message["type"] == "http.request":
            pieces.append(message.get("body", b""))
            if not message.get("more_body"):
                return b"".join(pieces)
            message = await self._receive()
        raise _HungUp

    async def reply(self, body: bytes, headers: Iterable[Header] = (), status: int = 200) -> None:
        """The whole answer at once."""
        told = [*headers, *self._left()]
        if status not in _WITHOUT_BODY:
            told.append((b"content-length", b"%d" % len(body)))
        self.is_begun = True
        await self._send({"type": "http.response.start", "status": status, "headers": told})
        await self._send({"type": "http.response.body", "body": body, "more_body": False})

    async def begin_events(self, headers: Iterable[Header] = ()) -> None:
        """Begin an answer of server-sent events."""
        self.is_begun = True
        await self._send({"type": "http.response.start", "status": 200, "headers": [*EVENTS, *headers, *self._left()]})

    def _left(self) -> Iterable[Header]:
        """What the key may still take, where it has limits."""
        return () if self.principal.limits is None else self.context.limiter.headers(self.principal.id)

    async def send_event(self, event: bytes) -> None:
        await self._send({"type": "http.response.body", "body": event, "more_body": True})

    async def end_events(self, last: bytes = b"") -> None:
        await self._send({"type": "http.response.body", "body": last, "more_body": False})

    def cancelled_when_hung_up(self) -> Watch:
        """While the block runs, a client that hangs up cancels it; the cancellation ends with the block."""
        return self._watches.watch(self._receive)

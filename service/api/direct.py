"""Routes that are answered without Litestar, since every request of an application goes through them.

They stand behind the same door, and what Litestar would do for them is done here alike: the role, the method, errors in
the form of their path. `/schema` documents them with the rest.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import structlog
from litestar.types import ASGIApp, Receive, Send

from prompts.errors import TurnoutError
from service.api.exchange import Exchange, _HungUp, encode
from service.api.hang_ups import Watches
from service.api.http_errors import answer_to, answer_to_bug, shape
from service.context import Context

NAME = "{name}"
Handler = Callable[[Exchange], Awaitable[None]]
log = structlog.get_logger()


@dataclass(frozen=True)
class DirectRoute:
    """One method of one path, which may hold one `{name}`; `about` is more of OpenAPI's operation than its handler's docstring."""

    method: str
    path: str
    role: str
    handler: Handler
    about: Mapping[str, Any] = field(default_factory=dict)


Methods = Mapping[str, DirectRoute]


class Direct:
    """An ASGI application behind the door: answers `routes`, and hands all else to `app`."""

    def __init__(self, app: ASGIApp, context: Context, routes: Iterable[DirectRoute]) -> None:
        self._app = app
        self._context = context
        self._watches = Watches()
        self.routes = tuple(routes)
        by_path: dict[str, dict[str, DirectRoute]] = {}
        for route in self.routes:
            by_path.setdefault(route.path, {})[route.method] = route
        self._exact: Mapping[str, Methods] = {path: each for path, each in by_path.items() if NAME not in path}
        named = ((path.partition(NAME), each) for path, each in by_path.items() if NAME in path)
        self._named = tuple((before, after, each) for (before, _, after), each in named)

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path: str = scope["path"]
        methods, name = self._exact.get(path), ""
        if methods is None:
            methods, name = self._find(path)
        if methods is None:
            scope.setdefault("state", {})["context"] = self._context
            await self._app(scope, receive, send)
            return
        exchange = Exchange(self._context, scope, receive, send, self._watches, name)
        route = methods.get(scope["method"])
        if route is None:
            await _answer_to_method(exchange, methods)
        else:
            await _answered(exchange, route)

    def _find(self, path: str) -> tuple[Methods | None, str]:
        """The route of a path with a name in it, or of one with a slash too many at its end, as Litestar has it."""
        if path.endswith("/") and path != "/":
            path = path.rstrip("/")
            if path in self._exact:
                return self._exact[path], ""
        for before, after, methods in self._named:
            if path.startswith(before) and path.endswith(after):
                name = path[len(before) : len(path) - len(after)]
                if name and "/" not in name:
                    return methods, name
        return None, ""


async def _answered(exchange: Exchange, route: DirectRoute) -> None:
    """The handler's answer, or what its error means; once an answer has begun, all that is left is to break it off."""
    try:
        exchange.principal.require(route.role, f"use {exchange.scope['path']}")
        exchange.admit()
        await route.handler(exchange)
    except _HungUp:
        return
    except TurnoutError as error:
        if exchange.is_begun:
            raise
        status, body, headers = answer_to(error, exchange.scope["path"])
        await exchange.reply(encode(body), _as_bytes(headers), status)
    except Exception as error:
        if exchange.is_begun:
            raise
        status, body, headers = answer_to_bug(error, exchange.scope["path"])
        await exchange.reply(encode(body), _as_bytes(headers), status)


async def _answer_to_method(exchange: Exchange, methods: Methods) -> None:
    """A method that the path does not have: which there are."""
    allowed = ", ".join(sorted((*methods, "OPTIONS")))
    if exchange.scope["method"] == "OPTIONS":
        await exchange.reply(b"", [(b"allow", allowed.encode())], 204)
        return
    path = exchange.scope["path"]
    body, media_type = shape(path, 405, f"{exchange.scope['method']} is not allowed: use {allowed}", "MethodNotAllowed")
    await exchange.reply(encode(body), _as_bytes({"content-type": media_type, "allow": allowed}), 405)


def _as_bytes(headers: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
    return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]

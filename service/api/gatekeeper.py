"""The door: every request names an allowed host and brings a valid key, or it reaches nothing at all.

An ASGI application around the whole service, so that no route can be added beside it. Roles are checked by
`require_role`, which refuses every handler that does not say whom it is for.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from litestar.connection import ASGIConnection
from litestar.handlers import BaseRouteHandler
from litestar.types import ASGIApp, Receive, Send

from prompts.errors import TurnoutError
from service.api.bodies import bounded, bounded_file, is_small
from service.api.http_errors import answer_to, shape
from service.errors import Forbidden, Unauthenticated
from service.identity import Principal, digest_key
from service.settings import Settings
from service.snapshot import Snapshot

OPEN_PREFIX = "/health/"
FILES = "/v1/files"  # alone takes bodies as large as `fine_tuning.max_file_bytes`
_MOST_KNOWN, _LONGEST_KNOWN = 256, 300  # ways to write the hosts, with their ports, and the bytes of one
LOOPBACK_NAMES = ("127.0.0.1", "localhost", "[::1]")


class Gatekeeper:
    """Wraps an ASGI application."""

    def __init__(self, app: ASGIApp, settings: Settings, snapshot: Snapshot) -> None:
        self._app = app
        self._snapshot = snapshot
        self._limits = settings.server
        self._max_file_bytes = settings.fine_tuning.max_file_bytes
        self._hosts = frozenset((*LOOPBACK_NAMES, *settings.server.allowed_hosts))
        self._known: set[bytes] = set()

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        path = scope["path"]
        is_repeated = len(headers) < len(scope["headers"]) and _is_host_repeated(scope["headers"])
        if is_repeated or not self._is_known(headers.get(b"host", b"")):
            unknown = "the Host header names no host of this service: add it to server.allowed_hosts"
            message = "there are two Host headers: send one" if is_repeated else unknown
            body, media_type = shape(path, 421, message, "MisdirectedRequest")
            await _answer(send, 421, body, {"content-type": media_type})
            return
        if not path.startswith(OPEN_PREFIX):
            try:
                principal = self._principal(headers.get(b"authorization", b"").decode("latin-1"))
            except TurnoutError as error:
                await _answer(send, *answer_to(error, path))
                return
            state = scope.setdefault("state", {})
            state["principal"], state["headers"] = principal, headers
            if path == FILES and principal.may("author"):
                receive = bounded_file(headers, receive, self._max_file_bytes)
            elif not is_small(headers, self._limits):
                receive = bounded(headers, receive, self._limits, may_be_large=principal.may("author"))
        elif scope["method"] == "HEAD":  # some balancers ask so; the server keeps the body back
            scope = {**scope, "method": "GET"}
        await self._app(scope, receive, send)

    def _is_known(self, host: bytes) -> bool:
        """Whether a Host header names a host of this service. Those that do are remembered as they are written."""
        if host in self._known:
            return True
        if _host_name(host.decode("latin-1")) not in self._hosts:
            return False
        if len(self._known) < _MOST_KNOWN and len(host) < _LONGEST_KNOWN:
            self._known.add(host)
        return True

    def _principal(self, authorization: str) -> Principal:
        scheme, _, key = authorization.partition(" ")
        if scheme.lower() != "bearer" or not key:
            raise Unauthenticated("no key: send `Authorization: Bearer KEY`")
        principal = self._snapshot.view.principals.get(digest_key(key.strip()))
        if principal is None:
            raise Unauthenticated("this key is not valid: it may have been revoked")
        return principal


async def require_role(connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler) -> None:
    """Litestar's guard: each handler's `opt` names the least role; one that names none is for nobody.

    A coroutine, because Litestar calls a plain function in a thread: a hop for every request.
    """
    role = handler.opt.get("role")
    if role == "open":
        return
    principal = connection.scope.get("state", {}).get("principal")
    if principal is None:
        raise Unauthenticated("no key: send `Authorization: Bearer KEY`")
    if role is None:
        raise Forbidden("this route is open to nobody")
    principal.require(role, f"use {connection.scope['path']}")


def _is_host_repeated(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    """Whether a proxy and this service could each read another host (RFC 9112 §3.2)."""
    return sum(name == b"host" for name, _ in headers) > 1


def _host_name(host: str) -> str:
    if host.startswith("["):
        name, end, port = host.partition("]")
        return name + end if port[:1] in ("", ":") else host
    return host.partition(":")[0].lower()


async def _answer(send: Send, status: int, body: dict[str, Any], headers: dict[str, str]) -> None:
    raw = json.dumps(body).encode()
    sent = [(name.encode(), value.encode()) for name, value in (*headers.items(), ("content-length", str(len(raw))))]
    await send({"type": "http.response.start", "status": status, "headers": sent})
    await send({"type": "http.response.body", "body": raw, "more_body": False})

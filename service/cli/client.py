"""The service as commands call it: over HTTP, or (`--local`) the same handlers in this process on TURNOUT_HOME."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import time
from collections.abc import Callable
from typing import IO, Any

import httpx

from prompts.errors import BadFile, BadInput, Fault, TurnoutError
from service.errors import CannotRun, Conflict, Forbidden, NeedsEvidence, NotFound, Unauthenticated
from service.identity import LOCAL_ADMIN, find_key
from service.settings import DEFAULT_URL, Settings

LEAST_PAUSE_S, MOST_PAUSE_S = 0.1, 0.5  # between two looks at a job: short for one that may end at once
PAUSE_SHARE = 0.05  # of the time that it has been watched
BATCH = 1000  # events that one answer holds at most
AWAY_S = 1.0  # between two looks at a service that is away
_AUTHORITIES = ("SSL_CERT_FILE", "SSL_CERT_DIR")
_TEXTS = ("text/markdown", "application/jsonl")  # answers that are taken as they are
PLAIN_UP_TO_BYTES = 64 * 1024
GZIP_LEVEL = 4  # cases of text shrink to an eighth of their size, four times as fast as at the default
TIMEOUT_S = 60.0
PUSH_TIMEOUT_S = 600.0  # of a large body: a hundred thousand cases are checked one by one
_KINDS: dict[str, type[TurnoutError]] = {"needs_evidence": NeedsEvidence, "storage_failed": CannotRun}
_STATUSES: dict[int, type[TurnoutError]] = {401: Unauthenticated, 403: Forbidden, 409: Conflict, 412: Conflict}


class Remote:
    """A running service, by TURNOUT_URL and TURNOUT_API_KEY."""

    def __init__(self, settings: Settings) -> None:
        self.url = os.environ.get("TURNOUT_URL", DEFAULT_URL).rstrip("/")
        key, self._key_of = find_key(settings, os.environ)
        headers = {"authorization": f"Bearer {key}"} if key else {}
        try:
            self._client = httpx.Client(base_url=self.url, headers=headers, timeout=TIMEOUT_S)
        except httpx.InvalidURL as error:
            raise BadInput(f"TURNOUT_URL {self.url!r} is no URL: {error}", param="TURNOUT_URL") from error
        except OSError as error:  # httpx reads the authorities that these name, and says of no file which it was
            named = " ".join(f"{name}={os.environ[name]}" for name in _AUTHORITIES if name in os.environ)
            raise CannotRun(f"the certificates of authorities cannot be read ({named or 'httpx'}): {error}") from error

    def call(self, method: str, path: str, *, body: Any = None, params: Any = None, headers: Any = None) -> Any:
        """The answer's JSON. Raises the error that the service tells, or CannotRun where none answers."""
        try:
            content, about = packed(body)
            timeout_s = PUSH_TIMEOUT_S if "content-encoding" in about else TIMEOUT_S
            sent = about | (headers or {})
            response = self._client.request(
                method, path, content=content, params=params, headers=sent, timeout=timeout_s
            )
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            cause = str(error) or type(error).__name__
            raise CannotRun(f"no service at {self.url} ({cause}): start `turnout serve`, or add --local") from error
        return self._read(response)

    def download(self, path: str, to: IO[bytes]) -> None:
        """Write the answer's bytes to an open file. Raises as `call` does."""
        try:
            with self._client.stream("GET", path, timeout=PUSH_TIMEOUT_S) as response:
                if response.status_code >= 400:
                    response.read()
                    self._read(response)
                for block in response.iter_bytes():
                    to.write(block)
        except httpx.HTTPError as error:
            cause = str(error) or type(error).__name__
            raise CannotRun(f"no service at {self.url} ({cause}): start `turnout serve`, or add --local") from error

    def _read(self, response: httpx.Response) -> Any:
        """`read_answer`, which knows nothing of keys."""
        how = "set TURNOUT_API_KEY to one that `turnout key create --role ci` made there, or add --local"
        if response.status_code == 401 and not self._key_of:
            raise Unauthenticated(f"{self.url} asks for a key, and there is none: {how}")
        try:
            return read_answer(response)
        except Unauthenticated as error:
            raise Unauthenticated(f"{self._key_of}: {error}; {how}") from error


def packed(body: Any) -> tuple[bytes | None, dict[str, str]]:
    """A body as JSON and the headers that say so; as gzip where it is large. None has neither."""
    if body is None:
        return None, {}
    content = json.dumps(body, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()
    about = {"content-type": "application/json"}
    if len(content) <= PLAIN_UP_TO_BYTES:
        return content, about
    return gzip.compress(content, GZIP_LEVEL, mtime=0), about | {"content-encoding": "gzip"}


class InProcess:
    """The same handlers without a server, as this home's admin."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def call(self, method: str, path: str, *, body: Any = None, params: Any = None, headers: Any = None) -> Any:
        return asyncio.run(self._call(method, path, body, params, headers))

    async def _call(self, method: str, path: str, body: Any, params: Any, headers: Any) -> Any:
        from service.app import controllers, inside, running  # Litestar is needed by these commands alone
        from service.context import build_context
        from service.logs import configure_log

        configure_log()
        context = build_context(self._settings, is_service=False)
        app: Any = inside(context, controllers(context))

        async def as_admin(scope: Any, receive: Any, send: Any) -> None:
            scope.setdefault("state", {}).update(principal=LOCAL_ADMIN, headers=dict(scope["headers"]))
            await app(scope, receive, send)

        async with (
            running(context),
            httpx.AsyncClient(transport=httpx.ASGITransport(as_admin), base_url="http://localhost") as client,
        ):
            return read_answer(await client.request(method, path, json=body, params=params, headers=headers))


Client = Remote | InProcess


def connect(settings: Settings, *, local: bool) -> Client:
    return InProcess(settings) if local else Remote(settings)


def read_answer(response: httpx.Response) -> Any:
    """JSON (or Markdown, or JSON lines as text) of a good answer; raises the error that a bad one tells."""
    if response.status_code < 400:
        if response.headers.get("content-type", "").startswith(_TEXTS):
            return response.text
        try:
            return response.json() if response.content else None
        except ValueError as error:
            raise _not_ours(response) from error
    try:
        problem = response.json()
    except ValueError:
        problem = {}
    if not isinstance(problem, dict) or "status" not in problem:
        raise _not_ours(response)
    raise _error_of(response.status_code, problem)


def _not_ours(response: httpx.Response) -> CannotRun:
    return CannotRun(f"{response.request.url} answered {response.status_code}: is it a Turnout service?")


def _error_of(status: int, problem: dict[str, Any]) -> TurnoutError:
    detail, kind = str(problem.get("detail", "")), str(problem.get("type", "")).rpartition(":")[2]
    if problem.get("faults"):
        return BadFile([Fault(**fault) for fault in problem["faults"]])
    if status == 404:
        return _Said(detail)
    if kind in _KINDS or status in _STATUSES:
        return (_KINDS.get(kind) or _STATUSES[status])(detail)
    if status < 500:
        return BadInput(detail, param=problem.get("param"))
    return CannotRun(detail)


class _Said(NotFound):
    """NotFound in the service's own words."""

    def __init__(self, message: str) -> None:
        Exception.__init__(self, message)


def follow(
    client: Client,
    job_id: str,
    on_event: Callable[[dict[str, Any]], None],
    is_alive: Callable[[], bool] | None = None,
    say: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Wait for a job's end, passing its events on as they come; returns the job.

    `is_alive` tells whether the worker that alone would do it still lives; CannotRun where it does not. With `say`, a
    service that was there and is away is told and waited for.
    """
    after, is_away, began_s = -1, False, time.monotonic()
    while True:
        try:
            job: dict[str, Any] = client.call("GET", f"/api/jobs/{job_id}")
            batch = client.call("GET", f"/api/jobs/{job_id}/events", params={"after": max(after, 0)})
        except CannotRun as error:
            if say is None or after < 0:
                raise
            if not is_away:
                say(f"the service is away ({error}); watching goes on when it is back")
            is_away = True
            time.sleep(AWAY_S)
            continue
        if is_away and say is not None:
            say("the service is back")
        after, is_away = max(after, 0), False
        for event in batch:
            after = event["number"]
            on_event(event)
        has_ended = job["status"] in ("succeeded", "failed", "cancelled")
        if has_ended and not batch:
            return job
        if has_ended or len(batch) == BATCH:  # there may be more events
            continue
        if is_alive is not None and not batch and not is_alive():
            raise CannotRun(f"the worker of job {job_id} ended; `turnout job {job_id} --resume` queues it again")
        time.sleep(min(MOST_PAUSE_S, max(LEAST_PAUSE_S, (time.monotonic() - began_s) * PAUSE_SHARE)))

"""Comments of pull requests (GitHub) and merge requests (GitLab), over their REST APIs with httpx.

Of all comments ours is the one that begins with its hidden marker and that the token's own account wrote: a marker in
anybody else's comment makes it neither found nor overwritten.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import httpx

from prompts.errors import BadInput
from service.errors import CannotRun

if TYPE_CHECKING:
    from service.cli.forges import Change

PAGE = 100  # what both give at most
MAX_PAGES = 100
ATTEMPTS = 4
FIRST_PAUSE_S = 1.0  # doubled after each attempt
MAX_PAUSE_S = 30.0
TIMEOUT_S = 20.0
GITLAB_TOKENS = ("TURNOUT_GITLAB_TOKEN", "GITLAB_TOKEN")
_TRY_AGAIN = frozenset({429, 500, 502, 503, 504})


class NotAllowed(CannotRun):
    """The forge takes no comment from this token."""


class _Again(Exception):
    """An answer after which the same may be asked once more, in so many seconds."""

    def __init__(self, message: str, pause_s: float | None = None) -> None:
        super().__init__(message)
        self.pause_s = pause_s


@dataclass(frozen=True)
class Note:
    """One comment: who wrote it, and whether that is an application."""

    id: int
    body: str
    author: str
    is_bot: bool
    url: str = ""


@dataclass(frozen=True)
class Forge:
    """Where a forge keeps the comments of one change, and how it is spoken to.

    `update_path` and `update_method` change one comment by its id; `own_path` tells whose token this is.
    """

    client: httpx.Client
    list_path: str
    update_path: Callable[[int], str]
    update_method: str
    read: Callable[[Mapping[str, Any]], Note]
    own_path: str
    account: Callable[[Mapping[str, Any]], str]
    fix: str  # what to do where the token may not

    def put(self, body: str, sleep: Callable[[float], None] = time.sleep) -> str:
        """Update our comment, or write it where there is none; returns its address.

        Each attempt looks for the comment anew: one that was written although its answer was lost is found, not doubled.
        Raises NotAllowed where the token may not, CannotRun where the forge is out of reach or goes on failing.
        """
        pause_s = FIRST_PAUSE_S
        for attempt in range(ATTEMPTS):
            try:
                return self._put(body)
            except (_Again, httpx.TransportError) as error:
                if attempt == ATTEMPTS - 1:
                    host = self.client.base_url.host
                    raise CannotRun(f"{host} took no comment in {ATTEMPTS} attempts: {error or type(error)}") from error
                asked_s = error.pause_s if isinstance(error, _Again) else None
                sleep(min(asked_s if asked_s is not None else pause_s, MAX_PAUSE_S))
                pause_s *= 2
        raise AssertionError("the last attempt returns or raises")

    def _put(self, body: str) -> str:
        marker = body.partition("\n")[0]
        own = self._own_account()
        found = next((note for note in self._notes() if note.body.startswith(marker) and _is_ours(note, own)), None)
        if found is None:
            made = self._call("POST", self.list_path, json={"body": body})
        elif found.body.strip() == body.strip():
            return found.url
        else:
            made = self._call(self.update_method, self.update_path(found.id), json={"body": body})
        return self.read(_object(made)).url

    def _own_account(self) -> str | None:
        """Who the token is; None for an application's token of GitHub, which may not ask."""
        answer = self._call("GET", self.own_path, allowed=(401, 403, 404))
        return self.account(_object(answer)) if answer.is_success else None

    def _notes(self) -> Iterator[Note]:
        for page in range(1, MAX_PAGES + 1):
            rows = _read(self._call("GET", self.list_path, params={"per_page": PAGE, "page": page}))
            if not isinstance(rows, list):
                raise CannotRun(
                    f"{self.client.base_url}{self.list_path} gave no list of comments: is it a forge's API?"
                )
            yield from map(self.read, rows)
            if len(rows) < PAGE:
                return

    def _call(self, method: str, path: str, *, allowed: tuple[int, ...] = (), **more: Any) -> httpx.Response:
        answer = self.client.request(method, path, **more)
        if answer.is_success or (answer.status_code in allowed and not _is_limited(answer)):
            return answer
        said = f"{method} {answer.request.url.path}: HTTP {answer.status_code}"
        if answer.status_code in _TRY_AGAIN or _is_limited(answer):
            raise _Again(said, _asked_pause_s(answer))
        if answer.status_code in (401, 403, 404):
            raise NotAllowed(f"{said}: {self.fix}")
        raise CannotRun(f"{said}: {answer.text[:200]!r}")


def _read(answer: httpx.Response) -> Any:
    """The JSON of a good answer. Raises CannotRun where it is none: a proxy's page, say."""
    try:
        return answer.json()
    except ValueError as error:
        raise CannotRun(f"{answer.request.url} answered no JSON: is it a forge's API?") from error


def _object(answer: httpx.Response) -> Mapping[str, Any]:
    found = _read(answer)
    if not isinstance(found, dict):
        raise CannotRun(f"{answer.request.url} answered no object of JSON: is it a forge's API?")
    return found


def _is_ours(note: Note, own: str | None) -> bool:
    return note.author == own if own is not None else note.is_bot


def _is_limited(answer: httpx.Response) -> bool:
    """GitHub's second way to say that it was asked too often: 403 with a time to wait."""
    return answer.status_code == 403 and ("retry-after" in answer.headers)


def _asked_pause_s(answer: httpx.Response) -> float | None:
    asked = answer.headers.get("retry-after", "")
    return float(asked) if asked.isdecimal() else None


def notes_of(change: Change, environ: Mapping[str, str], transport: httpx.BaseTransport | None = None) -> Forge:
    """The comments of a change, with the token of the environment.

    Raises NotAllowed where there is no token, BadInput where the forge's address is none.
    """
    return (_github if change.forge == "github" else _gitlab)(change, environ, transport)


def _github(change: Change, environ: Mapping[str, str], transport: httpx.BaseTransport | None) -> Forge:
    fix = "give the job `permissions: pull-requests: write`; jobs of forks only read, whatever they ask for"
    token = environ.get("GITHUB_TOKEN")
    if not token:
        raise NotAllowed("there is no GITHUB_TOKEN: hand it to the step, `env: {GITHUB_TOKEN: ${{ github.token }}}`")
    headers = {
        "authorization": f"Bearer {token}",
        "accept": "application/vnd.github+json",
        "x-github-api-version": "2022-11-28",
    }
    client = _client(environ.get("GITHUB_API_URL", "https://api.github.com"), "GITHUB_API_URL", headers, transport)
    issues = f"/repos/{quote(change.repository)}/issues"
    return Forge(
        client,
        f"{issues}/{change.number}/comments",
        lambda note_id: f"{issues}/comments/{note_id}",
        "PATCH",
        _github_note,
        "/user",
        lambda user: str(user.get("login", "")),
        fix,
    )


def _github_note(row: Mapping[str, Any]) -> Note:
    user = row.get("user") or {}  # none where the account is gone
    is_bot = user.get("type") == "Bot"
    return Note(int(row["id"]), row.get("body") or "", user.get("login", ""), is_bot, row.get("html_url", ""))


def _gitlab(change: Change, environ: Mapping[str, str], transport: httpx.BaseTransport | None) -> Forge:
    token = next((found for name in GITLAB_TOKENS if (found := environ.get(name))), None)
    if not token:
        told = f"there is no {GITLAB_TOKENS[0]}: make a project access token (role Reporter, scope api)"
        raise NotAllowed(f"{told} and keep it as a masked variable; CI_JOB_TOKEN may write no notes")
    address = environ.get("CI_API_V4_URL", "https://gitlab.com/api/v4")
    client = _client(address, "CI_API_V4_URL", {"private-token": token}, transport)
    notes = f"/projects/{quote(change.repository, safe='')}/merge_requests/{change.number}/notes"
    page = environ.get("CI_MERGE_REQUEST_PROJECT_URL", "")
    shown = f"{page}/-/merge_requests/{change.number}" if page else ""

    def read(row: Mapping[str, Any]) -> Note:
        author = row.get("author") or {}
        return Note(
            int(row["id"]), row.get("body") or "", author.get("username", ""), False, f"{shown}#note_{row['id']}"
        )

    fix = f"{GITLAB_TOKENS[0]} is to be a project access token with the scope api and the role Reporter or above"
    return Forge(
        client,
        notes,
        lambda note_id: f"{notes}/{note_id}",
        "PUT",
        read,
        "/user",
        lambda user: str(user.get("username", "")),
        fix,
    )


def _client(
    address: str, variable: str, headers: Mapping[str, str], transport: httpx.BaseTransport | None
) -> httpx.Client:
    if not address.startswith(("https://", "http://")):
        raise BadInput(f"{variable}={address}: is no address; it begins with https://")
    return httpx.Client(base_url=address, headers=dict(headers), timeout=TIMEOUT_S, transport=transport)

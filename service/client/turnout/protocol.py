"""The service's HTTP as this client speaks it: requests as plain data, and what answers mean."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import httpx

from turnout.cache import Answer, Entry, Found, Key, Unchanged
from turnout.errors import BadSelector, BadVariables, KeyRefused, NotFound, Refused, TurnoutError, Unreachable
from turnout.names import check_label, check_name, check_version
from turnout.prompt import PromptBase, Rendered
from turnout.template import Given, read_template

DEFAULT_URL = "http://127.0.0.1:8600"
DEFAULT_LABEL = "production"
SILENCE_S = 40.0  # of a stream that says something every 15 s
KEEP_OPEN_S = 3.0  # an idle connection; the service closes its own after 5 s


@dataclass(frozen=True, slots=True)
class Request:
    """One request, in httpx's words."""

    method: str
    path: str
    params: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    json: Any = None


def connection(url: str | None, api_key: str | None, timeout_s: float) -> dict[str, Any]:
    """What an httpx client is made with; raises ValueError for a URL that is none."""
    url = url or os.environ.get("TURNOUT_URL") or DEFAULT_URL
    key = api_key or os.environ.get("TURNOUT_API_KEY") or ""
    parsed = httpx.URL(url) if url.startswith(("http://", "https://")) else None
    if parsed is None or not parsed.host:
        raise ValueError(f"url {url!r} is no http:// or https:// URL: give it, or set TURNOUT_URL")
    return {
        "base_url": url.rstrip("/"),
        "headers": {"authorization": f"Bearer {key}"} if key else {},
        "timeout": timeout_s,
        "limits": httpx.Limits(keepalive_expiry=KEEP_OPEN_S),
    }


def key_of(name: str, version: int | None, label: str | None) -> Key:
    """Raises BadSelector where both are given, or one of the three is outside the grammar."""
    check_name(name)
    if version is None:
        return name, DEFAULT_LABEL if label is None else check_label(label)
    if label is not None:
        raise BadSelector(f"version {version!r} and label {label!r}: give one of them, not both")
    return name, check_version(version)


def template_request(key: Key, entry: Entry[Any] | None) -> Request:
    name, which = key
    params = {"version": str(which)} if isinstance(which, int) else {"label": which}
    headers = {"if-none-match": entry.etag} if entry else {}
    return Request("GET", f"/api/prompts/{quote(name, safe='')}/template", params, headers)


def read_found(response: httpx.Response) -> Answer:
    """What the service says of a template; an error is returned, not raised."""
    revision = response.headers.get("turnout-revision", "")
    known = int(revision) if revision.isascii() and revision.isdigit() else None
    if response.status_code == 304:
        return Unchanged(known)
    if response.status_code != 200:
        return error_of(response)
    try:
        return Found(read_template(response.json()), response.headers.get("etag", ""), known)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        return _not_turnout(response, f"{type(error).__name__}: {error}")


def render_request(prompt: PromptBase, given: Given) -> Request:
    """The very version that the prompt is, whatever its label means by now."""
    path = f"/api/prompts/{quote(prompt.name, safe='')}/render"
    body = {"variables": given.variables, "placeholders": given.placeholders, "messages": given.follow_up}
    return Request("POST", path, {"version": str(prompt.version)}, json=body)


def read_rendered(response: httpx.Response, prompt: PromptBase) -> Rendered | TurnoutError:
    if response.status_code != 200:
        return error_of(response)
    try:
        data = response.json()
        return Rendered(data["messages"], data["model"], data["parameters"], data["name"], data["version"],
                        data["digest"], is_stale=prompt.is_stale)  # fmt: skip
    except (KeyError, TypeError, ValueError) as error:
        return _not_turnout(response, f"{type(error).__name__}: {error}")


def feedback_request(
    completion_id: str, metric: str, value: float | bool | str | None, comment: str | None, correction: str | None
) -> Request:
    body = {"completion_id": completion_id, "metric": metric, "value": value, "comment": comment}
    return Request("POST", "/api/feedback", json={**body, "correction": correction})


def read_feedback(response: httpx.Response) -> str | TurnoutError:
    """The id of the stored feedback."""
    if response.status_code not in (200, 201):
        return error_of(response)
    try:
        return str(response.json()["id"])
    except (KeyError, TypeError, ValueError) as error:
        return _not_turnout(response, f"{type(error).__name__}: {error}")


def changes_request(seen: int | None) -> Request:
    last = {} if seen is None else {"last-event-id": str(seen)}
    return Request("GET", "/api/changes", headers={"accept": "text/event-stream", **last})


def error_of(response: httpx.Response) -> TurnoutError:
    """The error that an answer tells; one that is not in Turnout's form came from somebody in between."""
    status, problem = response.status_code, _problem(response)
    if problem is None:
        return _not_turnout(response, f"status {status}")
    detail, kind = str(problem.get("detail", "")), str(problem["type"]).rpartition(":")[2]
    if status in (401, 403):
        hint = "" if status == 403 else " (give api_key, or set TURNOUT_API_KEY)"
        return KeyRefused(detail + hint, status=status)
    if status == 404 and kind == "not_found":
        return NotFound(detail)
    param = problem.get("param")
    if status == 400 and isinstance(param, str) and param.startswith(("variables", "placeholders", "messages")):
        return BadVariables(detail, param=param)
    if status == 429 or status >= 500:
        return Unreachable(f"{response.request.url.host}: {status} {detail}")
    return Refused(detail, status=status)


def unreachable(url: httpx.URL, error: Exception) -> Unreachable:
    return Unreachable(f"no service at {url} ({str(error) or type(error).__name__})")


def _problem(response: httpx.Response) -> dict[str, Any] | None:
    """The body of one of Turnout's own errors (RFC 9457)."""
    try:
        body = response.json()
    except ValueError:
        return None
    is_ours = isinstance(body, dict) and str(body.get("type", "")).startswith("urn:turnout:error:")
    return body if is_ours else None


def _not_turnout(response: httpx.Response, found: str) -> Unreachable:
    return Unreachable(f"{response.request.url.copy_with(query=None)} is no Turnout service: {found}")

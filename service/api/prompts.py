"""Prompts over HTTP: versions, labels, render, diff, push."""

from __future__ import annotations

from typing import Annotated, Any

import pydantic
from litestar import Request, Response, delete, get, post, put
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery, JSONBody, QueryParameter

from prompts.diff import diff
from prompts.errors import BadInput
from prompts.names import LATEST, Selector, check_label, check_name, parse_selector
from prompts.prompt import PromptContent
from service.api.threads import in_thread
from service.context import Context
from service.identity import Principal
from service.registry import Origin, Push, as_data, rendered
from service.revisions import ANY_REVISION, NO_REVISION
from service.store.prompts import LabelRecord, VersionRecord

AUTHOR = {"role": "author"}
MAX_MESSAGE_LENGTH = 2000
MAX_VERSION = 10**9


class _Origin(pydantic.BaseModel, extra="forbid"):
    message: str | None = pydantic.Field(None, max_length=MAX_MESSAGE_LENGTH)
    git_sha: str | None = pydantic.Field(None, max_length=64)
    git_branch: str | None = pydantic.Field(None, max_length=255)
    moves_labels: bool = True
    draft: bool = False

    def origin(self) -> Origin:
        moves_labels = self.moves_labels and not self.draft
        return Origin(self.message, self.git_sha, self.git_branch, moves_labels, self.draft)


class PushBody(_Origin):
    """Files of one push by name, as their keys and values; all are written, or none."""

    prompts: dict[str, dict[str, Any]] = {}
    suites: dict[str, dict[str, Any]] = {}


class LabelBody(pydantic.BaseModel, extra="forbid"):
    """Where a label is to point."""

    version: int = pydantic.Field(ge=1, le=MAX_VERSION)
    reason: str | None = pydantic.Field(None, max_length=MAX_MESSAGE_LENGTH)


class RenderBody(pydantic.BaseModel, extra="forbid"):
    """What to render with."""

    variables: dict[str, Any] = {}
    messages: list[dict[str, Any]] = []


Version = Annotated[int | None, QueryParameter(name="version", ge=1, le=MAX_VERSION)]
LabelName = Annotated[str | None, QueryParameter(name="label")]


def selector(name: str, version: int | None, label: str | None) -> Selector:
    """Neither means `production`; both is an error."""
    if version is not None and label is not None:
        raise BadInput("give either version or label, not both", param="version")
    if label is not None and label != LATEST:
        check_label(label)
    return Selector(check_name(name), version, label)


@get("/api/prompts", opt=AUTHOR)
@in_thread
def list_prompts(context: NamedDependency[Context]) -> list[dict[str, Any]]:
    """Every prompt with its newest version and its labels."""
    return context.registry.listing()


@post("/api/push", opt=AUTHOR, status_code=200)
@in_thread
def push(
    context: NamedDependency[Context], principal: NamedDependency[Principal], data: JSONBody[PushBody]
) -> list[dict[str, Any]]:
    """Prompts and suites in one transaction."""
    written = context.registry.push(Push(data.prompts, data.suites, data.origin()), principal)
    context.snapshot.refresh()
    return written


@get("/api/prompts/{name:str}", opt=AUTHOR)
@in_thread
def get_prompt(
    request: Request[Any, Any, Any],
    context: NamedDependency[Context],
    name: FromPath[str],
    version: Version = None,
    label: LabelName = None,
) -> Response[Any]:
    """One version: the selected one, else the one behind `production`."""
    return _with_etag(request, context.registry.version(selector(name, version, label)))


@get("/api/prompts/{name:str}/versions", opt=AUTHOR)
@in_thread
def list_versions(context: NamedDependency[Context], name: FromPath[str]) -> dict[str, Any]:
    """All versions, newest first, and the labels."""
    return context.registry.history(name)


@get("/api/prompts/{name:str}/versions/{number:int}", opt=AUTHOR)
@in_thread
def get_version(
    request: Request[Any, Any, Any], context: NamedDependency[Context], name: FromPath[str], number: FromPath[int]
) -> Response[Any]:
    """One version by its number."""
    return _with_etag(request, context.registry.version(selector(name, min(number, MAX_VERSION), None)))


@post("/api/prompts/{name:str}/versions", opt=AUTHOR)
@in_thread
def create_version(
    context: NamedDependency[Context],
    principal: NamedDependency[Principal],
    name: FromPath[str],
    data: JSONBody[dict[str, Any]],
) -> Response[dict[str, Any]]:
    """A new version (201), or the one that has this content already (200). Keys as in a prompt file, and `message`."""
    message = data.pop("message", None)
    if message is not None and not (isinstance(message, str) and len(message) <= MAX_MESSAGE_LENGTH):
        raise BadInput(f"message: expected text of at most {MAX_MESSAGE_LENGTH:,} characters", param="message")
    origin = Origin(message)
    written = context.registry.push(Push({name: data}, {}, origin), principal)[0]
    context.snapshot.refresh()
    return Response(written, status_code=201 if written["created"] else 200)


@get("/api/prompts/{name:str}/diff", opt=AUTHOR)
@in_thread
def get_diff(
    context: NamedDependency[Context], name: FromPath[str], a: FromQuery[str], b: FromQuery[str]
) -> dict[str, Any]:
    """What changed from `a` to `b`: each a version number or a label."""
    before, after = (context.registry.version(parse_selector(f"{name}@{which}")) for which in (a, b))
    found = diff(PromptContent.model_validate(before.content), PromptContent.model_validate(after.content))
    return {"name": name, "a": before.number, "b": after.number, **found}


@post("/api/prompts/{name:str}/render", opt={"role": "app"}, status_code=200)
@in_thread
def render(
    context: NamedDependency[Context],
    name: FromPath[str],
    data: JSONBody[RenderBody],
    version: Version = None,
    label: LabelName = None,
) -> Response[dict[str, Any]]:
    """The exact messages, for applications that call their model themselves."""
    number = context.snapshot.select(selector(name, version, label))
    prompt = context.snapshot.prompt(name, number)
    shown = rendered(name, number, prompt, data.variables, data.messages)
    return Response(shown, headers={"etag": f'"{prompt.digest}"'})


@get("/api/prompts/{name:str}/labels/{label:str}", opt=AUTHOR)
@in_thread
def get_label(context: NamedDependency[Context], name: FromPath[str], label: FromPath[str]) -> Response[dict[str, Any]]:
    return _label(context.registry.label(check_name(name), label))


@put("/api/prompts/{name:str}/labels/{label:str}", opt=AUTHOR)
@in_thread
def move_label(
    request: Request[Any, Any, Any],
    context: NamedDependency[Context],
    principal: NamedDependency[Principal],
    name: FromPath[str],
    label: FromPath[str],
    data: JSONBody[LabelBody],
) -> Response[dict[str, Any]]:
    """Point a label to a version; `If-Match` with the label's ETag makes it conditional, `If-None-Match: *` new."""
    expected = _expected_revision(request)
    record = context.registry.move_label(
        check_name(name), label, data.version, principal, if_revision=expected, reason=data.reason
    )
    context.snapshot.refresh()
    return _label(record)


@delete("/api/prompts/{name:str}/labels/{label:str}", opt=AUTHOR)
@in_thread
def remove_label(
    context: NamedDependency[Context],
    principal: NamedDependency[Principal],
    name: FromPath[str],
    label: FromPath[str],
    request: Request[Any, Any, Any],
    reason: FromQuery[str | None] = None,
) -> None:
    """Take a label away: it is 404 at once. `If-Match` makes it conditional."""
    expected = _expected_revision(request)
    context.registry.remove_label(check_name(name), label, principal, if_revision=expected, reason=reason)
    context.snapshot.refresh()


@get("/api/prompts/{name:str}/labels/{label:str}/history", opt=AUTHOR)
@in_thread
def label_history(context: NamedDependency[Context], name: FromPath[str], label: FromPath[str]) -> list[dict[str, Any]]:
    """Every move, newest first: who, when, why, on what evidence."""
    return context.registry.label_history(check_name(name), label)


def _expected_revision(request: Request[Any, Any, Any]) -> int | None:
    return etag_revision(request.headers.get("if-match"), request.headers.get("if-none-match"))


def etag_revision(if_match: str | None, if_none_match: str | None) -> int | None:
    """The revision that a conditional request expects: 0 for `If-None-Match: *`, None for an unconditional one."""
    if if_none_match == "*":
        return 0
    if if_match is None:
        return None
    if if_match.strip() == "*":
        return ANY_REVISION
    digits = if_match.strip().removeprefix("W/").strip('"')
    is_revision = digits.isascii() and digits.isdigit() and len(digits) < 10
    return int(digits) if is_revision else NO_REVISION  # an ETag of something else matches nothing


def _label(record: LabelRecord) -> Response[dict[str, Any]]:
    shown = {"name": record.name, "label": record.label, "version": record.version, "revision": record.revision}
    return Response({**shown, "updated_at": record.updated_at}, headers={"etag": f'"{record.revision}"'})


def _with_etag(request: Request[Any, Any, Any], record: VersionRecord) -> Response[Any]:
    etag = f'"{record.digest}"'
    if request.headers.get("if-none-match") == etag:
        return Response(None, status_code=304, headers={"etag": etag})
    return Response(as_data(record), headers={"etag": etag})

"""Prompts over HTTP: push, versions, search, diff, blame, labels, the page of a prompt."""

from __future__ import annotations

from typing import Annotated, Any
from urllib.parse import urlencode

import pydantic
from litestar import Request, Response, delete, get, post, put
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery, HeaderParameter, JSONBody, QueryParameter

from prompts.blame import blame
from prompts.diff import diff, diff_rendered
from prompts.errors import BadInput
from prompts.names import LATEST, Selector, check_label, check_name, parse_selector
from prompts.prompt import PromptContent
from service.api.documented import also
from service.api.etags import conditional
from service.api.threads import in_thread
from service.context import Context
from service.identity import Principal
from service.prompt_page import page
from service.registry import MAX_LISTED, MAX_VERSIONS, Origin, Push, Search, as_data
from service.revisions import ANY_REVISION, NO_REVISION
from service.said import Said, said
from service.store.prompts import LabelRecord, VersionRecord

AUTHOR = {"role": "author"}
MAX_MESSAGE_LENGTH = 2000
MAX_VERSION = 10**9
MAX_QUERY_LENGTH = 200


class _Origin(pydantic.BaseModel, extra="forbid"):
    message: Said | None = pydantic.Field(None, max_length=MAX_MESSAGE_LENGTH)
    git_sha: str | None = pydantic.Field(None, max_length=64)
    git_branch: str | None = pydantic.Field(None, max_length=255)
    git_author: str | None = pydantic.Field(None, max_length=255)
    git_subject: Said | None = pydantic.Field(None, max_length=MAX_MESSAGE_LENGTH)
    git_dirty: tuple[str, ...] = ()
    moves_labels: bool = True
    draft: bool = False
    allow_secrets: bool = False

    def origin(self) -> Origin:
        said = {name: getattr(self, name) for name in _Origin.model_fields}
        return Origin(**{**said, "moves_labels": self.moves_labels and not self.draft})


class PushBody(_Origin):
    """Files of one push by name, as their keys and values; all are written, or none."""

    prompts: dict[str, dict[str, Any]] = {}
    suites: dict[str, dict[str, Any]] = {}


class LabelBody(pydantic.BaseModel, extra="forbid"):
    """Where a label is to point."""

    version: int = pydantic.Field(ge=1, le=MAX_VERSION)
    reason: Said | None = pydantic.Field(None, max_length=MAX_MESSAGE_LENGTH)


class ReasonBody(pydantic.BaseModel, extra="forbid"):
    """Why, for the history."""

    reason: Said | None = pydantic.Field(None, max_length=MAX_MESSAGE_LENGTH)


class ExampleBody(pydantic.BaseModel, extra="forbid"):
    """What to render both versions with; each is given those that it declares."""

    variables: dict[str, Any] = {}
    placeholders: dict[str, Any] = {}


Query = Annotated[str, QueryParameter(name="q", max_length=MAX_QUERY_LENGTH)]
Limit = Annotated[int, QueryParameter(name="limit", ge=1, le=MAX_LISTED)]
HistoryLimit = Annotated[int, QueryParameter(name="limit", ge=1, le=MAX_VERSIONS)]
Version = Annotated[int | None, QueryParameter(name="version", ge=1, le=MAX_VERSION)]
LabelName = Annotated[str | None, QueryParameter(name="label")]
IfMatch = Annotated[str | None, HeaderParameter(name="If-Match", description="the ETag that was seen, or *")]
IfNoneMatch = Annotated[
    str | None, HeaderParameter(name="If-None-Match", description="*: only where there is none yet")
]


def selector(name: str, version: int | None, label: str | None) -> Selector:
    """Neither means `production`; both is an error."""
    if version is not None and label is not None:
        raise BadInput("give either version or label, not both", param="version")
    if label is not None and label != LATEST:
        check_label(label)
    return Selector(check_name(name), version, label)


@get("/api/prompts", opt=AUTHOR)
@in_thread
def list_prompts(
    request: Request[Any, Any, Any],
    context: NamedDependency[Context],
    q: Query = "",
    tag: FromQuery[str | None] = None,
    model: FromQuery[str | None] = None,
    label: LabelName = None,
    limit: Limit = MAX_LISTED,
    after: FromQuery[str] = "",
) -> Response[list[dict[str, Any]]]:
    """Prompts by name, those above `after`; `q`, `tag`, `model` and `label` narrow the list. `Link` names the next page."""
    found = context.registry.listing(Search(q, tag, model, label, after, limit))
    headers = {}
    if len(found) == limit:  # there may be more
        more = urlencode({**dict(request.query_params.items()), "after": found[-1]["name"]})
        headers["link"] = f'</api/prompts?{more}>; rel="next"'
    return Response(found, headers=headers)


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
def list_versions(
    request: Request[Any, Any, Any],
    context: NamedDependency[Context],
    name: FromPath[str],
    limit: HistoryLimit = MAX_VERSIONS,
) -> Response[Any]:
    """The newest `limit` versions, newest first, with their newest runs, and the labels; under an ETag of all of it."""
    return conditional(request, context.registry.history(name, limit))


@get("/api/prompts/{name:str}/versions/{number:int}", opt=AUTHOR)
@in_thread
def get_version(
    request: Request[Any, Any, Any], context: NamedDependency[Context], name: FromPath[str], number: FromPath[int]
) -> Response[Any]:
    """One version by its number."""
    within = max(-MAX_VERSION, min(number, MAX_VERSION))  # what is beyond is no version either
    return _with_etag(request, context.registry.version(selector(name, within, None)))


@post(
    "/api/prompts/{name:str}/versions",
    opt=AUTHOR,
    response_description="new",
    responses=also(200, "it was there already"),
)
@in_thread
def create_version(
    context: NamedDependency[Context],
    principal: NamedDependency[Principal],
    name: FromPath[str],
    data: JSONBody[dict[str, Any]],
) -> Response[dict[str, Any]]:
    """A new version (201), or the one that has this content already (200).

    Keys as in a prompt file, `message`, and `allow_secrets: true` for what looks like a key and is none.
    """
    message = data.pop("message", None)
    if message is not None and not (isinstance(message, str) and len(message) <= MAX_MESSAGE_LENGTH):
        raise BadInput(f"message: expected text of at most {MAX_MESSAGE_LENGTH:,} characters", param="message")
    origin = Origin(said(message) if message else None, allow_secrets=taken_flag(data, "allow_secrets"))
    written = context.registry.push(Push({name: data}, {}, origin), principal)[0]
    context.snapshot.refresh()
    return Response(written, status_code=201 if written["created"] else 200)


@get("/api/prompts/{name:str}/diff", opt=AUTHOR)
@in_thread
def get_diff(
    context: NamedDependency[Context], name: FromPath[str], a: FromQuery[str], b: FromQuery[str]
) -> dict[str, Any]:
    """What changed from `a` to `b`: each a version number or a label."""
    before, after = (_content(context, name, which) for which in (a, b))
    return {"name": name, "a": before[0], "b": after[0], **diff(before[1], after[1])}


@post("/api/prompts/{name:str}/diff", opt=AUTHOR, status_code=200)
@in_thread
def rendered_diff(
    context: NamedDependency[Context],
    name: FromPath[str],
    a: FromQuery[str],
    b: FromQuery[str],
    data: JSONBody[ExampleBody],
) -> dict[str, Any]:
    """The same, and what changed in the messages that both give for the same variables and placeholders."""
    before, after = (_content(context, name, which) for which in (a, b))
    shown = diff_rendered(before[1], after[1], data.variables, data.placeholders)
    return {"name": name, "a": before[0], "b": after[0], **diff(before[1], after[1]), "rendered": shown}


@get("/api/prompts/{name:str}/blame", opt=AUTHOR)
@in_thread
def get_blame(
    context: NamedDependency[Context], name: FromPath[str], version: Version = None, label: LabelName = None
) -> dict[str, Any]:
    """Every line of a version's messages with the version that last changed it; drafts are passed over."""
    records = context.registry.lineage(selector(name, version, label))
    lines = blame([PromptContent.model_validate(record.content) for record in records])
    to_blame = {line.changed_by for line in lines}
    return {
        "name": name,
        "version": records[-1].number,
        "lines": [
            {"index": line.index, "role": line.role, "text": line.text, "version": records[line.changed_by].number}
            for line in lines
        ],
        "versions": [as_data(records[index], with_content=False) for index in sorted(to_blame, reverse=True)],
    }


@get("/api/prompts/{name:str}/page", opt=AUTHOR, media_type="text/markdown")
@in_thread
def get_page(
    context: NamedDependency[Context], name: FromPath[str], version: Version = None, label: LabelName = None
) -> str:
    """A version's page in Markdown: what it does, its variables, its history with pass rates, its known limits."""
    chosen = selector(name, version, label)
    return page(as_data(context.registry.version(chosen)), context.registry.history(name))


@get("/api/prompts/{name:str}/labels/{label:str}", opt=AUTHOR)
@in_thread
def get_label(context: NamedDependency[Context], name: FromPath[str], label: FromPath[str]) -> Response[dict[str, Any]]:
    return _label(context.registry.label(check_name(name), _known_label(label)))


@put("/api/prompts/{name:str}/labels/{label:str}", opt=AUTHOR)
@in_thread
def move_label(
    context: NamedDependency[Context],
    principal: NamedDependency[Principal],
    name: FromPath[str],
    label: FromPath[str],
    data: JSONBody[LabelBody],
    if_match: IfMatch = None,
    if_none_match: IfNoneMatch = None,
) -> Response[dict[str, Any]]:
    """Point a label to a version; `If-Match` with the label's ETag makes it conditional, `If-None-Match: *` new."""
    expected = etag_revision(if_match, if_none_match)
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
    reason: FromQuery[str | None] = None,
    if_match: IfMatch = None,
) -> None:
    """Take a label away: it is 404 at once. `If-Match` makes it conditional."""
    expected, why = etag_revision(if_match), said(reason) if reason else None
    context.registry.remove_label(check_name(name), _known_label(label), principal, if_revision=expected, reason=why)
    context.snapshot.refresh()


@post("/api/prompts/{name:str}/labels/{label:str}/undo", opt=AUTHOR, status_code=200)
@in_thread
def undo_label(
    context: NamedDependency[Context],
    principal: NamedDependency[Principal],
    name: FromPath[str],
    label: FromPath[str],
    data: JSONBody[ReasonBody | None] = None,
    if_match: IfMatch = None,
) -> Response[dict[str, Any]]:
    """Take back a label's last move; `production` takes the route back with it. `If-Match` makes it conditional."""
    moved = context.registry.undo_label(
        check_name(name),
        check_label(label),
        principal,
        if_revision=etag_revision(if_match),
        reason=data.reason if data else None,
    )
    context.snapshot.refresh()
    return Response(moved, headers={"etag": f'"{moved["revision"]}"'} if moved["version"] is not None else {})


@get("/api/prompts/{name:str}/labels/{label:str}/history", opt=AUTHOR)
@in_thread
def label_history(context: NamedDependency[Context], name: FromPath[str], label: FromPath[str]) -> list[dict[str, Any]]:
    """Every move, newest first: who, when, why, on what evidence."""
    return context.registry.label_history(check_name(name), _known_label(label))


def taken_flag(data: dict[str, Any], name: str) -> bool:
    """A flag that stands beside the keys of a file, taken out of them; False where there is none."""
    value = data.pop(name, False)
    if not isinstance(value, bool):
        raise BadInput(f"{name}: expected true or false, found {value!r:.80}", param=name)
    return value


def _content(context: Context, name: str, which: str) -> tuple[int, PromptContent]:
    """Number and content of the version that `which` means: a number or a label."""
    record = context.registry.version(parse_selector(f"{name}@{which}"))
    return record.number, PromptContent.model_validate(record.content)


def _known_label(label: str) -> str:
    """A label's name, or `latest`, which has no row of its own; raises BadName."""
    return label if label == LATEST else check_label(label)


def etag_revision(if_match: str | None, if_none_match: str | None = None) -> int | None:
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

"""Keys, audit, models, adapters, the request log and feedback over HTTP."""

from __future__ import annotations

from typing import Any

import pydantic
from litestar import delete, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery, JSONBody

from prompts.errors import BadInput
from service.api.limits import RowLimit
from service.api.threads import in_thread
from service.context import Context
from service.errors import Forbidden, NotFound
from service.identity import Principal, create_key, revoke_key
from service.ids import new_id, now
from service.ratings import is_rating, rated_run
from service.store import keys, requests, routes
from service.store.session import Session

ADMIN = {"role": "admin"}


class KeyBody(pydantic.BaseModel, extra="forbid"):
    """The role of a new key, and a note on what it is for."""

    role: str
    note: str | None = pydantic.Field(None, max_length=200)


class FeedbackBody(pydantic.BaseModel, extra="forbid"):
    """How good a completion was: a value for a metric, a comment, or what the answer should have been."""

    completion_id: str = pydantic.Field(min_length=1, max_length=100)
    metric: str = pydantic.Field("rating", min_length=1, max_length=100)
    value: float | bool | str | None = None
    comment: str | None = pydantic.Field(None, max_length=10_000)
    correction: str | None = pydantic.Field(None, max_length=100_000)


@post("/api/keys", opt=ADMIN)
@in_thread
def new_key(
    context: NamedDependency[Context], principal: NamedDependency[Principal], data: JSONBody[KeyBody]
) -> dict[str, Any]:
    """A new key, shown this once."""
    made = create_key(context.database, data.role, actor=principal, note=data.note)
    _changed(context)
    return made


@get("/api/keys", opt=ADMIN)
@in_thread
def list_keys(context: NamedDependency[Context]) -> list[dict[str, Any]]:
    """All keys without their secrets."""
    with context.database.read() as session:
        return keys.listing(session)


@delete("/api/keys/{key_id:str}", opt=ADMIN)
@in_thread
def delete_key(context: NamedDependency[Context], principal: NamedDependency[Principal], key_id: FromPath[str]) -> None:
    """Revoke a key: it is refused at once."""
    revoke_key(context.database, key_id, actor=principal)
    _changed(context)


@get("/api/audit", opt=ADMIN)
@in_thread
def get_audit(context: NamedDependency[Context], limit: RowLimit = 100) -> list[dict[str, Any]]:
    """Keys made and revoked, routes and protected labels moved, newest first; `limit` from 1 to 1,000."""
    with context.database.read() as session:
        return keys.audit_log(session, limit)


@get("/api/models", opt={"role": "author"})
@in_thread
def list_aliases(context: NamedDependency[Context]) -> list[dict[str, Any]]:
    """Model aliases as the settings have them; secrets only by the name of their variable."""
    specs = context.settings.models.items()
    return [{"alias": alias, "tunable": spec.is_tunable, **spec.model_dump(mode="json")} for alias, spec in specs]


@get("/api/adapters", opt={"role": "author"})
@in_thread
def list_adapters(context: NamedDependency[Context], prompt: FromQuery[str | None] = None) -> list[dict[str, Any]]:
    """Adapters, newest first, with their lineage."""
    with context.database.read() as session:
        return routes.adapters(session, prompt)


@get("/api/requests", opt=ADMIN)
@in_thread
def list_requests(
    context: NamedDependency[Context], prompt: FromQuery[str | None] = None, limit: RowLimit = 100
) -> list[dict[str, Any]]:
    """The request log, newest first; `limit` from 1 to 1,000."""
    with context.database.read() as session:
        return requests.listing(session, prompt, limit)


@post("/api/feedback", opt={"role": "app"})
@in_thread
def give_feedback(
    context: NamedDependency[Context], principal: NamedDependency[Principal], data: JSONBody[FeedbackBody]
) -> dict[str, Any]:
    """Rate or correct a completion that this key asked for, or (authors) a run's answer; durable before the reply."""
    if data.value is None and data.comment is None and data.correction is None:
        raise BadInput("feedback needs a value, a comment or a correction", param="value")
    with context.database.write() as session:
        row = _rated(context, principal, session, data)
        record = {"id": new_id("fb"), **data.model_dump(), "key_id": principal.id, "at": now()}
        requests.add_feedback(session, record)
    return {**record, "variant": row["variant"]}


def _rated(context: Context, principal: Principal, session: Session, data: FeedbackBody) -> dict[str, Any]:
    """What the feedback is on: a completion, or a run's answer, which authors rate."""
    if is_rating(data.completion_id):
        if not principal.may("author"):
            raise Forbidden("answers of runs are rated by authors")
        return rated_run(session, data.completion_id, data.metric, data.value)
    row = context.request_log.find(data.completion_id) or requests.get(session, data.completion_id)
    if row is None:
        raise NotFound("completion", data.completion_id)
    if row["key_id"] != principal.id and not principal.may("author"):
        raise Forbidden("a key of role 'app' rates the completions that it asked for")
    return row


def _changed(context: Context) -> None:
    context.snapshot.refresh()

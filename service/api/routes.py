"""Routes over HTTP: weights, steps, history."""

from __future__ import annotations

from typing import Any

import pydantic
from litestar import Request, Response, get, post, put
from litestar.di import NamedDependency
from litestar.params import FromPath, JSONBody

from prompts.names import check_name
from service.api.prompts import etag_revision
from service.api.threads import in_thread
from service.context import Context
from service.identity import Principal

ADMIN = {"role": "admin"}


class RouteBody(pydantic.BaseModel, extra="forbid"):
    """Variants with their percents, which add up to 100, and why."""

    variants: dict[str, float] = pydantic.Field(min_length=1)
    reason: str = pydantic.Field("", max_length=2000)


class ReasonBody(pydantic.BaseModel, extra="forbid"):
    """Why, for the history."""

    reason: str | None = pydantic.Field(None, max_length=2000)


@get("/api/routes/{name:str}", opt={"role": "author"})
@in_thread
def get_route(context: NamedDependency[Context], name: FromPath[str]) -> Response[dict[str, Any]]:
    """The current revision."""
    return _route(context.route_book.show(check_name(name)))


@get("/api/routes/{name:str}/history", opt={"role": "author"})
@in_thread
def route_history(context: NamedDependency[Context], name: FromPath[str]) -> list[dict[str, Any]]:
    """Every revision, newest first: what, who, why, on what evidence."""
    return context.route_book.history(check_name(name))


@put("/api/routes/{name:str}", opt=ADMIN)
@in_thread
def set_route(
    request: Request[Any, Any, Any],
    context: NamedDependency[Context],
    principal: NamedDependency[Principal],
    name: FromPath[str],
    data: JSONBody[RouteBody],
) -> Response[dict[str, Any]]:
    """Weights by hand, with a reason; `If-Match` with the route's ETag makes it conditional."""
    expected = etag_revision(request.headers.get("if-match"), request.headers.get("if-none-match"))
    record = context.route_book.set(check_name(name), data.variants, principal, data.reason, expected)
    context.snapshot.refresh()
    return _route(record)


@post("/api/routes/{name:str}/promote", opt=ADMIN, status_code=200)
@in_thread
def promote_route(
    context: NamedDependency[Context],
    principal: NamedDependency[Principal],
    name: FromPath[str],
    data: JSONBody[ReasonBody | None] = None,
) -> Response[dict[str, Any]]:
    """The rollout's next step."""
    return _moved(context, context.route_book.promote(check_name(name), principal, data.reason if data else None))


@post("/api/routes/{name:str}/abort", opt=ADMIN, status_code=200)
@in_thread
def abort_route(
    context: NamedDependency[Context],
    principal: NamedDependency[Principal],
    name: FromPath[str],
    data: JSONBody[ReasonBody | None] = None,
) -> Response[dict[str, Any]]:
    """End the rollout under way: the incumbent gets everything back."""
    return _moved(context, context.route_book.abort(check_name(name), principal, data.reason if data else None))


@post("/api/routes/{name:str}/undo", opt=ADMIN, status_code=200)
@in_thread
def undo_route(
    context: NamedDependency[Context],
    principal: NamedDependency[Principal],
    name: FromPath[str],
    data: JSONBody[ReasonBody | None] = None,
) -> Response[dict[str, Any]]:
    """Restore the revision before the current one."""
    return _moved(context, context.route_book.undo(check_name(name), principal, data.reason if data else None))


def _moved(context: Context, record: dict[str, Any]) -> Response[dict[str, Any]]:
    context.snapshot.refresh()
    return _route(record)


def _route(record: dict[str, Any]) -> Response[dict[str, Any]]:
    return Response(record, headers={"etag": f'"{record["revision"]}"'})

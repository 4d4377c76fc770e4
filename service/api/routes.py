"""Routes over HTTP: shares, rollouts, history, and why somebody gets what they get."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated, Any, Literal

import pydantic
from litestar import Response, get, post, put
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery, JSONBody, QueryParameter

from prompts.errors import BadInput
from prompts.names import check_name, parse_variant
from service.api.prompts import IfMatch, IfNoneMatch, etag_revision
from service.api.threads import in_thread
from service.choosing import Ask
from service.context import Context
from service.errors import no_route
from service.explaining import explain
from service.identity import Principal
from service.ids import ago
from service.route_book import HowAsked
from service.routing import checked_steps
from service.said import Said
from service.store import prompts, rollouts
from suites.rollouts import Rules
from suites.statistics import mcnemar_p

ADMIN = {"role": "admin"}
Hours = Annotated[float, QueryParameter(name="hours", gt=0, le=24 * 90)]


class PlannedBody(pydantic.BaseModel, extra="forbid"):
    """Shares from a time on, in ISO 8601 with its zone."""

    at: str = pydantic.Field(max_length=60)
    variants: dict[str, float] = pydantic.Field(min_length=1)


class VariablesBody(pydantic.BaseModel, extra="forbid"):
    """Whoever has the same values of these variables stays on one variant."""

    variables: list[str] = pydantic.Field(min_length=1, max_length=20)


class RouteBody(pydantic.BaseModel, extra="forbid"):
    """Variants with their percents, which add up to 100, and why.

    `fallbacks`, `shadows` and `sticky` stay as they are where they are left out; a `schedule` that is left out ends.
    """

    variants: dict[str, float] = pydantic.Field(min_length=1)
    reason: Said = pydantic.Field("", max_length=2000)
    fallbacks: list[str] | None = None
    shadows: list[str] | None = None
    sticky: Literal["user", "session"] | VariablesBody | None = None
    schedule: list[PlannedBody] = []

    def how(self) -> HowAsked:
        sticky = tuple(self.sticky.variables) if isinstance(self.sticky, VariablesBody) else self.sticky
        return HowAsked(
            fallbacks=None if self.fallbacks is None else tuple(self.fallbacks),
            shadows=None if self.shadows is None else tuple(self.shadows),
            sticky=sticky if "sticky" in self.model_fields_set else False,
            schedule=tuple((step.at, step.variants) for step in self.schedule),
        )


class RolloutBody(pydantic.BaseModel, extra="forbid"):
    """A variant that takes the traffic step by step, by which rules, and why."""

    candidate: str
    steps: list[int] = pydantic.Field([5, 25, 100], min_length=1, max_length=20)
    rules: Rules = Rules()
    reason: Said = pydantic.Field("", max_length=2000)


class ReasonBody(pydantic.BaseModel, extra="forbid"):
    """Why, for the history."""

    reason: Said | None = pydantic.Field(None, max_length=2000)


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
    context: NamedDependency[Context],
    principal: NamedDependency[Principal],
    name: FromPath[str],
    data: JSONBody[RouteBody],
    if_match: IfMatch = None,
    if_none_match: IfNoneMatch = None,
) -> Response[dict[str, Any]]:
    """Weights by hand, with a reason; `If-Match` with the route's ETag makes it conditional."""
    expected = etag_revision(if_match, if_none_match)
    record = context.route_book.set(check_name(name), data.variants, principal, data.reason, expected, data.how())
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


@post("/api/routes/{name:str}/pause", opt=ADMIN, status_code=200)
@in_thread
def pause_route(
    context: NamedDependency[Context],
    principal: NamedDependency[Principal],
    name: FromPath[str],
    data: JSONBody[ReasonBody | None] = None,
) -> Response[dict[str, Any]]:
    """The rollout stays at its step until it is resumed; clear harm still takes it back."""
    return _moved(context, context.route_book.pause(check_name(name), principal, data.reason if data else None))


@post("/api/routes/{name:str}/resume", opt=ADMIN, status_code=200)
@in_thread
def resume_route(
    context: NamedDependency[Context],
    principal: NamedDependency[Principal],
    name: FromPath[str],
    data: JSONBody[ReasonBody | None] = None,
) -> Response[dict[str, Any]]:
    """Evidence moves the rollout again, counted anew."""
    return _moved(context, context.route_book.resume(check_name(name), principal, data.reason if data else None))


@post("/api/routes/{name:str}/rollout", opt=ADMIN, status_code=200)
@in_thread
def start_rollout(
    context: NamedDependency[Context],
    principal: NamedDependency[Principal],
    name: FromPath[str],
    data: JSONBody[RolloutBody],
) -> Response[dict[str, Any]]:
    """A variant takes the traffic of the one that has it, in steps that evidence moves; with a reason."""
    candidate = parse_variant(data.candidate)
    if candidate.prompt != check_name(name):
        raise BadInput(f"{data.candidate!r} is a variant of another prompt than {name!r}", param="candidate")
    steps = checked_steps(data.steps)
    return _moved(context, context.route_book.roll_out(candidate, steps, data.rules, principal, data.reason))


@get("/api/routes/{name:str}/rollout", opt={"role": "author"})
@in_thread
def get_rollout(context: NamedDependency[Context], name: FromPath[str]) -> dict[str, Any]:
    """How the rollout stands: state and reason, step, share, units and bad outcomes of both variants, evidence."""
    return context.rollouts.status(check_name(name))


@get("/api/routes/{name:str}/shadows", opt={"role": "author"})
@in_thread
def get_shadows(context: NamedDependency[Context], name: FromPath[str], hours: Hours = 24.0) -> list[dict[str, Any]]:
    """How each shadow did beside who answered, over requests that both were asked in the last `hours`."""
    with context.database.read() as session:
        found = rollouts.beside(session, check_name(name), ago(hours * 3600))
        if not (found or prompts.exists(session, name)):
            raise no_route(name, is_known=False)
    return [{**asdict(one), "p_value": mcnemar_p(one.only_shadow_failed, one.only_answered_failed)} for one in found]


@get("/api/routes/{name:str}/explain", opt={"role": "author"})
async def explain_route(
    context: NamedDependency[Context],
    name: FromPath[str],
    user: FromQuery[str] = "",
    session: FromQuery[str] = "",
    variables: FromQuery[str] = "{}",
) -> dict[str, Any]:
    """Which variant a user, a session or values of variables (a JSON object) get, and why."""
    return explain(context.snapshot, Ask(check_name(name), variables=_object(variables), unit=user, session=session))


def _object(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:  # no JSON, or more levels of it than Python reads
        raise BadInput(f"variables: not JSON: {error}", param="variables") from error
    if not isinstance(found, dict):
        raise BadInput("variables: give a JSON object of names and values", param="variables")
    return found


def _moved(context: Context, record: dict[str, Any]) -> Response[dict[str, Any]]:
    context.snapshot.refresh()
    return _route(record)


def _route(record: dict[str, Any]) -> Response[dict[str, Any]]:
    return Response(record, headers={"etag": f'"{record["revision"]}"'})

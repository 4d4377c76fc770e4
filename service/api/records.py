"""The request log and what people say of completions, over HTTP."""

from __future__ import annotations

import asyncio
import time
from typing import Annotated, Any
from urllib.parse import urlencode

import pydantic
from litestar import Request, Response, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery, JSONBody, QueryParameter

from prompts.errors import BadInput
from service.api.idempotency import IdempotencyKey, once
from service.api.limits import RowLimit
from service.api.threads import in_thread
from service.bodies import kept
from service.context import Context
from service.errors import Forbidden, NotFound, StorageFailed
from service.identity import Principal
from service.ids import new_id, now
from service.pending import asked_at_s
from service.ratings import is_rating, rated_run
from service.store import requests
from service.store.request_query import Question, newest
from service.store.session import Session
from service.times import stored_time

_LOGGED_WITHIN_S = 2.0  # after an answer its row is in the database, whichever replica gave it
_AGAIN_S = 0.1
_RECENT_S = 600.0  # as long as an answer may take, and clocks differ


class FeedbackBody(pydantic.BaseModel, extra="forbid"):
    """How good a completion was: a value for a metric, a comment, or what the answer should have been."""

    completion_id: str = pydantic.Field(min_length=1, max_length=100)
    metric: str = pydantic.Field("rating", min_length=1, max_length=100)
    value: float | bool | str | None = None
    comment: str | None = pydantic.Field(None, max_length=10_000)
    correction: str | None = pydantic.Field(None, max_length=100_000)


Since = Annotated[str | None, QueryParameter(description="an age (7d, 12h, 30m) or a time (2026-01-31); included")]
Until = Annotated[str | None, QueryParameter(description="an age or a time; not included")]
Status = Annotated[
    str | None, QueryParameter(description="ok, cancelled, an error's class, or failed for any of these")
]
Metric = Annotated[str | None, QueryParameter(description="only what somebody gave a score of this metric")]
After = Annotated[str | None, QueryParameter(description="`at,seq` of the last row of the page before")]


@get("/api/requests", opt={"role": "admin"})
@in_thread
def list_requests(
    request: Request[Any, Any, Any],
    context: NamedDependency[Context],
    prompt: FromQuery[str | None] = None,
    variant: FromQuery[str | None] = None,
    status: Status = None,
    trace_id: FromQuery[str | None] = None,
    since: Since = None,
    until: Until = None,
    metric: Metric = None,
    below: FromQuery[float | None] = None,
    above: FromQuery[float | None] = None,
    after: After = None,
    limit: RowLimit = 100,
) -> Response[list[dict[str, Any]]]:
    """The request log, newest first; `limit` from 1 to 1,000, and `Link` names the next page."""
    asked = _question(prompt, variant, status, trace_id, since, until, metric, below, above, after)
    return _page(request, context, asked, limit)


@get("/api/prompts/{name:str}/requests", opt={"role": "author"})
@in_thread
def list_prompt_requests(
    request: Request[Any, Any, Any],
    context: NamedDependency[Context],
    name: FromPath[str],
    variant: FromQuery[str | None] = None,
    status: Status = None,
    trace_id: FromQuery[str | None] = None,
    since: Since = None,
    until: Until = None,
    metric: Metric = None,
    below: FromQuery[float | None] = None,
    above: FromQuery[float | None] = None,
    after: After = None,
    limit: RowLimit = 100,
) -> Response[list[dict[str, Any]]]:
    """The requests of one prompt, as `GET /api/requests` gives them."""
    asked = _question(name, variant, status, trace_id, since, until, metric, below, above, after)
    return _page(request, context, asked, limit)


def _question(
    prompt: str | None,
    variant: str | None,
    status: str | None,
    trace_id: str | None,
    since: str | None,
    until: str | None,
    metric: str | None,
    below: float | None,
    above: float | None,
    after: str | None,
) -> Question:
    """Raises BadInput for a time or a cursor that is none, and for bounds of no metric."""
    if metric is None and (below is not None or above is not None):
        raise BadInput("below and above are bounds of a score: name its metric", param="metric")
    times = stored_time(since, "since"), stored_time(until, "until")
    return Question(prompt, variant, status, trace_id, *times, metric, below, above, _cursor(after))


def _cursor(after: str | None) -> tuple[str, int] | None:
    if after is None:
        return None
    at, _, seq = after.partition(",")
    if not (seq.isascii() and seq.isdigit() and len(seq) < 19):
        raise BadInput(f"after {after[:60]!r}: give the `at` and the `seq` of the last row, `at,seq`", param="after")
    return at, int(seq)


def _page(
    request: Request[Any, Any, Any], context: Context, question: Question, limit: int
) -> Response[list[dict[str, Any]]]:
    with context.database.read() as session:
        rows = newest(session, question, limit)
    headers = {}
    if len(rows) == limit:  # there may be more
        more = {**dict(request.query_params.items()), "after": f"{rows[-1]['at']},{rows[-1]['seq']}"}
        headers["link"] = f'<{request.url.path}?{urlencode(more)}>; rel="next"'
    return Response(rows, headers=headers)


@post("/api/feedback", opt={"role": "app"})
async def give_feedback(
    context: NamedDependency[Context],
    principal: NamedDependency[Principal],
    data: JSONBody[FeedbackBody],
    idempotency_key: IdempotencyKey = None,
) -> dict[str, Any]:
    """Rate or correct a completion that this key asked for, or (authors) a run's answer; durable before the reply.

    What looks like a secret is neither stored nor told.
    """
    if data.value is None and data.comment is None and data.correction is None:
        raise BadInput("feedback needs a value, a comment or a correction", param="value")
    until_s = time.monotonic() + (_LOGGED_WITHIN_S if _is_recent(data.completion_id) else 0.0)
    while True:
        try:
            return await asyncio.to_thread(_give, context, principal, data, idempotency_key)
        except NotFound:
            if time.monotonic() >= until_s:
                raise
        await asyncio.sleep(_AGAIN_S)


def _is_recent(completion_id: str) -> bool:
    """Whether another replica may have answered it so lately that its row is on its way to the database."""
    asked_s = asked_at_s(completion_id)
    return asked_s is not None and abs(time.time() - asked_s) < _RECENT_S


def _give(context: Context, principal: Principal, data: FeedbackBody, idempotency_key: str | None) -> dict[str, Any]:
    def give(stable: str | None) -> dict[str, Any]:
        with context.database.write() as session:
            variant = _rated(context, principal, session, data)
            made = f"fb_{stable}" if stable else new_id("fb")
            said = kept(data.model_dump(exclude={"completion_id"}))
            about = {"completion_id": data.completion_id, "key_id": principal.id, "at": now()}
            record = {"id": made, **said, **about}
            requests.add_feedback(session, record)
        return {**record, "variant": variant}

    return once(context, principal, idempotency_key, data.model_dump(), give)


def _rated(context: Context, principal: Principal, session: Session, data: FeedbackBody) -> str:
    """The variant that gave what the feedback is on: a completion, or a run's answer, which authors rate."""
    if is_rating(data.completion_id):
        if not principal.may("author"):
            raise Forbidden("answers of runs are rated by authors")
        variant: str = rated_run(session, data.completion_id, data.metric, data.value)["variant"]
        return variant
    key_id, variant = _logged(context, session, data.completion_id)
    if key_id != principal.id and not principal.may("author"):
        raise Forbidden("a key of role 'app' rates the completions that it asked for")
    return variant


def _logged(context: Context, session: Session, completion_id: str) -> tuple[str, str]:
    """The key that asked for a completion, and the variant that gave it."""
    outcome = context.request_log.find(completion_id)
    if outcome is not None:
        return outcome.key_id, outcome.variant
    row = requests.get(session, completion_id)
    if row is not None:
        return row["key_id"], row["variant"]
    if context.request_log.is_behind:
        raise StorageFailed("the request log is not whole since the database was away: try again in a few seconds")
    raise NotFound("completion", completion_id, "it can be rated once its answer is complete")

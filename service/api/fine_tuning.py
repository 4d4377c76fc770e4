"""`/v1/fine_tuning`: OpenAI's fine-tuning jobs."""

from __future__ import annotations

from typing import Annotated, Any

from litestar import HttpMethod, Request, get, post, route
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery, HeaderParameter, JSONBody, QueryParameter

from service.api.idempotency import once
from service.api.threads import in_thread
from service.context import Context
from service.errors import NotServed
from service.fine_tuning.request import CreateJob
from service.fine_tuning.tunings import FineTunings
from service.identity import Principal

AUTHOR = {"role": "author"}
IdempotencyKey = Annotated[str | None, HeaderParameter(name="Idempotency-Key")]
Limit = Annotated[int, QueryParameter(name="limit", ge=1, le=1000)]


@post("/v1/fine_tuning/jobs", opt=AUTHOR, status_code=200)
@in_thread
def create_tuning(
    context: NamedDependency[Context],
    principal: NamedDependency[Principal],
    data: JSONBody[CreateJob],
    idempotency_key: IdempotencyKey = None,
) -> dict[str, Any]:
    """Queue a fine-tuning job on an uploaded file; what can be known to be wrong is refused now, the rest fails the job."""

    def start(stable_id: str | None) -> dict[str, Any]:
        return _tunings(context).create(data, principal, stable_id)

    return once(context, principal, idempotency_key, data.model_dump(), start)


@get("/v1/fine_tuning/jobs", opt=AUTHOR)
@in_thread
def list_tunings(
    request: Request[Any, Any, Any],
    context: NamedDependency[Context],
    after: FromQuery[str | None] = None,
    limit: Limit = 20,
) -> dict[str, Any]:
    """Jobs behind the job `after`, newest first: `metadata[key]=value` takes those that hold it, `metadata=null` those without."""
    return _tunings(context).page(after=after, limit=limit, metadata=_metadata(request))


@get("/v1/fine_tuning/jobs/{tuning_id:str}", opt=AUTHOR)
@in_thread
def get_tuning(context: NamedDependency[Context], tuning_id: FromPath[str]) -> dict[str, Any]:
    """One job."""
    return _tunings(context).show(tuning_id)


@post("/v1/fine_tuning/jobs/{tuning_id:str}/cancel", opt=AUTHOR, status_code=200)
@in_thread
def cancel_tuning(
    context: NamedDependency[Context], principal: NamedDependency[Principal], tuning_id: FromPath[str]
) -> dict[str, Any]:
    """Ask for a job's end; its checkpoints stay."""
    return _tunings(context).cancel(tuning_id, principal)


@post("/v1/fine_tuning/jobs/{tuning_id:str}/pause", opt=AUTHOR, status_code=200)
@in_thread
def pause_tuning(
    context: NamedDependency[Context], principal: NamedDependency[Principal], tuning_id: FromPath[str]
) -> dict[str, Any]:
    """Let a job keep its newest state and wait."""
    return _tunings(context).pause(tuning_id, principal)


@post("/v1/fine_tuning/jobs/{tuning_id:str}/resume", opt=AUTHOR, status_code=200)
@in_thread
def resume_tuning(
    context: NamedDependency[Context], principal: NamedDependency[Principal], tuning_id: FromPath[str]
) -> dict[str, Any]:
    """Go on with a paused, failed or cancelled job where it stood."""
    return _tunings(context).resume(tuning_id, principal)


@get("/v1/fine_tuning/jobs/{tuning_id:str}/events", opt=AUTHOR)
@in_thread
def list_tuning_events(
    context: NamedDependency[Context],
    tuning_id: FromPath[str],
    after: FromQuery[str | None] = None,
    limit: Limit = 20,
) -> dict[str, Any]:
    """A job's events behind the event `after`, newest first."""
    return _tunings(context).events(tuning_id, after=after, limit=limit)


@get("/v1/fine_tuning/jobs/{tuning_id:str}/checkpoints", opt=AUTHOR)
@in_thread
def list_tuning_checkpoints(
    context: NamedDependency[Context],
    tuning_id: FromPath[str],
    after: FromQuery[str | None] = None,
    limit: Limit = 10,
) -> dict[str, Any]:
    """A job's checkpoints that are served, newest first."""
    return _tunings(context).checkpoints(tuning_id, after=after, limit=limit)


@route(
    ["/v1/fine_tuning/checkpoints/{rest:path}", "/v1/fine_tuning/alpha/{rest:path}"],
    http_method=[HttpMethod.GET, HttpMethod.POST, HttpMethod.DELETE],
    opt=AUTHOR,
    status_code=200,
)
async def not_here(request: Request[Any, Any, Any], rest: FromPath[str]) -> None:
    """OpenAI's permissions of checkpoints and its graders: neither is here, which is said by name."""
    if "/alpha/" in request.url.path:
        fix = "use the assertions of suites (model-graded ones among them)"
        raise NotServed("such call", f"fine_tuning/alpha{rest}"[:200], f"graders are not served here: {fix}")
    fix = "every key of this service may use every checkpoint's name"
    raise NotServed("such call", f"fine_tuning/checkpoints{rest}"[:200], f"there are no projects to permit: {fix}")


def _tunings(context: Context) -> FineTunings:
    return FineTunings(context.database, context.settings)


def _metadata(request: Request[Any, Any, Any]) -> dict[str, str] | None:
    """The filter of `metadata[key]=value` in a query; {} for `metadata=null`, None where there is none."""
    given = request.query_params
    if given.get("metadata") == "null":
        return {}
    pairs = {name[9:-1]: value for name, value in given.items() if name.startswith("metadata[") and name[-1] == "]"}
    return pairs or None

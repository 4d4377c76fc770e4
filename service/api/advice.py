"""Advice over HTTP: whether to tune, as a job, and what it came to."""

from __future__ import annotations

from typing import Annotated, Any

import pydantic
from litestar import get, post
from litestar.di import NamedDependency
from litestar.params import FromPath, JSONBody

from prompts.errors import BadInput
from prompts.names import PRODUCTION, Selector, parse_selector
from service import datasets
from service.advising.spec import (
    DEFAULT_SHOTS,
    DEFAULT_WATTS,
    MOST_SHOTS,
    AdviceSpec,
    advice_id_of,
    job_id_of_advice,
)
from service.api.evaluation import starter
from service.api.idempotency import IdempotencyKey, once
from service.api.threads import in_thread
from service.context import Context
from service.errors import NotFound
from service.identity import Principal
from service.jobs import Kind
from service.settings import Settings
from service.tuning.material import model_source
from suites.judging import WITHOUT_TUNING, check_alone
from suites.policy import MOST_MINUTES, Budget

AUTHOR = {"role": "author"}
KIND: Kind = "advice"
Shots = Annotated[int, pydantic.Field(ge=1, le=MOST_SHOTS)]


class AdviceRequest(pydantic.BaseModel, frozen=True, extra="forbid"):
    """What `POST /api/advice` and `turnout advise` ask for. `called` and `local` are for the commands that it proposes."""

    suite: str
    prompt: str | None = None
    base: str | None = None
    against: str | None = None
    examples: list[dict[str, Any]] | None = None
    dataset: str | None = None
    shots: Annotated[tuple[Shots, ...], pydantic.Field(min_length=1, max_length=8)] = DEFAULT_SHOTS
    minutes: float | None = pydantic.Field(None, gt=0, le=MOST_MINUTES)
    price_per_hour: float | None = pydantic.Field(None, ge=0, allow_inf_nan=False)
    watts: float = pydantic.Field(DEFAULT_WATTS, gt=0, le=100_000)
    look: bool = False
    dry_run: bool = False
    held_out: list[str] = []
    called: str = ""
    local: bool = False


@post("/api/advice", opt=AUTHOR, status_code=202)
@in_thread
def start_advice(
    context: NamedDependency[Context],
    principal: NamedDependency[Principal],
    data: JSONBody[AdviceRequest],
    idempotency_key: IdempotencyKey = None,
) -> dict[str, Any]:
    """Queue an advice on a suite's prompt; what can be known to be wrong is refused now."""
    start = starter(context, principal, KIND, lambda: plan_advice(context, data))
    answer = once(context, principal, idempotency_key, data.model_dump(mode="json"), start)
    return {"advice_id": advice_id_of(answer["job_id"]), **answer}


@get("/api/advice/{advice_id:str}", opt=AUTHOR)
@in_thread
def get_advice(context: NamedDependency[Context], advice_id: FromPath[str]) -> dict[str, Any]:
    """An advice once it is given; before that its status, and `verdict` null. A job's id is taken, too."""
    try:
        job = context.jobs.show(job_id_of_advice(advice_id))
    except NotFound as error:
        raise NotFound("advice", advice_id, "`turnout jobs` lists them") from error
    if job["kind"] != KIND:
        raise NotFound("advice", advice_id, f"job {job['job_id']} is a {job['kind']}")
    known = {"advice_id": advice_id_of(job["job_id"]), "job_id": job["job_id"], "status": job["status"]}
    return {**known, "error": job["error"], **(job["result"] or {"verdict": None})}


def plan_advice(context: Context, data: AdviceRequest) -> AdviceSpec:
    """The job that a request means.

    Raises NotFound, or BadInput where an alias is unknown, a named base cannot be tuned, or there are no examples.
    """
    record = context.registry.suite_head(data.suite)
    suite = context.registry.read_suite(record)
    selector = parse_selector(data.prompt) if data.prompt else Selector(record["prompt"], label=PRODUCTION)
    version = context.registry.version(selector)
    model = version.content["model"]
    if data.examples is None and data.dataset is None and not suite.training.examples:
        told = f"suite {record['name']!r} has no training examples: add `training: {{examples: …}}`, or give --examples"
        raise BadInput(told, param="examples")
    for alias in filter(None, (model, data.against)):
        context.settings.model(alias)
    check_alone(record["name"], suite, WITHOUT_TUNING)
    base, untunable = _base(context.settings, data.base, (suite.fallback and suite.fallback.base_model) or model)
    budget = suite.fallback.budget if suite.fallback else Budget()
    kept = data.model_dump(
        include={"against", "examples", "shots", "price_per_hour", "watts", "look", "dry_run", "local"}
    )
    return AdviceSpec(
        suite=record["name"],
        suite_version=record["number"],
        prompt_version=version.number,
        model=model,
        base=base,
        untunable=untunable,
        dataset=_dataset(context, data),
        minutes=data.minutes or budget.minutes,
        held_out={head["name"]: head["number"] for head in map(context.registry.suite_head, data.held_out)},
        called=data.called or record["name"],
        **kept,
    )


def _base(settings: Settings, given: str | None, otherwise: str) -> tuple[str | None, str]:
    """The alias to tune. One that was named must be tunable; else none is, and why."""
    if given is not None:
        model_source(settings, given)
        return given, ""
    try:
        model_source(settings, otherwise)
    except BadInput as error:
        return None, f"{error}: name one with --base"
    return otherwise, ""


def _dataset(context: Context, data: AdviceRequest) -> str | None:
    """The whole digest of the dataset that is meant."""
    if data.dataset is None:
        return None
    if data.examples is not None:
        raise BadInput("give `examples` or a `dataset`, not both", param="dataset")
    with context.database.read() as session:
        return datasets.resolve(session, data.dataset)

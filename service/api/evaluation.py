"""Suites, runs, gates, fine-tunes and evidence over HTTP."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pydantic
from litestar import Response, get, post, put
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery, JSONBody

from finetune.plan import make_recipe
from prompts.errors import BadInput
from prompts.names import PRODUCTION, Selector, check_name, parse_selector
from service import datasets
from service.api.documented import also
from service.api.idempotency import IdempotencyKey, once
from service.api.limits import RunLimit
from service.api.prompts import taken_flag
from service.api.threads import in_thread
from service.context import Context
from service.errors import NotFound
from service.gates import GateRequest, RunRequest
from service.identity import Principal
from service.ids import new_id
from service.jobs import Kind, run_id_of
from service.questions import MatrixRequest
from service.ratings import still_waiting
from service.registry import Origin, Push
from service.run_plans import run_id_in
from service.run_rows import public_run
from service.store import routes, runs
from service.tuning.material import FinetuneSpec, fixed_recipe, model_source
from suites.judging import WITHOUT_TUNING, check_alone
from suites.outcomes import STATUSES
from suites.policy import MOST_MINUTES

AUTHOR = {"role": "author"}


class FinetuneRequest(pydantic.BaseModel, frozen=True, extra="forbid"):
    """What `POST /api/finetunes` and `turnout finetune` ask for."""

    suite: str
    prompt: str | None = None
    base: str | None = None
    examples: list[dict[str, Any]] | None = None
    dataset: str | None = None
    recipe: dict[str, Any] = {}
    attempts: int | None = pydantic.Field(None, ge=1, le=5)
    minutes: float | None = pydantic.Field(None, gt=0, le=MOST_MINUTES)
    dry_run: bool = False
    held_out: list[str] = []


@get("/api/suites", opt=AUTHOR)
@in_thread
def list_suites(context: NamedDependency[Context]) -> list[dict[str, Any]]:
    """Every suite version without its cases."""
    return context.registry.suites()


@get("/api/suites/{name:str}", opt=AUTHOR)
@in_thread
def get_suite(
    context: NamedDependency[Context], name: FromPath[str], version: FromQuery[int | None] = None
) -> dict[str, Any]:
    """One suite version with its cases; by default the newest."""
    return context.registry.suite(name if version is None else f"{check_name(name, 'suite')}@{version}")


@put("/api/suites/{name:str}", opt=AUTHOR, response_description="it was there already", responses=also(201, "new"))
@in_thread
def put_suite(
    context: NamedDependency[Context],
    principal: NamedDependency[Principal],
    name: FromPath[str],
    data: JSONBody[dict[str, Any]],
) -> Response[dict[str, Any]]:
    """A new version (201), or the one that has this content already (200). Cases come inline.

    `allow_secrets: true` beside its keys is for what looks like a key and is none.
    """
    origin = Origin(allow_secrets=taken_flag(data, "allow_secrets"))
    written = context.registry.push(Push({}, {name: data}, origin), principal)[0]
    return Response(written, status_code=201 if written["created"] else 200)


@post("/api/runs", opt=AUTHOR, status_code=202)
@in_thread
def start_run(
    context: NamedDependency[Context],
    principal: NamedDependency[Principal],
    data: JSONBody[RunRequest],
    idempotency_key: IdempotencyKey = None,
) -> dict[str, Any]:
    """Queue a run; what can be known to be wrong is refused now."""
    start = starter(context, principal, "run", lambda: context.gates.pinned_run(data))
    answer = once(context, principal, idempotency_key, data.model_dump(), start)
    return {"run_id": run_id_of(answer["job_id"]), **answer}


@get("/api/runs", opt=AUTHOR)
@in_thread
def list_runs(
    context: NamedDependency[Context], suite: FromQuery[str | None] = None, limit: RunLimit = 50
) -> list[dict[str, Any]]:
    """Runs, newest first; `limit` from 1 to 500."""
    with context.database.read() as session:
        return [public_run(record) for record in runs.listing(session, suite, limit)]


@get("/api/runs/{run_id:str}", opt=AUTHOR)
@in_thread
def get_run(context: NamedDependency[Context], run_id: FromPath[str]) -> dict[str, Any]:
    """A run with its figures once it has finished."""
    with context.database.read() as session:
        record = runs.get(session, run_id)
    if record is not None:
        return public_run(record)
    job = context.jobs.making(run_id)
    return {"run_id": run_id, "status": job["status"], "error": job["error"], "job_id": job["job_id"]}


@get("/api/runs/{run_id:str}/cases", opt=AUTHOR)
@in_thread
def get_run_cases(
    context: NamedDependency[Context],
    run_id: FromPath[str],
    status: FromQuery[str | None] = None,
    waiting: FromQuery[bool] = False,
) -> list[dict[str, Any]]:
    """Every case as it was judged, in the order of the suite; with `waiting` the answers that nobody has rated yet, each once.

    `status` takes those of one or more statuses, with commas between them. A run that has not begun has none yet.
    """
    wanted = _statuses(status)
    with context.database.read() as session:
        if runs.get(session, run_id) is not None:
            return list(still_waiting(session, run_id) if waiting else runs.cases(session, run_id, wanted))
    context.jobs.making(run_id)
    return []


def _statuses(text: str | None) -> tuple[str, ...]:
    """Raises BadInput for a status that no case has."""
    given = tuple(text.split(",")) if text else ()
    for one in given:
        if one not in STATUSES:
            raise BadInput(f"status {one[:40]!r}: give {', '.join(STATUSES)}, or several with commas", param="status")
    return given


@post("/api/matrices", opt=AUTHOR, status_code=202)
@in_thread
def start_matrix(
    context: NamedDependency[Context],
    principal: NamedDependency[Principal],
    data: JSONBody[MatrixRequest],
    idempotency_key: IdempotencyKey = None,
) -> dict[str, Any]:
    """Queue a run of each of several variants, whose answers are compared; what can be known to be wrong is refused now."""
    start = starter(context, principal, "matrix", lambda: context.gates.pinned_matrix(data))
    answer = once(context, principal, idempotency_key, data.model_dump(), start)
    return {"run_ids": [run_id_in(answer["job_id"], number) for number in range(len(data.variants))], **answer}


@post("/api/gates", opt={"role": "ci"}, status_code=202)
@in_thread
def start_gate(
    context: NamedDependency[Context],
    principal: NamedDependency[Principal],
    data: JSONBody[GateRequest],
    idempotency_key: IdempotencyKey = None,
) -> dict[str, Any]:
    """Queue a gate; what can be known to be wrong is refused now."""
    start = starter(context, principal, "gate", lambda: context.gates.pinned(data))
    answer = once(context, principal, idempotency_key, data.model_dump(), start)
    return {"gate_id": answer["job_id"], **answer}


@get("/api/gates/{gate_id:str}", opt=AUTHOR)
@in_thread
def get_gate(context: NamedDependency[Context], gate_id: FromPath[str]) -> dict[str, Any]:
    """A gate's verdict once it has one. Raises NotFound, also for a job that is none."""
    try:
        job = context.jobs.show(gate_id)
    except NotFound as error:
        raise NotFound("gate", gate_id) from error
    if job["kind"] != "gate":
        raise NotFound(
            "gate", gate_id, f"that is a job of kind {job['kind']!r}: GET /api/jobs/{job['job_id']} shows it"
        )
    known = {"gate_id": gate_id, "status": job["status"], "error": job["error"]}
    return {**known, **(job["result"] or {"verdict": None})}


@post("/api/finetunes", opt=AUTHOR, status_code=202)
@in_thread
def start_finetune(
    context: NamedDependency[Context],
    principal: NamedDependency[Principal],
    data: JSONBody[FinetuneRequest],
    idempotency_key: IdempotencyKey = None,
) -> dict[str, Any]:
    """Queue a fine-tune of a suite's prompt; what can be known to be wrong is refused now."""
    start = starter(context, principal, "finetune", lambda: plan_finetune(context, data))
    return once(context, principal, idempotency_key, data.model_dump(), start)


@get("/api/evidence/{evidence_id:str}", opt=AUTHOR)
@in_thread
def get_evidence(context: NamedDependency[Context], evidence_id: FromPath[str]) -> dict[str, Any]:
    """The stored record that a verdict or a promotion rests on."""
    with context.database.read() as session:
        record = routes.evidence(session, evidence_id)
    if record is None:
        raise NotFound("evidence", evidence_id)
    return record


def plan_finetune(context: Context, data: FinetuneRequest) -> FinetuneSpec:
    """The job that a request means.

    Raises NotFound, or BadInput where the base cannot be tuned, the recipe (the suite's, too, which may be older than what
    a push refuses) has no such field, or the dataset's digest is ambiguous.
    """
    record = context.registry.suite_head(data.suite)
    suite = context.registry.read_suite(record)
    selector = parse_selector(data.prompt) if data.prompt else Selector(record["prompt"], label=PRODUCTION)
    version = context.registry.version(selector)
    base = data.base or (suite.fallback.base_model if suite.fallback else None) or version.content["model"]
    model_source(context.settings, base)
    check_alone(record["name"], suite, WITHOUT_TUNING)
    make_recipe(parameter_count=1, train_count=1, overrides=fixed_recipe(suite, data.recipe))  # its faults are told now
    return FinetuneSpec(
        suite=record["name"],
        suite_version=record["number"],
        prompt_version=version.number,
        base=base,
        dataset=_dataset(context, data),
        held_out=_held_out(context, data.held_out),
        **data.model_dump(include={"examples", "recipe", "attempts", "minutes", "dry_run"}),
    )


def _held_out(context: Context, given: Sequence[str]) -> dict[str, int]:
    """The version of each of these suites, by name. Raises NotFound."""
    heads = [context.registry.suite_head(text) for text in given]
    return {head["name"]: head["number"] for head in heads}


def _dataset(context: Context, data: FinetuneRequest) -> str | None:
    """The whole digest of the dataset that is meant."""
    if data.dataset is None:
        return None
    if data.examples is not None:
        raise BadInput("give `examples` or a `dataset`, not both", param="dataset")
    with context.database.read() as session:
        return datasets.resolve(session, data.dataset)


def starter(
    context: Context, principal: Principal, kind: Kind, make_spec: Callable[[], pydantic.BaseModel]
) -> Callable[[str | None], dict[str, Any]]:
    """What starts a job; `make_spec` raises what can be known to be wrong. Work that was started is not checked again."""

    def start(work_id: str | None) -> dict[str, Any]:
        spec = make_spec().model_dump(mode="json")
        job_id = f"job_{work_id}" if work_id else new_id("job")
        job = context.jobs.submit(kind, spec, principal, job_id)
        return {"job_id": job["job_id"], "status": job["status"]}

    return start

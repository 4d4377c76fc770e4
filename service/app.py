"""The HTTP application: the one place that wires controllers, the door and what runs beside them."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import structlog
from litestar import Litestar, Request
from litestar.di import Provide
from litestar.exceptions import HTTPException, NotFoundException
from litestar.openapi import OpenAPIConfig
from litestar.openapi.spec import Components, SecurityScheme
from litestar.router import Router
from litestar.types import ASGIApp

from prompts.errors import TurnoutError
from service import snapshot_file
from service.adapters.registry import Adapters
from service.api import (
    adapters,
    admin,
    advice,
    datasets,
    evaluation,
    files,
    fine_tuning,
    health,
    http_errors,
    jobs,
    judging,
    keys,
    models,
    prompts,
    records,
    rendering,
    routes,
)
from service.api.direct import Direct
from service.api.gatekeeper import LOOPBACK_NAMES, Gatekeeper, require_role
from service.api.hot import HOT, WholeDocument
from service.api.strict_json import refuse_ambiguous_json
from service.api.strict_query import refuse_unknown_query
from service.budgets import Budgets
from service.context import Context, build_context
from service.errors import BadSetting, StorageFailed
from service.identity import Principal, ensure_admin_key
from service.ids import ago
from service.opening import prepare
from service.settings import Settings
from service.store import requests

HANDLERS = (
    health.live, health.ready, health.metrics,
    models.list_models, models.get_model, models.delete_model,
    files.create_file, files.list_files, files.get_file, files.get_file_content, files.delete_file,
    fine_tuning.create_tuning, fine_tuning.list_tunings, fine_tuning.get_tuning, fine_tuning.cancel_tuning,
    fine_tuning.pause_tuning, fine_tuning.resume_tuning, fine_tuning.list_tuning_events,
    fine_tuning.list_tuning_checkpoints, fine_tuning.not_here,
    prompts.list_prompts, prompts.push, prompts.get_prompt, prompts.list_versions, prompts.get_version,
    prompts.create_version, prompts.get_diff, prompts.rendered_diff, prompts.get_blame, prompts.get_page,
    prompts.get_label, prompts.move_label, prompts.remove_label, prompts.undo_label, prompts.label_history,
    rendering.get_changes,
    evaluation.list_suites, evaluation.get_suite, evaluation.put_suite, evaluation.start_run, evaluation.list_runs,
    evaluation.get_run, evaluation.get_run_cases, evaluation.start_matrix, evaluation.start_gate, evaluation.get_gate,
    evaluation.start_finetune, evaluation.get_evidence, advice.start_advice, advice.get_advice,
    jobs.list_jobs, jobs.get_job, jobs.job_events, jobs.run_events, jobs.cancel_job, jobs.resume_job,
    judging.start_calibration, judging.list_calibrations,
    datasets.create_dataset, datasets.list_datasets, datasets.get_dataset, datasets.get_dataset_examples,
    datasets.collect_examples, datasets.list_examples, datasets.accept_example, datasets.reject_example,
    routes.get_route, routes.route_history, routes.set_route, routes.promote_route, routes.abort_route,
    routes.undo_route, routes.pause_route, routes.resume_route, routes.start_rollout, routes.get_rollout,
    routes.explain_route, routes.get_shadows,
    keys.new_key, keys.list_keys, keys.set_limits, keys.delete_key, keys.reload,
    admin.get_audit, admin.list_aliases, admin.list_upstreams,
    adapters.list_adapters, adapters.get_adapter, adapters.get_card, adapters.export_adapter, adapters.delete_adapter,
    adapters.prune_adapters,
    records.list_requests, records.list_prompt_requests, records.give_feedback,
)  # fmt: skip
CLEAN_UP_S = 3600.0
DAY_S = 86_400
log = structlog.get_logger()


def build_app(settings: Settings) -> ASGIApp:
    """The whole service behind its door, on one database."""
    check_binding(settings)
    return behind_door(build_context(settings))


def behind_door(context: Context) -> ASGIApp:
    """All routes of `context`, reached by allowed hosts and valid keys alone."""
    return with_door(context, build_litestar(context))


def with_door(context: Context, litestar: Litestar) -> Gatekeeper:
    """The hot routes and those of `litestar`, behind the door."""
    return Gatekeeper(inside(context, litestar), context.settings, context.snapshot)


def inside(context: Context, litestar: Litestar) -> Direct:
    """The same without the door, for whoever knows who asks: `principal` and `headers` are to be in the scope's state."""
    return Direct(litestar, context, HOT)


def check_binding(settings: Settings) -> None:
    """Raise BadSetting where the service would be reachable from elsewhere without saying under which names."""
    if f"[{settings.server.host}]" in LOOPBACK_NAMES or settings.server.host in LOOPBACK_NAMES:
        return
    if not settings.server.allowed_hosts:
        raise BadSetting(
            f"server.host {settings.server.host!r} is not loopback: name the hosts that clients call it by in"
            " server.allowed_hosts (TURNOUT_SERVER_ALLOWED_HOSTS=turnout.example.com)",
            param="server.allowed_hosts",
        )


def build_litestar(context: Context) -> Litestar:
    """The controllers, which hold `context` open from startup to shutdown."""
    return _litestar(_largest_body(context), [lambda _: running(context)])


def controllers(context: Context) -> Litestar:
    """The same for whoever enters `running` themselves: made once a process, since that takes a quarter of a second."""
    return _controllers(_largest_body(context))


@functools.cache
def _controllers(max_body_bytes: int) -> Litestar:
    return _litestar(max_body_bytes, [])


def _largest_body(context: Context) -> int:
    """Bytes of a body as Litestar sees it; the door holds those that are sent unpacked to less."""
    return max(context.settings.server.max_body_bytes, context.settings.server.max_unpacked_bytes)


def _litestar(max_body_bytes: int, lifespan: Sequence[Callable[[Litestar], Any]]) -> Litestar:
    """The controllers of whatever context a request's state names."""
    return Litestar(
        route_handlers=list(HANDLERS),
        guards=[require_role],
        dependencies={"context": Provide(_context_of), "principal": Provide(_principal_of)},
        exception_handlers={
            TurnoutError: http_errors.handle_turnout_error,
            HTTPException: http_errors.handle_http_error,
            Exception: http_errors.handle_bug,
        },
        lifespan=lifespan,
        openapi_config=OpenAPIConfig(
            "Turnout",
            "1",
            components=Components(security_schemes={"key": SecurityScheme(type="http", scheme="bearer")}),
            security=[{"key": []}],
            render_plugins=[WholeDocument(path=["/", "/openapi.json"])],
            openapi_router=Router(
                "/schema", route_handlers=[], opt={"role": "app"}, before_request=refuse_other_schemas
            ),
        ),
        before_request=refuse_ambiguous,
        request_max_body_size=max_body_bytes,
        logging_config=None,
    )


async def _context_of(request: Request[Any, Any, Any]) -> Context:
    context: Context = request.scope["state"]["context"]
    return context


async def _principal_of(request: Request[Any, Any, Any]) -> Principal:
    principal: Principal = request.scope["state"]["principal"]
    return principal


async def refuse_ambiguous(request: Request[Any, Any, Any]) -> None:
    """Before every handler: raise BadInput for a query or a body that may not mean what it seems to."""
    refuse_unknown_query(request)
    await refuse_ambiguous_json(request)


async def refuse_other_schemas(request: Request[Any, Any, Any]) -> None:
    """Below /schema: what is no document is told as everywhere; Litestar has a page of its own for it."""
    await refuse_ambiguous(request)
    if request.path_params:
        raise NotFoundException


@contextlib.asynccontextmanager
async def running(context: Context) -> AsyncIterator[None]:
    """From the first snapshot to the last flushed row."""
    await asyncio.to_thread(_open, context)
    budgets = Budgets(context.database, context.snapshot, context.limiter)
    watching = context.snapshot.watch(lambda: _prepare(context))
    beside = (watching, context.request_log.run(), budgets.run(), context.rollouts.run(), _forget(context))
    tasks = [asyncio.create_task(work) for work in beside]
    try:
        yield
    finally:
        context.snapshot.changes.close()
        await context.completions.aclose()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await context.request_log.aclose()
        await context.aclose()


def _open(context: Context) -> None:
    """The first snapshot: the database's, else the one on disk. Raises StorageFailed where there is neither."""
    try:
        _prepare(context)
        context.snapshot.refresh()
    except StorageFailed as error:
        written_at = context.snapshot.restore()
        if written_at is None:
            raise
        log.warning("the database is away: serving from the snapshot on disk", of=written_at, reason=str(error))


def _prepare(context: Context) -> None:
    prepare(context.database, context.settings)
    ensure_admin_key(context.database, context.settings)


async def _forget(context: Context) -> None:
    """Keep the request log, the recorded bodies and the adapters to their retention."""
    while True:
        for forget in (_forget_old, _prune_adapters, _sweep):
            with contextlib.suppress(TurnoutError, OSError):  # tried again in an hour
                await asyncio.to_thread(forget, context)
        await asyncio.sleep(CLEAN_UP_S)


def _prune_adapters(context: Context) -> None:
    if not context.is_service:  # a command in this process does what it was asked, and no more
        return
    gone = Adapters(context.database, context.settings).prune()
    if gone:
        log.info("adapters that nobody names were deleted by retention", names=[one["name"] for one in gone])


def _sweep(context: Context) -> None:
    if context.is_service:
        snapshot_file.sweep(context.settings.home)


def _forget_old(context: Context) -> None:
    settings = context.settings
    for forget, days in (
        (requests.forget_before, settings.retention.request_days),
        (requests.forget_bodies_before, settings.recording.body_days),
    ):
        at, count = ago(days * DAY_S), 1
        while count:  # a few thousand rows a transaction: nobody who writes waits for all of them
            with context.database.write() as session:
                count = forget(session, at)

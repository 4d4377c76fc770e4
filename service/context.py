"""The service's parts, wired once: what controllers are handed."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from service.assembling import Assembly
from service.calibration import Calibrations
from service.completions import Completions
from service.evaluation import Evaluator
from service.gates import Gates
from service.jobs import Jobs
from service.limits import Limiter
from service.metering import RequestMeter
from service.pool import ModelPool
from service.registry import Registry
from service.replays import Answer, Replays
from service.request_log import RequestLog
from service.response_cache import ResponseCache
from service.reviewing import Reviews
from service.rollouts.keeper import Rollouts
from service.route_book import RouteBook
from service.settings import Settings
from service.snapshot import Snapshot
from service.spool import Spool
from service.store.database import Database
from service.tracing import Tracing, tracing_of


@dataclass(frozen=True)
class Context:
    """One process's parts. Nothing here is global."""

    settings: Settings
    database: Database
    pool: ModelPool
    registry: Registry
    route_book: RouteBook
    jobs: Jobs
    gates: Gates
    calibrations: Calibrations
    reviews: Reviews
    datasets: Assembly
    snapshot: Snapshot
    request_log: RequestLog
    meter: RequestMeter
    tracing: Tracing | None
    completions: Completions
    rollouts: Rollouts
    limiter: Limiter
    replays: Replays[Answer]
    is_service: bool = True

    async def aclose(self) -> None:
        await self.pool.aclose()
        if self.tracing is not None:
            await asyncio.to_thread(self.tracing.close)
        self.database.close()


def build_context(settings: Settings, *, is_service: bool = True, before: Context | None = None) -> Context:
    """Wire everything on the settings' database, which is not touched yet; `is_service` False for a single question.

    What was counted and kept in memory goes on from the context `before`, where one is replaced.
    """
    database = Database(settings.database_url)
    pool = ModelPool(settings, before.pool if before else None)
    registry = Registry(database, settings)
    snapshot = Snapshot(database, is_eager=is_service, home=settings.home if is_service else None)
    request_log = RequestLog(
        database,
        _spool(settings),
        is_durable=settings.recording.durable,
        before=before.request_log if before else None,
    )
    meter = before.meter if before else RequestMeter()
    request_log.watch(meter.add)
    tracing = tracing_of(settings) if is_service else None
    if tracing is not None:
        request_log.watch(tracing.add)
    reviews = Reviews(database)
    limiter = before.limiter if before else Limiter()
    completions = Completions(settings, snapshot, pool, request_log, limiter, ResponseCache())
    return Context(
        settings=settings,
        database=database,
        pool=pool,
        registry=registry,
        route_book=RouteBook(database, settings),
        jobs=Jobs(database),
        gates=Gates(database, registry, Evaluator(database, settings, pool)),
        calibrations=Calibrations(database, settings, pool, registry),
        reviews=reviews,
        datasets=Assembly(database, settings, registry, reviews),
        snapshot=snapshot,
        request_log=request_log,
        meter=meter,
        tracing=tracing,
        completions=completions,
        rollouts=Rollouts(database, snapshot, completions if is_service else None),
        limiter=limiter,
        replays=before.replays if before else Replays(),
        is_service=is_service,
    )


def _spool(settings: Settings) -> Spool | None:
    """Where the request log waits while the database is away; its folder is made when the first row has to go there."""
    most_bytes = settings.recording.spool_mb * 1024 * 1024
    return Spool(settings.home / "spool", most_bytes) if most_bytes else None

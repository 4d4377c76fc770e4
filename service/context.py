"""The service's parts, wired once: what controllers are handed."""

from __future__ import annotations

from dataclasses import dataclass

from service.assembling import Assembly
from service.calibration import Calibrations
from service.completions import Completions
from service.evaluation import Evaluator
from service.gates import Gates
from service.jobs import Jobs
from service.pool import ModelPool
from service.registry import Registry
from service.request_log import RequestLog
from service.reviewing import Reviews
from service.route_book import RouteBook
from service.settings import Settings
from service.snapshot import Snapshot
from service.store.database import Database


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
    completions: Completions

    async def aclose(self) -> None:
        await self.pool.aclose()
        self.database.close()


def build_context(settings: Settings, *, is_service: bool = True) -> Context:
    """Wire everything on the settings' database, which is not touched yet; `is_service` False for a single question."""
    database = Database(settings.database_url)
    pool = ModelPool(settings)
    registry = Registry(database, settings)
    snapshot = Snapshot(database, is_eager=is_service)
    request_log = RequestLog(database)
    reviews = Reviews(database)
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
        completions=Completions(settings, snapshot, pool, request_log),
    )

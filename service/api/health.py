"""Health (open to all, status alone) and metrics."""

from __future__ import annotations

from litestar import Response, get
from litestar.di import NamedDependency
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Gauge, generate_latest

from service.context import Context


@get("/health/live", opt={"role": "open"})
async def live() -> dict[str, str]:
    """The process answers."""
    return {"status": "ok"}


@get("/health/ready", opt={"role": "open"})
async def ready(context: NamedDependency[Context]) -> Response[dict[str, str]]:
    """It can serve: 200 `ok`, or `stale` when it serves from its last snapshot; 503 before it has one."""
    if context.snapshot.view.revision < 0:
        return Response({"status": "starting"}, status_code=503)
    return Response({"status": "stale" if context.snapshot.is_stale else "ok"})


@get("/metrics", opt={"role": "ci"})
async def metrics(context: NamedDependency[Context]) -> Response[bytes]:
    """Prometheus text."""
    registry = CollectorRegistry()
    for name, text, value in (
        (
            "turnout_request_log_waiting",
            "Request log rows that wait for the database",
            context.request_log.waiting,
        ),
        ("turnout_request_log_dropped", "Rows of the request log that were dropped", context.request_log.dropped),
        (
            "turnout_request_bodies_dropped",
            "Bodies of completions that were too long to keep, or too many while the database was away",
            context.request_log.bodies.dropped,
        ),
        ("turnout_snapshot_revision", "Revision of the serving snapshot", context.snapshot.view.revision),
        ("turnout_snapshot_stale", "1 while the database is away", int(context.snapshot.is_stale)),
    ):
        Gauge(name, text, registry=registry).set(value)
    return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

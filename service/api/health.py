"""Health (open to all, status alone) and metrics."""

from __future__ import annotations

from collections.abc import Iterator

from litestar import Response, get
from litestar.di import NamedDependency
from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.core import Metric

from service import engine_gauges, gauges
from service.api.documented import also
from service.api.threads import in_thread
from service.context import Context

OPEN: list[dict[str, list[str]]] = [{}]  # no key, as OpenAPI has it
PLAIN_TEXT = CONTENT_TYPE_PLAIN_0_0_4.partition("; charset")[0]  # to which Litestar adds the charset


@get("/health/live", opt={"role": "open"}, security=OPEN)
async def live() -> dict[str, str]:
    """The process answers."""
    return {"status": "ok"}


@get(
    "/health/ready",
    opt={"role": "open"},
    security=OPEN,
    responses=also(503, "not to be asked now", dict[str, str]),
)
async def ready(context: NamedDependency[Context]) -> Response[dict[str, str]]:
    """It can serve: 200 `ok`; `stale` from its last snapshot, `disk` from the one of an earlier process; 503 before any.

    `log` where neither the database nor the disk takes the request log: rows may be lost; 503 with `recording.durable`, which
    answers nobody then.
    """
    snapshot = context.snapshot
    if snapshot.view.revision < 0:
        return Response({"status": "starting"}, status_code=503)
    if context.request_log.is_stuck:
        return Response({"status": "log"}, status_code=503 if context.settings.recording.durable else 200)
    return Response({"status": "disk" if snapshot.is_from_disk else "stale" if snapshot.is_stale else "ok"})


class _Collector:
    """How the parts of one context stand, for prometheus_client."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def collect(self) -> Iterator[Metric]:
        context = self._context
        yield from gauges.of_log(context.request_log)
        yield from gauges.of_shadows(context.completions.shadows)
        yield from gauges.of_tracing(context.tracing)
        yield from gauges.of_snapshot(context.snapshot)
        yield from gauges.of_upstreams(context.pool.upstreams())
        yield from gauges.of_rollouts(context.rollouts.looks())
        yield from engine_gauges.of_engines(context.settings.run_dir)


@get("/metrics", opt={"role": "ci"}, media_type=PLAIN_TEXT)
@in_thread
def metrics(context: NamedDependency[Context]) -> Response[bytes]:
    """Prometheus text."""
    text = context.meter.text().encode() + generate_latest(_Collector(context))
    return Response(text, media_type=PLAIN_TEXT)

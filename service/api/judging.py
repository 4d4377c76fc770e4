"""Judges over HTTP: how far they agree with people."""

from __future__ import annotations

from typing import Any

from litestar import get, post
from litestar.di import NamedDependency
from litestar.params import FromQuery, JSONBody

from service.api.evaluation import AUTHOR, starter
from service.api.idempotency import IdempotencyKey, once
from service.api.limits import RunLimit
from service.api.threads import in_thread
from service.calibration import CalibrationRequest
from service.context import Context
from service.identity import Principal
from service.jobs import calibration_id_of
from service.store import calibrations


@post("/api/calibrations", opt=AUTHOR, status_code=202)
@in_thread
def start_calibration(
    context: NamedDependency[Context],
    principal: NamedDependency[Principal],
    data: JSONBody[CalibrationRequest],
    idempotency_key: IdempotencyKey = None,
) -> dict[str, Any]:
    """Queue a calibration of a suite's judges; what can be known to be wrong is refused now."""
    start = starter(context, principal, "calibration", lambda: context.calibrations.pinned(data))
    answer = once(context, principal, idempotency_key, data.model_dump(mode="json"), start)
    return {"calibration_id": calibration_id_of(answer["job_id"]), **answer}


@get("/api/calibrations", opt=AUTHOR)
@in_thread
def list_calibrations(
    context: NamedDependency[Context], suite: FromQuery[str], limit: RunLimit = 50
) -> list[dict[str, Any]]:
    """What was measured of a suite's judges, newest first; `limit` from 1 to 500."""
    with context.database.read() as session:
        return calibrations.listing(session, suite, limit)

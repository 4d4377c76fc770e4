"""Jobs and their events over HTTP; a fine-tuning job is also found by its `ftjob-` id."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from typing import Any

from litestar import Request, Response, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery
from litestar.response import Stream

from service.api.limits import AfterNumber, RunLimit
from service.api.threads import in_thread
from service.context import Context
from service.identity import Principal
from service.jobs import ENDED, Kind

AUTHOR = {"role": "author"}
POLL_S = 0.25
KEEP_ALIVE_S = 15.0
_UNBUFFERED = {"cache-control": "no-cache", "x-accel-buffering": "no"}


@get("/api/jobs", opt=AUTHOR)
@in_thread
def list_jobs(
    context: NamedDependency[Context], limit: RunLimit = 50, kind: FromQuery[Kind | None] = None
) -> list[dict[str, Any]]:
    """Jobs, newest first; `limit` from 1 to 500."""
    return context.jobs.listing(limit, kind)


@get("/api/jobs/{job_id:str}", opt=AUTHOR)
@in_thread
def get_job(context: NamedDependency[Context], job_id: FromPath[str]) -> dict[str, Any]:
    """One job, with its result once it has one."""
    return context.jobs.show(job_id)


@get("/api/jobs/{job_id:str}/events", opt=AUTHOR)
async def job_events(
    request: Request[Any, Any, Any], context: NamedDependency[Context], job_id: FromPath[str], after: AfterNumber = 0
) -> Response[Any]:
    """Events numbered above `after`; as server-sent events until the job has ended where the client accepts them.

    A stream that was broken off goes on behind its `Last-Event-ID`, on any replica.
    """
    return await _events(request, context, job_id, after)


async def _events(request: Request[Any, Any, Any], context: Context, job_id: str, after: int) -> Response[Any]:
    await asyncio.to_thread(context.jobs.show, job_id)
    if "text/event-stream" in request.headers.get("accept", ""):
        last = request.headers.get("last-event-id", "")
        behind = max(after, int(last)) if last.isascii() and last.isdigit() and len(last) < 10 else after
        return Stream(_follow(context, job_id, behind), media_type="text/event-stream", headers=_UNBUFFERED)
    return Response(await asyncio.to_thread(context.jobs.events, job_id, after))


@get("/api/runs/{run_id:str}/events", opt=AUTHOR)
async def run_events(
    request: Request[Any, Any, Any], context: NamedDependency[Context], run_id: FromPath[str], after: AfterNumber = 0
) -> Response[Any]:
    """The events of the job that makes a run."""
    job = await asyncio.to_thread(context.jobs.making, run_id)
    return await _events(request, context, job["job_id"], after)


@post("/api/jobs/{job_id:str}/cancel", opt=AUTHOR, status_code=200)
@in_thread
def cancel_job(
    context: NamedDependency[Context], principal: NamedDependency[Principal], job_id: FromPath[str]
) -> dict[str, Any]:
    """Ask for a job's end; an admin may do so for another's."""
    return context.jobs.cancel(job_id, principal)


@post("/api/jobs/{job_id:str}/resume", opt=AUTHOR, status_code=200)
@in_thread
def resume_job(
    context: NamedDependency[Context], principal: NamedDependency[Principal], job_id: FromPath[str]
) -> dict[str, Any]:
    """Queue a failed or cancelled job again; what it has done is not done twice."""
    return context.jobs.resume(job_id, principal)


async def _follow(context: Context, job_id: str, after: int) -> AsyncIterator[bytes]:
    quiet_since = time.monotonic()
    while True:
        status = (await asyncio.to_thread(context.jobs.show, job_id))["status"]
        batch = await asyncio.to_thread(context.jobs.events, job_id, after)
        for event in batch:
            after = event["number"]
            yield f"id: {after}\nevent: {event['type']}\ndata: {json.dumps(event)}\n\n".encode()
        if batch:
            quiet_since = time.monotonic()
        elif time.monotonic() - quiet_since > KEEP_ALIVE_S:
            quiet_since = time.monotonic()
            yield b": still here\n\n"  # else a proxy takes a quiet stream for a dead one
        if status in ENDED and not batch:
            return
        await asyncio.sleep(POLL_S)

"""Runs and gates for the command line: asked of a service, or done in this process on TURNOUT_HOME (`--local`)."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable
from typing import Any, Protocol

from prompts.errors import TurnoutError
from prompts.names import parse_selector
from service.cli.client import Remote, follow
from service.cli.output import Advance
from service.errors import CannotRun, NotFound
from service.evaluation import Evaluator
from service.gates import GateRequest, Gates, RunRequest
from service.identity import LOCAL_ADMIN
from service.ids import new_id
from service.pool import ModelPool
from service.registry import Origin, Push, Registry
from service.settings import Settings
from service.store import routes, runs
from service.store.database import Database
from suites.results import CaseResult


class Work(Protocol):
    """What `run`, `gate` and `push` need of a service."""

    def push(self, prompts: dict[str, Any], suites: dict[str, Any], origin: dict[str, Any]) -> list[dict[str, Any]]: ...

    def run(self, request: RunRequest, advance: Advance) -> dict[str, Any]: ...

    def gate(self, request: GateRequest, advance: Advance) -> dict[str, Any]: ...

    def suite(self, text: str) -> dict[str, Any]: ...

    def evidence(self, evidence_id: str) -> dict[str, Any]: ...

    def cases(self, run_id: str) -> Iterable[dict[str, Any]]: ...


class RemoteWork:
    """Asked of a running service."""

    def __init__(self, remote: Remote) -> None:
        self._remote = remote

    def push(self, prompts: dict[str, Any], suites: dict[str, Any], origin: dict[str, Any]) -> list[dict[str, Any]]:
        body = {"prompts": prompts, "suites": suites, "allow_secrets": True, **origin}  # `check` has seen the files
        answer: list[dict[str, Any]] = self._remote.call("POST", "/api/push", body=body)
        return answer

    def run(self, request: RunRequest, advance: Advance) -> dict[str, Any]:
        started = self._remote.call("POST", "/api/runs", body=request.model_dump(exclude_none=True))
        return self._result(started["job_id"], advance)

    def gate(self, request: GateRequest, advance: Advance) -> dict[str, Any]:
        started = self._remote.call("POST", "/api/gates", body=request.model_dump(exclude_none=True))
        return self._result(started["job_id"], advance)

    def _result(self, job_id: str, advance: Advance) -> dict[str, Any]:
        def on_event(event: dict[str, Any]) -> None:
            if event["type"] == "cases":
                advance(event["data"]["done"], event["data"]["total"])

        try:
            job = follow(self._remote, job_id, on_event)
        except KeyboardInterrupt:
            with contextlib.suppress(TurnoutError):  # interrupted is what happened, whether or not anybody heard
                self._remote.call("POST", f"/api/jobs/{job_id}/cancel")
            raise
        if job["status"] != "succeeded":
            raise CannotRun(job["error"] or f"job {job_id} was {job['status']}")
        result: dict[str, Any] = job["result"]
        return result

    def suite(self, text: str) -> dict[str, Any]:
        selector = parse_selector(text)
        params = {"version": selector.version} if selector.version is not None else {}
        record: dict[str, Any] = self._remote.call("GET", f"/api/suites/{selector.name}", params=params)
        return record

    def evidence(self, evidence_id: str) -> dict[str, Any]:
        record: dict[str, Any] = self._remote.call("GET", f"/api/evidence/{evidence_id}")
        return record

    def cases(self, run_id: str) -> Iterable[dict[str, Any]]:
        found: list[dict[str, Any]] = self._remote.call("GET", f"/api/runs/{run_id}/cases")
        return found


class LocalWork:
    """Done here, with no server: neither Litestar nor DBOS is imported."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._database = Database(settings.database_url)
        self._database.migrate()
        self._registry = Registry(self._database, settings)

    def push(self, prompts: dict[str, Any], suites: dict[str, Any], origin: dict[str, Any]) -> list[dict[str, Any]]:
        return self._registry.push(Push(prompts, suites, Origin(allow_secrets=True, **origin)), LOCAL_ADMIN)

    def run(self, request: RunRequest, advance: Advance) -> dict[str, Any]:
        async def work(gates: Gates, evaluator: Evaluator) -> dict[str, Any]:
            plan = gates.plan_run(request, new_id("run"))
            count = _Count(advance, len(plan.suite.tests) * plan.suite.repeat)
            return (await evaluator.run(plan.spec, plan.suite, count)).data

        return asyncio.run(self._with_models(work))

    def gate(self, request: GateRequest, advance: Advance) -> dict[str, Any]:
        async def work(gates: Gates, _: Evaluator) -> dict[str, Any]:
            gate_id = new_id("gate")
            items = gates.plan(request, gate_id)
            plans = [run for item in items for run in item.runs]
            count = _Count(advance, sum(len(run.suite.tests) * run.suite.repeat for run in plans))
            return await gates.decide(gate_id, items, LOCAL_ADMIN, count)

        return asyncio.run(self._with_models(work))

    async def _with_models(self, work: Any) -> dict[str, Any]:
        pool = ModelPool(self._settings)
        evaluator = Evaluator(self._database, self._settings, pool)
        try:
            result: dict[str, Any] = await work(Gates(self._database, self._registry, evaluator), evaluator)
            return result
        finally:
            await pool.aclose()

    def suite(self, text: str) -> dict[str, Any]:
        return self._registry.suite(text)

    def evidence(self, evidence_id: str) -> dict[str, Any]:
        with self._database.read() as session:
            record = routes.evidence(session, evidence_id)
        if record is None:
            raise NotFound("evidence", evidence_id)
        return record

    def cases(self, run_id: str) -> Iterable[dict[str, Any]]:
        with self._database.read() as session:
            return list(runs.cases(session, run_id))


class _Count:
    """Finished cases as progress."""

    def __init__(self, advance: Advance, total: int) -> None:
        self._advance = advance
        self._total = total
        self._done = 0

    def __call__(self, _: CaseResult) -> None:
        self._done += 1
        self._advance(self._done, self._total)


def connect_work(settings: Settings, *, local: bool) -> Work:
    """The service at TURNOUT_URL, or this process."""
    return LocalWork(settings) if local else RemoteWork(Remote(settings))

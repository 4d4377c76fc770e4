"""Runs and gates for the command line: asked of a service, or done in this process on TURNOUT_HOME (`--local`)."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NoReturn, Protocol, TypeVar

from prompts.errors import BadInput, TurnoutError
from prompts.names import parse_selector
from prompts.wording import many
from service import arenas
from service.cli.interrupts import run_to_end, tell_how_to_go_on
from service.cli.output import Advance, err
from service.cli.sending import go_on, largest, sent_suite, suites_of
from service.errors import CannotRun, NotFound
from service.evaluation import Evaluator, RunSpec
from service.gates import GateRequest, Gates, RunRequest
from service.identity import LOCAL_ADMIN
from service.ids import new_id, now
from service.opening import prepare
from service.pool import ModelPool
from service.questions import MatrixRequest
from service.registry import Origin, Push, Registry
from service.run_plans import matrix_id_of
from service.run_rows import case_statuses, public_run
from service.settings import Settings
from service.store import routes, runs
from service.store.database import Database
from service.store.sqlite import SMALL_CACHE_KB
from suites.case import Case, Suite
from suites.results import CaseResult

if TYPE_CHECKING:
    from service.calibration import CalibrationRequest
    from service.cli.client import Remote


T = TypeVar("T")
MOST_JOBS = 500  # that are looked through, newest first


class Work(Protocol):
    """What `run`, `gate` and `push` need of a service."""

    def push(self, prompts: dict[str, Any], suites: dict[str, Any], origin: dict[str, Any]) -> list[dict[str, Any]]: ...

    def run(self, request: RunRequest, advance: Advance, *, resume: bool = False) -> dict[str, Any]: ...

    def matrix(self, request: MatrixRequest, advance: Advance, *, resume: bool = False) -> list[dict[str, Any]]: ...

    def gate(self, request: GateRequest, advance: Advance, *, resume: bool = False) -> dict[str, Any]: ...

    def calibrate(self, request: CalibrationRequest, advance: Advance) -> dict[str, Any]: ...

    def suite(self, text: str) -> dict[str, Any]: ...

    def cases_of(self, suite: str) -> Sequence[Case]: ...

    def evidence(self, evidence_id: str) -> dict[str, Any]: ...

    def cases(self, run_id: str, statuses: tuple[str, ...] = ()) -> Iterable[dict[str, Any]]: ...

    def run_of(self, run_id: str) -> dict[str, Any]: ...


class RemoteWork:
    """Asked of a running service."""

    def __init__(self, remote: Remote) -> None:
        self._remote = remote

    def push(self, prompts: dict[str, Any], suites: dict[str, Any], origin: dict[str, Any]) -> list[dict[str, Any]]:
        sent = {name: sent_suite(suite) if isinstance(suite, Suite) else suite for name, suite in suites.items()}
        body = {"prompts": prompts, "suites": sent, "allow_secrets": True, **origin}  # `check` has seen the files
        try:
            answer: list[dict[str, Any]] = self._remote.call("POST", "/api/push", body=body)
        except BadInput as error:
            if "server.max_" not in str(error):
                raise
            raise BadInput(f"{largest(suites, sent)}: {error}; or add --local", param="suite") from error
        return answer

    def run(self, request: RunRequest, advance: Advance, *, resume: bool = False) -> dict[str, Any]:
        if resume:
            self._refuse_resume("run", request.suite)
        started = self._remote.call("POST", "/api/runs", body=request.model_dump(mode="json", exclude_none=True))
        return self._result(started["job_id"], advance)

    def matrix(self, request: MatrixRequest, advance: Advance, *, resume: bool = False) -> list[dict[str, Any]]:
        if resume:
            self._refuse_resume("matrix", request.suite)
        started = self._remote.call("POST", "/api/matrices", body=request.model_dump(mode="json", exclude_none=True))
        found: list[dict[str, Any]] = self._result(started["job_id"], advance)["runs"]
        return found

    def gate(self, request: GateRequest, advance: Advance, *, resume: bool = False) -> dict[str, Any]:
        if resume:
            self._refuse_resume("gate", *request.suites)
        started = self._remote.call("POST", "/api/gates", body=request.model_dump(exclude_none=True))
        return self._result(started["job_id"], advance)

    def calibrate(self, request: CalibrationRequest, advance: Advance) -> dict[str, Any]:
        started = self._remote.call(
            "POST", "/api/calibrations", body=request.model_dump(mode="json", exclude_none=True)
        )
        return self._result(started["job_id"], advance)

    def _refuse_resume(self, kind: str, *suites: str) -> NoReturn:
        """Raise BadInput, which says the one command that goes on with the newest job of this kind on these suites."""
        wanted = {parse_selector(suite).name for suite in suites}
        jobs = self._remote.call("GET", "/api/jobs", params={"limit": MOST_JOBS})
        found = next((job for job in jobs if job["kind"] == kind and suites_of(job["spec"]) == wanted), None)
        raise BadInput(f"--resume goes with --local: a service keeps its work as jobs; {go_on(found)}", param="resume")

    def _result(self, job_id: str, advance: Advance) -> dict[str, Any]:
        from service.cli.client import follow

        seen: dict[str, Any] = {"done": 0}

        def on_event(event: dict[str, Any]) -> None:
            if event["type"] == "cases":
                seen.update(event["data"])
                advance(event["data"]["done"], event["data"]["total"])
            elif event["type"] == "waits":
                err().print(event["data"]["reason"], markup=False)

        try:
            job = follow(self._remote, job_id, on_event)
        except CannotRun as error:  # the service may be back soon, and its worker goes on
            kept = f"job {job_id} is kept: once the service answers, `turnout job {job_id} --watch` goes on with it"
            raise CannotRun(f"{error}; {kept}") from error
        except KeyboardInterrupt:
            with contextlib.suppress(TurnoutError):  # interrupted is what happened, whether or not anybody heard
                self._remote.call("POST", f"/api/jobs/{job_id}/cancel")
            kept = f"some {seen['done']} results are kept by the service"
            err().print(f"{kept}; go on with: turnout job {job_id} --resume --watch", markup=False)
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

    def cases_of(self, suite: str) -> Sequence[Case]:
        from suites.files import suite_of_data

        record = self.suite(suite)
        return suite_of_data(record["content"], f"suite {record['name']}").tests

    def evidence(self, evidence_id: str) -> dict[str, Any]:
        record: dict[str, Any] = self._remote.call("GET", f"/api/evidence/{evidence_id}")
        return record

    def cases(self, run_id: str, statuses: tuple[str, ...] = ()) -> Iterable[dict[str, Any]]:
        params = {"status": ",".join(statuses)} if statuses else {}
        found: list[dict[str, Any]] = self._remote.call("GET", f"/api/runs/{run_id}/cases", params=params)
        return found

    def run_of(self, run_id: str) -> dict[str, Any]:
        found: dict[str, Any] = self._remote.call("GET", f"/api/runs/{run_id}")
        return found


class LocalWork:
    """Done here, with no server: neither Litestar nor DBOS is imported."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._database = Database(settings.database_url, SMALL_CACHE_KB)
        prepare(self._database, settings)
        self._registry = Registry(self._database, settings)

    def push(self, prompts: dict[str, Any], suites: dict[str, Any], origin: dict[str, Any]) -> list[dict[str, Any]]:
        return self._registry.push(Push(prompts, suites, Origin(allow_secrets=True, **origin)), LOCAL_ADMIN)

    def run(self, request: RunRequest, advance: Advance, *, resume: bool = False) -> dict[str, Any]:
        run_id = new_id("run")

        async def work(gates: Gates, evaluator: Evaluator) -> dict[str, Any]:
            nonlocal run_id
            plan = gates.plan_run(request, run_id)
            if resume:
                run_id = _told_whence(self._cut_short(plan.spec), run_id)
            count = _Count(advance, len(plan.spec.chosen(plan.suite)) * plan.suite.repeat)
            return (await evaluator.run(replace(plan.spec, run_id=run_id), plan.suite, count)).data

        try:
            return run_to_end(self._with_models(work))
        except KeyboardInterrupt:
            self._tell_interrupted((run_id,), run_id)
            raise

    def matrix(self, request: MatrixRequest, advance: Advance, *, resume: bool = False) -> list[dict[str, Any]]:
        matrix_id = new_id("matrix")
        run_ids: list[str] = []

        async def work(gates: Gates, _: Evaluator) -> list[dict[str, Any]]:
            nonlocal matrix_id
            plans = gates.plan_matrix(request, matrix_id)
            if resume:
                variants = [str(plan.spec.variant) for plan in plans]
                first = self._cut_short(plans[0].spec, variants)
                matrix_id = _told_whence(first and matrix_id_of(first), matrix_id)
                plans = gates.plan_matrix(request, matrix_id)
            run_ids.extend(plan.spec.run_id for plan in plans)
            cases = len(plans[0].spec.chosen(plans[0].suite)) * plans[0].suite.repeat
            return await gates.run_matrix(plans, _Count(advance, cases * len(plans)))

        try:
            return run_to_end(self._with_models(work))
        except KeyboardInterrupt:
            self._tell_interrupted(run_ids, matrix_id)
            raise

    def _cut_short(self, spec: RunSpec, compared: Sequence[str] = ()) -> str | None:
        """The newest run of the same cases and variant, compared with the same variants, that did not end, if any."""
        with self._database.read() as session:
            found = runs.unfinished(session, spec.suite, spec.suite_version, str(spec.variant))
        wanted = (spec.filter.as_data(), spec.asks if spec.rerun_of else None, tuple(compared))
        return next((run["id"] for run in found if _kind_of(run["summary"] or {}) == wanted), None)

    def _tell_interrupted(self, run_ids: Iterable[str], name: str) -> None:
        with self._database.write() as session:
            kept = [runs.interrupt(session, run_id, now()) for run_id in run_ids]
        answers, errors = sum(answers for answers, _ in kept), sum(errors for _, errors in kept)
        told = f"{many(answers, 'answer')} and {many(errors, 'error')}" if errors else many(answers, "result")
        verb = "is" if answers == 1 and not errors else "are"
        tell_how_to_go_on(f"{told} {verb} kept as {name}")

    def gate(self, request: GateRequest, advance: Advance, *, resume: bool = False) -> dict[str, Any]:
        gate_id = new_id("gate")
        run_ids: list[str] = []

        async def work(gates: Gates, _: Evaluator) -> dict[str, Any]:
            nonlocal gate_id
            items = gates.plan(request, gate_id)
            if resume:
                gate_id = _told_whence(gates.cut_short(items), gate_id)
                items = gates.plan(request, gate_id)
            run_ids.extend(run.spec.run_id for item in items for run in item.runs)
            plans = [run for item in items for run in item.runs]
            count = _Count(advance, sum(len(run.suite.tests) * run.suite.repeat for run in plans))
            return await gates.decide(gate_id, items, LOCAL_ADMIN, count)

        try:
            return run_to_end(self._with_models(work))
        except KeyboardInterrupt:
            self._tell_interrupted(run_ids, gate_id)
            raise

    def calibrate(self, request: CalibrationRequest, advance: Advance) -> dict[str, Any]:
        from service.calibration import Calibrations

        async def work() -> dict[str, Any]:
            pool = ModelPool(self._settings)
            judges = Calibrations(self._database, self._settings, pool, self._registry)
            try:
                return await judges.run(request, new_id("cal"), LOCAL_ADMIN, advance)
            finally:
                await pool.aclose()

        return run_to_end(work())

    async def _with_models(self, work: Callable[[Gates, Evaluator], Awaitable[T]]) -> T:
        arenas.use_one()
        gc.freeze()  # what start-up made lives as long as this process: garbage of the run is found sooner and cheaper
        pool = ModelPool(self._settings)
        evaluator = Evaluator(self._database, self._settings, pool)
        try:
            return await work(Gates(self._database, self._registry, evaluator), evaluator)
        finally:
            await pool.aclose()

    def suite(self, text: str) -> dict[str, Any]:
        return self._registry.suite_head(text)

    def cases_of(self, suite: str) -> Sequence[Case]:
        return self._registry.read_suite(self._registry.suite_head(suite)).tests

    def evidence(self, evidence_id: str) -> dict[str, Any]:
        with self._database.read() as session:
            record = routes.evidence(session, evidence_id)
        if record is None:
            raise NotFound("evidence", evidence_id)
        return record

    def cases(self, run_id: str, statuses: tuple[str, ...] = ()) -> Iterable[dict[str, Any]]:
        with self._database.read() as session:
            yield from runs.cases(session, run_id, statuses)

    def run_of(self, run_id: str) -> dict[str, Any]:
        with self._database.read() as session:
            record = runs.get(session, run_id)
        if record is None:
            raise NotFound("run", run_id)
        if not record["summary"]:
            return public_run(record)
        try:
            return {**public_run(record), "case_status": case_statuses(record, self._registry)}
        except NotFound:  # somebody changed its row: told as it stands, which is a difference
            return {**public_run(record), "case_status": record["summary"]["case_status"]}


def _kind_of(summary: Mapping[str, Any]) -> tuple[dict[str, Any], str | None, tuple[str, ...]]:
    """Which cases a run asks, which it asks again of another, and the variants whose answers are compared."""
    compared = tuple(each["variant"] for each in summary.get("compared", ()))
    return summary.get("filter", {}), summary.get("rerun", {}).get("asks"), compared


def _told_whence(found: str | None, new: str) -> str:
    """The id of what goes on, said; that of what starts anew where nothing was cut short, which is said, too."""
    told = f"goes on with {found}" if found else f"nothing like this was cut short: {new} starts anew"
    err().print(told, markup=False)
    return found or new


class _Count:
    """Finished cases as progress."""

    def __init__(self, advance: Advance, total: int) -> None:
        self._advance = advance
        self._total = total
        self._done = 0

    def __call__(self, _: CaseResult) -> None:
        self._done += 1
        self._advance(self._done, self._total)

    def waits(self, reason: str) -> None:
        err().print(reason, markup=False)


def connect_work(settings: Settings, *, local: bool) -> Work:
    """The service at TURNOUT_URL, or this process."""
    if local:
        return LocalWork(settings)
    from service.cli.client import Remote  # httpx: a tenth of a second that --local does not need

    return RemoteWork(Remote(settings))

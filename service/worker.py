"""The worker: takes jobs from the queue and does them. `turnout serve` starts and restarts one; more may run anywhere.

It is built to be killed: whatever it was doing is found again by the next worker that claims the job. So it has one
way to stop, at once, whether it was asked to, lost its claim, or lost its parent.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import secrets
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import structlog

from prompts.errors import TurnoutError
from prompts.prompt import digest_of
from service.adapters.registry import remove_copies
from service.calibration import CalibrationRequest, Calibrations
from service.errors import CannotRun, Conflict, StorageFailed
from service.evaluation import Evaluator
from service.fine_tuning.request import FineTuneSpec
from service.fine_tuning.running import run as fine_tune
from service.gates import GateJob, Gates, RunJob, RunPlan
from service.identity import Principal
from service.ids import ago, now
from service.jobs import CANCELLED, Jobs, calibration_id_of, run_id_of
from service.logs import configure_log
from service.opening import prepare
from service.pool import ModelPool
from service.questions import MatrixJob
from service.registry import Registry
from service.scheduling import Schedule
from service.settings import Settings, from_line, load_settings
from service.store import jobs, runs
from service.store.database import Database
from service.tuning.claim import Cancelled, Claim
from service.tuning.material import FinetuneSpec, model_source
from suites.judging import WITHOUT_TUNING, check_alone
from suites.results import CaseResult
from suites.verdicts import worst

IDLE_S = 0.2
HEARTBEAT_S = 1.0
STALE_S = 30.0
SWEEP_AFTER_S = 86_400.0  # a lock younger than that may be one that is about to be held
SCHEDULE_S = 10.0
JOBS_AT_ONCE = 2
INTERRUPTED = 130
ENDS_ITSELF = ("finetune", "fine_tuning", "advice")  # when it is cancelled: its training process first
log = structlog.get_logger()


@dataclass
class Worker:
    """One process's share of the queue. `only` limits it to one job, after which it ends."""

    settings: Settings
    only: str | None = None
    worker_id: str = field(default_factory=lambda: secrets.token_hex(6))

    def __post_init__(self) -> None:
        self.database = Database(self.settings.database_url)
        self.pool = ModelPool(self.settings)
        self.registry = Registry(self.database, self.settings)
        self.evaluator = Evaluator(self.database, self.settings, self.pool)
        self.gates = Gates(self.database, self.registry, self.evaluator)
        self.jobs = Jobs(self.database)
        self._durable: Any = None
        self._lock = _hold_lock(self.settings.run_dir, self.worker_id)
        _sweep_locks(self.settings.run_dir)

    async def work(self, when_up: Callable[[str], None] | None = None) -> None:
        """Claim and do jobs until the process is stopped, or until the only one is done.

        `when_up` is told this worker's id once it takes jobs.
        """
        await asyncio.to_thread(prepare, self.database, self.settings)
        if when_up is not None:
            when_up(self.worker_id)
        tasks: set[asyncio.Task[None]] = set()
        schedule = asyncio.create_task(self._keep_schedule())
        while True:
            job = await self._claim() if len(tasks) < JOBS_AT_ONCE else None
            if job is not None:
                tasks.add(asyncio.create_task(self._do(job)))
            elif self.only and not tasks and not await asyncio.to_thread(self._is_under_way, self.only):
                schedule.cancel()
                return
            else:
                await asyncio.sleep(IDLE_S)
            tasks = {task for task in tasks if not task.done() or task.result()}

    def _is_under_way(self, job_id: str) -> bool:
        """Whether another worker does the one job: this one waits, to go on with it should the other end."""
        with self.database.read() as session:
            job = jobs.get(session, job_id)
        return job is not None and job["status"] in jobs.LIVE

    async def _keep_schedule(self) -> None:
        """Queue what is due by the suites' schedules, again and again; not where this process is for one job alone."""
        schedule = Schedule(self.database, self.gates)
        while self.only is None:
            try:
                await asyncio.to_thread(schedule.submit_due, datetime.now(UTC))
            except TurnoutError as error:
                log.warning("schedules cannot be read; trying again", reason=str(error))
            await asyncio.sleep(SCHEDULE_S)

    async def _claim(self) -> dict[str, Any] | None:
        try:
            return await asyncio.to_thread(self._claim_now)
        except TurnoutError as error:
            log.warning("the queue cannot be read; trying again", reason=str(error))
            await asyncio.sleep(1.0)
            return None

    def _claim_now(self) -> dict[str, Any] | None:
        with self.database.read() as session:
            running = {job["worker"] for job in jobs.running(session) if job["worker"]}
            dead = tuple(worker for worker in running if is_dead(self.settings.run_dir, worker))
            free = jobs.Free(dead, ago(STALE_S), self.only, self.worker_id)
            if not jobs.has_free(session, free):
                return None
        with self.database.write() as session:
            return jobs.claim(session, self.worker_id, now(), free)

    async def _do(self, job: dict[str, Any]) -> None:
        principal = Principal(job["created_by"], "admin")
        claim = Claim(job["id"], job["token"], principal, self.database, self.settings, threading.Event())
        heart = asyncio.create_task(self._keep(claim))
        try:
            outcome = await self._outcome(job, claim)
        finally:
            heart.cancel()
        try:
            await asyncio.to_thread(self._finish, claim, outcome)
        except Conflict:
            _stop("another worker took over a job of this one")
        if (job["kind"], outcome["status"]) == ("advice", "succeeded"):  # its adapters were timed, and serve nobody
            await asyncio.to_thread(remove_copies, self.settings, claim.job_id)

    async def _outcome(self, job: dict[str, Any], claim: Claim) -> dict[str, Any]:
        work = asyncio.create_task(self._result(job, claim))
        watch = asyncio.create_task(_wait_for(claim.cancelled))
        try:
            await asyncio.wait({work, watch}, return_when=asyncio.FIRST_COMPLETED)
            if not work.done() and job["kind"] not in ENDS_ITSELF:
                work.cancel()
            return {"status": "succeeded", "result": await work}
        except (Cancelled, asyncio.CancelledError):
            return {"status": "cancelled", "error": CANCELLED}
        except TurnoutError as error:
            return {"status": "failed", "error": str(error)}
        except Exception as error:
            if claim.cancelled.is_set():
                return {"status": "cancelled", "error": CANCELLED}
            log.exception("job failed", job=claim.job_id)
            return {"status": "failed", "error": f"{type(error).__name__}: {error}"}
        finally:
            watch.cancel()

    async def _result(self, job: dict[str, Any], claim: Claim) -> dict[str, Any]:
        if job["kind"] == "run":
            return await self._run(job, claim)
        if job["kind"] == "matrix":
            return await self._matrix(job, claim)
        if job["kind"] == "gate":
            return await self._gate(job, claim)
        if job["kind"] == "calibration":
            return await self._calibrate(job, claim)
        if job["kind"] == "fine_tuning":
            return await asyncio.to_thread(fine_tune, claim, FineTuneSpec.model_validate(job["spec"]))
        if job["kind"] == "advice":
            from service.advising.loop import advise  # for advice alone

            return await asyncio.to_thread(advise, claim)
        return await asyncio.to_thread(self._finetune, job, claim)

    async def _run(self, job: dict[str, Any], claim: Claim) -> dict[str, Any]:
        plan = await asyncio.to_thread(self.gates.load_run, RunJob.model_validate(job["spec"]), run_id_of(job["id"]))
        chosen = await asyncio.to_thread(plan.spec.chosen, plan.suite)
        progress = _Progress(claim, len(chosen) * plan.suite.repeat)
        return (await self.evaluator.run(plan.spec, plan.suite, progress)).data

    async def _matrix(self, job: dict[str, Any], claim: Claim) -> dict[str, Any]:
        plans = await asyncio.to_thread(self.gates.load_matrix, MatrixJob.model_validate(job["spec"]), job["id"])
        chosen = await asyncio.to_thread(plans[0].spec.chosen, plans[0].suite)
        progress = _Progress(claim, len(chosen) * plans[0].suite.repeat * len(plans))
        found = await self.gates.run_matrix(plans, progress)
        return {"verdict": worst(data["verdict"] for data in found), "runs": found}

    async def _calibrate(self, job: dict[str, Any], claim: Claim) -> dict[str, Any]:
        request = CalibrationRequest.model_validate(job["spec"])
        work = Calibrations(self.database, self.settings, self.pool, self.registry)

        def told(done: int, total: int) -> None:
            if done % max(1, total // 20) == 0 or done == total:
                claim.tell("cases", done=done, total=total)

        return await work.run(request, calibration_id_of(job["id"]), claim.actor, told)

    async def _gate(self, job: dict[str, Any], claim: Claim) -> dict[str, Any]:
        kept = GateJob.model_validate(job["spec"])
        items = await asyncio.to_thread(self.gates.load, kept, job["id"])
        plans = [
            p for item in items for p in {id(item.candidate): item.candidate, id(item.baseline): item.baseline}.values()
        ]
        total = sum(len(p.suite.tests) * p.suite.repeat for p in plans if p is not None and not isinstance(p, str))
        answer = await self.gates.decide(job["id"], items, claim.actor, _Progress(claim, total))
        if kept.fallback:
            for index, item in enumerate(items):
                entry = answer["suites"][index]
                own = item.candidate.spec.suite
                held_out = {name: number for name, number in kept.held_out.items() if name != own}
                name = _once_name(item.candidate) if kept.is_scheduled else f"{job['id']}_{index}"
                entry["fallback"] = await asyncio.to_thread(
                    self._fall_back, name, item.candidate, entry, claim, held_out
                )
        return answer

    def _fall_back(
        self, name: str, plan: RunPlan, entry: dict[str, Any], claim: Claim, held_out: dict[str, int]
    ) -> dict[str, Any] | None:
        """Queue the suite's fine-tune where a threshold was missed and the suite asks for it."""
        suite, run = plan.suite, plan.spec
        missed = any(row["met"] is False for row in entry["thresholds"])
        if entry["verdict"] != "fail" or not missed or suite.fallback is None or suite.fallback.when == "never":
            return None
        base = suite.fallback.base_model or run.variant.model
        try:
            check_alone(run.suite, suite, WITHOUT_TUNING)
            model_source(self.settings, base)
        except TurnoutError as error:
            return {"job_id": None, "status": "refused", "reason": str(error)}
        spec = FinetuneSpec(
            suite=run.suite,
            suite_version=run.suite_version,
            prompt_version=run.variant.version,
            base=base,
            held_out=held_out,
        )
        job = self.jobs.submit(
            "finetune", spec.model_dump(), claim.actor, f"job_{name.partition('_')[2].replace('_', '-')}ft"
        )
        return {"job_id": job["job_id"], "status": job["status"]}

    def _finetune(self, job: dict[str, Any], claim: Claim) -> dict[str, Any]:
        if self._durable is None:
            from service.workflow import Durable  # half a second and a database of its own: only for fine-tunes

            self._durable = Durable(self.settings, self.worker_id)
        result: dict[str, Any] = self._durable.run(claim, job["attempt"])
        return result

    def _finish(self, claim: Claim, outcome: dict[str, Any]) -> None:
        with self.database.write() as session:
            jobs.finish(session, claim.job_id, claim.token, {**outcome, "finished_at": now()})
            jobs.add_event(session, claim.job_id, outcome["status"], {"error": outcome.get("error")}, now())
            if outcome["status"] != "succeeded":
                runs.end_all(session, run_id_of(claim.job_id), outcome["status"], now())

    async def _keep(self, claim: Claim) -> None:
        """Show that the job is alive, and see whether its end was asked for."""
        while True:
            await asyncio.sleep(HEARTBEAT_S)
            try:
                state = await asyncio.to_thread(self._beat, claim)
            except TurnoutError as error:
                log.warning("no heartbeat could be written; trying again", reason=str(error))
                continue
            if state == "lost":
                _stop("another worker took over a job of this one")
            if state == "cancel":
                claim.cancelled.set()

    def _beat(self, claim: Claim) -> str:
        with self.database.write() as session:
            if not jobs.heartbeat(session, claim.job_id, claim.token, now()):
                return "lost"
            job = jobs.get(session, claim.job_id)
        return "cancel" if job and job["cancel_requested"] else "kept"


def _once_name(plan: RunPlan) -> str:
    """The name of the one fine-tune that schedules may start for a version of a suite on a version of its prompt."""
    run = plan.spec
    return f"job_{digest_of(['schedule', run.suite, run.suite_version, str(run.variant)])[7:19]}"


class _Progress:
    """Tells of finished cases, about twenty times a run, without holding up the run."""

    def __init__(self, claim: Claim, total: int) -> None:
        self._claim = claim
        self._total = total
        self._done = 0
        self._passed = 0

    def __call__(self, result: CaseResult) -> None:
        self._done += 1
        self._passed += result.status == "passed"
        if self._done % max(1, self._total // 20) == 0 or self._done == self._total:
            self._claim.tell("cases", done=self._done, total=self._total, passed=self._passed)

    def waits(self, reason: str) -> None:
        if not self._claim.cancelled.is_set():
            self._claim.tell("waits", reason=reason)


async def _wait_for(flag: threading.Event) -> None:
    while not flag.is_set():  # noqa: ASYNC110 - the flag is shared with threads that have no loop
        await asyncio.sleep(0.1)


def _lock_path(run_dir: Path, worker_id: str) -> Path:
    return run_dir / f"worker-{worker_id}.lock"


def _hold_lock(run_dir: Path, worker_id: str) -> int:
    """A lock that the system frees when this process ends, however it ends: how others know that it is dead.

    Raises CannotRun where the home takes no file.
    """
    try:
        run_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(_lock_path(run_dir, worker_id), os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        fix = "free some space, and see that it can be written, or set TURNOUT_HOME to a folder that can"
        raise CannotRun(f"{run_dir}: {error.strerror}; {fix}") from error
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return descriptor


def _sweep_locks(run_dir: Path) -> None:
    """Remove the locks of workers that ended long ago: each start leaves one, and a stale heartbeat tells as much."""
    for path in run_dir.glob("worker-*.lock"):
        with contextlib.suppress(OSError):  # another removes it at this moment, or it is another user's
            if path.stat().st_mtime < time.time() - SWEEP_AFTER_S and _is_free(path):
                path.unlink()


def is_dead(run_dir: Path, worker_id: str) -> bool:
    """Whether a worker of this home has ended; False where its lock is not here, since it may run elsewhere."""
    try:
        return _is_free(_lock_path(run_dir, worker_id))
    except FileNotFoundError:
        return False


def _is_free(path: Path) -> bool:
    """Whether nobody holds a lock. Raises OSError."""
    descriptor = os.open(path, os.O_RDWR)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)


def _stop(reason: str, code: int = 0) -> None:
    """End this process and its children now; what it was doing is resumed by whoever claims it next. "" is not told.

    Called from the main thread and from the one that watches the parent; nothing may keep it from ending.
    """
    try:
        if reason:
            log.info("worker stops", reason=reason)
    finally:
        os._exit(code)


def _stop_with_parent(*, is_told: bool) -> None:
    """End when standard input closes: the parent holds the other end and is gone, or has seen its one job end."""

    def watch() -> None:
        while os.read(0, 4096):
            pass
        _stop("its parent has ended" if is_told else "")

    threading.Thread(target=watch, daemon=True).start()


def work(settings: Settings, only: str | None = None, when_up: Callable[[str], None] | None = None) -> None:
    """Do jobs in this process until it is stopped, or until the only one is done; `when_up` is as in `Worker.work`.

    Raises CannotRun or StorageFailed where it cannot.
    """
    signal.signal(signal.SIGTERM, lambda *_: _stop("asked to"))
    try:
        asyncio.run(Worker(settings, only).work(when_up))
    except KeyboardInterrupt:
        _stop("interrupted", INTERRUPTED)


def main(arguments: list[str]) -> int:
    """`python -m service.worker [--job ID] [--with-parent] [--settings-on-stdin]`: a line, see `settings.as_line`."""
    configure_log()
    only = arguments[arguments.index("--job") + 1] if "--job" in arguments else None
    given = sys.stdin.buffer.readline() if "--settings-on-stdin" in arguments else None
    if given == b"":
        return 0  # its parent ended before it could say
    if "--with-parent" in arguments:
        _stop_with_parent(is_told=only is None)
    try:
        work(from_line(given) if given else load_settings(), only)
    except (CannotRun, StorageFailed) as error:
        log.error("worker cannot run", reason=str(error))
        return 4
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

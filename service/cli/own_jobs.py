"""A job done here, without a service: by a worker process of our own, to its end, or to an interrupt from where it goes on."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from service.cli.client import follow
from service.cli.output import err
from service.fine_tuning.names import own_job_id
from service.ids import now
from service.jobs import Jobs
from service.store import jobs
from service.store.database import Database

if TYPE_CHECKING:
    from service.settings import Settings

INTERRUPTED = "interrupted"
_ENDS_WITHIN_S = 5.0  # a worker whose parent's end of the pipe is closed; it takes milliseconds


def work_here(
    settings: Settings, job_id: str, on_event: Callable[[dict[str, Any]], None], again: str, shows: str
) -> dict[str, Any]:
    """Do a job, passing its events on; returns it when it has ended.

    After an interrupt `again` is the command that goes on with it, or `shows` the one that shows it where a service does it.
    """
    own = OwnJobs(settings)
    is_alive: Callable[[], bool] = bool  # until there is a worker: False
    watched: Any = own
    try:
        with _worker(job_id) as is_alive:
            return follow(watched, job_id, on_event, is_alive)
    except KeyboardInterrupt:
        _wait_for_end(is_alive)
        if own.put_away(job_id):
            err().print(f"{job_id} stops, and what it has done is kept; go on with: {again}", markup=False)
        else:
            tell_that_it_goes_on(job_id, shows, " --local")
        raise


def tell_that_it_goes_on(job_id: str, shows: str, local: str = "") -> None:
    """Say on stderr that only the watching has ended."""
    said = f"the job goes on: `{shows}` shows it again, `turnout job {job_id} --cancel{local}` ends it"
    err().print(said, markup=False)


@contextmanager
def _worker(job_id: str) -> Iterator[Callable[[], bool]]:
    """A worker process for one job; gives whether it still lives."""
    command = [sys.executable, "-P", "-m", "service.worker", "--job", job_id, "--with-parent"]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as process:  # noqa: S603 - our own interpreter and module
        try:
            yield lambda: process.poll() is None
        finally:
            if process.stdin is not None:
                process.stdin.close()


def _wait_for_end(is_alive: Callable[[], bool]) -> None:
    until_s = time.monotonic() + _ENDS_WITHIN_S
    while is_alive() and time.monotonic() < until_s:
        time.sleep(0.02)


class OwnJobs:
    """A job and its events from this home's database: handlers that are wired anew for each look would take a sixth of a core
    for as long as it works."""

    def __init__(self, settings: Settings) -> None:
        self._settings, self._database = settings, Database(settings.database_url)
        self._jobs = Jobs(self._database)

    def call(self, _method: str, path: str, *, params: dict[str, Any] | None = None) -> Any:
        job_id = path.split("/")[3]
        return self._jobs.events(job_id, params["after"]) if params else self._jobs.show(job_id)

    def put_away(self, job_id: str) -> bool:
        """End a job that nobody does any more: whoever interrupts it does not want a service that starts next week to go on.

        Returns whether it has ended; False where a worker of a service on this home does it.
        """
        with self._database.write() as session:
            job = jobs.get(session, own_job_id(job_id), lock=True)
            if job is None or job["status"] not in jobs.LIVE:
                return True
            if not self._is_left(job):
                return False
            ended = {"status": "cancelled", "error": INTERRUPTED, "finished_at": now()}
            if job["status"] == "running":
                jobs.finish(session, job["id"], job["token"], ended)
            else:
                jobs.end(session, job, ended["finished_at"])
            jobs.add_event(session, job["id"], "cancelled", {"error": INTERRUPTED}, ended["finished_at"])
            return True

    def _is_left(self, job: dict[str, Any]) -> bool:
        """Whether nobody does a live job."""
        from service.worker import is_dead  # with all that workers need: only where it is asked

        return job["status"] != "running" or is_dead(self._settings.run_dir, job["worker"])

"""A worker as a process of its own: killed at any moment, another one ends its job as it would have ended."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from service.evaluation import Evaluator
from service.gates import Gates, RunJob, RunRequest
from service.identity import Principal
from service.jobs import Jobs, run_id_of
from service.pool import ModelPool
from service.registry import Push, Registry
from service.settings import Settings, as_line, load_settings
from service.store import jobs, runs
from service.store.database import Database
from service.worker import Worker, is_dead
from tests.service.conftest import case, suite, triage

ROOT = Path(__file__).parents[2]
AUTHOR = Principal("key_author", "author")
CONFIG = (
    "models:\n  slow: {engine: fake, default: billing, latency_s: 0.1}\n  endless: {engine: fake, latency_s: 600}\n"
)

pytestmark = pytest.mark.integration


class Place:
    """A home with a prompt and a suite of thirty cases, its queue, and workers on it."""

    def __init__(self, folder: Path) -> None:
        (folder / "turnout.yaml").write_text(CONFIG)
        self.folder = folder
        self.settings: Settings = load_settings({"TURNOUT_HOME": str(folder / "home")}, folder)
        self.database = Database(self.settings.database_url)
        self.database.migrate()
        self.jobs = Jobs(self.database)
        tests = [case(f"ticket {number}", "billing") for number in range(30)]
        push = Push({"support.triage": triage(model="slow")}, {"triage": suite(*tests)})
        Registry(self.database, self.settings).push(push, AUTHOR)

    def submit(self, **more: Any) -> str:
        request = RunRequest(suite="triage", prompt="support.triage@1", concurrency=1, **more)
        pool = ModelPool(self.settings)
        registry = Registry(self.database, self.settings)
        gates = Gates(self.database, registry, Evaluator(self.database, self.settings, pool))
        job_id: str = self.jobs.submit("run", gates.pinned_run(request).model_dump(), AUTHOR)["job_id"]
        return job_id

    @contextlib.contextmanager
    def worker(self, *arguments: str, stdin: int = subprocess.DEVNULL) -> Iterator[subprocess.Popen[bytes]]:
        """A worker's process, which does not outlast the block."""
        environment = {**os.environ, "TURNOUT_HOME": str(self.settings.home), "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-P", "-m", "service.worker", *arguments]
        with subprocess.Popen(
            command, cwd=self.folder, env=environment, stdin=stdin, stderr=subprocess.DEVNULL
        ) as process:
            try:
                yield process
            finally:
                process.kill()

    def cases_of(self, job_id: str) -> int:
        with self.database.read() as session:
            return len(list(runs.cases(session, run_id_of(job_id))))

    def wait_for(self, is_so: Callable[[], Any], within_s: float = 30.0) -> None:
        ends = time.monotonic() + within_s
        while not is_so():
            assert time.monotonic() < ends, "it did not come about in time"
            time.sleep(0.02)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_a_worker_that_is_killed_is_followed_by_another_that_asks_nothing_twice(place: Place) -> None:
    job_id = place.submit()
    with place.worker() as first:
        place.wait_for(lambda: place.cases_of(job_id) >= 5)
        first.kill()
    known = place.cases_of(job_id)
    assert place.jobs.show(job_id)["status"] == "running"

    started = time.monotonic()
    with place.worker("--job", job_id) as second:
        assert second.wait(60) == 0

    job = place.jobs.show(job_id)
    assert (job["status"], job["attempt"]) == ("succeeded", 1)
    result = job["result"]
    assert (result["total"], result["passed"], result["errored"], result["skipped"]) == (30, 30, 0, 0)
    assert place.cases_of(job_id) == 30
    assert time.monotonic() - started < 10 + 0.1 * (30 - known)  # the silence of a dead worker is not waited for
    numbers = [event["number"] for event in place.jobs.events(job_id)]
    assert numbers == list(range(1, len(numbers) + 1))


def test_a_worker_works_by_the_settings_it_is_given_and_not_by_a_file_that_was_refused(place: Place) -> None:
    job_id = place.submit()
    (place.folder / "turnout.yaml").write_text("foo: 1\n")
    with place.worker("--with-parent", "--settings-on-stdin", stdin=subprocess.PIPE) as worker:
        assert worker.stdin is not None
        worker.stdin.write(as_line(place.settings))
        worker.stdin.flush()
        place.wait_for(lambda: place.jobs.show(job_id)["status"] == "succeeded", 60)
        worker.stdin.close()
        worker.wait(30)


def test_a_worker_goes_on_with_its_job_after_its_machine_slept(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    stopped: list[str] = []
    monkeypatch.setattr("service.worker.STALE_S", -3600.0)  # every heartbeat is an hour old
    monkeypatch.setattr("service.worker._stop", stopped.append)
    job_id = place.submit()
    asyncio.run(Worker(place.settings, job_id).work())

    with place.database.read() as session:
        job = jobs.get(session, job_id)
    assert job is not None
    assert (job["status"], job["token"], stopped) == ("succeeded", 1, [])


def test_a_worker_for_one_job_waits_while_another_does_it(place: Place) -> None:
    job_id = place.submit()
    with place.worker():
        place.wait_for(lambda: place.jobs.show(job_id)["status"] == "running")
        with place.worker("--job", job_id) as second:
            assert second.wait(60) == 0
    assert place.jobs.show(job_id)["status"] == "succeeded"


def test_a_job_that_is_cancelled_while_it_runs_ends_soon(place: Place) -> None:
    job_id = place.submit(model="endless")
    with place.worker("--job", job_id) as worker:
        place.wait_for(lambda: place.jobs.show(job_id)["status"] == "running")
        place.jobs.cancel(job_id, AUTHOR)
        assert worker.wait(20) == 0

    job = place.jobs.show(job_id)
    assert (job["status"], job["error"]) == ("cancelled", "cancelled on request")


def test_a_worker_ends_with_its_parent(place: Place) -> None:
    place.submit(model="endless")
    with place.worker("--with-parent", stdin=subprocess.PIPE) as worker:
        place.wait_for(lambda: place.jobs.listing()[0]["status"] == "running")
        assert worker.stdin is not None
        worker.stdin.close()  # what the system does with it when the parent dies, however it does
        assert worker.wait(10) == 0


def test_a_worker_that_is_asked_to_end_does_at_once_and_leaves_its_job_to_others(place: Place) -> None:
    job_id = place.submit(model="endless")
    with place.worker() as worker:
        place.wait_for(lambda: place.jobs.show(job_id)["status"] == "running")
        worker.terminate()
        assert worker.wait(10) == 0

    assert place.jobs.show(job_id)["status"] == "running"
    with place.worker("--job", job_id) as other:
        place.wait_for(lambda: place.jobs.show(job_id)["started_at"] is not None)
        place.jobs.cancel(job_id, AUTHOR)
        assert other.wait(20) == 0
    assert place.jobs.show(job_id)["status"] == "cancelled"


def test_a_job_that_cannot_be_done_fails_with_its_reason(place: Place) -> None:
    spec = RunJob(suite="no.such@1", variant="support.triage@1+slow", concurrency=1, use_cache=True)
    job_id: str = place.jobs.submit("run", spec.model_dump(), AUTHOR)["job_id"]
    with place.worker("--job", job_id) as worker:
        assert worker.wait(30) == 0

    job = place.jobs.show(job_id)
    assert job["status"] == "failed"
    assert "no suite 'no.such@1'" in job["error"]


def said_by_one_that_cannot_start(home: Path) -> str:
    ended = subprocess.run(
        [sys.executable, "-m", "service.worker"], env={**os.environ, "TURNOUT_HOME": str(home)},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip

    said = ended.stdout + ended.stderr
    assert (ended.returncode, "Traceback" in said) == (4, False), said
    return said


def test_a_worker_whose_database_is_away_says_so_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "turnout.db").mkdir()  # nothing can be opened there
    assert "unable to open database file" in said_by_one_that_cannot_start(tmp_path)


def test_a_worker_whose_home_takes_no_file_says_so_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("no folder")
    assert f"{tmp_path / 'run'}: File exists" in said_by_one_that_cannot_start(tmp_path)


def test_locks_of_workers_that_ended_long_ago_are_removed_and_no_other(settings: Settings) -> None:
    living = Worker(settings)
    run_dir, long_ago = settings.run_dir, time.time() - 2 * 86_400
    held = run_dir / f"worker-{living.worker_id}.lock"
    for name in ("worker-old.lock", "worker-new.lock", "engine-old.lock"):
        (run_dir / name).touch()
    for path in (held, run_dir / "worker-old.lock", run_dir / "engine-old.lock"):
        os.utime(path, (long_ago, long_ago))

    other = Worker(settings)

    left = {path.name for path in run_dir.iterdir()}
    assert left == {held.name, f"worker-{other.worker_id}.lock", "worker-new.lock", "engine-old.lock"}
    assert not is_dead(run_dir, living.worker_id)
    for worker in (living, other):
        worker.database.close()

"""Jobs done without a service that are interrupted, an advice above all: what it leaves, and how it goes on."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from service.cli import client, own_jobs
from service.cli.client import connect
from service.identity import LOCAL_ADMIN
from service.ids import now
from service.jobs import Jobs
from service.settings import Settings
from service.store import jobs
from service.store.database import Database
from service.worker import Worker
from tests.service.advising.conftest import cases, examples
from tests.service.cli.projects import CONFIG, Project
from tests.service.conftest import make_settings

SUITE = {"prompt": "support.triage", "tests": cases(4), "training": {"examples": examples(24)}}


def write_project(workspace: Project) -> None:
    workspace.write_all()
    workspace.write("turnout.yaml", CONFIG.replace("charged: billing", "refund: billing, login: Tech."))
    workspace.write("suites/support/triage.suite.yml", json.dumps(SUITE))


def interrupt_once_it_runs(client: Any, job_id: str, *_: Any) -> None:
    while client.call("GET", f"/api/jobs/{job_id}")["status"] != "running":
        time.sleep(0.02)
    raise KeyboardInterrupt


@pytest.mark.timeout(120)
def test_an_advice_that_is_interrupted_says_how_it_goes_on_and_does(
    workspace: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_project(workspace)
    asked = ["advise", "suites/support/triage.suite.yml", "--shots", "2", "--html", "a.html", "--local"]
    with monkeypatch.context() as patch:
        patch.setattr(own_jobs, "follow", interrupt_once_it_runs)
        code, _, err = workspace.run(*asked)
    [job] = workspace.json("jobs", "--local")
    advice_id = "adv_" + job["job_id"].removeprefix("job_")
    again = f"turnout advise --of {advice_id} --resume --html a.html --local"
    assert (code, job["status"], job["error"]) == (130, "cancelled", "interrupted")
    assert f"stops, and what it has done is kept; go on with: {again}" in err

    code, _, err = workspace.run("advise", "--of", advice_id, "--local")
    assert code == 4
    assert f"cancelled: interrupted; go on with: {again.replace(' --html a.html', '')}" in err

    code, out, err = workspace.run(*again.split()[1:])
    assert (code, "the prompt alone" in out) == (0, True), err
    assert (workspace.folder / "a.html").exists()
    assert [one["status"] for one in workspace.json("jobs", "--local")] == ["succeeded"]
    assert workspace.run("advise", "--of", advice_id, "--resume", "--local")[0] == 0  # there is nothing left to do


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return make_settings(tmp_path / "home")


def queued(settings: Settings) -> Jobs:
    database = Database(settings.database_url)
    database.migrate()
    found = Jobs(database)
    found.submit("advice", {}, LOCAL_ADMIN, "job_1")
    return found


def claim(settings: Settings, worker_id: str) -> None:
    with Database(settings.database_url).write() as session:
        assert jobs.claim(session, worker_id, now(), jobs.Free((), now(), "job_1"))


def test_a_job_that_no_worker_took_yet_is_put_away(settings: Settings):
    found = queued(settings)
    assert own_jobs.OwnJobs(settings).put_away("job_1") is True
    assert found.show("job_1")["status"] == "cancelled"
    assert [event["type"] for event in found.events("job_1")] == ["cancelled"]
    assert found.resume("job_1", LOCAL_ADMIN)["status"] == "queued"


def test_a_job_that_a_service_on_this_home_does_is_left_to_it(
    settings: Settings, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    found, worker = queued(settings), Worker(settings)
    claim(settings, worker.worker_id)
    monkeypatch.setattr(own_jobs, "follow", interrupt_once_it_runs)
    with pytest.raises(KeyboardInterrupt):
        own_jobs.work_here(settings, "job_1", print, "again", "turnout advise --of adv_1 --local")
    assert found.show("job_1")["status"] == "running"
    told = capsys.readouterr().err
    assert "the job goes on: `turnout advise --of adv_1 --local` shows it again" in told
    assert "`turnout job job_1 --cancel --local` ends it" in told


@pytest.mark.timeout(120)
def test_a_job_that_was_cut_short_is_done_here_by_watching_it_without_a_service(
    workspace: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_project(workspace)
    with monkeypatch.context() as patch:
        patch.setattr(own_jobs, "follow", interrupt_once_it_runs)
        assert workspace.run("advise", "suites/support/triage.suite.yml", "--shots", "2", "--local")[0] == 130
        [job] = workspace.json("jobs", "--local")
        again = ["job", job["job_id"], "--resume", "--watch", "--local"]
        code, _, err = workspace.run(*again)
    assert code == 130
    assert f"{job['job_id']} stops, and what it has done is kept; go on with: turnout {' '.join(again)}" in err

    code, out, err = workspace.run(*again)
    assert (code, out.splitlines()[0]) == (0, f"{job['job_id']} advice succeeded, ship the prompt"), err
    assert workspace.run("job", job["job_id"], "--watch", "--local")[0] == 0  # it has ended: nobody is needed for it


def test_an_interrupt_tells_of_a_services_job_that_it_goes_on(
    workspace: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    write_project(workspace)
    monkeypatch.setattr(own_jobs, "follow", interrupted)
    assert workspace.run("advise", "suites/support/triage.suite.yml", "--shots", "2", "--local")[0] == 130
    [job] = workspace.json("jobs", "--local")
    advice_id = "adv_" + job["job_id"].removeprefix("job_")
    monkeypatch.setattr(client, "follow", interrupted)
    monkeypatch.setattr(
        client, "connect", lambda settings, *, local: connect(settings, local=True)
    )  # as a service would
    code, _, err = workspace.run("advise", "--of", advice_id, "--resume")
    assert code == 130
    assert f"the job goes on: `turnout advise --of {advice_id}` shows it again" in err
    code, _, err = workspace.run("job", job["job_id"], "--watch")
    assert code == 130
    assert f"the job goes on: `turnout job {job['job_id']} --watch` shows it again" in err
    assert f"`turnout job {job['job_id']} --cancel` ends it" in err
    assert workspace.json("jobs", "--local")[0]["status"] == "queued"

"""A job that is paused, resumed and cancelled from OpenAI's API and from Turnout's own: both say the same of it."""

from __future__ import annotations

from typing import Any

import openai
import pytest

from service.fine_tuning.names import own_job_id
from service.ids import now
from service.jobs import CANCELLED
from service.store import jobs
from tests.service.conftest import Service
from tests.service.fine_tuning.conftest import TWELVE

CANCELLED_SAYS = "The job was cancelled"


class Job:
    """One job, asked of by the `openai` package and by `/api/jobs`; `claim` and `end` are its worker's part."""

    def __init__(self, client: openai.OpenAI, service: Service) -> None:
        file = client.files.create(file=("train.jsonl", TWELVE), purpose="fine-tune")
        self.id = client.fine_tuning.jobs.create(training_file=file.id, model="small").id
        self.openai = client.fine_tuning.jobs
        self._service = service

    def ask(self, what: str, status: int = 200) -> dict[str, Any]:
        """As `turnout job ID --cancel` and `--resume` do."""
        answer = self._service.call("POST", f"/api/jobs/{self.id}/{what}", "author")
        assert answer.status_code == status, answer.text
        told: dict[str, Any] = answer.json()
        return told

    def claim(self) -> int:
        with self._service.context.database.write() as session:
            claimed = jobs.claim(session, "w1", now(), jobs.Free((), "", own_job_id(self.id)))
        assert claimed is not None
        return int(claimed["token"])

    def end(self, token: int) -> None:
        own, ended = own_job_id(self.id), {"status": "cancelled", "error": CANCELLED}
        with self._service.context.database.write() as session:
            jobs.finish(session, own, token, {**ended, "finished_at": now()})
            jobs.add_event(session, own, "cancelled", {"error": CANCELLED}, now())

    @property
    def states(self) -> tuple[str, str]:
        """As OpenAI's API has it, and as Turnout's own does."""
        own = self._service.call("GET", f"/api/jobs/{self.id}", "author").json()
        return self.openai.retrieve(self.id).status, own["status"]

    @property
    def said(self) -> list[str]:
        return [event.message for event in self.openai.list_events(self.id)]


@pytest.fixture
def job(client: openai.OpenAI, service: Service) -> Job:
    return Job(client, service)


def test_a_paused_job_is_cancelled_by_turnouts_own_api(job: Job) -> None:
    job.openai.pause(job.id)
    assert job.states == ("queued", "cancelled")
    paused_at = job.ask("cancel")["finished_at"]

    assert job.states == ("cancelled", "cancelled")
    assert job.openai.retrieve(job.id).finished_at is not None
    assert job.said[:2] == [CANCELLED_SAYS, "The job is paused"]
    assert job.ask("cancel")["finished_at"] == paused_at  # once more, nothing changes
    assert job.said.count(CANCELLED_SAYS) == 1
    with pytest.raises(openai.ConflictError, match="has ended"):
        job.openai.pause(job.id)


def test_a_paused_job_is_resumed_and_cancelled_by_turnouts_own_api(job: Job) -> None:
    job.openai.pause(job.id)
    assert job.ask("resume")["status"] == "queued"
    job.ask("cancel")

    assert job.states == ("cancelled", "cancelled")
    assert job.openai.retrieve(job.id).finished_at is not None
    assert job.said[:3] == [CANCELLED_SAYS, "The job is resumed", "The job is paused"]


def test_a_job_that_runs_again_after_a_pause_tells_its_end(job: Job) -> None:
    job.openai.pause(job.id)
    job.ask("resume")
    token = job.claim()
    job.ask("cancel")
    job.end(token)

    assert job.states == ("cancelled", "cancelled")
    assert job.said[0] == CANCELLED_SAYS


def test_a_job_that_is_cancelled_while_it_comes_to_its_pause_is_cancelled(job: Job) -> None:
    token = job.claim()
    job.openai.pause(job.id)
    job.openai.pause(job.id)  # once more, nothing changes
    with pytest.raises(openai.ConflictError, match=f"{job.id}.*resume it in a second"):
        job.openai.resume(job.id)
    job.ask("cancel")
    job.end(token)

    assert job.states == ("cancelled", "cancelled")
    assert job.said[:2] == [CANCELLED_SAYS, "The job is paused"]


def test_a_job_that_is_being_cancelled_is_not_paused(job: Job) -> None:
    token = job.claim()
    job.ask("cancel")
    with pytest.raises(openai.ConflictError, match=f"{job.id}.*is being cancelled"):
        job.openai.pause(job.id)
    assert "resume it in a second" in job.ask("resume", status=409)["detail"]
    job.end(token)

    assert job.states == ("cancelled", "cancelled")
    assert job.said[0] == CANCELLED_SAYS


def test_a_job_that_is_validated_behind_the_pause_is_paused_all_the_same(job: Job, service: Service) -> None:
    token = job.claim()
    job.openai.pause(job.id)
    with service.context.database.write() as session:  # its worker sees the pause within a second
        jobs.add_event(session, own_job_id(job.id), "validated", {"examples": 12, "in_both": 0}, now())
    job.end(token)

    assert job.states == ("queued", "cancelled")
    assert CANCELLED_SAYS not in job.said
    assert job.openai.resume(job.id).status == "queued"


def test_an_unknown_job_is_named_as_it_was_asked_for(service: Service) -> None:
    for method, path in (("GET", ""), ("GET", "/events"), ("POST", "/cancel"), ("POST", "/resume")):
        answer = service.call(method, f"/api/jobs/ftjob-none{path}", "author")
        assert (answer.status_code, answer.json()["detail"]) == (404, "no job 'ftjob-none'")

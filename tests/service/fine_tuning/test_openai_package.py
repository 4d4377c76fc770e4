"""The calls of the `openai` package for fine-tuning, one by one, as a program written for OpenAI's service makes them."""

from __future__ import annotations

import asyncio
import base64
import re
from typing import Any

import httpx
import openai
import pytest

from service.fine_tuning.names import own_job_id
from tests.service.conftest import Service
from tests.service.fine_tuning.conftest import TWELVE, jsonl, line

MODEL = "gpt-4o-mini-2024-07-18"


def test_a_program_for_openais_service_runs_unchanged(client: openai.OpenAI, service: Service, played: None) -> None:
    file = client.files.create(file=("train.jsonl", TWELVE), purpose="fine-tune")
    assert (file.object, file.status, file.purpose, file.filename) == ("file", "processed", "fine-tune", "train.jsonl")
    assert client.files.wait_for_processing(file.id).bytes == len(TWELVE)

    made = client.fine_tuning.jobs.create(
        training_file=file.id,
        model=MODEL,
        suffix="Support bot",
        seed=7,
        method={"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 2}}},
        metadata={"team": "support"},
    )
    assert (made.status, made.model, made.seed, made.fine_tuned_model) == ("validating_files", MODEL, 7, None)
    assert made.hyperparameters.n_epochs == 2
    assert made.hyperparameters.batch_size == "auto"
    assert made.id.startswith("ftjob-")

    service.work(own_job_id(made.id))
    job = client.fine_tuning.jobs.retrieve(made.id)
    short_id = made.id.removeprefix("ftjob-")
    name = f"ft:{MODEL}:turnout:support-bot:{short_id}"
    assert (job.status, job.fine_tuned_model, job.trained_tokens, job.error) == ("succeeded", name, 240, None)
    assert job.finished_at is not None
    assert job.finished_at >= job.created_at
    assert job.hyperparameters.batch_size == 8
    assert job.method is not None
    assert job.method.type == "supervised"

    events = list(client.fine_tuning.jobs.list_events(made.id, limit=3))  # pages follow by themselves
    said = [event.message for event in events]
    assert said[0] == "The job has successfully completed"
    assert said[1] == f"New fine-tuned model created: {name}"
    assert said[-2:] == ["Files validated, moving job to queued state", f"Created fine-tuning job: {made.id}"]
    assert "Step 8/8: training loss=0.25" in said
    assert f"Checkpoint created at step 4 with Snapshot ID: {name}:ckpt-step-4" in said
    assert len({event.id for event in events}) == len(events)
    assert {event.type for event in events} == {"message", "metrics"}

    checkpoints = list(client.fine_tuning.jobs.checkpoints.list(made.id, limit=1))
    assert [one.step_number for one in checkpoints] == [8, 4]
    assert checkpoints[0].fine_tuned_model_checkpoint == f"{name}:ckpt-step-8"
    assert checkpoints[0].metrics.full_valid_loss == 0.125
    assert checkpoints[0].metrics.train_mean_token_accuracy == 0.8

    rows = base64.b64decode(client.files.content(job.result_files[0]).read()).decode().splitlines()
    assert rows[0] == "step,train_loss,train_accuracy,valid_loss,valid_mean_token_accuracy"
    assert rows[4] == "4,0.5,0.8,0.25,0.75"
    assert client.files.retrieve(job.result_files[0]).purpose == "fine-tune-results"

    messages = [{"role": "user", "content": "question 3"}]
    reply = client.chat.completions.create(model=name, messages=messages)
    assert (reply.model, reply.choices[0].message.content) == (name, f"ft-{short_id}")
    chunks: Any = client.chat.completions.create(model=name, messages=messages, stream=True)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == f"ft-{short_id}"
    early = client.chat.completions.create(model=f"{name}:ckpt-step-4", messages=messages)
    assert early.choices[0].message.content == f"ft-{short_id}-step-4"
    assert client.responses.create(model=name, input="question 3").output_text == f"ft-{short_id}"

    assert client.models.retrieve(name).owned_by == "turnout"
    assert {name, f"{name}:ckpt-step-4"} <= {model.id for model in client.models.list()}
    assert client.models.delete(name).deleted
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.create(model=name, messages=messages)


def test_jobs_are_listed_by_page_and_by_metadata(client: openai.OpenAI, service: Service) -> None:
    file = client.files.create(file=("train.jsonl", TWELVE), purpose="fine-tune")
    ids = [
        client.fine_tuning.jobs.create(training_file=file.id, model="small", metadata={"n": f"{number}"}).id
        for number in range(3)
    ]
    bare = client.fine_tuning.jobs.create(training_file=file.id, model="small").id

    assert [job.id for job in client.fine_tuning.jobs.list(limit=2)][:4] == [bare, *reversed(ids)]
    assert [job.id for job in client.fine_tuning.jobs.list(metadata={"n": "1"})] == [ids[1]]
    found = client.get("/fine_tuning/jobs?metadata=null", cast_to=httpx.Response).json()
    assert found["data"][0]["id"] == bare
    assert not {job["id"] for job in found["data"]} & set(ids)


def test_a_page_behind_what_is_not_in_the_list_is_refused(
    client: openai.OpenAI, service: Service, played: None
) -> None:
    file = client.files.create(file=("train.jsonl", TWELVE), purpose="fine-tune")
    first, other = (client.fine_tuning.jobs.create(training_file=file.id, model="small").id for _ in range(2))
    service.work(own_job_id(first))
    [event] = client.fine_tuning.jobs.list_events(other).data

    for found in (event.id, "ftevent-1", "x"):
        with pytest.raises(openai.BadRequestError, match="no event of this job"):
            client.fine_tuning.jobs.list_events(first, after=found)
    with pytest.raises(openai.BadRequestError, match="no checkpoint that this job has"):
        client.fine_tuning.jobs.checkpoints.list(first, after="ftckpt-0-4")


def test_a_job_is_found_among_turnouts_own_by_either_id(client: openai.OpenAI, service: Service) -> None:
    file = client.files.create(file=("train.jsonl", TWELVE), purpose="fine-tune")
    job = client.fine_tuning.jobs.create(training_file=file.id, model="small")

    shown = service.call("GET", f"/api/jobs/{job.id}", "author").json()
    assert shown["job_id"] == own_job_id(job.id)
    events = service.call("GET", f"/api/jobs/{job.id}/events", "author").json()
    assert [event["type"] for event in events] == ["created"]
    assert service.call("POST", f"/api/jobs/{job.id}/cancel", "author").json()["status"] == "cancelled"
    events = service.call("GET", f"/api/jobs/{job.id}/events", "author").json()
    assert [event["type"] for event in events] == ["created", "cancelled"]


def test_a_job_is_paused_resumed_and_cancelled(client: openai.OpenAI, service: Service, played: None) -> None:
    file = client.files.create(file=("train.jsonl", TWELVE), purpose="fine-tune")
    job = client.fine_tuning.jobs.create(training_file=file.id, model="small")

    assert client.fine_tuning.jobs.pause(job.id).status == "queued"
    assert client.fine_tuning.jobs.retrieve(job.id).finished_at is None
    assert client.fine_tuning.jobs.resume(job.id).status == "queued"
    assert client.fine_tuning.jobs.cancel(job.id).status == "cancelled"
    said = [event.message for event in client.fine_tuning.jobs.list_events(job.id)]
    started = ["The job is resumed", "The job is paused", f"Created fine-tuning job: {job.id}"]
    assert said == ["The job was cancelled", *started]
    with pytest.raises(openai.ConflictError, match="has ended"):
        client.fine_tuning.jobs.cancel(job.id)


def test_a_paused_job_is_cancelled(client: openai.OpenAI, service: Service) -> None:
    file = client.files.create(file=("train.jsonl", TWELVE), purpose="fine-tune")
    job = client.fine_tuning.jobs.create(training_file=file.id, model="small")
    client.fine_tuning.jobs.pause(job.id)

    assert client.fine_tuning.jobs.cancel(job.id).status == "cancelled"
    assert client.fine_tuning.jobs.retrieve(job.id).finished_at is not None
    assert client.fine_tuning.jobs.list_events(job.id).data[0].message == "The job was cancelled"


def test_the_asynchronous_client_does_the_same(service: Service, played: None) -> None:
    async def use() -> tuple[str, list[str], list[int]]:
        transport: Any = httpx.ASGITransport(service.app)
        async with openai.AsyncOpenAI(
            base_url="http://localhost/v1",
            api_key=service.keys["author"],
            http_client=httpx.AsyncClient(transport=transport),
            max_retries=0,
        ) as client:
            file = await client.files.create(file=("train.jsonl", TWELVE), purpose="fine-tune")
            await client.files.wait_for_processing(file.id)
            job = await client.fine_tuning.jobs.create(training_file=file.id, validation_file=file.id, model="small")
            await asyncio.to_thread(service.work, own_job_id(job.id))
            status = (await client.fine_tuning.jobs.retrieve(job.id)).status
            said = [event.message async for event in client.fine_tuning.jobs.list_events(job.id, limit=4)]
            steps = [one.step_number async for one in client.fine_tuning.jobs.checkpoints.list(job.id)]
            assert [found.id async for found in client.files.list(purpose="fine-tune", limit=1)][:1] == [file.id]
            assert (await client.files.delete(file.id)).deleted
            return status, said, steps

    async def in_a_thread() -> tuple[str, list[str], list[int]]:
        return await use()

    status, said, steps = service.wait(in_a_thread())
    assert (status, steps) == ("succeeded", [8, 4])
    assert any("12 of the validation file's examples stand in the training file, too" in one for one in said)


@pytest.mark.parametrize(
    ("content", "code", "said"),
    [
        (
            jsonl(*[line("a", "b")] * 3),
            "invalid_n_examples",
            r"Training file has 3 example\(s\), but must have at least 10",
        ),
        (TWELVE + b"{\n", "invalid_training_file", "line 13: not JSON"),
    ],
)
def test_a_bad_file_fails_the_job_as_openais_do(
    client: openai.OpenAI, service: Service, content: bytes, code: str, said: str
) -> None:
    file = client.files.create(file=("train.jsonl", content), purpose="fine-tune")
    job = client.fine_tuning.jobs.create(training_file=file.id, model="small")
    service.work(own_job_id(job.id))

    failed = client.fine_tuning.jobs.retrieve(job.id)
    assert failed.status == "failed"
    assert failed.error is not None
    assert (failed.error.code, failed.error.param) == (code, "training_file")
    assert re.search(said, failed.error.message)


@pytest.mark.parametrize(
    ("asked", "param", "said"),
    [
        ({"model": "gpt-9"}, "model", "Tunable here: small; or map the name"),
        ({"model": "plain"}, "model", "not available for fine-tuning"),
        ({"model": "ft:small:turnout::1"}, "model", "cannot be tuned further here. Tunable here: small;"),
        ({"training_file": "file-0"}, "training_file", "no file 'file-0'"),
        ({"method": {"type": "dpo"}}, "method.type", "'dpo' is not trained here"),
        ({"method": {"type": "reinforcement"}}, "method.type", "'reinforcement' is not trained here"),
        ({"integrations": [{"type": "wandb", "wandb": {"project": "p"}}]}, "integrations", "wandb is not served here"),
        ({"suffix": "a:b"}, "suffix", "other characters"),
        (
            {"hyperparameters": {"n_epochs": 0, "batch_size": "few"}},
            "hyperparameters.n_epochs",
            "hyperparameters.n_epochs: '0' is neither 'auto' nor a whole number from 1 to 100; "
            "hyperparameters.batch_size: 'few' is neither 'auto' nor a whole number from 1 to 4096",
        ),
        ({"hyperparameters": {"learning_rate_multiplier": -1}}, "hyperparameters.learning_rate_multiplier", "above 0"),
        ({"unknown": 1}, "unknown", "not permitted"),
    ],
)
def test_what_cannot_be_done_is_refused_by_name(
    client: openai.OpenAI, asked: dict[str, object], param: str | None, said: str
) -> None:
    file = client.files.create(file=("train.jsonl", TWELVE), purpose="fine-tune")
    body = {"training_file": file.id, "model": "small"} | asked
    with pytest.raises(openai.BadRequestError) as found:
        client.post("/fine_tuning/jobs", body=body, cast_to=httpx.Response)
    assert said in found.value.message
    if param is not None:
        assert found.value.param == param


def test_the_same_idempotency_key_makes_one_job(client: openai.OpenAI) -> None:
    file = client.files.create(file=("train.jsonl", TWELVE), purpose="fine-tune")
    same, before = {"Idempotency-Key": "k-1"}, len(list(client.fine_tuning.jobs.list()))
    first = client.fine_tuning.jobs.create(training_file=file.id, model="small", extra_headers=same)
    again = client.fine_tuning.jobs.create(training_file=file.id, model="small", extra_headers=same)

    assert again.id == first.id
    assert len(list(client.fine_tuning.jobs.list())) == before + 1
    with pytest.raises(openai.ConflictError):
        client.fine_tuning.jobs.create(training_file=file.id, model="small", seed=1, extra_headers=same)


def test_calls_that_are_not_here_say_so(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="no projects to permit"):
        client.fine_tuning.checkpoints.permissions.list("ft:a")
    with pytest.raises(openai.NotFoundError, match="no projects to permit"):
        client.fine_tuning.checkpoints.permissions.delete("cp_1", fine_tuned_model_checkpoint="ft:a")
    with pytest.raises(openai.NotFoundError, match="graders are not served here"):
        client.fine_tuning.alpha.graders.validate(
            grader={"type": "string_check", "name": "n", "input": "a", "reference": "a", "operation": "eq"}
        )
    with pytest.raises(openai.NotFoundError, match="fine-tuning job"):
        client.fine_tuning.jobs.retrieve("ftjob-0")


@pytest.mark.parametrize(
    "path",
    [
        "/v1/fine_tuning/jobs/ftjob-%00",
        "/v1/fine_tuning/jobs?after=ftjob-%00",
        "/v1/fine_tuning/jobs?metadata[a%00]=b",
        "/v1/files?purpose=%00",
        "/api/jobs/%00",
    ],
)
def test_a_nul_which_postgresql_cannot_take_is_refused_at_once(service: Service, path: str) -> None:
    answer = service.call("GET", path, "author")
    assert (answer.status_code, "holds" in answer.text, "NUL" in answer.text) == (400, True, True)


def test_a_key_of_an_application_may_use_the_model_and_nothing_else(service: Service) -> None:
    for method, path in (("POST", "/v1/files"), ("GET", "/v1/files"), ("GET", "/v1/fine_tuning/jobs")):
        assert service.call(method, path, "app").status_code == 403


def test_a_model_that_is_anothers_is_deleted_by_an_admin_alone(
    client: openai.OpenAI, service: Service, played: None
) -> None:
    file = client.files.create(file=("train.jsonl", TWELVE), purpose="fine-tune")
    job = client.fine_tuning.jobs.create(training_file=file.id, model="small")
    service.work(own_job_id(job.id))
    name = client.fine_tuning.jobs.retrieve(job.id).fine_tuned_model

    assert service.call("DELETE", f"/v1/models/{name}", "ci").status_code == 403
    assert service.call("DELETE", "/v1/models/small", "author").status_code == 400
    assert service.call("DELETE", f"/v1/models/{name}", "admin").status_code == 200

"""A job as its worker does it: what is served of it, what it fails of, and how it goes on."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import openai
import pytest

from finetune import adapter
from finetune.plan import JobSpec, write_spec
from prompts.errors import BadInput
from service.errors import StorageFailed
from service.fine_tuning import planning, running
from service.fine_tuning.files import Files
from service.fine_tuning.material import Data
from service.fine_tuning.names import named_adapters, own_job_id
from service.models.fake import FakeModel
from service.snapshot import Snapshot
from service.store import routes
from service.tuning.claim import Claim
from tests.service.adapter_histories import revise
from tests.service.conftest import Service
from tests.service.fine_tuning.conftest import PLANNED, TWELVE, write_adapter


def test_a_server_that_loads_adapters_itself_finds_them_in_its_folder(
    service: Service, played: None, tmp_path: Path
) -> None:
    folder = tmp_path / "shelf"
    vllm = {
        "engine": "vllm",
        "base_url": "http://127.0.0.1:9/v1",
        "tunable": True,
        "source": "path:/a",
        "adapter_dir": str(folder),
    }
    spec = (
        type(service.context.settings)
        .model_validate({"home": tmp_path, "project": tmp_path, "models": {"big": vllm}})
        .models["big"]
    )
    service.context.settings.models["big"] = spec
    service.context.pool._models["big"] = FakeModel(lambda request: f"{request.adapter}")
    file = service.call("POST", "/v1/files", files={"file": ("a", TWELVE)}, data={"purpose": "fine-tune"}).json()
    body = {"training_file": file["id"], "model": "big"}
    job = service.call("POST", "/v1/fine_tuning/jobs", json=body).json()
    service.work(own_job_id(job["id"]))

    short_id = job["id"].removeprefix("ftjob-")
    assert sorted(path.name for path in folder.iterdir()) == [
        f"ft-{short_id}",
        f"ft-{short_id}-step-4",
        f"ft-{short_id}-step-8",
    ]
    asked = {"model": f"ft:big:turnout::{short_id}", "messages": [{"role": "user", "content": "a"}]}
    answer = service.call("POST", "/v1/chat/completions", "app", json=asked).json()
    assert answer["choices"][0]["message"]["content"] == f"ft-{short_id}"


def test_models_are_served_from_the_snapshot_on_disk_while_the_database_is_away(
    client: openai.OpenAI, service: Service, played: None
) -> None:
    file = client.files.create(file=("train.jsonl", TWELVE), purpose="fine-tune")
    job = client.fine_tuning.jobs.create(training_file=file.id, model="small")
    service.work(own_job_id(job.id))
    name = str(client.fine_tuning.jobs.retrieve(job.id).fine_tuned_model)
    service.context.snapshot.refresh()
    service.context.snapshot.save()

    other = Snapshot(service.context.database, home=service.settings.home)
    assert other.restore() is not None
    assert other.view.tuned[name].adapter == f"ft-{job.id.removeprefix('ftjob-')}"


def test_adapters_that_are_named_are_known_to_whoever_deletes_some(
    client: openai.OpenAI, service: Service, played: None
) -> None:
    file = client.files.create(file=("train.jsonl", TWELVE), purpose="fine-tune")
    job = client.fine_tuning.jobs.create(training_file=file.id, model="small")
    service.work(own_job_id(job.id))
    short_id = job.id.removeprefix("ftjob-")

    client.models.delete(f"ft:small:turnout::{short_id}:ckpt-step-4")
    with service.context.database.read() as session:
        named = {name for name in named_adapters(session) if short_id in name}
    assert named == {f"ft-{short_id}", f"ft-{short_id}-step-8"}


def refused(said: str) -> Any:
    def plan(*_: Any) -> Any:
        raise BadInput(said, param="examples")

    return plan


def test_rows_that_are_too_long_are_named_by_their_lines(
    client: openai.OpenAI, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planning, "plan", refused("train row 2: 9000 tokens exceed the context; dev row 0: empty"))
    training = client.files.create(file=("train.jsonl", b"\n" + TWELVE), purpose="fine-tune")
    validation = client.files.create(file=("valid.jsonl", TWELVE), purpose="fine-tune")
    job = client.fine_tuning.jobs.create(training_file=training.id, validation_file=validation.id, model="small")
    service.work(own_job_id(job.id))

    error = client.fine_tuning.jobs.retrieve(job.id).error
    assert error is not None
    assert error.code == "invalid_training_file"
    assert error.message == ("training file, line 4: 9000 tokens exceed the context; validation file, line 1: empty")


@pytest.mark.parametrize(
    ("at_fault", "code", "param"),
    [("model", "invalid_model", "model"), ("examples", "invalid_training_file", "training_file")],
)
def test_a_training_that_is_refused_says_whether_the_model_or_the_file_is_at_fault(
    client: openai.OpenAI, service: Service, played: None, monkeypatch: pytest.MonkeyPatch,
    at_fault: str, code: str, param: str,
) -> None:  # fmt: skip
    refusal = {"type": "refused", "reasons": ["a layer is missing"], "param": at_fault}
    monkeypatch.setattr(running, "train", lambda *_: refusal)
    job_id = start(client)
    service.work(own_job_id(job_id))

    error = client.fine_tuning.jobs.retrieve(job_id).error
    assert error is not None
    assert (error.code, error.param, error.message) == (code, param, "a layer is missing")


def test_a_training_that_diverges_says_what_to_change(
    client: openai.OpenAI, service: Service, played: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running, "train", lambda *_: {"type": "diverged", "reasons": ["step 3 gave the loss nan"]})
    file = client.files.create(file=("train.jsonl", TWELVE), purpose="fine-tune")
    job = client.fine_tuning.jobs.create(training_file=file.id, model="small")
    service.work(own_job_id(job.id))

    failed = client.fine_tuning.jobs.retrieve(job.id)
    assert failed.error is not None
    assert (failed.status, failed.error.code, failed.error.param) == ("failed", "training_diverged", "hyperparameters")
    newest = client.fine_tuning.jobs.list_events(job.id, limit=1).data[0]
    assert (newest.level, "learning_rate_multiplier" in newest.message) == ("error", True)


def test_a_job_that_failed_at_its_end_goes_on_and_does_nothing_twice(
    client: openai.OpenAI, service: Service, played: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> Any:
        raise StorageFailed("the disk is full")

    file = client.files.create(file=("train.jsonl", TWELVE), purpose="fine-tune")
    job = client.fine_tuning.jobs.create(training_file=file.id, model="small")
    with monkeypatch.context() as patch:
        patch.setattr(Files, "keep_result", fail)
        service.work(own_job_id(job.id))
    failed = client.fine_tuning.jobs.retrieve(job.id)
    assert failed.error is not None
    assert (failed.status, failed.error.code, failed.error.message) == ("failed", "server_error", "the disk is full")

    client.fine_tuning.jobs.resume(job.id)
    service.work(own_job_id(job.id))

    ended = client.fine_tuning.jobs.retrieve(job.id)
    assert (ended.status, ended.error, len(ended.result_files)) == ("succeeded", None, 1)
    said = [event.message for event in client.fine_tuning.jobs.list_events(job.id)]
    for told in ("New fine-tuned model created", "Checkpoint created at step 4", "Fine-tuning job started", "Step 3/8"):
        assert len([one for one in said if one.startswith(told)]) == 1


def planned_with_its_spec(claim: Claim, spec: Any, data: Data) -> dict[str, Any]:
    lineage = {"examples": data.examples, "dataset_digest": data.digest}
    job = JobSpec(
        job_id=claim.job_id, base_folder=claim.folder, output_dir=claim.folder, train=data.train, lineage=lineage
    )
    write_spec(job, claim.folder / "spec.json")
    return PLANNED


@pytest.mark.parametrize(("is_planned", "status"), [(True, "succeeded"), (False, "failed")])
def test_a_job_whose_file_is_deleted_goes_on_once_it_is_planned(
    client: openai.OpenAI,
    service: Service,
    played: None,
    monkeypatch: pytest.MonkeyPatch,
    is_planned: bool,
    status: str,
) -> None:
    def fail(*_: Any) -> Any:
        raise StorageFailed("the disk is full")

    file = client.files.create(file=("train.jsonl", TWELVE), purpose="fine-tune")
    job = client.fine_tuning.jobs.create(training_file=file.id, model="small")
    monkeypatch.setattr(planning, "plan", planned_with_its_spec if is_planned else fail)
    with monkeypatch.context() as patch:
        patch.setattr(Files, "keep_result", fail)
        service.work(own_job_id(job.id))
    client.files.delete(file.id)
    client.fine_tuning.jobs.resume(job.id)
    service.work(own_job_id(job.id))

    ended = client.fine_tuning.jobs.retrieve(job.id)
    said = ended.error.message if ended.error else None
    assert (ended.status, said) == (status, None if is_planned else f"training file {file.id}: it was deleted")


def train_in_epochs(folder: Path, tell: Any, behind: Callable[[int], None] = lambda _: None) -> dict[str, Any]:
    """Four epochs of two steps, of which the newest three keep their snapshots; `behind` each epoch comes what a test does."""
    snapshots = folder / "training" / "snapshots"
    for number, step in enumerate((2, 4, 6, 8), 1):
        write_adapter(snapshots / f"step-{step:08d}", {"step": step})
        if step == 8:
            shutil.rmtree(snapshots / "step-00000002")
        tell("training", line=number, event={"type": "snapshot", "step": step})
        behind(step)
    (folder / "training" / "events.jsonl").write_text("")
    write_adapter(folder / "training" / "adapter", {})
    return {"type": "finished"}


def start(client: openai.OpenAI) -> str:
    file = client.files.create(file=("train.jsonl", TWELVE), purpose="fine-tune")
    return client.fine_tuning.jobs.create(training_file=file.id, model="small").id


def on_the_shelf(service: Service, job_id: str) -> set[str]:
    """The adapters of a job: those that have a row, which are those that have files."""
    prefix = f"ft-{job_id.removeprefix('ftjob-')}"
    with service.context.database.read() as session:
        known = {one["name"] for one in routes.adapters(session) if one["name"].startswith(prefix)}
    assert {path.name for path in service.settings.adapters_dir.glob(f"{prefix}*")} == known
    return {name.removeprefix(prefix) for name in known}


def test_a_checkpoint_that_the_training_has_dropped_is_served_no_longer_and_its_adapter_deleted(
    client: openai.OpenAI, service: Service, played: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running, "train", lambda folder, _, tell, *more: train_in_epochs(folder, tell))
    job_id = start(client)
    service.work(own_job_id(job_id))

    assert [one.step_number for one in client.fine_tuning.jobs.checkpoints.list(job_id)] == [8, 6, 4]
    assert on_the_shelf(service, job_id) == {"", "-step-4", "-step-6", "-step-8"}
    training = service.settings.home / "jobs" / own_job_id(job_id) / "training"
    assert not (training / "snapshots").exists()
    assert adapter.is_complete(training / "adapter")  # of the same weights as the checkpoint that went


def test_the_adapter_of_a_dropped_checkpoint_stays_where_a_route_names_it(
    client: openai.OpenAI, service: Service, played: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def give_traffic(step: int) -> None:
        if step == 2:
            variant = f"other.prompt@1+small+ft-{job_id.removeprefix('ftjob-')}-step-2"
            with service.context.database.write() as session:
                revise(session, {"variants": [{"variant": variant, "percent": 100}]}, prompt="other.prompt")

    monkeypatch.setattr(running, "train", lambda folder, _, tell, *more: train_in_epochs(folder, tell, give_traffic))
    job_id = start(client)
    service.work(own_job_id(job_id))

    assert [one.step_number for one in client.fine_tuning.jobs.checkpoints.list(job_id)] == [8, 6, 4]
    assert on_the_shelf(service, job_id) == {"", "-step-2", "-step-4", "-step-6", "-step-8"}


def test_a_checkpoint_that_somebody_deletes_while_its_job_runs_is_not_served_again(
    client: openai.OpenAI, service: Service, played: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def delete(step: int) -> None:
        if step == 4:
            client.models.delete(f"ft:small:turnout::{job_id.removeprefix('ftjob-')}:ckpt-step-4")

    monkeypatch.setattr(running, "train", lambda folder, _, tell, *more: train_in_epochs(folder, tell, delete))
    job_id = start(client)
    service.work(own_job_id(job_id))

    assert client.fine_tuning.jobs.retrieve(job_id).status == "succeeded"
    assert [one.step_number for one in client.fine_tuning.jobs.checkpoints.list(job_id)] == [8, 6]

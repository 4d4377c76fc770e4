"""Whole jobs on the tiny model, in processes of their own."""

from __future__ import annotations

import json
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from finetune import adapter
from finetune.plan import JobSpec, Recipe
from tests.finetune.conftest import events_of, make_rows, run_job, start_job
from tests.finetune.forking import ROOT, Job

pytestmark = pytest.mark.integration
MakeSpec = Callable[..., JobSpec]


def wait_for(spec: JobSpec, process: Job, kind: str, count: int = 1) -> None:
    deadline_s = time.monotonic() + 180
    while sum(event["type"] == kind for event in events_of(spec)) < count:
        assert process.poll() is None, f"ended with {process.returncode} before {count} × {kind}"
        assert time.monotonic() < deadline_s
        time.sleep(0.005)


def leave_no_room() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))  # any larger file: no room, as on a full disk


def long_job(make_spec: MakeSpec, name: str) -> JobSpec:
    """Some thousand steps, too many to end by themselves."""
    return make_spec(name, recipe=Recipe(min_steps=100_000, patience=0, lr=1e-6), dev=(), checkpoint_every_steps=0)


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # peft 0.21's call
@pytest.mark.long
def test_a_constant_answer_is_learnt_and_the_adapter_is_what_peft_loads(make_spec: MakeSpec):
    import peft
    import torch
    import transformers

    spec = make_spec(lineage={"suite": "support"}, adapter_name="triage-1", created_at="2025-01-01T00:00:00Z")
    assert run_job(spec) == 0

    events = events_of(spec)
    assert events[0]["type"] == "started"
    assert events[0]["rows"] == {"train": 16, "dev": 8}
    assert events[-1]["type"] == "finished"
    assert events[-1]["dev_exact"] == 1.0
    assert events[-1]["seconds"] < 30
    manifest = adapter.verify(spec.output_dir / "adapter")
    assert events[-1]["digest"] == manifest.digest
    assert (manifest.name, manifest.created_at) == ("triage-1", "2025-01-01T00:00:00Z")
    assert manifest.lineage == {"suite": "support"}
    assert manifest.base.digest == adapter.base_digest(spec.base_folder)
    assert manifest.recipe == events[-1]["recipe"] == spec.recipe.model_dump()
    scores, told = manifest.scores, [event for event in events if event["type"] == "evaluated"]
    assert [one["step"] for one in scores["evaluations"]] == [event["step"] for event in told]
    assert scores["train_loss_last"] < scores["train_loss_first"] / 10
    assert scores["seeds"] == [{"seed": 0, "dev_exact": 1.0, "dev_loss": scores["dev_loss"], "diverged": ""}]
    stop = next(event for event in events if event["type"] == "decision")
    assert (stop["what"], stop["because"]) == ("stop early", "every dev answer was exact twice in a row")
    assert stop["step"] == scores["steps"] < stop["of"] == 60
    left = {path.name for path in spec.output_dir.iterdir()}
    assert left == {".lock", "adapter", "events.jsonl", "spec.json", "trials"}

    base = transformers.AutoModelForCausalLM.from_pretrained(spec.base_folder)
    loaded = peft.PeftModel.from_pretrained(base, spec.output_dir / "adapter").eval()
    assert manifest.canary is not None
    with torch.no_grad():
        logits = loaded(input_ids=torch.tensor([manifest.canary.ids])).logits[0, -1, :16].tolist()
    assert logits == pytest.approx(manifest.canary.logits, rel=1e-4, abs=1e-5)
    assert logits != pytest.approx(manifest.canary.base_logits, rel=1e-2)
    assert not any("lm_head" in name or "embed" in name for name in loaded.peft_config["default"].target_modules)

    assert run_job(spec) == 0  # done already
    assert events_of(spec) == events


@pytest.mark.long
def test_a_job_killed_at_random_steps_ends_in_the_same_adapter(make_spec: MakeSpec):
    recipe = Recipe(lr=3e-3, rank=4, alpha=8.0, min_steps=60, dropout=0.1, patience=0)
    rows = tuple(row.model_copy(update={"answer": f"{at % 3}"}) for at, row in enumerate(make_rows(24)))
    common = {"recipe": recipe, "train": rows[:16], "dev": rows[16:], "checkpoint_every_steps": 5}
    whole, broken = make_spec("whole", **common), make_spec("broken", **common)
    assert run_job(whole) == 0

    chance = random.Random(3)  # noqa: S311  a repeatable test, no secret
    for steps in sorted(chance.sample(range(6, 50), 3)):
        with start_job(broken) as process:
            wait_for(broken, process, "step", steps)
            process.kill()
    assert run_job(broken) == 0

    names = ("adapter_model.safetensors", "adapter_config.json", "turnout-adapter.json")
    for name in names:
        assert (broken.output_dir / "adapter" / name).read_bytes() == (whole.output_dir / "adapter" / name).read_bytes()
    told = [event for event in events_of(broken) if event["type"] == "step"]
    assert [event["step"] for event in told] == list(range(1, 61))
    assert [event["loss"] for event in told] == [e["loss"] for e in events_of(whole) if e["type"] == "step"]
    assert sum(event["type"] == "resumed" for event in events_of(broken)) >= 1


@pytest.mark.long
def test_a_torn_checkpoint_is_passed_over_for_the_one_before(make_spec: MakeSpec):
    spec = make_spec(recipe=Recipe(lr=1e-3, rank=4, patience=0), checkpoint_every_steps=10, dev=())
    with start_job(spec) as process:
        wait_for(spec, process, "checkpoint", 3)
        process.kill()
    newest = sorted((spec.output_dir / "checkpoints").glob("step-*"))[-1]
    (newest / "state.safetensors").write_bytes(b"torn")
    assert run_job(spec) == 0
    resumed = [event["step"] for event in events_of(spec) if event["type"] == "resumed"]
    assert resumed == [int(newest.name.removeprefix("step-")) - 10]


def test_cancelling_saves_and_ends_within_two_seconds(make_spec: MakeSpec):
    spec = long_job(make_spec, "cancelled")
    with start_job(spec) as process:
        wait_for(spec, process, "step", 20)
        asked_s = time.monotonic()
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 130
        assert time.monotonic() - asked_s < 2
    last = events_of(spec)[-1]
    assert last["type"] == "cancelled"
    assert last["step"] >= 20
    assert (spec.output_dir / "checkpoints" / f"step-{last['step']:08d}" / "checkpoint.json").exists()


def test_a_job_ends_when_its_parent_is_gone(make_spec: MakeSpec):
    spec = long_job(make_spec, "orphan")
    with start_job(spec) as process:
        wait_for(spec, process, "step", 5)
        process.stdin.close()
        assert process.wait(10) == 130


def test_a_job_that_must_not_start_says_why(make_spec: MakeSpec):
    spec = make_spec("refused", train=(*make_rows(3), make_rows(1, "far too long an answer")[0]), dev=make_rows(1, " "))
    assert run_job(spec) == 2
    (event,) = events_of(spec)
    assert event["type"] == "refused"
    assert event["reasons"][0].startswith("train row 3: its answer has 22 tokens")
    assert event["reasons"][1].startswith("dev row 0: no labelled tokens")
    assert not (spec.output_dir / "adapter").exists()


def test_a_base_that_lacks_weights_is_refused_with_their_names(make_spec: MakeSpec, tiny_model: Path, tmp_path: Path):
    from safetensors.torch import load_file, save_file

    base = Path(shutil.copytree(tiny_model, tmp_path / "torn"))
    weights = load_file(base / "model.safetensors")
    del weights["model.layers.0.self_attn.q_proj.weight"]
    save_file(weights, base / "model.safetensors", {"format": "pt"})
    spec = make_spec("torn-base", base_folder=base)
    assert run_job(spec) == 2
    (event,) = (one for one in events_of(spec) if one["type"] == "refused")
    assert "its weights lack model.layers.0.self_attn.q_proj.weight; get the model anew" in event["reasons"][0]
    assert event["param"] == "model"
    assert not (spec.output_dir / "adapter").exists()


def test_a_full_disk_fails_with_the_bytes_needed_and_leaves_nothing_half_written(make_spec: MakeSpec):
    spec = make_spec("full", checkpoint_every_steps=5, dev=())
    assert run_job(spec, leave_no_room) == 4
    failed = events_of(spec)[-1]
    assert failed["type"] == "failed"
    assert failed["bytes_needed"] > 20_000
    assert list((spec.output_dir / "checkpoints").iterdir()) == []
    assert not any(event["type"] == "checkpoint" for event in events_of(spec))


def test_a_diverging_job_says_so(make_spec: MakeSpec):
    spec = make_spec("diverged", recipe=Recipe(lr=1.0, rank=1, alpha=1e30, patience=0))
    assert run_job(spec) == 4
    last = events_of(spec)[-1]
    assert last["diverged"] is True
    assert "choose a learning rate below 1.0" in last["message"]


def test_a_job_that_runs_already_is_left_alone(make_spec: MakeSpec, monkeypatch: pytest.MonkeyPatch):
    import fcntl

    from finetune import train
    from finetune.guard import Guard

    monkeypatch.setattr(train, "_LOCK_WAIT_S", 0.0)
    spec = make_spec("busy")
    spec.output_dir.mkdir()
    with (spec.output_dir / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert train.run(spec, Guard()) == 4
    assert [path.name for path in spec.output_dir.iterdir()] == [".lock"]


@pytest.mark.long
def test_bad_usage_and_a_bad_spec_exit_with_2(tmp_path: Path):
    (tmp_path / "spec.json").write_text("{}")
    for arguments in ([], [str(tmp_path / "spec.json")], [str(tmp_path / "missing.json")]):
        command = [sys.executable, "-P", "-m", "finetune", *arguments]
        done = subprocess.run(command, env={"PYTHONPATH": str(ROOT)}, capture_output=True, check=False)
        assert done.returncode == 2
    assert json.loads(done.stderr.decode().splitlines()[-1])["type"] == "refused"


def test_data_plan_and_adapter_import_neither_torch_nor_transformers():
    imports = "import sys, finetune.data, finetune.plan, finetune.adapter"
    code = f"{imports}; print({{'torch', 'transformers', 'peft'}} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": str(ROOT)}, capture_output=True, check=True)
    assert done.stdout.decode().strip() == "set()"

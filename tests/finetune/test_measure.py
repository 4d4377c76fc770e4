"""The trial of a job before it starts: real steps in a process of its own, and the ways that its memory asks for."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from finetune.plan import JobSpec, Measured, write_spec
from tests.finetune.conftest import events_of, make_rows
from tests.finetune.forking import ROOT, Job

pytestmark = pytest.mark.integration
MakeSpec = Callable[..., JobSpec]
MIB = 2**20


def test_a_trial_writes_what_steps_take_and_trains_nothing(make_spec: MakeSpec):
    spec = make_spec()
    path = spec.output_dir.parent / "spec.json"
    write_spec(spec, path)
    command = [sys.executable, "-P", "-m", "finetune", "--trial", str(path)]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=env, stdin=subprocess.DEVNULL, capture_output=True, timeout=120)
    assert done.returncode == 0, done.stderr.decode()
    found = Measured.model_validate_json((spec.output_dir.parent / "measured.json").read_bytes())
    assert (found.device, found.precision, found.fits, found.reason) == ("cpu", "float32", True, "")
    assert 0 < found.step_s <= found.largest_step_s < found.load_s < 60
    assert found.row_s == pytest.approx(found.step_s / 8)
    assert found.score_row_s > 0
    assert 50 * MIB < found.peak_bytes < found.free_bytes
    ways = {"gradient_checkpointing": False, "four_bit": False, "devices": 1, "compile": False}
    assert found.ways() == {"pack_tokens": spec.pack_tokens, **ways}
    assert not (spec.output_dir / "adapter").exists()


def test_rows_that_must_not_be_trained_on_are_refused_before_any_step(make_spec: MakeSpec):
    spec = make_spec(train=make_rows(3, " "))
    write_spec(spec, spec.output_dir.parent / "spec.json")
    with Job(spec.output_dir.parent, ["--trial", str(spec.output_dir.parent / "spec.json")]) as job:
        assert job.wait(120) == 2
    assert events_of(spec)[-1]["type"] == "refused"
    assert "train row 0: no labelled tokens" in events_of(spec)[-1]["reasons"][0]
    assert not (spec.output_dir.parent / "measured.json").exists()


class FakeMemory:
    """Memory that a test decides: every token of a pass takes `token_bytes`, a fifth of it with checkpointed layers."""

    def __init__(self, free_bytes: int, token_bytes: int) -> None:
        self.free, self.token_bytes, self.peak = free_bytes, token_bytes, 0

    def take(self, base: Any, pack: Any) -> None:
        saved = any(getattr(module, "gradient_checkpointing", False) for module in base.modules())
        self.peak = max(self.peak, pack.tokens * self.token_bytes // (5 if saved else 1))


@pytest.mark.parametrize(
    ("free_bytes", "fits", "checkpointed", "in_passes"),
    [(10_000 * MIB, True, False, False), (100 * MIB, True, False, True), (50 * MIB, True, True, False),
     (20 * MIB, True, True, True), (10 * MIB, False, False, False)],
)  # fmt: skip
def test_ways_are_taken_only_where_memory_asks_for_them(
    make_spec: MakeSpec, monkeypatch, free_bytes: int, fits: bool, checkpointed: bool, in_passes: bool
):
    from finetune import measure, memory, scoring
    from finetune.events import Events
    from finetune.guard import Guard

    fake, real = FakeMemory(free_bytes, MIB), scoring.loss_sum

    def loss_sum(base: Any, pack: Any) -> Any:
        fake.take(base, pack)
        return real(base, pack)

    monkeypatch.setattr(scoring, "loss_sum", loss_sum)
    monkeypatch.setattr(memory, "held_bytes", lambda device: 0)
    monkeypatch.setattr(memory, "free_bytes", lambda device: fake.free)
    monkeypatch.setattr(memory, "forget_peak", lambda device: setattr(fake, "peak", 0))
    monkeypatch.setattr(memory, "peak_bytes", lambda device: fake.peak)
    spec = make_spec(threads=None)
    spec.output_dir.mkdir(parents=True)
    events = Events(spec.output_dir / "events.jsonl")
    found = measure.measure(spec, events, Guard(), time.monotonic())
    events._file.close()
    assert (found.fits, found.gradient_checkpointing) == (fits, checkpointed)
    assert (found.pack_tokens < spec.pack_tokens) == in_passes
    assert ("gradient checkpointing" in " ".join(found.decisions)) == checkpointed
    assert ("in passes of" in " ".join(found.decisions)) == in_passes
    if fits:
        assert found.peak_bytes <= 0.9 * free_bytes
    else:
        assert "needs more than the 0.0 GiB that are free here; " in found.reason
        assert (
            "free memory, shorten the longest example" in found.reason
        )  # behind the extra `quantize`, where that lacks


def test_the_peak_of_memory_is_that_since_it_was_forgotten():
    import torch

    from finetune import memory

    cpu = torch.device("cpu")
    if not Path("/proc/self/clear_refs").exists():
        pytest.skip("only Linux forgets a peak")
    held = memory.held_bytes(cpu)
    memory.forget_peak(cpu)
    torch.ones(64 * MIB, dtype=torch.uint8)
    assert 60 * MIB < memory.peak_bytes(cpu) - held < 100 * MIB
    memory.forget_peak(cpu)
    assert memory.peak_bytes(cpu) - held < 30 * MIB
    assert memory.free_bytes(cpu) > 0


def measured_here(spec: JobSpec) -> Measured:
    from finetune import measure
    from finetune.events import Events
    from finetune.guard import Guard

    spec.output_dir.mkdir(parents=True)
    with Events(spec.output_dir / "events.jsonl") as events:
        return measure.measure(spec, events, Guard(), time.monotonic())


def test_what_one_device_does_not_hold_is_tried_on_all_of_them(make_spec: MakeSpec, monkeypatch):
    from finetune import memory

    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setattr(memory, "device_count", lambda device: 2)
    monkeypatch.setattr(memory, "free_bytes", lambda device: MIB // 8)  # of this process, which tries one device alone
    found = measured_here(make_spec())
    assert (found.fits, found.devices, found.ways()["devices"]) == (True, 2, 2)
    assert len(found.device_free_bytes) == 2
    assert found.free_bytes == min(found.device_free_bytes)
    assert found.step_s > 0
    (why,) = found.decisions
    assert why.startswith(
        "2 devices share the base model, since one alone does not hold the training: 0.0 GiB of its 0.0"
    )
    assert "free are " in why


def test_where_all_devices_together_do_not_hold_it_either_the_reason_says_both(make_spec: MakeSpec, monkeypatch):
    from finetune import measure, memory, quantize

    tried = []

    def apart(spec: JobSpec, name: str, limit_s: float) -> tuple[None, str]:
        tried.append((name, spec.devices, spec.gradient_checkpointing))
        return None, "out of memory"

    monkeypatch.setattr(measure, "_apart", apart)
    monkeypatch.setattr(quantize, "is_possible", lambda device: False)
    monkeypatch.setattr(memory, "device_count", lambda device: 4)
    monkeypatch.setattr(memory, "free_bytes", lambda device: MIB // 8)
    found = measured_here(make_spec())
    assert tried == [("shared-0", 4, False), ("shared-1", 4, True)]
    assert (found.fits, found.devices) == (False, 1)
    assert "its weights take 0.0 GiB" in found.reason
    assert "nor do 4 devices that share it hold it (out of memory)" in found.reason


def test_one_of_several_devices_is_enough_where_the_training_fits_on_it(make_spec: MakeSpec, monkeypatch):
    from finetune import memory

    monkeypatch.setattr(memory, "device_count", lambda device: 2)
    found = measured_here(make_spec())
    assert (found.fits, found.devices) == (True, 1)
    assert "one of 2 devices: the training fits on it" in found.decisions[-1]


@pytest.mark.long
def test_compiled_layers_are_tried_apart_and_taken_only_where_they_repay_it(make_spec: MakeSpec, monkeypatch):
    from finetune import compiling

    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setattr(compiling, "is_possible", lambda found: True)
    monkeypatch.setattr(compiling, "not_worth_trying", lambda found, steps: "")
    monkeypatch.setattr(compiling, "limit_s", lambda found, steps: 120.0)
    found = measured_here(make_spec())
    assert not found.compile  # tracing alone makes nothing faster
    assert "layers are not compiled: a step takes" in found.decisions[-1]
    assert " more" in found.decisions[-1]

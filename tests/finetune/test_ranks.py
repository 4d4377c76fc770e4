"""A base model that two processes share: the same losses and gradients as one, the same files, and the same end when killed."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from finetune import adapter
from finetune.encoding import EncodedRow
from finetune.plan import JobSpec, Recipe
from tests.finetune.conftest import events_of, make_rows, run_job, start_job
from tests.finetune.forking import Job
from tests.finetune.test_durability import NAMES, searching
from tests.finetune.test_job import wait_for
from tests.finetune.test_lora import load_double
from tests.finetune.test_step import encoded, gradient, same

pytestmark = pytest.mark.integration
MakeSpec = Callable[..., JobSpec]
LOST = 5


def of_two(make_spec: MakeSpec, name: str, **changes: Any) -> JobSpec:
    given = {"devices": 2, "recipe": Recipe(lr=3e-3, rank=4, alpha=8.0, epochs=1, min_steps=12, evals_per_epoch=2)}
    return make_spec(name, **{**given, "checkpoint_every_steps": 2, **changes})


def losses(spec: JobSpec) -> list[float]:
    return [event["loss"] for event in events_of(spec) if event["type"] == "step"]


def weights(spec: JobSpec) -> dict[str, Any]:
    import safetensors.torch

    return safetensors.torch.load_file(spec.output_dir / "adapter" / adapter.WEIGHTS)


def children_of(process: Job) -> list[int]:
    found = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    tasks = Path(f"/proc/{process.pid}/task").glob("*/children")
    return sorted({int(pid) for pid in found} | {int(pid) for task in tasks for pid in task.read_text().split()})


def is_gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def await_gone(pid: int, within_s: float) -> None:
    deadline_s = time.monotonic() + within_s
    while not is_gone(pid):
        assert time.monotonic() < deadline_s, f"process {pid} is still there"
        time.sleep(0.01)


@pytest.mark.long
def test_two_ranks_train_the_adapter_of_one_process(make_spec: MakeSpec):
    import torch

    alone, two = of_two(make_spec, "alone", devices=1), of_two(make_spec, "two")
    assert run_job(alone) == 0
    assert run_job(two) == 0, (two.output_dir / "events.jsonl").read_text()
    assert losses(two) == pytest.approx(losses(alone), rel=1e-4)
    assert len(losses(two)) == 12
    expected, found = weights(alone), weights(two)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-2, atol=1e-4)
    one, other = adapter.verify(alone.output_dir / "adapter"), adapter.verify(two.output_dir / "adapter")
    assert one.files["adapter_config.json"] == other.files["adapter_config.json"]
    assert one.canary is not None
    assert other.canary is not None
    assert other.canary.logits == pytest.approx(one.canary.logits, rel=1e-2, abs=1e-3)
    assert {event["type"] for event in events_of(two)} == {event["type"] for event in events_of(alone)}
    assert not (two.output_dir / "ranks").exists()


@pytest.mark.timeout(600)  # ten processes, one after another, each of which imports torch
@pytest.mark.slow
def test_whichever_rank_is_killed_the_job_ends_the_same_and_no_process_is_left(make_spec: MakeSpec):
    whole = searching(make_spec, "whole").model_copy(update={"devices": 2})
    broken = searching(make_spec, "broken").model_copy(update={"devices": 2})
    assert run_job(whole) == 0
    with start_job(broken) as process:
        wait_for(broken, process, "step", 7)
        (helper,) = children_of(process)
        os.kill(helper, signal.SIGKILL)
        assert process.wait(10) == LOST
    assert events_of(broken)[-1]["type"] != "failed"
    with start_job(broken) as process:
        wait_for(broken, process, "step", 20)
        (helper,) = children_of(process)
        process.kill()
        process.wait(10)
        await_gone(helper, 2.0)
    with start_job(broken) as process:
        wait_for(broken, process, "step", 33)
        (helper,) = children_of(process)
        asked_s = time.monotonic()
        process.terminate()
        assert process.wait(10) == 130
        await_gone(helper, 2.0)
        assert time.monotonic() - asked_s < 2
    assert run_job(broken) == 0
    for name in NAMES:
        assert (broken.output_dir / "adapter" / name).read_bytes() == (whole.output_dir / "adapter" / name).read_bytes()


def test_rows_are_dealt_out_so_that_each_rank_has_about_as_much():
    from finetune.sharding import share_of

    rows = [EncodedRow(tuple(range(length)), 2) for length in (9, 3, 8, 4, 5)]
    shares = [share_of(rows, rank, 2) for rank in (0, 1)]
    assert [[len(row.ids) for row in share] for share in shares] == [[9, 5, 3], [8, 4]]
    assert share_of(rows[:1], 1, 2) == []


def test_where_memory_runs_out_on_a_rank_all_begin_again_with_smaller_passes(make_spec: MakeSpec, monkeypatch):
    from finetune import ranks, scoring, sharding, train

    spec = make_spec()
    base, rows = load_double(spec).get_base_model(), encoded(spec, make_rows(8))
    whole, expected = gradient(base, rows)
    together = sharding.accumulate(base, rows, 4096)  # of a single rank
    assert together == whole
    same([param.grad for param in base.parameters() if param.requires_grad], expected)
    monkeypatch.setattr(scoring, "loss_sum", lambda model, pack: (_ for _ in ()).throw(MemoryError))
    with pytest.raises(ranks.RankOutOfMemoryError, match="memory ran out on rank 0: passes hold") as raised:
        sharding.accumulate(base, rows, 4096)
    assert ranks.room(spec) == 4096
    assert train._begin_again(spec, raised.value) == LOST
    assert ranks.room(spec) == raised.value.pack_tokens < whole.packed_tokens


@pytest.mark.slow
def test_ranks_take_as_many_passes_as_the_one_that_needs_most(make_spec: MakeSpec):
    from finetune import ranks

    free = of_two(make_spec, "free", train=make_rows(5), dev=())  # a batch of 5: 3 rows for one rank, 2 for the other
    tight = of_two(make_spec, "tight", train=make_rows(5), dev=())
    ranks.keep_room(tight, 1)  # a row a pass
    assert run_job(free) == 0
    assert run_job(tight) == 0
    assert losses(tight) == pytest.approx(losses(free), rel=1e-4)
    packed = [sum(event.get("packed_tokens", 0) for event in events_of(spec)) for spec in (free, tight)]
    assert packed[0] < packed[1]

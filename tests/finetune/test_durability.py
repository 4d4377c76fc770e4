"""A job that is killed at any moment ends in the identical adapter, and has told the same."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from finetune.plan import JobSpec, Recipe, Search
from tests.finetune.conftest import events_of, make_rows, run_job, start_job
from tests.finetune.forking import ROOT
from tests.finetune.test_job import long_job, wait_for

pytestmark = [
    pytest.mark.integration,
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),  # peft 0.21's call
]
MakeSpec = Callable[..., JobSpec]
MEASURED = {"seconds", "tokens_per_s", "tokens_per_cpu_s", "memory_bytes"}  # what the machine decides
NAMES = ("adapter_model.safetensors", "adapter_config.json", "turnout-adapter.json")


class Killed(BaseException):
    """Stands for a kill: no handler of the job catches it, and what is not on the disk is lost."""


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """A job sets what torch shares in a process: put it back."""
    import torch

    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(deterministic)


def searching(make_spec: MakeSpec, name: str) -> JobSpec:
    rows = tuple(row.model_copy(update={"answer": f"{at % 2}"}) for at, row in enumerate(make_rows(20)))
    return make_spec(
        name,
        train=rows[:14],
        dev=rows[14:],
        recipe=Recipe(lr=3e-3, rank=4, alpha=8.0, epochs=2, min_steps=6, dropout=0.1),
        search=Search(lr_grid=(1e-3, 3e-3), epochs_grid=(1, 2), folds=2, seeds=(0, 1, 2), find_mislabelled=True),
        checkpoint_every_steps=2,
    )


def run_here(spec: JobSpec) -> int:
    from finetune import train
    from finetune.guard import Guard

    return train.run(spec, Guard())


def killed(spec: JobSpec, patch: pytest.MonkeyPatch, is_fatal: Callable[[str], bool]) -> bool:
    """Run the job until `is_fatal` of a moment's name; whether it came to that. Moments: before and after each write."""
    from finetune import durable
    from finetune.events import Events

    def fatal(original: Callable[..., Any], name: Callable[..., str]) -> Callable[..., Any]:
        def called(*given: Any, **known: Any) -> Any:
            if is_fatal(f"before {name(*given)}"):
                raise Killed
            result = original(*given, **known)
            if is_fatal(f"after {name(*given)}"):
                raise Killed
            return result

        return called

    with patch.context() as inside:
        inside.setattr(Events, "tell", fatal(Events.tell, lambda events, kind: kind))
        inside.setattr(durable, "_write_through", fatal(durable._write_through, lambda path, content: path.name))
        inside.setattr(durable, "flush_folder", fatal(durable.flush_folder, lambda folder: folder.name))
        try:
            assert run_here(spec) == 0
        except Killed:
            return True
    return False


def story(spec: JobSpec) -> list[dict[str, Any]]:
    """What a job told, without how long it took and that it was resumed."""
    kept = [event for event in events_of(spec) if event["type"] != "resumed"]
    return [{name: value for name, value in event.items() if name not in MEASURED} for event in kept]


def assert_same(broken: JobSpec, whole: JobSpec) -> None:
    for name in NAMES:
        assert (broken.output_dir / "adapter" / name).read_bytes() == (whole.output_dir / "adapter" / name).read_bytes()
    assert story(broken) == story(whole)
    assert not (broken.output_dir / "checkpoints").exists()
    assert not list((broken.output_dir / "trials").glob("*.safetensors"))


@pytest.mark.long
def test_killed_at_twenty_random_moments_of_a_search_a_job_ends_the_same(
    make_spec: MakeSpec, monkeypatch: pytest.MonkeyPatch
):
    whole, broken = searching(make_spec, "whole"), searching(make_spec, "broken")
    assert run_here(whole) == 0
    chance, kills = random.Random(11), 0  # noqa: S311  a repeatable test, no secret

    def once() -> bool:
        moments, last = count(), chance.randrange(5, 26)
        return killed(broken, monkeypatch, lambda _: next(moments) == last)

    while once():
        kills += 1
        assert kills < 200
    assert kills >= 20
    assert_same(broken, whole)


def test_killed_around_each_kind_of_moment_a_job_ends_the_same(make_spec: MakeSpec, monkeypatch: pytest.MonkeyPatch):
    whole, broken = searching(make_spec, "whole"), searching(make_spec, "broken")
    assert run_here(whole) == 0
    moments = [
        f"{side} {name}"
        for name in (
            "started", "evaluated", "trial", ".trial-0-1.json.draft", "decision", ".mislabelled.json.draft", "mislabelled",
            ".seed-1.safetensors.draft", ".seed-1.json.draft", "turnout-adapter.json", "finished",
        )
        for side in ("before", "after")
    ]  # fmt: skip
    assert [moment for moment in moments if not killed(broken, monkeypatch, moment.__eq__)] == []
    assert not killed(broken, monkeypatch, lambda _: False)
    assert_same(broken, whole)


@pytest.mark.slow
def test_really_killed_in_a_search_a_job_ends_the_same(make_spec: MakeSpec):
    whole, broken = searching(make_spec, "whole"), searching(make_spec, "broken")
    assert run_job(whole) == 0
    for steps in (7, 20, 33):
        with start_job(broken) as process:
            wait_for(broken, process, "step", steps)
            process.send_signal(signal.SIGKILL)
    assert run_job(broken) == 0
    assert_same(broken, whole)


def test_a_record_of_another_spec_is_not_taken_for_this_ones(make_spec: MakeSpec, monkeypatch: pytest.MonkeyPatch):
    spec = searching(make_spec, "job")
    assert killed(spec, monkeypatch, "before decision".__eq__)
    other = spec.model_copy(update={"recipe": spec.recipe.model_copy(update={"rank": 2})})
    assert run_here(other) == 0
    assert [event["name"] for event in events_of(other) if event["type"] == "trial"] == [
        "trial-0-0", "trial-0-1", "trial-1-0", "trial-1-1"
    ]  # fmt: skip
    assert not any(event["type"] == "resumed" for event in events_of(other))


@pytest.mark.parametrize(
    "kind",
    [
        *("trial", "checkpoint"),
        *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("started", "evaluated")),  # a process each
    ],
)
@pytest.mark.long
def test_a_cancel_anywhere_in_a_search_ends_within_two_seconds_and_is_told(make_spec: MakeSpec, kind: str):
    spec = searching(make_spec, "cancelled")
    spec = spec.model_copy(update={"recipe": spec.recipe.model_copy(update={"min_steps": 40})})
    with start_job(spec) as process:
        wait_for(spec, process, kind)
        asked_s = time.monotonic()
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 130
        assert time.monotonic() - asked_s < 2
    assert events_of(spec)[-1]["type"] == "cancelled"


@pytest.mark.long
def test_a_cancel_while_the_model_is_loaded_ends_within_two_seconds(make_spec: MakeSpec):
    spec = long_job(make_spec, "loading")
    with start_job(spec) as process:
        deadline_s = time.monotonic() + 60
        while not (spec.output_dir / "events.jsonl").exists():  # made before torch loads the weights
            assert time.monotonic() < deadline_s
            time.sleep(0.01)
        asked_s = time.monotonic()
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 130
        assert time.monotonic() - asked_s < 2
    assert [event["type"] for event in events_of(spec)] == ["cancelled"]


def test_a_cancel_does_not_wait_for_a_save_that_takes_long(tmp_path: Path):
    code = "import time; from finetune.guard import Guard; g = Guard(); g.on_stop = lambda: time.sleep(60); g.stop()"
    asked_s = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env={"PYTHONPATH": str(ROOT)}, check=False)
    assert done.returncode == 130
    assert time.monotonic() - asked_s < 10  # starting Python on a busy machine with it

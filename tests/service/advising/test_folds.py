"""Which rows a training sees, which trainings fit into the minutes, and what they draw."""

from __future__ import annotations

import os
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from finetune.data import Example
from finetune.plan import JobSpec, Judged, Measured, Recipe, Row, Split
from service.advising import announcing, training
from service.advising.energy import PowerMeter, energy
from service.advising.folds import Folds, fit_into, make_folds, wanted
from service.advising.training import Trainings, with_shots
from suites.advice.curve import Measured as Point
from tests.service.advising.conftest import examples

FOLDS = Folds(tuple(row % 3 for row in range(60)))
ROW = Row(messages=({"role": "user", "content": "hi"},), answer="ok")
MEASURED = Measured(device="cpu", precision="float32", load_s=10, step_s=0.8, largest_step_s=1, row_s=0.1, score_row_s=0.05,
                    tokens_per_s=100, peak_bytes=1, free_bytes=2, pack_tokens=100)  # fmt: skip


def draft(**recipe: float) -> JobSpec:
    known = Recipe(**{"epochs": 2, "min_steps": 1, "batch_size": 8, **recipe})  # type: ignore[arg-type]
    return JobSpec(job_id="j", base_folder=Path("b"), output_dir=Path("o"), train=(ROW,) * 60, recipe=known)


def test_near_duplicates_share_a_fold_and_every_answer_is_in_each():
    rows = [Example(one["vars"], one["expected"]) for one in examples(36)]
    twin = Example({"ticket": rows[0].vars["ticket"] + " !"}, rows[0].expected)
    folds = make_folds([*rows, twin])
    assert folds.count == 3
    assert folds.of[0] == folds.of[36]
    for fold in range(3):
        assert {rows[row].expected for row in folds.left_out(fold) if row < 36} == {"billing", "tech", "other"}
        assert set(folds.train(fold)) & set(folds.left_out(fold)) == set()


def test_smaller_parts_are_parts_of_larger_ones():
    quarter, half, whole = (set(FOLDS.part(0, share)) for share in (0.25, 0.5, 1.0))
    assert (len(quarter), len(half), len(whole)) == (10, 20, 40)
    assert quarter < half < whole == set(FOLDS.train(0))


def test_of_many_examples_some_are_asked_and_all_are_trained_on():
    many = Folds(tuple(row % 3 for row in range(1200)))
    assert len(many.asked) == 400
    assert sum(len(many.asked_of(fold)) for fold in range(3)) == 400
    assert len(many.train(0)) == 800
    planned = fit_into(many, draft(), MEASURED, 1e6, with_shots=False, shots_factor=1.0)
    assert planned.splits[0][1].left_out == many.asked_of(0)
    assert FOLDS.asked == tuple(range(60))


def test_a_curve_comes_first_then_folds_and_examples_in_turn():
    names = [name for _, name, _, _ in wanted(FOLDS, with_shots=True)]
    assert names[:3] == ["full-0", "half-0", "quarter-0"]
    assert names[3:8] == ["full-1", "shots-0", "full-2", "shots-1", "shots-2"]
    assert set(names[8:]) == {"half-1", "quarter-1", "half-2", "quarter-2"}
    assert "shots-0" not in [name for _, name, _, _ in wanted(FOLDS, with_shots=False)]


def test_what_fits_into_the_minutes_is_taken_in_that_order():
    full_s, scored_s = 10 * 8 * 0.1, 3 * 20 * 0.05  # ten steps of eight rows; twenty rows, three times
    minutes = (10 + full_s + scored_s + 0.1) / 60
    planned = fit_into(FOLDS, draft(), MEASURED, minutes, with_shots=True, shots_factor=2.0)
    assert [split.name for _, split in planned.splits] == ["full-0"]
    assert planned.seconds == pytest.approx(10 + full_s + scored_s)
    assert planned.left_out == 11
    everything = fit_into(FOLDS, draft(), MEASURED, 60, with_shots=True, shots_factor=2.0)
    assert (len(everything.splits), everything.left_out) == (12, 0)
    assert everything.seconds == pytest.approx(everything.all_s)
    assert len(everything.of("few-shot+lora")) == 3
    assert fit_into(FOLDS, draft(), MEASURED, 0.01, with_shots=False, shots_factor=1.0).splits == ()
    assert planned.all_s == pytest.approx(everything.all_s)
    assert planned.first_s == pytest.approx(planned.seconds)


def test_the_trainings_are_announced_by_what_they_are_for():
    everything = fit_into(FOLDS, draft(), MEASURED, 60, with_shots=True, shots_factor=2.5)
    lines = list(announcing.training_lines(everything, 60, 16, 2.5))
    assert lines[0].startswith(f"trainings  12, about {everything.seconds / 60:.1f} of 60 minutes")
    assert [line.split(" ", 11)[-1] for line in lines[1:]] == [
        "3 of the LoRA, each asked about the examples that it did not see",
        "6 on halves and quarters of their examples, for the learning curve",
        "3 behind 16 examples in the prompt, reckoned at 2.5 times the minutes",
    ]


def test_what_does_not_fit_says_which_minutes_would_do():
    little = fit_into(FOLDS, draft(), MEASURED, 0.5, with_shots=True, shots_factor=2.0)
    enough = int(announcing.all_of_them(little).split()[1])
    assert fit_into(FOLDS, draft(), MEASURED, enough, with_shots=True, shots_factor=2.0).left_out == 0
    assert (
        f"{little.left_out} more would make it surer: --minutes {enough} allows all 12"
        in (list(announcing.training_lines(little, 0.5, 16, 2.0))[-1])
    )
    none = fit_into(FOLDS, draft(), MEASURED, 0.01, with_shots=True, shots_factor=2.0)
    assert announcing.too_short(none, 0.01) == (
        "one training takes about 0.3 minutes here, and 0.01 are allowed: "
        f"--minutes 1 allows one, --minutes {enough} allows all 12"
    )


def test_folds_that_differ_by_a_row_give_one_point_of_the_curve():
    folds = Folds(tuple(row % 3 for row in range(100)))
    names = [(f"{part}-{fold}", fold, share) for part, share in (("full", 1.0), ("half", 0.5)) for fold in range(3)]
    splits = tuple(
        Split(name=name, train=folds.part(fold, share), left_out=folds.left_out(fold)) for name, fold, share in names
    )
    assert {len(split.train) for split in splits} == {33, 34, 66, 67}
    spec = JobSpec(
        job_id="j", base_folder=Path("b"), output_dir=Path("o"), train=(ROW,) * 100, recipe=Recipe(), splits=splits
    )
    results: Any = [
        SimpleNamespace(
            judged=[
                Judged(row=row, answered="ok" if row % 2 else "no", loss=1.0, log_likelihood=-1.0)
                for row in split.left_out
            ]
        )
        for split in splits
    ]
    found = training._trainings(tuple(results), spec, 100, None)
    assert found.points == (Point(34, 50, 100), Point(67, 50, 100))


def test_what_stands_in_the_prompt_is_not_trained_on():
    shots = {0: (1, 4), 2: (0, 3)}
    split = Split(name="shots-2", train=(0, 1, 3, 4), left_out=(2, 5))
    moved = with_shots(split, 2, shots, 6)
    assert moved.train == (7, 10)  # the second fold's rows come behind the six of the first
    assert moved.left_out == (8, 11)


def test_a_device_that_tells_its_power_is_asked_and_else_seconds_are_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho 300.0\necho 100.0\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    with PowerMeter(every_s=0.01) as meter:
        deadline = time.monotonic() + 5
        while meter.mean_watts is None and time.monotonic() < deadline:
            time.sleep(0.01)
    assert meter.mean_watts == 400.0
    assert energy(1800, 9000, meter.mean_watts, 10) == (200.0, "400 W as nvidia-smi tells it, for 1800 s")
    assert energy(1800, 360, None, 10) == (1.0, "an assumed 10 W a busy core, for 360 CPU seconds")


def test_a_machine_without_such_a_device_tells_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with PowerMeter() as meter:
        pass
    assert meter.mean_watts is None


def test_trainings_that_get_most_rows_wrong_call_no_label_mistaken():
    assert [Trainings((), letters, (), (), 24, None).know_the_task for letters in ("110 ", "10", "100 ")] == [
        True,
        True,
        False,
    ]

"""A job that only compares: what each split answers, and that a kill changes nothing."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import pytest
from pydantic import ValidationError

from finetune import adapter
from finetune.plan import JobSpec, Recipe, Split
from tests.finetune.conftest import events_of, run_job, start_job

MakeSpec = Callable[..., JobSpec]
RECIPE = Recipe(lr=1e-2, rank=4, alpha=8.0, epochs=50, min_steps=60)
SPLITS = (
    Split(name="full-0", train=tuple(range(8)), left_out=(14, 15)),
    Split(name="half-0", train=(0, 1), left_out=(14, 15)),
)


def records(spec: JobSpec) -> dict[str, Any]:
    folder = spec.output_dir / "trials"
    return {path.stem: json.loads(path.read_text())["result"] for path in sorted(folder.glob("*.json"))}


def without_times(record: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in record.items() if not name.endswith("seconds")}


@pytest.mark.integration
@pytest.mark.long
def test_every_split_is_trained_asked_and_kept_and_a_killed_job_ends_the_same(make_spec: MakeSpec):
    spec = make_spec("whole", recipe=RECIPE, splits=SPLITS, train=make_spec().train, dev=())
    assert run_job(spec) == 0
    found = records(spec)
    assert [(name, one["train_rows"], one["rows"]) for name, one in found.items()] == [
        ("full-0", 8, 2),
        ("half-0", 2, 2),
    ]
    assert [one["row"] for one in found["half-0"]["judged"]] == [14, 15]
    assert found["full-0"]["points"][-1]["dev_exact"] == 1.0  # one answer for everything is quickly learnt
    assert found["full-0"]["seconds"] > 0
    whole = adapter.verify(spec.output_dir / "adapter")

    again = spec.model_copy(update={"output_dir": spec.output_dir.parent / "again"})
    with start_job(again) as process:
        while not (again.output_dir / "trials" / "full-0.json").exists():
            assert process.poll() is None
            time.sleep(0.005)
        process.kill()
    assert run_job(again) == 0
    assert adapter.verify(again.output_dir / "adapter").files == whole.files
    assert {name: without_times(one) for name, one in records(again).items()} == {
        name: without_times(one) for name, one in found.items()
    }
    assert [one["name"] for one in events_of(again) if one["type"] == "trial"] == ["full-0", "half-0"]


def test_a_split_names_rows_that_there_are(make_spec: MakeSpec):
    with pytest.raises(ValidationError, match="splits name row 99 of 16: count from 0"):
        make_spec(splits=(Split(name="full-0", train=(0,), left_out=(99,)),))


def test_a_job_that_uses_nothing_new_keeps_the_digest_that_it_had():
    row = {"messages": ({"role": "user", "content": "hello"},), "answer": "ok"}
    spec = JobSpec.model_validate(
        {"job_id": "job-1", "base_folder": "/models/tiny", "output_dir": "/jobs/1", "train": (row,), "threads": 1}
    )
    assert (
        spec.digest == "sha256:59244f3076576f5f18976142ab25227f1677f1fb66fb8e158e7ad9abcf21e93c"
    )  # before there were any
    changes = {"splits": SPLITS, "snapshots": 2, "ships": "last"}
    digests = [spec.model_copy(update={name: value}).digest for name, value in changes.items()]
    assert len({spec.digest, *digests}) == 4

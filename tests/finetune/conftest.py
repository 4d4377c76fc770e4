"""A tiny base model, jobs on it, and ways to start them as users' workers do."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from finetune.plan import JobSpec, Recipe, Row, write_spec
from tests.finetune.forking import Job
from tests.tiny_model import make_tiny_model


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("model") / "tiny")


def make_rows(count: int, answer: str = "ok") -> tuple[Row, ...]:
    tickets = (f"ticket {number * 7919 % 1009}" for number in range(count))
    return tuple(
        Row(
            messages=({"role": "system", "content": "Route the ticket."}, {"role": "user", "content": ticket}),
            answer=answer,
        )
        for ticket in tickets
    )


@pytest.fixture
def make_spec(tiny_model: Path, tmp_path: Path) -> Callable[..., JobSpec]:
    def make(name: str = "job", **changes: Any) -> JobSpec:
        rows = make_rows(24)
        fields: dict[str, Any] = {
            "job_id": "job-1",
            "base_folder": tiny_model,
            "output_dir": tmp_path / name,
            "train": rows[:16],
            "dev": rows[16:],
            "recipe": Recipe(lr=3e-3, rank=4, alpha=8.0),
            "max_new_tokens": 8,
            "device": "cpu",
            "threads": 1,
        }
        return JobSpec.model_validate(fields | changes)

    return make


def start_job(spec: JobSpec, before: Callable[[], None] | None = None) -> Job:
    """Start a job as a worker does: in its own folder, its standard input a pipe that the parent keeps.

    `before` is called in its process first.
    """
    write_spec(spec, spec.output_dir / "spec.json")
    return Job(spec.output_dir, [str(spec.output_dir / "spec.json")], before)


def run_job(spec: JobSpec, before: Callable[[], None] | None = None) -> int:
    with start_job(spec, before) as job:
        return job.wait(120)


def events_of(spec: JobSpec) -> list[dict[str, Any]]:
    """The whole lines told so far."""
    path = spec.output_dir / "events.jsonl"
    lines = path.read_text().split("\n")[:-1] if path.exists() else []
    return [json.loads(line) for line in lines]

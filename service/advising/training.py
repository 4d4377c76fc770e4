"""LoRA by cross-validation, through the training process of fine-tunes: what it answers about rows it did not see."""

from __future__ import annotations

import json
import shutil
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetune import adapter as adapters
from finetune.data import answer_limit
from finetune.plan import (
    JobSpec,
    Judged,
    Measured,
    Row,
    Split,
    TrialResult,
    make_recipe,
    read_shape,
    read_spec,
    total_steps,
    write_spec,
)
from service.advising.asking import Questions
from service.advising.energy import PowerMeter, energy
from service.advising.folds import Folds, Job
from service.advising.spec import Work
from service.child import require_local_packages
from service.engine import weights
from service.errors import CannotRun
from service.ids import now
from service.store import jobs
from service.training import measure, train
from service.tuning.material import model_source
from suites.advice.answers import RIGHT, WRONG
from suites.advice.curve import Measured as Point
from suites.advice.curve import pool_parts
from suites.advice.report import Trained

Shots = Mapping[int, tuple[int, ...]]  # by fold, the rows in the prompt


@dataclass(frozen=True)
class Trainings:
    """What the splits of one job came to: `letters` cover the rows of the folds that were trained whole, `points` are one for
    whole folds, one for halves and one for quarters."""

    results: tuple[TrialResult, ...]
    letters: str
    points: tuple[Point, ...]
    judged: tuple[Judged, ...]
    trained_on: int
    mean_watts: float | None

    @property
    def know_the_task(self) -> bool:
        """Whether half of the rows or more are right: who gets most of them wrong is no witness of a label's mistake."""
        return 2 * self.letters.count(RIGHT) >= len(self.letters.replace(" ", ""))


def draft_spec(work: Work, questions: Questions, folds: Folds) -> JobSpec:
    """The spec of the trial steps, and what all trainings share. Raises BadInput where the base cannot be tuned."""
    require_local_packages("training")
    base = work.spec.base or ""
    folder = weights.pull(model_source(work.claim.settings, base), weights.default_cache_dir())
    spec = work.claim.settings.model(base)
    return JobSpec(
        job_id=work.claim.job_id,
        base_folder=folder,
        output_dir=_folder(work, "trial") / "training",
        train=tuple(_row(questions, row, ()) for row in range(len(questions.rows))),
        recipe=make_recipe(read_shape(folder).parameter_count, len(folds.train(0)), work.material.recipe),
        max_new_tokens=answer_limit(work.material.prompt),
        lineage={"job_id": work.claim.job_id, "advice": work.advice_id},
        threads=getattr(spec, "threads", None),
        device=getattr(spec, "device", "auto"),
        adapter_name=f"advice-{work.claim.short_id}",
        created_at=now(),
    )


def try_steps(work: Work, draft: JobSpec) -> Measured:
    """Some real steps in a process of their own."""
    folder = _folder(work, "trial")
    write_spec(draft, folder / "spec.json")
    return measure(folder, work.claim.settings.run_dir, work.claim.check)[0]


def run_job(
    work: Work, job: Job, draft: JobSpec, rows: Sequence[Row], splits: Sequence[Split], count: int
) -> Trainings:
    """Train the splits of one job, on `rows`; one that was killed goes on.

    `count` is the number of examples, which the rows are, in their order, or begin over with for each fold. Raises
    CannotRun where the training process cannot go on.
    """
    folder = _folder(work, job)
    if not (folder / "spec.json").exists():  # what a killed process trained on is what this one goes on with
        changes = {"train": tuple(rows), "splits": tuple(splits), "output_dir": folder / "training"}
        write_spec(draft.model_copy(update=changes), folder / "spec.json")
    spec = read_spec(folder / "spec.json")
    with PowerMeter() as meter:
        run_dir, told = work.claim.settings.run_dir, _told_lines(work, job)
        ended = train(folder, run_dir, _teller(work, job), work.claim.check, told)
    if ended["type"] != "finished":
        raise CannotRun(f"the trainings of the advice ended: {'; '.join(ended['reasons'])}")
    found = tuple(_result(folder, split) for split in spec.splits)
    return _trainings(found, spec, count, meter.mean_watts)


def plain_rows(questions: Questions) -> list[Row]:
    return [_row(questions, row, ()) for row in range(len(questions.rows))]


def rows_with_shots(questions: Questions, shots: Shots) -> list[Row]:
    """All examples behind the shots of each fold, fold after fold."""
    return [_row(questions, row, shots[fold]) for fold in sorted(shots) for row in range(len(questions.rows))]


def with_shots(split: Split, fold: int, shots: Shots, count: int) -> Split:
    """A split among `rows_with_shots`: what stands in the prompt is not trained on, it would show its own answer."""
    first = sorted(shots).index(fold) * count
    train = tuple(first + row for row in split.train if row not in shots[fold])
    return split.model_copy(update={"train": train, "left_out": tuple(first + row for row in split.left_out)})


def adapter_name(work: Work, job: Job) -> str:
    """Its name while it is timed: one of each job, for an engine takes another adapter by a name that it has for a fault."""
    return f"advice-{work.claim.short_id}-{'alone' if job == 'lora' else 'shots'}"


def with_adapter(work: Work, job: Job, use: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Install the adapter of a job's first split for as long as `use` takes: nobody is ever served by it."""
    target = getattr(work.claim.settings.model(work.spec.base or ""), "adapter_dir", None)
    shelf = Path(target or work.claim.settings.adapters_dir)
    name = adapter_name(work, job)
    adapters.install(_folder(work, job) / "training" / "adapter", shelf, name)
    try:
        return use()
    finally:
        shutil.rmtree(shelf / name, ignore_errors=True)


def cost_of(work: Work, trainings: Sequence[Trainings], draft: JobSpec, device: str, count: int) -> Trained:
    """What all trainings took, and what one on all `count` examples would, by the steps of those of whole folds."""
    results = [one for each in trainings for one in each.results]
    whole = trainings[0].results[0]
    factor = total_steps(draft.recipe, count) / total_steps(draft.recipe, whole.train_rows or count)
    seconds, cpu = (sum(getattr(one, name) or 0.0 for one in results) for name in ("seconds", "cpu_seconds"))
    one_s, one_cpu_s = (whole.seconds or 0.0) * factor, (whole.cpu_seconds or 0.0) * factor
    watts = next((each.mean_watts for each in trainings if each.mean_watts is not None), None)
    watts = watts if device.startswith("cuda") else None
    spent_wh, told = energy(seconds, cpu, watts, work.spec.watts)
    price = work.spec.price_per_hour
    return Trained(
        device=device,
        trainings=len(results),
        seconds=seconds,
        cpu_seconds=cpu,
        one_s=one_s,
        energy_wh=spent_wh,
        energy_from=told,
        one_energy_wh=energy(one_s, one_cpu_s, watts, work.spec.watts)[0],
        one_price_usd=None if price is None else one_s / 3600 * price,
    )


# ------------------------------------------------------------------------------------------------ inside


def _folder(work: Work, name: str) -> Path:
    return work.claim.folder / name


def _row(questions: Questions, row: int, shots: tuple[int, ...]) -> Row:
    messages = tuple(message.as_dict() for message in questions.messages(row, shots))
    return Row(messages=messages, answer=questions.rows[row].expected)


def _result(folder: Path, split: Split) -> TrialResult:
    record = json.loads((folder / "training" / "trials" / f"{split.name}.json").read_text("utf-8"))
    return TrialResult.model_validate(record["result"])


def _trainings(results: tuple[TrialResult, ...], spec: JobSpec, count: int, watts: float | None) -> Trainings:
    letters = [" "] * count
    parts: defaultdict[str, list[Point]] = defaultdict(list)
    judged: list[Judged] = []
    for result, split in zip(results, spec.splits, strict=True):
        right = {one.row: one.answered.strip() == spec.train[one.row].answer.strip() for one in result.judged}
        if right:
            point = Point(len(split.train), sum(not each for each in right.values()), len(right))
            parts[split.name.rpartition("-")[0]].append(point)
        if split.name.startswith(("full", "shots")):
            judged += result.judged
            for row, is_right in right.items():
                letters[row % count] = RIGHT if is_right else WRONG
    trained_on = max(len(split.train) for split in spec.splits)
    return Trainings(results, "".join(letters), pool_parts(parts), tuple(judged), trained_on, watts)


def _teller(work: Work, job: Job) -> Callable[..., None]:
    def tell(kind: str, /, **data: Any) -> None:
        work.claim.tell(kind, attempt=job, **data)

    return tell


def _told_lines(work: Work, job: Job) -> int:
    """How many lines of this job's process were passed on before."""
    last, after = 0, 0
    with work.claim.database.read() as session:
        while batch := jobs.events(session, work.claim.job_id, after):
            after = batch[-1]["number"]
            told = [event["data"] for event in batch if event["type"] == "training"]
            last = max([last, *(data.get("line", 0) for data in told if data.get("attempt") == job)])
    return last

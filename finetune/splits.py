"""A job that only compares: trainings on parts of the rows, each asked about rows that it did not see.

The advice before a fine-tune reads what they answered from `trials/`. Each ends at its recipe's last step: no row that it
is asked about stops it early. The adapter that is left is the first split's, so that answers of the served model can be
timed and compared with those of the trainer.
"""

from __future__ import annotations

import time
from pathlib import Path

import safetensors.torch

from finetune import job, ranks
from finetune.bench import Bench
from finetune.checkpoint import Progress
from finetune.job import Book, DivergedError, Task, state_of
from finetune.plan import Judged, Point, SeedResult, Split, TrialResult
from finetune.trials import Found, judge, once, tensors_path, write_tensors


def run(bench: Bench, book: Book) -> tuple[Found, SeedResult, tuple[SeedResult, ...]]:
    """Train every split, and leave the first one's LoRA in the model. Raises DivergedError where that one diverged.

    What it returns is told of the first split, and stands for a job's search, its chosen run and all its runs.
    """
    results = [_split(bench, book, number, one) for number, one in enumerate(bench.spec.splits)]
    if results[0].diverged:
        raise DivergedError(results[0].diverged)
    ranks.wait()  # until the first rank has written them
    tensors = safetensors.torch.load_file(_tensors(bench))
    for name, param in bench.params.items():
        param.data.copy_(tensors[name])
    last = results[0].points[-1]
    chosen = SeedResult(
        seed=results[0].seed,
        steps=last.step,
        best_step=last.step,
        dev_exact=last.dev_exact,
        dev_loss=last.dev_loss,
        train_loss_last=last.train_loss,
        train_loss_first=last.train_loss,
    )
    return Found(bench.spec.recipe), chosen, (chosen,)


def _split(bench: Bench, book: Book, number: int, split: Split) -> TrialResult:
    """One training and its answers; from its record where it has ended before."""
    recipe, train = bench.spec.recipe, [bench.train[row] for row in split.train]
    task = Task(split.name, recipe, train, (), frozenset(), stops_early=False)
    known = {name: getattr(recipe, name) for name in ("lr", "dropout", "weight_decay", "seed")}
    known |= {"name": split.name, "candidate": 0, "fold": number, "rows": len(split.left_out)}

    def work() -> tuple[Progress, TrialResult]:
        began_s, began_cpu_s = time.monotonic(), time.process_time()
        try:
            progress = job.run(bench, task, book)
        except DivergedError as error:
            return Progress(), TrialResult(**known, diverged=str(error))
        trained = {"train_rows": len(train), "seconds": time.monotonic() - began_s}
        trained["cpu_seconds"] = time.process_time() - began_cpu_s
        judged = judge(bench, split.left_out, progress.pack_tokens)
        if number == 0:
            write_tensors(_tensors(bench), state_of(bench))
        return progress, TrialResult(**known, **trained, points=(_point(bench, progress, judged),), judged=judged)

    return once(bench, book, split.name, work)


def _point(bench: Bench, progress: Progress, judged: tuple[Judged, ...]) -> Point:
    """The exact answers, and the mean loss of a row, over the rows that were left out."""
    answers = [bench.train[one.row].answer.strip() for one in judged]
    exact = sum(one.answered == answer for one, answer in zip(judged, answers, strict=True))
    last = progress.losses[-max(1, len(progress.losses) // 5) :]
    return Point(
        step=progress.step,
        dev_exact=exact / len(judged),
        dev_loss=sum(one.loss for one in judged) / len(judged),
        train_loss=sum(last) / len(last),
        best=True,
    )


def _tensors(bench: Bench) -> Path:
    return tensors_path(bench, bench.spec.recipe.seed)

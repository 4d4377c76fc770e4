"""Which examples a training sees and which it is asked about: folds, parts of them, and what fits into the minutes."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from finetune.data import Example, clusters_of
from finetune.plan import JobSpec, Measured, Split, folds_of, total_steps

FOLDS = 3
MOST_ASKED = 400  # examples: more would cost more than they would tell
PARTS = {"half": 0.5, "quarter": 0.25}
FEWEST_OF_A_PART = 4
_SCORINGS = 3  # of a row that was left out: its loss, its answer, and the loss of a label answered in its place
SECONDS_A_MINUTE = 60.0
Job = Literal["lora", "few-shot+lora"]


@dataclass(frozen=True)
class Folds:
    """The fold of each row; near duplicates share one, and each has its share of every answer."""

    of: tuple[int, ...]

    @property
    def count(self) -> int:
        return max(self.of) + 1

    @cached_property
    def asked(self) -> tuple[int, ...]:
        """The rows that models are asked about: all, or 400 drawn by lot."""
        rows = range(len(self.of))
        return tuple(rows) if len(rows) <= MOST_ASKED else tuple(sorted(sorted(rows, key=_lot)[:MOST_ASKED]))

    def asked_of(self, fold: int) -> tuple[int, ...]:
        """Those of them that a training without the fold has not seen."""
        return tuple(row for row in self.asked if self.of[row] == fold)

    def left_out(self, fold: int) -> tuple[int, ...]:
        return tuple(row for row, its in enumerate(self.of) if its == fold)

    def train(self, fold: int) -> tuple[int, ...]:
        return tuple(row for row, its in enumerate(self.of) if its != fold)

    def part(self, fold: int, share: float) -> tuple[int, ...]:
        """A share of the rows to train on; a smaller share is part of a larger one."""
        rows = self.train(fold)
        return tuple(sorted(sorted(rows, key=_lot)[: round(share * len(rows))]))


def _lot(row: int) -> str:
    return hashlib.sha256(f"part:{row}".encode()).hexdigest()


def make_folds(examples: Sequence[Example]) -> Folds:
    """Three folds, two where the examples are but two groups that do not resemble each other."""
    clusters = clusters_of(examples)
    of_row = {row: number for number, cluster in enumerate(clusters) for row in cluster}
    answers = [one.expected.strip() for one in examples]
    folds = max(1, min(FOLDS, len(clusters)))
    return Folds(folds_of([of_row[row] for row in range(len(examples))], answers, folds, seed=0))


def wanted(folds: Folds, *, with_shots: bool) -> list[tuple[Job, str, int, float]]:
    """Every training that would be of use, the most useful first: job, name, fold and share of its rows.

    One fold with its halves tells a curve; then folds and examples in the prompt are taken in turn, and last the curves of
    the other folds.
    """
    parts = [(name, share) for name, share in PARTS.items() if len(folds.part(0, share)) >= FEWEST_OF_A_PART]

    def curve(fold: int) -> list[tuple[Job, str, int, float]]:
        return [("lora", f"{name}-{fold}", fold, share) for name, share in parts]

    found: list[tuple[Job, str, int, float]] = [("lora", "full-0", 0, 1.0), *curve(0)]
    for fold in range(1, folds.count):
        found.append(("lora", f"full-{fold}", fold, 1.0))
        found += [("few-shot+lora", f"shots-{fold - 1}", fold - 1, 1.0)] if with_shots else []
    found += [("few-shot+lora", f"shots-{folds.count - 1}", folds.count - 1, 1.0)] if with_shots else []
    return [*found, *(each for fold in range(1, folds.count) for each in curve(fold))]


@dataclass(frozen=True)
class Planned:
    """The trainings that fit, how long they take by the measured steps, and how many did not fit.

    `first_s` is the time of the most useful one, `all_s` that of all.
    """

    splits: tuple[tuple[Job, Split], ...]
    seconds: float
    left_out: int
    first_s: float
    all_s: float

    def of(self, job: Job) -> tuple[Split, ...]:
        return tuple(split for its, split in self.splits if its == job)


def fit_into(
    folds: Folds, draft: JobSpec, measured: Measured, minutes: float, *, with_shots: bool, shots_factor: float
) -> Planned:
    """Take trainings in the order of `wanted` until one does not fit.

    `shots_factor` is how much longer a step takes with the examples in the prompt.
    """
    left_s, taken, spent_s = minutes * SECONDS_A_MINUTE, [], 0.0
    costs_s: list[float] = []
    is_full = False
    started: set[Job] = set()
    for job, name, fold, share in wanted(folds, with_shots=with_shots):
        rows = folds.train(fold) if share == 1.0 else folds.part(fold, share)
        split = Split(name=name, train=rows, left_out=folds.asked_of(fold))
        cost_s = split_s(split, draft, measured) * (shots_factor if job == "few-shot+lora" else 1.0)
        cost_s += 0.0 if job in started else measured.load_s
        costs_s.append(cost_s)
        is_full = is_full or spent_s + cost_s > left_s
        if not is_full:
            taken.append((job, split))
            spent_s += cost_s
        started.add(job)
    return Planned(tuple(taken), spent_s, len(costs_s) - len(taken), costs_s[0], sum(costs_s))


def split_s(split: Split, draft: JobSpec, measured: Measured) -> float:
    """Seconds of one training and of its answers."""
    rows = total_steps(draft.recipe, len(split.train)) * min(draft.recipe.batch_size, len(split.train))
    return rows * measured.row_s + _SCORINGS * len(split.left_out) * measured.score_row_s

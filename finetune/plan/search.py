"""What a training job tries before it settles: rates and epochs by cross-validation, seeds, one cure for overfitting."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence

from pydantic import BaseModel, ConfigDict, Field, model_validator

_MOST_FOLDS = 20


class Search(BaseModel):
    """What to try. The default tries nothing: one run of the spec's own recipe.

    `folds` parts of the training rows are each left out once for every rate of `lr_grid` (empty: the recipe's), and
    the runs are scored at each of `epochs_grid` (empty: at the recipe's end) on what they left out. `regularise` adds
    one more candidate, with dropout and weight decay, where the best one's runs overfit. `seeds` are the final runs on
    all training rows (empty: the recipe's own); the one with the median dev score ships. `find_mislabelled` has each
    row judged by the run that did not see it. `minutes` is the budget that this was chosen for; it stops nothing.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    lr_grid: tuple[float, ...] = ()
    epochs_grid: tuple[float, ...] = ()
    folds: int = Field(0, ge=0, le=_MOST_FOLDS)
    seeds: tuple[int, ...] = ()
    find_mislabelled: bool = False
    regularise: bool = False
    minutes: float = Field(0.0, ge=0)

    @model_validator(mode="after")
    def _is_possible(self) -> Search:
        if self.folds == 1:
            raise ValueError("folds is 1: choose 0 for no cross-validation, or at least 2")
        needing = [name for name in ("lr_grid", "epochs_grid", "find_mislabelled", "regularise") if getattr(self, name)]
        if needing and not self.folds:
            raise ValueError(f"{', '.join(needing)} need cross-validation: set folds to 2 or more")
        if min((*self.lr_grid, *self.epochs_grid), default=1.0) <= 0 or max(self.lr_grid, default=0.0) > 1:
            raise ValueError("lr_grid must lie above 0 and at most at 1, epochs_grid above 0")
        if self.seeds and (len(self.seeds) % 2 == 0 or len(set(self.seeds)) < len(self.seeds) or min(self.seeds) < 0):
            raise ValueError(
                f"seeds are {self.seeds}: give an odd number of different ones from 0 up, so that one is median"
            )
        return self


class Split(BaseModel):
    """One training of a job that only compares: on the rows `train`, asked about the rows `left_out`, by their indexes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^[a-z0-9-]+$")
    train: tuple[int, ...] = Field(min_length=1)
    left_out: tuple[int, ...] = Field(min_length=1)


class Point(BaseModel):
    """A run's scores at one evaluation. `train_loss` is the mean over the steps since the evaluation before.

    The accuracies are shares of labelled tokens that are the likeliest, given the right ones before them: of dev, and of
    the batch just trained on (None where no snapshots are wanted).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    step: int
    dev_exact: float
    dev_loss: float
    train_loss: float
    best: bool = False  # whether none before was better
    dev_token_accuracy: float | None = None
    train_token_accuracy: float | None = None


class Judged(BaseModel):
    """What a run that did not see a training row says about it.

    `loss` is the mean over the tokens of the row's own answer, `log_likelihood` the sum that the whole answer has.
    `other_log_likelihood` is that of `answered`, where this is another answer that the training rows know.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    row: int  # its index in the spec's training rows
    answered: str
    loss: float
    log_likelihood: float
    other_log_likelihood: float | None = None


class TrialResult(BaseModel):
    """One run of the search, or one split, that has ended. `points` are empty where it `diverged`, which says how.

    Splits tell how many rows they trained on, and the seconds that took in the process that ended it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    candidate: int  # trials of one candidate differ in the fold alone
    lr: float
    dropout: float
    weight_decay: float
    fold: int
    seed: int
    rows: int  # that were left out, and scored on
    points: tuple[Point, ...] = ()  # one for each of the epochs tried
    judged: tuple[Judged, ...] = ()
    diverged: str = ""
    train_rows: int | None = None
    seconds: float | None = None
    cpu_seconds: float | None = None


class Scored(BaseModel):
    """A candidate's mean over its folds, each weighed by its rows, after so many epochs. No loss where folds `diverged`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    candidate: int
    lr: float
    dropout: float
    weight_decay: float
    epochs: float
    dev_exact: float
    dev_loss: float | None
    diverged: int = 0  # of its folds


def folds_of(clusters: Sequence[int], answers: Sequence[str], folds: int, seed: int) -> tuple[int, ...]:
    """The fold of each row. Rows of one cluster share a fold, and each fold has its share of every answer.

    Greedy, large clusters first: into the fold with the fewest rows of the cluster's commonest answer, then with the
    fewest rows. The order of equals follows from the seed.
    """
    members: dict[int, list[int]] = {}
    for row, cluster in enumerate(clusters):
        members.setdefault(cluster, []).append(row)
    sizes, of_answer, fold_of = [0] * folds, [Counter[str]() for _ in range(folds)], [0] * len(clusters)
    for rows in sorted(members.values(), key=lambda rows: (-len(rows), _lot(seed, rows[0]))):
        answer = Counter(answers[row] for row in rows).most_common(1)[0][0]
        fold = min(range(folds), key=lambda at: (of_answer[at][answer], sizes[at], at))
        sizes[fold] += len(rows)
        for row in rows:
            fold_of[row] = fold
            of_answer[fold][answers[row]] += 1
    return tuple(fold_of)


def _lot(seed: int, row: int) -> str:
    return hashlib.sha256(f"{seed}:{row}".encode()).hexdigest()


def table_of(trials: Sequence[TrialResult], epochs_grid: Sequence[float]) -> tuple[Scored, ...]:
    """Every candidate after each number of epochs, in the order tried."""
    of_candidate: dict[int, list[TrialResult]] = {}
    for trial in trials:
        of_candidate.setdefault(trial.candidate, []).append(trial)
    return tuple(_scored(folds, at, epochs) for folds in of_candidate.values() for at, epochs in enumerate(epochs_grid))


def _scored(folds: Sequence[TrialResult], at: int, epochs: float) -> Scored:
    first, rows = folds[0], sum(fold.rows for fold in folds)
    whole = [fold for fold in folds if not fold.diverged]  # the others count as all wrong
    exact = sum(fold.points[at].dev_exact * fold.rows for fold in whole) / rows
    loss = sum(fold.points[at].dev_loss * fold.rows for fold in whole) / rows if len(whole) == len(folds) else None
    names = ("candidate", "lr", "dropout", "weight_decay")
    known = {name: getattr(first, name) for name in names} | {"diverged": len(folds) - len(whole)}
    return Scored(**known, epochs=epochs, dev_exact=exact, dev_loss=loss)


def best_of(table: Sequence[Scored]) -> Scored:
    """The most exact answers; ties go to the fewer folds that diverged, the lower loss, the fewer epochs, the earlier."""
    return min(
        table, key=lambda one: (-one.dev_exact, one.diverged, _or_worst(one.dev_loss), one.epochs, one.candidate)
    )


def _or_worst(loss: float | None) -> float:
    return float("inf") if loss is None else loss


def median_seed(scores: Mapping[int, tuple[float, float | None]]) -> int:
    """The seed whose (dev_exact, dev_loss) is the median: more exact is better, then the lower loss.

    Not the best one: the best of three is chosen by luck on a dev set this small, and promises too much. A run that
    diverged has no loss and no exact answer.
    """
    order = sorted(scores, key=lambda seed: (scores[seed][0], -_or_worst(scores[seed][1]), seed))
    return order[len(order) // 2]


def overfits(points: Sequence[Point], rise: float = 0.05) -> bool:
    """Whether the train loss fell while the dev loss rose over the last two evaluations, by `rise` or more in all."""
    if len(points) < 3:
        return False
    before, middle, last = points[-3:]
    falls = before.train_loss > middle.train_loss > last.train_loss
    return falls and before.dev_loss < middle.dev_loss and last.dev_loss >= before.dev_loss * (1 + rise)


class SeedResult(BaseModel):
    """One final run on all training rows. Without dev rows it has no scores; where it `diverged`, that says how."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    seed: int
    steps: int = 0
    best_step: int = 0
    dev_exact: float | None = None
    dev_loss: float | None = None
    train_loss_first: float | None = None  # mean over the first steps, at most five
    train_loss_last: float | None = None  # mean over the last pass over the rows
    points: tuple[Point, ...] = ()
    diverged: str = ""

"""The search that a job's minutes allow, and why, in words."""

from __future__ import annotations

from dataclasses import dataclass, field

from finetune.plan.cost import read_shape
from finetune.plan.measured import Measured
from finetune.plan.recipe import evaluation_steps, learning_rates, total_steps
from finetune.plan.search import Search
from finetune.plan.spec import JobSpec

_CROSS_VALIDATED_BELOW = 150  # rows: below, what one dev set says about rates and epochs is mostly luck
_SEEDED_BELOW = 200  # rows: below, the seed moves the result by more than most recipes do
_FOLDS, _FEWER_FOLDS = 5, 3
_SEEDS = 3
_MINUTE_S = 60.0


@dataclass(frozen=True)
class Pace:
    """What the work takes here, from the measured trial: seconds to load, to train on one row and to score one."""

    load_s: float
    train_row_s: float
    score_row_s: float

    def run_s(self, spec: JobSpec, train_count: int, scored_count: int, evaluations: int) -> float:
        """Seconds of one training run, were it not stopped early."""
        rows = total_steps(spec.recipe, train_count) * min(spec.recipe.batch_size, train_count)
        return rows * self.train_row_s + evaluations * scored_count * self.score_row_s


def choose_search(
    draft: JobSpec, measured: Measured, *, minutes: float, fixed: frozenset[str]
) -> tuple[Search, list[str]]:
    """What to try for `draft` within `minutes`, and a sentence for each thing that is tried or left out.

    `fixed` are the fields of the recipe that somebody chose: they are not searched. Below 150 rows 5-fold (or 3-fold)
    cross-validation chooses rate and epochs, below 200 the median of three seeds ships; where there is none of the
    former, folds at the recipe's own rate look for mislabelled rows. They are paid for in this order, the run itself
    first.
    """
    pace = Pace(measured.load_s, measured.row_s, measured.score_row_s)
    rates = learning_rates(read_shape(draft.base_folder).parameter_count)
    return search_within(draft, rates, pace, minutes=minutes, fixed=fixed)


def search_within(
    draft: JobSpec, rates: tuple[float, ...], pace: Pace, *, minutes: float, fixed: frozenset[str]
) -> tuple[Search, list[str]]:
    """`choose_search` from plain figures; `rates` are those to try."""
    once_s = pace.run_s(draft, len(draft.train), len(draft.dev), len(evaluation_steps(draft.recipe, len(draft.train))))
    budget = _Budget(minutes, minutes * _MINUTE_S - pace.load_s - once_s)
    of = " of" if budget.left_s >= 0 else ", more than"  # the run itself is never left out
    given = f"the {round(max(0.1, minutes), 1):g} minutes that it may"
    budget.say(f"one run takes about {_minutes(pace.load_s + once_s)}{of} {given}")
    search = _cross_validated(draft, rates, pace, budget, fixed)
    search = search.model_copy(update={"seeds": _seeds(draft, once_s, budget, fixed), "minutes": minutes})
    if not search.folds:
        search = _looking_for_mistakes(search, draft, pace, budget)
    return search, budget.words


@dataclass
class _Budget:
    """Seconds that are left, and what was said about those that are spent."""

    minutes: float
    left_s: float
    words: list[str] = field(default_factory=list)

    def say(self, sentence: str) -> None:
        self.words.append(sentence)

    def pay(self, cost_s: float) -> bool:
        if cost_s > self.left_s:
            return False
        self.left_s -= cost_s
        return True

    def too_dear(self, what: str, cost_s: float) -> None:
        left = f"the {_minutes(self.left_s)} that are left" if self.left_s > 0 else "them, too"
        self.say(f"no {what}: about {_minutes(cost_s)} more would not fit into {left}")


def _cross_validated(
    draft: JobSpec, rates: tuple[float, ...], pace: Pace, budget: _Budget, fixed: frozenset[str]
) -> Search:
    count = len(draft.train)
    if count >= _CROSS_VALIDATED_BELOW:
        budget.say(f"no cross-validation: it is for fewer than {_CROSS_VALIDATED_BELOW} rows, and there are {count}")
        return Search()
    grid = {"lr_grid": (draft.recipe.lr,) if "lr" in fixed else rates, "epochs_grid": _epochs(draft, fixed)}
    if len(grid["lr_grid"]) == len(grid["epochs_grid"]) == 1:
        budget.say("no cross-validation: the rate and the epochs are given")
        return Search()
    cost_s = 0.0
    for folds in (_FOLDS, _FEWER_FOLDS):
        search = Search(**grid, folds=folds, find_mislabelled=True, regularise=not {"dropout", "weight_decay"} & fixed)
        if groups_short := _too_few_groups(draft, folds):
            budget.say(groups_short)
            continue
        cost_s = _trials_s(draft, search, pace)
        if budget.pay(cost_s):
            budget.say(_what(search, count, cost_s))
            return search
    if cost_s:
        budget.too_dear("cross-validation", cost_s)
    return Search()


def _epochs(draft: JobSpec, fixed: frozenset[str]) -> tuple[float, ...]:
    recipe = draft.recipe
    if fixed & {"epochs", "stop_after_epochs", "min_steps"} or recipe.epochs <= 1:
        return (recipe.stop_after_epochs or recipe.epochs,)
    return (*(float(epoch) for epoch in range(1, -int(-recipe.epochs // 1))), recipe.epochs)


def _too_few_groups(draft: JobSpec, folds: int) -> str:
    groups = len(set(draft.clusters)) if draft.clusters else len(draft.train)
    if groups >= 2 * folds:
        return ""
    return f"no {folds}-fold cross-validation: the rows are only {groups} groups that do not resemble each other"


def _trials_s(draft: JobSpec, search: Search, pace: Pace) -> float:
    """Seconds of all trials: each row is scored once a candidate and evaluation, and twice more to be judged."""
    count, folds = len(draft.train), search.folds
    candidates = len(search.lr_grid) + search.regularise
    run_s = pace.run_s(draft, count - count // folds, -(-count // folds), len(search.epochs_grid) + 2)
    return candidates * folds * run_s


def _what(search: Search, count: int, cost_s: float) -> str:
    rates, epochs = search.lr_grid, search.epochs_grid
    axes = [f"the rate {rates[0]:g}" if len(rates) == 1 else f"the rates {', '.join(f'{rate:g}' for rate in rates)}"]
    axes.append(f"{epochs[0]:g} epochs" if len(epochs) == 1 else f"{epochs[0]:g} to {epochs[-1]:g} epochs")
    return f"{search.folds}-fold cross-validation of {count} rows for {' and '.join(axes)}: about {_minutes(cost_s)}"


def _seeds(draft: JobSpec, once_s: float, budget: _Budget, fixed: frozenset[str]) -> tuple[int, ...]:
    first, count = draft.recipe.seed, len(draft.train)
    if "seed" in fixed:
        budget.say(f"one seed: {first} is given")
    elif count >= _SEEDED_BELOW:
        budget.say(f"one seed: three are for fewer than {_SEEDED_BELOW} rows, and there are {count}")
    elif not draft.dev:
        budget.say("one seed: without dev rows nothing tells one from another")
    elif budget.pay((_SEEDS - 1) * once_s):
        budget.say(f"{_SEEDS} seeds, of which the median ships: about {_minutes((_SEEDS - 1) * once_s)} more")
        return tuple(range(first, first + _SEEDS))
    else:
        budget.too_dear(f"{_SEEDS} seeds", (_SEEDS - 1) * once_s)
    return (first,)


def _looking_for_mistakes(search: Search, draft: JobSpec, pace: Pace, budget: _Budget) -> Search:
    """One candidate in few folds, for what it says about each row."""
    recipe = draft.recipe
    epochs = (recipe.stop_after_epochs or recipe.epochs,)
    looking = {"folds": _FEWER_FOLDS, "find_mislabelled": True, "lr_grid": (recipe.lr,), "epochs_grid": epochs}
    looking_for = search.model_copy(update=looking)
    if groups_short := _too_few_groups(draft, _FEWER_FOLDS):
        budget.say(f"no look for mislabelled rows: {groups_short.partition(': ')[2]}")
    elif budget.pay(cost_s := _trials_s(draft, looking_for, pace)):
        budget.say(f"{_FEWER_FOLDS} folds look for mislabelled rows: about {_minutes(cost_s)}")
        return looking_for
    else:
        budget.too_dear("look for mislabelled rows", cost_s)
    return search


def _minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 2 * _MINUTE_S else f"{seconds / _MINUTE_S:.1f} min"


def expected_s(spec: JobSpec, measured: Measured) -> float:
    """Seconds that training `spec` takes where no run stops early: loading, the trials and the final runs."""
    pace = Pace(measured.load_s, measured.row_s, measured.score_row_s)
    evaluations = len(evaluation_steps(spec.recipe, len(spec.train)))
    once_s = pace.run_s(spec, len(spec.train), len(spec.dev), evaluations)
    trials_s = _trials_s(spec, spec.search, pace) if spec.search.folds else 0.0
    return pace.load_s + trials_s + once_s * max(1, len(spec.search.seeds))

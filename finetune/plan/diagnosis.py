"""What a finished attempt's figures say, and what the next attempt should change."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from finetune.plan.recipe import MOST_EPOCHS, MOST_STEPS, Recipe, learning_rates, total_steps
from finetune.plan.search import Point

Kind = Literal[
    "diverged",
    "rate too high",
    "noisy data",
    "overfit",
    "underfit",
    "capacity",
    "too little data",
    "saturated",
    "reached the bar",
]
_NOISY = 0.1  # share of rows that look mislabelled or contradict each other
_RISE = 1.05  # a dev loss this much above its least has turned
_FALLING = 0.9  # a train loss below this share of the evaluation before is still falling
_FLAT = 0.98  # one above this share has stopped
_HIGH = 0.5  # a train loss above this share of the first one is still high
_ROWS_SHOWN = 20
_MOST_RANK, _LEAST_RANK = 128, 4
_DROPOUT, _WEIGHT_DECAY = 0.1, 0.05


class Figures(BaseModel):
    """An attempt in figures. Shares and exactness lie between 0 and 1; None is unknown.

    `bar` is the share of the held-out cases that had to pass, `heldout_before` and `heldout_after` what passed; None
    where no look was taken. `mislabelled` are numbers by which people find an example. `dev_before` is the base
    model's own share on dev. `tried` are the recipes of this and of all attempts before.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    recipe: Recipe
    parameter_count: int
    train_count: int
    steps: int = 0
    best_step: int = 0
    train_loss_first: float | None = None
    train_loss_last: float | None = None
    evaluations: tuple[Point, ...] = ()
    dev_before: float | None = None
    dev_exact: float | None = None
    mislabelled: tuple[int, ...] = ()
    conflicts_share: float = 0.0
    heldout_before: float | None = None
    heldout_after: float | None = None
    bar: float | None = None
    passed: bool = False
    diverged: bool = False
    tried: tuple[Recipe, ...] = ()


class Diagnosis(BaseModel):
    """Why an attempt ended as it did. `changes` replace fields of its recipe; without any, another is not worth it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Kind
    because: str
    changes: dict[str, Any] = {}
    advice: str = ""

    @property
    def try_again(self) -> bool:
        return bool(self.changes)


def figures_of(recipe: Mapping[str, Any], scores: Mapping[str, Any], **known: Any) -> Figures:
    """The figures that an adapter's manifest holds (`recipe`, `scores`), and those `known` beside it."""
    names = ("train_count", "steps", "best_step", "train_loss_first", "train_loss_last", "evaluations", "dev_exact")
    taken = {name: scores[name] for name in names if scores.get(name) is not None}
    rows = [row["row"] for row in scores.get("mislabelled", ())]
    return Figures.model_validate({"recipe": recipe, "mislabelled": rows, **taken, **known})


def diagnose(figures: Figures) -> Diagnosis:
    """The first cause that the figures show, in the order in which one would hide the next.

    A run that diverged or whose rate is hopeless says nothing about its data, noisy data makes any run look over- or
    underfitted, and only a run that is neither can lack capacity or data. A change that was tried before is not tried
    again: then it is saturated.
    """
    if figures.passed:
        return Diagnosis(kind="reached the bar", because="the held-out cases are won: nothing is to be changed")
    causes = (_diverged, _rate_too_high, _noisy, _overfit, _underfit, _capacity, _too_little_data)
    found = next((cause for cause in (ask(figures) for ask in causes) if cause is not None), None)
    if found is None:
        return _saturated(_standstill(figures))
    if found.changes and figures.recipe.model_copy(update=found.changes) in figures.tried:
        return _saturated(f"{found.because}; what would help against it was tried before")
    return found


def _saturated(because: str) -> Diagnosis:
    advice = "try a larger base model, a better prompt, or examples like the cases that fail"
    return Diagnosis(kind="saturated", because=because, advice=advice)


def _standstill(figures: Figures) -> str:
    last, first = figures.train_loss_last, figures.train_loss_first
    if figures.evaluations:
        last = figures.evaluations[-1].train_loss
    if last is None or first is None:
        return "dev shows no more gain"
    return f"the train loss went from {first:.3f} to {last:.3f}, and dev shows no more gain"


def _diverged(figures: Figures) -> Diagnosis | None:
    if not figures.diverged:
        return None
    return Diagnosis(
        kind="diverged",
        because=f"the loss became no number at the rate {figures.recipe.lr:g}",
        changes={"lr": _slower(figures)},
    )


def _rate_too_high(figures: Figures) -> Diagnosis | None:
    """Beyond every rate for a model of this size, and dev no better than the base model."""
    highest, lr = learning_rates(figures.parameter_count)[-1], figures.recipe.lr
    dev, before = figures.dev_exact, figures.dev_before or 0.0
    if lr <= highest or dev is None or dev > before:
        return None
    because = f"dev is at {dev:.0%} exact, no better than before, at the rate {lr:g}; {highest:g} is the highest"
    because = f"{because} that suits a base model of this size"
    return Diagnosis(kind="rate too high", because=because, changes={"lr": _slower(figures)})


def _slower(figures: Figures) -> float:
    """A third of the rate, or the rate for a model of this size where that is lower still."""
    return _rounded(min(figures.recipe.lr / 3, learning_rates(figures.parameter_count)[1]))


def _noisy(figures: Figures) -> Diagnosis | None:
    share = len(figures.mislabelled) / max(1, figures.train_count)
    if max(share, figures.conflicts_share) < _NOISY:
        return None
    said = []
    if share >= _NOISY:
        said.append(f"{len(figures.mislabelled)} of {figures.train_count} examples ({share:.0%}) look mislabelled")
    if figures.conflicts_share >= _NOISY:
        said.append(f"{figures.conflicts_share:.0%} of the examples contradict another")
    shown = ", ".join(map(str, figures.mislabelled[:_ROWS_SHOWN]))
    more = ", …" if len(figures.mislabelled) > _ROWS_SHOWN else ""
    advice = f"correct or remove examples {shown}{more}" if shown else "settle the examples that contradict another"
    return Diagnosis(kind="noisy data", because=" and ".join(said), advice=f"{advice}, then start again")


def _overfit(figures: Figures) -> Diagnosis | None:
    points = figures.evaluations
    if len(points) < 3:
        return None
    least, last = min(points, key=lambda one: one.dev_loss), points[-1]
    turned = last.dev_loss >= _RISE * least.dev_loss and last.train_loss < least.train_loss
    if not turned or points.index(least) > len(points) - 3 or last.dev_exact > least.dev_exact:
        return None
    recipe, ends = figures.recipe, figures.best_step or least.step
    rank = max(min(recipe.rank, _LEAST_RANK), recipe.rank // 2)
    changes: dict[str, Any] = {
        "dropout": max(recipe.dropout, _DROPOUT),
        "weight_decay": max(recipe.weight_decay, _WEIGHT_DECAY),
        "rank": rank,
        "alpha": recipe.alpha * rank / recipe.rank,  # the scale of the update, alpha / rank, stays
        **_shorter(recipe, ends, total_steps(recipe, figures.train_count)),
    }
    figures_said = (
        f"from step {least.step} to {last.step} the dev loss rose from {least.dev_loss:.3f} to {last.dev_loss:.3f}"
    )
    because = f"{figures_said} while the train loss fell from {least.train_loss:.3f} to {last.train_loss:.3f}"
    return Diagnosis(kind="overfit", because=because, changes=changes, advice="more examples would help most")


def _shorter(recipe: Recipe, ends: int, steps: int) -> dict[str, Any]:
    """Epochs to the step that was best, in halves; the least number of steps as well."""
    share = min(1.0, ends / max(1, steps))
    epochs = max(0.5, round(2 * recipe.epochs * share) / 2)
    return {"epochs": epochs, "stop_after_epochs": 0.0, "min_steps": min(recipe.min_steps, max(1, ends))}


def _underfit(figures: Figures) -> Diagnosis | None:
    points = figures.evaluations
    if len(points) < 2 or figures.dev_exact == 1.0:
        return None
    before, last = points[-2], points[-1]
    rises = last.best and (last.dev_exact > before.dev_exact)
    falls = last.train_loss < _FALLING * before.train_loss and last.dev_loss < before.dev_loss
    if not (rises or falls):
        return None
    recipe, first = figures.recipe, figures.train_loss_first
    slow = first is not None and last.train_loss > _HIGH * first
    faster = min(2 * recipe.lr, learning_rates(figures.parameter_count)[-1])
    if slow and faster > recipe.lr:
        change: dict[str, Any] = {"lr": _rounded(faster)}
    else:
        change = _longer(recipe)
        if total_steps(recipe.model_copy(update=change), figures.train_count) > MOST_STEPS:
            return None
    moved = f"the dev answers from {before.dev_exact:.0%} to {last.dev_exact:.0%} exact"
    lost = f"the train loss from {before.train_loss:.3f} to {last.train_loss:.3f}"
    because = f"it was still learning when it ended: between the last evaluations {moved}, {lost}"
    return Diagnosis(kind="underfit", because=because, changes=change)


def _longer(recipe: Recipe) -> dict[str, Any]:
    """Twice the epochs and steps, as far as a recipe goes."""
    epochs, min_steps = min(2 * recipe.epochs, float(MOST_EPOCHS)), min(2 * recipe.min_steps, MOST_STEPS)
    return {"epochs": epochs, "min_steps": min_steps, "stop_after_epochs": 0.0}


def _capacity(figures: Figures) -> Diagnosis | None:
    points, first = figures.evaluations, figures.train_loss_first
    if len(points) < 3 or not first:
        return None
    before, last = points[-3], points[-1]
    if last.train_loss <= _HIGH * first or last.train_loss < _FLAT * before.train_loss:
        return None
    recipe = figures.recipe
    if recipe.rank >= _MOST_RANK:
        return None
    faster = min(1.5 * recipe.lr, learning_rates(figures.parameter_count)[-1])
    changes = {"rank": 2 * recipe.rank, "alpha": 2 * recipe.alpha, "lr": _rounded(max(recipe.lr, faster))}
    because = (
        f"the train loss stays at {last.train_loss:.3f}, having begun at {first:.3f}: rank {recipe.rank} holds no more"
    )
    return Diagnosis(kind="capacity", because=because, changes=changes)


def _too_little_data(figures: Figures) -> Diagnosis | None:
    """Dev is won and the held-out cases are not: what is new there was not in the examples."""
    dev, before, after = figures.dev_exact, figures.dev_before, figures.heldout_after
    if after is None or dev is None or before is None or dev <= before:
        return None
    bar = "" if figures.bar is None else f", where {figures.bar:.0%} were wanted"
    because = f"dev went from {before:.0%} to {dev:.0%} exact, but the held-out cases pass at {after:.0%}{bar}"
    advice = f"add examples to the {figures.train_count}, above all like the held-out cases' kinds that fail"
    return Diagnosis(kind="too little data", because=because, advice=advice)


def _rounded(rate: float) -> float:
    return float(f"{rate:.3g}")

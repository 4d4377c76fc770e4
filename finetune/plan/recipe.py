"""The numbers of a training: chosen by the base model's size and the number of rows, each of them replaceable."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StrictInt,
    ValidationError,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    field_validator,
)
from pydantic.fields import FieldInfo

from prompts.errors import BadFile, BadInput
from prompts.wording import refuse
from prompts.yaml_source import Document, parse_model

_BILLION = 1_000_000_000
MOST_EPOCHS, MOST_STEPS = 1_000, 1_000_000  # far beyond what LoRA needs; a slip of the pen must not fill the memory
_ALPHA_PER_RANK = 2
_Number = Annotated[float, Field(allow_inf_nan=False)]


class Recipe(BaseModel):
    """Every number that the result of one training run depends on, beside its rows and the base model.

    Learning rate: linear warm-up over `warmup_share` of the steps, then linear to 0. `patience` counts evaluations
    without a better one; 0 never stops early. `min_steps` wins over `epochs`. `stop_after_epochs` ends a run whose
    rate is planned for `epochs` (0: at its end); where `min_steps` stretches the run, it is stretched alike.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    rank: StrictInt = Field(16, ge=1, le=512)
    alpha: _Number = Field(32.0, gt=0)
    lr: _Number = Field(1e-3, gt=0, le=1)
    epochs: _Number = Field(5.0, gt=0, le=MOST_EPOCHS)
    stop_after_epochs: _Number = Field(0.0, ge=0, le=MOST_EPOCHS)
    batch_size: StrictInt = Field(8, ge=1, le=4096)
    warmup_share: _Number = Field(0.05, ge=0, lt=1)
    weight_decay: _Number = Field(0.01, ge=0, le=100)
    dropout: _Number = Field(0.0, ge=0, lt=1)
    patience: StrictInt = Field(3, ge=0, le=100_000)
    evals_per_epoch: StrictInt = Field(2, ge=1, le=100)
    seed: StrictInt = Field(0, ge=0, lt=2**63)
    min_steps: StrictInt = Field(60, ge=1, le=MOST_STEPS)
    max_grad_norm: _Number = Field(1.0, gt=0)

    @field_validator("*", mode="wrap")
    @classmethod
    def _in_range(cls, value: Any, handler: ValidatorFunctionWrapHandler, info: ValidationInfo) -> Any:
        """The number; what is none, or out of its range, is told the range, with the usual one as an example."""
        try:  # Python's True is 1, which nobody means who writes `patience: true`
            return handler(None if isinstance(value, bool) else value)
        except ValidationError:
            field = cls.model_fields[str(info.field_name)]
            refuse(f"expected {_range_of(field)}", f"write {field.default:g}, say")


_BOUNDS = {"ge": "from {:,}", "gt": "above {:,}", "le": "up to {:,}", "lt": "and below {:,}"}


def _range_of(field: FieldInfo) -> str:
    """The values that a field may have, in words."""
    kind = "a whole number" if field.annotation is int else "a number"
    held = {name: getattr(bound, name) for bound in field.metadata for name in _BOUNDS if hasattr(bound, name)}
    return " ".join([kind, *(form.format(held[name]) for name, form in _BOUNDS.items() if name in held)])


def make_recipe(parameter_count: int, train_count: int, overrides: Mapping[str, Any] | None = None) -> Recipe:
    """The recipe for a base model of so many parameters and so many training rows.

    `overrides` replaces any field by name; a rank alone takes its alpha along, so that the scale of the update stays.
    Raises BadInput that names every unknown field and bad value, and a run of more than a million steps.
    """
    chosen = {"lr": learning_rates(parameter_count)[1], "epochs": _epochs(train_count), **(overrides or {})}
    try:
        recipe = _scaled(parse_model(Recipe, Document("", {"recipe": chosen}, {}), ("recipe",)))
    except BadFile as error:
        faults = (f"{fault.message} ({fault.fix})" for fault in error.faults)
        raise BadInput("; ".join(faults), param="recipe") from error
    if (steps := total_steps(recipe, train_count)) > MOST_STEPS:
        many = f"{recipe.epochs:g} epochs of {train_count:,} rows in batches of {recipe.batch_size} are {steps:,} steps"
        raise BadInput(f"recipe: {many}, {MOST_STEPS:,} at most: set fewer epochs or larger batches", param="recipe")
    return recipe


def _scaled(recipe: Recipe) -> Recipe:
    given = recipe.model_fields_set
    return recipe.model_copy(update={"alpha": float(_ALPHA_PER_RANK * recipe.rank)}) if "alpha" not in given else recipe


def learning_rates(parameter_count: int) -> tuple[float, float, float]:
    """The rates worth trying on a base model of so many parameters; the middle one is the recipe's."""
    if parameter_count < 0.5 * _BILLION:
        return 5e-4, 1e-3, 2e-3
    return (2e-4, 5e-4, 1e-3) if parameter_count <= 4 * _BILLION else (1e-4, 3e-4, 5e-4)


def _epochs(train_count: int) -> float:
    if train_count < 200:
        return 5.0
    return 3.0 if train_count < 1000 else 2.0


def steps_per_epoch(recipe: Recipe, train_count: int) -> int:
    """Batches that see every row once; the last may be smaller."""
    return max(1, math.ceil(train_count / recipe.batch_size))


def total_steps(recipe: Recipe, train_count: int) -> int:
    """Optimizer steps of a whole run, were it not stopped early."""
    return max(recipe.min_steps, math.ceil(recipe.epochs * steps_per_epoch(recipe, train_count)))


def last_step(recipe: Recipe, train_count: int) -> int:
    """The step at which a run ends, were it not stopped early: before `total_steps` with `stop_after_epochs`."""
    steps = total_steps(recipe, train_count)
    return min(steps, step_after(recipe, train_count, recipe.stop_after_epochs)) if recipe.stop_after_epochs else steps


def step_after(recipe: Recipe, train_count: int, epochs: float) -> int:
    """The step that ends so many of the recipe's epochs, each a like share of the run's steps."""
    return max(1, math.ceil(total_steps(recipe, train_count) * epochs / recipe.epochs - 1e-9))


def evaluation_steps(recipe: Recipe, train_count: int) -> frozenset[int]:
    """Where dev is scored: `evals_per_epoch` times an epoch and at the end; as often in all where a run is stretched."""
    steps, last = total_steps(recipe, train_count), last_step(recipe, train_count)
    every = max(1.0, steps / (recipe.epochs * recipe.evals_per_epoch))
    times = math.ceil(last / every)
    return frozenset(at for time in range(1, times + 1) if (at := math.ceil(time * every - 1e-9)) < last) | {last}


def learning_rate_at(recipe: Recipe, step: int, steps: int) -> float:
    """The rate of step 1 … `steps`: linear up over the warm-up, then linear down, 0 after the last."""
    warmup = max(1, math.ceil(recipe.warmup_share * steps))
    if step <= warmup:
        return recipe.lr * step / warmup
    return recipe.lr * (steps + 1 - step) / (steps + 1 - warmup)

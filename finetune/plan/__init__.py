"""What a training job will do, decided before it starts: its recipe, its search, its cost, and the frozen spec it runs.

Also what its figures say when it has ended: rows that look mislabelled, and what to change in the next attempt.
"""

from finetune.plan.choosing import choose_search, expected_s
from finetune.plan.cost import ModelShape, Plan, disk_bytes, make_plan, read_shape
from finetune.plan.diagnosis import Diagnosis, Figures, diagnose, figures_of
from finetune.plan.measured import Measured
from finetune.plan.mislabelled import find_mislabelled
from finetune.plan.recipe import (
    Recipe,
    evaluation_steps,
    last_step,
    learning_rate_at,
    learning_rates,
    make_recipe,
    step_after,
    steps_per_epoch,
    total_steps,
)
from finetune.plan.search import Judged, Point, Search, SeedResult, Split, TrialResult, folds_of
from finetune.plan.spec import JobSpec, Row, read_spec, write_spec

__all__ = [
    "Diagnosis",
    "Figures",
    "JobSpec",
    "Judged",
    "Measured",
    "ModelShape",
    "Plan",
    "Point",
    "Recipe",
    "Row",
    "Search",
    "SeedResult",
    "Split",
    "TrialResult",
    "choose_search",
    "diagnose",
    "disk_bytes",
    "evaluation_steps",
    "expected_s",
    "figures_of",
    "find_mislabelled",
    "folds_of",
    "last_step",
    "learning_rate_at",
    "learning_rates",
    "make_plan",
    "make_recipe",
    "read_shape",
    "read_spec",
    "step_after",
    "steps_per_epoch",
    "total_steps",
    "write_spec",
]

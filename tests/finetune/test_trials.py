"""The search of a whole job on the tiny model: in this process, so that a test can stand in its way."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from finetune import adapter
from finetune.plan import JobSpec, Measured, Recipe, Row, Search, choose_search, figures_of
from tests.finetune.conftest import events_of, run_job

pytestmark = [
    pytest.mark.integration,
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),  # peft 0.21's call
]
MakeSpec = Callable[..., JobSpec]
RECIPE = Recipe(lr=3e-3, rank=4, alpha=8.0, epochs=2, min_steps=4)
SEARCH = Search(lr_grid=(1e-3, 3e-3), epochs_grid=(1.0, 2.0), folds=2, seeds=(0, 1, 2), regularise=True)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """A job sets what torch shares in a process: put it back."""
    import torch

    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(deterministic)


def run_here(spec: JobSpec) -> int:
    from finetune import train
    from finetune.guard import Guard

    return train.run(spec, Guard())


def told(spec: JobSpec, kind: str, **wanted: Any) -> list[dict[str, Any]]:
    return [event for event in events_of(spec) if event["type"] == kind and wanted.items() <= event.items()]


def test_a_job_tries_rates_in_folds_chooses_and_ships_the_median_seed(make_spec: MakeSpec):
    spec = make_spec(recipe=RECIPE, search=SEARCH, clusters=tuple(row // 2 for row in range(16)))
    assert run_here(spec) == 0

    assert [event["name"] for event in told(spec, "trial")] == ["trial-0-0", "trial-0-1", "trial-1-0", "trial-1-1"]
    steps = [event["done"] for event in told(spec, "step")]
    assert steps == list(range(1, len(steps) + 1))  # over all runs
    (recipe,), (seed,) = told(spec, "decision", what="recipe"), told(spec, "decision", what="seed")
    assert recipe["run"] in {event["name"].rpartition("-")[0] for event in told(spec, "trial")}
    assert seed["run"] == f"seed-{seed['seed']}"
    assert recipe["lr"] == 3e-3  # the tiny model learns too slowly at the lower rate
    assert recipe["because"].startswith("over the folds the rate 0.003 after")
    assert "the median of 3 seeds ships" in seed["because"]

    manifest = adapter.verify(spec.output_dir / "adapter")
    assert (manifest.recipe["lr"], manifest.recipe["seed"]) == (3e-3, seed["seed"])
    assert [(one["lr"], one["epochs"]) for one in manifest.scores["trials"]] == [
        (1e-3, 1.0), (1e-3, 2.0), (3e-3, 1.0), (3e-3, 2.0)
    ]  # fmt: skip
    losses = {one["seed"]: one["dev_loss"] for one in manifest.scores["seeds"]}
    exact = {one["seed"]: one["dev_exact"] for one in manifest.scores["seeds"]}
    order = sorted(losses, key=lambda at: (exact[at], -losses[at]))
    assert manifest.scores["dev_loss"] == losses[order[1]]
    figures = figures_of(manifest.recipe, manifest.scores, parameter_count=54_144)  # a diagnosis needs no more
    assert [one.step for one in figures.evaluations] == [
        event["step"] for event in told(spec, "evaluated", run=f"seed-{seed['seed']}")
    ]
    assert figures.train_loss_last is not None
    assert {path.name for path in (spec.output_dir / "trials").iterdir()} == {
        *(f"trial-{at}-{fold}.json" for at in (0, 1) for fold in (0, 1)), *(f"seed-{at}.json" for at in (0, 1, 2))
    }  # fmt: skip


def test_the_search_is_chosen_by_what_a_trial_step_took(make_spec: MakeSpec):
    took = {
        "load_s": 2.0,
        "step_s": 0.8,
        "largest_step_s": 1.0,
        "row_s": 0.1,
        "score_row_s": 0.05,
        "tokens_per_s": 500.0,
    }
    size = {"peak_bytes": 10**9, "free_bytes": 10**10, "pack_tokens": 4096}
    measured = Measured.model_validate({"device": "cpu", "precision": "float32", **took, **size})
    search, why = choose_search(make_spec(recipe=Recipe()), measured, minutes=60, fixed=frozenset({"seed"}))
    assert (search.lr_grid, search.folds, search.seeds) == ((5e-4, 1e-3, 2e-3), 5, (0,))
    assert (
        why[0] == "one run takes about 54 s of the 60 minutes that it may"
    )  # 2 s, 60 steps of 8 rows, 10 scores of 8 rows


def test_each_trial_begins_as_a_job_of_its_own_would(make_spec: MakeSpec):
    """One seed of a search without folds equals the plain job with that seed: nothing of a run leaks into the next."""
    recipe = RECIPE.model_copy(update={"dropout": 0.1})
    alone = make_spec("alone", recipe=recipe.model_copy(update={"seed": 2}))
    among = make_spec("among", recipe=recipe, search=Search(seeds=(0, 1, 2)))
    assert (run_here(alone), run_here(among)) == (0, 0)
    points = [
        [(event["step"], event["dev_loss"]) for event in told(spec, "evaluated", run="seed-2")]
        for spec in (alone, among)
    ]
    assert points[0] == points[1] != []


def diverging_in_one_fold(take_step: Callable[[Any], None]) -> Callable[[Any], None]:
    from finetune import job

    def diverging(run: Any) -> None:
        if run.task.name == "trial-0-0":
            raise job.DivergedError("step 1 gave the loss nan")
        take_step(run)

    return diverging


def test_a_trial_that_diverges_loses_and_the_job_goes_on(make_spec: MakeSpec, monkeypatch: pytest.MonkeyPatch):
    from finetune import job

    take_step = job._Run.take_step

    def diverging(run: job._Run) -> None:
        if run.recipe.lr == 3e-3:
            raise job.DivergedError("step 1 gave the loss nan")
        take_step(run)

    monkeypatch.setattr(job._Run, "take_step", diverging)
    spec = make_spec(recipe=RECIPE, search=SEARCH)
    assert run_here(spec) == 0
    (recipe,) = told(spec, "decision", what="recipe")
    assert recipe["lr"] == 1e-3
    assert [event["diverged"] for event in told(spec, "trial", fold=0)] == [None, "step 1 gave the loss nan"]

    monkeypatch.setattr(job._Run, "take_step", diverging_in_one_fold(take_step))
    torn = make_spec("torn", recipe=RECIPE, search=SEARCH.model_copy(update={"lr_grid": (3e-3,)}))
    assert run_here(torn) == 0
    assert [event["diverged"] for event in told(torn, "trial")][:2] == ["step 1 gave the loss nan", None]
    monkeypatch.setattr(job._Run, "take_step", diverging)

    everywhere = make_spec("everywhere", recipe=RECIPE, search=SEARCH.model_copy(update={"lr_grid": (3e-3,)}))
    assert run_here(everywhere) == 4
    assert events_of(everywhere)[-1] == {
        "type": "failed", "message": "every rate tried diverged: choose one below 0.003", "diverged": True
    }  # fmt: skip


def test_overfitting_is_answered_by_a_candidate_with_dropout(make_spec: MakeSpec, monkeypatch: pytest.MonkeyPatch):
    from finetune import trials

    monkeypatch.setattr(trials, "overfits", lambda points: True)  # the tiny model does not overfit in a few steps
    spec = make_spec(recipe=RECIPE, search=SEARCH)
    assert run_here(spec) == 0
    (why,) = told(spec, "decision", what="regularise")
    assert why["run"] == "trial-1"  # whose folds overfit
    assert why["because"].startswith("in 2 of 2 folds the loss on rows left out rose while the train loss fell")
    tamed = [event["recipe"] for event in told(spec, "trial")][-2:]
    assert tamed == [{"lr": 3e-3, "dropout": 0.1, "weight_decay": 0.05}] * 2


def test_memory_that_runs_out_is_told_and_the_smaller_size_kept_for_the_rest(
    make_spec: MakeSpec, monkeypatch: pytest.MonkeyPatch
):
    from finetune import job

    accumulate, asked = job.accumulate, []

    def short(base: Any, rows: Any, pack_tokens: int) -> Any:
        asked.append(pack_tokens)
        return accumulate(base, rows, min(pack_tokens, 512 if len(asked) >= 3 else pack_tokens))

    monkeypatch.setattr(job, "accumulate", short)
    spec = make_spec(recipe=RECIPE, search=Search(seeds=(0, 1, 2)))
    assert run_here(spec) == 0
    assert asked[:4] == [4096, 4096, 4096, 512]
    assert set(asked[3:]) == {512}
    assert told(spec, "out_of_memory") == [
        {"type": "out_of_memory", "run": "seed-0", "pack_tokens": 4096, "now": 512}
    ]  # fmt: skip


@pytest.mark.long
def test_swapped_labels_are_named(make_spec: MakeSpec):
    chance = random.Random(1)  # noqa: S311  a repeatable test, no secret
    swapped = set(chance.sample(range(60), 6))

    def row(at: int) -> Row:
        content, label = f"{chance.randrange(100)} {'ab'[at % 2] * 6}", "xy"[(at % 2) ^ (at in swapped)]
        return Row(messages=({"role": "user", "content": content},), answer=label)

    spec = make_spec(
        train=tuple(row(at) for at in range(60)),
        dev=(),
        recipe=Recipe(lr=1e-2, epochs=10, min_steps=80),
        search=Search(folds=3, find_mislabelled=True),
        max_new_tokens=4,
    )
    assert run_job(spec) == 0
    (event,) = told(spec, "mislabelled")
    found = {one["row"] for one in event["rows"]}
    assert len(found & swapped) >= 4  # by chance a tenth of those found would be
    assert len(found - swapped) <= 3
    assert all(one["expected"] != one["answered"] for one in event["rows"])
    kept = json.loads((spec.output_dir / "trials" / "mislabelled.json").read_bytes())
    assert kept["rows"] == event["rows"] == adapter.verify(spec.output_dir / "adapter").scores["mislabelled"]

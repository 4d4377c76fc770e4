"""Why an attempt did not reach the bar, and whether the next one is worth its minutes and its look."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from finetune.plan import (
    Diagnosis,
    Figures,
    JobSpec,
    Measured,
    Recipe,
    Search,
    diagnose,
    expected_s,
    figures_of,
    read_shape,
)
from service.tuning.claim import Claim
from service.tuning.material import Material, material
from service.tuning.planning import SECONDS_A_MINUTE, attempt_folder


def reflect(
    claim: Claim, attempt: int, tried: Sequence[Mapping[str, Any]], specs: Sequence[JobSpec], planned: Mapping[str, Any]
) -> tuple[dict[str, Any], JobSpec | None]:
    """What is said of the last of `tried`, and the spec of the next attempt, None where there is to be none.

    `specs` are those of all attempts so far, `planned` is what the plan said.
    """
    work = material(claim, attempt)
    recipes = [_recipe_of(one, spec) for one, spec in zip(tried, specs, strict=True)]
    diagnosis = _fitting(diagnose(_figures(work, tried[-1], specs[-1], recipes, planned)), tried[-1])
    found = diagnosis.model_dump(mode="json")
    if not diagnosis.try_again:
        return {**found, "again": False, "next": diagnosis.advice}, None
    recipe = recipes[-1].model_copy(update=diagnosis.changes)
    spec = _next(claim, attempt, specs[-1], recipe)
    obstacle = _obstacle(work, attempt, tried, expected_s(spec, Measured.model_validate(planned["measured"])))
    if obstacle:
        return {**found, "again": False, "next": f"{_changed(diagnosis)} might help, but {obstacle}"}, None
    return {**found, "again": True, "next": f"next attempt: {_changed(diagnosis)}"}, spec


def _fitting(diagnosis: Diagnosis, last: Mapping[str, Any]) -> Diagnosis:
    """The diagnosis; where every threshold was met, and only the gain was not shown, the data is not what lacked."""
    if diagnosis.kind != "too little data" or last["verdict"] != "inconclusive":
        return diagnosis
    because = f"no threshold was missed, but {'; '.join(last['reasons'])}"
    advice = "add held-out cases, which show a smaller gain, or examples like the cases that fail"
    return Diagnosis(kind="reached the bar", because=because, advice=advice)


def _recipe_of(one: Mapping[str, Any], spec: JobSpec) -> Recipe:
    """The recipe that an attempt ended up with: what its search chose, where it came to that."""
    chosen = one.get("recipe")
    return spec.recipe if chosen is None else Recipe.model_validate(chosen)


def _figures(
    work: Material, last: Mapping[str, Any], spec: JobSpec, recipes: Sequence[Recipe], planned: Mapping[str, Any]
) -> Figures:
    before, after, dev = last.get("before"), last.get("after"), last.get("dev")
    report = planned["report"]
    known: dict[str, Any] = {
        "parameter_count": read_shape(spec.base_folder).parameter_count,
        "train_count": len(spec.train),
        "diverged": last["verdict"] == "diverged",
        "dev_before": dev["before"] / dev["total"] if dev else None,
        "heldout_before": before["pass_rate"] if before else None,
        "heldout_after": after["pass_rate"] if after else None,
        "bar": work.suite.thresholds.pass_rate,
        "conflicts_share": report["contradicting"] / max(1, report["given"]),
        "tried": tuple(recipes),
    }
    scores = last.get("scores") or {}
    suspects = [{"row": planned["train_at"][one["row"]]} for one in scores.get("mislabelled", ())]
    return figures_of(recipes[-1].model_dump(), {**scores, "mislabelled": suspects}, **known)


def _obstacle(work: Material, attempt: int, tried: Sequence[Mapping[str, Any]], needed_s: float) -> str:
    """What stands against another attempt of so many seconds; empty where nothing does."""
    if attempt >= work.budget.attempts:
        return f"the budget of {work.budget.attempts} attempts is spent: raise fallback.budget.attempts, or --attempts"
    spent_s = sum(one.get("seconds") or 0.0 for one in tried)
    left_s = work.budget.minutes * SECONDS_A_MINUTE - spent_s
    if needed_s <= left_s:
        return ""
    return (
        f"it would take about {needed_s / SECONDS_A_MINUTE:.1f} of the {max(0.0, left_s) / SECONDS_A_MINUTE:.1f} minutes "
        "that are left: raise fallback.budget.minutes, or --minutes"
    )


def _changed(diagnosis: Diagnosis) -> str:
    return ", ".join(f"{name} {value:g}" for name, value in diagnosis.changes.items())


def _next(claim: Claim, attempt: int, spec: JobSpec, recipe: Recipe) -> JobSpec:
    """The same rows by another recipe, in one run: what a search could tell it has told."""
    changes = {
        "recipe": recipe,
        "search": Search(seeds=(recipe.seed,)),
        "output_dir": attempt_folder(claim, attempt + 1) / "training",
        "adapter_name": material(claim, attempt + 1).adapter,
    }
    return spec.model_copy(update=changes)

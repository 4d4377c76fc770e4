"""The plan of a fine-tune: examples, recipe, search, memory and time, decided and stored before anything is trained."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from finetune.data import Example, answer_limit, clusters_of, report_lines, split
from finetune.plan import (
    JobSpec,
    Measured,
    Row,
    choose_search,
    make_recipe,
    read_shape,
    write_spec,
)
from prompts.errors import BadInput
from prompts.prompt import CompiledPrompt
from service.child import require_local_packages
from service.engine import weights
from service.engine_shares import Share
from service.ids import now
from service.training import figures, measure
from service.tuning.claim import Claim
from service.tuning.examples import Examples, gather
from service.tuning.material import Material, material, model_source

SECONDS_A_MINUTE = 60.0
_OF_SEVERAL = 2 / 3  # of the minutes go to the first of several attempts; the rest pays for what it taught


def plan(claim: Claim) -> dict[str, Any]:
    """Clean, leak-check and split the examples; choose the recipe; try a step; write the first attempt's frozen spec."""
    require_local_packages("training")
    work = material(claim)
    found = gather(claim, work)
    report = found.report.model_dump(mode="json")
    shown = {"dry_run": work.spec.dry_run, "budget": work.budget.model_dump(), "report": report}
    counts = found.report.model_dump(include={"given", "kept", "dropped"})
    shown |= {"examples": counts, "dataset": found.dataset.digest, "report_lines": report_lines(found.report)}
    if found.report.refusals:
        return _refuse(claim, shown, found.report.refusals)
    try:
        draft = _draft(claim, work, found)
        measured, engines = _try(claim, draft)
    except BadInput as error:
        return _refuse(claim, shown, [str(error)])
    if not measured.fits:
        return _refuse(claim, shown, [measured.reason])
    spec, decisions = _search(work, draft, measured)
    shown["train_at"] = _places(found)
    shown |= figures(spec, measured, engines, decisions)
    shown["heldout"] = len(work.suite.tests) * work.suite.repeat
    if not (attempt_folder(claim, 1) / "spec.json").exists():
        write_spec(spec, attempt_folder(claim, 1) / "spec.json")
    claim.tell_once("planned", **shown)
    return shown


def attempt_folder(claim: Claim, attempt: int) -> Path:
    """Where one attempt's spec, log and training lie."""
    return claim.folder / f"attempt-{attempt}"


def _refuse(claim: Claim, shown: dict[str, Any], reasons: Sequence[str]) -> dict[str, Any]:
    claim.tell_once("refused", reasons=list(reasons), **shown)
    return {**shown, "refused": list(reasons)}


def _draft(claim: Claim, work: Material, found: Examples) -> JobSpec:
    """All of the spec but what only a measured step can tell."""
    train, dev = _parts(found)
    model_spec = claim.settings.model(work.spec.base)
    base_folder = weights.pull(model_source(claim.settings, work.spec.base), weights.default_cache_dir())
    return JobSpec(
        job_id=claim.job_id,
        base_folder=base_folder,
        output_dir=attempt_folder(claim, 1) / "training",
        train=tuple(_render(work.prompt, train)),
        dev=tuple(_render(work.prompt, dev)),
        clusters=_cluster_ids(train),
        recipe=make_recipe(read_shape(base_folder).parameter_count, len(train), work.recipe),
        max_new_tokens=answer_limit(work.prompt),
        lineage=_lineage(claim, work, found),
        threads=getattr(model_spec, "threads", None),
        device=getattr(model_spec, "device", "auto"),
        adapter_name=work.adapter,
        created_at=now(),
    )


def _try(claim: Claim, draft: JobSpec) -> tuple[Measured, list[Share]]:
    """Some real steps of the draft in a folder of their own."""
    folder = claim.folder / "trial"
    write_spec(draft.model_copy(update={"output_dir": folder / "training"}), folder / "spec.json")
    return measure(folder, claim.settings.run_dir, claim.check)


def _search(work: Material, draft: JobSpec, measured: Measured) -> tuple[JobSpec, list[str]]:
    """The spec with the search that its minutes allow and the ways that its memory asks for, and why, in words."""
    budget = work.budget
    minutes = budget.minutes * (_OF_SEVERAL if budget.attempts > 1 else 1.0)
    search, why = choose_search(draft, measured, minutes=minutes, fixed=frozenset(work.recipe))
    changes = {"search": search, **measured.ways()}
    return draft.model_copy(update=changes), [*measured.decisions, *why]


def _parts(found: Examples) -> tuple[tuple[Example, ...], tuple[Example, ...]]:
    """Train and dev."""
    return split(found.cleaned.kept, seed=0)


def _places(found: Examples) -> list[int]:
    """The number of each training row's example in the dataset, which is how people find it."""
    at = {id(example): number for number, example in enumerate(found.given)}
    return [at[id(example)] for example in _parts(found)[0]]


def _cluster_ids(examples: Sequence[Example]) -> tuple[int, ...]:
    """For each example the number of its cluster of near duplicates."""
    of_example = {at: number for number, cluster in enumerate(clusters_of(examples)) for at in cluster}
    return tuple(of_example[at] for at in range(len(examples)))


def _lineage(claim: Claim, work: Material, found: Examples) -> dict[str, Any]:
    return {
        "job_id": claim.job_id,
        "prompt": f"{work.after.prompt}@{work.after.version}",
        "prompt_digest": work.prompt.digest,
        "suite": f"{work.spec.suite}@{work.spec.suite_version}",
        "dataset_digest": found.dataset.digest,
        "kept_digest": found.report.digest,
        "examples": len(found.given),
    }


def _render(prompt: CompiledPrompt, examples: Sequence[Example]) -> list[Row]:
    return [
        Row(messages=tuple(message.as_dict() for message in prompt.render(example.vars)), answer=example.expected)
        for example in examples
    ]

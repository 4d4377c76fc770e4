"""An exported model is a variant of its own: a suite is run against it, and its greedy answers stand beside the adapter's."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from prompts.names import Variant
from service.evaluation import Evaluator, Finished, Progress, RunSpec
from service.ids import new_id
from service.pool import ModelPool
from service.registry import Registry
from service.settings import LocalSpec, Settings
from service.store.database import Database
from suites.results import CaseResult

MOST_SHOWN = 5  # cases that were answered differently


def with_model(settings: Settings, models: Mapping[str, Mapping[str, Any]]) -> Settings:
    """The settings with the entries of an export among their models."""
    entries = {alias: LocalSpec.model_validate(entry) for alias, entry in models.items()}
    return settings.model_copy(update={"models": {**settings.models, **entries}})


async def retest(
    database: Database, settings: Settings, suite: str, record: Mapping[str, Any], alias: str, progress: Progress | None
) -> dict[str, Any]:
    """Run a stored suite (`NAME` or `NAME@N`) on the prompt's version that the adapter was trained for: with the model
    `alias`, and with the adapter in the embedded engine. Gives both summaries and how many answers agree.
    """
    registry = Registry(database, settings)
    stored = registry.suite(suite)
    read = registry.read_suite(stored)
    ours = Variant(record["prompt"], record["version"], record["base_model"], record["name"])
    pool = ModelPool(settings)
    evaluator = Evaluator(database, settings, pool)
    try:
        ended = []
        for variant in (Variant(ours.prompt, ours.version, alias), ours):
            # nothing of the cache: an alias of this name may have been another file's
            spec = RunSpec(new_id("run"), stored["name"], stored["number"], variant, use_cache=False)
            ended.append(await evaluator.run(spec, read, progress))
    finally:
        await pool.aclose()
    exported, adapter = ended
    sides = {"exported": exported, "adapter": adapter}
    told = {side: {**_shown(run), "error": first_error(evaluator.results(run.run_id))} for side, run in sides.items()}
    return {**told, **_agreement(evaluator, exported, adapter)}


def first_error(results: Iterable[CaseResult]) -> str:
    """Why the first case without an answer has none; "" where all were answered."""
    return next((f"{one.case_id}: {one.error}" for one in results if one.status == "errored"), "")


def _shown(finished: Finished) -> dict[str, Any]:
    names = ("variant", "passed", "failed", "errored", "skipped", "total", "pass_rate", "ci95")
    return {"run_id": finished.run_id, **{name: finished.data[name] for name in names}}


def _agreement(evaluator: Evaluator, exported: Finished, adapter: Finished) -> dict[str, Any]:
    """Cases that both answered, how many with the same text, and the ids of some that differ."""
    theirs = {(one.case_id, one.repeat): one.output for one in evaluator.results(adapter.run_id)}
    pairs = [
        (one.case_id, one.output, theirs.get((one.case_id, one.repeat))) for one in evaluator.results(exported.run_id)
    ]
    both = [pair for pair in pairs if pair[1] is not None and pair[2] is not None]
    differ = [case_id for case_id, one, other in both if one != other]
    return {"compared": len(both), "same_answers": len(both) - len(differ), "differ": differ[:MOST_SHOWN]}

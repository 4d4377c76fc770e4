"""Runs and gates before they are started: what is asked of which variant, and what cannot be."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from prompts.errors import BadInput
from service.evaluation import RunSpec
from service.questions import GateRequest, RunJob
from suites.case import Suite
from suites.judging import check_alone, compares_answers
from suites.verdicts import GateInput


@dataclass(frozen=True, slots=True)
class RunPlan:
    """A run that can be started: everything named exists."""

    spec: RunSpec
    suite: Suite


@dataclass(frozen=True, slots=True)
class GateItem:
    """One suite of a gate; `baseline` is a run to make, or the id of one that was made before, or None."""

    candidate: RunPlan
    baseline: RunPlan | str | None

    @property
    def runs(self) -> tuple[RunPlan, ...]:
        """The runs to make: one where a version is compared with itself."""
        if isinstance(self.baseline, RunPlan) and self.baseline is not self.candidate:
            return (self.candidate, self.baseline)
        return (self.candidate,)

    @property
    def compares(self) -> bool:
        """Whether the answers of both sides are compared with each other."""
        return isinstance(self.baseline, RunPlan) and compares_answers(self.candidate.suite)


def run_id_in(work_id: str, number: int) -> str:
    """The id of one of the runs of a gate or a matrix."""
    return f"run_{work_id.partition('_')[2]}_{number}"


def matrix_id_of(run_id: str) -> str:
    """The id of the matrix made here that a run belongs to."""
    return f"matrix_{run_id.partition('_')[2].rpartition('_')[0]}"


def pin(plan: RunPlan) -> RunJob:
    spec = plan.spec
    return RunJob(
        suite=f"{spec.suite}@{spec.suite_version}",
        variant=str(spec.variant),
        concurrency=spec.concurrency,
        use_cache=spec.use_cache,
        rerun_of=spec.rerun_of,
        asks=spec.asks,
        rubrics=dict(spec.rubrics),
        filter=spec.filter,
    )


def refuse_no_evidence(run_id: str, summary: Mapping[str, Any]) -> None:
    """Raise BadInput for a run that no verdict may rest on."""
    if "compared" in summary:
        others = ", ".join(each["variant"] for each in summary["compared"] if each["run_id"] != run_id)
        told = f"was compared with {others or 'itself'}: what its cases came to says nothing of it by itself"
        raise BadInput(f"run {run_id!r} {told}; give the version that it tested", param="baseline")
    if "filter" in summary:
        told = "has some of the cases only: it is no evidence; run the suite without a filter"
        raise BadInput(f"run {run_id!r} {told}", param="baseline")
    again = summary.get("rerun", {})
    if again.get("asks") == "failed":
        told = (
            f"is a re-run, in which cases that had failed got a second chance: give run:{again['of']}, or run it anew"
        )
        raise BadInput(f"run {run_id!r} {told}", param="baseline")


def check_comparison(request: GateRequest, candidate: RunPlan, baseline: RunPlan | str | None) -> None:
    """Raise BadInput for a suite that compares answers where those of both sides are not asked in this gate."""
    name, suite = candidate.spec.suite, candidate.suite
    if not compares_answers(suite):
        return
    if isinstance(baseline, str):
        told = (
            f"suite {name} compares the answers of both sides, and those of run {baseline} have been compared already"
        )
        raise BadInput(f"{told}: give the version that it tested, whose answers are cached", param="baseline")
    if baseline is None:
        check_alone(name, suite, "name a --baseline, or label a version `production`: a gate compares it with that")
    elif request.rerun_failed:
        told = f"suite {name} compares the answers of both sides, so what either came to depends on both"
        raise BadInput(f"{told}: leave out --rerun-failed; answers that came are cached", param="rerun_failed")


def notes_of(given: GateInput, item: GateItem) -> Iterator[str]:
    """What a reader of the verdict must know of its runs."""
    if item.compares and len(item.runs) > 1:
        yield f"{given.suite}: the answers of both sides were compared; where both are as good, both pass"
    if given.baseline is not None and given.baseline.run_id == given.candidate.run_id:
        same = f"candidate and baseline are the same variant {given.candidate.variant}: nothing was compared"
        left = "thresholds decide" if given.thresholds.given() else "without thresholds nothing decides"
        yield f"{given.suite}: {same}; {left}"
    for role, side in (("candidate", given.candidate), ("baseline", given.baseline)):
        if side is not None and side.rerun_of is not None and side.rerun_of != side.run_id:
            kept = f"the {role}'s run keeps what {side.rerun_of} judged"
            yield f"{given.suite}: {kept}; only what had errored or was not asked is asked again"

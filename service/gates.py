"""Gates: which variants a question means, the runs that answer it, the verdict and its evidence."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from prompts.errors import BadInput
from prompts.names import PRODUCTION, Selector, Variant, parse_selector, parse_variant
from service.errors import CannotRun, NotFound
from service.evaluation import Again, Evaluator, Finished, Progress, RunSpec
from service.identity import Principal
from service.ids import now
from service.questions import (
    NO_BASELINE,
    RUN_BASELINE,
    GateJob,
    GateRequest,
    MatrixJob,
    MatrixRequest,
    RunJob,
    RunRequest,
    by_name,
    rubrics_by_name,
)
from service.registry import Registry
from service.run_plans import GateItem, RunPlan, check_comparison, notes_of, pin, refuse_no_evidence, run_id_in
from service.run_rows import case_statuses
from service.store import jobs, routes, runs
from service.store.database import Database
from suites.case import Suite
from suites.detail import gate_input
from suites.evidence_digest import record_digest
from suites.gate import decide_all
from suites.judging import check_alone
from suites.outcomes import statuses_of
from suites.verdicts import GateEvidence, GateInput, Side, worst

if TYPE_CHECKING:
    from service.store.session import Session
    from suites.comparison import Rule

__all__ = ["GateItem", "GateJob", "GateRequest", "Gates", "RunJob", "RunPlan", "RunRequest"]


class Gates:
    """Plans and decides runs and gates on what the registry holds."""

    def __init__(self, database: Database, registry: Registry, evaluator: Evaluator) -> None:
        self._database = database
        self._registry = registry
        self._evaluator = evaluator

    def plan_run(self, request: RunRequest, run_id: str) -> RunPlan:
        """Everything that can be known to be wrong before a model is called is raised here."""
        plan = self._run_plan(request, run_id)
        check_alone(request.suite, plan.suite)
        return plan

    def plan_matrix(self, request: MatrixRequest, matrix_id: str) -> list[RunPlan]:
        """The runs of a matrix; raises what `plan_run` does, and BadInput for a variant that is there twice."""
        plans = [self._run_plan(each, run_id_in(matrix_id, number)) for number, each in enumerate(request.runs())]
        variants = [str(plan.spec.variant) for plan in plans]
        for number, variant in enumerate(variants):
            if variant in variants[:number]:
                told = f"variant {variant} is named twice: variants {variants.index(variant) + 1} and {number + 1}"
                raise BadInput(f"{told}; leave one out", param="variants")
        return plans

    def _run_plan(self, request: RunRequest, run_id: str) -> RunPlan:
        record = self._registry.suite_head(request.suite)
        prompt = record["prompt"]
        selector = parse_selector(request.prompt) if request.prompt else Selector(prompt, label=PRODUCTION)
        if selector.name != prompt:
            raise BadInput(f"suite {request.suite!r} tests {prompt!r}, not {selector.name!r}", param="prompt")
        if request.filter and request.rerun_failed:
            raise BadInput("rerun_failed chooses the cases itself: leave the filter out", param="filter")
        plan = self._priced(self._plan(record, selector, run_id, request.model, request.adapter, request))
        plan = replace(plan, spec=replace(plan.spec, filter=request.filter))
        plan.spec.chosen(plan.suite)
        return plan

    def pinned_run(self, request: RunRequest) -> RunJob:
        """What a job keeps of a request; raises all that can be known to be wrong."""
        return pin(self.plan_run(request, "run_check"))

    def pinned_matrix(self, request: MatrixRequest) -> MatrixJob:
        """What a job keeps of a request; raises all that can be known to be wrong."""
        return MatrixJob(runs=tuple(map(pin, self.plan_matrix(request, "matrix_check"))))

    def pinned(self, request: GateRequest) -> GateJob:
        """What a job keeps of a request; raises all that can be known to be wrong."""
        items = self.plan(request, "gate_check")
        held_out = [self._registry.suite_head(text) for text in request.held_out]
        return GateJob(
            candidates=tuple(pin(item.candidate) for item in items),
            baselines=tuple(pin(b) if isinstance(b := item.baseline, RunPlan) else b for item in items),
            fallback=request.fallback,
            held_out={record["name"]: record["number"] for record in held_out},
        )

    def load_run(self, job: RunJob, run_id: str) -> RunPlan:
        """The run that a job keeps."""
        record = self._registry.suite_head(job.suite)
        spec = RunSpec(
            run_id=run_id,
            suite=record["name"],
            suite_version=record["number"],
            variant=parse_variant(job.variant),
            concurrency=job.concurrency,
            use_cache=job.use_cache,
            rerun_of=job.rerun_of,
            asks=job.asks,
            rubrics=job.rubrics,
            filter=job.filter,
        )
        return RunPlan(spec, self._registry.read_suite(record))

    def load_matrix(self, job: MatrixJob, matrix_id: str) -> list[RunPlan]:
        """The runs that a matrix's job keeps."""
        return [self.load_run(each, run_id_in(matrix_id, number)) for number, each in enumerate(job.runs)]

    async def run_matrix(self, plans: Sequence[RunPlan], progress: Progress | None = None) -> list[dict[str, Any]]:
        """The figures of each run, when all have answered and what compares their answers is decided."""
        specs = [plan.spec for plan in plans]
        return [one.data for one in await self._evaluator.run_all(specs, plans[0].suite, progress, "variants")]

    def load(self, job: GateJob, gate_id: str) -> list[GateItem]:
        """The runs that a gate's job keeps."""
        items = []
        for index, (candidate_job, baseline_job) in enumerate(zip(job.candidates, job.baselines, strict=True)):
            run_id = run_id_in(gate_id, index)
            candidate = self.load_run(candidate_job, run_id + "c")
            baseline: RunPlan | str | None = None
            if isinstance(baseline_job, RunJob):
                same = baseline_job.variant == candidate_job.variant
                baseline = candidate if same else self.load_run(baseline_job, run_id + "b")
            else:
                baseline = baseline_job
            items.append(GateItem(candidate, baseline))
        return items

    def _priced(self, plan: RunPlan) -> RunPlan:
        """A candidate's plan; raises BadFile where its suite bounds costs that nobody knows. A baseline has no bounds."""
        self._registry.check_price(plan.spec.suite, plan.suite, plan.spec.variant.model)
        return plan

    def _plan(
        self,
        record: dict[str, Any],
        selector: Selector,
        run_id: str,
        model: str | None,
        adapter: str | None,
        request: RunRequest | GateRequest,
    ) -> RunPlan:
        version = self._registry.version(selector)
        variant = Variant(version.name, version.number, model or version.content["model"], adapter)
        suite = self._registry.read_suite(record)
        self._registry.check_model(variant.model)
        asks: Again = "errored" if isinstance(request, GateRequest) else "failed"
        spec = RunSpec(
            run_id=run_id,
            suite=record["name"],
            suite_version=record["number"],
            variant=variant,
            concurrency=request.concurrency,
            use_cache=not (request.no_cache or request.rerun_failed),
            rerun_of=self._last_run(record, variant, asks) if request.rerun_failed else None,
            asks=asks,
            rubrics=rubrics_by_name(request.rubrics),
        )
        return RunPlan(spec, suite)

    def _last_run(self, record: dict[str, Any], variant: Variant, asks: Again) -> str | None:
        """The newest run of this suite version and variant; what a gate keeps was asked without a second chance."""
        with self._database.read() as session:
            last = runs.newest_finished(session, record["name"], str(variant), second_chances=asks == "failed")
        return last["id"] if last and last["suite_version"] == record["number"] else None

    def plan(self, request: GateRequest, gate_id: str) -> list[GateItem]:
        """The runs of a gate, one for a suite however often it is named.

        Raises what can be known before a model is called, a gate without a bar among it.
        """
        heads = map(self._registry.suite_head, request.suites)
        records = list(
            {(head["name"], head["number"]): head for head in heads}.values()
        )  # twice would weaken Holm's rule
        candidates = by_name(request.candidate, "candidate")
        baselines = {} if request.baseline in (NO_BASELINE, (NO_BASELINE,)) else by_name(request.baseline, "baseline")
        tested = {record["prompt"] for record in records}
        for role, named in (("candidate", candidates), ("baseline", baselines)):
            for name in sorted(named.keys() - tested - {RUN_BASELINE}):
                told = f"{role}: prompt {name!r} is tested by none of the suites {', '.join(request.suites)}"
                raise BadInput(f"{told}: name a version of {', '.join(sorted(tested))}", param=role)
        items = []
        for index, record in enumerate(records):
            prompt = record["prompt"]
            selector = candidates.get(prompt, Selector(prompt, label=PRODUCTION))
            if isinstance(selector, str) or RUN_BASELINE in candidates:
                raise BadInput("a candidate is a version, NAME@SEL; only a baseline may be run:ID", param="candidate")
            run_id = run_id_in(gate_id, index)
            candidate = self._priced(self._plan(record, selector, run_id + "c", request.model, None, request))
            baseline = self._baseline(request, record, baselines, candidate, run_id + "b")
            if baseline is None and not candidate.suite.thresholds.given():
                raise BadInput(
                    f"suite {record['name']}: no thresholds and no baseline, so nothing to decide by: add `thresholds`,"
                    f" or label a version of {prompt} `production`, or give --baseline",
                    param="baseline",
                )
            check_comparison(request, candidate, baseline)
            items.append(GateItem(candidate, baseline))
        return items

    def _baseline(
        self,
        request: GateRequest,
        record: dict[str, Any],
        baselines: dict[str, Selector | str],
        candidate: RunPlan,
        run_id: str,
    ) -> RunPlan | str | None:
        if request.baseline in (NO_BASELINE, (NO_BASELINE,)):
            return None
        named = baselines.get(record["prompt"], baselines.get(RUN_BASELINE))
        if isinstance(named, Selector) and named.label == NO_BASELINE:
            return None
        if isinstance(named, str):
            return self._known_run(named, record["name"])
        try:
            selector = named or Selector(record["prompt"], label=PRODUCTION)
            plan = self._plan(record, selector, run_id, None, None, request)  # `model` is the candidate's
        except NotFound:
            if named is not None:
                raise
            return None
        return candidate if plan.spec.variant == candidate.spec.variant else plan

    def _known_run(self, run_id: str, suite: str) -> str:
        with self._database.read() as session:
            record = runs.get(session, run_id)
        if record is None or record["status"] != "finished":
            hint = "`turnout run --json` says the id of a run; one that was cut short is ended with --resume"
            raise NotFound("finished run", run_id, hint)
        refuse_no_evidence(run_id, record["summary"] or {})
        if record["suite"] != suite:
            told = f"run {run_id!r} is of suite {record['suite']!r}, not {suite!r}"
            raise BadInput(f"{told}: give a run of this suite, a version, or none", param="baseline")
        return run_id

    def cut_short(self, items: Sequence[GateItem]) -> str | None:
        """The newest gate made here of these versions and variants that came to no verdict; None where there is none.

        One that a job does is resumed by its job alone.
        """
        first = items[0].candidate.spec
        with self._database.read() as session:
            for run in runs.newest(session, first.suite, first.suite_version, str(first.variant)):
                stem, _, place = run["id"].removeprefix("run_").partition("_")
                ended = routes.evidence(session, f"ev_{stem}_0") or jobs.get(session, f"job_{stem}")
                if place == "0c" and not ended and _are_runs_of(session, stem, items):
                    return f"gate_{stem}"
        return None

    async def decide(
        self, gate_id: str, items: Sequence[GateItem], actor: Principal, progress: Progress | None = None
    ) -> dict[str, Any]:
        """Run what is not run yet, decide, and keep the evidence. The same gate again gives the same answer."""
        inputs: list[GateInput] = []
        for item in items:
            suite = item.candidate.suite
            candidate, baseline = await self._sides(item, progress)
            side = await self._evaluator.side(candidate, suite)
            given = await asyncio.to_thread(gate_input, item.candidate.spec.suite, suite, side, baseline)
            rubrics = candidate.data.get("rubrics", {})
            inputs.append(await asyncio.to_thread(self._evaluator.with_judges, given, suite, rubrics))
        evidence = await asyncio.to_thread(decide_all, inputs)  # a bootstrap takes seconds
        ids = await asyncio.to_thread(self._keep, gate_id, items, evidence, actor)
        shown = [found.decision.as_dict(kept) for found, kept in zip(evidence, ids, strict=True)]
        reasons = [f"{entry['suite']}: {reason}" for entry in shown for reason in entry["reasons"]]
        verdict = worst(found.decision.verdict for found in evidence)
        notes = [note for given, item in zip(inputs, items, strict=True) for note in notes_of(given, item)]
        return {"gate_id": gate_id, "verdict": verdict, "reasons": reasons, "suites": shown, "notes": notes}

    async def _sides(self, item: GateItem, progress: Progress | None) -> tuple[Finished, Side | None]:
        """The candidate's run, and the baseline's side; run together where the suite compares their answers."""
        suite = item.candidate.suite
        if not item.compares:
            candidate = await self._evaluator.run(item.candidate.spec, suite, progress)
            return candidate, await self._baseline_side(item, candidate, progress)
        specs = [plan.spec for plan in item.runs]
        rule: Rule = "gate" if len(specs) > 1 else "itself"
        candidate, *others = await self._evaluator.run_all(specs, suite, progress, rule)
        return candidate, await self._evaluator.side(others[0] if others else candidate, suite)

    async def _baseline_side(self, item: GateItem, candidate: Finished, progress: Progress | None) -> Side | None:
        if item.baseline is None:
            return None
        if isinstance(item.baseline, str):
            return await asyncio.to_thread(self._stored_side, item.baseline, item.candidate.suite)
        if item.baseline is item.candidate:
            return await self._evaluator.side(candidate, item.candidate.suite)
        finished = await self._evaluator.run(item.baseline.spec, item.baseline.suite, progress)
        return await self._evaluator.side(finished, item.baseline.suite)

    def _stored_side(self, run_id: str, suite: Suite) -> Side:
        with self._database.read() as session:
            record = runs.get(session, run_id)
        if record is None or record["summary"] is None:
            raise CannotRun(f"run {run_id} vanished while it was read")
        summary = record["summary"]
        side = Side(
            variant=record["variant"],
            outcomes=statuses_of(case_statuses(record, self._registry)),
            p95_latency_ms=summary["p95_ms"],
            cost_per_1k_usd=summary["cost_per_1k_usd"],
            run_id=run_id,
            stopped=summary["stopped"],
            waiting=summary.get("waiting", 0),
            set_aside=summary.get("set_aside", 0),
            rerun_of=summary.get("rerun", {}).get("of"),
        )
        return self._evaluator.detailed(side, suite)

    def _keep(
        self, gate_id: str, items: Sequence[GateItem], evidence: Sequence[GateEvidence], actor: Principal
    ) -> list[str]:
        ids = []
        with self._database.write() as session:
            for index, (item, found) in enumerate(zip(items, evidence, strict=True)):
                content = found.model_dump(mode="json")
                ids.append(f"ev_{gate_id.partition('_')[2]}_{index}")
                record: dict[str, Any] = {"id": ids[-1], "kind": "gate", "prompt": item.candidate.spec.variant.prompt}
                record |= {"verdict": found.decision.verdict, "candidate": found.decision.candidate}
                record |= {"content": content, "actor": actor.id, "created_at": now()}
                routes.add_evidence(session, {**record, "digest": record_digest(record)})
        return ids


def _are_runs_of(session: Session, stem: str, items: Sequence[GateItem]) -> bool:
    """Whether what has been run under a gate's id is what these items ask, as far as it came."""
    for index, item in enumerate(items):
        sides = {"c": item.candidate, "b": item.baseline if isinstance(item.baseline, RunPlan) else None}
        for side, plan in sides.items():
            stored = runs.get(session, f"run_{stem}_{index}{side}")
            found = stored and (stored["suite"], stored["suite_version"], stored["variant"])
            if found and (plan is None or found != (plan.spec.suite, plan.spec.suite_version, str(plan.spec.variant))):
                return False
    return runs.get(session, f"run_{stem}_{len(items)}c") is None

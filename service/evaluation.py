"""Suite runs and gates over the store: every case is written as it comes, and a run that was cut short goes on."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

from prompts.names import Variant
from prompts.prompt import CompiledPrompt, PromptContent, compile_prompt
from prompts.wording import many
from service.asking import Asker
from service.errors import Conflict, NotFound
from service.ids import now
from service.pool import Models, price_of
from service.recording import Recorder
from service.settings import Settings
from service.store import prompts, routes, runs
from service.store.database import Database
from suites.case import Suite, Thresholds
from suites.detail import Wanted, gate_input, with_detail
from suites.filters import Filter
from suites.gate import decide
from suites.judging import Needs
from suites.outcomes import statuses_data
from suites.results import CaseResult, RunSummary
from suites.runner import run_suite
from suites.standing import set_aside_in_words
from suites.verdicts import Counted, GateInput, Side

if TYPE_CHECKING:
    from service.aids import Desk
    from service.matrix import Entrant
    from service.store.session import Session
    from suites.comparison import Rule

DEFAULT_CONCURRENCY = 16
ALL_CASES = Filter()
MARKS = ("filter", "rerun", "compared")  # what a run says of itself from its start on
Progress = Callable[[CaseResult], None]
Again = Literal["failed", "errored"]


@runtime_checkable
class Watcher(Protocol):
    """Progress that wants to hear, too, that a run waits for an overloaded model."""

    def waits(self, reason: str) -> None: ...


@dataclass(frozen=True, slots=True)
class RunSpec:
    """One suite version against one variant, all of its cases or those of `filter`.

    `rerun_of` names a run whose results are kept: with `asks` "failed" those of cases that passed in all their repeats,
    so that a case which failed gets a second chance; with "errored" every result that was judged. `rubrics` are the
    versions (`NAME@N`) that the suite's rubrics mean, by name; those not among them mean what they mean when it starts.
    `compared` are the runs whose answers are compared with this one's, itself among them; none where no other's are.
    """

    run_id: str
    suite: str
    suite_version: int
    variant: Variant
    concurrency: int = DEFAULT_CONCURRENCY
    use_cache: bool = True
    rerun_of: str | None = None
    asks: Again = "failed"
    rubrics: Mapping[str, str] = field(default_factory=dict)
    filter: Filter = ALL_CASES
    compared: tuple[Entrant, ...] = ()

    def chosen(self, suite: Suite) -> Sequence[int]:
        """The positions of the cases to run; raises BadInput where a filter leaves none."""
        return self.filter.choose(suite.tests) if self.filter else range(len(suite.tests))


@dataclass(frozen=True, slots=True)
class Finished:
    """A run as it ended, with the results that verdicts are made of."""

    run_id: str
    variant: Variant
    summary: RunSummary
    data: dict[str, Any]


@dataclass(frozen=True, slots=True)
class _Asked:
    """A run whose cases have all been asked. `chosen` are their positions, `about` is what the run says of itself."""

    spec: RunSpec
    compiled: CompiledPrompt
    chosen: Sequence[int]
    summary: RunSummary
    about: Mapping[str, Any]


class Evaluator:
    """Runs suites. One instance serves any number of runs."""

    def __init__(self, database: Database, settings: Settings, models: Models) -> None:
        self._database = database
        self._settings = settings
        self._models = models

    async def run(self, spec: RunSpec, suite: Suite, progress: Progress | None = None) -> Finished:
        """Run, or finish, `spec`: cases whose results are stored are not asked again.

        Raises NotFound for a variant that does not exist and BadSetting for its model; a dead model is no error but
        skipped cases in the summary.
        """
        [finished] = await self.run_all([spec], suite, progress)
        return finished

    async def run_all(
        self, specs: Sequence[RunSpec], suite: Suite, progress: Progress | None = None, rule: Rule = "repeats"
    ) -> list[Finished]:
        """The same for several variants of one suite, one after the other; by `rule` their answers are compared.

        Assertions that compare answers are decided when all runs have answered, and none is finished before. What was
        decided is not decided again.
        """
        needs = await asyncio.to_thread(Needs.of_suite, suite)
        if needs.compares and rule != "repeats":
            specs = [replace(spec, compared=_entrants(specs)) for spec in specs]
        asked = [await self._ask(spec, suite, needs, progress) for spec in specs]
        if needs.compares:
            asked = await self._compare(asked, suite, needs, rule, progress)
        return [await self._conclude(each, suite) for each in asked]

    async def _ask(self, spec: RunSpec, suite: Suite, needs: Needs, progress: Progress | None) -> _Asked:
        compiled, adapter_digest = await asyncio.to_thread(self._load, spec.variant)
        asker = Asker(self._database, self._settings, self._models, spec, compiled, adapter_digest)
        chosen = await asyncio.to_thread(spec.chosen, suite)
        mark = await asyncio.to_thread(self._start, spec, suite.repeat)
        await asyncio.to_thread(asker.prepare)
        recorder = Recorder(self._database, spec.run_id)
        desk, rubrics = await self._desk(spec, suite, [compiled], needs)

        def on_result(result: CaseResult) -> Awaitable[object] | None:
            if progress is not None:
                progress(result)
            asked = asker.fresh.pop((result.case_id, result.repeat), None)
            judged = desk.take_fresh(result) if desk else []
            return recorder.add(result, [asked, *judged] if asked else judged)

        async with recorder, _closing(desk):
            summary = await run_suite(
                suite.tests,
                asker.ask,
                concurrency=spec.concurrency,
                repeat=suite.repeat,
                pass_k=suite.pass_k,
                price=price_of(self._settings, spec.variant.model),
                on_result=on_result,
                finished=self._finished(spec.run_id),
                chosen=chosen if spec.filter else None,
                aids=desk.about if desk else None,
                tools=compiled.content.tools,
                folders=self._settings.script_folders,
                timeout_s=asker.timeout_s,
                on_wait=progress.waits if isinstance(progress, Watcher) else None,
                hopeless=desk.hopeless if desk else str,
            )
        return _Asked(spec, compiled, chosen, summary, {**mark, **({"rubrics": rubrics} if rubrics else {})})

    async def _compare(
        self, asked: Sequence[_Asked], suite: Suite, needs: Needs, rule: Rule, progress: Progress | None
    ) -> list[_Asked]:
        """The runs with their summaries anew, after their answers were compared. The time that took counts with the first."""
        from service.matrix import Comparisons

        spec, started = asked[0].spec, time.perf_counter()
        desk, _ = await self._desk(spec, suite, [each.compiled for each in asked], needs)
        entrants = _entrants([each.spec for each in asked])
        if isinstance(progress, Watcher):
            progress.waits(f"all answers of {', '.join(each.variant for each in entrants)} are in: comparing them")
        comparisons = Comparisons(self._database, suite, entrants, rule, desk, spec.concurrency)
        async with _closing(desk):
            await comparisons.decide(asked[0].chosen)
        took_s = [time.perf_counter() - started, *[0.0] * (len(asked) - 1)]
        return [
            replace(each, summary=await asyncio.to_thread(self._again, each, suite, more_s, comparisons.stopped))
            for each, more_s in zip(asked, took_s, strict=True)
        ]

    def _again(self, asked: _Asked, suite: Suite, more_s: float, stopped: str) -> RunSummary:
        from service.matrix import summary_of

        results, stopped = self._finished(asked.spec.run_id), asked.summary.stopped or stopped
        return summary_of(results, suite, asked.chosen, asked.summary.seconds + more_s, stopped)

    async def _conclude(self, asked: _Asked, suite: Suite) -> Finished:
        spec = asked.spec
        data = await asyncio.to_thread(self._describe, spec, suite, asked.summary, asked.about)
        await asyncio.to_thread(self._finish, spec.run_id, data)
        return Finished(spec.run_id, spec.variant, asked.summary, data)

    async def _desk(
        self, spec: RunSpec, suite: Suite, compiled: Sequence[CompiledPrompt], needs: Needs
    ) -> tuple[Desk | None, dict[str, str]]:
        """What the suite's assertions may ask beyond answers, None where none of them asks; and the rubrics' versions."""
        if not needs.others:
            return None, {}
        from service.aids import Desk  # most suites ask no other model
        from service.graders import grader_of, pinned_rubrics

        rubrics = await asyncio.to_thread(pinned_rubrics, self._database, needs.rubrics, spec.rubrics)
        for judged in needs.graders:  # a rubric that is not there is told before any model is asked
            await asyncio.to_thread(grader_of, self._database, self._settings, suite, judged, rubrics)
        desk = Desk(
            self._database,
            self._settings,
            self._models,
            suite,
            compiled[0],
            use_cache=spec.use_cache,
            concurrency=spec.concurrency,
            rubrics=rubrics,
            others=compiled[1:],
        )
        await asyncio.to_thread(desk.prepare, sorted(needs.aliases))
        return desk, rubrics

    def with_judges(self, given: GateInput, suite: Suite, rubrics: Mapping[str, str]) -> GateInput:
        """A gate's input with the versions of its `rubrics`, and how its judges stand where the suite has a floor for them.

        Raises NotFound for a rubric.
        """
        from service.graders import standing_of  # of gates alone

        standing = standing_of(self._database, self._settings, given.suite, suite, rubrics)
        return given.model_copy(update={"judge": standing, "rubrics": dict(rubrics)})

    async def side(self, finished: Finished, suite: Suite) -> Side:
        """A run as one side of a gate."""
        again = finished.data.get("rerun", {}).get("of")
        side = Side.from_run(str(finished.variant), finished.summary, finished.run_id, rerun_of=again)
        return await asyncio.to_thread(self.detailed, side, suite)

    def detailed(self, side: Side, suite: Suite) -> Side:
        """One side of a gate with what this suite's verdict needs beyond outcomes, from the results of its run."""
        wanted = Wanted.of_suite(suite)
        if not wanted or side.run_id is None:
            return side
        with self._database.read() as session:
            return with_detail(side, map(CaseResult.from_dict, runs.cases(session, side.run_id)), wanted)

    def results(self, run_id: str) -> list[CaseResult]:
        """Every stored result of a run, in the order of its suite."""
        return list(self._finished(run_id))

    def _load(self, variant: Variant) -> tuple[CompiledPrompt, str | None]:
        with self._database.read() as session:
            record = prompts.by_number(session, variant.prompt, variant.version)
            adapter = routes.adapter(session, variant.adapter) if variant.adapter else None
        if record is None:
            raise NotFound("version", f"{variant.prompt}@{variant.version}")
        if variant.adapter and adapter is None:
            raise NotFound("adapter", variant.adapter)
        compiled = compile_prompt(PromptContent.model_validate(record.content), record.digest)
        return compiled, adapter["digest"] if adapter else None

    def _start(self, spec: RunSpec, repeat: int) -> dict[str, Any]:
        """Write the run, with what is kept of an earlier one; returns what it says of itself, as it first was started."""
        record = {"id": spec.run_id, "suite": spec.suite, "suite_version": spec.suite_version}
        record |= {"variant": str(spec.variant), "status": "running", "started_at": now()}
        with self._database.write() as session:
            is_new = runs.get(session, spec.run_id) is None
            record["summary"] = _marks(spec) or None
            stored = runs.start(session, record)
            if (stored["variant"], stored["suite_version"]) != (record["variant"], record["suite_version"]):
                raise Conflict(f"run {spec.run_id} is of {stored['variant']}, not of {record['variant']}")
            if is_new and spec.rerun_of is not None:
                kept = _copy(session, spec, spec.rerun_of, repeat)
                stored["summary"]["rerun"]["kept"] = kept
                runs.set_summary(session, spec.run_id, stored["summary"])
        return {name: found for name, found in (stored["summary"] or {}).items() if name in MARKS}

    def _finished(self, run_id: str) -> Iterator[CaseResult]:
        """Every stored result of a run, in the order of its suite."""
        with self._database.read() as session:
            yield from map(CaseResult.from_dict, runs.cases(session, run_id))

    def _finish(self, run_id: str, data: dict[str, Any]) -> None:
        with self._database.write() as session:
            runs.finish(session, run_id, "finished", data, now())

    def _describe(self, spec: RunSpec, suite: Suite, summary: RunSummary, more: Mapping[str, Any]) -> dict[str, Any]:
        about = {"run_id": spec.run_id, "suite": f"{spec.suite}@{spec.suite_version}", "variant": str(spec.variant)}
        counts = {"passed": summary.passed, "failed": summary.failed, "errored": summary.errored}
        side: Side = Counted.from_run(str(spec.variant), summary, spec.run_id, counts=counts)
        if suite.thresholds.metrics or suite.thresholds.tags:
            side = self.detailed(Side.from_run(str(spec.variant), summary, spec.run_id), suite)
        given = gate_input(spec.suite, suite, side, needs_must_pass=False)
        return {
            **about,
            **more,
            **summary.as_dict(),
            **run_verdict(given),
            "case_status": statuses_data(summary.outcomes),
        }


def _entrants(specs: Sequence[RunSpec]) -> tuple[Entrant, ...]:
    from service.matrix import Entrant  # most suites compare nothing

    return tuple(Entrant(spec.run_id, str(spec.variant)) for spec in specs)


def _marks(spec: RunSpec) -> dict[str, Any]:
    """What a run is besides a run of all cases, each asked for the first time."""
    found: dict[str, Any] = {"filter": spec.filter.as_data()} if spec.filter else {}
    found |= {"compared": [entrant.as_data() for entrant in spec.compared]} if spec.compared else {}
    return found | ({"rerun": {"of": spec.rerun_of, "asks": spec.asks}} if spec.rerun_of else {})


def _copy(session: Session, spec: RunSpec, source: str, repeat: int) -> int:
    """Keep what the earlier run has of a re-run's cases; returns how many results."""
    if spec.asks == "failed":
        return runs.copy_passed(session, source, spec.run_id, repeat)
    return runs.copy_judged(session, source, spec.run_id)


@contextlib.asynccontextmanager
async def _closing(desk: Desk | None) -> AsyncIterator[None]:
    """A run that is ended early asks its judges nothing more."""
    try:
        yield
    finally:
        if desk is not None:
            desk.close()


def run_verdict(given: GateInput) -> dict[str, Any]:
    """What a run alone says: `fail` on a missed threshold or, without thresholds, on a case that did not pass."""
    if given.thresholds.given():
        decision = decide(given)
        is_enough = decision.verdict == "inconclusive" and not given.candidate.set_aside
        verdict = "pass" if is_enough else decision.verdict
        reasons = list(decision.reasons) if verdict == decision.verdict else []
        rows = [row.model_dump() for row in decision.thresholds]
        return {"verdict": verdict, "reasons": reasons, "thresholds": rows}
    bar = given.model_copy(update={"thresholds": Thresholds(pass_rate=1.0)})
    decision = decide(bar)
    not_passed = given.candidate.count("failed", "errored")
    if decision.verdict == "fail":
        return {"verdict": "fail", "reasons": [f"{many(not_passed, 'case')} did not pass"], "thresholds": []}
    if decision.verdict != "could_not_run" and given.candidate.set_aside:
        reasons = [set_aside_in_words(given.candidate.set_aside)]
        return {"verdict": "inconclusive", "reasons": reasons, "thresholds": []}
    verdict = "could_not_run" if decision.verdict == "could_not_run" else "pass"
    return {"verdict": verdict, "reasons": list(decision.reasons) if verdict != "pass" else [], "thresholds": []}

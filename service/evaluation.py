"""Suite runs and gates over the store: every case is written as it comes, and a run that was cut short goes on."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from prompts.messages import Completion, CompletionRequest, Usage
from prompts.names import Variant
from prompts.prompt import CompiledPrompt, PromptContent, compile_prompt, digest_of
from service.errors import Conflict, NotFound
from service.ids import now
from service.pool import Models, price_of
from service.settings import Settings
from service.store import prompts, routes, runs
from service.store.database import Database
from suites.case import Case, Suite, Thresholds
from suites.gate import decide
from suites.results import CaseResult, RunSummary
from suites.runner import run_suite
from suites.verdicts import GateInput, Side

DEFAULT_CONCURRENCY = 16
Progress = Callable[[CaseResult], None]


@dataclass(frozen=True, slots=True)
class RunSpec:
    """One suite version against one variant. `rerun_of` names a run whose passed cases are kept."""

    run_id: str
    suite: str
    suite_version: int
    variant: Variant
    concurrency: int = DEFAULT_CONCURRENCY
    use_cache: bool = True
    rerun_of: str | None = None


@dataclass(frozen=True, slots=True)
class Finished:
    """A run as it ended, with the results that verdicts are made of."""

    run_id: str
    variant: Variant
    summary: RunSummary
    data: dict[str, Any]


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
        compiled, adapter_digest = await asyncio.to_thread(self._load, spec.variant)
        asker = _Asker(self._database, self._settings, self._models, spec, compiled, adapter_digest)
        finished = await asyncio.to_thread(self._start, spec)
        writer = _Writer(self._database, spec.run_id)

        async def on_result(result: CaseResult) -> None:
            writer.add(result, asker.fresh.pop((result.case_id, result.repeat), None))
            if progress is not None:
                progress(result)

        async with writer:
            summary = await run_suite(
                suite.tests,
                asker.ask,
                concurrency=spec.concurrency,
                repeat=suite.repeat,
                pass_k=suite.pass_k,
                price=price_of(self._settings, spec.variant.model),
                on_result=on_result,
                finished=finished,
                timeout_s=getattr(self._settings.model(spec.variant.model), "timeout_s", 120.0),
            )
        data = self._describe(spec, suite, summary)
        await asyncio.to_thread(self._finish, spec.run_id, data)
        return Finished(spec.run_id, spec.variant, summary, data)

    def results(self, run_id: str) -> list[CaseResult]:
        """Every stored result of a run, in the order of its suite."""
        with self._database.read() as session:
            return [CaseResult.from_dict(row) for row in runs.cases(session, run_id)]

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

    def _start(self, spec: RunSpec) -> list[CaseResult]:
        record = {"id": spec.run_id, "suite": spec.suite, "suite_version": spec.suite_version}
        record |= {"variant": str(spec.variant), "status": "running", "started_at": now()}
        with self._database.write() as session:
            stored = runs.start(session, record)
            if (stored["variant"], stored["suite_version"]) != (record["variant"], record["suite_version"]):
                raise Conflict(f"run {spec.run_id} is of {stored['variant']}, not of {record['variant']}")
            if spec.rerun_of is not None:
                for kept in list(runs.cases(session, spec.rerun_of, ("passed",))):
                    runs.add_case(session, spec.run_id, kept)
            return [CaseResult.from_dict(row) for row in runs.cases(session, spec.run_id)]

    def _finish(self, run_id: str, data: dict[str, Any]) -> None:
        with self._database.write() as session:
            runs.finish(session, run_id, "finished", data, now())

    @staticmethod
    def _describe(spec: RunSpec, suite: Suite, summary: RunSummary) -> dict[str, Any]:
        about = {"run_id": spec.run_id, "suite": f"{spec.suite}@{spec.suite_version}", "variant": str(spec.variant)}
        status = {outcome.case_id: outcome.status for outcome in summary.outcomes}
        side = Side.from_run(str(spec.variant), summary, spec.run_id)
        given = GateInput(suite=spec.suite, candidate=side, thresholds=suite.thresholds, settings=suite.gate)
        return {**about, **summary.as_dict(), **run_verdict(given), "case_status": status}


def run_verdict(given: GateInput) -> dict[str, Any]:
    """What a run alone says: `fail` on a missed threshold or, without thresholds, on a case that did not pass."""
    if given.thresholds.given():
        decision = decide(given)
        verdict = "pass" if decision.verdict == "inconclusive" else decision.verdict
        reasons = list(decision.reasons) if verdict == decision.verdict else []
        rows = [row.model_dump() for row in decision.thresholds]
        return {"verdict": verdict, "reasons": reasons, "thresholds": rows}
    bar = given.model_copy(update={"thresholds": Thresholds(pass_rate=1.0)})
    decision = decide(bar)
    not_passed = given.candidate.count("failed", "errored")
    if decision.verdict == "fail":
        return {"verdict": "fail", "reasons": [f"{not_passed} cases did not pass"], "thresholds": []}
    verdict = "could_not_run" if decision.verdict == "could_not_run" else "pass"
    return {"verdict": verdict, "reasons": list(decision.reasons) if verdict != "pass" else [], "thresholds": []}


class _Asker:
    """Asks one variant for one case: rendered, cached where an equal question was answered before."""

    def __init__(
        self,
        database: Database,
        settings: Settings,
        models: Models,
        spec: RunSpec,
        compiled: CompiledPrompt,
        adapter_digest: str | None,
    ) -> None:
        self._database = database
        self._model = models.get(spec.variant.model)
        self._compiled = compiled
        self._adapter = spec.variant.adapter
        self._parameters = compiled.content.request_parameters()
        self._use_cache = spec.use_cache
        model_spec = settings.model(spec.variant.model).model_dump(mode="json", exclude={"price", "context_tokens"})
        self._origin = [spec.variant.model, model_spec, self._adapter, adapter_digest]
        self.fresh: dict[tuple[str, int], tuple[str, dict[str, Any]]] = {}

    async def ask(self, case: Case, repeat: int) -> Completion:
        messages = self._compiled.render(case.vars, (), case.placeholders)
        parameters = dict(self._parameters)
        if isinstance(parameters.get("seed"), int):
            parameters["seed"] += repeat
        key = digest_of([self._origin, [message.as_dict() for message in messages], parameters, repeat])
        if self._use_cache:
            found = await asyncio.to_thread(self._cached, key)
            if found is not None:
                return completion_from(found)
        completion = await self._model.complete(CompletionRequest(messages, parameters, self._adapter))
        self.fresh[(case.id, repeat)] = (key, completion_data(completion))
        return completion

    def _cached(self, key: str) -> dict[str, Any] | None:
        with self._database.read() as session:
            return runs.cached(session, key)


class _Writer:
    """Writes results as they come, all that wait in one transaction, beside the loop that asks."""

    def __init__(self, database: Database, run_id: str) -> None:
        self._database = database
        self._run_id = run_id
        self._waiting: list[tuple[CaseResult, tuple[str, dict[str, Any]] | None]] = []
        self._wake = asyncio.Event()
        self._closing = False
        self._task: asyncio.Task[None] | None = None

    def add(self, result: CaseResult, fresh: tuple[str, dict[str, Any]] | None) -> None:
        """Take one result; raises what the database raised on an earlier one, which ends the run."""
        if self._task is not None and self._task.done():
            self._task.result()
        self._waiting.append((result, fresh))
        self._wake.set()

    async def __aenter__(self) -> _Writer:
        self._task = asyncio.create_task(self._drain())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._closing = True
        self._wake.set()
        if self._task is not None:
            await self._task

    async def _drain(self) -> None:
        while not (self._closing and not self._waiting):
            await self._wake.wait()
            self._wake.clear()
            batch, self._waiting = self._waiting, []
            if batch:
                await asyncio.to_thread(self._write, batch)

    def _write(self, batch: list[tuple[CaseResult, tuple[str, dict[str, Any]] | None]]) -> None:
        with self._database.write() as session:
            for result, fresh in batch:
                if result.status == "skipped":
                    continue  # asked again when the run is resumed; the summary counts it
                runs.add_case(session, self._run_id, result.as_dict())
                if fresh is not None and result.status in ("passed", "failed"):
                    runs.remember(session, *fresh, now())


def completion_data(completion: Completion) -> dict[str, Any]:
    """A completion as plain data, for the cache."""
    data = {field.name: getattr(completion, field.name) for field in dataclasses.fields(completion)}
    data["usage"] = dataclasses.asdict(completion.usage)
    return {**data, "message": dict(completion.message), "details": dict(completion.details)}


def completion_from(data: Mapping[str, Any]) -> Completion:
    """The completion that `completion_data` was taken from."""
    return Completion(**{**data, "usage": Usage(**data["usage"])})

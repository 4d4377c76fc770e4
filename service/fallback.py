"""The loop: examples → plan → training → adapter → dev → one look at the held-out cases → evidence → route.

Each function here is one step of a durable workflow (`service.workflow`): it may run again after a kill at any moment,
so each either does nothing twice by its nature or finds what it did by a name made from the job's id.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pydantic

from finetune import adapter as adapters
from finetune.data import CleanReport, Example, clean, digest, split
from finetune.plan import JobSpec, Row, make_plan, make_recipe, read_shape, write_spec
from prompts.errors import BadInput
from prompts.messages import CompletionRequest
from prompts.names import Variant, parse_variant
from prompts.prompt import CompiledPrompt, PromptContent, compile_prompt, digest_of
from service import route_book
from service.child import require_local_packages
from service.engine import weights
from service.errors import NeedsEvidence
from service.evaluation import Evaluator, Finished, RunSpec
from service.graders import standing_of
from service.identity import Principal
from service.ids import now
from service.pool import ModelPool
from service.registry import stored_suite
from service.settings import FakeSpec, LocalSpec, OpenAISpec, Settings
from service.store import jobs, prompts, routes, suites
from service.store.database import Database
from service.training import train
from suites.case import Suite
from suites.detail import gate_input
from suites.evidence_digest import record_digest
from suites.gate import promotion_evidence
from suites.results import CaseResult
from suites.verdicts import Side

FEWEST_EXAMPLES = 10
T = TypeVar("T")


class FinetuneSpec(pydantic.BaseModel, frozen=True, extra="forbid"):
    """What a fine-tune job was asked for; `examples` are used in place of the suite's own."""

    suite: str
    suite_version: int
    prompt_version: int
    base: str
    examples: list[dict[str, Any]] | None = None
    recipe: dict[str, Any] = {}
    dry_run: bool = False


class Cancelled(Exception):
    """The job was asked to end."""


@dataclass(frozen=True)
class Claim:
    """This worker's hold on one job. `cancelled` is set when its end is asked for or the hold is lost."""

    job_id: str
    token: int
    actor: Principal
    database: Database
    settings: Settings
    cancelled: threading.Event

    @property
    def folder(self) -> Path:
        return self.settings.home / "jobs" / self.job_id

    @property
    def short_id(self) -> str:
        return self.job_id.partition("_")[2]

    def tell(self, kind: str, **data: Any) -> None:
        """Write an event that people watch; raises Cancelled where the job is to end."""
        self.check()
        with self.database.write() as session:
            jobs.add_event(session, self.job_id, kind, data, now())

    def tell_once(self, kind: str, **data: Any) -> None:
        """Write the event of a step that may run again: a step's end is told once, whatever was killed."""
        self.check()
        with self.database.write() as session:
            if not jobs.has_event(session, self.job_id, kind, data):
                jobs.add_event(session, self.job_id, kind, data, now())

    def check(self) -> None:
        if self.cancelled.is_set():
            raise Cancelled(self.job_id)


@dataclass(frozen=True)
class Material:
    """What a job works on, read anew in each step: all of it is immutable."""

    spec: FinetuneSpec
    suite: Suite
    prompt: CompiledPrompt
    before: Variant
    after: Variant


def material(claim: Claim) -> Material:
    """The suite, the prompt version and the two variants of a job."""
    with claim.database.read() as session:
        job = jobs.get(session, claim.job_id)
        assert job is not None  # noqa: S101 - for the type checker: a claimed job exists
        spec = FinetuneSpec.model_validate(job["spec"])
        record = suites.by_number(session, spec.suite, spec.suite_version)
        assert record is not None  # noqa: S101 - for the type checker: suite versions are never deleted
        version = prompts.by_number(session, record["prompt"], spec.prompt_version)
        assert version is not None  # noqa: S101 - for the type checker: prompt versions are never deleted
    prompt = compile_prompt(PromptContent.model_validate(version.content), version.digest)
    name = f"{record['prompt'].rpartition('.')[2]}-{claim.short_id}"
    return Material(
        spec=spec,
        suite=stored_suite(claim.database, record),
        prompt=prompt,
        before=Variant(version.name, version.number, prompt.content.model),
        after=Variant(version.name, version.number, spec.base, name),
    )


def plan(claim: Claim) -> dict[str, Any]:
    """Clean, leak-check and split the examples; choose the recipe; write the frozen spec of the training process."""
    require_local_packages("training")
    work = material(claim)
    report, examples = _examples(claim, work)
    shown: dict[str, Any] = {
        "examples": {"given": len(report.kept) + len(report.drops), "kept": len(report.kept), "dropped": _drops(report)}
    }
    if len(report.kept) < FEWEST_EXAMPLES:
        reason = f"{len(report.kept)} usable examples are too few: add examples until at least {FEWEST_EXAMPLES} remain"
        claim.tell_once("refused", reasons=[reason], **shown)
        return {**shown, "refused": [reason]}
    train_rows, dev_rows = split(report.kept, seed=0)
    rows = {"train": _render(work.prompt, train_rows), "dev": _render(work.prompt, dev_rows)}
    base_folder = weights.pull(
        weights.Source.parse(model_source(claim.settings, work.spec.base)), weights.default_cache_dir()
    )
    shape = read_shape(base_folder)
    overrides = {**((work.suite.fallback.recipe if work.suite.fallback else None) or {}), **work.spec.recipe}
    recipe = make_recipe(shape.parameter_count, len(rows["train"]), overrides)
    lineage = {
        "job_id": claim.job_id,
        "prompt": f"{work.after.prompt}@{work.after.version}",
        "prompt_digest": work.prompt.digest,
        "suite": f"{work.spec.suite}@{work.spec.suite_version}",
        "dataset_digest": digest(report.kept),
        "examples": len(examples),
    }
    model_spec = claim.settings.model(work.spec.base)
    job = JobSpec(
        job_id=claim.job_id,
        base_folder=base_folder,
        output_dir=claim.folder / "training",
        train=tuple(rows["train"]),
        dev=tuple(rows["dev"]),
        recipe=recipe,
        max_new_tokens=int(work.prompt.content.parameters.get("max_tokens", 64)),
        lineage=lineage,
        threads=getattr(model_spec, "threads", None),
        device=getattr(model_spec, "device", "auto"),
        adapter_name=work.after.adapter or "",
        created_at=now(),
    )
    cost = make_plan(shape, recipe, job.train)
    shown |= {"train": len(job.train), "dev": len(job.dev), "recipe": recipe.model_dump(), "plan": cost.model_dump()}
    if not work.spec.dry_run and not (claim.folder / "spec.json").exists():
        write_spec(job, claim.folder / "spec.json")
    claim.tell_once("planned", **shown)
    return shown


def run_training(claim: Claim) -> dict[str, Any]:
    """Train in a process of its own until it has finished; a killed one goes on from its newest checkpoint."""
    return train(claim.folder, claim.tell, claim.check, _last_line(claim))


def install(claim: Claim) -> dict[str, Any]:
    """Verify the adapter and take it into the adapters' folder and the registry."""
    work = material(claim)
    assert work.after.adapter  # noqa: S101 - for the type checker: material() names it
    model_spec = claim.settings.model(work.spec.base)
    target = getattr(model_spec, "adapter_dir", None)
    folder = adapters.install(claim.folder / "training" / "adapter", Path(target or claim.settings.adapters_dir),
                              work.after.adapter)  # fmt: skip
    manifest = adapters.verify(folder)
    record = {"name": work.after.adapter, "prompt": work.after.prompt, "version": work.after.version}
    record |= {"base_model": work.spec.base, "job_id": claim.job_id, "digest": manifest.digest}
    with claim.database.write() as session:
        jobs.require_claim(session, claim.job_id, claim.token)
        routes.add_adapter(session, {**record, "manifest": manifest.model_dump(mode="json"), "created_at": now()})
    claim.tell_once("adapter", name=work.after.adapter, digest=manifest.digest)
    return {"adapter": work.after.adapter, "digest": manifest.digest}


def score_dev(claim: Claim) -> dict[str, Any]:
    """Both variants on the dev examples, by exact answer: without a gain here no look is spent on held-out cases."""
    work = material(claim)
    spec = JobSpec.model_validate_json((claim.folder / "spec.json").read_bytes())
    parameters = work.prompt.content.request_parameters()

    async def score(pool: ModelPool, variant: Variant) -> int:
        model, gate = pool.get(variant.model), asyncio.Semaphore(16)

        async def is_right(row: Row) -> bool:
            async with gate:
                messages = tuple(_message(message) for message in row.messages)
                completion = await model.complete(CompletionRequest(messages, parameters, variant.adapter))
            return completion.text.strip() == row.answer.strip()

        return sum(await asyncio.gather(*(is_right(row) for row in spec.dev)))

    async def both() -> tuple[int, int]:
        pool = ModelPool(claim.settings)
        try:
            return await score(pool, work.before), await score(pool, work.after)
        finally:
            await pool.aclose()

    before, after = _run(claim, both())
    shown = {"total": len(spec.dev), "before": before, "after": after}
    claim.tell_once("dev", **shown)
    return shown


def take_look(claim: Claim) -> dict[str, Any]:
    """Count this job's look at the held-out set before anything is seen of it; freeze who is to be beaten."""
    work = material(claim)
    heldout = digest_of(sorted(case.id for case in work.suite.tests))
    look = {"job_id": claim.job_id, "prompt": work.after.prompt, "base_model": work.spec.base}
    with claim.database.write() as session:
        jobs.require_claim(session, claim.job_id, claim.token)
        number = routes.take_look(session, {**look, "heldout_digest": heldout, "at": now()})
        serving = route_book.incumbents(session, work.after.prompt)
    rivals = [str(work.before), *(str(variant) for variant in serving if variant != work.before)]
    return {"look": number, "rivals": rivals}


def run_heldout(claim: Claim, variant: str, name: str) -> dict[str, Any]:
    """Every held-out case against one variant; goes on where an earlier attempt stopped."""
    work = material(claim)
    finished = _run(claim, _evaluate(claim, work, parse_variant(variant), name))
    claim.tell_once("run", phase=name, **summary_of(finished.data))
    return summary_of(finished.data)


def decide(claim: Claim, look: dict[str, Any]) -> dict[str, Any]:
    """The paired test against everyone who is to be beaten; its evidence is kept whatever it says."""
    work = material(claim)
    side = _run(claim, _side(claim, work, _run(claim, _evaluate(claim, work, work.after, "after"))))
    found = []
    for index, rival in enumerate(look["rivals"]):
        before = _run(claim, _evaluate(claim, work, parse_variant(rival), run_name(index)))
        given = gate_input(work.spec.suite, work.suite, side, _run(claim, _side(claim, work, before)))
        given = given.model_copy(update={"judge": standing_of(claim.database, claim.settings, given.suite, work.suite)})
        found.append(promotion_evidence(given, look["look"]))
    weakest = next((evidence for evidence in found if not evidence.decision.promote), found[0])
    evidence_id = f"ev_{claim.short_id}"
    content = weakest.model_dump(mode="json")
    record: dict[str, Any] = {
        "id": evidence_id,
        "kind": "promotion",
        "prompt": work.after.prompt,
        "candidate": str(work.after),
    }
    record |= {"verdict": weakest.decision.verdict, "content": content, "actor": claim.actor.id, "created_at": now()}
    with claim.database.write() as session:
        jobs.require_claim(session, claim.job_id, claim.token)
        routes.add_evidence(session, {**record, "digest": record_digest(record)})
    decision = weakest.decision
    shown: dict[str, Any] = {"evidence_id": evidence_id, "verdict": decision.verdict, "reasons": list(decision.reasons)}
    shown |= {"p_value": decision.p_value, "alpha": decision.alpha_look, "alpha_left": decision.alpha_left}
    shown |= {"newly_broken": len(decision.newly_broken), "newly_mended": len(decision.newly_mended)}
    claim.tell_once("decided", **shown)
    return shown


def move_route(claim: Claim, evidence_id: str, rivals: Sequence[str]) -> dict[str, Any]:
    """The winner's first share of the traffic, as a new revision that rests on the evidence; or why it has none."""
    work = material(claim)
    steps = work.suite.fallback.rollout if work.suite.fallback else (100,)
    with claim.database.write() as session:
        jobs.require_claim(session, claim.job_id, claim.token)
        try:
            revision = route_book.begin(session, work.after, steps, evidence_id, claim.actor, frozenset(rivals))
        except NeedsEvidence as error:
            return {"revision": None, "variants": None, "reason": str(error)}
    claim.tell_once("routed", revision=revision["revision"], variants=revision["variants"])
    return {"revision": revision["revision"], "variants": revision["variants"]}


def model_source(settings: Settings, alias: str) -> str:
    """Where the weights of a tunable model come from. Raises BadInput for one that cannot be tuned here."""
    spec: LocalSpec | OpenAISpec | FakeSpec = settings.model(alias)
    if not spec.is_tunable or isinstance(spec, FakeSpec) or not spec.source:
        tunable = ", ".join(name for name, other in sorted(settings.models.items()) if other.is_tunable) or "none"
        raise BadInput(f"model {alias!r} cannot be tuned: tunable here are {tunable}", param="base")
    return spec.source


def summary_of(data: Mapping[str, Any]) -> dict[str, Any]:
    """What a report shows of one run."""
    names = ("variant", "passed", "failed", "errored", "skipped", "total", "pass_rate", "ci95", "p50_ms", "p95_ms")
    return {name: data[name] for name in names}


def _examples(claim: Claim, work: Material) -> tuple[CleanReport, list[Example]]:
    given = work.spec.examples
    if given is None:
        given = [example.model_dump() for example in work.suite.training.examples]
    examples = [Example(item["vars"], item["expected"]) for item in given]
    with claim.database.read() as session:
        names = {row["name"] for row in suites.summaries(session) if row["prompt"] == work.suite.prompt}
        others = [suites.newest(session, name) for name in sorted(names - {work.spec.suite})]
    heldout = [case.vars for case in work.suite.tests]
    for other in others:
        if other is not None:
            heldout += [case.vars for case in stored_suite(claim.database, other).tests]
    return clean(examples, heldout), examples


def _drops(report: CleanReport) -> dict[str, int]:
    counts: dict[str, int] = {}
    for drop in report.drops:
        counts[drop.reason] = counts.get(drop.reason, 0) + 1
    return counts


def _render(prompt: CompiledPrompt, examples: Sequence[Example]) -> list[Row]:
    return [
        Row(messages=tuple(message.as_dict() for message in prompt.render(example.vars)), answer=example.expected)
        for example in examples
    ]


def _message(data: Mapping[str, Any]) -> Any:
    from prompts.prompt import plain_message

    return plain_message(data, "messages")


def _last_line(claim: Claim) -> int:
    """How many lines of the training process's events were passed on before."""
    with claim.database.read() as session:
        last, after = 0, 0
        while batch := jobs.events(session, claim.job_id, after):
            after = batch[-1]["number"]
            last = max([last, *(event["data"].get("line", 0) for event in batch if event["type"] == "training")])
    return last


def _run_spec(claim: Claim, work: Material, variant: Variant, name: str) -> RunSpec:
    return RunSpec(f"run_{claim.short_id}_{name}", work.spec.suite, work.spec.suite_version, variant)


def run_name(index: int) -> str:
    return "before" if index == 0 else f"rival{index}"


async def _evaluate(claim: Claim, work: Material, variant: Variant, name: str) -> Finished:
    pool = ModelPool(claim.settings)
    total, done = len(work.suite.tests) * work.suite.repeat, 0

    def progress(_: CaseResult) -> None:
        nonlocal done
        done += 1
        if done % max(1, total // 20) == 0:
            claim.tell("cases", phase=name, done=done, total=total)

    try:
        evaluator = Evaluator(claim.database, claim.settings, pool)
        return await evaluator.run(_run_spec(claim, work, variant, name), work.suite, progress)
    finally:
        await pool.aclose()


async def _side(claim: Claim, work: Material, finished: Finished) -> Side:
    evaluator = Evaluator(claim.database, claim.settings, ModelPool(claim.settings))
    return await evaluator.side(finished, work.suite)


def _run(claim: Claim, coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end in this thread, ended early when the job is."""

    async def main() -> T:
        task = asyncio.ensure_future(coroutine)
        while not task.done():
            await asyncio.wait({task}, timeout=0.25)
            if claim.cancelled.is_set() and not task.done():
                task.cancel()
        try:
            return await task
        except asyncio.CancelledError:
            raise Cancelled(claim.job_id) from None

    return asyncio.run(main())

"""One look at the held-out cases: both variants asked, the paired test, and the evidence that is kept of it."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from finetune.plan import JobSpec, Row
from prompts.messages import CompletionRequest
from prompts.names import Variant, parse_variant
from prompts.prompt import digest_of, plain_message
from service import route_book
from service.asking import attempt_timeout_s
from service.evaluation import Evaluator, Finished, RunSpec
from service.graders import standing_of
from service.ids import now
from service.pool import ModelPool
from service.store import jobs, routes
from service.tuning import looks
from service.tuning.claim import Claim
from service.tuning.material import Material, material
from suites.detail import gate_input
from suites.evidence_digest import record_digest
from suites.gate import promotion_evidence
from suites.results import CaseResult
from suites.verdicts import PromotionEvidence, Side

_DEV_IN_FLIGHT = 16


def score_dev(claim: Claim, attempt: int, spec: JobSpec, known_before: int | None) -> dict[str, Any]:
    """Both variants on the dev examples, by exact answer: without a gain here no look is spent on held-out cases.

    `known_before` is how many the prompt alone got right in an earlier attempt, on the same examples.
    """
    work = material(claim, attempt)

    async def both() -> tuple[int, int]:
        pool = ModelPool(claim.settings)
        try:
            before = known_before
            if before is None:
                before = await _right(claim, work, pool, work.before, spec.dev)
            return before, await _right(claim, work, pool, work.after, spec.dev)
        finally:
            await pool.aclose()

    before, after = claim.run(both())
    shown = {"total": len(spec.dev), "before": before, "after": after}
    claim.tell_once("dev", attempt=attempt, **shown)
    return shown


async def _right(claim: Claim, work: Material, pool: ModelPool, variant: Variant, rows: Sequence[Row]) -> int:
    """How many of `rows` a variant answers exactly."""
    model, gate = pool.get(variant.model), asyncio.Semaphore(_DEV_IN_FLIGHT)
    parameters = work.prompt.content.request_parameters()
    timeout_s = attempt_timeout_s(claim.settings, variant.model)

    async def is_right(row: Row) -> bool:
        async with gate:
            messages = tuple(plain_message(message, "messages") for message in row.messages)
            request = CompletionRequest(messages, parameters, variant.adapter, timeout_s, is_urgent=False)
            completion = await model.complete(request)
        return completion.text.strip() == row.answer.strip()

    return sum(await asyncio.gather(*(is_right(row) for row in rows)))


def take_look(claim: Claim, attempt: int) -> dict[str, Any]:
    """Count this attempt's look at the held-out set before anything is seen of it; freeze who is to be beaten."""
    work = material(claim, attempt)
    heldout = digest_of(sorted(case.id for case in work.suite.tests))
    look = {"job_id": _of_attempt(claim.job_id, attempt), "prompt": work.after.prompt, "base_model": work.spec.base}
    sets = looks.same_sets(claim.database, work.after.prompt, work.suite, work.prompt.content.defaults)
    bases = looks.same_weights(claim.settings, work.spec.base)
    with claim.database.write() as session:
        jobs.require_claim(session, claim.job_id, claim.token)
        number = routes.take_look(session, {**look, "heldout_digest": heldout, "at": now()}, sets, bases)
        serving = route_book.incumbents(session, work.after.prompt)
    rivals = [str(work.before), *(str(variant) for variant in serving if variant != work.before)]
    return {"look": number, "rivals": rivals}


def run_heldout(claim: Claim, attempt: int, variant: str) -> dict[str, Any]:
    """Every held-out case against one variant; goes on where it stopped, and asks nobody twice in several attempts."""
    work = material(claim, attempt)
    finished = claim.run(_evaluate(claim, work, parse_variant(variant)))
    claim.tell_once("run", phase=_phase(work, parse_variant(variant)), **summary_of(finished.data))
    return summary_of(finished.data)


def decide(claim: Claim, attempt: int, look: Mapping[str, Any]) -> dict[str, Any]:
    """The paired test against everyone who is to be beaten; its evidence is kept whatever it says."""
    work = material(claim, attempt)
    side = claim.run(_side(claim, work, claim.run(_evaluate(claim, work, work.after))))
    found = [_against(claim, work, side, rival, look["look"]) for rival in look["rivals"]]
    weakest = next((evidence for evidence in found if not evidence.decision.promote), found[0])
    evidence_id = _of_attempt(f"ev_{claim.short_id}", attempt)
    _keep(claim, work, weakest, evidence_id)
    decision = weakest.decision
    of_rival = "" if decision.baseline == str(work.before) else f"against {decision.baseline}, which takes traffic: "
    reasons = [of_rival + reason for reason in decision.reasons]
    shown: dict[str, Any] = {"evidence_id": evidence_id, "verdict": decision.verdict, "reasons": reasons}
    shown |= {"against": decision.baseline}
    shown |= {"p_value": decision.p_value, "alpha": decision.alpha_look, "alpha_left": decision.alpha_left}
    shown |= {"newly_broken": len(decision.newly_broken), "newly_mended": len(decision.newly_mended)}
    claim.tell_once("decided", attempt=attempt, **shown)
    return shown


def _against(claim: Claim, work: Material, side: Side, rival: str, look: int) -> PromotionEvidence:
    before = claim.run(_evaluate(claim, work, parse_variant(rival)))
    given = gate_input(work.spec.suite, work.suite, side, claim.run(_side(claim, work, before)))
    standing = standing_of(claim.database, claim.settings, given.suite, work.suite)
    return promotion_evidence(given.model_copy(update={"judge": standing}), look)


def _keep(claim: Claim, work: Material, evidence: PromotionEvidence, evidence_id: str) -> None:
    content = evidence.model_dump(mode="json")
    record: dict[str, Any] = {"id": evidence_id, "kind": "promotion", "prompt": work.after.prompt}
    record |= {"candidate": str(work.after), "verdict": evidence.decision.verdict}
    record |= {"content": content, "actor": claim.actor.id, "created_at": now()}
    with claim.database.write() as session:
        jobs.require_claim(session, claim.job_id, claim.token)
        routes.add_evidence(session, {**record, "digest": record_digest(record)})


def summary_of(data: Mapping[str, Any]) -> dict[str, Any]:
    """What a report shows of one run."""
    names = ("variant", "passed", "failed", "errored", "skipped", "total", "pass_rate", "ci95", "p50_ms", "p95_ms")
    return {name: data[name] for name in names}


def _of_attempt(name: str, attempt: int) -> str:
    return name if attempt == 1 else f"{name}-{attempt}"


def _phase(work: Material, variant: Variant) -> str:
    """A variant's part in a comparison, which names its run: the same one in every attempt for the same variant."""
    if variant == work.before:
        return "before"
    if variant == work.after:
        return _of_attempt("after", work.attempt)
    return "rival-" + hashlib.sha256(str(variant).encode()).hexdigest()[:8]


async def _evaluate(claim: Claim, work: Material, variant: Variant) -> Finished:
    pool = ModelPool(claim.settings)
    total, done, phase = len(work.suite.tests) * work.suite.repeat, 0, _phase(work, variant)

    def progress(_: CaseResult) -> None:
        nonlocal done
        done += 1
        if done % max(1, total // 20) == 0:
            claim.tell("cases", phase=phase, done=done, total=total)

    try:
        spec = RunSpec(f"run_{claim.short_id}_{phase}", work.spec.suite, work.spec.suite_version, variant)
        return await Evaluator(claim.database, claim.settings, pool).run(spec, work.suite, progress)
    finally:
        await pool.aclose()


async def _side(claim: Claim, work: Material, finished: Finished) -> Side:
    evaluator = Evaluator(claim.database, claim.settings, ModelPool(claim.settings))
    return await evaluator.side(finished, work.suite)

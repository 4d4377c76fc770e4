"""The one look at the held-out cases that an advice may take, for the variant that it recommends.

Only with `look`, and only where the recommendation is a change of the prompt: of a fine-tune's adapter `turnout finetune`
takes the look, which would else be spent twice. A look spends α as those of fine-tunes do, and is counted with them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from prompts.names import Variant as Served
from prompts.prompt import PromptContent, digest_of
from service.advising.asking import Questions
from service.advising.patching import prompt_keys
from service.advising.spec import Work
from service.evaluation import Evaluator, Finished, RunSpec
from service.graders import standing_of
from service.ids import now
from service.pool import ModelPool
from service.registry import Origin, Push, Registry
from service.store import jobs, routes
from service.tuning import looks
from suites.advice.report import TRAINED, Recommendation, Variant
from suites.detail import gate_input
from suites.evidence_digest import record_digest
from suites.gate import promotion_evidence

NOT_ASKED = "the held-out cases were not looked at: --look looks once, and spends a part of α"
NOTHING_NEW = "there is nothing new to look at: the recommendation is no change of the prompt"
BY_FINETUNE = "turnout finetune takes the look, at the adapter that it trains on all examples"


def look(
    work: Work,
    questions: Questions,
    chosen: Recommendation,
    variants: Sequence[Variant],
    shots: Sequence[int],
) -> dict[str, Any]:
    """What was seen, or why nothing was: `taken`, and with it both runs, the verdict, α, and the evidence's id."""
    one = next((each for each in variants if each.key == chosen.variant), None)
    if not work.spec.look:
        return {"taken": False, "why": NOT_ASKED}
    if one is None or one.rung not in ("few-shot", "parameters", *TRAINED):
        return {"taken": False, "why": NOTHING_NEW}
    if one.rung in TRAINED:
        return {"taken": False, "why": BY_FINETUNE}
    candidate = _draft(work, changed(work, questions, one.changes, shots if one.shots else ()))
    number = _take(work)
    return {"taken": True, "look": number, **_compare(work, candidate, number)}


def changed(work: Work, questions: Questions, changes: Mapping[str, Any], shots: Sequence[int]) -> PromptContent:
    """The prompt with other parameters, and with rows as examples behind its own."""
    content = work.material.prompt.content
    examples = (*content.examples, *(questions.shot(row) for row in shots))
    return content.model_copy(update={"parameters": {**content.parameters, **changes}, "examples": examples})


def _draft(work: Work, content: PromptContent) -> Served:
    """The changed prompt as a draft version: it is served nowhere, and a push of the same content becomes it."""
    name, origin = (
        work.material.before.prompt,
        Origin(f"by {work.advice_id}", moves_labels=False, draft=True, allow_secrets=True),
    )
    registry = Registry(work.claim.database, work.claim.settings)
    [written] = registry.push(Push({name: prompt_keys(content)}, {}, origin), work.claim.actor)
    return Served(name, written["version"], work.model)


def _take(work: Work) -> int:
    """Count the look before anything of it is seen."""
    suite, prompt = work.material.suite, work.material.before.prompt
    heldout = digest_of(sorted(case.id for case in suite.tests))
    record = {"job_id": work.claim.job_id, "prompt": prompt, "base_model": work.model, "heldout_digest": heldout}
    sets = looks.same_sets(work.claim.database, prompt, suite, work.material.prompt.content.defaults)
    models = looks.same_weights(work.claim.settings, work.model)
    with work.claim.database.write() as session:
        jobs.require_claim(session, work.claim.job_id, work.claim.token)
        return routes.take_look(session, {**record, "at": now()}, sets, models)


def _compare(work: Work, candidate: Served, number: int) -> dict[str, Any]:
    """Both on every held-out case, and the evidence of the paired test."""
    suite, spec, claim = work.material.suite, work.spec, work.claim
    before, after, sides = claim.run(_both(work, candidate))
    given = gate_input(spec.suite, suite, sides[1], sides[0])
    standing = standing_of(claim.database, claim.settings, given.suite, suite)
    evidence = promotion_evidence(given.model_copy(update={"judge": standing}), number)
    decision, evidence_id = evidence.decision, f"ev_{claim.short_id}"
    record: dict[str, Any] = {"id": evidence_id, "kind": "promotion", "prompt": candidate.prompt}
    record |= {"candidate": str(candidate), "verdict": decision.verdict, "content": evidence.model_dump(mode="json")}
    record |= {"actor": claim.actor.id, "created_at": now()}
    with claim.database.write() as session:
        jobs.require_claim(session, claim.job_id, claim.token)
        routes.add_evidence(session, {**record, "digest": record_digest(record)})
    shown: dict[str, Any] = {"evidence_id": evidence_id, "verdict": decision.verdict, "reasons": list(decision.reasons)}
    shown |= {"p_value": decision.p_value, "alpha": decision.alpha_look, "alpha_left": decision.alpha_left}
    return {**shown, "before": _summary(before), "after": _summary(after)}


async def _both(work: Work, candidate: Served) -> tuple[Finished, Finished, tuple[Any, Any]]:
    pool = ModelPool(work.claim.settings)
    evaluator = Evaluator(work.claim.database, work.claim.settings, pool)
    try:
        found = [
            await evaluator.run(
                RunSpec(f"run_{work.claim.short_id}_{phase}", work.spec.suite, work.spec.suite_version, variant),
                work.material.suite,
            )
            for phase, variant in (("before", work.material.before), ("after", candidate))
        ]
        sides = [await evaluator.side(each, work.material.suite) for each in found]
        return found[0], found[1], (sides[0], sides[1])
    finally:
        await pool.aclose()


def _summary(run: Finished) -> dict[str, Any]:
    names = ("run_id", "variant", "passed", "total", "pass_rate", "ci95")
    return {name: run.data[name] for name in names}

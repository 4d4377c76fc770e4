"""The loop: examples → plan → attempts of training → adapter → dev → a look at the held-out cases → evidence → route.

Each function here is one step of a durable workflow (`service.workflow`): it may run again after a kill at any moment,
so each either does nothing twice by its nature or finds what it did by a name made from the job's id and the number
of the attempt.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from finetune import adapter as adapters
from finetune.plan import JobSpec, read_spec, write_spec
from service import route_book
from service.adapters.registry import Adapters
from service.errors import NeedsEvidence
from service.ids import now
from service.store import jobs, routes
from service.training import train
from service.tuning import comparing, planning, reflecting
from service.tuning.claim import Claim
from service.tuning.material import material
from suites.case import Suite
from suites.rollouts import Rules


def plan(claim: Claim) -> dict[str, Any]:
    """Examples, recipe, memory and time: all that is decided before anything is trained."""
    return planning.plan(claim)


def run_training(claim: Claim, attempt: int, train_at: Sequence[int]) -> dict[str, Any]:
    """Train in a process of its own until it has finished; a killed one goes on from its newest checkpoint.

    `train_at` holds for each training row the number of its example in the dataset.
    """

    def tell(kind: str, /, **data: Any) -> None:
        if kind == "training" and data["event"]["type"] == "mislabelled":
            rows = [{**row, "example": train_at[row["row"]]} for row in data["event"]["rows"]]
            data["event"] = {**data["event"], "rows": rows}
        claim.tell(kind, attempt=attempt, **data)

    last = _last_line(claim, attempt)
    return train(_folder(claim, attempt), claim.settings.run_dir, tell, claim.check, last)


def install(claim: Claim, attempt: int) -> dict[str, Any]:
    """Verify the adapter and take it into the adapters' folder and the registry."""
    work = material(claim, attempt)
    target = getattr(claim.settings.model(work.spec.base), "adapter_dir", None)
    shelf = Path(target or claim.settings.adapters_dir)
    manifest = adapters.verify(adapters.install(_folder(claim, attempt) / "training" / "adapter", shelf, work.adapter))
    record = {"name": work.adapter, "prompt": work.after.prompt, "version": work.after.version}
    record |= {"base_model": work.spec.base, "job_id": claim.job_id, "digest": manifest.digest}
    with claim.database.write() as session:
        jobs.require_claim(session, claim.job_id, claim.token)
        routes.add_adapter(session, {**record, "manifest": manifest.model_dump(mode="json"), "created_at": now()})
    claim.tell_once("adapter", attempt=attempt, name=work.adapter, digest=manifest.digest)
    Adapters(claim.database, claim.settings).write_card(work.adapter)
    known = {"scores": manifest.scores, "recipe": manifest.recipe}
    return {"adapter": work.adapter, "digest": manifest.digest, **known}


def score_dev(claim: Claim, attempt: int, known_before: int | None) -> dict[str, Any]:
    """Both variants on the dev examples: without a gain there no look is spent."""
    return comparing.score_dev(claim, attempt, spec_of(claim, attempt), known_before)


def take_look(claim: Claim, attempt: int) -> dict[str, Any]:
    """Count this attempt's look at the held-out set, and freeze who is to be beaten."""
    return comparing.take_look(claim, attempt)


def run_heldout(claim: Claim, attempt: int, variant: str) -> dict[str, Any]:
    """Every held-out case against one variant."""
    return comparing.run_heldout(claim, attempt, variant)


def decide(claim: Claim, attempt: int, look: dict[str, Any]) -> dict[str, Any]:
    """The paired test and its evidence."""
    decided = comparing.decide(claim, attempt, look)
    Adapters(claim.database, claim.settings).write_card(material(claim, attempt).adapter)  # the scores are known now
    return decided


def reflect(
    claim: Claim, attempt: int, tried: Sequence[Mapping[str, Any]], planned: Mapping[str, Any]
) -> dict[str, Any]:
    """Why the last attempt did not reach the bar, and whether another is worth its look; writes the next one's spec."""
    specs = [spec_of(claim, number) for number in range(1, attempt + 1)]
    found, spec = reflecting.reflect(claim, attempt, tried, specs, planned)
    if spec is not None and not _spec_file(claim, attempt + 1).exists():
        write_spec(spec, _spec_file(claim, attempt + 1))
    claim.tell_once("diagnosis", attempt=attempt, **found)
    return found


def move_route(claim: Claim, attempt: int, evidence_id: str, rivals: Sequence[str]) -> dict[str, Any]:
    """The winner's first share of the traffic, as a new revision that rests on the evidence; or why it has none."""
    work = material(claim, attempt)
    steps = work.suite.fallback.rollout if work.suite.fallback else (100,)
    with claim.database.write() as session:
        jobs.require_claim(session, claim.job_id, claim.token)
        try:
            revision = route_book.begin(
                session, work.after, steps, evidence_id, claim.actor, frozenset(rivals), _rules(work.suite)
            )
        except NeedsEvidence as error:
            return {"revision": None, "variants": None, "reason": str(error)}
    claim.tell_once("routed", revision=revision["revision"], variants=revision["variants"])
    return {"revision": revision["revision"], "variants": revision["variants"]}


def _rules(suite: Suite) -> Rules:
    """What the suite holds a variant to offline is what its rollout holds it to online."""
    budget_ms = suite.thresholds.p95_latency_ms
    return Rules(margin=min(suite.gate.margin, 0.5), latency_budget_ms=budget_ms)


def candidate(claim: Claim, attempt: int) -> str:
    """The variant that an attempt makes."""
    return str(material(claim, attempt).after)


def spec_of(claim: Claim, attempt: int) -> JobSpec:
    """The frozen spec of one attempt's training process."""
    return read_spec(_spec_file(claim, attempt))


def _folder(claim: Claim, attempt: int) -> Path:
    return planning.attempt_folder(claim, attempt)


def _spec_file(claim: Claim, attempt: int) -> Path:
    return _folder(claim, attempt) / "spec.json"


def _last_line(claim: Claim, attempt: int) -> int:
    """How many lines of this attempt's training process were passed on before."""
    with claim.database.read() as session:
        last, after = 0, 0
        while batch := jobs.events(session, claim.job_id, after):
            after = batch[-1]["number"]
            told = [event["data"] for event in batch if event["type"] == "training"]
            last = max([last, *(data.get("line", 0) for data in told if data.get("attempt") == attempt)])
    return last

"""Whether a stored record of evidence holds: everything in it that follows from something else is computed anew.

Numbers may differ by one part in a billion: sums are not always taken in the same order, nor on the same machine.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from prompts.errors import BadInput
from suites.detail import Wanted, with_detail
from suites.evidence_digest import DECIDED, ROLLOUT, digest_again
from suites.gate import raw_p_value, read_evidence, recompute
from suites.outcomes import statuses_of
from suites.results import CaseResult, Tally, case_status
from suites.rollouts import recompute_rollout
from suites.statistics import percentile
from suites.verdicts import GateEvidence, GateInput, PromotionEvidence, Side

_ABSENT = "nothing"
_OF_RESULTS = (
    "total", "passed", "failed", "errored", "skipped", "pass_rate", "ci95", "p50_ms", "p95_ms", "cost_per_1k_usd",
    "tokens", "metrics", "waiting",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Difference:
    """One place of a record that does not follow from the rest; `path` as in `content.decision.p_value`."""

    path: str
    stored: Any
    recomputed: Any

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def verify_record(record: Mapping[str, Any]) -> list[Difference]:
    """A record by itself: its digest, its decision down to every figure, and what stands beside its content."""
    content = record["content"]
    found = list(differences(record["digest"], digest_again(record), "digest"))
    if record["kind"] == ROLLOUT:
        return found + list(_verify_rollout(record))
    if record["kind"] not in DECIDED:
        beside = {name: content[name] for name in ("candidate", "actor") if name in content and name in record}
        return found + list(differences({name: record[name] for name in beside}, beside))
    try:
        evidence = read_evidence(content)
        decision = recompute(evidence)
    except (BadInput, ArithmeticError) as error:
        return [*found, Difference("content", "what no decision follows from", str(error))]
    found += differences(content["decision"], decision.model_dump(mode="json"), "content.decision")
    beside = {"kind": evidence.kind, "verdict": decision.verdict, "candidate": evidence.given.candidate.variant}
    if "prompt" in record:
        beside["prompt"] = beside["candidate"].partition("@")[0]
    return found + list(differences({name: record[name] for name in beside}, beside))


def _verify_rollout(record: Mapping[str, Any]) -> Iterator[Difference]:
    """What a rollout decided on follows from its counts alone."""
    content = record["content"]
    try:
        decision = recompute_rollout(content).model_dump(mode="json")
    except BadInput as error:
        yield Difference("content", "what no decision follows from", str(error))
        return
    yield from differences(content.get("decision", _ABSENT), decision, "content.decision")
    candidate = content["given"]["candidate"]
    beside = {"verdict": decision["verdict"], "candidate": candidate, "prompt": candidate.partition("@")[0]}
    yield from differences({name: record[name] for name in beside if name in record}, beside)


def verify_family(evidence: GateEvidence, siblings: Sequence[GateEvidence]) -> list[Difference]:
    """The p-values of the gate's other suites, which this one's is adjusted with, against their own evidence."""
    raw = [raw_p_value(sibling.given) for sibling in siblings]
    return list(differences(list(evidence.others), [p for p in raw if p is not None], "content.others"))


def verify_side(given: GateInput, role: str, results: Iterable[CaseResult]) -> list[Difference]:
    """One side, `candidate` or `baseline`, against the stored results of its run.

    Why a run stopped early is not among its results, and stays unverified.
    """
    side: Side = getattr(given, role)
    again = _side_again(given, side, list(results))
    return list(differences(side.model_dump(mode="json"), again.model_dump(mode="json"), f"content.given.{role}"))


def verify_run(given: GateInput, role: str, run: Mapping[str, Any], results: Sequence[CaseResult]) -> list[Difference]:
    """The row of a side's run: its variant and suite against the evidence, its summary against its stored results.

    Wall time, why the run stopped and whose results it kept are not among its results, and stay unverified.
    """
    side: Side = getattr(given, role)
    found = list(_named_otherwise(run, side.variant, given.suite, str(side.run_id)))
    again = _summary_again(given, side, results)
    stored = {name: run.get(name, _ABSENT) for name in again}
    if "case_status" in run:
        stored["case_status"], again["case_status"] = _statuses(run["case_status"]), dict(side.outcomes)
    return found + list(differences(stored, again, f"{side.run_id}.summary"))


def _statuses(stored: Any) -> Any:
    """The status of each case in a summary; what cannot be read as that was changed, and is told as it stands."""
    try:
        return dict(statuses_of(stored))
    except (ValueError, IndexError, KeyError, TypeError, AttributeError):
        return stored


def _named_otherwise(run: Mapping[str, Any], variant: str, suite: str, run_id: str) -> Iterator[Difference]:
    """What a run's row and its summary say of its variant and suite; the row's own is there where the two differ."""
    for name in ("variant", "row_variant"):
        if name in run:
            yield from differences(run[name], variant, f"{run_id}.{name}")
    for name in ("suite", "row_suite"):
        if name in run:
            yield from differences(str(run[name]).partition("@")[0], suite, f"{run_id}.{name}")


def _summary_again(given: GateInput, side: Side, results: Sequence[CaseResult]) -> dict[str, Any]:
    """The figures of a run's summary, from its results; a case or repeat without one was skipped."""
    tally = Tally(given.repeat, given.passes_needed)
    asked = {(result.case_id, result.repeat) for result in results}
    places = {result.case_id: result.index for result in results}
    unknown = max(places.values(), default=-1) + 1
    for number, case_id in enumerate(side.outcomes.keys() - places.keys()):
        places[case_id] = unknown + number
    for result in results:
        tally.add(result)
    for case_id, place in places.items():
        for repeat in range(given.repeat):
            if (case_id, repeat) not in asked:
                tally.add(CaseResult(case_id, place, repeat, "skipped"))
    summary = json.loads(json.dumps(tally.summary(0.0).as_dict()))
    return {name: summary[name] for name in _OF_RESULTS}


def verify_rows(run_id: str, rows: Iterable[Mapping[str, Any]]) -> list[Difference]:
    """The status that stands beside each stored result of a run, by which results are chosen, against the result's own."""
    return [
        Difference(f"{run_id}.{row['case_id']}[{row['repeat']}].status", row["row_status"], row["status"])
        for row in rows
        if "row_status" in row
    ]


def differences(stored: Any, recomputed: Any, path: str = "") -> Iterator[Difference]:
    """Where two values of plain data differ, however deep within them."""
    if isinstance(stored, dict) and isinstance(recomputed, dict):
        for key in sorted(stored.keys() | recomputed.keys(), key=str):
            below = f"{path}.{key}" if path else str(key)
            yield from differences(stored.get(key, _ABSENT), recomputed.get(key, _ABSENT), below)
    elif isinstance(stored, list) and isinstance(recomputed, list) and len(stored) == len(recomputed):
        for index, (one, other) in enumerate(zip(stored, recomputed, strict=True)):
            yield from differences(one, other, f"{path}[{index}]")
    elif not _same(stored, recomputed):
        yield Difference(path, stored, recomputed)


def _same(stored: Any, recomputed: Any) -> bool:
    if {type(stored), type(recomputed)} in ({float}, {float, int}):  # whole numbers are counts and seeds
        return math.isclose(stored, recomputed, rel_tol=1e-9)
    return type(stored) is type(recomputed) and bool(stored == recomputed)


def _side_again(given: GateInput, side: Side, results: Sequence[CaseResult]) -> Side:
    """The side as its run's results say it; a repeat without a result was skipped."""
    counts: dict[str, Counter[str]] = {case_id: Counter() for case_id in side.outcomes}
    for result in results:
        counts.setdefault(result.case_id, Counter())[result.status] += 1
    for found in counts.values():
        found["skipped"] = max(0, given.repeat - found["passed"] - found["failed"] - found["errored"])
    latencies_ms = [result.latency_ms for result in results if result.latency_ms is not None]
    costs_usd = [result.cost_usd for result in results if result.cost_usd is not None]
    again = side.model_copy(
        update={
            "outcomes": {case_id: case_status(found, given.passes_needed) for case_id, found in counts.items()},
            "p95_latency_ms": percentile(latencies_ms, 95),
            "cost_per_1k_usd": 1000 * math.fsum(costs_usd) / len(costs_usd) if costs_usd else None,
            "waiting": len({result.case_id for result in results if result.waits}),
        }
    )
    metrics = {name: frozenset(values) for name, values in side.metrics.items()}
    wanted = Wanted(given.repeat > 1, given.settings.on == "score", metrics)
    return with_detail(again, results, wanted)


def sides_with_runs(evidence: GateEvidence | PromotionEvidence) -> dict[str, str]:
    """The run that each side of a decision rests on, by `candidate` and `baseline`, where it is named."""
    sides = {"candidate": evidence.given.candidate, "baseline": evidence.given.baseline}
    return {role: side.run_id for role, side in sides.items() if side is not None and side.run_id is not None}

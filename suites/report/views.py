"""What every report shows: verdicts in words, cases with both answers, and what a verdict rests on."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from suites.judge import Status
from suites.verdicts import GateDecision, Verdict

SIGNS: Mapping[Verdict, str] = {"pass": "✅", "fail": "❌", "inconclusive": "⚠️", "could_not_run": "⛔"}
WORDS: Mapping[Verdict, str] = {
    "pass": "passed",
    "fail": "failed",
    "inconclusive": "is inconclusive",
    "could_not_run": "could not run",
}

Change = Literal["broken", "mended", ""]


@dataclass(frozen=True, slots=True)
class CaseView:
    """What a reader sees of a case that changed; outputs are None where no answer came, `expected` where nobody knows."""

    title: str
    candidate: str | None
    baseline: str | None
    reason: str = ""
    expected: str | None = None


@dataclass(frozen=True, slots=True)
class AnswerView:
    """One side's answer to a case, as it was judged. Latency in milliseconds, cost in USD; None where unknown."""

    status: Status
    output: str | None = None
    reason: str = ""
    score: float | None = None
    latency_ms: float | None = None
    cost_usd: float | None = None
    metrics: Mapping[str, float | None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class CaseRow:
    """One case asked once, of both sides. `number` is its place in the suite, from 1; `repeat` counts from 0.

    `baseline` is None where there is no other side, or it was not asked this.
    """

    case_id: str
    number: int
    repeat: int
    title: str
    expected: str
    candidate: AnswerView
    baseline: AnswerView | None = None
    change: Change = ""
    tags: tuple[str, ...] = ()
    must_pass: bool = False


@dataclass(frozen=True, slots=True)
class Footing:
    """What a verdict on a suite rests on, and how its author calls the suite on the command line."""

    evidence_id: str
    suite: str
    options: str = ""  # that every command of this project takes, as ` --local`
    origins: Mapping[str, str] = field(default_factory=dict)  # of `candidate` and `baseline`, where they are drafts


Views = Mapping[tuple[str, str], CaseView]  # by suite and case id: suites may share a case
Footings = Mapping[str, Footing]  # by suite


def next_command(decision: GateDecision, footing: Footing) -> str:
    """The command that goes on from a verdict: look at what broke, ask again what errored, see how many cases decide.

    "" for a run that left no evidence and nothing to look at.
    """
    suite = shlex.quote(footing.suite)
    loss = len(decision.newly_broken) - len(decision.newly_mended)
    if decision.verdict == "could_not_run":
        return f"turnout gate {suite} --rerun-failed{footing.options}"
    if decision.verdict == "fail":
        case = f" --case {decision.newly_broken[0]}" if decision.newly_broken else ""
        return f"turnout run {suite}{case}{footing.options}"
    if decision.verdict == "inconclusive" and loss > 0:
        return f"turnout power --gain {loss / decision.paired:.3g} --cases {decision.paired}"
    if not footing.evidence_id:
        return ""
    return f"turnout evidence {footing.evidence_id} --verify{footing.options}"

"""A fine-tune that beats its prompt, and not the variant that already has traffic, says so."""

from __future__ import annotations

from typing import Any

import pytest

from prompts.names import parse_variant
from service import workflow
from service.tuning import comparing
from suites.gate import promotion_evidence
from tests.suites.test_gate import gate

ALONE, RIVAL, NEW = "p@1+m", "p@1+m+old", "p@1+m+new"


class Job:
    """As much of a claim as `decide` reads; keeps what is told."""

    short_id = "1"

    def run(self, given: Any) -> Any:
        return given

    def tell_once(self, kind: str, **data: Any) -> None:
        self.told = (kind, data)


class Work:
    before, after = parse_variant(ALONE), parse_variant(NEW)


def against(rival: str) -> Any:
    won = rival == ALONE
    given = gate("p" * 50, ("f" * 20 + "p" * 30) if won else "p" * 50)
    assert given.baseline is not None
    given = given.model_copy(update={"baseline": given.baseline.model_copy(update={"variant": rival})})
    return promotion_evidence(given, 1)


def decided(monkeypatch: pytest.MonkeyPatch, rivals: list[str]) -> dict[str, Any]:
    monkeypatch.setattr(comparing, "material", lambda *_: Work)
    monkeypatch.setattr(comparing, "_keep", lambda *_: None)
    for name in ("_evaluate", "_side"):
        monkeypatch.setattr(comparing, name, lambda *_: None)
    monkeypatch.setattr(comparing, "_against", lambda _claim, _work, _side, rival, _look: against(rival))
    return comparing.decide(Job(), 1, {"look": 1, "rivals": rivals})  # type: ignore[arg-type]


def test_the_rival_that_was_not_beaten_is_named_and_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    decision = decided(monkeypatch, [ALONE, RIVAL])
    assert (decision["verdict"], decision["against"]) == ("inconclusive", RIVAL)
    assert all(reason.startswith(f"against {RIVAL}, which takes traffic: ") for reason in decision["reasons"])
    runs = [{"variant": ALONE, "passed": 30}, {"variant": RIVAL, "passed": 50}]
    assert workflow._compared(runs, decision) == runs[1]


def test_where_all_are_beaten_the_prompt_alone_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    decision = decided(monkeypatch, [ALONE])
    assert (decision["verdict"], decision["against"]) == ("pass", ALONE)
    assert not any(reason.startswith("against") for reason in decision["reasons"])
    runs = [{"variant": ALONE, "passed": 30}, {"variant": RIVAL, "passed": 50}]
    assert workflow._compared(runs, decision) == runs[0]
    assert workflow._compared(runs, {}) == runs[0]  # a decision that was recorded before rivals were named

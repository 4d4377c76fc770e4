from typing import Any

import pytest

from suites.case import Suite
from suites.suite_changes import suite_changes


def case(ticket: str, expected: str = "billing", **more: Any) -> dict[str, Any]:
    return {"vars": {"ticket": ticket}, "assert": [{"type": "equals", "value": expected}], **more}


def suite(*cases: dict[str, Any], **head: Any) -> Suite:
    return Suite.from_data({"prompt": "support.triage", "tests": list(cases), **head})


BEFORE = suite(case("a"), case("b", must_pass=True), case("c"), thresholds={"pass_rate": 0.9, "p95_latency_ms": 100})


def changed(*cases: dict[str, Any], **head: Any) -> list[str]:
    return suite_changes(BEFORE, suite(*cases, **{"thresholds": {"pass_rate": 0.9, "p95_latency_ms": 100}, **head}))


SAME = (case("a"), case("b", must_pass=True), case("c"))


@pytest.mark.parametrize(
    ("found", "told"),
    [
        (changed(*SAME), []),
        (changed(case("c", description="d"), *SAME[:2]), []),
        (changed(*SAME[:2]), ["1 case removed"]),
        (changed(*SAME, case("d"), case("e")), ["2 cases added"]),
        (changed(*SAME[:2], case("c", "other")), ["1 case changed in what is expected"]),
        (changed(SAME[0], case("b"), SAME[2]), ["1 case no longer `must_pass`"]),
        (changed(SAME[0], case("b", "other"), SAME[2]),
         ["1 case changed in what is expected", "1 case no longer `must_pass`"]),
        (changed(SAME[0], SAME[2]), ["1 case removed", "1 case no longer `must_pass`"]),
        (changed(*SAME, thresholds={"pass_rate": 0.5, "p95_latency_ms": 200}),
         ["threshold pass_rate 0.9 → 0.5, looser", "threshold p95_latency_ms 100 → 200, looser"]),
        (changed(*SAME, thresholds={"pass_rate": 0.95, "cost_per_1k_usd": 1}),
         ["threshold pass_rate 0.9 → 0.95, stricter", "threshold p95_latency_ms 100 dropped",
          "threshold cost_per_1k_usd 1 new"]),
        (changed(*SAME, gate={"margin": 0.2, "min_cases": 2, "alpha": 0.01}),
         ["gate.alpha 0.05 → 0.01, looser", "gate.margin 0.02 → 0.2, looser", "gate.min_cases 1 → 2, stricter"]),
        (changed(*SAME, repeat=3, pass_k=1), ["repeat 1 → 3"]),
    ],
)  # fmt: skip
def test_what_became_of_a_suite_is_told(found: list[str], told: list[str]) -> None:
    assert found == told

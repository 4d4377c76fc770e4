"""Variants and whole advices with plain figures."""

from __future__ import annotations

from typing import Any

from suites.advice.curve import Measured, learn_curve
from suites.advice.deciding import Facts
from suites.advice.report import Advice, Data, Recommendation, Rung, Spend, Variant, compared, scored


def variant(rung: Rung, right: int, total: int = 100, *, key: str = "", **known: Any) -> Variant:
    """A variant whose first answers are the right ones: of two, the better one mends and breaks nothing."""
    return scored(key or rung, rung, key or rung, "small", "1" * right + "0" * (total - right), **known)


def facts(*variants: Variant, **known: Any) -> Facts:
    given = {"called": "s", "given": 100, "kept": 100, "contradicting": 0, "ceiling": 1.0, "advice_id": "adv_1"}
    return Facts(**{**given, "variants": compared(variants), **known})


def curve(*accuracies: float, bar: float | None = 0.9, total: int = 4000) -> Any:
    """The curve through accuracies after 25, 50 and 100 examples; there are 150."""
    sizes = (25, 50, 100)[: len(accuracies)]
    points = [Measured(size, round(total * (1 - one)), total) for size, one in zip(sizes, accuracies, strict=True)]
    return learn_curve(points, (150, 300, 600), bar)


def advice(**changes: Any) -> Advice:
    found = compared((
        variant("prompt", 40, spend=Spend(prompt_tokens=50, answer_tokens=2, timed=16, p50_ms=10, p95_ms=20)),
        variant("similar", 60, ships=False, shots=4, note="needs retrieval"),
        variant("lora", 90, forecast=0.93, trained_on=66),
    ))  # fmt: skip
    known: dict[str, Any] = {
        "advice_id": "adv_1",
        "suite": "s@1",
        "prompt": "p@2",
        "base": "small",
        "bar": 0.9,
        "data": Data(given=100, kept=100, contradicting=0, ceiling=1.0, contradictions=(), mislabelled=(), refusals=(),
                     warnings=(), lines=()),
        "rows": tuple(range(100)),
        "folds": 3,
        "variants": found,
        "recommendation": Recommendation(kind="fine-tune", title="Fine-tune", reasons=("it helps",),
                                         next=("turnout finetune s",), variant="lora"),
    }  # fmt: skip
    return Advice(**{**known, **changes})

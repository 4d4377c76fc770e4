"""The advice as it is stored: all that was measured, what it comes to, and the one thing recommended."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from suites.advice.answers import RIGHT, paired
from suites.statistics import holm, mcnemar_two_sided, paired_interval, wilson_interval

Rung = Literal["prompt", "form", "parameters", "few-shot", "similar", "lora", "few-shot+lora", "against"]
ORDER: tuple[Rung, ...] = ("prompt", "form", "parameters", "few-shot", "similar", "lora", "few-shot+lora", "against")
TRAINED: frozenset[Rung] = frozenset({"lora", "few-shot+lora"})


class Record(BaseModel):
    """A frozen part of the advice."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Paired(Record):
    """A variant beside the prompt alone, on the examples that both answered.

    `difference` is after minus before, with Newcombe's 95% interval; `p` is exact McNemar, two-sided, `p_holm` the same
    adjusted for all variants.
    """

    pairs: int
    broken: int
    mended: int
    difference: float
    ci95: tuple[float, float]
    p: float
    p_holm: float


class Spend(Record):
    """What a request takes: mean tokens, milliseconds with one request in flight, US dollars for a thousand requests.

    `timed` requests were timed. `cost_from` says what the cost was computed from, None where nobody gave a price.
    """

    prompt_tokens: float | None = None
    answer_tokens: float | None = None
    timed: int = 0
    p50_ms: float | None = None
    p95_ms: float | None = None
    cost_per_1k_usd: float | None = None
    cost_from: str | None = None


class Variant(Record):
    """One way to answer, scored on examples that it had not seen.

    `outcomes` has a letter for each example that is kept: 1 right, 0 wrong, e errored, and a blank where it was not
    asked. `ships` is False for what could not be served as it stands. `forecast` is the accuracy that a training on all
    examples would give, by the learning curve.
    """

    key: str
    rung: Rung
    title: str
    model: str
    ships: bool
    right: int
    total: int
    errored: int
    accuracy: float
    ci95: tuple[float, float]
    outcomes: str
    paired: Paired | None = None
    forecast: float | None = None
    trained_on: int | None = None
    changes: dict[str, Any] = {}
    shots: int = 0
    spend: Spend = Spend()
    note: str = ""

    @property
    def level(self) -> float:
        """The accuracy to expect of it where it is shipped."""
        return self.accuracy if self.forecast is None else max(self.accuracy, self.forecast)


class Example(Record):
    """One example to put into the prompt."""

    vars: dict[str, Any]
    expected: str


class Skipped(Record):
    """What was not tried, and why."""

    what: str
    why: str


class Data(Record):
    """What the report on the examples said. `ceiling` is the highest accuracy that their contradictions leave possible.

    Rows are numbers of the examples that were given, from 0, as the data report counts them.
    """

    given: int
    kept: int
    contradicting: int
    ceiling: float
    contradictions: tuple[dict[str, Any], ...]
    mislabelled: tuple[dict[str, Any], ...]
    refusals: tuple[str, ...]
    warnings: tuple[str, ...]
    lines: tuple[str, ...]


class Trained(Record):
    """What the trainings of the advice took, and what one on all examples would take.

    `energy_wh` is the device's where it tells its power, else CPU seconds times `watts`, an assumption.
    """

    device: str
    trainings: int
    seconds: float
    cpu_seconds: float
    one_s: float
    energy_wh: float
    energy_from: str
    one_energy_wh: float
    one_price_usd: float | None


class BreakEven(Record):
    """After how many requests a training has paid for itself, beside the cheapest variant as good; None for never."""

    variant: str
    against: str
    saving_usd: float
    requests: int | None
    why: str


class Recommendation(Record):
    """The one thing to do, why, and the commands to type next."""

    kind: str
    title: str
    reasons: tuple[str, ...]
    next: tuple[str, ...]
    variant: str | None = None


class Advice(Record):
    """A whole advice. `rows` are, for each letter of the outcomes, the number of the example in the examples given."""

    advice_id: str
    suite: str
    prompt: str
    base: str | None
    bar: float | None
    data: Data
    rows: tuple[int, ...]
    folds: int
    groups: tuple[dict[str, Any], ...] = ()
    variants: tuple[Variant, ...] = ()
    skipped: tuple[Skipped, ...] = ()
    curve: dict[str, Any] | None = None
    trained: Trained | None = None
    break_even: tuple[BreakEven, ...] = ()
    shots: tuple[Example, ...] = ()
    recommendation: Recommendation
    look: dict[str, Any] | None = None
    seconds: float = 0.0


def scored(key: str, rung: Rung, title: str, model: str, outcomes: str, *, ships: bool = True, **known: Any) -> Variant:
    """A variant with its counts, from its letters."""
    right, errored = outcomes.count(RIGHT), outcomes.count("e")
    total = len(outcomes) - outcomes.count(" ")
    accuracy = right / total if total else 0.0
    counts: dict[str, Any] = {"right": right, "total": total, "errored": errored, "accuracy": accuracy}
    counts |= {"ci95": wilson_interval(right, total), "outcomes": outcomes}
    return Variant(key=key, rung=rung, title=title, model=model, ships=ships, **counts, **known)


def compared(variants: tuple[Variant, ...]) -> tuple[Variant, ...]:
    """The variants with their paired differences from the first, which is the prompt alone."""
    if not variants:
        return ()
    first, *others = variants
    counts = [paired(first.outcomes, one.outcomes) for one in others]
    p_values = [mcnemar_two_sided(broken, mended) for _, broken, mended, _ in counts]
    adjusted = holm(p_values)
    return (first, *(_with_pairs(*each) for each in zip(others, counts, p_values, adjusted, strict=True)))


def _with_pairs(one: Variant, counts: tuple[int, int, int, int], p: float, p_holm: float) -> Variant:
    pairs = sum(counts)
    if not pairs:
        return one
    _, broken, mended, _ = counts
    known = {"pairs": pairs, "broken": broken, "mended": mended, "p": p, "p_holm": p_holm}
    found = Paired(**known, difference=(mended - broken) / pairs, ci95=paired_interval(*counts))
    return one.model_copy(update={"paired": found})

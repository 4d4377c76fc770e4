"""What a suite decides by, trains on and falls back to: the parts of a suite file that are not cases."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictInt,
    StrictStr,
    model_validator,
)

from suites.assertions.spec import refuse, shorten
from suites.bounds import count, number
from suites.values import FILE


def _as_rollout(steps: tuple[int, ...]) -> tuple[int, ...]:
    if not steps or steps[-1] != 100 or steps[0] < 1 or list(steps) != sorted(set(steps)):
        refuse("a rollout rises from step to step and ends with 100 percent", "write [5, 25, 100], or [100]")
    return steps


def _not_a_file(examples: Any) -> Any:
    if isinstance(examples, str) and examples.startswith(FILE):
        refuse(
            f"{FILE} is resolved by the command line alone", "give the examples inline, or by the digest of an upload"
        )
    return examples


MOST_VOTES = 15
MOST_MINUTES = 7 * 24 * 60
Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
_SHARE = "a share lies between 0 and 1"
Share = Annotated[Number, BeforeValidator(number(_SHARE, "0.9 for 90%", least=0, most=1))]
_Tolerance = Annotated[Number, BeforeValidator(number(_SHARE, "0.02 for 2%", least=0, most=1))]
PositiveShare = Annotated[
    Number,
    Field(gt=0, le=1),
    BeforeValidator(number("it lies above 0 and up to 1", "0.6, say", least=0, most=1, above=True)),
]
_Milliseconds = Annotated[
    Number, Field(gt=0), BeforeValidator(number("milliseconds, above 0", "2000 for two seconds", least=0, above=True))
]
_Dollars = Annotated[Number, Field(ge=0), BeforeValidator(number("dollars (USD), from 0", "0.5", least=0))]
_Alpha = Annotated[
    Number,
    Field(gt=0, le=0.5),
    BeforeValidator(number("an error rate lies above 0 and up to 0.5", "0.05 for 5%", least=0, most=0.5, above=True)),
]
_Cases = Annotated[
    StrictInt, Field(ge=1), BeforeValidator(count("a number of cases, from 1", "50, say", least=1, most=10**9))
]


class Record(BaseModel):
    """A frozen part of a file, in which an unknown key is a fault. A field with an alias is written by that alone."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Thresholds(Record):
    """Bounds of a suite; any subset. `p95_latency_ms` in milliseconds, `cost_per_1k_usd` for a thousand completions.

    `metrics` holds the least mean score of a metric over the cases that have it, `tags` the least pass rate of the
    cases with a tag.
    """

    pass_rate: Share | None = None
    p95_latency_ms: _Milliseconds | None = None
    cost_per_1k_usd: _Dollars | None = None
    metrics: dict[str, Share] = Field(default={})
    tags: dict[str, Share] = Field(default={})

    def given(self) -> dict[str, float]:
        """Every bound by its name; that of a metric is `metrics.NAME`, that of a tag `tags.NAME`."""
        found = {name: value for name in PLAIN_BOUNDS if (value := getattr(self, name)) is not None}
        found |= {f"metrics.{name}": bound for name, bound in self.metrics.items()}
        return found | {f"tags.{name}": bound for name, bound in self.tags.items()}


PLAIN_BOUNDS = ("pass_rate", "p95_latency_ms", "cost_per_1k_usd")


class GateSettings(Record):
    """How sure a gate must be: error rate, tolerated loss, least number of cases, tolerated share of errored ones.

    `on` says what is compared with the baseline: whether each case passed, or its score, which has degrees.
    """

    alpha: _Alpha = 0.05
    margin: _Tolerance = 0.02
    min_cases: _Cases = 1
    max_error_share: _Tolerance = 0.02
    on: Literal["pass", "score"] = "pass"


def _odd(votes: int) -> int:
    if votes % 2 == 0:
        refuse(f"{votes} votes can be even: half for, half against", f"write votes: {votes + 1}")
    return votes


def _as_label(label: Any) -> float:
    if label in ("pass", "fail") or isinstance(label, bool):
        return float(label in ("pass", True))
    if not isinstance(label, int | float) or not 0 <= label <= 1:
        refuse(f"a label cannot be {shorten(label)}", "write pass, fail, or a score from 0 to 1")
    return float(label)


class JudgeFloor(Record):
    """The least agreement with people that a judge needs: Cohen's κ, the share of cases judged alike, or both."""

    kappa: PositiveShare | None = None
    accuracy: PositiveShare | None = None

    @model_validator(mode="after")
    def _says_something(self) -> JudgeFloor:
        if self.kappa is None and self.accuracy is None:
            refuse("a floor needs a bound", "write `floor: {kappa: 0.6}`, or `floor: {accuracy: 0.85}`")
        return self

    def given(self) -> dict[str, float]:
        """Each bound by its name."""
        bounds = {"kappa": self.kappa, "accuracy": self.accuracy}
        return {name: bound for name, bound in bounds.items() if bound is not None}


class Label(Record):
    """What a person said of one answer, of one metric or, without, of all that is judged.

    `label` is pass or fail, or a score in [0, 1], which passes from one half on.
    """

    vars: dict[str, Any] = Field(default={})
    output: StrictStr
    label: Annotated[float, BeforeValidator(_as_label)]
    metric: StrictStr | None = None

    @property
    def passed(self) -> bool:
        return self.label >= 0.5


class JudgeSettings(Record):
    """Who judges a suite's model-graded assertions. `model` and `embeddings` are aliases.

    Each is asked `votes` times and the majority counts. With a `floor` a gate passes only where the judge's agreement with
    people was measured and reaches it; `calibration` holds what people said, for `turnout judge calibrate`.
    """

    model: StrictStr | None = None
    embeddings: StrictStr | None = None
    votes: Annotated[
        StrictInt,
        Field(ge=1, le=MOST_VOTES),
        AfterValidator(_odd),
        BeforeValidator(count(f"an odd number from 1 to {MOST_VOTES}", "3, say", least=1, most=MOST_VOTES)),
    ] = 1
    floor: JudgeFloor | None = None
    calibration: Annotated[tuple[Label, ...], BeforeValidator(_not_a_file)] = ()


class Example(Record):
    """One training example: the prompt's variables and the answer that is wanted."""

    vars: dict[str, Any]
    expected: StrictStr


class Training(Record):
    """What an adapter is trained on when the suite fails; never the cases themselves."""

    examples: Annotated[tuple[Example, ...], BeforeValidator(_not_a_file)] = ()


_Minutes = Annotated[
    Number,
    Field(gt=0, le=MOST_MINUTES),
    BeforeValidator(number("minutes, above 0 and up to a week", "10, say", least=0, most=MOST_MINUTES, above=True)),
]


class Budget(Record):
    """How much a fallback may try: attempts, each with one look at the held-out cases, and minutes of training in all."""

    attempts: Annotated[StrictInt, Field(ge=1, le=5)] = 2
    minutes: _Minutes = 10.0


class Fallback(Record):
    """What happens when the gate fails. `rollout` in percent of the traffic; `recipe` as `finetune.plan` reads it."""

    when: Literal["thresholds_missed", "never"] = "thresholds_missed"
    base_model: StrictStr | None = None
    rollout: Annotated[tuple[StrictInt, ...], AfterValidator(_as_rollout)] = (100,)
    recipe: dict[str, Any] | None = None
    budget: Budget = Budget()

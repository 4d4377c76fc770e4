"""What a suite decides by, trains on and falls back to: the parts of a suite file that are not cases."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StrictInt, StrictStr

from suites.assertions.spec import refuse
from suites.values import FILE


def _as_share(value: float) -> float:
    if not 0 <= value <= 1:
        refuse("a share lies between 0 and 1", f"write {value / 100:g}" if 1 < value <= 100 else "write 0.9 for 90%")
    return value


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


Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Share = Annotated[Number, AfterValidator(_as_share)]


class Record(BaseModel):
    """A frozen part of a file, in which an unknown key is a fault."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


class Thresholds(Record):
    """Bounds of a suite; any subset. `p95_latency_ms` in milliseconds, `cost_per_1k_usd` for a thousand completions."""

    pass_rate: Share | None = None
    p95_latency_ms: Annotated[Number, Field(gt=0)] | None = None
    cost_per_1k_usd: Annotated[Number, Field(ge=0)] | None = None

    def given(self) -> dict[str, float]:
        return {name: value for name, value in self if value is not None}


class GateSettings(Record):
    """How sure a gate must be: error rate, tolerated loss, least number of cases, tolerated share of errored ones."""

    alpha: Annotated[Number, Field(gt=0, le=0.5)] = 0.05
    margin: Share = 0.02
    min_cases: Annotated[StrictInt, Field(ge=1)] = 1
    max_error_share: Share = 0.02


class Example(Record):
    """One training example: the prompt's variables and the answer that is wanted."""

    vars: dict[str, Any]
    expected: StrictStr


class Training(Record):
    """What an adapter is trained on when the suite fails; never the cases themselves."""

    examples: Annotated[tuple[Example, ...], BeforeValidator(_not_a_file)] = ()


class Fallback(Record):
    """What happens when the gate fails. `rollout` in percent of the traffic; `recipe` as `finetune.plan` reads it."""

    when: Literal["thresholds_missed", "never"] = "thresholds_missed"
    base_model: StrictStr | None = None
    rollout: Annotated[tuple[StrictInt, ...], AfterValidator(_as_rollout)] = (100,)
    recipe: dict[str, Any] | None = None

"""What an assertion is, what it looks at and what it answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from pydantic import BaseModel, ConfigDict, Field
from pydantic_core import PydanticCustomError


class AssertionSpec(BaseModel):
    """One assertion as its author wrote it, with promptfoo's words.

    `value` is what is looked for, `threshold` the bound of `latency` (ms) and `cost` (USD), `weight` its share in the
    case's score (0 reports without deciding), `metric` the name under which its score is summed over the suite.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    type: str
    value: Any = None
    threshold: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    weight: float = Field(default=1.0, ge=0, allow_inf_nan=False)
    metric: str | None = Field(default=None, min_length=1, max_length=100)


@dataclass(frozen=True, slots=True)
class Output:
    """A model's answer as assertions see it; `cost_usd` is None where the model's price is unknown."""

    text: str
    latency_ms: float = 0.0
    cost_usd: float | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What an assertion found: `score` in [0, 1], and a reason that names what was expected and what came."""

    passed: bool
    score: float
    reason: str


@dataclass(frozen=True, slots=True)
class Assertion:
    """One type of assertion: how it judges, and how its spec is checked before any model is called.

    `evaluate` may raise `AssertionErrored` where it cannot say; `check` raises what `refuse` raises.
    """

    evaluate: Callable[[Output, AssertionSpec], Outcome]
    check: Callable[[AssertionSpec], None]


Family = Mapping[str, Assertion]


class AssertionErrored(Exception):
    """The assertion could not be judged: the case counts as errored, not as failed."""


def refuse(message: str, fix: str) -> NoReturn:
    """Raise a fault of a spec in the form that `prompts.yaml_source` turns into a line and a fix."""
    raise PydanticCustomError("assertion", "{reason}", {"reason": message, "fix": fix})


def outcome(passed: bool, expected: str, found: object) -> Outcome:
    """An outcome without degrees."""
    verb = "as expected" if passed else "expected"
    return Outcome(passed, float(passed), f"{verb}: {expected}; got {shorten(found)}")


def shorten(value: object, limit: int = 120) -> str:
    """`value` as Python writes it, cut to `limit` characters."""
    text = repr(value[: limit + 1] if isinstance(value, str) else value)
    return text if len(text) <= limit else text[: limit - 1] + "…"

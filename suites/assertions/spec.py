"""What an assertion is, what it looks at and what it answers."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, NamedTuple, Protocol

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo

from prompts.messages import NOTHING, Completion, Message, Usage, nothing
from prompts.prompt import CompiledPrompt
from prompts.wording import refuse as refuse
from suites.assertions.folders import ScriptFolders

_BOUNDS = {  # what a threshold is of those types whose scores are no shares: in words, and as an example
    "latency": ("milliseconds, from 0", "2000 for two seconds"),
    "cost": ("dollars (USD), from 0", "0.002"),
    "levenshtein": ("a number of edits, from 0", "5"),
    "perplexity": ("a perplexity, from 1", "20"),
    "similar:euclidean": ("a distance, from 0", "0.75"),
    "similar:dot": ("a dot product, from 0", "0.75"),
}


def _as_threshold(value: Any, info: ValidationInfo) -> Any:
    if value is not None and not _is_amount(value):
        kind = str(info.data.get("type", "")).removeprefix("not-")
        told, example = _BOUNDS.get(kind, ("a share from 0 to 1", "0.8"))
        refuse(f"a threshold is a number: {told}", f"write `threshold: {example}`")
    return value


def _as_weight(value: Any) -> Any:
    if not _is_amount(value):
        fix = "write `weight: 2` to count double, `weight: 0` to report without deciding"
        refuse("a weight is a number from 0", fix)
    return value


def _is_amount(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < math.inf


class AssertionSpec(BaseModel):
    """One assertion as its author wrote it, with promptfoo's words.

    `value` is what is looked for, `threshold` the bound of `latency` (ms) and `cost` (USD) and the least score of those
    that have degrees, `weight` its share in the case's score (0 reports without deciding), `metric` the name under which
    its score is summed over the suite. `transform` is JavaScript that makes what is judged out of the answer, `provider`
    the alias of the model that is asked, `config` what scripts are given, `assert` the members of an `assert-set`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    type: str
    value: Any = None
    threshold: Annotated[float | None, BeforeValidator(_as_threshold)] = Field(default=None, ge=0, allow_inf_nan=False)
    weight: Annotated[float, BeforeValidator(_as_weight)] = Field(default=1.0, ge=0, allow_inf_nan=False)
    metric: str | None = Field(default=None, min_length=1, max_length=100)
    transform: str | None = Field(default=None, min_length=1)
    provider: str | None = Field(default=None, min_length=1)
    rubric_prompt: Any = Field(default=None, alias="rubricPrompt")
    config: dict[str, Any] | None = None
    asserts: tuple[AssertionSpec, ...] = Field(default=(), alias="assert")


OPTIONAL = frozenset({"transform", "provider", "rubric_prompt", "config", "asserts"})  # fields that few types take


class Output(NamedTuple):
    """A model's answer as assertions see it.

    `cost_usd` is None where the model's price is unknown, `logprobs` (natural, one a token) where the upstream gave
    none; `message` is the whole assistant message, with its tool calls. `data` is the JSON value that a `transform` made
    and that `text` was written from; None where no transform made one.
    """

    text: str
    latency_ms: float = 0.0
    cost_usd: float | None = None
    finish_reason: str = "stop"
    message: Mapping[str, Any] = NOTHING
    logprobs: tuple[float, ...] | None = None
    data: Any = None


class Outcome(NamedTuple):
    """What an assertion found: `score` in [0, 1], and a reason that names what was expected and what came.

    `parts` are what a script reports beside its own outcome; one with a `metric` is summed under that name.
    """

    passed: bool
    score: float
    reason: str
    metric: str | None = None
    parts: tuple[Outcome, ...] = ()


@dataclass(frozen=True, slots=True)
class Spent:
    """What judging took, apart from the model under test: tokens, and USD where all prices are known."""

    usage: Usage = field(default_factory=Usage)
    cost_usd: float | None = None


class Spending:
    """Adds up what is spent; one unknown price makes the whole cost unknown."""

    def __init__(self) -> None:
        self._tokens = [0, 0, 0]
        self._cost_usd: float | None = 0.0
        self._added = False

    def add(self, usage: Usage, cost_usd: float | None) -> None:
        found = (usage.prompt_tokens, usage.completion_tokens, usage.cached_tokens)
        self._tokens = [so_far + more for so_far, more in zip(self._tokens, found, strict=True)]
        self._cost_usd = None if self._cost_usd is None or cost_usd is None else self._cost_usd + cost_usd
        self._added = True

    @property
    def total(self) -> Spent | None:
        """None where nothing was added."""
        return Spent(Usage(*self._tokens), self._cost_usd) if self._added else None


@dataclass(frozen=True, slots=True)
class Rubric:
    """A prompt that asks a judge, with the name that it is shown by."""

    prompt: CompiledPrompt
    name: str


class Aids(Protocol):
    """What the assertions on one answer may ask of the world beyond it; the service implements it.

    An `alias` of None means the suite's judge, whose alias is `judge` where it has one. What cannot be had raises a
    ModelError, or AssertionErrored. `votes` is how often the suite has a judge asked.
    """

    @property
    def votes(self) -> int: ...

    @property
    def judge(self) -> str | None: ...

    @property
    def spent(self) -> Spent | None:
        """What was asked so far, None for nothing; answers that were kept from before count as if they had just come."""
        ...

    async def ask(
        self, alias: str | None, messages: Sequence[Message], parameters: Mapping[str, Any], vote: int = 0
    ) -> Completion:
        """One completion of a judge; `vote` tells equal questions apart, so that each is asked."""
        ...

    async def embed(self, alias: str | None, texts: Sequence[str]) -> list[list[float]]:
        """One vector a text; an `alias` of None means the suite's model of embeddings."""
        ...

    async def question(self, case_id: str) -> Sequence[Message]:
        """The messages that the model under test was asked for this case."""
        ...

    async def rubric(self, name: str) -> Rubric | None:
        """The registry's prompt of this name, which asks a judge; None where it has none."""
        ...

    async def ratings(self, metric: str | None) -> Sequence[float]:
        """What people said of this answer to this case, in whichever run they saw it: scores in [0, 1], one a person."""
        ...


@dataclass(frozen=True, slots=True)
class Scene:
    """One answer with what led to it; `aids` is None where nothing beyond it can be asked.

    `tools` are those of the prompt, `folders` those whose Python scripts may be run (None for none); `transformed` keeps
    what each transform made of this answer, so that it runs once.
    """

    output: Output
    variables: Mapping[str, Any] = field(default_factory=nothing)
    case_id: str = ""
    repeat: int = 0
    aids: Aids | None = field(default=None, compare=False)
    tools: Sequence[Mapping[str, Any]] = ()
    folders: ScriptFolders | None = None
    transformed: dict[str, Output] = field(default_factory=dict, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Assertion:
    """One type of assertion on the answer alone: how it judges, and how its spec is checked before any model is called.

    `evaluate` may raise `AssertionErrored` where it cannot say; `check` raises what `refuse` raises. `version` counts
    changes of what the same spec says of the same answer; `takes` names those of `OPTIONAL` that it has a use for.
    """

    evaluate: Callable[[Output, AssertionSpec], Outcome]
    check: Callable[[AssertionSpec], None]
    version: int = 1
    takes: frozenset[str] = frozenset({"transform"})
    can_be_negated: bool = True


@dataclass(frozen=True, slots=True)
class SceneAssertion:
    """One type of assertion that looks beyond the answer: at variables, at other models, at people, or runs a script."""

    evaluate: Callable[[Scene, AssertionSpec], Awaitable[Outcome]]
    check: Callable[[AssertionSpec], None]
    version: int = 1
    takes: frozenset[str] = frozenset({"transform"})
    can_be_negated: bool = True


Family = Mapping[str, Assertion | SceneAssertion]


class AssertionErrored(Exception):
    """The assertion could not be judged: the case counts as errored, not as failed."""


class AssertionWaits(Exception):
    """The assertion is judged by people, or by a comparison of answers, and has not been yet: the case is skipped until then."""


def outcome(passed: bool, expected: str, found: object) -> Outcome:
    """An outcome without degrees."""
    verb = "as expected" if passed else "expected"
    return Outcome(passed, float(passed), f"{verb}: {expected}; got {shorten(found)}")


def shorten(value: object, limit: int = 120) -> str:
    """`value` as Python writes it, cut to `limit` characters."""
    text = repr(value[: limit + 1] if isinstance(value, str) else value)
    return text if len(text) <= limit else text[: limit - 1] + "…"

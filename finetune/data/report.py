"""The report before every launch: what the examples are, what was left out, and whether to train on them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import pydantic

from finetune.data.balance import Balance
from finetune.data.malformed import Malformed
from finetune.data.personal import Flag
from prompts.messages import Message
from prompts.parameters import DEFAULT_ANSWER_TOKENS

LISTED = 100  # findings of one kind that a report shows

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Tokens:
    """How tokens are counted: of a prompt's messages up to where the answer begins, and of an answer with its end.

    Not `exact` where they are estimates. `context_tokens` is the most that both may have together, None where unknown.
    """

    of_messages: Callable[[Sequence[Message]], int]
    of_answer: Callable[[str], int]
    exact: bool
    context_tokens: int | None = None


class Listed(pydantic.BaseModel, Generic[T], frozen=True):
    """Findings of one kind: how many there are, and the first of them."""

    total: int
    shown: tuple[T, ...]


class Length(pydantic.BaseModel, frozen=True):
    """Tokens of an example, over the examples that are kept; percentiles by nearest rank."""

    min: int
    median: int
    p95: int
    max: int
    total: int


class TooLong(pydantic.BaseModel, frozen=True):
    """An example that has more tokens than the model takes."""

    index: int
    tokens: int


class Lengths(pydantic.BaseModel, frozen=True):
    """Tokens of messages and of answers with their end; `too_long` are the examples above `context_tokens`.

    `cut_answers` are those whose answer alone, without its end, has more than the `max_tokens` it is served with.
    """

    input: Length
    answer: Length
    exact: bool
    context_tokens: int | None
    too_long: Listed[TooLong]
    max_tokens: int = DEFAULT_ANSWER_TOKENS
    cut_answers: Listed[TooLong] = Listed(total=0, shown=())


class Repeat(pydantic.BaseModel, frozen=True):
    """An example left out.

    `repeats` says what it repeats: `example 4`, `the prompt's example 1`, or a held-out case by suite and id.
    """

    index: int
    reason: str
    repeats: str


class Contradiction(pydantic.BaseModel, frozen=True):
    """Examples of the same input, or of near duplicates, with different answers.

    The first twenty of both, each answer cut to 80 characters and without personal data; `total` examples in all.
    """

    total: int

    indexes: tuple[int, ...]
    outputs: tuple[str, ...]


class DataReport(pydantic.BaseModel, frozen=True):
    """Everything that is known of a dataset before a launch. All indexes count from 0 in the examples given.

    `digest` is that of the examples kept, `heldout` the number of held-out cases that they were compared with.
    `dropped` counts by reason; `contradicting` examples were left out because of their `conflicts`; with `kept` that is
    all that were `given`. `flagged` counts flags by group. A fine-tune must not start while there are `refusals`; each
    says what to do.
    """

    digest: str
    given: int
    kept: int
    heldout: int
    dropped: dict[str, int]
    contradicting: int
    lengths: Lengths | None
    answers: Balance
    duplicates: Listed[Repeat]
    overlaps: Listed[Repeat]
    conflicts: Listed[Contradiction]
    near_conflicts: Listed[Contradiction]
    malformed: Listed[Malformed]
    flags: Listed[Flag]
    flagged: dict[str, int]
    refusals: tuple[str, ...]
    warnings: tuple[str, ...]

"""What a generator is asked and what it answers. No torch here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from prompts.errors import BadInput, TurnoutError

GuideKind = Literal["choice", "json", "regex", "grammar"]


class QueueFull(TurnoutError):
    """More waits than the engine holds; ask again in `retry_after_s`."""

    def __init__(self, message: str, retry_after_s: int = 1) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class DeadlinePassed(TurnoutError):
    """The time of a request was over before its answer was whole."""


class OutOfMemory(TurnoutError):
    """A request that takes more memory than there is, though nothing else is computed."""

    retry_after_s = 5


class UnknownAdapter(TurnoutError):
    """An adapter that is not loaded."""


class ContextOverflow(BadInput):
    """Prompt and answer together would be longer than the model's context."""


@dataclass(frozen=True, slots=True)
class GuideSpec:
    """What an answer must be: one of `choices`, or of the language that `text` describes.

    `text` is a JSON Schema as JSON, a regular expression (of all of the answer), or a grammar in Lark's or GBNF's words.
    `param` is the field of the request that asked for it, which errors name.
    """

    kind: GuideKind
    text: str = ""
    choices: tuple[str, ...] = ()
    param: str | None = field(default=None, compare=False)  # who asks alike by another field gets the same guide


@dataclass(frozen=True, slots=True)
class Ask:
    """One request. `adapter` None is the base model; `max_tokens` None is as many as the context leaves, at most 512.

    `temperature` 0 is greedy: the likeliest token each time, the answer one that the prompt gives when asked alone.
    `top_logprobs` None asks for no log-probabilities, 0 for those of the answer's own tokens. Of lower `priority` is
    answered first; `flow` names what shares the engine fairly with others; after `timeout_s` nobody waits any more.
    """

    messages: tuple[Mapping[str, Any], ...]
    adapter: str | None = None
    max_tokens: int | None = None
    temperature: float = 1.0
    top_p: float = 1.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    n: int = 1
    top_logprobs: int | None = None
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: tuple[tuple[int, float], ...] = ()
    guide: GuideSpec | None = None
    priority: int = 0
    flow: str = ""
    timeout_s: float | None = None
    size_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Chance:
    """A token that could stand at a place of an answer, and the natural logarithm of its probability.

    Of the model's own distribution: before temperature, penalties and guides. `top` are the likeliest there.
    """

    text: bytes
    logprob: float
    top: tuple[tuple[bytes, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Piece:
    """The next part of choice `index`, which nothing can change any more; the last one tells why it ended."""

    index: int
    text: str
    chances: tuple[Chance, ...] = ()
    finish_reason: str | None = None


@dataclass(frozen=True, slots=True)
class Choice:
    """One of the answers to a request; `chances` are None where they were not asked for."""

    text: str
    finish_reason: str
    completion_tokens: int
    chances: tuple[Chance, ...] | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """`cached_tokens` are those of the prompt that were not computed for it; `asked_again` says that an answer comes
    from asking alone, because two tokens were too close to call in the batch."""

    choices: tuple[Choice, ...]
    prompt_tokens: int
    cached_tokens: int
    asked_again: bool

    @property
    def text(self) -> str:
        return self.choices[0].text

    @property
    def finish_reason(self) -> str:
        return self.choices[0].finish_reason

    @property
    def completion_tokens(self) -> int:
        return sum(choice.completion_tokens for choice in self.choices)


Listener = Callable[[Piece], None]
"""Told the pieces of an answer in their order, in the model's thread: it must not block."""

"""What a generator is asked and what it answers. No torch here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from prompts.errors import BadInput, TurnoutError


class QueueFull(TurnoutError):
    """More requests wait than the engine holds; ask again in `retry_after_s`."""

    retry_after_s = 1


class UnknownAdapter(TurnoutError):
    """An adapter that is not loaded."""


class ContextOverflow(BadInput):
    """Prompt and answer together would be longer than the model's context."""


@dataclass(frozen=True, slots=True)
class Ask:
    """One request. `adapter` None is the base model; `max_tokens` None is as many as the context leaves, at most 512.

    `temperature` 0 is greedy: the likeliest token each time, the answer one that the prompt gives when asked alone.
    """

    messages: tuple[Mapping[str, Any], ...]
    adapter: str | None = None
    max_tokens: int | None = None
    temperature: float = 1.0
    top_p: float = 1.0
    seed: int | None = None
    stop: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Answer:
    """`cached_tokens` are those of the prompt that were not computed for it; `asked_again` says that the answer comes
    from asking alone, because two tokens were too close to call in the batch."""

    text: str
    finish_reason: str
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
    asked_again: bool

"""Answers that came whole, given as the chunks of a stream: for models that cannot stream."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any

from prompts.messages import Completion, Usage

_MOST_TOKENS = 1 << 40  # of one answer: beyond is no count, and nothing that adds them up could bear it


class WholeChunks:
    """The chunks of a completion; see `prompts.messages.Chunks`."""

    def __init__(self, completion: Completion, model: str) -> None:
        self._chunks = chunks_of(completion, model)
        self.attempts = completion.attempts

    async def __aiter__(self) -> AsyncIterator[Mapping[str, Any]]:
        for chunk in self._chunks:
            yield chunk

    async def aclose(self) -> None:
        """Nothing to hang up on: the answer is complete."""


def chunks_of(completion: Completion, model: str) -> Iterator[Mapping[str, Any]]:
    """For each choice its whole message, then how it finished; then, without choices, what it all took."""
    head = {"id": "", "object": "chat.completion.chunk", "created": int(time.time()), "model": model}
    choices = completion.choices or (only_choice(completion),)
    for index, choice in enumerate(choices):
        whole = {"index": index, "delta": delta_of(choice.get("message") or {}), "logprobs": choice.get("logprobs")}
        yield {**head, "choices": [{**whole, "finish_reason": None}]}
    for index, choice in enumerate(choices):
        reason = choice.get("finish_reason") or "stop"
        yield {**head, "choices": [{"index": index, "delta": {}, "logprobs": None, "finish_reason": reason}]}
    yield {**head, "choices": [], "usage": usage_as_dict(completion.usage)}


def only_choice(completion: Completion) -> dict[str, Any]:
    """The one choice of an engine that gives no more than a text or a message."""
    message = completion.message or {"role": "assistant", "content": completion.text}
    return {"index": 0, "message": message, "logprobs": None, "finish_reason": completion.finish_reason}


def delta_of(message: Mapping[str, Any]) -> dict[str, Any]:
    """A whole message as one delta: its tool calls carry the index that clients put the parts together by."""
    delta = {"role": "assistant", "content": "", **message}
    calls = message.get("tool_calls")
    if isinstance(calls, list):
        delta["tool_calls"] = [{"index": index, **call} for index, call in enumerate(calls)]
    return delta


def usage_as_dict(usage: Usage) -> dict[str, Any]:
    """A usage as OpenAI writes it."""
    shown: dict[str, Any] = {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.total_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
    }
    if usage.reasoning_tokens:
        shown["completion_tokens_details"] = {"reasoning_tokens": usage.reasoning_tokens}
    return shown


def usage_of(given: Any) -> Usage:
    """OpenAI's usage; what it does not tell, or tells as what is no count of tokens, is 0."""
    if not isinstance(given, Mapping):
        return Usage()
    return Usage(
        _count(given, "prompt_tokens"),
        _count(given, "completion_tokens"),
        _count(given.get("prompt_tokens_details"), "cached_tokens"),
        _count(given.get("completion_tokens_details"), "reasoning_tokens"),
    )


def _count(given: Any, name: str) -> int:
    value = given.get(name) if isinstance(given, Mapping) else None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if type(value) is int and 0 <= value <= _MOST_TOKENS else 0

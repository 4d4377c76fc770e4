"""Answers as OpenAI's chat completions and their chunks, and errors. No torch here."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator, Sequence
from typing import Any

from service.engine.asks import Answer, Chance, Choice, Piece


def make_reply(answer: Answer, model: str) -> dict[str, Any]:
    """An `Answer` as a `chat.completion`."""
    return {
        **_head("chat.completion", model),
        "choices": [_choice(index, choice) for index, choice in enumerate(answer.choices)],
        "usage": _usage(answer),
        "turnout": {"asked_again": answer.asked_again},
    }


def _head(kind: str, model: str) -> dict[str, Any]:
    return {"id": f"chatcmpl-{secrets.token_hex(12)}", "object": kind, "created": int(time.time()), "model": model}


def _choice(index: int, choice: Choice) -> dict[str, Any]:
    return {
        "index": index,
        "message": {"role": "assistant", "content": choice.text},
        "finish_reason": choice.finish_reason,
        "logprobs": None if choice.chances is None else _logprobs(choice.chances),
    }


def _logprobs(chances: Sequence[Chance]) -> dict[str, Any]:
    def token(text: bytes, logprob: float) -> dict[str, Any]:
        return {"token": text.decode("utf-8", "replace"), "logprob": logprob, "bytes": list(text)}

    found = [
        {**token(chance.text, chance.logprob), "top_logprobs": [token(text, value) for text, value in chance.top]}
        for chance in chances
    ]
    return {"content": found, "refusal": None}


def _usage(answer: Answer) -> dict[str, Any]:
    return {
        "prompt_tokens": answer.prompt_tokens,
        "completion_tokens": answer.completion_tokens,
        "total_tokens": answer.prompt_tokens + answer.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": answer.cached_tokens},
    }


class ChunkMaker:
    """The chunks of one streamed answer, as OpenAI has them."""

    def __init__(self, model: str, *, with_usage: bool) -> None:
        self._head = _head("chat.completion.chunk", model)
        self._with_usage = with_usage
        self._begun: set[int] = set()

    def of(self, piece: Piece) -> Iterator[dict[str, Any]]:
        """A piece as chunks: the role before the first, the reason why it ended in one of its own."""
        if piece.index not in self._begun:
            self._begun.add(piece.index)
            yield self._chunk(piece.index, {"role": "assistant", "content": ""})
        if piece.text or piece.chances:
            yield self._chunk(piece.index, {"content": piece.text}, piece.chances)
        if piece.finish_reason is not None:
            yield self._chunk(piece.index, {}, reason=piece.finish_reason)

    def last(self, answer: Answer) -> Iterator[dict[str, Any]]:
        """What it took, where that was asked for."""
        if self._with_usage:
            told = {"turnout": {"asked_again": answer.asked_again}}
            yield {**self._head, "choices": [], "usage": _usage(answer), **told}

    def _chunk(
        self, index: int, delta: dict[str, Any], chances: Sequence[Chance] = (), reason: str | None = None
    ) -> dict[str, Any]:
        logprobs = _logprobs(chances) if chances else None
        choice = {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": reason}
        usage = {"usage": None} if self._with_usage else {}
        return {**self._head, "choices": [choice], **usage}


def make_error(message: str, *, kind: str, code: str | None, param: str | None = None) -> dict[str, Any]:
    """An error as OpenAI has it."""
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}

"""An answer as it comes: the upstream's chunks, watched for what is recorded of them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

from prompts.messages import Chunks, Usage
from prompts.output import OutputCheck
from service.computing import compute
from service.pending import Pending
from service.served import Served
from service.upstream.whole import usage_of

_QUICK_CHARACTERS = 16_000  # a longer answer is held against its schema in a thread
Finish = Callable[[Pending, BaseException | None, str], Awaitable[None] | None]


class AnswerStream:
    """Gives OpenAI's chunks as the upstream sent them, once; its end, however it comes, is told to `finish`.

    `is_valid` is known when the chunk with the first `finish_reason` is given: whether the answer fits the prompt's output schema.
    """

    def __init__(
        self,
        pending: Pending,
        chunks: Chunks,
        output: OutputCheck | None,
        finish: Finish | None,
        *,
        keeps_text: bool = False,
        is_valid: bool | None = None,
    ) -> None:
        self.id = pending.id
        self.created_s = int(time.time())
        self.is_valid = is_valid
        self._pending = pending
        self._chunks = chunks
        self._output = output
        self._finish = finish
        self._keeps_text = keeps_text
        self._texts: dict[int, list[str]] = {}
        self._usage: Usage | None = None  # the newest that was told: some servers count in every chunk
        self._has_calls = False

    @property
    def served(self) -> Served:
        return self._pending.served

    @property
    def usage(self) -> Usage:
        """What the answer took, known at its end."""
        return self._pending.usage

    @property
    def is_cached(self) -> bool:
        """Whether it was answered before, and is given again."""
        return self._pending.is_cached

    @property
    def repairs(self) -> int:
        return self._pending.repairs

    async def __aiter__(self) -> AsyncIterator[Mapping[str, Any]]:
        try:
            async for chunk in self._chunks:
                if self._look_at(chunk):
                    self.is_valid = self._pending.is_valid = await self._judged()
                yield chunk
        except BaseException as error:  # whatever it was, that is what is recorded
            await self.aclose(error)
            raise
        stored = self._end(None)
        if stored is not None:
            await stored

    async def aclose(self, error: BaseException | None = None) -> None:
        """Hang up on the upstream, where the answer is not complete. Safe to call twice."""
        self._end(error or asyncio.CancelledError())
        await self._chunks.aclose()

    def _end(self, error: BaseException | None) -> Awaitable[None] | None:
        finish, self._finish = self._finish, None
        if finish is None:
            return None
        self._pending.upstream_s = time.perf_counter() - self._pending.asked
        self._pending.is_valid = self.is_valid
        if self._usage is not None:
            self._pending.count_usage(self._usage)
        return finish(self._pending, error, "".join(self._texts.get(0, ())))

    def _look_at(self, chunk: Mapping[str, Any]) -> bool:
        """Keep of a chunk what the record and the schema need; whether the answer is now to be held against the schema."""
        usage, is_last = chunk.get("usage"), False
        if usage:
            self._usage = usage_of(usage)
        for choice in chunk.get("choices") or ():
            delta = choice.get("delta") or {}
            if self._pending.first_token_s is None and _says_something(delta):
                self._pending.first_token_s = time.perf_counter() - self._pending.started
            if self._keeps_text:
                self._keep(choice.get("index") or 0, delta)
                is_last = is_last or bool(choice.get("finish_reason"))
        return is_last and self._output is not None

    def _keep(self, index: int, delta: Mapping[str, Any]) -> None:
        text = delta.get("content")
        if isinstance(text, str):
            self._texts.setdefault(index, []).append(text)
        self._has_calls = self._has_calls or bool(delta.get("tool_calls") or delta.get("refusal"))

    async def _judged(self) -> bool | None:
        """Whether all that was said fits; an answer that only calls tools, or refuses, is not judged."""
        texts = ["".join(pieces) for pieces in self._texts.values()] or [""]
        if self._output is None or (not any(texts) and self._has_calls):
            return None
        return not [text for text in texts if await fault_of(text, self._output) is not None]


async def fault_of(text: str, output: OutputCheck) -> str | None:
    """`OutputCheck.fault`, in a thread where that takes long."""
    return output.fault(text) if len(text) < _QUICK_CHARACTERS else await compute(output.fault, text)


def _says_something(delta: Mapping[str, Any]) -> bool:
    return bool(
        delta.get("content") or delta.get("tool_calls") or delta.get("reasoning_content") or delta.get("refusal")
    )

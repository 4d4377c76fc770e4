"""Answers of prompts that allow it (`cacheSeconds`), kept by all that they depend on: variant, messages and parameters."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Mapping
from hashlib import blake2b
from typing import Any

import msgspec

from prompts.messages import Chunks, Completion, CompletionRequest, Usage
from service.replays import CACHE_BYTES, Kept
from service.served import Served
from service.upstream.whole import usage_of

_encode = msgspec.json.Encoder(
    order="deterministic", enc_hook=dict
).encode  # what msgspec does not know is a read-only mapping


class ResponseCache:
    """Completions by a digest of what was asked; nothing of prompts that do not say for how long."""

    def __init__(self, max_bytes: int = CACHE_BYTES, clock: Callable[[], float] = time.monotonic) -> None:
        self._kept: Kept[Completion] = Kept(max_bytes, clock)

    def find(self, served: Served, request: CompletionRequest) -> Completion | None:
        """What the variant answered to this very request, or None."""
        return self._kept.get(_key(served, request)) if served.cache_s else None

    def keep(self, served: Served, request: CompletionRequest, completion: Completion) -> None:
        if served.cache_s:
            size_bytes = len(_encode((completion.text, completion.message, completion.choices, completion.details)))
            self._kept.put(_key(served, request), completion, size_bytes, served.cache_s)

    def keeping(
        self, served: Served, request: CompletionRequest, chunks: Chunks, may_keep: Callable[[], bool]
    ) -> Chunks:
        """The same chunks; once they have all come, the answer that they make is kept if it may be."""

        def keep(made: Completion) -> None:
            if may_keep():
                self.keep(served, request, made)

        return _Keeping(chunks, keep) if served.cache_s else chunks


def _key(served: Served, request: CompletionRequest) -> bytes:
    asked = [message.as_dict() for message in request.messages]
    return blake2b(_encode((served.name, served.turnout["digest"], asked, request.parameters)), digest_size=16).digest()


class _Keeping:
    """Chunks on their way. An answer of several choices, or of more than text, is not put together and not kept."""

    def __init__(self, chunks: Chunks, keep: Callable[[Completion], None]) -> None:
        self.attempts = chunks.attempts
        self._chunks = chunks
        self._keep = keep
        self._pieces: list[str] = []
        self._finish_reason = ""
        self._usage = Usage()
        self._is_text = True

    async def __aiter__(self) -> AsyncIterator[Mapping[str, Any]]:
        async for chunk in self._chunks:
            self._look_at(chunk)
            yield chunk
        if self._is_text and self._finish_reason:
            text = "".join(self._pieces)
            message = {"role": "assistant", "content": text}
            self._keep(Completion(text, self._finish_reason, self._usage, message=message))

    async def aclose(self) -> None:
        await self._chunks.aclose()

    def _look_at(self, chunk: Mapping[str, Any]) -> None:
        if chunk.get("usage"):
            self._usage = usage_of(chunk["usage"])
        for choice in chunk.get("choices") or ():
            delta = choice.get("delta") or {}
            content, more = delta.get("content"), delta.keys() - {"role", "content"}
            if choice.get("index") or choice.get("logprobs") or any(delta[name] for name in more):
                self._is_text = False
            if isinstance(content, str):
                self._pieces.append(content)
            self._finish_reason = choice.get("finish_reason") or self._finish_reason

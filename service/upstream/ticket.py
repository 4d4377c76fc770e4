"""One question under way: the slot it holds, what its end tells the breaker, and the chunks that it may end with."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any

from prompts.errors import NO_COMPLETION, ModelError, ModelOverloaded, ModelRefused, ModelTimeout, ModelUnavailable
from prompts.messages import Chunks
from service.errors import EngineFailed
from service.upstream.breaker import Breaker
from service.upstream.limiter import Beside, Limiter
from service.upstream.standing import Counts


class Ticket:
    """One question under way: a slot, and maybe the breaker's probe. To be ended once."""

    __slots__ = ("_breaker", "_counts", "_is_over", "_limiter", "_was_probe")

    def __init__(self, breaker: Breaker, limiter: Limiter | Beside, counts: Counts) -> None:
        self._breaker = breaker
        self._limiter = limiter
        self._counts = counts
        self._was_probe = breaker.enter()
        self._is_over = False

    def begun(self) -> None:
        """The first chunk is there: that is a good answer to a probe, which does not wait for the last."""
        if self._was_probe:
            self._breaker.leave(time.monotonic(), None, was_probe=True)
            self._was_probe = False

    def end(self, error: BaseException | None) -> None:
        """Give the slot back, and tell the breaker. Safe to call twice: the first counts."""
        if self._is_over:
            return
        self._is_over = True
        self._limiter.leave()
        failure = failure_of(error)
        self._counts.failed += isinstance(error, ModelError)
        self._counts.hung_up += error is not None and not isinstance(error, ModelError)
        self._breaker.leave(time.monotonic(), failure, was_probe=self._was_probe, tells=_tells(error, failure))


def failure_of(error: BaseException | None) -> str | None:
    """What the breaker holds against an upstream: that it is away, silent, or answers what is no answer.

    Refusals for one question, and "too many requests", say that it is there.
    """
    is_failure = (
        isinstance(error, ModelUnavailable | ModelTimeout | EngineFailed)
        or (isinstance(error, ModelOverloaded) and error.status == 503)
        or (isinstance(error, ModelRefused) and error.code == NO_COMPLETION)
    )
    return f"{type(error).__name__}: {str(error)[:200]}" if is_failure else None


def _tells(error: BaseException | None, failure: str | None) -> bool:
    """Whether the end of a question says anything of the upstream: one that was cancelled, or put off, does not."""
    return error is None or failure is not None or isinstance(error, ModelRefused)


class GuardedChunks:
    """Chunks whose slot is held until they end; see `prompts.messages.Chunks`."""

    def __init__(self, chunks: Chunks, ticket: Ticket, silence_s: float | None) -> None:
        self.attempts = 1
        self._chunks = chunks
        self._next = aiter(chunks).__anext__
        self._ticket = ticket
        self._silence_s = silence_s

    def __aiter__(self) -> AsyncIterator[Mapping[str, Any]]:
        return self

    async def __anext__(self) -> Mapping[str, Any]:
        try:
            return await (self._next() if self._silence_s is None else self._soon(self._silence_s))
        except StopAsyncIteration:
            self._ticket.end(None)
            raise
        except BaseException as error:
            self._ticket.end(error)
            if isinstance(error, ModelError):
                error.attempts = self.attempts
            raise

    async def _soon(self, silence_s: float) -> Mapping[str, Any]:
        try:
            async with asyncio.timeout(silence_s):
                return await self._next()
        except TimeoutError as error:
            await self._chunks.aclose()
            raise ModelTimeout(f"the stream fell silent for {silence_s:g} s") from error

    async def aclose(self) -> None:
        """Hang up, unless all was read. Safe to call twice."""
        try:
            await self._chunks.aclose()
        finally:
            self._ticket.end(asyncio.CancelledError())

"""One alias as applications are served from it: its model, and what stands between the two.

A question goes: breaker → slot → model, where it is slow a second one beside it (a hedge), and again where it failed in a
way that may pass. Retries end with the first chunk of a stream, with the request's time, and with `retries.times`. All
waits are bounded by the one deadline of the request, of which every try gets what is left.

Questions that nobody waits for (`is_urgent` False: shadows) have a breaker and a part of the slots of their own, so that
neither their failures nor their slowness is seen by who is served.
"""

from __future__ import annotations

import asyncio
import functools
import random
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, TypeVar

from prompts.errors import (
    BadInput,
    ModelError,
    ModelOverloaded,
    ModelTimeout,
    ModelUnavailable,
)
from prompts.messages import Chunks, Completion, CompletionRequest, Model
from service.models.embedding import Embeddings
from service.upstream.breaker import Breaker
from service.upstream.hedging import hedged
from service.upstream.limiter import Beside, Limiter, QueueRefused
from service.upstream.policy import Policy
from service.upstream.standing import Counts, Standing
from service.upstream.ticket import GuardedChunks, Ticket
from service.upstream.whole import WholeChunks

Answer = TypeVar("Answer")
Ask = Callable[[float], Coroutine[Any, Any, Answer]]  # with the seconds that it may take


class Guarded:
    """See `service.upstream.serving.Serving`. Used on one event loop.

    One that takes the place of `before`, under the same policy, shares its breaker, slots and counters.
    """

    def __init__(self, alias: str, model: Model, policy: Policy | None = None, before: Guarded | None = None) -> None:
        self._alias = alias
        self._model = model
        self._policy = policy or Policy()
        self._breaker: Breaker = before._breaker if before else Breaker(self._policy.breaker, self._log)
        self._limiter: Limiter = before._limiter if before else Limiter(self._policy.limits)
        self._served = _Gate(self._breaker, self._limiter)
        self._aside: _Gate = before._aside if before else self._beside()
        self._counts: Counts = before._counts if before else Counts()

    async def complete(self, request: CompletionRequest) -> Completion:
        call = self._call(request)

        async def ask(left_s: float) -> Completion:
            return await self._model.complete(_within(request, left_s))

        completion = await self._answered(call, lambda: self._held(call, ask), _forget)
        return completion if call.asked == 1 else replace(completion, attempts=call.asked)

    async def stream(self, request: CompletionRequest) -> Chunks:
        if not hasattr(self._model, "stream"):
            return WholeChunks(await self.complete(request), self._alias)
        call = self._call(request)
        chunks = await self._answered(call, lambda: self._opened(call, request), _close)
        chunks.attempts = call.asked
        return chunks

    async def embed(self, texts: Sequence[str], timeout_s: float) -> Embeddings:
        embed = getattr(self._model, "embed", None)
        if embed is None:
            raise BadInput(f"model {self._alias!r} gives no embeddings", param="model")
        call = _Call(timeout_s, self._served)

        async def ask(left_s: float) -> Embeddings:
            found: Embeddings = await embed(texts, left_s)
            return found

        return await self._answered(call, lambda: self._held(call, ask), _forget)

    async def embeddings(self, body: Mapping[str, Any], timeout_s: float) -> Mapping[str, Any]:
        passed = getattr(self._model, "embeddings", None)
        if passed is None:
            return _as_openai(await self.embed(_texts(body.get("input")), timeout_s), self._alias)
        call = _Call(timeout_s, self._served)

        async def ask(left_s: float) -> Mapping[str, Any]:
            found: Mapping[str, Any] = await passed(body, left_s)
            return found

        return await self._answered(call, lambda: self._held(call, ask), _forget)

    def standing(self) -> Standing:
        """How the alias stands now."""
        breaker, now = self._breaker, time.monotonic()
        return Standing(
            alias=self._alias,
            counts=replace(self._counts),
            in_flight=self._limiter.in_flight,
            queued=self._limiter.queued + self._aside.limiter.queued,
            state=breaker.state,
            next_try_s=round(breaker.next_try_s(now), 3),
            opened=breaker.opened,
            last_failure=breaker.last_failure or None,
        )

    def _call(self, request: CompletionRequest) -> _Call:
        return _Call(request.timeout_s, self._served if request.is_urgent else self._aside)

    def _beside(self) -> _Gate:
        breaker = Breaker(self._policy.breaker, functools.partial(self._log, by=" by shadows"))
        return _Gate(breaker, Beside(self._policy.limits, self._limiter))

    def _log(self, state: str, why: str, by: str = "") -> None:
        import structlog  # a local run, which is not guarded, loads none

        tell = structlog.get_logger()
        if state == "open":
            tell.warning(f"a model is not asked{by} for a while", model=self._alias, why=why)
        else:
            tell.info(f"a model is asked again{by}", model=self._alias, why=why)

    # ---------------------------------------------------------------------------- again

    async def _answered(
        self,
        call: _Call,
        once: Callable[[], Coroutine[Any, Any, Answer]],
        drop: Callable[[Answer], Coroutine[Any, Any, None]],
    ) -> Answer:
        """`once`, with its hedge, until it answers or may not be tried again; errors tell their attempts."""
        tries = 0
        while True:
            asked = call.asked
            try:
                return await self._hedged(call, once, drop)
            except ModelError as error:
                error.attempts = call.asked
                tries += 1
                wait_s = self._wait_s(error, tries) if call.asked > asked else None
                if wait_s is None or wait_s >= call.left_s():
                    raise
            self._counts.retried += 1
            await asyncio.sleep(wait_s)

    def _wait_s(self, error: ModelError, tries: int) -> float | None:
        """Seconds before the next try, with full jitter; None where there is to be none."""
        rules = self._policy.retries
        if tries > rules.times or not error.retryable:
            return None
        backoff_s = random.uniform(0, min(rules.max_wait_s, rules.first_wait_s * 2 ** (tries - 1)))  # noqa: S311 - spreads load
        told_s = error.retry_after_s if isinstance(error, ModelOverloaded) else None
        if told_s is None:
            return backoff_s
        return told_s + backoff_s if told_s <= rules.max_wait_s else None

    async def _hedged(
        self,
        call: _Call,
        once: Callable[[], Coroutine[Any, Any, Answer]],
        drop: Callable[[Answer], Coroutine[Any, Any, None]],
    ) -> Answer:
        after_ms = self._policy.hedge_after_ms
        if after_ms is None:
            return await once()
        return await hedged(once, after_ms / 1000, lambda: self._may_hedge(call), drop)

    def _may_hedge(self, call: _Call) -> bool:
        """Only where all is well: a second question is no cure for an upstream in trouble, or one that is full."""
        if call.gate.breaker.state != "closed" or self._limiter.in_flight >= self._policy.limits.max_in_flight:
            return False
        self._counts.hedged += 1
        return True

    # ---------------------------------------------------------------------------- one question

    async def _held(self, call: _Call, ask: Ask[Answer]) -> Answer:
        """One question that is over with its answer."""
        ticket = await self._enter(call)
        try:
            answer = await ask(call.left_s())
        except BaseException as error:
            ticket.end(error)
            raise
        ticket.end(None)
        return answer

    async def _opened(self, call: _Call, request: CompletionRequest) -> GuardedChunks:
        """One question whose answer has begun; its slot is held until the answer ends."""
        ticket = await self._enter(call)
        try:
            chunks = await self._first_chunk(_within(request, call.left_s()))
        except BaseException as error:
            ticket.end(error)
            raise
        ticket.begun()
        return GuardedChunks(chunks, ticket, self._policy.timeouts.silence_s)

    async def _first_chunk(self, request: CompletionRequest) -> Chunks:
        limit_s = self._policy.timeouts.first_token_s
        ask = self._model.stream  # type: ignore[attr-defined]
        if limit_s is None or limit_s >= request.timeout_s:
            chunks: Chunks = await ask(request)
            return chunks
        try:
            async with asyncio.timeout(limit_s) as limit:
                chunks = await ask(request)
        except TimeoutError as error:
            if not limit.expired():
                raise
            raise ModelTimeout(f"model {self._alias!r}: no first token within {limit_s:g} s") from error
        return chunks

    async def _enter(self, call: _Call) -> Ticket:
        """Past the breaker and into a slot. Raises ModelUnavailable or ModelOverloaded."""
        breaker, limiter = call.gate
        self._refuse_if_open(breaker)
        try:
            await limiter.enter(call.left_s())
        except QueueRefused as error:
            self._counts.refused_by_limit += 1
            wait_s = self._policy.limits.queue_s
            raise ModelOverloaded(f"model {self._alias!r} is full: {error}", retry_after_s=wait_s) from error
        try:
            self._refuse_if_open(breaker)
        except ModelUnavailable:
            limiter.leave()
            raise
        call.asked += 1
        self._counts.asked += 1
        return Ticket(breaker, limiter, self._counts)

    def _refuse_if_open(self, breaker: Breaker) -> None:
        if breaker.state == "closed":
            return
        why = breaker.refusal(time.monotonic())
        if why is not None:
            self._counts.refused_by_breaker += 1
            raise ModelUnavailable(f"model {self._alias!r} is not asked: {why}")


class _Gate(NamedTuple):
    """What a question has to pass."""

    breaker: Breaker
    limiter: Limiter | Beside


class _Call:
    """One request of an application: its deadline, what its questions pass, and how many it took so far."""

    __slots__ = ("_deadline", "asked", "gate")

    def __init__(self, timeout_s: float, gate: _Gate) -> None:
        self._deadline = time.monotonic() + timeout_s
        self.gate = gate
        self.asked = 0

    def left_s(self) -> float:
        return self._deadline - time.monotonic()


def _within(request: CompletionRequest, left_s: float) -> CompletionRequest:
    """`request` with the time that is left: a millisecond less is not worth a copy."""
    return request if request.timeout_s - left_s < 0.001 else replace(request, timeout_s=max(left_s, 0.001))


async def _forget(_: object) -> None:
    """An answer that came too late needs no ending."""


async def _close(chunks: GuardedChunks) -> None:
    await chunks.aclose()


def _texts(given: Any) -> list[str]:
    texts = [given] if isinstance(given, str) else given
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts):
        raise BadInput("input: expected a text or a list of texts", param="input")
    return texts


def _as_openai(found: Embeddings, model: str) -> dict[str, Any]:
    data = [{"object": "embedding", "index": i, "embedding": list(vector)} for i, vector in enumerate(found.vectors)]
    tokens = found.usage.prompt_tokens
    return {"object": "list", "model": model, "data": data, "usage": {"prompt_tokens": tokens, "total_tokens": tokens}}

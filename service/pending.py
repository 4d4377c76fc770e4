"""One request on its way: who asked, who answers, and what it has taken so far."""

from __future__ import annotations

import asyncio
import os
import random
import re
import time
from dataclasses import dataclass, replace

from prompts.messages import Completion, Usage
from service.choosing import Ask, Plan
from service.identity import Principal
from service.ids import now
from service.outcome import Outcome
from service.served import Served
from service.traces import TRACEPARENT, Trace, span_id_of

_LONGEST_ERROR = 500
_ID = re.compile(r"[a-z]+[-_]([0-9a-f]{12})[0-9a-f]{12}")  # see Caller.new_id
_NONE = Usage()
_ids = random.Random(os.urandom(32))  # noqa: S311 - ids are no secrets: a key rates only what it asked for


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks, from when on (a reading of `time.perf_counter`), in what trace; `prefix` begins the ids of what is answered."""

    principal: Principal
    started: float
    prefix: str = "chatcmpl-"
    trace: Trace | None = None

    def new_id(self) -> str:
        """Twelve hex digits of the time in milliseconds, twelve of chance: ids that grow halve what their index costs the log."""
        return f"{self.prefix}{time.time_ns() // 1_000_000:012x}{_ids.getrandbits(48):012x}"


def asked_at_s(completion_id: str) -> float | None:
    """When the completion of this id was asked for, in seconds since 1970; None for what is none of our ids."""
    found = _ID.fullmatch(completion_id)
    return int(found[1], 16) / 1000 if found else None


@dataclass(slots=True)
class Pending:
    """`started` and `asked` are readings of `time.perf_counter`: when the request came, and when a stream was asked for.

    `served` is who was asked last, `chosen` the name of the plan's first where that is a fallback. `usage` and `cost_usd`
    add up over all answers, `is_valid` tells whether the last one fits the output schema (None without one);
    `first_token_s` counts from `started`, None before there is one.
    """

    id: str
    started: float
    ask: Ask
    caller: Caller
    plan: Plan
    served: Served
    shadow_of: str | None = None
    is_stream: bool = False
    is_valid: bool | None = None
    repairs: int = 0
    is_cached: bool = False
    attempts: int = 0
    usage: Usage = _NONE
    cost_usd: float | None = None
    asked: float = 0.0
    upstream_s: float | None = None
    first_token_s: float | None = None
    chosen: str | None = None

    def enter_trace(self) -> None:
        """Upstreams that are asked in this task from here on are told of the span of this request."""
        trace = self.caller.trace
        TRACEPARENT.set(trace.traceparent(span_id_of(self.id)) if trace else "")

    def count(self, completion: Completion) -> None:
        """Add what a whole answer took."""
        self.attempts += completion.attempts
        self.upstream_s = (self.upstream_s or 0.0) + completion.latency_s
        self.count_usage(completion.usage)

    def count_usage(self, usage: Usage) -> None:
        """Add the tokens of an answer, and what they cost where that is known; one that was kept takes none."""
        if self.is_cached:
            return
        self.usage = usage if self.usage is _NONE else _sum(self.usage, usage)
        price = self.served.price
        if price is not None:
            self.cost_usd = (self.cost_usd or 0.0) + price.cost_usd(usage)

    def turn_to(self, served: Served) -> None:
        """From here on `served` is asked, a fallback."""
        self.chosen = self.plan.first.name
        self.served, self.is_valid, self.repairs = served, None, 0

    def shadow(self, served: Served) -> Pending:
        """The same request as `served` is asked it, beside the answer."""
        plan = replace(self.plan, first=served.choice, fallbacks=(), shadows=())
        started = time.perf_counter()
        return Pending(self.caller.new_id(), started, self.ask, self.caller, plan, served, shadow_of=self.id)

    def outcome(self, error: BaseException | None) -> Outcome:
        """What the request came to, `error` None where it was answered."""
        served, usage = self.served, self.usage
        choice, trace = served.choice, self.caller.trace
        return Outcome(
            id=self.id,
            at=now(),
            key_id=self.caller.principal.id,
            variant=served.name,
            status="ok" if error is None else status_of(error),
            latency_ms=(time.perf_counter() - self.started) * 1000,
            prompt=served.prompt,
            route_revision=choice.route_revision,
            upstream_ms=None if self.upstream_s is None else self.upstream_s * 1000,
            first_token_ms=None if self.first_token_s is None else self.first_token_s * 1000,
            prompt_tokens=usage.prompt_tokens,
            cached_tokens=usage.cached_tokens,
            completion_tokens=usage.completion_tokens,
            cost_usd=self.cost_usd,
            error=_told(error),
            unit=self.plan.unit or None,
            is_valid=self.is_valid,
            is_stream=self.is_stream,
            is_cached=self.is_cached,
            attempts=self.attempts,
            shadow_of=self.shadow_of,
            trace_id=trace.id if trace else None,
            parent_span_id=(trace.parent_span_id or None) if trace else None,
            is_sampled=trace.is_sampled if trace else False,
            chosen=self.chosen,
        )


def status_of(error: BaseException) -> str:
    """`cancelled` where the client left, else the name of the error's class."""
    is_left = isinstance(error, asyncio.CancelledError | GeneratorExit)
    return "cancelled" if is_left else type(error).__name__


def _told(error: BaseException | None) -> str | None:
    if error is None or status_of(error) == "cancelled":
        return None
    return str(error)[:_LONGEST_ERROR].replace("\0", "\\0")  # databases keep no NUL


def _sum(one: Usage, other: Usage) -> Usage:
    return Usage(
        one.prompt_tokens + other.prompt_tokens,
        one.completion_tokens + other.completion_tokens,
        one.cached_tokens + other.cached_tokens,
        one.reasoning_tokens + other.reasoning_tokens,
    )

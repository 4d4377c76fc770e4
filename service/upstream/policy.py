"""How an alias is guarded: sections of its entry in `turnout.yaml`. All times in seconds unless named otherwise."""

from __future__ import annotations

import pydantic


class _Part(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)


class Timeouts(_Part):
    """`timeouts`. What is not given is bounded by the total alone; `total_s` is another word for `timeout_s`."""

    connect_s: float = pydantic.Field(10.0, gt=0, description="for name, connection and TLS together")
    first_token_s: float | None = pydantic.Field(None, gt=0, description="until the first chunk of a stream")
    silence_s: float | None = pydantic.Field(None, gt=0, description="between two chunks of a stream")
    total_s: float | None = pydantic.Field(None, gt=0, description="for a request, with its retries, to its last byte")


class Retries(_Part):
    """`retries`: after what may pass, with full jitter (a wait between 0 and twice the one before)."""

    times: int = pydantic.Field(2, ge=0, le=10, description="further questions at most")
    first_wait_s: float = pydantic.Field(0.25, gt=0, description="the most that is waited before the first of them")
    max_wait_s: float = pydantic.Field(8.0, gt=0, description="the most that is waited, for a Retry-After too")


class BreakerRules(_Part):
    """`breaker`: an upstream that fails is left alone for a while."""

    share: float = pydantic.Field(0.5, gt=0, le=1, description="of failures at which it opens")
    least: int = pydantic.Field(20, ge=1, description="answers within the window before it may open")
    window_s: float = pydantic.Field(30.0, gt=0, description="how far back answers are counted")
    open_s: float = pydantic.Field(5.0, gt=0, description="until the first probe; doubles with each that fails")
    max_open_s: float = pydantic.Field(60.0, gt=0, description="the most between two probes")
    probes: int = pydantic.Field(2, ge=1, description="good answers in a row that close it again")


class Limits(_Part):
    """`limits`: how much of an upstream is asked at once, and who waits."""

    max_in_flight: int = pydantic.Field(512, ge=1, description="questions under way, streams until their end")
    max_queued: int = pydantic.Field(1024, ge=0, description="who waits for one of them to end; the rest is refused")
    queue_s: float = pydantic.Field(10.0, gt=0, description="how long one waits before it is refused")


class Policy(_Part):
    """All of it, as every entry of `models` may have it."""

    timeouts: Timeouts = Timeouts()
    retries: Retries = Retries()
    breaker: BreakerRules = BreakerRules()
    limits: Limits = Limits()
    hedge_after_ms: int | None = pydantic.Field(
        None, ge=1, description="ask a second time where no answer came by then; the first answer wins"
    )

"""How an alias stands with its upstream: counters since the start of the process, and what is so now."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from service.upstream.breaker import State


@dataclass(slots=True)
class Counts:
    """Since the start. `asked` counts questions that were sent, retries and hedges among them; `hung_up` those that the
    client left, or that lost against a hedge."""

    asked: int = 0
    failed: int = 0
    retried: int = 0
    hedged: int = 0
    hung_up: int = 0
    refused_by_breaker: int = 0
    refused_by_limit: int = 0


@dataclass(frozen=True, slots=True)
class Standing:
    """One alias now; `next_try_s` is 0 unless the breaker is open, `opened` how often it was."""

    alias: str
    counts: Counts = field(default_factory=Counts)
    in_flight: int = 0
    queued: int = 0
    state: State = "closed"
    next_try_s: float = 0.0
    opened: int = 0
    last_failure: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """One flat object, as `GET /api/upstreams` gives it."""
        plain = asdict(self)
        return {"alias": plain.pop("alias"), **plain.pop("counts"), **plain}

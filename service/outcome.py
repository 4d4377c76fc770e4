"""What one request came to: the facts that the log, the metrics, the limits and the rollouts are fed with."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Outcome:
    """One request, or one question to a shadow variant (`shadow_of` is then the completion it stood beside).

    `status` is `ok`, `cancelled` (the client left), or the name of the error's class. `variant` is who answered, or was
    asked last; `attempts` counts questions to upstreams, repairs and fallbacks included. `unit` is a keyed digest of
    what the route's hash was taken of, None where nobody stays on a variant. `is_valid` is whether the answer
    fitted the prompt's output schema, None where it has none. `chosen` is the variant that the route chose where a fallback
    was asked in its place (a failure of that variant, whatever became of the request), else None. `trace_id` and
    `parent_span_id` are those of the client's `traceparent` (the latter None where the trace began here), `is_sampled` whether
    whoever began the trace keeps it. Times in milliseconds from the request's arrival, costs in US dollars.
    """

    id: str
    at: str
    key_id: str
    variant: str
    status: str
    latency_ms: float
    prompt: str | None = None
    route_revision: int | None = None
    upstream_ms: float | None = None
    first_token_ms: float | None = None
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    cost_usd: float | None = None
    error: str | None = None
    unit: str | None = None
    is_valid: bool | None = None
    is_stream: bool = False
    is_cached: bool = False
    attempts: int = 1
    shadow_of: str | None = None
    trace_id: str | None = None
    chosen: str | None = None
    parent_span_id: str | None = None
    is_sampled: bool = False

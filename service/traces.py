"""The trace that a request belongs to, as W3C's Trace Context says it (version 00, https://www.w3.org/TR/trace-context)."""

from __future__ import annotations

import re
from contextvars import ContextVar
from typing import NamedTuple

_TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(?:-.*)?")

TRACEPARENT = ContextVar("traceparent", default="")  # what upstreams are sent, "" where the request has no trace


class Trace(NamedTuple):
    """The trace of a client's `traceparent`, and the span of it that asked: 32 and 16 hex digits; `flags` are 2.

    `parent_span_id` is "" where the trace begins with us.
    """

    id: str
    parent_span_id: str
    flags: str

    @property
    def is_sampled(self) -> bool:
        """Whether whoever began the trace keeps it."""
        return int(self.flags, 16) & 1 == 1

    def traceparent(self, span_id: str) -> str:
        """The header for whoever is asked within the span `span_id` of the same trace."""
        return f"00-{self.id}-{span_id}-{self.flags}"


def trace_of(traceparent: str) -> Trace | None:
    """The trace of a `traceparent` header; None where there is none, or the header is malformed."""
    found = _TRACEPARENT.fullmatch(traceparent) if traceparent else None
    return Trace(found[1], found[2], found[3]) if found else None


def span_id_of(completion_id: str) -> str:
    """The id of our own span of a completion: its last 16 digits, so that whoever tells of it later needs no other."""
    return completion_id[-16:]

"""OpenTelemetry's spans of what is long over: with its SDK, whose sampler, limits and resource they get."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.sdk.trace.sampling import Decision
from opentelemetry.trace import (
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    set_span_in_context,
)

from service.outcome import Outcome
from service.release import release
from service.traces import span_id_of

_SAMPLED = TraceFlags(TraceFlags.SAMPLED)


class SpanMaker:
    """Makes spans whose ids are those that the upstreams were told. For one thread."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._ids = _GivenIds()
        self._ended = _Ended()
        self._provider = TracerProvider(id_generator=self._ids, resource=_resource(environ), shutdown_on_exit=False)
        self._provider.add_span_processor(self._ended)
        self._tracer = self._provider.get_tracer("turnout")

    def is_sampled(self, trace_id: str) -> bool:
        """What the sampler says of a trace that begins with us; safe from any thread."""
        found = self._provider.sampler.should_sample(None, int(trace_id, 16), "chat", SpanKind.CLIENT)
        return found.decision is Decision.RECORD_AND_SAMPLE

    def spans(self, outcomes: Sequence[tuple[Outcome, Mapping[str, Any]]]) -> list[ReadableSpan]:
        """The spans of outcomes with their attributes, those alone that are sampled."""
        for outcome, attributes in outcomes:
            self._end(outcome, attributes)
        return self._ended.taken()

    def _end(self, outcome: Outcome, attributes: Mapping[str, Any]) -> None:
        ends = nanoseconds(outcome.at)
        self._ids.trace_id = int(outcome.trace_id or "0", 16)
        self._ids.span_id = int(span_id_of(outcome.id), 16)
        span = self._tracer.start_span(
            f"{attributes['gen_ai.operation.name']} {attributes['gen_ai.request.model']}",
            context=self._parent(outcome),
            kind=SpanKind.CLIENT,
            attributes=dict(attributes),
            start_time=ends - int(outcome.latency_ms * 1_000_000),
        )
        if outcome.status not in ("ok", "cancelled"):
            span.set_status(Status(StatusCode.ERROR, outcome.status))
        span.end(ends)

    def _parent(self, outcome: Outcome) -> Any:
        """The client's span; for a shadow that of the request which it stood beside; none where the trace began with us."""
        parent = span_id_of(outcome.shadow_of) if outcome.shadow_of else outcome.parent_span_id
        if parent is None:
            return None
        context = SpanContext(self._ids.trace_id, int(parent, 16), is_remote=True, trace_flags=_SAMPLED)
        return set_span_in_context(NonRecordingSpan(context))


class _GivenIds(IdGenerator):
    """The ids of the span that is made next."""

    trace_id = 0
    span_id = 0

    def generate_trace_id(self) -> int:
        return self.trace_id

    def generate_span_id(self) -> int:
        return self.span_id

    def is_trace_id_random(self) -> bool:
        return True


class _Ended(SpanProcessor):
    """Keeps spans as they end, until they are taken."""

    def __init__(self) -> None:
        self._spans: list[ReadableSpan] = []

    def on_end(self, span: ReadableSpan) -> None:
        self._spans.append(span)

    def taken(self) -> list[ReadableSpan]:
        spans, self._spans = self._spans, []
        return spans


def nanoseconds(at: str) -> int:
    """A stored time since 1970, as OpenTelemetry has it; exact to the microsecond."""
    return round(datetime.fromisoformat(at).timestamp() * 1_000_000) * 1_000


def _resource(environ: Mapping[str, str]) -> Resource:
    """What the environment says, and our name where it gives none."""
    is_named = environ.get("OTEL_SERVICE_NAME") or "service.name=" in environ.get("OTEL_RESOURCE_ATTRIBUTES", "")
    return Resource.create({"service.version": release()} | ({} if is_named else {"service.name": "turnout"}))

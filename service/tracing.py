"""Spans of requests for OpenTelemetry (GenAI conventions), made of outcomes in a thread of their own; the extra `otel`.

Off unless the standard environment says where spans go: OTEL_EXPORTER_OTLP_ENDPOINT, OTEL_TRACES_EXPORTER and the like
(https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/). Nothing that was asked or answered is in them.
"""

from __future__ import annotations

import os
import secrets
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlsplit

import structlog

from prompts.errors import BadInput
from prompts.names import parse_variant
from service.outcome import Outcome
from service.settings import OpenAISpec, Settings
from service.traces import Trace

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan

MOST_WAITING = 20_000
BATCH = 512
WAIT_S = 1.0
END_WITHIN_S = 5.0
_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
log = structlog.get_logger()
Value = str | int | float | bool


class Exporter(Protocol):
    """Where spans go: one of OpenTelemetry's."""

    def export(self, spans: Sequence[ReadableSpan]) -> Any: ...

    def shutdown(self) -> None: ...


class Tracing:
    """Takes outcomes in well under a microsecond; what the exporter cannot keep up with is dropped, and counted."""

    def __init__(self, settings: Settings, exporter: Exporter, environ: Mapping[str, str] | None = None) -> None:
        from service.spans import SpanMaker

        self._maker = SpanMaker(os.environ if environ is None else environ)
        self._settings = settings
        self._exporter = exporter
        self._waiting: deque[Outcome] = deque()
        self._ends = threading.Event()
        self._thread: threading.Thread | None = None
        self._is_failing = False
        self.exported = 0
        self.dropped = 0

    def begin(self) -> Trace:
        """A trace for a request that came without one; sampled or not as OTEL_TRACES_SAMPLER says."""
        trace_id = secrets.token_hex(16)
        return Trace(trace_id, "", "01" if self._maker.is_sampled(trace_id) else "00")

    def add(self, outcome: Outcome) -> None:
        """Take an outcome; it has a span where its trace is kept."""
        if not outcome.is_sampled:
            return
        if len(self._waiting) >= MOST_WAITING:
            self.dropped += 1
            return
        self._waiting.append(outcome)
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="tracing", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """Export what waits, for `END_WITHIN_S` at most."""
        self._ends.set()
        if self._thread is not None:
            self._thread.join(END_WITHIN_S)

    def _run(self) -> None:
        while not self._ends.wait(WAIT_S):
            self._export_all()
        self._export_all()
        self._exporter.shutdown()

    def _export_all(self) -> None:
        while self._waiting:
            outcomes = [self._waiting.popleft() for _ in range(min(BATCH, len(self._waiting)))]
            try:
                self._export(self._maker.spans([(outcome, self.attributes(outcome)) for outcome in outcomes]))
            except Exception as error:  # noqa: BLE001 - whatever an exporter raises, requests are served and traced on
                self._failed(len(outcomes), f"{type(error).__name__}: {error}")

    def _export(self, spans: Sequence[ReadableSpan]) -> None:
        if not spans:
            return
        result = self._exporter.export(spans)
        if getattr(result, "name", "SUCCESS") != "SUCCESS":
            self._failed(len(spans), "the exporter could not send them")
            return
        self.exported += len(spans)
        if self._is_failing:
            self._is_failing = False
            log.info("spans are exported again", lost=self.dropped)

    def _failed(self, count: int, reason: str) -> None:
        """Told once for each time that it begins."""
        self.dropped += count
        if not self._is_failing:
            self._is_failing = True
            log.warning("spans are lost", reason=reason)

    def attributes(self, outcome: Outcome) -> dict[str, Value]:
        """A span's attributes: those of OpenTelemetry's GenAI conventions, and ours below `turnout.`."""
        alias = model_of(outcome.variant)
        given: dict[str, Value | None] = {
            "gen_ai.operation.name": "embeddings" if outcome.id.startswith("embd-") else "chat",
            **self._model(alias),
            "gen_ai.request.stream": outcome.is_stream,
            "gen_ai.response.id": outcome.id,
            "gen_ai.prompt.name": outcome.prompt,
            "gen_ai.usage.input_tokens": outcome.prompt_tokens,
            "gen_ai.usage.output_tokens": outcome.completion_tokens,
            "gen_ai.usage.cache_read.input_tokens": outcome.cached_tokens or None,
            "gen_ai.response.time_to_first_chunk": _seconds(outcome.first_token_ms),
            "error.type": None if outcome.status == "ok" else outcome.status,
            "turnout.variant": outcome.variant,
            "turnout.variant.chosen": outcome.chosen,
            "turnout.route.revision": outcome.route_revision,
            "turnout.attempts": outcome.attempts,
            "turnout.upstream.duration": _seconds(outcome.upstream_ms),
            "turnout.cost_usd": outcome.cost_usd,
            "turnout.output.valid": outcome.is_valid,
            "turnout.cached": outcome.is_cached,
            "turnout.shadow_of": outcome.shadow_of,
        }
        return {name: value for name, value in given.items() if value is not None}

    def _model(self, alias: str) -> dict[str, Value | None]:
        """What the settings say of a model; its alias alone where they do not know it any more."""
        spec = self._settings.models.get(alias)
        if not isinstance(spec, OpenAISpec):
            return {"gen_ai.provider.name": "turnout", "gen_ai.request.model": alias}
        place = urlsplit(spec.base_url)
        return {
            "gen_ai.provider.name": spec.engine,
            "gen_ai.request.model": spec.model or alias,
            "server.address": place.hostname,
            "server.port": place.port or (443 if place.scheme == "https" else 80),
        }


def model_of(variant: str) -> str:
    """The model alias of a variant, or the alias that stands in its place."""
    try:
        return parse_variant(variant).model
    except BadInput:
        return variant


def _seconds(milliseconds: float | None) -> float | None:
    return None if milliseconds is None else milliseconds / 1000


# ---------------------------------------------------------------------------- the standard environment


def tracing_of(settings: Settings, environ: Mapping[str, str] | None = None) -> Tracing | None:
    """What the environment asks for; None where it asks for no traces, or for some that cannot be had, which is told."""
    environ = os.environ if environ is None else environ
    kind = exporter_asked(environ)
    if kind is None:
        return None
    try:
        return Tracing(settings, _exporter(kind), environ)
    except ImportError:
        log.warning("no traces: the environment asks for them, and the extra `otel` is not installed",
                    fix="pip install 'turnout[otel]', or set OTEL_TRACES_EXPORTER=none")  # fmt: skip
        return None


def exporter_asked(environ: Mapping[str, str]) -> str | None:
    """`otlp` or `console`, None where nothing asks for traces. What is not known here is told, and is none."""
    if environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return None
    is_somewhere = any(environ.get(name) for name in _ENDPOINTS)
    kind = environ.get("OTEL_TRACES_EXPORTER", "").strip().lower() or ("otlp" if is_somewhere else "none")
    protocol = environ.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL") or environ.get("OTEL_EXPORTER_OTLP_PROTOCOL")
    if kind == "none":
        return None
    if kind not in ("otlp", "console"):
        log.warning("no traces: OTEL_TRACES_EXPORTER is otlp, console or none here", given=kind)
        return None
    if kind == "otlp" and protocol not in (None, "", "http/protobuf"):
        log.warning("no traces: OTEL_EXPORTER_OTLP_PROTOCOL is http/protobuf here", given=protocol)
        return None
    return kind


def _exporter(kind: str) -> Exporter:
    if kind == "console":
        import sys

        from opentelemetry.sdk.trace.export import ConsoleSpanExporter

        return ConsoleSpanExporter(out=sys.stderr)
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    return OTLPSpanExporter()

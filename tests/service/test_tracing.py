"""Spans of requests: their ids, times and attributes, what the environment asks for, and that serving never waits for them."""

from __future__ import annotations

import asyncio
import json
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from service import tracing as tracing_module
from service.context import build_context
from service.outcome import Outcome
from service.settings import Settings
from service.traces import Trace, span_id_of, trace_of
from service.tracing import Tracing, exporter_asked, tracing_of
from tests.service.conftest import Service, make_settings
from tests.service.test_request_log import outcome

pytest.importorskip("opentelemetry.sdk")
TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
ID = "chatcmpl-0123456789abcdef01234567"
COMPLETION: dict[str, Any] = {
    "id": "x", "object": "chat.completion", "created": 1, "model": "m",
    "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "billing"}}],
    "usage": {"prompt_tokens": 12, "completion_tokens": 3, "total_tokens": 15},
}  # fmt: skip


class Kept:
    """An exporter that keeps spans, fails, or hangs."""

    def __init__(self) -> None:
        self.spans: list[Any] = []
        self.goes_on = threading.Event()
        self.goes_on.set()
        self.fails = False
        self.is_shut_down = False

    def export(self, spans: Any) -> Any:
        self.goes_on.wait(20)
        if self.fails:
            raise ConnectionError("no collector")
        self.spans += spans
        return None

    def shutdown(self) -> None:
        self.is_shut_down = True


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracing_module, "WAIT_S", 0.01)
    for name in ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_TRACES_EXPORTER", "OTEL_SERVICE_NAME", "OTEL_TRACES_SAMPLER"):
        monkeypatch.delenv(name, raising=False)


def traced(**more: Any) -> Outcome:
    about = {"id": ID, "trace_id": TRACE, "parent_span_id": PARENT, "is_sampled": True, **more}
    return outcome(0, **about)


def spans_of(settings: Settings, *outcomes: Outcome, environ: dict[str, str] | None = None) -> list[Any]:
    exporter = Kept()
    tracing = Tracing(settings, exporter, environ or {})
    for each in outcomes:
        tracing.add(each)
    tracing.close()
    assert exporter.is_shut_down or not outcomes or tracing._thread is None
    return exporter.spans


def test_a_span_has_the_ids_that_client_and_upstream_know(settings: Settings) -> None:
    [span] = spans_of(settings, traced())

    assert format(span.context.trace_id, "032x") == TRACE
    assert format(span.context.span_id, "016x") == "89abcdef01234567" == span_id_of(ID)
    assert format(span.parent.span_id, "016x") == PARENT


def test_a_span_lasts_as_long_as_the_request(settings: Settings) -> None:
    [span] = spans_of(settings, traced(at="2026-01-01T00:00:01.250001+00:00", latency_ms=250.0))

    assert span.end_time == 1_767_225_601_250_001_000
    assert span.end_time - span.start_time == 250_000_000


def test_attributes_are_those_of_the_genai_conventions(settings: Settings) -> None:
    [span] = spans_of(settings, traced(
        prompt="support.triage", variant="support.triage@3+tunable+triage-2", route_revision=4, prompt_tokens=12,
        cached_tokens=8, completion_tokens=3, first_token_ms=120.0, upstream_ms=200.0, cost_usd=0.5, is_stream=True,
        attempts=2, is_valid=True, chosen="support.triage@2+model-a",
    ))  # fmt: skip

    assert span.name == "chat tunable"
    assert span.kind.name == "CLIENT"
    assert dict(span.attributes) == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "vllm",
        "gen_ai.request.model": "tunable",
        "server.address": "127.0.0.1",
        "server.port": 9,
        "gen_ai.request.stream": True,
        "gen_ai.response.id": ID,
        "gen_ai.prompt.name": "support.triage",
        "gen_ai.usage.input_tokens": 12,
        "gen_ai.usage.output_tokens": 3,
        "gen_ai.usage.cache_read.input_tokens": 8,
        "gen_ai.response.time_to_first_chunk": 0.12,
        "turnout.variant": "support.triage@3+tunable+triage-2",
        "turnout.variant.chosen": "support.triage@2+model-a",
        "turnout.route.revision": 4,
        "turnout.attempts": 2,
        "turnout.upstream.duration": 0.2,
        "turnout.cost_usd": 0.5,
        "turnout.output.valid": True,
        "turnout.cached": False,
    }


def test_the_names_of_attributes_are_those_of_the_installed_conventions(settings: Settings) -> None:
    from opentelemetry.semconv._incubating.attributes import gen_ai_attributes

    known = {value for name, value in vars(gen_ai_attributes).items() if name.startswith("GEN_AI_")}
    [span] = spans_of(settings, traced(cached_tokens=1, first_token_ms=1.0))

    assert {name for name in span.attributes if name.startswith("gen_ai.")} - known == set()


def test_what_failed_is_an_error_without_its_text_and_what_the_client_left_is_none(settings: Settings) -> None:
    failed, left = spans_of(
        settings, traced(status="ModelRefused", error="my card is 4111"), traced(status="cancelled")
    )

    assert (failed.status.status_code.name, failed.attributes["error.type"]) == ("ERROR", "ModelRefused")
    assert (left.status.status_code.name, left.attributes["error.type"]) == ("UNSET", "cancelled")
    assert "4111" not in failed.to_json()


def test_a_shadow_lies_under_the_request_that_it_stood_beside(settings: Settings) -> None:
    [span] = spans_of(settings, traced(id="chatcmpl-" + "f" * 24, shadow_of=ID))

    assert format(span.parent.span_id, "016x") == span_id_of(ID)
    assert span.attributes["turnout.shadow_of"] == ID


def test_what_the_client_does_not_sample_has_no_span(settings: Settings) -> None:
    assert spans_of(settings, traced(is_sampled=False), outcome(1)) == []


def test_the_environment_names_the_service_and_its_sampler(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    [span] = spans_of(settings, traced())
    assert span.resource.attributes["service.name"] == "turnout"
    monkeypatch.setenv("OTEL_SERVICE_NAME", "gateway")
    [span] = spans_of(settings, traced(), environ={"OTEL_SERVICE_NAME": "gateway"})
    assert span.resource.attributes["service.name"] == "gateway"
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "always_off")
    tracing = Tracing(settings, Kept(), {})
    assert not tracing.begin().is_sampled


def test_a_trace_may_begin_here(settings: Settings) -> None:
    trace = Tracing(settings, Kept(), {}).begin()
    [span] = spans_of(settings, traced(trace_id=trace.id, parent_span_id=None))

    assert trace_of(trace.traceparent("1" * 16)) == Trace(trace.id, "1" * 16, "01")
    assert (format(span.context.trace_id, "032x"), span.parent) == (trace.id, None)


# ---------------------------------------------------------------------------- faults


def test_an_exporter_that_fails_or_hangs_costs_spans_that_are_counted_and_nothing_else(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tracing_module, "MOST_WAITING", 10)
    exporter = Kept()
    tracing = Tracing(settings, exporter, {})
    exporter.goes_on.clear()
    tracing.add(traced())
    while tracing._waiting:
        time.sleep(0.005)
    started = time.monotonic()
    for _ in range(30):
        tracing.add(traced())
    assert time.monotonic() - started < 1
    assert tracing.dropped == 20
    exporter.fails = True
    exporter.goes_on.set()
    while tracing.dropped < 31:
        time.sleep(0.005)
    exporter.fails = False
    tracing.add(traced())
    tracing.close()

    assert (tracing.exported, tracing.dropped, len(exporter.spans)) == (1, 31, 1)
    said = "".join(capsys.readouterr())
    assert (said.count("spans are lost"), said.count("exported again")) == (1, 1)


# ---------------------------------------------------------------------------- the environment


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, None),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318"}, "otlp"),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://c:4318/v1/traces"}, "otlp"),
        ({"OTEL_TRACES_EXPORTER": "console"}, "console"),
        ({"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}, "otlp"),
        ({"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, None),
        ({"OTEL_TRACES_EXPORTER": "zipkin"}, None),
        ({"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318"}, None),
        ({"OTEL_SDK_DISABLED": "true", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318"}, None),
    ],
)
def test_traces_are_off_unless_the_standard_environment_asks_for_them(
    environ: dict[str, str], expected: str | None
) -> None:
    assert exporter_asked(environ) == expected


def test_without_the_extra_that_is_told_and_the_service_goes_on(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)

    assert tracing_of(settings, {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"}) is None
    assert "turnout[otel]" in "".join(capsys.readouterr())


def test_a_service_without_such_an_environment_makes_no_traces(settings: Settings) -> None:
    context = build_context(settings)

    assert context.tracing is None
    asyncio.run(context.aclose())


# ---------------------------------------------------------------------------- from end to end


class Server(ThreadingHTTPServer):
    """An upstream and a collector in one: keeps what it is sent."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.asked: list[tuple[str, dict[str, str], bytes]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.asked.append((self.path, {k.lower(): v for k, v in self.headers.items()}, body))  # type: ignore[attr-defined]
        answer = json.dumps(COMPLETION).encode() if self.path.endswith("completions") else b""
        self.send_response(200)
        self.send_header("content-type", "application/json" if answer else "application/x-protobuf")
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: Any) -> None:
        return


@pytest.fixture
def upstream() -> Iterator[Server]:
    server = Server()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def exported(server: Server) -> list[Any]:
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    found = [ExportTraceServiceRequest.FromString(body) for path, _, body in server.asked if path == "/v1/traces"]
    return [
        span for each in found for part in each.resource_spans for scope in part.scope_spans for span in scope.spans
    ]


def ask(service: Service, **headers: str) -> Any:
    body = {"model": "up", "messages": [{"role": "user", "content": "charged, says Zebulon"}]}
    answer = service.call("POST", "/v1/chat/completions", "app", json=body, headers=headers)
    assert answer.status_code == 200, answer.text
    return answer


def test_a_trace_goes_through_from_the_client_to_the_upstream_and_to_the_collector(
    tmp_path: Path, upstream: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", upstream.url)
    settings = make_settings(tmp_path / "home", models={"up": {"engine": "openai", "base_url": f"{upstream.url}/v1"}})
    with Service(settings).running() as service:
        first = ask(service, traceparent=f"00-{TRACE}-{PARENT}-01").json()["id"]
        second = ask(service).json()["id"]
        ask(service, traceparent=f"00-{'1' * 32}-{PARENT}-00")
    sent = [about.get("traceparent", "") for path, about, _ in upstream.asked if path == "/v1/chat/completions"]
    spans = {span.span_id.hex(): span for span in exported(upstream)}

    assert sent[0] == f"00-{TRACE}-{span_id_of(first)}-01"
    assert set(spans) == {span_id_of(first), span_id_of(second)}
    assert spans[span_id_of(first)].parent_span_id.hex() == PARENT
    assert sent[1] == f"00-{spans[span_id_of(second)].trace_id.hex()}-{span_id_of(second)}-01"
    assert sent[2].endswith("-00")
    assert not any(b"Zebulon" in body for path, _, body in upstream.asked if path == "/v1/traces")


def test_without_tracing_a_trace_is_passed_on_and_recorded_and_none_is_begun(tmp_path: Path, upstream: Server) -> None:
    settings = make_settings(tmp_path / "home", models={"up": {"engine": "openai", "base_url": f"{upstream.url}/v1"}})
    with Service(settings).running() as service:
        made = ask(service, traceparent=f"00-{TRACE}-{PARENT}-01").json()["id"]
        ask(service)
        ask(service, traceparent="00-malformed")
        service.wait(service.context.request_log.flush())
        [row] = service.call("GET", f"/api/requests?trace_id={TRACE}").json()
    sent = [about.get("traceparent") for _, about, _ in upstream.asked]

    assert (row["id"], row["parent_span_id"], row["is_sampled"]) == (made, PARENT, True)
    assert sent == [f"00-{TRACE}-{span_id_of(made)}-01", None, None]

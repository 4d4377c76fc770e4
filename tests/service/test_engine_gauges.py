from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from service.engine_gauges import of_engines

TEXT = """# HELP turnout_engine_requests_total Requests by outcome
# TYPE turnout_engine_requests_total counter
turnout_engine_requests_total{outcome="answered"} 3.0
# HELP turnout_engine_batch_rows Rows of a decoding step
# TYPE turnout_engine_batch_rows summary
turnout_engine_batch_rows_count 7.0
turnout_engine_batch_rows_sum 20.0
"""


class _Engine(BaseHTTPRequestHandler):
    def do_GET(self) -> None:  # the name that http.server calls
        right = self.headers["Authorization"] == "Bearer secret"
        self.send_response(200 if right else 401)
        self.end_headers()
        self.wfile.write(TEXT.encode() if right else b"")

    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.fixture
def run_dir(tmp_path: Path) -> Iterator[Path]:
    """Two engines that answer, one that is gone, and a file that is half written."""
    with HTTPServer(("127.0.0.1", 0), _Engine) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        state = {"base_url": f"http://127.0.0.1:{server.server_port}", "token": "secret"}
        (tmp_path / "engine-small.json").write_text(json.dumps(state))
        (tmp_path / "engine-large.json").write_text(json.dumps(state))
        (tmp_path / "engine-gone.json").write_text(json.dumps({**state, "base_url": "http://127.0.0.1:9"}))
        (tmp_path / "engine-half.json").write_text("{")
        yield tmp_path
        server.shutdown()
        thread.join()


class _Collected(Collector):
    def __init__(self, run_dir: Path) -> None:
        self._run_dir = run_dir

    def collect(self) -> Iterator[Metric]:
        return of_engines(self._run_dir)


def test_engines_that_run_are_told_apart_by_their_model(run_dir: Path) -> None:
    registry = CollectorRegistry()
    registry.register(_Collected(run_dir))
    lines = generate_latest(registry).decode().splitlines()
    assert 'turnout_engine_requests_total{model="small",outcome="answered"} 3.0' in lines
    assert 'turnout_engine_batch_rows_sum{model="large"} 20.0' in lines
    assert lines.count("# TYPE turnout_engine_requests_total counter") == 1
    assert not any("gone" in line or "half" in line for line in lines)


def test_without_engines_there_is_nothing(tmp_path: Path) -> None:
    assert list(of_engines(tmp_path / "none")) == []

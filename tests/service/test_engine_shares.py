"""A training asks the engines of its home for memory; here they are servers that only count who asks."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from service.engine_shares import Share, on_device, shared

GIB = 1 << 30


class _Engine(BaseHTTPRequestHandler):
    open = 0

    def do_GET(self) -> None:  # the name that http.server calls
        right = self.headers["Authorization"] == "Bearer secret" and self.path == "/share"
        self.send_response(200 if right else 404)
        self.end_headers()
        if not right:
            return
        told = {"device": "cuda:0", "weights_bytes": 3 * GIB, "given_back_bytes": 5 * GIB}
        self.wfile.write(json.dumps(told).encode() + b"\n")
        type(self).open += 1
        self.connection.recv(1)  # nothing comes, until the other end is closed
        type(self).open -= 1

    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.fixture
def run_dir(tmp_path: Path) -> Iterator[Path]:
    """An engine on a GPU, one of another token, and one that is gone."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Engine) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        state: dict[str, Any] = {"base_url": f"http://127.0.0.1:{server.server_port}", "token": "secret"}
        (tmp_path / "engine-large.json").write_text(json.dumps(state))
        (tmp_path / "engine-other.json").write_text(json.dumps({**state, "token": "wrong"}))
        (tmp_path / "engine-gone.json").write_text(json.dumps({**state, "base_url": "http://127.0.0.1:9"}))
        yield tmp_path
        server.shutdown()
        thread.join()


def test_an_engine_shares_for_as_long_as_the_training_lasts(run_dir: Path) -> None:
    with shared(run_dir, "auto") as shares:
        assert shares[0] == Share("large", "cuda:0", 3 * GIB, 5 * GIB)
        assert str(shares[0]) == (
            "shared with the engine of 'large' on cuda:0: 3.00 GiB of weights stay, 5.00 GiB of its reserve are given back"
            " while the training runs"
        )
        until_open(1)
    until_open(0)


def until_open(count: int) -> None:
    end = time.monotonic() + 5
    while _Engine.open != count:
        assert time.monotonic() < end, f"{_Engine.open} are open"
        time.sleep(0.005)


def test_one_that_does_not_give_is_told_and_one_that_is_gone_is_not(run_dir: Path) -> None:
    with shared(run_dir, "cuda") as shares:
        assert [share.model for share in shares] == ["large", "other"]
        assert "keeps its memory" in str(shares[1])
        assert "404" in str(shares[1])


def test_an_engine_on_another_device_is_none_of_the_plan(run_dir: Path) -> None:
    with shared(run_dir, "cpu") as shares:
        assert [share.model for share in shares] == ["other"]  # nobody knows where it is
        until_open(0)  # it has its reserve again
    assert on_device([Share("large", "cuda:0")], "cuda:0") == [Share("large", "cuda:0")]
    assert on_device([Share("large", "cuda:0")], "cpu") == []


def test_a_home_without_engines_shares_nothing(tmp_path: Path) -> None:
    with shared(tmp_path / "none", "auto") as shares:
        assert list(shares) == []

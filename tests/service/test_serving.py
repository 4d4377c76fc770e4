from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.app import check_binding
from service.errors import BadSetting, CannotRun
from service.listening import listen
from tests.interrupts import heed_interrupts
from tests.service.conftest import make_settings

ROOT = Path(__file__).parents[2]


def test_replies_are_not_held_up_by_nagle() -> None:
    """asyncio sets TCP_NODELAY on sockets whose protocol is named, and on no others: it is 40 ms a reply."""
    with listen("127.0.0.1", 0) as listener:
        assert listener.proto == socket.IPPROTO_TCP


def test_a_port_that_is_taken_is_named_with_what_to_do() -> None:
    with listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(CannotRun, match=f"127.0.0.1:{port}: another service listens there: choose --port"):
            listen("127.0.0.1", port)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1"])
def test_loopback_needs_no_names(tmp_path: Path, host: str) -> None:
    check_binding(make_settings(tmp_path, server={"host": host}))


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.7", "turnout.example.com"])  # noqa: S104 - refusing them is the test
def test_any_other_host_is_refused_until_its_names_are_given(tmp_path: Path, host: str) -> None:
    with pytest.raises(BadSetting, match=r"server\.allowed_hosts") as caught:
        check_binding(make_settings(tmp_path, server={"host": host}))
    assert caught.value.param == "server.allowed_hosts"

    check_binding(make_settings(tmp_path, server={"host": host, "allowed_hosts": ["turnout.example.com"]}))


# ---------------------------------------------------------------------------- turnout serve, turnout worker


@contextlib.contextmanager
def command(folder: Path, *arguments: str, **environ: str) -> Iterator[subprocess.Popen[str]]:
    """A command of `turnout` as a process that does not outlast the block."""
    environment = {**os.environ, "TURNOUT_HOME": str(folder / "home"), "PYTHONPATH": str(ROOT), **environ}
    with subprocess.Popen(
        [sys.executable, "-P", "-m", "service.cli.main", *arguments], cwd=folder, env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, preexec_fn=heed_interrupts,
    ) as process:  # fmt: skip
        try:
            yield process
        finally:
            process.kill()


def document(process: subprocess.Popen[str]) -> dict[str, Any]:
    """What a command that stays has put on stdout: the lines of one JSON document."""
    assert process.stdout is not None
    lines = [process.stdout.readline()]
    while lines[-1] and lines[-1] != "}\n":
        lines.append(process.stdout.readline())
    found: dict[str, Any] = json.loads("".join(lines))
    return found


def test_serve_with_json_says_once_where_it_is_up_and_logs_to_stderr(tmp_path: Path) -> None:
    with command(tmp_path, "serve", "--port", "0", "--json", TURNOUT_SERVER_WORKERS="0") as process:
        up = document(process)
        assert httpx.get(f"{up['url']}/health/ready").status_code == 200
        asked_by_head = httpx.head(f"{up['url']}/health/ready")
        assert (asked_by_head.status_code, asked_by_head.headers["content-length"]) == (200, "15")
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)

    home = tmp_path / "home"
    assert {**up, "url": "", "version": ""} == {
        "url": "", "workers": 0, "admin_key_file": str(home / "admin.key"), "version": "", "home": str(home),
        "project": str(tmp_path), "pid": process.pid,
    }  # fmt: skip
    assert up["url"].startswith("http://127.0.0.1:")
    assert (process.returncode, out) == (130, "")
    assert "turnout serves" in err


def test_a_worker_with_json_says_once_who_it_is(tmp_path: Path) -> None:
    with command(tmp_path, "worker", "--json") as process:
        up = document(process)
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=60)

    assert {**up, "worker": "", "version": ""} == {
        "worker": "", "version": "", "home": str(tmp_path / "home"), "project": str(tmp_path), "pid": process.pid,
    }  # fmt: skip
    assert len(up["worker"]) == 12
    assert (process.returncode, out) == (0, "")
    assert "worker stops" in err


@pytest.mark.parametrize("arguments", [("worker",), ("serve", "--port", "0")])
def test_what_cannot_come_up_ends_with_the_document_of_an_error(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    (tmp_path / "home" / "turnout.db").mkdir(parents=True)  # nothing can be opened there
    with command(tmp_path, *arguments, "--json", TURNOUT_SERVER_WORKERS="0") as process:
        out, err = process.communicate(timeout=60)

    error = json.loads(out)["error"]
    assert (process.returncode, error["exit_code"]) == (4, 4), err
    assert "unable to open database file" in error["message"]
    assert "Traceback" not in err

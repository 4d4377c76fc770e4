"""An interrupt while a command loads or puts itself away, and a reader of its output that leaves: none gives a traceback."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from tests.interrupts import heed_interrupts

ROOT = Path(__file__).parents[3]
pytestmark = pytest.mark.integration
HERE = "import os, signal\nos.kill(os.getpid(), signal.SIGINT)\n"
ERROR = {"error": {"message": "interrupted", "exit_code": 130}}


def ignore_interrupts() -> None:
    """As the children of a shell's background do."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def turnout(
    folder: Path, *arguments: str, before: Callable[[], None] = heed_interrupts
) -> subprocess.CompletedProcess[str]:
    """A command that finds the modules of `folder` before its own."""
    environment = {**os.environ, "PYTHONPATH": f"{folder}:{ROOT}", "TURNOUT_HOME": str(folder / "home")}
    return subprocess.run(
        [sys.executable, "-P", "-m", "service.cli.main", *arguments], cwd=folder, env=environment, text=True,
        capture_output=True, timeout=60, preexec_fn=before, check=False,
    )  # fmt: skip


def test_an_interrupt_while_the_command_line_loads_ends_it_whatever_swallows_exceptions(tmp_path: Path) -> None:
    interrupted = "".join(f"    {line}" for line in HERE.splitlines(keepends=True))
    (tmp_path / "typer.py").write_text(f"try:\n{interrupted}except BaseException:\n    pass\nraise SystemExit(7)\n")

    done = turnout(tmp_path, "check", "--json")

    assert (done.returncode, json.loads(done.stdout), done.stderr) == (130, ERROR, "error: interrupted\n")
    assert turnout(tmp_path, "check").stdout == ""


def test_an_interrupt_while_a_command_loads_what_it_needs_ends_it(tmp_path: Path) -> None:
    (tmp_path / "jinja2.py").write_text(HERE)
    done = turnout(tmp_path, "check", "--json")
    assert (done.returncode, json.loads(done.stdout), done.stderr) == (130, ERROR, "error: interrupted\n")


def test_who_started_it_ignoring_interrupts_goes_on(tmp_path: Path) -> None:
    (tmp_path / "typer.py").write_text(f"{HERE}raise SystemExit(7)\n")
    assert turnout(tmp_path, "check", before=ignore_interrupts).returncode == 7


def test_an_interrupt_when_all_is_done_ends_it_after_its_document(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import atexit, os, signal, sys\n"
        "atexit.register(lambda: (sys.stdout.flush(), os.kill(os.getpid(), signal.SIGINT), os._exit(7)))\n"
    )
    done = turnout(tmp_path, "check", "--json")
    assert (done.returncode, json.loads(done.stdout)["ok"]) == (130, False)
    assert "Traceback" not in done.stderr


def test_serve_goes_on_when_nobody_reads_where_it_is_up(tmp_path: Path) -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TURNOUT_HOME": str(tmp_path), "TURNOUT_SERVER_WORKERS": "0"}
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "service.cli.main", "serve", "--port", "0", "--json"], cwd=tmp_path,
            env=environment, stdout=write_end, stderr=log, preexec_fn=heed_interrupts,
        )  # fmt: skip
    os.close(write_end)
    try:
        _wait_until_up(process, tmp_path / "log")
        process.send_signal(signal.SIGINT)
        code = process.wait(timeout=60)
    finally:
        process.kill()
        process.wait()
    told = (tmp_path / "log").read_text()
    assert (code, "Traceback" in told, "Broken pipe" in told) == (130, False, False), told


def _wait_until_up(process: subprocess.Popen[bytes], log: Path) -> None:
    ends = time.monotonic() + 60
    while time.monotonic() < ends:
        assert process.poll() is None, log.read_text()
        address = re.search(r"url=(http\S+)", re.sub(r"\x1b\[[0-9;]*m", "", log.read_text()))
        with contextlib.suppress(httpx.TransportError):
            if address and httpx.get(f"{address[1]}/health/ready").status_code == 200:
                return
        time.sleep(0.1)
    raise AssertionError(log.read_text())

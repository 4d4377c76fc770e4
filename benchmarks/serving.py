"""Servers as children: started, waited for, their CPU and memory read from /proc."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

START_S = 120.0


@contextlib.contextmanager
def server(command: list[str], port: int, path: str, **more: Any) -> Iterator[int]:
    """The process id of a server that answers `path` on `port`, whatever its status. Raises RuntimeError where it does not."""
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL, **more)
    try:
        _wait(process, f"http://127.0.0.1:{port}{path}")
        yield process.pid
    finally:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(20)
        process.kill()
        process.wait()


def _wait(process: subprocess.Popen[bytes], url: str) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            urllib.request.urlopen(url, timeout=1).close()  # noqa: S310 - our own server
            return
        except urllib.error.HTTPError:
            return  # it answers
        except (urllib.error.URLError, OSError):
            time.sleep(0.02)
    raise RuntimeError(f"{process.args!r} answers nothing at {url}")


@contextlib.contextmanager
def turnout(folder: Path, models: str) -> Iterator[tuple[int, int, str]]:
    """A service without workers, its models as given (YAML): its process, its port and its admin key."""
    (folder / "turnout.yaml").write_text(f"models: {models}\n")
    environment = {**os.environ, "TURNOUT_HOME": str(folder / "home"), "TURNOUT_SERVER_WORKERS": "0"}
    port = free_port()
    command = [sys.executable, "-P", "-m", "service.cli.main", "serve", "--port", str(port)]
    with server(command, port, "/health/ready", cwd=folder, env=environment) as process:
        yield process, port, next((folder / "home").glob("*key*")).read_text().strip()


def call(port: int, key: str, method: str, path: str, body: Mapping[str, Any]) -> None:
    """One request to a service; raises where it is refused."""
    headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
    url = f"http://127.0.0.1:{port}{path}"
    request = urllib.request.Request(url, json.dumps(body).encode(), headers, method=method)
    with urllib.request.urlopen(request, timeout=30):  # noqa: S310 - our own server
        pass


def cpu_s(process: int) -> float:
    """CPU seconds of a process, from /proc."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory_mb(process: int) -> float:
    """Resident megabytes (10⁶ bytes) of a process, from /proc."""
    pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])

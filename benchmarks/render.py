"""`POST /api/prompts/{name}/render`: requests a second at 64 in flight, milliseconds at 1, and a label's way to a client.

The floor is a bare ASGI application on the same server (uvicorn), asked in the same run by the same sockets.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.cli import BARE
from turnout import Turnout

ROUNDS = 3
SECONDS = 4.0
NAME = "support.triage"
PROMPT = {
    "model": "m",
    "modelParameters": {"temperature": 0},
    "variables": {"ticket": {"type": "string", "maxLength": 4000}},
    "messages": [
        {"role": "system", "content": "Route the ticket to one queue: billing, account, delivery or other."},
        {"role": "user", "content": "Ticket: {{ ticket }}"},
    ],
}
BODY = json.dumps({"variables": {"ticket": "I was charged twice for the same parcel."}}).encode()


def measure() -> dict[str, Any]:
    """Medians of `ROUNDS` rounds that ask both servers in turn."""
    with tempfile.TemporaryDirectory() as folder, _turnout(Path(folder)) as (ours, url, key), _bare() as (bare, port):
        asked = {"render": (ours, *_request(url, key)), "hello": (bare, *_hello(port))}
        rounds = [{name: _round(*one) for name, one in asked.items()} for _ in range(ROUNDS)]
        moved_ms = _label_ms(url, key)
    units = ("requests_per_s_at_64", "server_cpu_ms_a_request", "p50_ms_at_1")
    figures = {
        unit: {name: round(statistics.median(one[name][place] for one in rounds), 3) for name in asked}
        for place, unit in enumerate(units)
    }
    ratios = {f"{unit}_to_hello": round(found["render"] / found["hello"], 2) for unit, found in figures.items()}
    return {**figures, "ratios": ratios, "moved_label_reaches_a_client_ms": moved_ms}


def _round(server: int, port: int, request: bytes) -> tuple[float, float, float]:
    """Requests a second at 64 in flight, the server's CPU milliseconds for each, and the median milliseconds at 1."""
    before = _cpu_s(server)
    count, took_s = asyncio.run(_ask_for(SECONDS, port, request, in_flight=64))
    cpu_ms = (_cpu_s(server) - before) / count * 1000
    return count / took_s, cpu_ms, asyncio.run(_median_ms(port, request))


def _cpu_s(process: int) -> float:
    """CPU seconds of a process, from /proc."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _request(url: str, key: str) -> tuple[int, bytes]:
    head = (
        f"POST /api/prompts/{NAME}/render?label=latest HTTP/1.1\r\nhost: 127.0.0.1\r\nauthorization: Bearer {key}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(BODY)}\r\n\r\n"
    )
    return int(url.rpartition(":")[2]), head.encode() + BODY


def _hello(port: int) -> tuple[int, bytes]:
    return port, b"GET / HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n"


async def _ask_for(seconds: float, port: int, request: bytes, in_flight: int) -> tuple[int, float]:
    """How many requests were answered, and in how many seconds."""
    connections = [await asyncio.open_connection("127.0.0.1", port) for _ in range(in_flight)]
    started = time.perf_counter()
    counts = await asyncio.gather(*(_keep_asking(*c, request, started + seconds) for c in connections))
    took_s = time.perf_counter() - started
    for _, writer in connections:
        writer.close()
    return sum(counts), took_s


async def _keep_asking(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes, until: float) -> int:
    count = 0
    while time.perf_counter() < until:
        await _ask(reader, writer, request)
        count += 1
    return count


async def _median_ms(port: int, request: bytes) -> float:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    taken = []
    for _ in range(1000):
        started = time.perf_counter()
        await _ask(reader, writer, request)
        taken.append(time.perf_counter() - started)
    writer.close()
    return statistics.median(taken) * 1000


async def _ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes) -> None:
    """One request; raises where the answer is not 200 with a content-length or in one chunk."""
    writer.write(request)
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    assert b" 200 " in head.split(b"\r\n", 1)[0], head
    if b"content-length: " in head:
        await reader.readexactly(int(head.split(b"content-length: ")[1].split(b"\r\n")[0]))
    else:
        await reader.readuntil(b"0\r\n\r\n")


def _label_ms(url: str, key: str) -> float:
    """From the answer of the request that moves a label to the client that gives the other version; a median of 20."""
    taken = []
    with Turnout(url, key) as client:
        for number in range(21):
            version = 1 + number % 2
            _call(url, key, "PUT", f"/api/prompts/{NAME}/labels/staging", {"version": version})
            started = time.perf_counter()
            while client.prompt(NAME, label="staging").version != version:
                time.sleep(0.0002)
            taken.append((time.perf_counter() - started) * 1000)
            time.sleep(0.05 if number else 1.0)  # the first fetches, and opens the stream
    return round(statistics.median(taken[1:]), 2)


def _call(url: str, key: str, method: str, path: str, body: Any) -> None:
    headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
    request = urllib.request.Request(url + path, json.dumps(body).encode(), headers, method=method)  # noqa: S310 - our own server
    with urllib.request.urlopen(request, timeout=30):  # noqa: S310 - our own server
        pass


@contextlib.contextmanager
def _turnout(folder: Path) -> Iterator[tuple[int, str, str]]:
    """A service with two versions of one prompt: its process, its address and its admin key."""
    (folder / "turnout.yaml").write_text("models: {m: {engine: fake, default: x}}\n")
    environment = {**os.environ, "TURNOUT_HOME": str(folder / "home"), "TURNOUT_SERVER_WORKERS": "0"}
    port = _free_port()
    command = [sys.executable, "-P", "-m", "service.cli.main", "serve", "--port", str(port)]
    with _server(command, port, "/health/ready", cwd=folder, env=environment) as process:
        url = f"http://127.0.0.1:{port}"
        key = next((folder / "home").glob("*key*")).read_text().strip()
        for messages in (PROMPT["messages"], PROMPT["messages"][1:]):  # type: ignore[index]  # it is a list
            _call(url, key, "POST", f"/api/prompts/{NAME}/versions", {**PROMPT, "messages": messages})
        yield process, url, key


@contextlib.contextmanager
def _bare() -> Iterator[tuple[int, int]]:
    port = _free_port()
    with _server([sys.executable, "-c", BARE, str(port)], port, "/") as process:
        yield process, port


@contextlib.contextmanager
def _server(command: list[str], port: int, path: str, **more: Any) -> Iterator[int]:
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, **more)
    try:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=1).close()
                break
            except (urllib.error.URLError, ConnectionError):
                time.sleep(0.02)
        yield process.pid
    finally:
        process.terminate()
        process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])

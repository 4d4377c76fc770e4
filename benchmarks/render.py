"""`POST /api/prompts/{name}/render`: requests a second at 64 in flight, milliseconds at 1, and a label's way to a client.

Two floors on the same server (uvicorn), asked in the same run by the same connections: an application that says hello,
and one that does the same work and nothing else (parse, look at the key, render, JSON).
"""

from __future__ import annotations

import contextlib
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.cli import BARE
from benchmarks.gateway import NAME, PROMPT, TICKET, load
from benchmarks.gateway.load import Target
from benchmarks.serving import call, cpu_s, free_port, server, turnout
from turnout import Turnout

ROUNDS = 3
SECONDS = 4.0
SAME_WORK = """
import sys, msgspec, uvicorn
from jinja2.sandbox import ImmutableSandboxedEnvironment
ENVIRONMENT = ImmutableSandboxedEnvironment()
SYSTEM, USER = (ENVIRONMENT.from_string(text) for text in (
    "Route the ticket to one queue: billing, account, delivery or other.", "Ticket: {{ ticket }}"))
KEYS, ENCODER = {b"Bearer " + sys.argv[2].encode()}, msgspec.json.Encoder()
async def app(scope, receive, send):
    if scope["type"] != "http": return
    headers = dict(scope["headers"])
    if scope["path"] != "/" and headers.get(b"authorization") not in KEYS: raise ValueError("no key")
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"): break
    values = msgspec.json.decode(body)["variables"] if body else {"ticket": ""}
    if set(values) != {"ticket"} or not isinstance(values["ticket"], str) or len(values["ticket"]) > 4000: raise ValueError
    messages = [{"role": "system", "content": SYSTEM.render(values)}, {"role": "user", "content": USER.render(values)}]
    answer = ENCODER.encode({"messages": messages, "model": "m", "parameters": {"temperature": 0}, "version": 2,
                             "digest": "sha256:1"})
    await send({"type": "http.response.start", "status": 200, "headers": [
        (b"content-type", b"application/json"), (b"content-length", str(len(answer)).encode())]})
    await send({"type": "http.response.body", "body": answer})
uvicorn.run(app, port=int(sys.argv[1]), log_level="error", lifespan="off", access_log=False)
"""
BODY = json.dumps({"variables": {"ticket": TICKET}}).encode()


def measure() -> dict[str, Any]:
    """Medians of `ROUNDS` rounds that ask all servers in turn."""
    with (
        tempfile.TemporaryDirectory() as folder,
        turnout(Path(folder), "{m: {engine: fake, default: x}}") as (ours, port, key),
        _bare(SAME_WORK, key) as (same, same_port),
        _bare(BARE) as (bare, bare_port),
    ):
        for messages in (PROMPT["messages"], PROMPT["messages"][1:]):  # type: ignore[index]  # it is a list
            call(port, key, "POST", f"/api/prompts/{NAME}/versions", {**PROMPT, "messages": messages})
        asked = {
            "render": (ours, load.post(port, f"/api/prompts/{NAME}/render?label=latest", BODY, key)),
            "same_work": (same, load.post(same_port, "/render", BODY, key)),
            "hello": (bare, Target(bare_port, b"GET / HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n")),
        }
        rounds = [{name: _round(*one) for name, one in asked.items()} for _ in range(ROUNDS)]
        moved_ms = _label_ms(port, key)
    figures = {
        unit: {name: round(statistics.median(one[name][unit] for one in rounds), 3) for name in asked}
        for unit in rounds[0]["render"]
    }
    ratios = {
        f"{unit}_to_{floor}": round(found["render"] / found[floor], 2)
        for unit, found in figures.items()
        for floor in ("same_work", "hello")
    }
    goals = {"requests_per_s_at_64_to_same_work": 0.75}
    return {**figures, "ratios": ratios, "goals": goals, "moved_label_reaches_a_client_ms": moved_ms}


def _round(process: int, target: Target) -> dict[str, float]:
    """Requests a second at 64 in flight, the server's CPU milliseconds for each, and the median milliseconds at 1."""
    before = cpu_s(process)
    many = load.ask(target, 64, SECONDS)
    cpu_ms = (cpu_s(process) - before) / len(many.ms) * 1000
    one = load.ask(target, 1, requests=1000)
    if many.refused or one.refused:
        raise RuntimeError(f"refused: {(many.refused + one.refused)[0][:500]!r}")
    return {"requests_per_s_at_64": many.per_s, "server_cpu_ms_a_request": cpu_ms, "p50_ms_at_1": one.quantile(0.5)}


def _label_ms(port: int, key: str) -> float:
    """From the answer of the request that moves a label to the client that gives the other version; a median of 20."""
    taken = []
    with Turnout(f"http://127.0.0.1:{port}", key) as client:
        for number in range(21):
            version = 1 + number % 2
            call(port, key, "PUT", f"/api/prompts/{NAME}/labels/staging", {"version": version})
            started = time.perf_counter()
            while client.prompt(NAME, label="staging").version != version:
                time.sleep(0.0002)
            taken.append((time.perf_counter() - started) * 1000)
            time.sleep(0.05 if number else 1.0)  # the first fetches, and opens the stream
    return round(statistics.median(taken[1:]), 2)


@contextlib.contextmanager
def _bare(code: str, *arguments: str) -> Iterator[tuple[int, int]]:
    port = free_port()
    with server([sys.executable, "-c", code, str(port), *arguments], port, "/") as process:
        yield process, port

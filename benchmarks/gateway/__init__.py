"""The request path beside going direct, LiteLLM's proxy and TensorZero's embedded gateway, in one run.

Turnout chooses by a route of two variants, checks the variables, renders, asks and records; the peers forward. One
server process each, one upstream that answers at once, the same connections asking all of them in turn.
`TURNOUT_BENCH_PEERS` is a folder in which the peers are installed (kept); without it they are left out.
`TURNOUT_BENCH_REQUESTS` (1,000,000) and `TURNOUT_BENCH_SOAK_S` (600) bound the soak: it ends when both are reached.
"""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.gateway import load, peers
from benchmarks.gateway.load import Taken, Target
from benchmarks.serving import call, cpu_s, memory_mb, turnout

ROUNDS = 3
SECONDS = 4.0
IN_FLIGHT = (1, 16, 64)
STREAMS, STREAM_ROUNDS = 10, 6
GAP_MS = 3.0
FIRST_REQUESTS = 10_000
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
TICKET = "I was charged twice for the same parcel."
CHAT = {"model": "bench", "messages": [*PROMPT["messages"][:1], {"role": "user", "content": f"Ticket: {TICKET}"}]}  # type: ignore[index]  # it is a list
GOALS = {
    "added_p50_ms_at_1": 0.6,
    "requests_per_s_at_64": 2500,
    "server_cpu_ms_a_request": 0.40,
    "times_less_than_litellm": 40,
    "added_first_token_ms": 0.3,
    "memory_growth": 0.05,
}


def measure() -> dict[str, Any]:
    """Medians of `ROUNDS` rounds over all targets, streams, then the soak."""
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        fast, slow = (stack.enter_context(_answering("upstream", gap_ms)) for gap_ms in (0.0, GAP_MS))
        relay = stack.enter_context(_answering("relay", slow))
        ours, port, key = stack.enter_context(turnout(folder, _models(fast, slow)))
        _register(port, key)
        targets = {"direct": (None, _chat(fast)), "turnout": (ours, _prompt(port, key, NAME))}
        streams = {
            "direct": _chat(slow, stream=True),
            "relay": _chat(relay, stream=True),
            "turnout": _prompt(port, key, f"{NAME}.slow", stream=True),
        }
        python = (
            peers.installed(Path(os.environ["TURNOUT_BENCH_PEERS"])) if "TURNOUT_BENCH_PEERS" in os.environ else None
        )
        if python:
            process, proxy = stack.enter_context(peers.litellm(python, folder, fast))
            targets["litellm"] = (process, _chat(proxy, peers.LITELLM_KEY))
        figures = _figures([{who: _round(*target) for who, target in targets.items()} for _ in range(ROUNDS)])
        if python:
            figures["tensorzero_embedded"] = peers.tensorzero(python, folder, fast, SECONDS, IN_FLIGHT)
        return {
            "goals": GOALS,
            "peers": peers.versions(python) if python else {},
            **figures,
            "added": _added(figures),
            "streaming": _streaming(streams),
            "soak": _soak(ours, targets["turnout"][1], port, key),
        }


def _models(fast: int, slow: int) -> str:
    models = {
        alias: {"engine": "openai", "base_url": f"http://127.0.0.1:{port}/v1", "model": "bench"}
        for alias, port in (("m", fast), ("slow", slow))
    }
    return json.dumps(models)


def _register(port: int, key: str) -> None:
    """Two prompts, each with a route of two versions that share its traffic."""
    for name, model in ((NAME, "m"), (f"{NAME}.slow", "slow")):
        for messages in (PROMPT["messages"], PROMPT["messages"][1:]):  # type: ignore[index]  # it is a list
            call(port, key, "POST", f"/api/prompts/{name}/versions", {**PROMPT, "model": model, "messages": messages})
        shares = {f"{name}@{number}+{model}": 50.0 for number in (1, 2)}
        call(port, key, "PUT", f"/api/prompts/{name}/labels/production", {"version": 1, "reason": "benchmark"})
        call(port, key, "PUT", f"/api/routes/{name}", {"variants": shares, "reason": "benchmark"})


def _chat(port: int, key: str = "none", *, stream: bool = False) -> Target:
    return load.post(port, "/v1/chat/completions", _body(CHAT, stream), key)


def _prompt(port: int, key: str, name: str, *, stream: bool = False) -> Target:
    asked = {"model": name, "messages": [], "variables": {"ticket": TICKET}, "user": "customer-7"}
    return load.post(port, "/v1/chat/completions", _body(asked, stream), key)


def _body(asked: dict[str, Any], stream: bool) -> bytes:
    return json.dumps({**asked, **({"stream": True} if stream else {})}).encode()


def _round(process: int | None, target: Target) -> dict[str, dict[str, float]]:
    return {str(number): _taken(process, target, number) for number in IN_FLIGHT}


def _taken(process: int | None, target: Target, in_flight: int) -> dict[str, float]:
    load.ask(target, in_flight, 0.5)
    before = cpu_s(process) if process else 0.0
    taken = load.ask(target, in_flight, SECONDS)
    _refuse_faults(taken)
    used = {"cpu_ms_a_request": (cpu_s(process) - before) / len(taken.ms) * 1000} if process else {}
    return {"p50_ms": taken.quantile(0.5), "p99_ms": taken.quantile(0.99), "requests_per_s": taken.per_s, **used}


def _refuse_faults(taken: Taken) -> None:
    if taken.refused:
        raise RuntimeError(f"{len(taken.refused)} requests were refused, the first: {taken.refused[0][:500]!r}")


def _figures(rounds: list[dict[str, dict[str, dict[str, float]]]]) -> dict[str, Any]:
    """Medians over the rounds."""
    return {
        who: {
            number: {name: round(statistics.median(one[who][number][name] for one in rounds), 3) for name in figures}
            for number, figures in found.items()
        }
        for who, found in rounds[0].items()
    }


def _added(figures: dict[str, Any]) -> dict[str, Any]:
    """Milliseconds above going direct, shares of its requests a second, and how many times less than LiteLLM adds."""
    direct = figures["direct"]
    added: dict[str, Any] = {}
    for who in figures.keys() - {"direct", "tensorzero_embedded"}:
        added[who] = {
            number: {
                "p50_ms": round(found["p50_ms"] - direct[number]["p50_ms"], 3),
                "p99_ms": round(found["p99_ms"] - direct[number]["p99_ms"], 3),
                "share_of_direct_requests_per_s": round(found["requests_per_s"] / direct[number]["requests_per_s"], 3),
            }
            for number, found in figures[who].items()
        }
    if "litellm" in added:
        times = added["litellm"]["1"]["p50_ms"] / added["turnout"]["1"]["p50_ms"]
        added["times_less_than_litellm_at_1"] = round(times, 1)
    if "tensorzero_embedded" in figures:
        whole, theirs = figures["turnout"]["1"]["p50_ms"], figures["tensorzero_embedded"]["1"]["p50_ms"]
        added["p50_ms_at_1_over_tensorzero_embedded"] = round(whole / theirs, 2)
    return added


def _streaming(targets: dict[str, Target]) -> dict[str, Any]:
    """Milliseconds to the first content and from the upstream's sending of a chunk to its arrival, medians.

    A relay that passes bytes on is the floor: what any process between the two adds. The targets are asked in turn, so that
    what else the machine does falls on all of them.
    """
    rounds = [{who: load.stream(target, STREAMS) for who, target in targets.items()} for _ in range(STREAM_ROUNDS)]
    found = {
        who: {
            name: round(statistics.median(ms for each in rounds for ms in each[who][place]), 3)
            for place, name in enumerate(("first_ms", "chunk_ms"))
        }
        for who in targets
    }
    added = {
        f"added_{name}{of}": round(found[who][name] - found["direct"][name], 3)
        for who, of in (("turnout", ""), ("relay", "_of_a_relay"))
        for name in found["direct"]
    }
    return {**found, **added, "streams": STREAMS * STREAM_ROUNDS, "gap_ms": GAP_MS}


def _soak(process: int, target: Target, port: int, key: str) -> dict[str, Any]:
    """Memory after many requests beside that after a few, and every answer that was not 200."""
    requests = int(os.environ.get("TURNOUT_BENCH_REQUESTS", "1000000"))
    seconds = float(os.environ.get("TURNOUT_BENCH_SOAK_S", "600"))
    load.ask(target, 64, requests=FIRST_REQUESTS)
    before = memory_mb(process)
    asked, took, refused, ms = 0, 0.0, 0, []
    while asked < requests or took < seconds:
        taken = load.ask(target, 64, requests=50_000)
        asked, took, refused = asked + len(taken.ms), took + taken.seconds, refused + len(taken.refused)
        ms.append(taken.quantile(0.99))
    after = memory_mb(process)
    return {
        "requests": asked,
        "seconds": round(took, 1),
        "refused": refused,
        "p99_ms": round(statistics.median(ms), 3),
        "worst_p99_ms": round(max(ms), 3),
        "memory_mb_after_10000": round(before, 1),
        "memory_mb_at_the_end": round(after, 1),
        "memory_growth": round(after / before - 1, 4),
        "rows_dropped": _metric(port, key, "turnout_request_log_dropped"),
    }


def _metric(port: int, key: str, name: str) -> float:
    request = urllib.request.Request(f"http://127.0.0.1:{port}/metrics", headers={"authorization": f"Bearer {key}"})
    with urllib.request.urlopen(request, timeout=30) as reply:  # noqa: S310 - our own server
        lines = reply.read().decode().splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith(name))


@contextlib.contextmanager
def _answering(module: str, told: float) -> Iterator[int]:
    """A process of this package that answers, by its port."""
    command = [sys.executable, "-m", f"benchmarks.gateway.{module}", str(told)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield int(process.stdout.readline())
    finally:
        process.kill()
        process.wait()

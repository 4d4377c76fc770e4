"""The Python client with a prompt in its cache: microseconds to get it and fill it, beside a dict and `str.format`."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Callable
from typing import Any

import httpx

from turnout import AsyncTurnout, Turnout

ROUNDS = 9
CALLS = 20_000
NAME = "support.triage"
TICKET = "I was charged twice for the same parcel, and the second one has not come."
SYSTEM = "Route the ticket to one queue: billing, account, delivery or other. Answer with its name alone."
TEMPLATE = {
    "name": NAME,
    "version": 1,
    "digest": "sha256:1",
    "model": "m",
    "parameters": {"temperature": 0, "max_tokens": 12},
    "variables": {"ticket": {"type": "string", "maxLength": 4000}},
    "placeholders": {},
    "local": True,
    "messages": [
        {"role": "system", "content": [{"text": SYSTEM}]},
        {"role": "user", "content": [{"text": "Ticket: "}, {"variable": "ticket"}]},
    ],
    "max_characters": 2_097_152,
}
FLOOR = {NAME: (SYSTEM, "Ticket: {ticket}")}


def measure() -> dict[str, Any]:
    """Microseconds a call, medians of `ROUNDS`, and the ratio to the floor."""
    transport = httpx.MockTransport(lambda _: httpx.Response(200, json=TEMPLATE, headers={"etag": '"sha256:1"'}))
    with Turnout(transport=transport, listen=False, ttl_s=3600) as client:
        fetch_us = _microseconds(lambda: client.prompt(NAME))
        both_us = _microseconds(lambda: client.prompt(NAME).render(ticket=TICKET))
    async_us = asyncio.run(_asynchronous(transport))
    floor_us = _microseconds(_floor)
    return {
        "microseconds": {
            "fetch": fetch_us,
            "fetch_and_render": both_us,
            "async": async_us,
            "dict_and_format": floor_us,
        },
        "ratios": {"fetch_and_render_to_floor": round(both_us / floor_us, 1)},
    }


def _floor() -> list[dict[str, str]]:
    system, user = FLOOR[NAME]
    return [{"role": "system", "content": system}, {"role": "user", "content": user.format(ticket=TICKET)}]


def _microseconds(call: Callable[[], Any]) -> float:
    def round_s() -> float:
        started = time.perf_counter()
        for _ in range(CALLS):
            call()
        return time.perf_counter() - started

    return round(statistics.median(round_s() for _ in range(ROUNDS)) / CALLS * 1e6, 2)


async def _asynchronous(transport: httpx.MockTransport) -> float:
    """The same, awaited."""
    taken = []
    async with AsyncTurnout(transport=transport, listen=False, ttl_s=3600) as client:
        for _ in range(ROUNDS):
            started = time.perf_counter()
            for _ in range(CALLS):
                await (await client.prompt(NAME)).render(ticket=TICKET)
            taken.append(time.perf_counter() - started)
    return round(statistics.median(taken) / CALLS * 1e6, 2)

"""The floor: a bare aiohttp loop. `python -m benchmarks.suites.loop BASE_URL CASES IN_FLIGHT`."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Iterator

import aiohttp


async def _work(session: aiohttp.ClientSession, url: str, turns: Iterator[int]) -> None:
    for number in turns:
        content = f"Which queue is ticket {number} for?"
        body = {"model": "bench", "messages": [{"role": "user", "content": content}], "temperature": 0}
        async with session.post(url, json=body) as reply:
            text = json.loads(await reply.read())["choices"][0]["message"]["content"]
            assert "billing" in text
            assert "sorry" not in text
            assert text.startswith("The queue")


async def _main(base_url: str, cases: int, in_flight: int) -> None:
    turns = iter(range(cases))
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=in_flight)) as session:
        await asyncio.gather(*(_work(session, base_url + "/chat/completions", turns) for _ in range(in_flight)))


if __name__ == "__main__":
    asyncio.run(_main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))

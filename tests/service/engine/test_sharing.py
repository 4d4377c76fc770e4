from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any, cast

import pytest

from service.engine.sharing import Memory, Sharing

WHOLE = Memory("fake:0", 500, 10, 800, 60, 80)
PART = Memory("fake:0", 500, 10, 100, 8, 10)


class FakeDevice:
    """Holds `WHOLE`, and `PART` while something is trained."""

    def __init__(self) -> None:
        self.now = WHOLE

    def memory(self) -> Memory:
        return self.now

    async def limit(self, *, shared: bool) -> None:
        await asyncio.sleep(0)
        self.now = PART if shared else WHOLE


def opened(sharing: Sharing) -> AsyncGenerator[bytes, None]:
    return cast("AsyncGenerator[bytes, None]", sharing.take())


async def until(condition: Any) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110  # what is waited for sets no event
            await asyncio.sleep(0)


def test_a_training_is_told_what_stays_and_what_is_given_back_until_it_ends() -> None:
    async def main() -> None:
        holder = FakeDevice()
        stream = opened(Sharing(holder))
        told = json.loads(await anext(stream))
        assert told["weights_bytes"] == 500
        assert told["given_back_bytes"] == 880 - 110
        assert holder.now is PART
        await stream.aclose()
        await until(lambda: holder.now is WHOLE)

    asyncio.run(main())


def test_the_reserve_comes_back_when_the_last_of_two_trainings_has_died() -> None:
    async def main() -> None:
        holder = FakeDevice()
        sharing = Sharing(holder)
        first, second = opened(sharing), opened(sharing)
        await anext(first)
        assert json.loads(await anext(second))["given_back_bytes"] == 0  # the first one has it
        dying = asyncio.ensure_future(anext(first))
        await asyncio.sleep(0)
        dying.cancel()  # as the server does when the connection is gone
        await until(lambda: dying.done() and sharing.open == 1)
        await asyncio.sleep(0.01)
        assert holder.now is PART
        await second.aclose()
        await until(lambda: holder.now is WHOLE)

    asyncio.run(main())


def test_a_part_of_the_reserve_is_left_and_never_less_than_what_is_used() -> None:
    pytest.importorskip("torch")
    from service.engine.limits import Limits

    limits = Limits(kv_bytes=800, prefix_bytes=160)
    assert (limits.shared(0).kv_bytes, limits.shared(0).prefix_bytes) == (100, 20)
    assert limits.shared(300).kv_bytes == 300
    assert limits.shared(900).kv_bytes == 800


@pytest.mark.integration  # a tiny model behind HTTP
def test_an_engine_gives_memory_back_to_a_training_and_answers_on(tiny_folder: Path, tmp_path: Path) -> None:
    from service.engine.asks import Ask
    from service.engine_shares import shared
    from tests.service.engine.served import TOKEN, serving, until

    prompt = {"role": "user", "content": "a beginning that is long enough to be kept for those that come after it"}
    with serving(tiny_folder, tmp_path / "adapters") as (generator, url):
        state = {"base_url": url.removesuffix("/v1"), "token": TOKEN}
        (tmp_path / "engine-tiny.json").write_text(json.dumps(state))
        ask = Ask((prompt,), max_tokens=3, temperature=0)
        before = [generator.submit(ask) for _ in range(3)][-1].result(30)
        whole = generator.memory()
        with shared(tmp_path, "auto") as shares:
            assert [(share.model, share.device) for share in shares] == [("tiny", "cpu")]
            assert shares[0].weights_bytes == whole.weights_bytes > 0
            assert shares[0].given_back_bytes == whole.reserve_bytes * 7 // 8
            assert generator.memory().reserve_bytes == whole.reserve_bytes // 8
            assert generator.submit(ask).result(30).choices[0].text == before.choices[0].text
        until(lambda: generator.memory().reserve_bytes == whole.reserve_bytes)

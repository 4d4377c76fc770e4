"""What is kept to be answered again is bounded, and one question is asked once."""

from __future__ import annotations

import asyncio

import pytest

from service.errors import IdempotencyMismatch
from service.replays import Kept, Replays


class Clock:
    at_s = 0.0

    def __call__(self) -> float:
        return self.at_s


def test_a_value_lives_as_long_as_was_said() -> None:
    clock = Clock()
    kept: Kept[str] = Kept(100_000, clock)
    kept.put("a", "x", 10, 60.0)
    clock.at_s = 59.9
    assert kept.get("a") == "x"
    clock.at_s = 60.0
    assert kept.get("a") is None
    assert (len(kept), kept.bytes) == (0, 0)


def test_the_least_recently_used_goes_first_and_memory_is_bounded() -> None:
    kept: Kept[int] = Kept(10_000, Clock())
    for number in range(1000):
        kept.put(number, number, 600, 60.0)
        kept.get(0)
    assert kept.bytes <= 10_000
    assert kept.get(0) == 0
    assert kept.get(999) == 999
    assert kept.get(500) is None


def test_one_large_value_does_not_drive_out_the_others() -> None:
    kept: Kept[int] = Kept(10_000, Clock())
    kept.put("small", 1, 100, 60.0)
    kept.put("large", 2, 9_000, 60.0)
    assert kept.get("small") == 1
    assert kept.get("large") is None


def test_putting_again_counts_once() -> None:
    kept: Kept[int] = Kept(10_000, Clock())
    for _ in range(100):
        kept.put("a", 1, 1_000, 60.0)
    assert kept.bytes == 1_400


def test_two_at_once_ask_once() -> None:
    async def both() -> tuple[str | None, str | None]:
        replays: Replays[str] = Replays()
        first = await replays.begin("k", b"body")
        second = asyncio.create_task(replays.begin("k", b"body"))
        await asyncio.sleep(0)
        assert not second.done()
        replays.end("k", "answer", 10)
        return first, await second

    assert asyncio.run(both()) == (None, "answer")


def test_the_same_key_with_another_body_is_refused_while_asking_and_after() -> None:
    async def ask() -> None:
        replays: Replays[str] = Replays()
        await replays.begin("k", b"body")
        with pytest.raises(IdempotencyMismatch):
            await replays.begin("k", b"other")
        replays.end("k", "answer", 10)
        with pytest.raises(IdempotencyMismatch):
            await replays.begin("k", b"other")
        assert await replays.begin("k", b"body") == "answer"

    asyncio.run(ask())


def test_of_those_who_wait_for_one_that_fails_the_first_asks_and_the_others_wait_for_it() -> None:
    async def ask() -> list[str | None]:
        replays: Replays[str] = Replays()
        await replays.begin("k", b"body")
        waiting = [asyncio.create_task(replays.begin("k", b"body")) for _ in range(3)]
        await asyncio.sleep(0)
        replays.end("k", None)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert sum(task.done() for task in waiting) == 1
        replays.end("k", "answer", 10)
        return await asyncio.gather(*waiting)

    assert sorted(asyncio.run(ask()), key=str) == [None, "answer", "answer"]


def test_one_who_leaves_does_not_take_the_answer_from_the_others() -> None:
    async def ask() -> str | None:
        replays: Replays[str] = Replays()
        await replays.begin("k", b"body")
        leaving, staying = (asyncio.create_task(replays.begin("k", b"body")) for _ in range(2))
        await asyncio.sleep(0)
        leaving.cancel()
        await asyncio.sleep(0)
        replays.end("k", "answer", 10)
        return await staying

    assert asyncio.run(ask()) == "answer"

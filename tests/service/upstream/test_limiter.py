"""Slots and the queue before them."""

from __future__ import annotations

import asyncio
import time

import pytest

from service.upstream.limiter import Beside, Limiter, QueueRefused
from service.upstream.policy import Limits


def limiter(in_flight: int = 1, queued: int = 2, queue_s: float = 5.0) -> Limiter:
    return Limiter(Limits(max_in_flight=in_flight, max_queued=queued, queue_s=queue_s))


def test_who_waits_longest_comes_first() -> None:
    async def main() -> None:
        slots, order = limiter(queued=9), []

        async def one(number: int) -> None:
            await slots.enter(5.0)
            order.append(number)
            await asyncio.sleep(0.01)
            slots.leave()

        await asyncio.gather(*map(one, range(6)))
        assert order == [0, 1, 2, 3, 4, 5]
        assert (slots.in_flight, slots.queued) == (0, 0)

    asyncio.run(main())


def test_a_full_queue_refuses_at_once_and_a_long_wait_after_its_time() -> None:
    async def main() -> None:
        slots = limiter(queue_s=0.1)
        await slots.enter(5.0)
        waiting = [asyncio.create_task(slots.enter(5.0)) for _ in range(2)]
        await asyncio.sleep(0)
        started = time.monotonic()
        with pytest.raises(QueueRefused, match="1 questions are under way and 2 wait"):
            await slots.enter(5.0)
        assert time.monotonic() - started < 0.05
        for task in waiting:
            with pytest.raises(QueueRefused, match=r"none of 1 questions under way ended within 0\.1 s"):
                await task
        slots.leave()
        with pytest.raises(QueueRefused, match=r"within 0\.02 s"):
            await asyncio.gather(slots.enter(5.0), slots.enter(0.02))  # the shorter of both times
        assert (slots.in_flight, slots.queued) == (1, 0)

    asyncio.run(main())


def test_who_leaves_the_queue_loses_no_slot() -> None:
    async def main() -> None:
        slots = limiter()
        await slots.enter(5.0)
        first, second = (asyncio.create_task(slots.enter(5.0)) for _ in range(2))
        await asyncio.sleep(0)
        first.cancel()
        await asyncio.wait([first])
        slots.leave()
        await second
        assert slots.in_flight == 1
        third = asyncio.create_task(slots.enter(5.0))
        await asyncio.sleep(0)
        slots.leave()  # it is the third's turn …
        third.cancel()  # … who has just left
        await asyncio.wait([third])
        assert (slots.in_flight, slots.queued) == (0, 0)
        assert slots.try_enter()

    asyncio.run(main())


def test_slots_beside_are_given_back_where_none_of_the_whole_is_free() -> None:
    async def main() -> None:
        slots = limiter(in_flight=2)
        beside = Beside(Limits(max_in_flight=2), slots)
        await asyncio.gather(slots.enter(5.0), slots.enter(5.0))
        with pytest.raises(QueueRefused, match=r"none of 2 questions under way ended within 0\.0"):
            await beside.enter(0.05)
        slots.leave()
        await beside.enter(5.0)
        beside.leave()
        assert (slots.in_flight, slots.queued, beside.queued) == (1, 0, 0)

    asyncio.run(main())

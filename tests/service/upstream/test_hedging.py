"""A second question after a while."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from service.upstream.hedging import hedged


class Questions:
    """Each takes and gives what it is told; `cancelled` are those that were hung up on, `dropped` the late answers."""

    def __init__(self, *plans: tuple[float, str | Exception]) -> None:
        self.plans = list(plans)
        self.begun = 0
        self.cancelled: list[int] = []
        self.dropped: list[str] = []

    async def ask(self) -> str:
        number, (takes_s, gives) = self.begun, self.plans[self.begun]
        self.begun += 1
        try:
            await asyncio.sleep(takes_s)
        except asyncio.CancelledError:
            self.cancelled.append(number)
            raise
        if isinstance(gives, Exception):
            raise gives
        return gives

    async def drop(self, answer: str) -> None:
        self.dropped.append(answer)

    def run(self, may_hedge: Callable[[], bool] = lambda: True) -> str:
        async def main() -> str:
            try:
                return await hedged(self.ask, 0.05, may_hedge, self.drop)
            finally:
                assert len(asyncio.all_tasks()) == 1

        return asyncio.run(main())


def test_a_quick_answer_is_asked_for_once() -> None:
    questions = Questions((0.0, "first"))
    assert questions.run() == "first"
    assert questions.begun == 1


def test_the_first_answer_wins_and_the_other_is_hung_up_on() -> None:
    questions = Questions((5.0, "first"), (0.0, "second"))
    assert questions.run() == "second"
    assert questions.cancelled == [0]
    questions = Questions((0.1, "first"), (5.0, "second"))
    assert questions.run() == "first"
    assert questions.cancelled == [1]


def test_there_is_no_second_where_there_may_be_none() -> None:
    questions = Questions((0.1, "first"))
    assert questions.run(lambda: False) == "first"
    assert questions.begun == 1


def test_a_failure_waits_for_the_other() -> None:
    assert Questions((0.1, "first"), (0.0, ValueError("second"))).run() == "first"
    assert Questions((0.1, ValueError("first")), (0.1, "second")).run() == "second"
    with pytest.raises(ValueError, match="first"):
        Questions((0.1, ValueError("first")), (0.0, ValueError("second"))).run()


def test_a_failure_before_its_time_is_not_hedged() -> None:
    questions = Questions((0.0, ValueError("first")))
    with pytest.raises(ValueError, match="first"):
        questions.run()
    assert questions.begun == 1


def test_two_answers_at_once_give_one_and_drop_the_other() -> None:
    async def main() -> None:
        both, dropped = asyncio.Event(), []

        async def ask(names: list[str]) -> str:
            name = names.pop()
            await both.wait()
            return name

        async def drop(answer: str) -> None:
            dropped.append(answer)

        names = ["second", "first"]
        task = asyncio.create_task(hedged(lambda: ask(names), 0.01, lambda: True, drop))
        await asyncio.sleep(0.05)
        both.set()
        assert await task == "first"
        assert dropped == ["second"]

    asyncio.run(main())


def test_to_cancel_it_is_to_cancel_both() -> None:
    questions = Questions((5.0, "first"), (5.0, "second"))

    async def main() -> None:
        task: asyncio.Task[Any] = asyncio.create_task(_hedged(questions))
        await asyncio.sleep(0.1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(main())
    assert questions.cancelled == [0, 1]


def _hedged(questions: Questions) -> Coroutine[Any, Any, str]:
    return hedged(questions.ask, 0.05, lambda: True, questions.drop)

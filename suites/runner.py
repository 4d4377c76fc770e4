"""Runs a suite: cases streamed through a few workers, every one of them accounted for.

A crash of the model or of an assertion is an errored case. An endpoint that is plainly dead stops the run within
seconds: what was not asked is skipped, and the summary says why.
"""

from __future__ import annotations

import asyncio
import inspect
import random
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator

from prompts.errors import ModelError, ModelOverloaded, ModelTimeout, ModelUnavailable, TurnoutError
from prompts.messages import Completion
from suites.assertions import Output
from suites.case import Case
from suites.judge import Judged, judge
from suites.results import CaseResult, Price, RunSummary, Tally

Ask = Callable[[Case, int], Awaitable[Completion]]
OnResult = Callable[[CaseResult], Awaitable[None] | None]
Turn = tuple[int, Case, int]  # index of the case, the case, its repeat

FIRST_WAIT_S = 0.25
LONGEST_WAIT_S = 8.0
LONGEST_RETRY_AFTER_S = 60.0
_DEAD_AT_FIRST = 2  # rounds of all workers that found nothing, where nothing has ever answered
_DEAD_LATER = 10  # the same after it had answered: it may be restarting
_FEWEST_ATTEMPTS = 3


async def run_suite(
    cases: Iterable[Case],
    ask: Ask,
    *,
    concurrency: int = 16,
    repeat: int = 1,
    pass_k: int | None = None,
    price: Price | None = None,
    on_result: OnResult | None = None,
    finished: Iterable[CaseResult] = (),
    timeout_s: float = 60.0,
    retries: int = 2,
) -> RunSummary:
    """Ask every case `repeat` times, `concurrency` at once, and judge the answers.

    `on_result` is given each result as it comes; what it raises ends the run. `finished` holds results of an earlier,
    interrupted run: they are counted and not asked again, unless they were skipped. `timeout_s` bounds one attempt;
    `retries` is how often a failed attempt is repeated where its error says that this may help.
    """
    run = _Run(ask, Tally(repeat, pass_k), price, on_result, timeout_s, retries)
    started = time.perf_counter()
    done = run.take_finished(finished)
    turns = _turns(cases, repeat, done)
    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(max(1, concurrency)):
                group.create_task(run.work(turns))
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None
    return run.tally.summary(time.perf_counter() - started, run.stopped)


def _turns(cases: Iterable[Case], repeat: int, done: set[tuple[str, int]]) -> Iterator[Turn]:
    for index, case in enumerate(cases):
        for number in range(repeat):
            if not done or (case.id, number) not in done:
                yield index, case, number


class _Run:
    """The state that the workers of one run share."""

    def __init__(
        self, ask: Ask, tally: Tally, price: Price | None, on_result: OnResult | None, timeout_s: float, retries: int
    ) -> None:
        self.ask = ask
        self.tally = tally
        self.price = price
        self.on_result = on_result
        self.timeout_s = timeout_s
        self.retries = retries
        self.stopped = ""
        self._stop = asyncio.Event()
        self._busy = 0
        self._answered = False
        self._unreachable = 0  # attempts in a row that found nothing

    def take_finished(self, finished: Iterable[CaseResult]) -> set[tuple[str, int]]:
        done = set()
        for result in finished:
            if result.status != "skipped" and (result.case_id, result.repeat) not in done:
                done.add((result.case_id, result.repeat))
                self.tally.add(result)
        return done

    async def work(self, turns: Iterator[Turn]) -> None:
        """Take turns until there are none left; all workers share one iterator, so no case is held for later."""
        for turn in turns:
            result = _skipped(turn, self.stopped) if self.stopped else await self._turn(turn)
            self.tally.add(result)
            if self.on_result is not None:
                waiting = self.on_result(result)
                if inspect.isawaitable(waiting):
                    await waiting

    async def _turn(self, turn: Turn) -> CaseResult:
        self._busy += 1
        try:
            return await self._with_retries(turn)
        finally:
            self._busy -= 1

    async def _with_retries(self, turn: Turn) -> CaseResult:
        for attempt in range(self.retries + 1):
            try:
                async with asyncio.timeout(self.timeout_s):
                    completion = await self.ask(turn[1], turn[2])
            except (Exception, asyncio.CancelledError) as raised:  # whatever a model raises is this case's outcome
                if _is_cancelled():
                    raise
                error = self._timed(raised)
                self._note(error)
                if attempt == self.retries or not await self._may_retry(error, attempt):
                    return _errored(turn, error, attempt)
            else:
                self._answered, self._unreachable = True, 0
                return self._judged(turn, completion, attempt)
        raise AssertionError("the last attempt returns")

    def _timed(self, error: BaseException) -> BaseException:
        return ModelTimeout(f"no answer within {self.timeout_s:g} s") if isinstance(error, TimeoutError) else error

    def _note(self, error: BaseException) -> None:
        """Count attempts that found nothing, and stop the run once they leave no doubt."""
        if not isinstance(error, ModelUnavailable | ModelTimeout):
            self._answered = self._answered or isinstance(error, ModelError)  # it refused: so it is there
            self._unreachable = 0
            return
        if isinstance(error, ModelTimeout) and self._answered:
            return  # slow on this case; it has shown that it lives
        self._unreachable += 1
        rounds = _DEAD_LATER if self._answered else _DEAD_AT_FIRST
        if self._unreachable >= max(_FEWEST_ATTEMPTS, rounds * self._busy) and not self.stopped:
            self.stopped = f"model unreachable: {error}"
            self._stop.set()

    async def _may_retry(self, error: BaseException, attempt: int) -> bool:
        """Wait before the next attempt; False where none is worth making."""
        if not (isinstance(error, ModelError) and error.retryable) or self.stopped:
            return False
        asked_for = error.retry_after_s if isinstance(error, ModelOverloaded) else None
        if asked_for is not None and asked_for > LONGEST_RETRY_AFTER_S:
            return False
        wait_s = min(LONGEST_WAIT_S, FIRST_WAIT_S * 2**attempt) * random.uniform(0.5, 1.0)  # noqa: S311 - spreads load
        try:
            await asyncio.wait_for(self._stop.wait(), max(wait_s, asked_for or 0.0))
        except TimeoutError:
            return True
        return False

    def _judged(self, turn: Turn, completion: Completion, attempt: int) -> CaseResult:
        index, case, repeat = turn
        cost_usd = self.price.cost_usd(completion.usage) if self.price else None
        latency_ms = completion.latency_s * 1000
        judgement = judge(case, Output(completion.text, latency_ms, cost_usd))
        return CaseResult(
            case_id=case.id,
            index=index,
            repeat=repeat,
            status=judgement.status,
            score=judgement.score,
            outcomes=judgement.outcomes,
            output=completion.text,
            latency_ms=latency_ms,
            usage=completion.usage,
            cost_usd=cost_usd,
            error=judgement.error,
            retries=attempt,
            tags=case.tags,
            must_pass=case.must_pass,
        )


def _is_cancelled() -> bool:
    """Whether this worker itself is being cancelled; a client that cancels itself would else lose a case in silence."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _skipped(turn: Turn, reason: str) -> CaseResult:
    index, case, repeat = turn
    return CaseResult(case.id, index, repeat, "skipped", error=reason, tags=case.tags, must_pass=case.must_pass)


def _errored(turn: Turn, error: BaseException, attempt: int) -> CaseResult:
    index, case, repeat = turn
    told = str(error) if isinstance(error, TurnoutError) and str(error) else f"{type(error).__name__}: {error}"
    return CaseResult(
        case_id=case.id,
        index=index,
        repeat=repeat,
        status="errored",
        outcomes=tuple(
            Judged(spec.type, spec.metric, spec.weight, "errored", None, "no answer") for spec in case.asserts
        ),
        error=told,
        retries=attempt,
        tags=case.tags,
        must_pass=case.must_pass,
    )

"""Runs a suite: cases streamed through a few workers, every one of them accounted for.

A crash of the model or of an assertion is an errored case. An endpoint that is plainly dead stops the run within
seconds: what was not asked is skipped, and the summary says why.
"""

from __future__ import annotations

import asyncio
import random
import re
import time
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

from prompts.errors import (
    NO_COMPLETION,
    ModelError,
    ModelOverloaded,
    ModelRefused,
    ModelTimeout,
    ModelUnavailable,
    TurnoutError,
)
from prompts.messages import Completion
from suites.assertions import Output, Scene
from suites.assertions.folders import ScriptFolders
from suites.assertions.spec import Aids
from suites.case import Case
from suites.judge import Judged, judge
from suites.pace import Pace, Patience, Silence
from suites.results import CaseResult, Price, RunSummary, Tally, set_aside

Ask = Callable[[Case, int], Awaitable[Completion]]
AidsFor = Callable[[Case, int, str], Aids]  # for an answer, by its case, its repeat and its text
OnResult = Callable[[CaseResult], Awaitable[object] | None]
Turn = tuple[int, Case, int]  # index of the case, the case, its repeat

FIRST_WAIT_S = 0.25
LONGEST_WAIT_S = 8.0
LONGEST_RETRY_AFTER_S = 60.0
OVERLOADED_RETRIES = 12  # of one case: an endpoint that refuses for its load has not failed the case
OVERLOADED_FOR_S = 120.0  # without a single answer
_DEAD_AT_FIRST = 2  # rounds of all workers that found nothing, where nothing has ever answered
_DEAD_LATER = 10  # the same after it had answered: it may be restarting
FEWEST_ATTEMPTS = 3  # no run is stopped for less
_ID = re.compile(r"\b(?=\w*\d)[\w-]{8,}")  # of a request: what tells one refusal from the next of the same cause


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
    aids: AidsFor | None = None,
    chosen: Collection[int] | None = None,
    tools: Sequence[Mapping[str, Any]] = (),
    folders: ScriptFolders | None = None,
    on_wait: Callable[[str], object] | None = None,
    hopeless: Callable[[], str] = str,
) -> RunSummary:
    """Ask every case `repeat` times, `concurrency` at once, and judge the answers.

    `on_result` is given each result as it comes; what it raises ends the run. `finished` holds results of an earlier,
    interrupted run: they are counted and not asked again, unless they were skipped (those that have yet to be compared are
    answered). `timeout_s` bounds one attempt;
    `retries` is how often a failed attempt is repeated where its error says that this may help; what was refused for
    overload is asked more often and by fewer at once (0: never). `aids` gives for each answer what
    assertions may ask of other models and of people, `tools` are the prompt's, `folders` those whose Python may be run.
    `on_wait` is told, every few seconds, that all wait for an overloaded endpoint, or for answers that do not come.
    `hopeless` is asked after each judged answer: what it says, where it says anything, ends the run early.
    """
    given = Scene(Output(""), tools=tools, folders=folders)
    run = _Run(ask, Tally(repeat, pass_k), Pace(concurrency), price, on_result, timeout_s, retries, given, aids)
    run.hopeless, run.patience = hopeless, Patience(OVERLOADED_FOR_S, on_wait, run.give_up)
    run.silence = Silence(timeout_s, on_wait) if on_wait else None
    started = time.perf_counter()
    done = run.take_finished(finished)
    turns = _turns(cases, repeat, done, chosen)
    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(max(1, concurrency)):
                group.create_task(run.work(turns))
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None
    finally:
        run.patience.end()
        if run.silence is not None:
            run.silence.end()
    return run.tally.summary(time.perf_counter() - started, run.stopped)


def _turns(cases: Iterable[Case], repeat: int, done: _Done, chosen: Collection[int] | None) -> Iterator[Turn]:
    positions = None if chosen is None else set(chosen)
    for index, case in enumerate(cases):
        if positions is not None and index not in positions:
            continue
        for number in range(repeat):
            if not done.has(index, number):
                yield index, case, number


class _Done:
    """The turns that need not be taken, by the place of their case and their repeat."""

    def __init__(self, repeat: int) -> None:
        self._repeat = repeat
        self._marks = bytearray()

    def add(self, index: int, number: int) -> None:
        turn = index * self._repeat + number
        if turn >= len(self._marks):
            self._marks.extend(bytes(turn + 1 - len(self._marks)))
        self._marks[turn] = 1

    def has(self, index: int, number: int) -> bool:
        turn = index * self._repeat + number
        return turn < len(self._marks) and self._marks[turn] == 1


class _Run:
    """The state that the workers of one run share."""

    def __init__(
        self,
        ask: Ask,
        tally: Tally,
        pace: Pace,
        price: Price | None,
        on_result: OnResult | None,
        timeout_s: float,
        retries: int,
        given: Scene,
        aids: AidsFor | None,
    ) -> None:
        self.ask = ask
        self.tally = tally
        self.pace = pace
        self.price = price
        self.on_result = on_result
        self.timeout_s = timeout_s
        self.retries = retries
        self.given = given  # what the scenes of all answers share
        self.aids = aids
        self.stopped = ""
        self._busy = 0
        self.hopeless: Callable[[], str] = str
        self.patience = Patience(OVERLOADED_FOR_S, None, self.give_up)
        self.silence: Silence | None = None
        self._answered = False
        self._succeeded = False
        self._unreachable = 0  # attempts in a row that found nothing
        self._refusal: tuple[int | None, str] | None = None  # what was refused last, and how often in a row
        self._refusals = 0
        self._put_off = 0  # refusals in a row until a time that is not waited for

    def take_finished(self, finished: Iterable[CaseResult]) -> _Done:
        """Count what was finished before; a byte is kept of each."""
        done = _Done(self.tally.repeat)
        for result in finished:
            is_finished = result.status != "skipped" or result.is_to_compare
            if is_finished and not done.has(result.index, result.repeat):
                done.add(result.index, result.repeat)
                self.tally.add(result)
                self._succeeded = self._succeeded or result.status in ("passed", "failed")
        return done

    async def work(self, turns: Iterator[Turn]) -> None:
        """Take turns until there are none left; all workers share one iterator, so no case is held for later."""
        for turn in turns:
            reason = set_aside(turn[1].skip) or self.stopped
            result = _skipped(turn, reason) if reason else await self._turn(turn)
            self.tally.add(result)
            if self.on_result is not None:
                waiting = self.on_result(result)
                if waiting is not None:
                    await waiting

    async def _turn(self, turn: Turn) -> CaseResult:
        self._busy += 1
        try:
            return await self._with_retries(turn)
        finally:
            self._busy -= 1

    async def _with_retries(self, turn: Turn) -> CaseResult:
        attempt = 0
        error: BaseException | None = None
        while (asked_in := await self.pace.enter()) is not None:
            try:
                completion = await self._asked(turn)
            except (Exception, asyncio.CancelledError) as raised:  # whatever a model raises is this case's outcome
                if _is_cancelled():
                    raise
                error = self._timed(raised)
                self._note(error, asked_in)
            else:
                self._note_answer()
                return await self._judged(turn, completion, attempt)
            finally:
                self.pace.leave()
            if not await self._may_retry(error, attempt):
                break
            attempt += 1
        return _skipped(turn, self.stopped) if error is None else _errored(turn, error, attempt)

    async def _asked(self, turn: Turn) -> Completion:
        number = self.silence.asked() if self.silence else 0
        try:
            async with asyncio.timeout(self.timeout_s):
                return await self.ask(turn[1], turn[2])
        finally:
            if self.silence:
                self.silence.ended(number)

    def _timed(self, error: BaseException) -> BaseException:
        return ModelTimeout(f"no answer within {self.timeout_s:g} s") if isinstance(error, TimeoutError) else error

    def _note_answer(self) -> None:
        self._answered, self._succeeded, self._unreachable, self._put_off = True, True, 0, 0
        self.patience.end()
        self.pace.answered()

    def _note(self, error: BaseException, asked_in: int) -> None:
        """Slow down for an overloaded endpoint; stop the run where there is no doubt that it is of no use."""
        if isinstance(error, ModelOverloaded):
            self.pace.overloaded(asked_in)
            self.patience.refused(str(error))
            self._note_put_off(error)
        if isinstance(error, ModelRefused):
            self._note_refusal(error)
        if not isinstance(error, ModelUnavailable | ModelTimeout):
            self._answered = self._answered or isinstance(error, ModelError)  # it refused: so it is there
            self._unreachable = 0
            return
        if isinstance(error, ModelTimeout) and self._answered:
            return  # slow on this case; it has shown that it lives
        self._unreachable += 1
        rounds = _DEAD_LATER if self._answered else _DEAD_AT_FIRST
        if self._unreachable >= max(FEWEST_ATTEMPTS, rounds * self._busy):
            self._stop(f"model unreachable: {error}")

    def _note_refusal(self, error: ModelRefused) -> None:
        """A key, a name or an address that is wrong is so for every case; a case of its own is refused for itself."""
        said = NO_COMPLETION if error.code == NO_COMPLETION else _ID.sub("", str(error))
        cause = (error.status, said)
        self._refusals = self._refusals + 1 if cause == self._refusal else 1
        self._refusal = cause
        if not self._succeeded and self._refusals >= max(FEWEST_ATTEMPTS, self._busy):
            self._stop(f"model refused {self._refusals} cases in a row and answered none: {error}")

    def _note_put_off(self, error: ModelOverloaded) -> None:
        """A quota that is used up is so for every case, whatever was answered before."""
        wait_s = error.retry_after_s or 0.0
        self._put_off = self._put_off + 1 if wait_s > LONGEST_RETRY_AFTER_S else 0
        if self._put_off >= max(FEWEST_ATTEMPTS, self._busy):
            self._stop(f"model refused {self._put_off} cases in a row and asks to wait {wait_s:.0f} s: {error}")

    def give_up(self, said: str) -> None:
        """Stop: the endpoint has only refused for too long."""
        self._stop(f"model overloaded for {OVERLOADED_FOR_S:g} s: {said}")

    def _stop(self, reason: str) -> None:
        self.stopped = self.stopped or reason
        self.pace.stop()

    async def _may_retry(self, error: BaseException, attempt: int) -> bool:
        """Wait before the next attempt; False where none is worth making."""
        if not (isinstance(error, ModelError) and error.retryable) or self.stopped:
            return False
        if not isinstance(error, ModelOverloaded):
            return attempt < self.retries and await self.pace.sleep(_backoff_s(attempt))
        if attempt >= (OVERLOADED_RETRIES if self.retries else 0):
            return False
        wait_s = error.retry_after_s if error.retry_after_s is not None else _backoff_s(attempt)
        return wait_s <= LONGEST_RETRY_AFTER_S and await self.pace.sleep(wait_s)

    async def _judged(self, turn: Turn, completion: Completion, attempt: int) -> CaseResult:
        index, case, repeat = turn
        cost_usd = self.price.cost_usd(completion.usage) if self.price else None
        latency_ms = completion.latency_s * 1000
        output = output_of(completion, cost_usd)
        given = self.given
        aids = self.aids(case, repeat, completion.text) if self.aids else None
        scene = Scene(output, case.known, case.id, repeat, aids, given.tools, given.folders)
        judgement = await judge(case, scene)
        spent = aids.spent if aids else None
        if judgement.status == "errored" and (reason := self.hopeless()):
            self._stop(reason)
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
            judge_usage=spent.usage if spent else None,
            judge_cost_usd=spent.cost_usd if spent else None,
            error=judgement.error,
            retries=attempt,
            tags=case.tags,
            must_pass=case.must_pass,
        )


def output_of(completion: Completion, cost_usd: float | None = None) -> Output:
    """A completion as assertions see it."""
    logprobs = completion.details.get("logprobs")
    return Output(
        text=completion.text,
        latency_ms=completion.latency_s * 1000,
        cost_usd=cost_usd,
        finish_reason=completion.finish_reason,
        message=completion.message,
        logprobs=tuple(logprobs) if logprobs else None,
    )


def _backoff_s(attempt: int) -> float:
    spread = random.uniform(0.5, 1.0)  # noqa: S311 - workers do not all come back at once
    return min(LONGEST_WAIT_S, FIRST_WAIT_S * 2.0**attempt) * spread


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

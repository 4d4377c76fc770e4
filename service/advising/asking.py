"""Asks training examples as variants would answer them: cached like the cases of a run, and timed one by one."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from finetune.data import Example, asking_variables
from prompts.errors import ModelError
from prompts.messages import Completion, CompletionRequest, Message
from prompts.prompt import CompiledPrompt, compile_prompt, digest_of
from prompts.prompt import Example as Shot
from service.advising.spec import Work
from service.ids import now
from service.pool import ModelPool
from service.recording import CompletionCache, completion_data
from service.store import runs
from suites.advice.answers import Asked
from suites.advice.report import Spend
from suites.statistics import percentile

IN_FLIGHT = 16
TIMED = 16  # requests of a variant whose latency is measured, one after another
_WRITTEN_AT_ONCE = 32
_DEFAULT_TIMEOUT_S = 120.0


@dataclass(frozen=True)
class Way:
    """How examples are asked: by which model, with which adapter, with other parameters, and after which examples.

    `shots` has, for each row that is asked, the rows that stand in the prompt before it.
    """

    model: str
    adapter: str | None = None
    changes: Mapping[str, Any] = field(default_factory=dict)
    shots: Mapping[int, tuple[int, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Answers:
    """The rows in their order, and what they took: sums of tokens over the rows that were answered."""

    asked: tuple[Asked, ...]
    prompt_tokens: int = 0
    answer_tokens: int = 0

    @property
    def spend(self) -> Spend:
        """The mean tokens of a request."""
        count = sum(not one.error for one in self.asked)
        if not count:
            return Spend()
        return Spend(prompt_tokens=self.prompt_tokens / count, answer_tokens=self.answer_tokens / count)


class Questions:
    """The rows of an advice and the prompt that asks them."""

    def __init__(self, work: Work, rows: Sequence[Example]) -> None:
        self._work = work
        self.rows = rows
        self._prompts: dict[tuple[int, ...], CompiledPrompt] = {(): work.material.prompt}

    def messages(self, row: int, shots: tuple[int, ...] = ()) -> tuple[Message, ...]:
        """What the model is sent for a row. Raises RenderError where the examples do not fit the prompt."""
        return self.prompt_with(shots).render(self.rows[row].vars)

    def prompt_with(self, shots: tuple[int, ...]) -> CompiledPrompt:
        """The prompt with these rows behind its own examples."""
        if shots not in self._prompts:
            content = self._work.material.prompt.content
            examples = (*content.examples, *(self.shot(row) for row in shots))
            self._prompts[shots] = compile_prompt(content.model_copy(update={"examples": examples}))
        return self._prompts[shots]

    def shot(self, row: int) -> Shot:
        """A row as an example of the prompt: with the variables that the last user message uses."""
        used = asking_variables(self._work.material.prompt)
        given = self.rows[row]
        return Shot(vars={name: value for name, value in given.vars.items() if name in used}, expected=given.expected)

    def ask(self, way: Way, rows: Sequence[int]) -> Answers:
        """Every row once; those that were answered before are not asked again. A question that fails is an answer, too."""
        return self._work.claim.run(self._ask_all(way, rows))

    def time(self, way: Way, rows: Sequence[int]) -> list[tuple[int, str, float]]:
        """Row, answer and milliseconds of some rows, asked anew one after another; the first is asked once before."""
        return self._work.claim.run(self._time_all(way, rows))

    # ------------------------------------------------------------------------------------ one after another, or not

    async def _ask_all(self, way: Way, rows: Sequence[int]) -> Answers:
        pool, cache = ModelPool(self._work.claim.settings), _Cache(self._work)
        gate, done = asyncio.Semaphore(IN_FLIGHT), 0

        async def one(row: int) -> tuple[Asked, Completion | None]:
            nonlocal done
            async with gate:
                found = await self._answer(pool, cache, way, row)
            done += 1
            if done % max(1, len(rows) // 10) == 0:
                await asyncio.to_thread(self._tell, done, len(rows), way)
            return found

        try:
            found = await asyncio.gather(*map(one, rows))
        finally:
            await cache.write()
            await pool.aclose()
        usages = [completion.usage for _, completion in found if completion is not None]
        tokens = sum(one.prompt_tokens for one in usages), sum(one.completion_tokens for one in usages)
        return Answers(tuple(asked for asked, _ in found), *tokens)

    def _tell(self, done: int, total: int, way: Way) -> None:
        self._work.claim.tell("cases", done=done, total=total, phase=way.model)

    async def _answer(self, pool: ModelPool, cache: _Cache, way: Way, row: int) -> tuple[Asked, Completion | None]:
        request = self._request(way, row)
        given = self.rows[row]
        asked = Asked(row, given.vars, given.expected, "")
        try:
            completion = await cache.get(way, request)
            if completion is None:
                completion = await pool.serving(way.model).complete(request)
                await cache.keep(way, request, completion)
        except ModelError as error:
            return replace(asked, error=f"{type(error).__name__}: {error}"), None
        return replace(asked, answer=completion.text, finish=completion.finish_reason), completion

    def _request(self, way: Way, row: int) -> CompletionRequest:
        parameters = {**self._work.parameters, **way.changes}
        timeout_s = getattr(self._work.claim.settings.model(way.model), "timeout_s", _DEFAULT_TIMEOUT_S)
        return CompletionRequest(self.messages(row, way.shots.get(row, ())), parameters, way.adapter, timeout_s)

    async def _time_all(self, way: Way, rows: Sequence[int]) -> list[tuple[int, str, float]]:
        pool = ModelPool(self._work.claim.settings)
        try:
            serving = pool.serving(way.model)
            await serving.complete(self._request(way, rows[0]))  # starts what is not running
            found = []
            for row in rows:
                completion = await serving.complete(self._request(way, row))
                found.append((row, completion.text.strip(), completion.latency_s * 1000))
            return found
        finally:
            await pool.aclose()


def timed_spend(spend: Spend, times: Sequence[tuple[int, str, float]]) -> Spend:
    """A variant's spend with the percentiles of its timed requests."""
    taken = [ms for _, _, ms in times]
    found = {"timed": len(taken), "p50_ms": percentile(taken, 50), "p95_ms": percentile(taken, 95)}
    return spend.model_copy(update=found)


class _Cache:
    """Completions under the keys that runs use, written some at a time."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._cache = CompletionCache(work.claim.database)
        self._fresh: list[tuple[str, dict[str, Any]]] = []

    async def get(self, way: Way, request: CompletionRequest) -> Completion | None:
        return None if way.adapter else await self._cache.get(self._key(way, request))

    async def keep(self, way: Way, request: CompletionRequest, completion: Completion) -> None:
        """Adapters of an advice are gone after it: what they answer is of no use to anyone."""
        if way.adapter is None:
            self._fresh.append((self._key(way, request), completion_data(completion)))
        if len(self._fresh) >= _WRITTEN_AT_ONCE:
            await self.write()

    async def write(self) -> None:
        fresh, self._fresh = self._fresh, []
        if fresh:
            await asyncio.to_thread(self._write, fresh)

    def _write(self, fresh: list[tuple[str, dict[str, Any]]]) -> None:
        with self._work.claim.database.write() as session:
            runs.remember(session, fresh, now())

    def _key(self, way: Way, request: CompletionRequest) -> str:
        """As `service.asking` makes it for the first answer to a case."""
        model = self._work.claim.settings.model(way.model)
        spec = model.model_dump(mode="json", exclude={"price", "context_tokens"})
        origin = digest_of([way.model, spec, None, None])
        messages = [message.as_dict() for message in request.messages]
        return digest_of([origin, messages, dict(request.parameters), 0])

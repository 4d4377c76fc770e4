"""What the assertions of a run may ask beyond an answer: judges, embeddings, the registry's rubrics, and people.

One `Desk` serves a run. It asks each judge as the run asks its model: with retries, bounded in number, cached by all that
matters, the number of the vote among it. What an answer's judges took is counted by its own `aids`, apart from the model
under test.
"""

from __future__ import annotations

import asyncio
import random
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from prompts.errors import BadInput, ModelError, ModelOverloaded, ModelRefused, ModelTimeout, ModelUnavailable
from prompts.messages import Completion, CompletionRequest, Message, Model
from prompts.prompt import CompiledPrompt, digest_of
from service.graders import origin_of, registered_rubric
from service.models.embedding import Embedder
from service.pool import Models, price_of
from service.recording import CompletionCache, Fresh, completion_data
from service.settings import Settings
from service.store import requests, runs
from service.store.database import Database
from suites.assertions.people import HUMAN
from suites.assertions.spec import Aids, AssertionErrored, Rubric, Spending, Spent
from suites.assertions.text import as_text
from suites.case import Case, Suite
from suites.results import CaseResult, Price
from suites.runner import FEWEST_ATTEMPTS

DEFAULT_TIMEOUT_S = 120.0
RETRIES = 2
OVERLOADED_RETRIES = 6
FIRST_WAIT_S = 0.25
LONGEST_WAIT_S = 30.0
DEAD_AFTER = 8  # attempts in a row that found nothing: whoever asks then is told at once
REMEMBERED = 512  # answers that are kept for the length of a run; the steps of `g-eval` are asked for by every case
_EXTRAS: tuple[frozenset[str], ...] = (  # what an upstream may refuse, and a judge can do without: less at each step
    frozenset(),
    frozenset({"response_format"}),
    frozenset({"response_format", "temperature", "seed"}),
)
RATED = "case"  # feedback on a run's answer is on the id case:CASE:RUN:REPEAT


def rating_id(case_id: str, run_id: str, repeat: int = 0) -> str:
    """What feedback calls a run's answer to a case."""
    return f"{RATED}:{case_id}:{run_id}:{repeat}"


@dataclass
class _Upstream:
    """One model that judges, and how it has fared."""

    alias: str
    model: Model
    origin: str
    price: Price | None
    timeout_s: float
    unreachable: int = 0
    last_error: ModelError | None = None
    answered: bool = False
    failed: int = 0  # questions that were given up
    refused: int = 0  # how far along `_EXTRAS` it has to be spared


class Desk:
    """The aids of one run; `about` gives those of one answer."""

    def __init__(
        self,
        database: Database,
        settings: Settings,
        models: Models,
        suite: Suite,
        prompt: CompiledPrompt,
        *,
        use_cache: bool = True,
        concurrency: int = 16,
        rubrics: Mapping[str, str] | None = None,
        others: Sequence[CompiledPrompt] = (),
    ) -> None:
        self.judge = suite.judge
        self._prompts = (prompt, *others)
        self.fresh: dict[tuple[str, int], dict[str, dict[str, Any]]] = {}
        self.database = database
        self._settings = settings
        self._models = models
        self._cache = CompletionCache(database) if use_cache else None
        self._room = asyncio.Semaphore(max(1, concurrency))
        self._concurrency = concurrency
        self._upstreams: dict[str, _Upstream] = {}
        self._pinned = rubrics or {}
        self._rubrics: dict[str, Rubric | None] = {}
        self._known: OrderedDict[str, asyncio.Task[tuple[Completion, bool]]] = OrderedDict()

    def prepare(self, aliases: Sequence[str]) -> None:
        """Raise BadSetting for a judge that cannot be asked, and see whether the cache holds anything."""
        for alias in aliases:
            self.upstream(alias)
        if self._cache is not None and not self._cache.holds_any():
            self._cache = None

    def close(self) -> None:
        """End what nobody waits for any more."""
        for task in self._known.values():
            task.cancel()
        self._known.clear()

    def about(self, case: Case, repeat: int, answer: str) -> Aids:
        """The aids for one answer: they count what is asked through them."""
        return _AnswerAids(self, case, repeat, answer)

    def question(self, case: Case) -> Sequence[Message]:
        """What the variants under test are asked; where their prompts ask it differently, the case's variables alone.

        A judge that saw the words of one of them would hold the others' answers against these.
        """
        first, *others = [prompt.render(case.vars, (), case.placeholders) for prompt in self._prompts]
        if all(other == first for other in others):
            return first
        return (Message("user", "\n".join(f"{name}: {as_text(value)}" for name, value in case.vars.items())),)

    def take_fresh(self, result: CaseResult) -> list[Fresh]:
        """What was asked of judges for this result and is worth keeping: answers that led to a verdict."""
        found = self.fresh.pop((result.case_id, result.repeat), {})
        return list(found.items()) if result.status in ("passed", "failed") else []

    def hopeless(self) -> str:
        """Why nothing more is to be asked for judges' sake: one has answered nothing, however often; "" for no reason."""
        enough = max(FEWEST_ATTEMPTS, self._concurrency)
        for each in self._upstreams.values():
            if each.failed >= enough and not each.answered:
                return f"judge unreachable: {each.alias}: {each.last_error}"
        return ""

    def upstream(self, alias: str) -> _Upstream:
        """The model behind an alias; raises BadSetting."""
        if alias not in self._upstreams:
            spec = self._settings.model(alias)
            origin = origin_of(self._settings, alias)
            timeout_s = float(getattr(spec, "timeout_s", DEFAULT_TIMEOUT_S))
            price = price_of(self._settings, alias)
            self._upstreams[alias] = _Upstream(alias, self._models.get(alias), origin, price, timeout_s)
        return self._upstreams[alias]

    async def once(self, key: str, ask: Callable[[], Awaitable[Completion]]) -> tuple[Completion, bool]:
        """The answer behind `key`, and whether it was just asked for. Equal questions at a time are asked once."""
        task = self._known.get(key)
        if task is None:
            task = self._known[key] = asyncio.create_task(self._found_or_asked(key, ask))
            self._forget_oldest()
        try:
            return await asyncio.shield(task)
        except BaseException:
            if task.done() and self._known.get(key) is task:
                del self._known[key]  # the next one who asks tries again
            raise

    def _forget_oldest(self) -> None:
        while len(self._known) > REMEMBERED and next(iter(self._known.values())).done():
            self._known.popitem(last=False)

    async def _found_or_asked(self, key: str, ask: Callable[[], Awaitable[Completion]]) -> tuple[Completion, bool]:
        found = await self._cache.get(key) if self._cache else None
        if found is not None:
            return found, False
        async with self._room:
            return await ask(), True

    async def complete(
        self, upstream: _Upstream, messages: tuple[Message, ...], parameters: Mapping[str, Any]
    ) -> Completion:
        """One answer of a judge; what it refuses of the parameters beyond its own is left out from then on."""

        async def ask(given: Mapping[str, Any]) -> Completion:
            request = CompletionRequest(messages, given, None, upstream.timeout_s, is_urgent=False)
            found: Completion = await self.tried(upstream, lambda: upstream.model.complete(request))
            return found

        step = upstream.refused
        while True:
            given = {name: value for name, value in parameters.items() if name not in _EXTRAS[step]}
            try:
                found = await ask(given)
            except ModelRefused as error:
                if error.status not in (400, 422) or not (given.keys() & _EXTRAS[-1]):
                    raise
                step = next(further for further in range(step + 1, len(_EXTRAS)) if given.keys() & _EXTRAS[further])
                continue
            upstream.refused = max(upstream.refused, step)
            return found

    async def tried(self, upstream: _Upstream, ask: Callable[[], Awaitable[Any]]) -> Any:
        """Ask, and ask again where that may help; at once the last error where the model is plainly dead."""
        attempt = 0
        while True:
            if upstream.unreachable >= DEAD_AFTER and upstream.last_error is not None:
                raise upstream.last_error
            try:
                async with asyncio.timeout(upstream.timeout_s):
                    found = await ask()
            except TimeoutError:
                error: ModelError = ModelTimeout(f"{upstream.alias}: no answer within {upstream.timeout_s:g} s")
            except ModelError as raised:
                error = raised
            else:
                upstream.unreachable, upstream.answered = 0, True
                return found
            upstream.last_error = error
            upstream.unreachable += isinstance(error, ModelUnavailable | ModelTimeout)
            if not await _may_retry(error, attempt):
                raise error
            attempt += 1

    async def rubric(self, name: str) -> Rubric | None:
        """The version that a name meant when it was first asked for: a label that moves during a run changes nothing."""
        if name not in self._rubrics:
            pinned = self._pinned.get(name, name)
            self._rubrics[name] = await asyncio.to_thread(registered_rubric, self.database, pinned)
        return self._rubrics[name]


async def _may_retry(error: ModelError, attempt: int) -> bool:
    """Wait before the next attempt; False where none is worth making."""
    overloaded = isinstance(error, ModelOverloaded)
    if not error.retryable or attempt >= (OVERLOADED_RETRIES if overloaded else RETRIES):
        return False
    told_s = error.retry_after_s if isinstance(error, ModelOverloaded) else None
    wait_s = told_s if told_s is not None else FIRST_WAIT_S * 2**attempt * random.uniform(0.5, 1.0)  # noqa: S311 - spreads load
    if wait_s > LONGEST_WAIT_S:
        return False
    await asyncio.sleep(wait_s)
    return True


@dataclass
class _AnswerAids:
    """`suites.assertions.spec.Aids` for one answer."""

    desk: Desk
    case: Case
    repeat: int
    answer: str
    _spending: Spending = field(default_factory=Spending)

    @property
    def votes(self) -> int:
        return self.desk.judge.votes

    @property
    def judge(self) -> str | None:
        return self.desk.judge.model

    @property
    def spent(self) -> Spent | None:
        return self._spending.total

    async def ask(
        self, alias: str | None, messages: Sequence[Message], parameters: Mapping[str, Any], vote: int = 0
    ) -> Completion:
        upstream = self.desk.upstream(self._named(alias, self.judge, "judge.model"))
        asked = tuple(messages)
        key = digest_of([upstream.origin, [message.as_dict() for message in asked], dict(parameters), vote])
        return await self._once(key, upstream, lambda: self.desk.complete(upstream, asked, parameters))

    async def embed(self, alias: str | None, texts: Sequence[str]) -> list[list[float]]:
        upstream = self.desk.upstream(self._named(alias, self.desk.judge.embeddings, "judge.embeddings"))
        if not isinstance(upstream.model, Embedder):
            raise AssertionErrored(f"model {upstream.alias!r} has no embeddings: name one whose server has /embeddings")
        return list(await asyncio.gather(*(self._embedded(upstream, upstream.model, text) for text in texts)))

    async def _embedded(self, upstream: _Upstream, model: Embedder, text: str) -> list[float]:
        async def ask() -> Completion:
            found = await self.desk.tried(upstream, lambda: model.embed([text], upstream.timeout_s))
            return Completion("", usage=found.usage, details={"embedding": list(found.vectors[0])})

        completion = await self._once(digest_of([upstream.origin, "embedding", text]), upstream, ask)
        return list(completion.details["embedding"])

    async def _once(self, key: str, upstream: _Upstream, ask: Callable[[], Awaitable[Completion]]) -> Completion:
        try:
            completion, is_fresh = await self.desk.once(key, ask)
        except ModelError:
            upstream.failed += 1
            raise
        price = upstream.price
        self._spending.add(completion.usage, price.cost_usd(completion.usage) if price else None)
        if is_fresh:
            self.desk.fresh.setdefault((self.case.id, self.repeat), {})[key] = completion_data(completion)
        return completion

    @staticmethod
    def _named(alias: str | None, default: str | None, setting: str) -> str:
        found = alias or default
        if found is None:
            raise AssertionErrored(f"no model is named: add `provider:` here, or `{setting}` to the suite")
        return found

    async def question(self, _case_id: str) -> Sequence[Message]:
        try:
            return self.desk.question(self.case)
        except BadInput as error:  # no case has such variables, and a label of `judge calibrate` may
            raise AssertionErrored(f"the judge cannot be shown the question: {error}") from error

    async def rubric(self, name: str) -> Rubric | None:
        return await self.desk.rubric(name)

    async def ratings(self, metric: str | None) -> Sequence[float]:
        return await asyncio.to_thread(self._ratings, metric or HUMAN)

    def _ratings(self, metric: str) -> list[float]:
        """The newest rating of each person; one of another answer to the same case says nothing of this one."""
        found: dict[str, float] = {}
        with self.desk.database.read() as session:
            for row in requests.feedback_on(session, f"{RATED}:{self.case.id}:"):
                _, _, run_id, repeat = row["completion_id"].split(":")
                if row["metric"] == metric and isinstance(row["value"], int | float):
                    result = runs.case(session, run_id, self.case.id, int(repeat))
                    if result is not None and result["output"] == self.answer:
                        found[row["key_id"]] = float(row["value"])
        return list(found.values())

"""The request path: plan, render, call, check, reply, record. No database on it."""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol, TypeVar

from prompts.errors import BadInput, ModelError, ModelRefused, TurnoutError
from prompts.messages import Chunks, Completion, CompletionRequest
from prompts.output import OutputCheck, repair_messages
from service.answer_stream import AnswerStream, fault_of
from service.bodies import Body
from service.choosing import Ask, Choice, Chooser, Plan
from service.errors import BadSetting, NotFound, SchemaMismatch
from service.limits import Limiter
from service.pending import Caller, Pending
from service.request_log import RequestLog
from service.response_cache import ResponseCache
from service.served import Served, Serveds
from service.settings import Settings
from service.shadows import Shadows
from service.snapshot import Snapshot
from service.upstream.serving import Serving
from service.upstream.whole import WholeChunks, usage_of

_CALLERS_FAULT = (400, 413, 422)  # what an upstream says of a request that it understood and will not take
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Reply:
    """A completion with where it came from. `is_valid` is whether it fits the prompt's output schema, None without one."""

    id: str
    created_s: int
    served: Served
    completion: Completion
    is_valid: bool | None = None
    repairs: int = 0
    is_cached: bool = False

    @property
    def turnout(self) -> Mapping[str, Any]:
        """The object that every reply carries."""
        return turnout_of(self.served, self.is_valid, self.repairs)


def turnout_of(served: Served, is_valid: bool | None, repairs: int) -> Mapping[str, Any]:
    """Where a reply came from; for a prompt with an output schema also whether the answer fits, and after how many repairs."""
    if is_valid is None:
        return served.turnout
    told = {**served.turnout, "valid": is_valid}
    return {**told, "repairs": repairs} if served.repair else told


class Upstreams(Protocol):
    """Where models are served from: the pool, or a test's own."""

    def serving(self, alias: str) -> Serving:
        """The model behind an alias, guarded; raises BadSetting."""
        ...


class Completions:
    """Answers applications."""

    def __init__(
        self,
        settings: Settings,
        snapshot: Snapshot,
        models: Upstreams,
        log: RequestLog,
        limiter: Limiter,
        cache: ResponseCache,
    ) -> None:
        self._settings = settings
        self._limiter = limiter
        self._cache = cache
        self._bodies = settings.recording.bodies
        self._chooser = Chooser(settings, snapshot)
        self._serveds = Serveds(settings)
        self._models = models
        self._log = log
        self.shadows = Shadows()

    async def complete(self, ask: Ask, caller: Caller) -> Reply:
        """One completion. Raises NotFound, Forbidden, a BadInput that names its field, a ModelError, or StorageFailed."""
        return await self._completed(await self._begin(ask, caller))

    async def stream(self, ask: Ask, caller: Caller) -> AnswerStream:
        """The same as it comes, once its first chunk is there; raises as `complete` does until then, later a ModelError.

        An answer that may have to be repaired is whole before its first chunk is given.
        """
        pending = await self._begin(ask, caller)
        pending.is_stream = True
        if any(self._serveds.of(choice).repair for choice in (pending.plan.first, *pending.plan.fallbacks)):
            reply = await self._completed(pending)
            whole = WholeChunks(reply.completion, reply.served.name)
            return AnswerStream(pending, whole, None, None, is_valid=reply.is_valid)
        chunks = await self._recorded(pending, self._answered(pending, self._begun))
        output = pending.served.output_for(ask)
        self._ask_shadows(pending)
        return AnswerStream(pending, chunks, output, self._finish, keeps_text=self._bodies or output is not None)

    async def embed(self, alias: str, body: Mapping[str, Any], caller: Caller) -> tuple[str, Mapping[str, Any]]:
        """OpenAI's embeddings of the model `alias`, as they came, under the id that is recorded. Raises as `complete` does."""
        if alias not in self._settings.models:
            raise NotFound("model", alias, "embeddings come from a model alias of the settings")
        plan = Plan(Choice(alias))
        pending = Pending(caller.new_id(), caller.started, Ask(alias), caller, plan, self._serveds.of(plan.first))
        reply = await self._recorded(pending, self._embedded(pending, body))
        await self._finished(pending, "")
        return pending.id, reply

    async def aclose(self) -> None:
        """Stop asking shadows. Safe to call twice."""
        await self.shadows.aclose()

    async def _begin(self, ask: Ask, caller: Caller) -> Pending:
        chooser = self._chooser
        if chooser.is_ready(ask):
            plan = chooser.plan(ask, caller.principal)
        else:
            plan = await asyncio.to_thread(chooser.plan, ask, caller.principal)
        return Pending(caller.new_id(), caller.started, ask, caller, plan, self._serveds.of(plan.first))

    async def _completed(self, pending: Pending) -> Reply:
        completion = await self._recorded(pending, self._answered(pending, self._remembered))
        await self._finished(pending, completion.text)
        self._ask_shadows(pending)
        created_s = int(time.time())
        return Reply(
            pending.id, created_s, pending.served, completion, pending.is_valid, pending.repairs, pending.is_cached
        )

    # ---------------------------------------------------------------------------- who answers

    async def _answered(self, pending: Pending, ask: Callable[[Pending, CompletionRequest], Awaitable[T]]) -> T:
        """What the first of the plan's variants answers that can; a caller's own fault is nobody else's to answer."""
        try:
            return await ask(pending, pending.served.request(pending.ask))
        except ModelError as error:
            if not pending.plan.fallbacks or is_callers_fault(error):
                raise
            failure = error
        for choice in pending.plan.fallbacks:
            served = self._serveds.of(choice)
            try:
                request = served.request(pending.ask)
            except BadInput:
                continue  # the request is made for the first variant: this one takes other variables
            pending.turn_to(served)
            try:
                return await ask(pending, request)
            except ModelError as error:
                if is_callers_fault(error):
                    raise
                failure = error
        raise failure

    def _serving(self, pending: Pending) -> Serving:
        """The model of who is asked. Raises ModelRefused where the settings are at fault: no caller can mend them."""
        try:
            return self._models.serving(pending.served.choice.model)
        except BadSetting as error:
            raise ModelRefused(str(error)) from error

    async def _begun(self, pending: Pending, request: CompletionRequest) -> Chunks:
        """The first chunk is there, or the whole answer where it was kept."""
        pending.asked = time.perf_counter()
        kept = None if pending.ask.pin else self._cache.find(pending.served, request)  # who pins a variant, tests it
        if kept is not None:
            pending.is_cached = True
            return WholeChunks(kept, pending.served.name)
        try:
            chunks = await self._serving(pending).stream(request)
        except ModelError as error:
            pending.attempts += error.attempts
            raise
        pending.attempts += chunks.attempts
        return self._cache.keeping(pending.served, request, chunks, lambda: pending.is_valid is not False)

    async def _asked(self, pending: Pending, request: CompletionRequest) -> Completion:
        """One whole answer, counted."""
        if pending.shadow_of is not None:
            request = replace(request, is_urgent=False)  # nobody waits for it
        try:
            completion = await self._serving(pending).complete(request)
        except ModelError as error:
            pending.attempts += error.attempts
            raise
        pending.count(completion)
        return completion

    async def _remembered(self, pending: Pending, request: CompletionRequest) -> Completion:
        """What was answered to this very request lately, where the prompt allows it and it fits; else a new answer."""
        kept = None if pending.ask.pin else self._cache.find(pending.served, request)  # who pins a variant, tests it
        if kept is not None:
            output = pending.served.output_for(pending.ask)
            judged = Judged(None) if output is None else await judge(kept, output)
            if judged.is_valid is not False:
                pending.is_valid, pending.is_cached = judged.is_valid, True
                return kept
        completion = await self._checked(pending, request)
        if pending.is_valid is not False:
            self._cache.keep(pending.served, request, completion)
        return completion

    async def _checked(self, pending: Pending, request: CompletionRequest) -> Completion:
        """A whole answer that fits the output schema, where there is one and the prompt says how often to ask again.

        Raises SchemaMismatch where the last one does not fit, either; without `repair` it is given as it is.
        """
        completion = await self._asked(pending, request)
        output = pending.served.output_for(pending.ask)
        if output is None:
            return completion
        while True:
            judged = await judge(completion, output)
            pending.is_valid = judged.is_valid
            if judged.is_valid is not False or not pending.served.repair:
                return replace(completion, usage=pending.usage)
            if pending.repairs == pending.served.repair:
                after = f"after {pending.repairs} repair{'s' if pending.repairs > 1 else ''}"
                raise SchemaMismatch(
                    f"{pending.served.name}: the answer does not fit jsonSchema {after}: {judged.fault}"
                )
            pending.repairs += 1
            told = repair_messages(judged.text, judged.fault)
            completion = await self._asked(pending, replace(request, messages=(*request.messages, *told)))

    async def _embedded(self, pending: Pending, body: Mapping[str, Any]) -> Mapping[str, Any]:
        asked = time.perf_counter()
        served = pending.served
        try:
            reply = await self._serving(pending).embeddings(body, served.timeout_s)
        except ModelError as error:
            pending.attempts += error.attempts
            raise
        pending.attempts += 1
        pending.upstream_s = time.perf_counter() - asked
        pending.count_usage(usage_of(reply.get("usage")))
        return reply

    # ---------------------------------------------------------------------------- what came of it

    async def _recorded(self, pending: Pending, answer: Awaitable[T]) -> T:
        """`answer`; where none comes, that is recorded."""
        pending.enter_trace()
        try:
            return await answer
        except Exception as error:
            stored = self._finish(pending, error, "")
            if stored is not None:
                await stored
            raise
        except asyncio.CancelledError as error:
            self._finish(pending, error, "")
            raise

    async def _finished(self, pending: Pending, text: str) -> None:
        """Record an answer; where `recording.durable` says so, it is stored when this returns. Raises StorageFailed."""
        stored = self._finish(pending, None, text)
        if stored is not None:
            await stored

    def _finish(self, pending: Pending, error: BaseException | None, text: str) -> Awaitable[None] | None:
        """Record what a request came to: `text` is the answer of one that came to its end. See `RequestLog.add`."""
        if pending.caller.principal.limits is not None and pending.shadow_of is None:
            self._limiter.charge(pending.caller.principal.id, pending.usage.total_tokens)
        body = self._body(pending, text) if self._bodies and error is None else None
        return self._log.add(pending.outcome(error), body)

    def _body(self, pending: Pending, text: str) -> Body | None:
        """What may be recorded of a completion: only that of a prompt, since examples are of prompts."""
        ask, served = pending.ask, pending.served
        if served.prompt is None:
            return None
        messages, placeholders = list(ask.messages) or None, ask.placeholders or None
        return Body(served.prompt, served.name, ask.variables or {}, messages, placeholders, text)

    # ---------------------------------------------------------------------------- shadows

    def _ask_shadows(self, pending: Pending) -> None:
        """Ask the plan's shadows beside the answer that is on its way; what they say is recorded alone."""
        for choice in pending.plan.shadows:
            shadow = pending.shadow(self._serveds.of(choice))
            self.shadows.start(functools.partial(self._shadowed, shadow))

    async def _shadowed(self, shadow: Pending) -> None:
        try:
            await self._completed(shadow)
        except TurnoutError:
            return  # recorded: nobody waits for it


def is_callers_fault(error: ModelError) -> bool:
    """Whether no other variant could answer, either: the request itself was refused."""
    return isinstance(error, ModelRefused) and error.status in _CALLERS_FAULT


class Judged(NamedTuple):
    """Whether answers fit a schema; of one that does not, its text and why. None: there is no text, only calls or a refusal."""

    is_valid: bool | None
    text: str = ""
    fault: str = ""


async def judge(completion: Completion, output: OutputCheck) -> Judged:
    """Hold every answer of a completion against the schema; a long one in a thread."""
    texts = [completion.text]
    if len(completion.choices) > 1:
        texts = [_text_of(choice.get("message") or {}) for choice in completion.choices]
    if not any(texts) and (completion.message.get("tool_calls") or completion.message.get("refusal")):
        return Judged(None)
    for text in texts:
        fault = await fault_of(text, output)
        if fault is not None:
            return Judged(False, text, fault)
    return Judged(True)


def _text_of(message: Mapping[str, Any]) -> str:
    content = message.get("content")
    return content if isinstance(content, str) else ""

"""The request path: pick a variant, render, call, reply, record. No database on it."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from prompts.errors import BadInput, TurnoutError
from prompts.messages import Completion, CompletionRequest, Message
from prompts.names import NAME, Selector, Variant, parse_selector
from prompts.prompt import CompiledPrompt, plain_message
from service.bodies import Body
from service.errors import NotFound
from service.identity import Principal
from service.ids import now
from service.pool import Models, price_of
from service.request_log import RequestLog
from service.routing import pick
from service.settings import Settings
from service.snapshot import Snapshot


@dataclass(frozen=True, slots=True)
class Ask:
    """One request of an application. `unit` is the person who stays on one variant, "" for nobody in particular."""

    model: str
    messages: Sequence[Mapping[str, Any]] = ()
    variables: Mapping[str, Any] | None = None
    placeholders: Mapping[str, Any] | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)
    unit: str = ""


@dataclass(frozen=True, slots=True)
class Choice:
    """Who answers: a variant of a prompt with its compiled version, or (prompt None) a plain model."""

    model: str
    variant: Variant | None = None
    prompt: CompiledPrompt | None = None
    route_revision: int | None = None

    @property
    def name(self) -> str:
        return str(self.variant) if self.variant else self.model


@dataclass(frozen=True, slots=True)
class Reply:
    """A completion with where it came from."""

    id: str
    created_s: int
    choice: Choice
    completion: Completion

    @property
    def turnout(self) -> dict[str, Any]:
        """The object that every reply carries; its fields are null for a plain model."""
        variant, prompt = self.choice.variant, self.choice.prompt
        return {
            "prompt": variant.prompt if variant else None,
            "version": variant.version if variant else None,
            "digest": prompt.digest if prompt else None,
            "variant": self.choice.name,
            "route_revision": self.choice.route_revision,
        }


class Completions:
    """Answers applications."""

    def __init__(self, settings: Settings, snapshot: Snapshot, models: Models, log: RequestLog) -> None:
        self._settings = settings
        self._snapshot = snapshot
        self._models = models
        self._log = log

    async def complete(self, ask: Ask, principal: Principal) -> Reply:
        """One completion. Raises NotFound, a BadInput that names its field, or a ModelError."""
        started = time.perf_counter()
        completion_id = f"chatcmpl-{secrets.token_hex(12)}"
        choice = self._choose(ask) if self._is_ready(ask) else await asyncio.to_thread(self._choose, ask)
        if choice.variant and not self._snapshot.is_ready(choice.variant.prompt, choice.variant.version):
            await asyncio.to_thread(self._snapshot.prompt, choice.variant.prompt, choice.variant.version)
        choice, request = self._request(ask, choice)
        try:
            completion = await self._models.get(choice.model).complete(request)
        except TurnoutError as error:
            self._record(completion_id, principal, choice, started, None, error)
            raise
        except asyncio.CancelledError:
            self._record(completion_id, principal, choice, started, None, None)
            raise
        self._record(completion_id, principal, choice, started, completion, None, body_of(ask, choice, completion))
        return Reply(completion_id, int(time.time()), choice, completion)

    def _is_ready(self, ask: Ask) -> bool:
        """Whether choosing needs no database: all that labels and routes name is compiled, any other version may not be."""
        name, _, which = ask.model.partition("@")
        return not (which.isascii() and which.isdigit() and len(which) < 10) or self._snapshot.is_ready(
            name, int(which)
        )

    def _choose(self, ask: Ask) -> Choice:
        """A prompt's name follows its route, `@` bypasses it; any other model is an alias of the settings."""
        name = ask.model.partition("@")[0]
        if NAME.fullmatch(name) and name in self._snapshot.view.newest:
            return self._choose_variant(parse_selector(ask.model), ask.unit)
        if "@" not in ask.model and ask.model in self._settings.models:
            for given, what in ((ask.variables, "variables"), (ask.placeholders, "placeholders")):
                if given is not None:
                    raise BadInput(f"{ask.model!r} is a model, not a prompt: it takes no {what}", param=what)
            return Choice(ask.model)
        raise NotFound("model", ask.model, "name a prompt (`name`, `name@label`, `name@7`) or a model alias")

    def _choose_variant(self, selector: Selector, unit: str) -> Choice:
        route = self._snapshot.view.routes.get(selector.name)
        if selector.version is None and selector.label is None and route is not None and route.state.variants:
            variant = pick(route.state.variants, route.salt, unit or secrets.token_hex(8))
            return Choice(variant.model, variant, None, route.revision)
        number = self._snapshot.select(selector)
        content = self._snapshot.prompt(selector.name, number).content
        return Choice(content.model, Variant(selector.name, number, content.model))

    def _request(self, ask: Ask, choice: Choice) -> tuple[Choice, CompletionRequest]:
        timeout_s = float(getattr(self._settings.model(choice.model), "timeout_s", 120.0))
        if choice.variant is None:
            if not ask.messages:
                raise BadInput("messages: a model needs at least one message", param="messages")
            messages: tuple[Message, ...] = tuple(_any_message(m, i) for i, m in enumerate(ask.messages))
            return choice, CompletionRequest(messages, ask.parameters, None, timeout_s)
        prompt = self._snapshot.prompt(choice.variant.prompt, choice.variant.version)
        rendered = prompt.render(ask.variables or {}, ask.messages, ask.placeholders or {})
        parameters = {**prompt.content.request_parameters(), **ask.parameters}
        chosen = Choice(choice.model, choice.variant, prompt, choice.route_revision)
        return chosen, CompletionRequest(rendered, parameters, choice.variant.adapter, timeout_s)

    def _record(
        self,
        completion_id: str,
        principal: Principal,
        choice: Choice,
        started: float,
        completion: Completion | None,
        error: TurnoutError | None,
        body: Body | None = None,
    ) -> None:
        usage = completion.usage if completion else None
        price = price_of(self._settings, choice.model)
        self._log.add(
            {
                "id": completion_id,
                "at": now(),
                "key_id": principal.id,
                "prompt": choice.variant.prompt if choice.variant else None,
                "variant": choice.name,
                "route_revision": choice.route_revision,
                "status": "ok" if completion else type(error).__name__ if error else "cancelled",
                "latency_ms": (time.perf_counter() - started) * 1000,
                "upstream_ms": completion.latency_s * 1000 if completion else None,
                "prompt_tokens": usage.prompt_tokens if usage else 0,
                "completion_tokens": usage.completion_tokens if usage else 0,
                "cost_usd": price.cost_usd(usage) if price and usage else None,
                "error": str(error)[:500].replace("\0", "\\0") if error else None,  # databases keep no NUL
            },
            body if self._settings.recording.bodies else None,
        )


def body_of(ask: Ask, choice: Choice, completion: Completion) -> Body | None:
    """What may be recorded of a completion: only that of a prompt, since examples are of prompts."""
    if choice.variant is None:
        return None
    messages, placeholders = list(ask.messages) or None, ask.placeholders or None
    return Body(choice.variant.prompt, choice.name, ask.variables or {}, messages, placeholders, completion.text)


def _any_message(message: Mapping[str, Any], index: int) -> Message:
    if message.get("role") not in ("system", "developer", "user", "assistant", "tool"):
        raise BadInput(f"messages[{index}]: unknown role {message.get('role')!r}", param=f"messages[{index}].role")
    return plain_message(message, f"messages[{index}]")

"""After the last step the candidate is asked once more, as an application would ask it: a route that answers nothing goes back."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Any, Protocol

from prompts.errors import BadInput, TurnoutError
from prompts.names import Variant
from prompts.prompt import CompiledPrompt
from service.choosing import Ask
from service.pending import Caller
from service.registry import stored_suite
from service.rollouts.moves import ROLLOUTS
from service.store import suites
from service.store.database import Database
from suites.rollouts import Attempt, VerificationInput

ATTEMPTS = 3
PAUSE_S = 1.0
_BY_TYPE: Mapping[str, Any] = {"integer": 1, "number": 1.0, "boolean": True, "array": [], "object": {}, "null": None}


class Answering(Protocol):
    """What answers applications; `service.completions.Completions` is it."""

    def complete(self, ask: Ask, caller: Caller) -> Awaitable[Any]: ...


def known_ask(database: Database, prompt: CompiledPrompt, candidate: Variant) -> Ask | None:
    """A request that the candidate takes: a case of one of its suites, else made from its schemas; None where neither fits."""
    for variables, placeholders in (*_cases(database, candidate.prompt), (_made(prompt), {})):
        try:
            prompt.render(variables, (), placeholders)
        except BadInput:
            continue
        return Ask(candidate.prompt, variables=variables or None, placeholders=placeholders or None, pin=str(candidate))
    return None


async def verify(
    answering: Answering, ask: Ask, candidate: Variant, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
) -> VerificationInput:
    """Ask until one request is answered, at most `ATTEMPTS` times."""
    attempts: list[Attempt] = []
    while len(attempts) < ATTEMPTS:
        if attempts:
            await sleep(PAUSE_S)
        try:
            await answering.complete(ask, Caller(ROLLOUTS, time.perf_counter()))
        except TurnoutError as error:
            attempts.append(Attempt(status=type(error).__name__, error=str(error)[:500]))
            continue
        attempts.append(Attempt(status="ok"))
        break
    return VerificationInput(candidate=str(candidate), attempts=tuple(attempts))


def _cases(database: Database, prompt: str) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    with database.read() as session:
        records = [suites.newest(session, name) for name in suites.of_prompt(session, prompt)]
    for record in records:
        if record is None:
            continue
        case = next(iter(stored_suite(database, record).tests), None)
        if case is not None:
            yield case.vars, {name: list(messages) for name, messages in case.placeholders.items()}


def _made(prompt: CompiledPrompt) -> dict[str, Any]:
    """A value for each variable that needs one, as its schema names or suggests it."""
    schemas = prompt.content.variables
    return {name: _value(schema) for name, schema in schemas.items() if "default" not in schema}


def _value(schema: Mapping[str, Any]) -> Any:
    for key in ("examples", "enum"):
        if schema.get(key):
            return schema[key][0]
    if "const" in schema:
        return schema["const"]
    kinds = schema.get("type", "string")
    kind = str(kinds[0] if isinstance(kinds, list) and kinds else kinds)
    if kind == "string":
        return "verification".ljust(schema.get("minLength", 0), ".")[: schema.get("maxLength", 100)]
    return schema.get("minimum", _BY_TYPE.get(kind))

"""What a prompt's answers must be: its output schema, compiled once, and what is said to a model that missed it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cached_property
from typing import Any, NoReturn

from prompts.messages import Message
from prompts.schemas import Schema

MOST_REPAIRS = 3


class OutputCheck:
    """One JSON Schema that an answer's text has to fit."""

    def __init__(self, schema: Mapping[str, Any]) -> None:
        self._given = schema

    @cached_property
    def unusable(self) -> str:
        """Why answers cannot be held to the schema (it asks for what is not open to strangers), "" where they can."""
        return self._compiled if isinstance(self._compiled, str) else ""

    @cached_property
    def _compiled(self) -> Schema | str:
        try:
            return Schema(self._given)
        except ValueError as error:
            return str(error)

    def fault(self, text: str) -> str | None:
        """Why `text` does not fit, in words for a person or a model; None where it fits, or the schema is unusable."""
        if isinstance(self._compiled, str):
            return None
        try:
            value = json.loads(text, parse_constant=_refuse_constant)
        except (ValueError, RecursionError) as error:
            return f"it is no JSON: {error}"
        try:
            self._compiled.check(value)
        except ValueError as error:
            return str(error)
        return None


def repair_messages(answer: str, fault: str) -> tuple[Message, Message]:
    """What follows a conversation whose answer did not fit: the answer, and what was wrong with it."""
    told = f"Your answer does not fit the JSON schema that was asked for: {fault}. Answer again: JSON that fits, and nothing else."
    return Message("assistant", answer), Message("user", told)


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"it holds {name}")

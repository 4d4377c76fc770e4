"""promptfoo's matrix: a variable that holds a list where the prompt wants one value stands for a case with each of them.

What the prompt declares decides: a list that the variable's schema allows, or that a variable of type array holds, is
data and stays what it is.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

from prompts.errors import BadInput
from prompts.variables import VariableCheck

MOST_COMBINATIONS = 100_000  # of one case
MOST_SHOWN = 40  # characters of a value in a description

Schemas = Mapping[str, Mapping[str, Any]]  # JSON Schema by variable


class Matrix:
    """Which variables of a prompt span a matrix where a case gives them a list."""

    def __init__(self, schemas: Schemas) -> None:
        self._schemas = schemas
        self._check = cache(self._compiled)

    def axes(self, variables: Mapping[str, Any]) -> dict[str, list[Any]]:
        """The lists among `variables` that stand for a case with each of their items."""
        return {
            name: value for name, value in variables.items() if isinstance(value, list) and self._spans(name, value)
        }

    def _spans(self, name: str, value: list[Any]) -> bool:
        schema = self._schemas.get(name)
        if schema is None or not value or _is_array(schema.get("type")):
            return False
        check = self._check(name)
        try:
            if check is not None:
                check(value)
        except BadInput:
            return True
        return False

    def _compiled(self, name: str) -> VariableCheck | None:
        try:
            return VariableCheck(name, self._schemas[name])
        except BadInput:
            return None  # told with the prompt


def _is_array(kind: Any) -> bool:
    return kind == "array" or (isinstance(kind, list) and "array" in kind)


def size_of(axes: Mapping[str, list[Any]]) -> int:
    """How many cases `axes` stand for."""
    return math.prod(map(len, axes.values()))


def combinations(axes: Mapping[str, list[Any]]) -> Iterator[dict[str, Any]]:
    """One value of each axis, in every way; the last axis changes first, as in promptfoo."""
    for values in itertools.product(*axes.values()):
        yield dict(zip(axes, values, strict=True))


def described(description: str, number: int, total: int, chosen: Mapping[str, Any]) -> str:
    """The description of one case of a matrix: no other of it has the same; "" where the author gave none."""
    if not description:
        return ""
    shown = ", ".join(f"{name}={_shortened(str(value))}" for name, value in chosen.items())
    return f"{description} ({number} of {total}: {shown})"


def _shortened(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= MOST_SHOWN else line[: MOST_SHOWN - 1] + "…"

"""Hooks for `json.JSONDecoder` that refuse what means two things, or nothing, to another reader of JSON; all raise ValueError."""

from __future__ import annotations

import math
from typing import Any, NoReturn


def unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object; of two equal keys Python would keep the last."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"duplicate key {next(name for name in names if names.count(name) > 1)!r}")
    return found


def no_constant(word: str) -> NoReturn:
    """Refuse NaN and the infinities, which Python reads and writes."""
    raise ValueError(f"{word} is not JSON")


def finite(digits: str) -> float:
    """A number; one that is too large would become an infinity, and be written as one."""
    number = float(digits)
    if math.isinf(number):
        raise ValueError(f"{digits[:40]} is a number out of range")
    return number

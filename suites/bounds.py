"""Numbers that authors write: held to a range, and a wrong one is told the range with an example."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from suites.assertions.spec import refuse


def number(
    told: str, example: str, *, least: float, most: float = math.inf, above: bool = False
) -> Callable[[Any], Any]:
    """A validator of numbers from `least` (or only above it) to `most`; `told` says the range in words.

    It refuses what is no number, too, so that a text such as "90%" is told what to write. None passes.
    """

    def check(value: Any) -> Any:
        if value is None:
            return None
        is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        if not is_number or not least <= value <= most or (above and value == least):
            refuse(told, f"write {(_as_share(value) if (least, most) == (0, 1) else None) or example}")
        return value

    return check


def count(told: str, example: str, *, least: int, most: int) -> Callable[[Any], Any]:
    """The same for whole numbers."""
    check = number(told, example, least=least, most=most)

    def whole(value: Any) -> Any:
        if isinstance(value, float):
            refuse(told, f"write {example}")
        return check(value)

    return whole


def _as_share(value: Any) -> str | None:
    """What a percentage is as a share: 90, "90%" and "90 %" are 0.9; None where it is no percentage."""
    text = value.strip().removesuffix("%").strip() if isinstance(value, str) else str(value)
    try:
        percent = float(text)
    except ValueError:
        return None
    return f"{percent / 100:g}" if 1 < percent <= 100 else None

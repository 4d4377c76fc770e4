"""Curves in a terminal, by braille: a character holds two columns of four dots."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

Points = Sequence[tuple[float, float]]
_BLANK = 0x2800
_DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))  # by row and column of a character (Unicode 2800 ff.)
_COLUMNS, _ROWS = 2, 4


@dataclass(frozen=True, slots=True)
class Chart:
    """`cells` are rows of characters, each with the number of the curve that drew it last, -1 for none; `low`, `high` bound y."""

    cells: tuple[tuple[tuple[str, int], ...], ...]
    low: float
    high: float


def chart(curves: Sequence[Points], width: int, height: int, bounds: tuple[float, float] | None = None) -> Chart:
    """Curves of (x, y) over one range, each joined by lines, in `width` × `height` characters; what is no number is left out.

    `bounds` are the least and the most of y, by default those of the points.
    """
    known = [[point for point in curve if math.isfinite(point[0] + point[1])] for curve in curves]
    points = [point for curve in known for point in curve]
    if not points or width < 1 or height < 1:
        return Chart(tuple(((" ", -1),) * width for _ in range(height)), 0.0, 0.0)
    (left, right), (low, high) = (_range([point[axis] for point in points]) for axis in (0, 1))
    low, high = bounds or (low, high)
    dots, owner = [[0] * width for _ in range(height)], [[-1] * width for _ in range(height)]
    for number, curve in enumerate(known):
        placed = [
            (_place(x, left, right, width * _COLUMNS), height * _ROWS - 1 - _place(y, low, high, height * _ROWS))
            for x, y in curve
        ]
        for column, row in _joined(placed):
            dots[row // _ROWS][column // _COLUMNS] |= _DOTS[row % _ROWS][column % _COLUMNS]
            owner[row // _ROWS][column // _COLUMNS] = number
    cells = tuple(
        tuple((chr(_BLANK + dot) if dot else " ", of) for dot, of in zip(*line, strict=True))
        for line in zip(dots, owner, strict=True)
    )
    return Chart(cells, low, high)


def _range(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    return (low, high) if low < high else (low - 0.5, high + 0.5)


def _place(value: float, low: float, high: float, count: int) -> int:
    return max(0, min(count - 1, int((value - low) / (high - low) * count)))


def _joined(placed: Sequence[tuple[int, int]]) -> set[tuple[int, int]]:
    """The dots of a line through these places (Bresenham's, by equal steps)."""
    found = set(placed[:1])
    for (x0, y0), (x1, y1) in pairwise(placed):
        steps = max(abs(x1 - x0), abs(y1 - y0), 1)
        found |= {(round(x0 + (x1 - x0) * at / steps), round(y0 + (y1 - y0) * at / steps)) for at in range(steps + 1)}
    return found

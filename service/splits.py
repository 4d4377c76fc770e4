"""Who owns which points of a route. Pure.

A keyed hash gives each person a point, and the variants own the points between them: a share is a number of points. When
shares change, a variant keeps as many of its points as its new share holds, and only what others give up changes
hands. So nobody is ever moved out of a share that does not shrink, however many variants there are. A layout that is
made anew from the shares alone cannot promise that for more than two (Bavarian et al., "Optimality of Correlated Sampling
Strategies", 2020): the layout is part of the route.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from prompts.names import Variant

PARTS = 1 << 30  # points of a route: a share is known to a ten-millionth of a percent


@dataclass(frozen=True, slots=True)
class Weighted:
    """A variant and its share of the traffic, in percent."""

    variant: Variant
    percent: float


@dataclass(frozen=True, slots=True)
class Span:
    """The points from the end of the span before (0 at first) up to `end`, which is the next one's."""

    variant: Variant
    end: int


class Split:
    """A layout to look points up in."""

    def __init__(self, spans: Sequence[Span]) -> None:
        self.spans = tuple(spans)
        self._ends = [span.end for span in spans]

    def index(self, point: int) -> int:
        """Which of the spans holds a point in [0, PARTS)."""
        return bisect_right(self._ends, point)

    def owner(self, point: int) -> Variant:
        return self.spans[self.index(point)].variant


def unit_digest(salt: str, unit: str) -> str:
    """What a person is known by on one route: 16 hexadecimal characters that tell nothing without the route's salt."""
    text = unit.encode("utf-8", "surrogatepass")
    return hashlib.blake2b(text, key=salt.encode()[:64], digest_size=8).hexdigest()


def point_of(digest: str) -> int:
    """The point in [0, PARTS) of a `unit_digest`: its first 30 bits."""
    return int(digest, 16) >> 34


def in_order(variants: Sequence[Weighted]) -> tuple[Span, ...]:
    """The first variant owns the points from 0 up to its share, the next those after it."""
    total = sum(weighted.percent for weighted in variants)
    spans, passed = [], 0.0
    for weighted in variants:
        passed += weighted.percent
        spans.append(Span(weighted.variant, round(PARTS * (passed / total))))
    return merged(spans)


def reshare(before: Sequence[Span], variants: Sequence[Weighted]) -> tuple[Span, ...]:
    """The layout in which each variant has its new share and keeps all it can of what it had."""
    after = in_order(variants)
    if not before:
        return after
    had, wanted = widths(before), widths(after)
    order = {weighted.variant: place for place, weighted in enumerate(variants)}
    growing = [weighted.variant for weighted in variants if wanted[weighted.variant] > had[weighted.variant]]
    first = min((order[variant] for variant in growing), default=0)
    left = {variant: wanted[variant] - had[variant] for variant in growing}
    kept = _cut(before, wanted, {variant for variant, place in order.items() if place < first})
    return merged(_filled(kept, left))


def widths(spans: Iterable[Span]) -> dict[Variant, int]:
    """How many points each variant owns; 0 for any other."""
    found: dict[Variant, int] = defaultdict(int)
    start = 0
    for span in spans:
        found[span.variant] += span.end - start
        start = span.end
    return found


def _cut(
    before: Sequence[Span], wanted: dict[Variant, int], keeps_front: set[Variant]
) -> list[tuple[int, int, Variant | None]]:
    """Pieces as (start, end, owner or None): of what it has too much a variant gives up its last points, or its first."""
    front = _give_up(_pieces(before), wanted, keeps_front)
    return _give_up(front[::-1], wanted, set(widths(before)) - keeps_front, backwards=True)[::-1]


def _pieces(spans: Sequence[Span]) -> list[tuple[int, int, Variant | None]]:
    starts = [0, *(span.end for span in spans)]
    return [(start, span.end, span.variant) for start, span in zip(starts, spans, strict=False)]


def _give_up(
    pieces: Iterable[tuple[int, int, Variant | None]],
    wanted: dict[Variant, int],
    of: set[Variant],
    *,
    backwards: bool = False,
) -> list[tuple[int, int, Variant | None]]:
    """Walk the pieces and keep for each variant `of` these as many points as are wanted, those met first."""
    left, found = dict(wanted), list[tuple[int, int, Variant | None]]()
    for start, end, variant in pieces:
        if variant is None or variant not in of:
            found.append((start, end, variant))
            continue
        kept = min(end - start, left.get(variant, 0))
        left[variant] = left.get(variant, 0) - kept
        cut = end - kept if backwards else start + kept
        parts = [(cut, end, variant), (start, cut, None)] if backwards else [(start, cut, variant), (cut, end, None)]
        found += [part for part in parts if part[0] < part[1]]
    return found


def _filled(pieces: Iterable[tuple[int, int, Variant | None]], left: dict[Variant, int]) -> Iterable[Span]:
    """The pieces that nobody has go to those who still lack points, one after another."""
    waiting = [variant for variant, points in left.items() if points > 0]
    for start, end, variant in pieces:
        if variant is not None:
            yield Span(variant, end)
            continue
        while start < end:
            taken = min(end - start, left[waiting[0]])
            start += taken
            left[waiting[0]] -= taken
            yield Span(waiting[0], start)
            if left[waiting[0]] == 0:
                waiting.pop(0)


def merged(spans: Iterable[Span]) -> tuple[Span, ...]:
    """The same layout without empty spans, and without neighbours of one variant."""
    found: list[Span] = []
    start = 0
    for span in spans:
        if span.end == start:
            continue
        start = span.end
        if found and found[-1].variant == span.variant:
            found[-1] = span
        else:
            found.append(span)
    return tuple(found)

"""A small line chart as inline SVG: no script, no style of its own, colours by the page's classes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from suites.report.page import esc

WIDTH, HEIGHT, EDGE = 640, 120, 8


def chart(
    values: Sequence[float | None],
    titles: Sequence[str],
    bands: Sequence[tuple[float, float] | None] = (),
    *,
    from_zero: bool = False,
) -> str:
    """The values from left to right, a dot each that says its title, and a line through them that stops where one is unknown.

    `bands` are intervals around them; `from_zero` shows how large a change is of the whole. Without any value there is no
    chart.
    """
    known = [value for value in values if value is not None]
    if not known:
        return ""
    around = [bound for band in bands if band for bound in band]
    low, high = min(known + around + [0.0] * from_zero), max(known + around)
    place = _Places(len(values), low, high)
    areas = [f'<polygon class="band" points="{points}"/>' for points in _areas(bands, place)]
    lines = [f'<polyline class="line" points="{points}"/>' for points in _lines(values, place)]
    dots = [
        f'<circle class="dot" cx="{place.x(at):.1f}" cy="{place.y(value):.1f}" r="3"><title>{esc(title)}</title></circle>'
        for at, (value, title) in enumerate(zip(values, titles, strict=True))
        if value is not None
    ]
    label = f"from {low:.4g} to {high:.4g}"
    head = f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" role="img" aria-label="{label}">'
    return "".join([head, *areas, *lines, *dots, "</svg>"])


class _Places:
    """Where values stand in the picture."""

    def __init__(self, count: int, low: float, high: float) -> None:
        self._step = (WIDTH - 2 * EDGE) / max(1, count - 1)
        self._low, self._span = low, high - low

    def x(self, at: int) -> float:
        return EDGE + at * self._step

    def y(self, value: float) -> float:
        share = (value - self._low) / self._span if self._span else 0.5
        return HEIGHT - EDGE - share * (HEIGHT - 2 * EDGE)


def _pieces(known: Sequence[bool]) -> Iterator[range]:
    """The stretches without a gap."""
    start = 0
    for at, is_known in enumerate([*known, False]):
        if not is_known:
            if at > start:
                yield range(start, at)
            start = at + 1


def _lines(values: Sequence[float | None], place: _Places) -> Iterator[str]:
    for piece in _pieces([value is not None for value in values]):
        yield " ".join(f"{place.x(at):.1f},{place.y(values[at] or 0.0):.1f}" for at in piece)


def _areas(bands: Sequence[tuple[float, float] | None], place: _Places) -> Iterator[str]:
    for piece in _pieces([band is not None for band in bands]):
        found = [(at, bands[at] or (0.0, 0.0)) for at in piece]
        above = [f"{place.x(at):.1f},{place.y(band[1]):.1f}" for at, band in found]
        below = [f"{place.x(at):.1f},{place.y(band[0]):.1f}" for at, band in reversed(found)]
        yield " ".join([*above, *below])

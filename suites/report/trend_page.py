"""A suite's trend as one HTML page."""

from __future__ import annotations

from collections.abc import Sequence

from suites.report.chart import chart
from suites.report.html import percent
from suites.report.page import esc, page, table
from suites.trend import Point, series_of

_NAMES = {
    "pass_rate": "Pass rate, with its 95% interval",
    "p50_ms": "p50 latency, ms",
    "p95_ms": "p95 latency, ms",
    "cost_per_1k_usd": "Cost, USD per 1,000 answers",
}
_FROM_ZERO = ("p50_ms", "p95_ms", "cost_per_1k_usd")


def trend_page(suite: str, what: str, points: Sequence[Point]) -> str:
    """The page of these runs, oldest first; `what` says of which."""
    title = f"Trend of {suite}"
    body = [f"<h1>{esc(title)}</h1>", f"<p>{esc(what)}</p>"]
    for name, values in series_of(points).items():
        body += _figure(name, values, points)
    heads = ("started", "variant", "suite", "cases", "pass rate", "95% interval", "p50 ms", "p95 ms", "USD/1k", "run")
    return page(title, [*body, "<h3>Runs</h3>", table(heads, [_row(point) for point in reversed(points)], range(3, 9))])


def _figure(name: str, values: Sequence[float | None], points: Sequence[Point]) -> list[str]:
    """One figure with its chart: latency and cost from zero on, shares between the least and the largest."""
    shown = percent if name == "pass_rate" else _shown
    titles = [f"{point.started_at[:16]} {point.variant}: {shown(v)}" for point, v in zip(points, values, strict=True)]
    bands = [point.ci95 for point in points] if name == "pass_rate" else []
    known = [value for value in values if value is not None]
    last = f"last {shown(known[-1])}, from {shown(min(known))} to {shown(max(known))}"
    head = _NAMES.get(name, name.replace("metric.", "Metric ", 1))
    drawn = chart(values, titles, bands, from_zero=name in _FROM_ZERO)
    return [f"<section><h3>{esc(head)}</h3><p>{last}</p>{drawn}</section>"]


def _shown(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"


def _row(point: Point) -> tuple[str, ...]:
    interval = f"{percent(point.ci95[0])} – {percent(point.ci95[1])}" if point.ci95 else "–"
    figures = (point.p50_ms, point.p95_ms, point.cost_per_1k_usd)
    started = point.started_at[:16].replace("T", " ")
    texts = (started, point.variant, point.suite, str(point.total), percent(point.pass_rate), interval)
    return tuple(map(esc, (*texts, *map(_shown, figures), point.run_id)))

"""How a suite's figures went over its last runs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

BARS = "▁▂▃▄▅▆▇█"
MISSING = "·"


@dataclass(frozen=True, slots=True)
class Point:
    """One run. Latency in milliseconds, cost in USD for a thousand answers; None where unknown."""

    run_id: str
    started_at: str
    variant: str
    suite: str
    total: int
    pass_rate: float | None
    ci95: tuple[float, float] | None
    p50_ms: float | None
    p95_ms: float | None
    cost_per_1k_usd: float | None
    metrics: Mapping[str, float | None] = field(default_factory=dict)

    @classmethod
    def of(cls, run: Mapping[str, Any]) -> Point:
        """A run as the API shows it."""
        figures = (
            "run_id",
            "started_at",
            "variant",
            "suite",
            "total",
            "pass_rate",
            "p50_ms",
            "p95_ms",
            "cost_per_1k_usd",
        )
        interval = run["ci95"]
        return cls(
            **{name: run[name] for name in figures},
            ci95=(interval[0], interval[1]) if interval else None,
            metrics={name: metric["score"] for name, metric in run["metrics"].items()},
        )


def points_of(runs: Iterable[Mapping[str, Any]]) -> Iterator[Point]:
    """The runs that say something of a variant by itself, in the order given.

    Left out are those that have not finished, that asked some of the cases, that gave second chances, and those whose
    outcomes depend on other variants' answers.
    """
    for run in runs:
        again = run.get("rerun", {}).get("asks") == "failed"
        if run["status"] == "finished" and "filter" not in run and "compared" not in run and not again:
            yield Point.of(run)


def on_label(points: Iterable[Point], moves: Sequence[Mapping[str, Any]]) -> Iterator[Point]:
    """The runs of the version that a label pointed to when they started; `moves` of the label, newest first."""
    for point in points:
        version = next((move["to_version"] for move in moves if move["at"] <= point.started_at), None)
        tested = point.variant.partition("+")[0].rpartition("@")[2]
        if version is not None and tested == str(version):
            yield point


def series_of(points: Sequence[Point]) -> dict[str, list[float | None]]:
    """Each figure over the points: pass rate, latency, cost, and `metric.NAME`; those that no point has are left out."""
    plain = {name: [getattr(point, name) for point in points] for name in _PLAIN}
    names = sorted({name for point in points for name in point.metrics})
    metrics = {f"metric.{name}": [point.metrics.get(name) for point in points] for name in names}
    return {name: values for name, values in (plain | metrics).items() if any(value is not None for value in values)}


_PLAIN = ("pass_rate", "p50_ms", "p95_ms", "cost_per_1k_usd")


def sparkline(values: Sequence[float | None]) -> str:
    """A bar for each value between the least and the largest; all in the middle where they are equal."""
    known = [value for value in values if value is not None]
    if not known:
        return MISSING * len(values)
    low, span = min(known), max(known) - min(known)
    top = len(BARS) - 1
    return "".join(
        MISSING if value is None else BARS[round((value - low) / span * top) if span else top // 2] for value in values
    )

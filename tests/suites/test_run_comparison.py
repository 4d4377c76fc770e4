"""Two runs side by side, and runs one after another."""

from __future__ import annotations

import io
import random
import statistics
from dataclasses import replace

import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from prompts.errors import BadInput
from prompts.messages import Usage
from suites.drift import drifts
from suites.judge import Judged
from suites.report.comparison import (
    MARKER,
    Compared,
    SideView,
    as_data,
    comparison_markdown,
    comparison_page,
    headline,
)
from suites.report.history_tables import print_comparison, print_trend
from suites.report.trend_page import trend_page
from suites.report.views import AnswerView, CaseRow
from suites.results import CaseResult
from suites.run_comparison import Observed, compare_runs, shift_of
from suites.statistics import mcnemar_two_sided, paired_interval
from suites.trend import Point, on_label, points_of, series_of, sparkline


def result(case_id, status, repeat=0, score=None, queue=None, ms=None, usd=None, tags=()):
    outcomes = () if queue is None else (Judged("equals", "queue", 1.0, "passed", queue, ""),)
    usage = None if usd is None else Usage(10, 5, 0)
    plain = {"score": score if score is not None else float(status == "passed"), "latency_ms": ms, "cost_usd": usd}
    return CaseResult(case_id, 0, repeat, status, outcomes=outcomes, usage=usage, tags=tags, **plain)


def observed(statuses, **more):
    return Observed.of([result(case_id, status, **more) for case_id, status in statuses.items()])


# ------------------------------------------------------------------------------------ figures


@pytest.mark.parametrize(
    ("counts", "low", "high"),
    [
        ((1, 1, 7, 12), 0.026, 0.507),  # Fagerland, Lydersen, Laake 2014: Newcombe's interval of Bentur's data
        ((1, 7, 1, 12), -0.507, -0.026),
        ((10, 0, 0, 0), -0.2775, 0.2775),  # both Wilson: 1 - 10/(10 + 1.96²)
    ],
)
def test_newcombes_interval(counts, low, high):
    assert paired_interval(*counts) == pytest.approx((low, high), abs=6e-4)


@given(st.tuples(*[st.integers(0, 60)] * 4).filter(any))
def test_the_interval_holds_the_difference_and_turns_with_the_sides(counts):
    both, broken, mended, neither = counts
    low, high = paired_interval(*counts)
    assert -1 <= low <= (mended - broken) / sum(counts) + 1e-9
    assert (mended - broken) / sum(counts) - 1e-9 <= high <= 1
    assert paired_interval(both, mended, broken, neither) == pytest.approx((-high, -low))


def test_no_pairs_have_no_interval():
    with pytest.raises(BadInput, match="no pairs"):
        paired_interval(0, 0, 0, 0)


def test_mcnemar_on_both_sides():
    assert mcnemar_two_sided(6, 0) == mcnemar_two_sided(0, 6) == pytest.approx(2 / 64)
    assert mcnemar_two_sided(3, 3) == 1.0


def test_flips_are_paired_by_case_and_what_one_side_lacks_is_named():
    a = observed({"a": "passed", "b": "failed", "c": "passed", "d": "errored", "only": "passed"})
    b = observed({"a": "failed", "b": "passed", "c": "errored", "d": "passed", "new": "passed", "left": "skipped"})
    found = compare_runs(a, b, {}, {})
    assert (found.flips.broken, found.flips.mended) == (("a", "c"), ("b", "d"))
    assert (found.flips.paired, found.flips.a_passed, found.flips.b_passed) == (4, 2, 2)
    assert found.flips.difference == 0.0
    assert (found.only_a, found.only_b) == (("only",), ("new",))


def test_repeats_make_one_outcome():
    results = [result("a", "passed"), result("a", "failed", repeat=1), result("b", "passed"), result("b", "passed", 1)]
    assert Observed.of(results).outcomes == {"a": "failed", "b": "passed"}
    assert Observed.of(results, passes_needed=1).outcomes == {"a": "passed", "b": "passed"}


def test_metrics_and_tags_are_told_each_with_adjusted_p_values():
    a = Observed.of([result(f"c{n}", "passed", queue=1.0) for n in range(12)])
    b = Observed.of([result(f"c{n}", "failed" if n < 8 else "passed", queue=float(n >= 8)) for n in range(12)])
    tags = {"low": [f"c{n}" for n in range(8)], "high": [f"c{n}" for n in range(8, 12)], "none": ["gone"]}
    found = compare_runs(a, b, tags, {})
    assert [(name, flips.paired, len(flips.broken)) for name, flips in found.tags] == [("high", 4, 0), ("low", 8, 8)]
    assert found.tags[1][1].p_adjusted == pytest.approx(2 * 2 / 256)
    [queue] = found.metrics
    assert (queue.a, queue.difference, queue.cases) == (1.0, pytest.approx(-8 / 12), 12)
    assert queue.ci95[0] <= queue.difference <= queue.ci95[1] < 0
    assert queue.p_adjusted == queue.p_value < 0.05


def test_what_errored_counts_as_nothing_in_a_mean():
    assert shift_of("x", {"a": 1.0, "b": 0.5}, {"a": 0.0, "b": 0.5}, {}).difference == pytest.approx(-0.5)
    assert shift_of("x", {"a": 1.0}, {"b": 1.0}, {}) is None
    errored = [result("a", "errored", score=0.0)]
    assert Observed.of(errored).scores == {"a": 0.0}


def test_of_many_cases_the_interval_is_the_normal_one():
    draw = random.Random(1).random  # noqa: S311 - a test holds no secret
    a = {f"c{n}": draw() for n in range(1_001)}
    b = {case_id: value + draw() - 0.4 for case_id, value in a.items()}
    gaps = [b[case_id] - a[case_id] for case_id in a]
    mean = statistics.fmean(gaps)
    reach = 1.959964 * statistics.stdev(gaps) / 1_001**0.5
    found = shift_of("x", a, b, {})
    assert found.ci95 == pytest.approx((mean - reach, mean + reach), abs=1e-6)
    assert found.p_value == pytest.approx(scipy.stats.norm.sf(mean / (reach / 1.959964)) * 2, rel=1e-3)
    assert shift_of("x", a, dict(a), {}).p_value == 1.0
    few = shift_of("x", {key: a[key] for key in list(a)[:1_000]}, b, {})
    assert few.ci95 == pytest.approx(found.ci95, abs=0.004)  # by the bootstrap


def test_the_reach_of_a_percentile_shrinks_with_the_cases(monkeypatch):
    draw = random.Random(2).random  # noqa: S311 - a test holds no secret
    a = Observed.of([result(f"c{n}", "passed", ms=draw() * 100) for n in range(800)])
    b = Observed.of([result(f"c{n}", "passed", ms=draw() * 100) for n in range(800)])
    whole, _ = drifts(a, b, {})
    monkeypatch.setattr("suites.drift.MOST_CASES", 200)
    part, _ = drifts(a, b, {})
    assert part.ci95[0] < part.difference < part.ci95[1]
    width = [each.ci95[1] - each.ci95[0] for each in (whole, part)]
    assert width[1] == pytest.approx(width[0], rel=0.35)


def test_latency_cost_and_tokens_drift_over_what_both_answered():
    a = Observed.of([result(f"c{n}", "passed", ms=100.0 + n, usd=0.001) for n in range(20)])
    b = Observed.of([result(f"c{n}", "passed", ms=200.0 + n, usd=0.002) for n in range(20)] + [result("x", "failed")])
    found = {each.name: each for each in drifts(a, b, {})}
    assert (found["p50_ms"].a, found["p50_ms"].b, found["p50_ms"].ci95) == (109.0, 209.0, (100.0, 100.0))
    assert found["p95_ms"].difference == 100.0
    assert (found["cost_per_1k_usd"].ratio, found["cost_per_1k_usd"].cases) == (pytest.approx(2.0), 20)
    assert found["completion_tokens"].difference == 0.0
    assert drifts(observed({"a": "passed"}), observed({"a": "passed"}), {}) == []


# ------------------------------------------------------------------------------------ reports


def compared(text="late"):
    a, b = observed({"a": "passed", "b": "failed"}), observed({"a": "failed", "b": "passed"})
    sides = [SideView(x, f"run_{x}", f"say@{n}+m", "say@1", text, 1, 2, 0.5, (0.1, 0.9)) for n, x in enumerate("AB", 1)]
    answers = AnswerView("failed", text, text), AnswerView("passed", text)
    rows = [
        CaseRow("a", 1, 0, text, text, *answers, change="broken"),
        CaseRow("b", 2, 0, text, "", *answers[::-1], "mended"),
    ]
    return Compared(*sides, compare_runs(a, b, {"t": ["a"]}, {}), (), rows, (text,))


def test_a_comparison_says_the_same_in_every_form():
    stream = io.StringIO()
    print_comparison(Console(file=stream, width=160, no_color=True), compared())
    for said in (stream.getvalue(), comparison_markdown(compared()), comparison_page(compared())):
        assert "1 newly broken, 1 newly mended of 2 paired cases" in said
        assert "newly broken" in said.lower()
        assert "late" in said
        assert "50.0%" in said
    assert as_data(compared())["broken"] == ["a"]
    assert "p = 1" in headline(compared())


def test_of_many_tags_those_are_shown_that_changed_most_surely():
    a, b = observed({"a": "passed", "b": "failed"}), observed({"a": "failed", "b": "failed"})
    for n in range(10):
        a.outcomes[f"x{n}"], b.outcomes[f"x{n}"] = "passed", "failed"
    tags = {f"t{n:02}": ["b"] for n in range(60)} | {"z": [f"x{n}" for n in range(10)]}
    many = replace(compared(), comparison=compare_runs(a, b, tags, {}))
    text = comparison_markdown(many)
    assert "11 more with a larger p are in the JSON" in text
    assert "| z | 10 | 10 | 0 |" in text
    assert len(as_data(many)["tags"]) == 61


@given(st.text(st.characters(), max_size=60))
def test_no_text_breaks_the_tables_of_a_comparison(text):
    told = comparison_markdown(compared(text or "x"))
    assert told.startswith(MARKER)
    plain = comparison_markdown(compared("x"))
    assert [line.count("|") for line in told.splitlines()] == [line.count("|") for line in plain.splitlines()]
    assert told.count("<details") == 2


# ------------------------------------------------------------------------------------ trends


def run(number, version=1, **more):
    plain = {"status": "finished", "suite": "say@1", "total": 10, "ci95": [0.5, 0.9], "p50_ms": 1.0, "p95_ms": 2.0}
    plain |= {"cost_per_1k_usd": None, "metrics": {"queue": {"score": number / 10}}, "pass_rate": number / 10}
    return {
        "run_id": f"run_{number}",
        "variant": f"say@{version}+m",
        "started_at": f"2026-01-0{number}",
        **plain,
        **more,
    }


def test_runs_that_say_nothing_of_a_variant_by_itself_are_left_out():
    runs = [run(1), run(2, status="running"), run(3, filter={}), run(4, compared=[]), run(5, rerun={"asks": "failed"})]
    runs.append(run(6, rerun={"asks": "errored"}))
    assert [point.run_id for point in points_of(runs)] == ["run_1", "run_6"]


def test_a_run_counts_for_the_version_that_the_label_pointed_to_then():
    moves = [{"to_version": 2, "at": "2026-01-04"}, {"to_version": 1, "at": "2026-01-02"}]
    points = points_of([run(5, 2), run(5, 1), run(4, 1), run(3, 1), run(1, 1)])
    assert [(point.run_id, point.variant) for point in on_label(points, moves)] == [
        ("run_5", "say@2+m"),
        ("run_3", "say@1+m"),
    ]


def test_series_leave_out_what_nobody_knows():
    points = [*points_of([run(1), run(2)])]
    assert series_of(points) == {
        "pass_rate": [0.1, 0.2],
        "p50_ms": [1.0, 1.0],
        "p95_ms": [2.0, 2.0],
        "metric.queue": [0.1, 0.2],
    }


def test_a_line_of_bars():
    assert sparkline([0.0, 0.5, None, 1.0]) == "▁▅·█"
    assert sparkline([3.0, 3.0]) == "▄▄"
    assert sparkline([None]) == "·"


def test_a_trend_is_shown_on_a_page_and_on_a_terminal():
    points = [Point.of(run(1)), Point.of(run(2, metrics={}))]
    document = trend_page("say <b>", "2 runs", points)
    assert document.count("<svg") == 4
    assert "Trend of say &lt;b&gt;" in document
    assert "last 20.0%, from 10.0% to 20.0%" in document
    stream = io.StringIO()
    print_trend(Console(file=stream, width=160, no_color=True), points)
    assert "▁█" in stream.getvalue()
    assert "run_2" in stream.getvalue()

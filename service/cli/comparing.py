"""Commands that look at several runs: compare, trend."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from service.cli.options import Csv, Html, Json, JsonFile, Local, Markdown

if TYPE_CHECKING:
    from service.cli.finding_runs import Found
    from service.cli.work import Work
    from suites.case import Case
    from suites.report.comparison import Compared, SideView
    from suites.report.views import AnswerView, CaseRow
    from suites.run_comparison import Observed
    from suites.trend import Point

MOST_RUNS = 500  # that are looked through, newest first
Side = Annotated[str, typer.Argument(help="A run's id, NAME@SEL, or git:REF (with --suite).")]
SuiteOption = Annotated[
    str | None, typer.Option("--suite", help="The suite whose newest runs are meant: its file or its name.")
]
Ask = Annotated[bool, typer.Option("--run", help="Run what has no finished run yet.")]
Open = Annotated[bool, typer.Option("--open", help="Write the page and open it in the browser.")]


def compare(
    a: Side,
    b: Side,
    suite: SuiteOption = None,
    ask: Ask = False,
    markdown: Markdown = None,
    html: Html = None,
    csv: Csv = None,
    json_file: JsonFile = None,
    open_: Open = False,
    as_json: Json = False,
    local: Local = False,
) -> int:
    """Two runs side by side: what flipped, with both answers; metrics, tags, latency and cost, each with its interval."""
    import json

    from service.cli.finding_runs import Finder
    from service.cli.output import out, print_json
    from service.cli.reports import write_text
    from suites.report.comparison import comparison_markdown, comparison_page
    from suites.report.spreadsheet import render_csv

    finder = Finder.at(suite, local=local, ask=ask)
    found = finder.both(a, b)
    compared = compare_found(finder.work, *found)
    answer = _as_answer(compared, *found)
    page = html or (_temporary("compare") if open_ else None)
    if json_file is not None:
        write_text(json_file, json.dumps(answer, indent=2, ensure_ascii=False) + "\n")
    if markdown is not None:
        write_text(markdown, comparison_markdown(compared))
    if csv is not None:
        write_text(csv, render_csv({compared.b.suite: compared.rows}))
    if page is not None:
        write_text(page, comparison_page(compared))
    if as_json:
        print_json(answer)
    else:
        from suites.report.history_tables import print_comparison

        print_comparison(out(), compared)
    if open_ and page is not None:
        _open(page)
    return 0


def compare_found(work: Work, a: Found, b: Found) -> Compared:
    """Everything that differs between two runs. Raises BadInput where they share no case."""
    from prompts.errors import BadInput
    from service.cli.changes import Changes
    from suites.detail import cluster_of, clusters_of
    from suites.drift import drifts
    from suites.report.comparison import Compared
    from suites.results import CaseResult
    from suites.run_comparison import compare_runs

    before, after = ([CaseResult.from_dict(row) for row in work.cases(found.run_id)] for found in (a, b))
    cases = work.cases_of(b.suite)
    was, now = _observed(work, a, before), _observed(work, b, after)
    clusters = clusters_of({case.id: cluster_of(case) for case in cases})
    comparison = compare_runs(was, now, _tags(after), clusters)
    if not comparison.flips.paired:
        told = f"{a.run_id} ({a.suite}) and {b.run_id} ({b.suite}) share no case that both answered"
        raise BadInput(f"{told}: name runs of one suite, or give --suite", param="b")
    paired = was.outcomes.keys() & now.outcomes.keys()
    rows = Changes(after, before, _in_place(cases, after), of_some=True).rows(
        comparison.flips.broken, comparison.flips.mended
    )
    return Compared(
        a=_side("A", a),
        b=_side("B", b),
        comparison=comparison,
        drifts=drifts(was, now, clusters),
        rows=[row for row in rows if row.case_id in paired],
        notes=[*a.notes("A"), *b.notes("B"), *_of_suites(a, b, comparison.only_a, comparison.only_b)],
    )


def _observed(work: Work, found: Found, results: Sequence[Any]) -> Observed:
    from suites.run_comparison import Observed

    return Observed.of(results, work.suite(found.suite)["content"].get("pass_k"))


def _tags(results: Sequence[Any]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for result in results:
        if result.repeat == 0:
            for tag in result.tags:
                found.setdefault(tag, []).append(result.case_id)
    return found


def _in_place(cases: Sequence[Case], results: Sequence[Any]) -> Sequence[Case]:
    """The cases, where the run's places are theirs; none where another version of the suite was asked."""
    fits = all(result.index < len(cases) and cases[result.index].id == result.case_id for result in results)
    return cases if fits else ()


def _of_suites(a: Found, b: Found, only_a: Sequence[str], only_b: Sequence[str]) -> list[str]:
    from prompts.wording import many

    notes = (
        [f"A was asked by {a.suite}, B by {b.suite}: cases are paired by what they ask"] if a.suite != b.suite else []
    )
    left = [
        f"{many(len(only), 'case')} only {letter} answered" for letter, only in (("A", only_a), ("B", only_b)) if only
    ]
    return [*notes, *([f"left out: {', '.join(left)}"] if left else [])]


def _side(letter: str, found: Found) -> SideView:
    from suites.report.comparison import SideView

    run = found.run
    judged = run["passed"] + run["failed"] + run["errored"]
    interval = (run["ci95"][0], run["ci95"][1]) if run["ci95"] else None
    rate = (run["passed"], judged, run["pass_rate"], interval)
    return SideView(letter, found.run_id, found.variant, found.suite, found.origin, *rate)


def _as_answer(compared: Compared, a: Found, b: Found) -> dict[str, Any]:
    """The JSON: both runs, what differs, and the cases that flipped with both answers."""
    from suites.report.comparison import as_data

    sides = {letter: {**_public(found.run), "origin": found.origin} for letter, found in (("a", a), ("b", b))}
    return {**sides, **as_data(compared), "flips": [_flip(row) for row in compared.rows if row.change]}


def _public(run: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in run.items() if name != "case_status"}


def _flip(row: CaseRow) -> dict[str, Any]:
    def side(answer: AnswerView | None) -> dict[str, Any] | None:
        return dataclasses.asdict(answer) if answer else None

    about = ("case_id", "number", "repeat", "title", "change", "expected")
    shown = {name: getattr(row, name) for name in about}
    return {**shown, "tags": [*row.tags], "a": side(row.baseline), "b": side(row.candidate)}


def trend(
    suite: Annotated[str, typer.Argument(help="A suite's name or file.")],
    last: Annotated[int, typer.Option("--last", min=1, max=MOST_RUNS, help="How many runs.")] = 20,
    label: Annotated[str, typer.Option("--label", help="Runs of what this label pointed to then.")] = "production",
    every: Annotated[bool, typer.Option("--all", help="Runs of every variant.")] = False,
    html: Html = None,
    open_: Open = False,
    as_json: Json = False,
    local: Local = False,
) -> int:
    """How a suite's pass rate, metrics, latency and cost went over its last runs on production."""
    from prompts.errors import BadInput
    from service.cli.finding_runs import suite_named
    from service.cli.output import out, print_json
    from service.cli.reports import write_text
    from suites.report.trend_page import trend_page

    name = suite_named(suite)
    points = _points(name, None if every else label, local)[-last:]
    what = "every variant" if every else label
    if not points:
        told = f"no finished run of {name} on {what}"
        raise BadInput(f"{told}: turnout run {name}, or --all for every variant", param="suite")
    page = html or (_temporary("trend") if open_ else None)
    if page is not None:
        write_text(page, trend_page(name, f"The last {len(points)} runs on {what}, oldest first.", points))
    if as_json:
        runs = [dataclasses.asdict(point) for point in points]
        print_json({"suite": name, "label": None if every else label, "runs": runs})
    else:
        from suites.report.history_tables import print_trend

        print_trend(out(), points)
    if open_ and page is not None:
        _open(page)
    return 0


def _points(name: str, label: str | None, local: bool) -> list[Point]:
    """Runs of a suite, oldest first: all, or those of the version that `label` pointed to when they started."""
    from service.cli.calling import client
    from service.errors import NotFound
    from suites.trend import on_label, points_of

    service = client(local)
    found = points_of(service.call("GET", "/api/runs", params={"suite": name, "limit": MOST_RUNS}))
    if label is None:
        return [*found][::-1]
    prompt = service.call("GET", f"/api/suites/{name}")["prompt"]
    try:
        moves = service.call("GET", f"/api/prompts/{prompt}/labels/{label}/history")
    except NotFound as error:  # as where CI alone runs the suite
        fix = f"--all shows the runs of every variant, `turnout label {prompt} {label} N` sets it"
        raise NotFound("label", f"{prompt}@{label}", fix) from error
    return [*on_label(found, moves)][::-1]


def _temporary(kind: str) -> Path:
    """A file of a new folder that nobody else can read."""
    import tempfile

    return Path(tempfile.mkdtemp(prefix="turnout-")) / f"{kind}.html"


def _open(page: Path) -> None:
    """Show the page to whoever sits at the terminal; else say where it is."""
    import sys
    import webbrowser

    from service.cli.output import err

    if sys.stdout.isatty() and webbrowser.open(page.resolve().as_uri()):
        err().print(f"opened {page}", markup=False)
    else:
        err().print(f"the page is {page}", markup=False)

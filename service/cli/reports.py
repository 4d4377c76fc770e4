"""A gate's answer as files and on the terminal."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from service.cli.work import Work
    from suites.verdicts import GateDecision

MOST_NAMED = 5  # cases that are newly broken, on the terminal
_CASE = re.compile(r"\bcase ([0-9a-f]{16})\b")


def decisions_of(answer: dict[str, Any]) -> list[GateDecision]:
    """The decisions of a gate's answer."""
    from suites.verdicts import GateDecision

    known = GateDecision.model_fields.keys()
    return [
        GateDecision.model_validate({name: value for name, value in entry.items() if name in known})
        for entry in answer["suites"]
    ]


def show_gate(work: Work, answer: dict[str, Any]) -> None:
    """Tables on stdout, cases by their numbers in the suite."""
    from service.cli.output import err, out
    from suites.report.terminal import print_gate

    for note in answer.get("notes", ()):
        err().print(note, markup=False)
    numbers = [_numbers(work, entry) for entry in answer["suites"]]
    print_gate(out(), list(map(_named, decisions_of(answer), numbers)))
    for entry, known in zip(answer["suites"], numbers, strict=True):
        broken = [_name(case_id, known) for case_id in entry["newly_broken"]]
        if broken:
            more = f" … and {len(broken) - MOST_NAMED} more" if len(broken) > MOST_NAMED else ""
            out().print(f"{entry['suite']}: newly broken: {', '.join(broken[:MOST_NAMED])}{more}", markup=False)
        out().print(f"evidence {entry['evidence_id']}", markup=False)
        started = entry.get("fallback")
        if started and started["job_id"]:
            out().print(f"fallback started: turnout job {started['job_id']} --watch", markup=False)
        elif started:
            out().print(f"no fallback: {started['reason']}", markup=False)


def _numbers(work: Work, entry: dict[str, Any]) -> dict[str, int]:
    """The numbers in the suite, from 1, of the cases that did not pass and that a gate's answer names by their ids."""
    if not entry["newly_broken"] and not any(_CASE.search(reason) for reason in entry["reasons"]):
        return {}
    run_id = work.evidence(entry["evidence_id"])["content"]["given"]["candidate"]["run_id"]
    rows = work.cases(run_id, ("failed", "errored", "skipped")) if run_id else ()
    return {row["case_id"]: row["index"] + 1 for row in rows}


def _named(decision: GateDecision, numbers: Mapping[str, int]) -> GateDecision:
    """The decision with the numbers of cases beside their ids in its reasons."""
    reasons = tuple(_CASE.sub(lambda found: _name(found[1], numbers), reason) for reason in decision.reasons)
    return decision.model_copy(update={"reasons": reasons})


def _name(case_id: str, numbers: Mapping[str, int]) -> str:
    return f"case {numbers[case_id]} ({case_id})" if case_id in numbers else f"case {case_id}"


def write_reports(
    work: Work, answer: dict[str, Any], *, junit: Path | None, markdown: Path | None, json_file: Path | None
) -> None:
    """Write what was asked for. Raises CannotRun where a file cannot be written."""
    if json_file is not None:
        _write(json_file, json.dumps(answer, indent=2, ensure_ascii=False) + "\n")
    if junit is None and markdown is None:
        return
    from suites.report.junit import render_junit
    from suites.report.markdown import render_markdown
    from suites.results import CaseResult

    decisions = decisions_of(answer)
    results: dict[str, list[CaseResult]] = {}
    views: dict[str, Any] = {}
    for entry in answer["suites"]:
        given = work.evidence(entry["evidence_id"])["content"]["given"]
        results[entry["suite"]] = _cases(work, given["candidate"]["run_id"])
        before = _cases(work, given["baseline"]["run_id"]) if given["baseline"] else []
        views |= _views(entry, results[entry["suite"]], before)
    decisions = [
        _named(decision, {result.case_id: result.index + 1 for result in results[decision.suite]})
        for decision in decisions
    ]
    if junit is not None:
        _write(junit, render_junit(decisions, results))
    if markdown is not None:
        _write(markdown, render_markdown(decisions, views, answer.get("notes", ())))


def _cases(work: Work, run_id: str) -> list[Any]:
    from suites.results import CaseResult

    return [CaseResult.from_dict(row) for row in work.cases(run_id)]


def _views(entry: dict[str, Any], after: list[Any], before: list[Any]) -> dict[str, Any]:
    """Both outputs of every case that changed."""
    from suites.report.markdown import CaseView

    old = {result.case_id: result for result in before if result.repeat == 0}
    changed = {*entry["newly_broken"], *entry["newly_mended"]}
    views = {}
    for result in after:
        if result.case_id in changed and result.repeat == 0:
            reason = result.error or "; ".join(o.reason for o in result.outcomes if o.status != "passed")
            was = old.get(result.case_id)
            title = f"case {result.index + 1}"
            views[result.case_id] = CaseView(title, result.output or "", (was.output or "") if was else "", reason)
    return views


def _write(path: Path, text: str) -> None:
    from service.errors import CannotRun

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
    except OSError as error:
        raise CannotRun(f"{path} cannot be written: {error.strerror}") from error

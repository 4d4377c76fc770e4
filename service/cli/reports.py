"""A gate's answer as files and on the terminal."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from service.cli.changes import CasesOf, Changes, about_case, in_order

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


def with_origins(answer: dict[str, Any], drafts: Iterable[str], baselines: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """The answer with `origins` of each suite: where a side's version, a draft of this gate, comes from.

    `drafts` are the versions (NAME@N) of the working tree, `baselines` those of a git revision with its name.
    """
    known = {"candidate": dict.fromkeys(drafts, "working tree"), "baseline": dict(baselines)}
    suites = []
    for entry in answer["suites"]:
        versions = {role: str(entry[role]).partition("+")[0] for role in known}
        origins = {role: of[versions[role]] for role, of in known.items() if versions[role] in of}
        suites.append({**entry, "origins": origins})
    return {**answer, "suites": suites}


def _sides_in_words(entry: dict[str, Any]) -> str:
    """Both variants, a draft with where it comes from."""
    said = ((role, entry[role], entry["origins"].get(role)) for role in ("candidate", "baseline") if entry[role])
    return ", ".join(f"{role} {variant}" + (f" ({origin})" if origin else "") for role, variant, origin in said)


def show_gate(work: Work, answer: dict[str, Any], cases_of: CasesOf) -> None:
    """Tables on stdout, cases by their numbers in the suite and what they ask."""
    from service.cli.output import err, out
    from suites.report.terminal import print_gate

    for note in answer.get("notes", ()):
        err().print(note, markup=False)
    numbers = [_numbers(work, entry, cases_of) for entry in answer["suites"]]
    print_gate(out(), list(map(_named, decisions_of(answer), numbers)))
    for entry, known in zip(answer["suites"], numbers, strict=True):
        places = {case_id: place for place, case_id in enumerate(known)}
        out().print(f"{entry['suite']}: {_sides_in_words(entry)}", markup=False)
        ordered = sorted(entry["newly_broken"], key=lambda case_id: places.get(case_id, len(places) + 1))
        broken = [_name(case_id, known) for case_id in ordered]
        if broken:
            more = f" … and {len(broken) - MOST_NAMED} more" if len(broken) > MOST_NAMED else ""
            out().print(f"{entry['suite']}: newly broken: {', '.join(broken[:MOST_NAMED])}{more}", markup=False)
        out().print(f"evidence {entry['evidence_id']}", markup=False)
        started = entry.get("fallback")
        if started and started["job_id"]:
            out().print(f"fallback started: turnout job {started['job_id']} --watch", markup=False)
        elif started:
            out().print(f"no fallback: {started['reason']}", markup=False)


def _numbers(work: Work, entry: dict[str, Any], cases_of: CasesOf) -> dict[str, str]:
    """The numbers in the suite, from 1, with what they ask, in this order, of the cases that did not pass.

    None where the answer names no case by its id.
    """
    if not entry["newly_broken"] and not any(_CASE.search(reason) for reason in entry["reasons"]):
        return {}
    run_id = work.evidence(entry["evidence_id"])["content"]["given"]["candidate"]["run_id"]
    rows = work.cases(run_id, ("failed", "errored", "skipped")) if run_id else ()
    cases = cases_of(entry["suite"])
    return {row["case_id"]: f"{row['index'] + 1}{about_case(cases, row)}" for row in rows}


def _named(decision: GateDecision, numbers: Mapping[str, int] | Mapping[str, str]) -> GateDecision:
    """The decision with the numbers of cases beside their ids in its reasons."""
    reasons = tuple(_CASE.sub(lambda found: _name(found[1], numbers), reason) for reason in decision.reasons)
    return decision.model_copy(update={"reasons": reasons})


def _name(case_id: str, numbers: Mapping[str, int] | Mapping[str, str]) -> str:
    return f"case {numbers[case_id]} ({case_id})" if case_id in numbers else f"case {case_id}"


@dataclass(frozen=True)
class Files:
    """What a gate is written to."""

    junit: Path | None = None
    markdown: Path | None = None
    json_file: Path | None = None


def write_reports(
    work: Work, answer: dict[str, Any], files: Files, cases_of: CasesOf, footings: Mapping[str, tuple[str, str]]
) -> None:
    """Write what was asked for. `footings` are, by suite, what the command calls it and the options of its commands.

    Raises CannotRun where a file cannot be written.
    """
    if files.json_file is not None:
        _write(files.json_file, json.dumps(answer, indent=2, ensure_ascii=False) + "\n")
    if files.junit is None and files.markdown is None:
        return
    changes = {entry["suite"]: _changes(work, entry, cases_of) for entry in answer["suites"]}
    decisions = []
    for decision in decisions_of(answer):
        places = changes[decision.suite].places()
        decisions.append(in_order(_named(decision, places), places))
    if files.junit is not None:
        _write(files.junit, _as_junit(decisions, changes))
    if files.markdown is not None:
        _write(files.markdown, _as_comment(answer, decisions, changes, footings))


def _changes(work: Work, entry: dict[str, Any], cases_of: CasesOf) -> Changes:
    from suites.results import CaseResult

    given = work.evidence(entry["evidence_id"])["content"]["given"]
    sides = [side["run_id"] if side else None for side in (given["candidate"], given["baseline"])]
    after, before = ([CaseResult.from_dict(row) for row in work.cases(run)] if run else [] for run in sides)
    return Changes(after, before, cases_of(entry["suite"]), given["candidate"]["stopped"])


def _as_junit(decisions: Sequence[GateDecision], changes: Mapping[str, Changes]) -> str:
    from suites.report.junit import render_junit

    titles = {(suite, case_id): title for suite, each in changes.items() for case_id, title in each.titles().items()}
    return render_junit(decisions, {suite: each.candidates() for suite, each in changes.items()}, titles)


def _as_comment(
    answer: dict[str, Any],
    decisions: Sequence[GateDecision],
    changes: Mapping[str, Changes],
    footings: Mapping[str, tuple[str, str]],
) -> str:
    from suites.report.markdown import Footing, render_markdown

    views = {
        (decision.suite, case_id): view
        for decision in decisions
        for case_id, view in changes[decision.suite].views([*decision.newly_broken, *decision.newly_mended]).items()
    }
    found = {
        entry["suite"]: Footing(entry["evidence_id"], *footings.get(entry["suite"], (entry["suite"], "")))
        for entry in answer["suites"]
    }
    found = {
        entry["suite"]: replace(found[entry["suite"]], origins=entry.get("origins", {})) for entry in answer["suites"]
    }
    return render_markdown(decisions, views, answer.get("notes", ()), found)


def _write(path: Path, text: str) -> None:
    from service.errors import CannotRun

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
    except OSError as error:
        raise CannotRun(f"{path} cannot be written: {error.strerror}: name a file that can") from error

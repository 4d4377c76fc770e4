"""What `gate` and `run` write: JSON, JUnit XML, a pull-request comment, an HTML page, cases as CSV."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from service.cli.changes import CasesOf, Changes, in_order, outcomes_of
from service.cli.showing import decisions_of, named

if TYPE_CHECKING:
    from service.cli.work import Work
    from suites.report.views import CaseRow, CaseView, Footing
    from suites.results import CaseResult
    from suites.rows import Place
    from suites.verdicts import GateDecision


@dataclass(frozen=True)
class Files:
    """What a verdict is written to."""

    junit: Path | None = None
    markdown: Path | None = None
    json_file: Path | None = None
    html: Path | None = None
    csv: Path | None = None

    @property
    def need_cases(self) -> bool:
        """Whether any of them shows cases."""
        return any((self.junit, self.markdown, self.html, self.csv))


@dataclass(frozen=True)
class Named:
    """How an author calls a suite on the command line, and with which options.

    `file` is relative to the repository; `places` say where each case stands, in the order of the suite, below the
    folder that the command runs in.
    """

    suite: str
    options: str = ""
    file: str = ""
    places: Sequence[Place] = ()


@dataclass(frozen=True)
class Reported:
    """All that reports are made of. `changes` and `named` are by suite, as the decisions are."""

    decisions: Sequence[GateDecision]
    changes: Mapping[str, Changes]
    answer: dict[str, Any]
    named: Mapping[str, Named]
    reproduce: str = ""
    what: str = "gate"

    @cached_property
    def rows(self) -> dict[str, list[CaseRow]]:
        """Every case of each suite."""
        return {
            decision.suite: self.changes[decision.suite].rows(decision.newly_broken, decision.newly_mended)
            for decision in self.decisions
        }

    @cached_property
    def footings(self) -> dict[str, Footing]:
        """What the verdict on each suite rests on."""
        from suites.report.views import Footing

        found = {}
        for entry in self.answer["suites"]:
            called = self.named.get(entry["suite"], Named(entry["suite"]))
            footing = Footing(entry["evidence_id"] or "", called.suite, called.options)
            found[entry["suite"]] = replace(footing, origins=entry.get("origins", {}))
        return found

    @cached_property
    def failed(self) -> dict[str, list[str]]:
        """The cases of each suite that did not pass, in its order."""
        return {suite: changes.bad() for suite, changes in self.changes.items()}

    def views(self) -> dict[tuple[str, str], CaseView]:
        """The cases that a comment shows."""
        return {
            (decision.suite, case_id): view
            for decision in self.decisions
            for case_id, view in self.changes[decision.suite].views(self._told(decision)).items()
        }

    def _told(self, decision: GateDecision) -> list[str]:
        failed = self.failed[decision.suite] if not decision.newly_broken else []
        return [*decision.newly_broken, *decision.newly_mended, *failed]


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


def command_line(command: str, suites: Sequence[str], options: Mapping[str, Any]) -> str:
    """The command that was given, as one can paste it; options that were not given are left out."""
    words = ["turnout", command, *suites]
    for option, value in options.items():
        values = value if isinstance(value, list | tuple) else [value]
        for each in values:
            words += [option] if each is True else [option, str(each)] if each not in (None, False) else []
    return shlex.join(words)


def write_reports(
    work: Work,
    answer: dict[str, Any],
    files: Files,
    cases_of: CasesOf,
    called: Mapping[str, Named],
    reproduce: str = "",
) -> None:
    """Write a gate to what was asked for. Raises CannotRun where a file cannot be written."""
    if files.json_file is not None:
        write_text(files.json_file, json.dumps(answer, indent=2, ensure_ascii=False) + "\n")
    if files.need_cases:
        changes = {entry["suite"]: _changes(work, entry, cases_of) for entry in answer["suites"]}
        _write_all(files, Reported(_ordered(decisions_of(answer), changes), changes, answer, called, reproduce))


def write_run_reports(
    work: Work,
    results: Sequence[dict[str, Any]],
    files: Files,
    cases_of: CasesOf,
    called: Mapping[str, Named],
    reproduce: str,
    statuses: Mapping[str, Mapping[str, str]],
) -> None:
    """Write runs to what was asked for: each as a verdict without a baseline. Raises CannotRun as `write_reports`.

    `statuses` are what the cases of each run came to, by its id.
    """
    if files.json_file is not None:
        data = results[0] if len(results) == 1 else results
        write_text(files.json_file, json.dumps(data, indent=2, ensure_ascii=False) + "\n")
    if not files.need_cases:
        return
    several = len({result["suite"] for result in results}) < len(results)
    entries = [_as_entry(result, several=several) for result in results]
    changes = {}
    for entry, result in zip(entries, results, strict=True):
        name = str(result["suite"]).partition("@")[0]
        of_some = bool(result.get("filter"))
        found = _results(work, result["run_id"])
        outcomes = outcomes_of(statuses[result["run_id"]], found)
        changes[entry["suite"]] = Changes(found, (), cases_of(name), result["stopped"], of_some, outcomes)
    named_ = {
        entry["suite"]: called.get(str(result["suite"]).partition("@")[0], Named(entry["suite"]))
        for entry, result in zip(entries, results, strict=True)
    }
    answer = {"suites": entries, "left_out": results[0].get("left_out", ())}
    _write_all(files, Reported(_ordered(decisions_of(answer), changes), changes, answer, named_, reproduce, "run"))


def write_nothing(files: Files, answer: Mapping[str, Any]) -> None:
    """Write the page and the table of a gate that has nothing to decide. Raises CannotRun as `write_reports`."""
    from suites.report.html import nothing_page
    from suites.report.spreadsheet import render_csv

    if files.html is not None:
        write_text(files.html, nothing_page(answer["verdict"], [*answer["reasons"], *answer.get("notes", ())]))
    if files.csv is not None:
        write_text(files.csv, render_csv({}))


def _as_entry(result: dict[str, Any], *, several: bool) -> dict[str, Any]:
    """A run as one suite of a gate's answer; named by its variant where other runs are of the same suite."""
    name = str(result["suite"]).partition("@")[0]
    counts = f"{result['passed']} of {result['passed'] + result['failed'] + result['errored']} cases passed"
    return {
        "suite": f"{name} {result['variant']}" if several else name,
        "verdict": result["verdict"],
        "reasons": result["reasons"] or [counts],
        "candidate": result["variant"],
        "baseline": None,
        "pass_rate": result["pass_rate"],
        "ci95": result["ci95"],
        "baseline_pass_rate": None,
        "thresholds": result["thresholds"],
        "paired": 0,
        "newly_broken": [],
        "newly_mended": [],
        "p_value": None,
        "evidence_id": None,
    }


def _ordered(decisions: Sequence[GateDecision], changes: Mapping[str, Changes]) -> list[GateDecision]:
    """The decisions with their cases by number and in the order of the suite."""
    found = []
    for decision in decisions:
        places = changes[decision.suite].places()
        found.append(in_order(named(decision, places), places))
    return found


def _changes(work: Work, entry: dict[str, Any], cases_of: CasesOf) -> Changes:
    given = work.evidence(entry["evidence_id"])["content"]["given"]
    sides = [side["run_id"] if side else None for side in (given["candidate"], given["baseline"])]
    after, before = (_results(work, run) if run else [] for run in sides)
    candidate = given["candidate"]
    return Changes(
        after, before, cases_of(entry["suite"]), candidate["stopped"], outcomes=candidate.get("outcomes", {})
    )


def _results(work: Work, run_id: str) -> list[Any]:
    from suites.results import CaseResult

    return [CaseResult.from_dict(row) for row in work.cases(run_id)]


def _write_all(files: Files, told: Reported) -> None:
    if files.junit is not None:
        write_text(files.junit, _as_junit(told))
    if files.markdown is not None:
        write_text(files.markdown, _as_comment(told))
    if files.html is not None:
        write_text(files.html, _as_page(told))
    if files.csv is not None:
        from suites.report.spreadsheet import render_csv

        write_text(files.csv, render_csv(told.rows))


def _as_junit(told: Reported) -> str:
    from suites.report.junit import render_junit

    of_suites = told.changes.items()
    titles = {(suite, case_id): title for suite, each in of_suites for case_id, title in each.titles().items()}
    sources = {suite: called.file for suite, called in told.named.items() if called.file}
    results = {suite: each.candidates() for suite, each in of_suites}
    excused = {(suite, case_id) for suite, each in of_suites for case_id in each.excused()}
    return render_junit(told.decisions, results, titles, sources, _places(told, results), excused)


def _places(told: Reported, results: Mapping[str, Sequence[CaseResult]]) -> dict[tuple[str, str], Place]:
    """Where the cases stand that came from files, with these as forges know them, by suite and case."""
    from service.cli.project import below_repository
    from suites.rows import Place

    found: dict[tuple[str, str], Place] = {}
    files: dict[str, str] = {}
    for suite, of_suite in results.items():
        places = told.named[suite].places if suite in told.named else ()
        for result in of_suite if places else ():
            path, line = places[result.index]
            if path not in files:
                files[path] = below_repository(Path(path))
            found[suite, result.case_id] = Place(files[path], line)
    return found


def _as_comment(told: Reported) -> str:
    from suites.report.markdown import Told, render_markdown

    notes = told.answer.get("notes", ())
    said = Told(told.views(), notes, told.footings, told.failed, told.reproduce, told.what, _left_out(told))
    return render_markdown(told.decisions, said)


def _as_page(told: Reported) -> str:
    from suites.report.html import Shown, render_html

    notes = told.answer.get("notes", ())
    shown = Shown(told.rows, told.footings, notes, told.reproduce, told.what, _left_out(told))
    return render_html(told.decisions, shown)


def _left_out(told: Reported) -> list[str]:
    """What of another tool's file was left out, each reason once with its count and first place."""
    entries = told.answer.get("left_out", ())
    return [f"{each['count']} × {each['what']} ({each['why']}): {each['place']}" for each in entries]


def write_text(path: Path, text: str) -> None:
    """Write a report as it is, its ends of lines too; what is not UTF-8 in the names of files by escapes.

    Raises CannotRun where the file cannot be written.
    """
    from service.errors import CannotRun

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8", "backslashreplace", newline="")
    except OSError as error:
        raise CannotRun(f"{path} cannot be written: {error.strerror}: name a file that can") from error

"""`turnout gate --affected`: the plans that are left, what is told where none is, and prompts that no suite tests."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

from prompts.errors import BadInput
from service.cli.affected import Affected, base_of_change, find_affected, nothing_in_words
from service.cli.reports import write_text

if TYPE_CHECKING:
    from service.cli.project import Project
    from service.cli.testing import Plan

CHANGES = "changes"  # the test suite of JUnit that says what a change affects
_UNTESTED = ("## ❌ Turnout: a changed prompt has no suite", "")


@dataclass(frozen=True)
class Selection:
    """The suites of a gate that a change can affect, and whether a changed prompt without a suite fails it."""

    found: Affected
    plans: tuple[Plan, ...]
    requires_suites: bool = False

    @property
    def is_failed(self) -> bool:
        return self.requires_suites and bool(self.found.untested)

    @property
    def untested_in_words(self) -> list[str]:
        """A line for each prompt that changed and that no suite tests."""
        asked = " (--require-suites)" if self.requires_suites else ""
        return [
            f"prompt {name} changed, or what it includes, and no suite tests it{asked}: write one below suites/ with"
            f" `prompt: {name}`"
            for name in self.found.untested
        ]

    def told(self, answer: dict[str, Any]) -> dict[str, Any]:
        """A gate's answer with what was looked at, and the verdict that the untested prompts leave."""
        from suites.verdicts import worst

        untested = self.untested_in_words
        reasons = [*answer["reasons"], *(untested if self.is_failed else ())]
        notes = [*untested, self.found.in_words(), *answer.get("notes", ())]
        verdict = worst([answer["verdict"], "fail"]) if self.is_failed else answer["verdict"]
        more = {"verdict": verdict, "reasons": reasons, "notes": notes, "affected": self.found.as_dict()}
        return {**answer, **more}

    def nothing(self) -> dict[str, Any]:
        """The answer of a gate that a change gives nothing to do: its form is that of any gate."""
        reasons = [nothing_in_words(self.found)]
        return self.told({"gate_id": None, "verdict": "pass", "reasons": reasons, "suites": [], "notes": []})

    def mark(self, junit: Path | None, markdown: Path | None) -> None:
        """Say what the change affects in reports that are written: they hold suites alone. Raises CannotRun."""
        if junit is not None and junit.is_file():
            root = ET.fromstring(junit.read_text("utf-8"))  # noqa: S314 - our own
            write_text(junit, self._with_changes(root))
        if markdown is not None and markdown.is_file() and self.is_failed:
            from suites.report.markdown import MARKER

            text = markdown.read_text("utf-8").removeprefix(MARKER).lstrip("\n")
            write_text(markdown, "\n".join([MARKER, *_UNTESTED, text]))

    def write_nothing(self, junit: Path | None, markdown: Path | None, json_file: Path | None) -> None:
        """The reports of a gate that has nothing to do. Raises CannotRun."""
        from suites.report.markdown import MARKER, escape

        answer = self.nothing()
        if markdown is not None:
            head = _UNTESTED if self.is_failed else ("## ✅ Turnout: nothing to gate", "")
            write_text(markdown, "\n".join([MARKER, *head, *(f"- {escape(note)}" for note in answer["notes"]), ""]))
        if junit is not None:
            write_text(junit, self._with_changes(ET.Element("testsuites", name="turnout")))
        if json_file is not None:
            write_text(json_file, json.dumps(answer, indent=2, ensure_ascii=False) + "\n")

    def _with_changes(self, root: ET.Element) -> str:
        """The document with a test suite first: what is gated, and a failure for each prompt that fails the gate."""
        from suites.report.junit import xml_text

        suite = ET.Element("testsuite", name=CHANGES, tests="1", failures="0", errors="0", skipped="0", time="0.000")
        case = ET.SubElement(suite, "testcase", name="what is gated", classname=CHANGES, time="0")
        ET.SubElement(case, "system-out").text = xml_text(self.found.in_words())
        for name, line in zip(self.found.untested, self.untested_in_words, strict=True):
            case = ET.SubElement(suite, "testcase", name=f"a suite for {name}", classname=CHANGES, time="0")
            failing = {"type": "untested"} if self.is_failed else {}
            ET.SubElement(case, "failure" if failing else "skipped", {"message": xml_text(line), **failing}).text = line
        root.insert(0, suite)
        _count(root, suite)
        ET.indent(root)
        return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(root, encoding="unicode") + "\n"


def _count(root: ET.Element, suite: ET.Element) -> None:
    suite.set("tests", str(len(suite.findall("testcase"))))
    suite.set("failures", str(len(suite.findall("testcase/failure"))))
    suite.set("skipped", str(len(suite.findall("testcase/skipped"))))
    for name in ("tests", "failures", "errors"):
        root.set(name, str(sum(int(each.get(name, "0")) for each in root.findall("testsuite"))))
    root.set("time", f"{sum(float(each.get('time', '0')) for each in root.findall('testsuite')):.3f}")


def select(
    project: Project, plans: Sequence[Plan], against: str | None, model: str | None, *, requires_suites: bool
) -> Selection:
    """Of these plans those that what changed since `against`, or since the base of the CI job's change, can affect.

    Raises BadInput where neither names a revision that git knows.
    """
    found = find_affected(project, plans, base_of_change(project, against), model)
    kept = tuple(plan for plan in plans if plan.suite in found.suites)
    return Selection(found, kept, requires_suites)


def check_asked(affected: bool, requires_suites: bool, named: Sequence[str]) -> None:
    """Raises BadInput for options that have no sense with `--affected`, or without it."""
    if requires_suites and not affected:
        raise BadInput("--require-suites looks at what a change affects: add --affected", param="require_suites")
    if affected and named:
        raise BadInput(f"--affected tests the working tree, and {named[0]} names a version: give one of them")


def end_with_nothing(
    selection: Selection, junit: Path | None, markdown: Path | None, json_file: Path | None, *, as_json: bool
) -> int:
    """Tell that there is nothing to gate, in every form that was asked for; returns the exit code."""
    from service.cli.exits import OF_VERDICT
    from service.cli.output import err, out, print_json

    answer = selection.nothing()
    selection.write_nothing(junit, markdown, json_file)
    if as_json:
        print_json(answer)
    for line in selection.untested_in_words:
        err().print(f"{'' if selection.is_failed else 'warning: '}{line}", markup=False)
    if not as_json:
        out().print(f"{answer['verdict']}: {nothing_in_words(selection.found)}", markup=False)
    return OF_VERDICT[answer["verdict"]]

"""A gate as JUnit XML: a test suite for each suite, a test case for each case, and one for the gate itself.

In the shape that GitHub's and GitLab's readers and Jenkins' schema (junit-10.xsd) share; beside it stand the file and the
line of a test case, which readers of both forges link and others pass over. What errored is an `error`,
what was not asked is `skipped`, and so is the test case of a gate that could not decide: nothing has failed there.
GitLab shows the text of a failure, an error or a skip and not its message, and tells test cases apart by suite, class
and name: so all of them have a text, and no two of a suite the same name.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from xml.etree import ElementTree as ET

from suites.results import CaseResult
from suites.rows import Place
from suites.verdicts import GateDecision

_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_ATTACHMENT = re.compile(r"\[\[(?=ATTACHMENT\|)", re.IGNORECASE)  # which GitLab and Jenkins make a link of
_KINDS = {"failed": "failure", "errored": "error"}  # of what did not pass
MAX_TEXT_CHARACTERS = 4000
MAX_NAME_CHARACTERS = 200


def render_junit(
    decisions: Sequence[GateDecision],
    results: Mapping[str, Iterable[CaseResult]] | None = None,
    titles: Mapping[tuple[str, str], str] | None = None,
    files: Mapping[str, str] | None = None,
    places: Mapping[tuple[str, str], Place] | None = None,
    excused: Collection[tuple[str, str]] = (),
) -> str:
    """The document. `results` are the candidate's, by suite; `titles` name cases by suite and id, `files` the suites'.

    `places` say in which file and line a case stands, by suite and id; cases without one have the suite's file.
    `excused` are cases that passed though some of their repeats did not: no repeat of theirs is a failure.
    """
    root = ET.Element("testsuites", name="turnout")
    for decision in decisions:
        suite = ET.SubElement(root, "testsuite", name=xml_text(decision.suite))
        if decision.suite in (files or {}):
            suite.set("file", xml_text((files or {})[decision.suite]))
        _properties(suite, decision)
        _gate(suite, decision)
        for result in (results or {}).get(decision.suite, ()):
            _case(suite, decision, result, titles or {}, is_excused=(decision.suite, result.case_id) in excused)
            _stand(suite[-1], (places or {}).get((decision.suite, result.case_id)))
        for case in suite.iter("testcase"):
            if "file" not in case.attrib and suite.get("file"):
                case.set("file", suite.attrib["file"])
        _count(suite)
    _count(root)
    ET.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(root, encoding="unicode") + "\n"


def xml_text(text: str, limit: int = MAX_TEXT_CHARACTERS) -> str:
    """`text` without what XML 1.0 cannot hold and without links to attachments, cut to `limit` characters."""
    plain = _ATTACHMENT.sub("[ [", _NOT_XML.sub("�", text))
    return plain if len(plain) <= limit else plain[: limit - 1] + "…"


def _properties(suite: ET.Element, decision: GateDecision) -> None:
    """Thresholds, and cases that were left out of the comparison: what is no test case of its own."""
    found = {
        f"threshold.{row.name}": f"{row.shown} for {row.bound:g}: {'met' if row.met else 'missed'}"
        for row in decision.thresholds
    }
    for case in decision.quarantined:
        found[f"quarantined.{case.case_id}"] = f"{case.title}: {case.in_words()}" if case.title else case.in_words()
    if found:
        properties = ET.SubElement(suite, "properties")
        for name, value in found.items():
            ET.SubElement(properties, "property", name=xml_text(name, 200), value=xml_text(value, 300))


def _gate(suite: ET.Element, decision: GateDecision) -> None:
    case = ET.SubElement(suite, "testcase", name="gate", classname=xml_text(decision.suite), time="0")
    reasons = xml_text("\n".join(decision.reasons))
    message = xml_text(decision.reasons[0], 300)
    if decision.verdict == "inconclusive":
        ET.SubElement(case, "skipped", message=f"inconclusive: {message}").text = reasons
    elif decision.verdict != "pass":
        kind = "error" if decision.verdict == "could_not_run" else "failure"
        ET.SubElement(case, kind, message=message, type=decision.verdict).text = reasons
        return
    ET.SubElement(case, "system-out").text = reasons


def _case(
    suite: ET.Element,
    decision: GateDecision,
    result: CaseResult,
    titles: Mapping[tuple[str, str], str],
    *,
    is_excused: bool,
) -> None:
    name = titles.get((decision.suite, result.case_id)) or result.case_id
    repeat = f" #{result.repeat + 1}" if result.repeat else ""
    seconds = f"{(result.latency_ms or 0.0) / 1000:.3f}"
    shown = xml_text(name, MAX_NAME_CHARACTERS) + repeat
    case = ET.SubElement(suite, "testcase", name=shown, classname=xml_text(decision.suite), time=seconds)
    said = result.output
    if result.status in _KINDS:
        reasons = _reasons(result)
        if is_excused:
            told = f"this repeat {result.status}, and the case passed: {'; '.join(reasons)}"
            said = f"{told}\n{said or ''}".rstrip()
        else:
            _say(case, _KINDS[result.status], reasons, result.status)
    elif result.status == "skipped":
        _say(case, "skipped", [result.error or "not asked"])
    if said is not None:
        ET.SubElement(case, "system-out").text = xml_text(said)


def _reasons(result: CaseResult) -> list[str]:
    if result.status == "errored":
        return [result.error or "errored"]
    found = [outcome.reason for outcome in result.outcomes if outcome.status != "passed"]
    return found or ["the score is below the case's threshold"]


def _stand(case: ET.Element, place: Place | None) -> None:
    """Where forges show what failed: beside its line."""
    if place is not None and place.path:
        case.set("file", xml_text(place.path))
        if place.line:
            case.set("line", str(place.line))


def _say(case: ET.Element, kind: str, reasons: Sequence[str], type_: str = "") -> None:
    """The first reason as the message, which one line shows, and all of them as the text."""
    element = ET.SubElement(case, kind, message=xml_text(reasons[0], 300))
    if type_:
        element.set("type", type_)
    element.text = xml_text("\n".join(reasons)).strip() or type_ or kind


def _count(element: ET.Element) -> None:
    counted = {"tests": "", "failures": "/failure", "errors": "/error", "skipped": "/skipped"}
    if element.tag == "testsuites":
        del counted["skipped"]  # the schema has it on a test suite alone
    for attribute, path in counted.items():
        element.set(attribute, str(len(element.findall(f".//testcase{path}"))))
    seconds = sum(float(case.get("time", "0")) for case in element.iter("testcase"))
    element.set("time", f"{seconds:.3f}")

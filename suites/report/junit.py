"""A gate as JUnit XML: a test suite for each suite, a test case for each case, and one for the gate itself.

In the shape that GitHub's and GitLab's readers and Jenkins' schema (junit-10.xsd) share. What errored is an `error`,
what was not asked is `skipped`, and so is the test case of a gate that could not decide: nothing has failed there.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from xml.etree import ElementTree as ET

from suites.results import CaseResult
from suites.verdicts import GateDecision

_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
MAX_TEXT_CHARACTERS = 4000


def render_junit(
    decisions: Sequence[GateDecision],
    results: Mapping[str, Iterable[CaseResult]] | None = None,
    titles: Mapping[tuple[str, str], str] | None = None,
) -> str:
    """The document. `results` are the candidate's, by suite; `titles` name cases by suite and id."""
    root = ET.Element("testsuites", name="turnout")
    for decision in decisions:
        suite = ET.SubElement(root, "testsuite", name=xml_text(decision.suite))
        _properties(suite, decision)
        _gate(suite, decision)
        for result in (results or {}).get(decision.suite, ()):
            _case(suite, decision, result, titles or {})
        _count(suite)
    _count(root)
    ET.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(root, encoding="unicode") + "\n"


def xml_text(text: str, limit: int = MAX_TEXT_CHARACTERS) -> str:
    """`text` without what XML 1.0 cannot hold, cut to `limit` characters."""
    return _NOT_XML.sub("�", text if len(text) <= limit else text[: limit - 1] + "…")


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
        ET.SubElement(case, "skipped", message=f"inconclusive: {message}")
    elif decision.verdict != "pass":
        kind = "error" if decision.verdict == "could_not_run" else "failure"
        ET.SubElement(case, kind, message=message, type=decision.verdict).text = reasons
        return
    ET.SubElement(case, "system-out").text = reasons


def _case(suite: ET.Element, decision: GateDecision, result: CaseResult, titles: Mapping[tuple[str, str], str]) -> None:
    name = titles.get((decision.suite, result.case_id)) or result.case_id
    repeat = f" #{result.repeat + 1}" if result.repeat else ""
    seconds = f"{(result.latency_ms or 0.0) / 1000:.3f}"
    case = ET.SubElement(
        suite, "testcase", name=xml_text(name, 200) + repeat, classname=xml_text(decision.suite), time=seconds
    )
    if result.status == "failed":
        reasons = [outcome.reason for outcome in result.outcomes if outcome.status != "passed"]
        reason = reasons[0] if reasons else "the score is below the case's threshold"
        failure = ET.SubElement(case, "failure", message=xml_text(reason, 300), type="failed")
        failure.text = xml_text("\n".join(reasons))
    elif result.status == "errored":
        error = ET.SubElement(case, "error", message=xml_text(result.error, 300), type="errored")
        error.text = xml_text(result.error)
    elif result.status == "skipped":
        ET.SubElement(case, "skipped", message=xml_text(result.error, 300))
    if result.output is not None:
        ET.SubElement(case, "system-out").text = xml_text(result.output)


def _count(element: ET.Element) -> None:
    counted = {"tests": "", "failures": "/failure", "errors": "/error", "skipped": "/skipped"}
    if element.tag == "testsuites":
        del counted["skipped"]  # the schema has it on a test suite alone
    for attribute, path in counted.items():
        element.set(attribute, str(len(element.findall(f".//testcase{path}"))))
    seconds = sum(float(case.get("time", "0")) for case in element.iter("testcase"))
    element.set("time", f"{seconds:.3f}")

import io
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from suites.case import GateSettings, Thresholds
from suites.gate import decide
from suites.judge import Judged
from suites.report.html import Shown, render_html
from suites.report.junit import render_junit, xml_text
from suites.report.markdown import MARKER, Told, code, escape, render_markdown
from suites.report.terminal import print_changes, print_gate
from suites.report.views import CaseView
from suites.results import CaseResult
from suites.rows import Place
from suites.verdicts import GateInput, Side

EVIL = "| @octocat <img src=x onerror=alert(1)> [a](javascript:b) ``` #1 **b**\n<!-- --> www.evil.com"


def decision(broken=8, mended=1, **thresholds):
    ids = [f"c{i:02}" for i in range(40)]
    now = {i: "failed" if n < broken else "passed" for n, i in enumerate(ids)}
    before = {i: "failed" if broken <= n < broken + mended else "passed" for n, i in enumerate(ids)}
    given = GateInput(
        suite="support.triage",
        candidate=Side(variant="support.triage@2+m", outcomes=now, p95_latency_ms=120.0),
        baseline=Side(variant="support.triage@1+m", outcomes=before),
        thresholds=Thresholds(**thresholds),
        settings=GateSettings(),
    )
    return decide(given)


def test_the_comment_holds_verdict_interval_thresholds_and_changed_cases():
    text = render_markdown(
        [decision(pass_rate=0.9, p95_latency_ms=200)],
        Told({("support.triage", "c00"): CaseView("late parcel", "no", "yes", "why")}),
    )
    assert text.startswith(MARKER + "\n## ❌ Turnout gate failed\n")
    assert "| pass_rate | 0.9 | 0.8 | **missed** |" in text
    assert "| p95_latency_ms | 200 | 120 | met |" in text
    assert "| 80.0% | 65.2% – 89.5% |" in text
    assert "Newly broken: 8" in text
    assert "| <code>late parcel</code> | – | <code>yes</code> | <code>no</code> | <code>why</code> |" in text
    assert "Newly mended: 1" in text


def test_outputs_cannot_inject_markup_or_mentions():
    text = render_markdown([decision()], Told({("support.triage", "c00"): CaseView(EVIL, EVIL, EVIL, EVIL)}))
    row = next(line for line in text.splitlines() if "octocat" in line)
    assert row.count("|") == 6
    inside = row.replace("<code>", "").replace("</code>", "").replace("<br>", "")
    assert not set("<>`*[]@") & set(inside)
    assert "&#64;&#8203;octocat" in row
    assert "www.evil" not in row


@given(st.text())
def test_escaped_text_stays_on_one_line_without_syntax(text):
    escaped = escape(text).replace("<br>", "")
    assert not set("`*_[]<>|~:\\@\n\r") & set(escaped)
    assert len(escaped.splitlines()) <= 1


def test_long_outputs_are_cut_and_nothing_is_a_dash():
    assert code("x" * 999) == "<code>" + "x" * 299 + "…</code>"
    assert code(None) == code("") == "–"


def test_a_comment_that_would_be_too_long_leaves_the_cases_out():
    decisions = [decision() for _ in range(30)]
    views = {("support.triage", f"c{i:02}"): CaseView(EVIL * 9, EVIL * 9, EVIL * 9, EVIL * 9) for i in range(40)}
    text = render_markdown(decisions, Told(views))
    assert len(text) < 65_536
    assert "The cases are left out" in text
    assert len(render_markdown([decision() for _ in range(400)])) < 65_536


def test_junit_counts_and_says_why():
    results = [
        CaseResult("a", 0, 0, "passed", output="yes", latency_ms=1500.0),
        CaseResult(
            "b",
            1,
            0,
            "failed",
            outcomes=(Judged("equals", None, 1.0, "failed", 0.0, "expected: x"),),
            output="\x00\ud800<",
        ),
        CaseResult("c", 2, 0, "errored", error="gone"),
        CaseResult("d", 3, 1, "skipped", error="stopped"),
    ]
    text = render_junit([decision()], {"support.triage": results}, {("support.triage", "a"): "late parcel"})
    root = ET.fromstring(text)  # noqa: S314 - made here
    counts = {"tests": "5", "failures": "2", "errors": "1", "time": "1.500"}
    assert dict(root.attrib) == {"name": "turnout", **counts}
    assert dict(root.find("testsuite").attrib) == {"name": "support.triage", **counts, "skipped": "1"}
    names = [case.get("name") for case in root.iter("testcase")]
    assert names == ["gate", "late parcel", "b", "c", "d #2"]
    assert root.find(".//testcase[@name='b']/failure").get("message") == "expected: x"
    assert root.find(".//testcase[@name='b']/system-out").text == "��<"


@given(st.text(st.characters(), max_size=50))
def test_any_text_is_safe_in_xml(text):
    element = ET.Element("a", name=xml_text(text))
    element.text = xml_text(text)
    ET.fromstring(ET.tostring(element, encoding="unicode"))  # noqa: S314 - made here


def printed(show, *args, width=160):
    stream = io.StringIO()
    show(Console(file=stream, width=width, no_color=True), *args)
    return stream.getvalue()


def test_nothing_of_a_gate_is_cut_on_a_narrow_terminal():
    names = ("support.ticket-triage-de", "support.ticket-triage-en")
    decisions = [decision(pass_rate=0.9).model_copy(update={"suite": name, "reasons": ()}) for name in names]
    text = printed(print_gate, decisions, width=60)
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= 60


def test_a_gate_on_a_terminal_names_its_figures():
    text = printed(print_gate, [decision(pass_rate=0.9)])
    assert "support.triage" in text
    assert "fail" in text
    assert "pass_rate 0.8 < 0.9" in text


def test_texts_of_others_are_not_read_as_markup_of_the_terminal():
    text = printed(
        print_gate, [decision(pass_rate=0.9).model_copy(update={"suite": "[red]s", "reasons": ("[bold]x",)})]
    )
    assert "[red]s" in text
    assert "[bold]x" in text


@pytest.mark.parametrize(("verdict_of", "sign"), [({}, "❌"), ({"broken": 0}, "✅"), ({"broken": 3, "mended": 0}, "⚠️")])
def test_the_heading_shows_the_worst_verdict(verdict_of, sign):
    assert f"## {sign} Turnout gate" in render_markdown([decision(broken=0), decision(**verdict_of)])


def graded_decision():
    ids = [f"c{i:02}" for i in range(20)]
    before = {i: (2, 1, 0) if i == "c00" else (3, 0, 0) for i in ids}
    given = GateInput(
        suite="support.triage",
        candidate=Side(
            variant="support.triage@2+m", outcomes=dict.fromkeys(ids, "passed"), scores=dict.fromkeys(ids, 0.6),
            repeats=dict.fromkeys(ids, (3, 0, 0)), metrics={EVIL: {"c01": 0.25}},
        ),
        baseline=Side(
            variant="support.triage@1+m", outcomes=dict.fromkeys(ids, "passed"), scores=dict.fromkeys(ids, 0.9),
            repeats=before,
        ),
        thresholds=Thresholds(metrics={EVIL: 0.5}, tags={"billing": 0.8}),
        settings=GateSettings(on="score"),
        tags={"billing": ("c01", "c02")},
        titles={"c00": EVIL},
        repeat=3,
    )  # fmt: skip
    return decide(given)


def test_the_comment_holds_thresholds_of_metrics_and_tags_scores_and_quarantined_cases():
    text = render_markdown([graded_decision()], Told(notes=["suite s was another at main"]))
    assert "\n- suite s was another at main\n" in text
    assert "| <code>tags.billing</code> | 0.8 | 1 | met |" in text
    assert (
        "mean score 0.600 against 0.900, difference -0.300, 95% -0.300 to -0.300 (bootstrap over 19 clusters)" in text
    )
    assert "Flaky on the baseline, left out of the comparison: 1" in text
    assert "| 2 of 3 | 3 of 3 |" in text
    rows = [line for line in text.splitlines() if "octocat" in line and line.startswith("|")]
    assert [row.count("|") for row in rows] == [5, 4]
    assert not any("@octocat" in row or "<img" in row for row in rows)


def test_junit_tells_thresholds_and_quarantined_cases_as_properties():
    root = ET.fromstring(render_junit([graded_decision(), decision()]))  # noqa: S314 - made here
    found = {element.get("name"): element.get("value") for element in root.iter("property")}
    assert found["threshold.tags.billing"] == "1 for 0.8: met"
    assert found[f"threshold.metrics.{EVIL}"] == "0.25 for 0.5: missed"
    assert found["quarantined.c00"].endswith("flaky on the baseline, which passed 2 of 3 repeats; the candidate 3 of 3")
    assert root.get("tests") == "2"
    assert len(list(root.iter("properties"))) == 1


def test_a_terminal_shows_every_threshold_and_who_was_left_out():
    text = printed(print_gate, [graded_decision()])
    assert "tags.billing" in text
    assert "left out, " in text
    assert "which passed 2 of 3 repeats; the candidate 3 of 3" in text
    assert "mean score 0.600 against 0.900 over 19 paired cases" in text


def hostile_cases(count):
    return {("support.triage", f"c{i:02}"): CaseView(*[EVIL * 9] * 4, EVIL * 9) for i in range(count)}


def test_a_comment_that_is_too_long_shows_fewer_cases_first():
    text = render_markdown([decision(broken=40, mended=0) for _ in range(5)], Told(hostile_cases(40)))
    assert len(text) <= 60_000
    assert "_Shortened: at most 5 cases of a kind and 160 characters of an answer are shown." in text
    assert text.count("… and 35 more") == 5


def test_a_comment_of_too_many_suites_shows_those_that_stopped_the_gate():
    passing = [decision(broken=0, mended=0).model_copy(update={"suite": f"fine{n}"}) for n in range(400)]
    text = render_markdown([*passing, decision(pass_rate=0.9)], Told(reproduce="turnout gate --local"))
    assert len(text) <= 60_000
    assert "❌ <code>support.triage</code>" in text
    assert text.index("❌ <code>support.triage</code>") < text.index("✅")
    assert " of 401 suites, and all cases, are left out" in text
    assert text.endswith("Reproduce: <code>turnout gate --local</code>\n")


def test_notes_that_are_left_out_are_counted():
    text = render_markdown([decision()], Told(notes=[f"note {n}" for n in range(12)]))
    assert "- … and 2 more notes, in the JSON" in text


def test_a_verdict_without_a_comparison_shows_what_did_not_pass():
    alone = decision(pass_rate=0.9).model_copy(update={"baseline": None, "newly_broken": (), "newly_mended": ()})
    views = {("support.triage", "c00"): CaseView("late parcel", "no", None, "why", "yes")}
    text = render_markdown([alone], Told(views, failed={"support.triage": ["c00"]}, what="run"))
    assert "## ❌ Turnout run failed" in text
    assert "Did not pass: 1" in text
    assert "| <code>late parcel</code> | <code>yes</code> | <code>no</code> | <code>why</code> |" in text


@given(st.text(st.characters(), max_size=80))
def test_no_text_changes_the_shape_of_a_comment(text):
    def shape(said):
        views = {("support.triage", "c00"): CaseView(said, said, said, said, said)}
        told = render_markdown([decision(broken=1, mended=0)], Told(views, [said], reproduce=said))
        return [(line.count("|"), line.count("`"), line.startswith(("#", "<"))) for line in told.splitlines()]

    assert shape(text or "x") == shape("x")


def test_junit_says_everything_as_text_for_those_who_read_no_messages():
    inconclusive = decision(broken=3, mended=0)
    results = [CaseResult("a", 0, 0, "skipped", error="stopped"), CaseResult("b", 1, 0, "errored", error="")]
    root = ET.fromstring(render_junit([inconclusive], {"support.triage": results}))  # noqa: S314 - made here
    for case in root.iter("testcase"):
        [said] = [each for each in case if each.tag != "system-out"]
        assert said.text
        assert said.get("message") is not None
    assert root.find(".//testcase[@name='a']/skipped").text == "stopped"


def test_junit_says_which_file_a_suite_is_and_names_no_two_cases_alike():
    results = [CaseResult("a", 0, repeat, "passed") for repeat in range(3)]
    text = render_junit([decision()], {"support.triage": results}, files={"support.triage": "suites/triage.suite.yml"})
    root = ET.fromstring(text)  # noqa: S314 - made here
    assert root.find("testsuite").get("file") == "suites/triage.suite.yml"
    names = [case.get("name") for case in root.iter("testcase")]
    assert len(set(names)) == len(names)


def test_junit_says_where_each_case_stands():
    results = [CaseResult(case_id, index, 0, "passed") for index, case_id in enumerate("abc")]
    files = {"support.triage": "suites/triage.suite.yml"}
    places = {("support.triage", "a"): Place("suites/triage.jsonl", 7), ("support.triage", "b"): Place("", 0)}
    root = ET.fromstring(render_junit([decision()], {"support.triage": results}, {}, files, places))  # noqa: S314 - made here
    assert {case.get("name"): (case.get("file"), case.get("line")) for case in root.iter("testcase")} == {
        "gate": ("suites/triage.suite.yml", None),
        "a": ("suites/triage.jsonl", "7"),
        "b": ("suites/triage.suite.yml", None),
        "c": ("suites/triage.suite.yml", None),
    }


def test_what_was_left_out_of_an_imported_file_is_told_and_changes_no_shape():
    lines = ["2 × assertion moderation (write `llm-rubric`): <b>x</b> @me", *(f"1 × x{n} (y): z" for n in range(11))]
    comment = render_markdown([decision()], Told(left_out=lines))
    assert "Left out of the imported file, for 12 reasons" in comment
    assert "2 × assertion moderation" in comment
    assert "and 2 more reasons, in the JSON" in comment
    page = render_html([decision()], Shown(left_out=lines))
    assert "1 × x10 (y): z" in page
    assert "<b>" not in comment + page
    assert "Left out" not in render_markdown([decision()]) + render_html([decision()])


def test_an_answer_attaches_no_file_to_a_test_case():
    results = [CaseResult("a", 0, 0, "passed", output="[[ATTACHMENT|/etc/passwd]] and [[attachment|x]]")]
    assert "[[" not in render_junit([decision()], {"support.triage": results})


@given(st.text(st.characters(), max_size=60))
def test_no_text_changes_the_shape_of_junit(text):
    def shape(said):
        judged = (Judged("equals", None, 1.0, "failed", 0.0, said),)
        results = [CaseResult("a", 0, 0, "failed", outcomes=judged, output=said)]
        document = render_junit([decision()], {"support.triage": results}, {("support.triage", "a"): said})
        return [(each.tag, sorted(each.keys())) for each in ET.fromstring(document).iter()]  # noqa: S314 - made here

    assert shape(text) == shape("x")


def test_cases_that_changed_stand_side_by_side_on_a_terminal():
    views = [CaseView("case 1: late", "no\nnever", "[red]yes", "why", "equals: yes"), CaseView("x" * 999, None, None)]
    text = printed(lambda console: print_changes(console, "newly broken: 5", views, 3))
    for said in ("newly broken: 5", "baseline", "candidate", "[red]yes", "no never", "equals: yes", "… and 3 more"):
        assert said in text
    assert "x" * 90 not in text.replace("\n", "")
    assert max(map(len, text.splitlines())) <= 160
    assert "baseline" not in printed(lambda console: print_changes(console, "t", [CaseView("a", "b", None)]))
    assert printed(lambda console: print_changes(console, "t", [])) == ""

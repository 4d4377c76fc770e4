"""Pages and tables for spreadsheets: whatever a case holds, it stays text."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import re
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from suites.case import GateSettings, Thresholds
from suites.gate import decide
from suites.report.case_blocks import MAX_CASES, case_blocks
from suites.report.chart import chart
from suites.report.html import Shown, nothing_page, render_html
from suites.report.page import SCRIPT, STYLE, esc, page
from suites.report.spreadsheet import cell, render_csv
from suites.report.views import AnswerView, CaseRow, Footing
from suites.verdicts import GateInput, Side

EVIL = "</pre></details><script>alert(1)</script><img src=x onerror=y>\"'`&amp; \x00\x1b[31m\u202e ]]> <!-- {{ x }}"
ANY = st.text(st.characters(), max_size=60)


def decision(**thresholds):
    given_ = GateInput(
        suite="support.triage",
        candidate=Side(variant="v@2+m", outcomes={"a": "failed", "b": "passed", "c": "passed"}),
        baseline=Side(variant="v@1+m", outcomes={"a": "passed", "b": "failed", "c": "passed"}),
        thresholds=Thresholds(**thresholds),
        settings=GateSettings(),
    )
    return decide(given_)


def row(text="x", change="broken", number=1, **more):
    answer = AnswerView("failed", text, text, 0.5, 12.0, 0.001, {"m": 0.5})
    filled = {"case_id": text or "a", "number": number, "repeat": 0, "title": text, "expected": text, "tags": (text,)}
    return CaseRow(**{**filled, "candidate": answer, "baseline": AnswerView("passed", text), "change": change, **more})


class Shape(HTMLParser):
    """Tags with the names of their attributes, and all text."""

    def __init__(self, document):
        super().__init__()
        self.tags, self.text = [], ""
        self.feed(document)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, *sorted(name for name, _ in attrs)))

    def handle_data(self, data):
        self.text += data


def gate_page(text):
    shown = Shown({"support.triage": [row(text)]}, {"support.triage": Footing(text, text, "")}, [text], text)
    return render_html([decision(pass_rate=0.9).model_copy(update={"reasons": (text,)})], shown)


def test_a_page_shows_verdict_thresholds_and_cases():
    text = Shape(gate_page("late parcel")).text
    for said in ("Turnout gate failed", "pass_rate", "missed", "newly broken", "late parcel", "Evidence", "Reproduce"):
        assert said in text


@given(ANY)
def test_no_text_changes_the_shape_of_a_page(text):
    if text:  # without an output another sentence stands there
        assert Shape(gate_page(text)).tags == Shape(gate_page("x")).tags


def test_hostile_text_is_shown_as_it_is():
    document = gate_page(EVIL)
    assert Shape(document).tags == Shape(gate_page("x")).tags
    assert EVIL.replace("\x00", "�").replace("\x1b", "�").replace("\u202e", "�") in Shape(document).text
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f\u202a-\u202e]", document)


def test_a_page_asks_for_nothing_and_runs_nothing_but_its_own_script():
    document = gate_page(EVIL)
    assert not re.search(r"""<[^>]*\b(src|href|srcset|action|style)\s*=""", document)
    assert "url(" not in STYLE
    assert "@import" not in STYLE
    [policy] = re.findall(r'Content-Security-Policy" content="([^"]*)"', document)
    digests = [base64.b64encode(hashlib.sha256(part.encode()).digest()).decode() for part in (STYLE, SCRIPT)]
    assert policy.startswith("default-src 'none'; ")
    assert [f"sha256-{digest}" for digest in digests] == re.findall(r"'(sha256-[^']+)'", policy)
    assert (document.count("<script>"), document.count("<style>")) == (1, 1)


def test_a_page_is_read_without_its_script():
    bare = gate_page("late parcel").replace(SCRIPT, "")
    assert '<div class="filters" hidden>' in bare
    assert "late parcel" in Shape(bare).text


def test_a_gate_without_suites_is_a_page_that_says_why():
    document = nothing_page("pass", ["no <suite> is affected"])
    assert "Nothing to gate" in document
    assert "no &lt;suite&gt; is affected" in document


def test_what_broke_comes_first_and_long_lists_are_cut():
    rows = [row(f"case {n}", change="", number=n) for n in range(1, MAX_CASES + 2)] + [row("late", number=99_999)]
    blocks = case_blocks(rows)
    assert "late" in blocks[3]
    assert "2 more cases are left out" in blocks[-2]
    assert sum("details" in block for block in blocks) == MAX_CASES


def test_line_ends_are_kept_and_texts_are_cut():
    assert esc("a\r\nb\rc\td") == "a\nb\nc\td"
    assert esc("x" * 9, 4) == "xxx…"
    assert page("t", []).startswith("<!doctype html>")


# ------------------------------------------------------------------------------------ charts


def test_a_chart_has_a_dot_for_each_value_and_a_gap_where_one_is_unknown():
    drawn = chart([0.5, None, 0.7, 0.8], ["a", "b", "c", "d"], [(0.4, 0.6), None, (0.6, 0.8), (0.7, 0.9)])
    assert drawn.count("<circle") == 3
    assert drawn.count("<polyline") == 2
    assert drawn.count("<polygon") == 2
    assert 'aria-label="from 0.4 to 0.9"' in drawn
    assert "<title>c</title>" in drawn
    assert chart([None], ["a"]) == ""
    assert 'aria-label="from 0 to 5"' in chart([5.0], ["<"], from_zero=True)


# ------------------------------------------------------------------------------------ spreadsheets


def cells_of(rows):
    return [*csv.reader(io.StringIO(render_csv({"s": rows}).removeprefix("\ufeff"), newline=""))]


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "  =1", "\uff1d1"])
def test_what_a_spreadsheet_would_compute_is_text(text):
    assert cell(text).startswith("'")


def test_plain_text_and_figures_stay_as_they_are():
    assert cell("a = b") == "a = b"
    assert cell("") == ""
    heads, first = cells_of([row("a", candidate=AnswerView("failed", "x", score=-0.5))])
    assert first[heads.index("score")] == "-0.5"
    assert first[heads.index("baseline.status")] == "passed"


@given(ANY, ANY)
def test_no_text_breaks_out_of_its_cell(text, other):
    found = cells_of([row(text), row(other)])
    assert len(found) == 3
    assert {len(line) for line in found} == {len(found[0])}
    for line in found[1:]:
        written = [line[found[0].index(name)] for name in ("title", "expected", "output", "baseline.output")]
        assert not any(value.startswith(("=", "+", "-", "@", "\t", "\r", "\n")) for value in written)


@given(ANY)
def test_a_cell_holds_all_of_its_text(text):
    kept = re.sub("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff\ufffe\uffff]", "�", text)
    assert cell(text) in (kept, f"'{kept}")


def test_metrics_are_columns_of_both_sides():
    heads, first = cells_of([row("a")])
    assert [first[heads.index(name)] for name in ("metric.m", "baseline.metric.m")] == ["0.5", ""]

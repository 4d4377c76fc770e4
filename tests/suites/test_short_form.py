"""promptfoo's tables: the short form of assertions, and the columns that set more than a value."""

import pytest

from prompts.errors import BadFile
from suites.files import load_suite
from suites.short_form import BadCell, assertion_from_text


def load(folder, table, **files):
    (folder / "suites").mkdir(exist_ok=True)
    for name, text in {"a__csv": table, **files}.items():
        (folder / "suites" / name.replace("__", ".")).write_text(text)
    path = folder / "suites" / "a.suite.yml"
    path.write_text("prompt: p\ntests: [file://a.csv]\n")
    return load_suite(path, folder)


def faults(folder, table):
    with pytest.raises(BadFile) as raised:
        load(folder, table)
    return [f"{fault.line}: {fault.message} ({fault.fix})" for fault in raised.value.faults]


def asserts(folder, table, **files):
    return load(folder, table, **files).suite.tests[0].asserts


@pytest.mark.parametrize(
    ("cell", "spec"),
    [
        ("grade: is kind", {"type": "llm-rubric", "value": "is kind"}),
        ("llm-rubric:is kind", {"type": "llm-rubric", "value": "is kind"}),
        ("not-llm-rubric:is rude", {"type": "not-llm-rubric", "value": "is rude"}),
        ("factuality:The capital is Paris", {"type": "factuality", "value": "The capital is Paris"}),
        ("similar(0.9):Hello there", {"type": "similar", "threshold": 0.9, "value": "Hello there"}),
        ("similar:Hello there", {"type": "similar", "threshold": 0.8, "value": "Hello there"}),
        ("similar:dot(0.9):Hello", {"type": "similar:dot", "threshold": 0.9, "value": "Hello"}),
        ("levenshtein(5):Paris", {"type": "levenshtein", "threshold": 5.0, "value": "Paris"}),
        ("rouge-n(0.6):Paris is", {"type": "rouge-n", "threshold": 0.6, "value": "Paris is"}),
        ("context-recall:Paris", {"type": "context-recall", "threshold": 0.75, "value": "Paris"}),
        ("context-faithfulness", {"type": "context-faithfulness", "threshold": 0.75}),
        ("answer-relevance(0.6)", {"type": "answer-relevance", "threshold": 0.6}),
        ("not-contains-any:a,b", {"type": "not-contains-any", "value": ["a", "b"]}),
        ("starts-with: Hel", {"type": "starts-with", "value": "Hel"}),
        ("  equals: 30  ", {"type": "equals", "value": "30"}),
        ("not-is-json", {"type": "not-is-json"}),
        ("cost(0.002)", {"type": "cost", "threshold": 0.002}),
        ("python: file://c.py:f", {"type": "python", "value": "file://c.py:f"}),
        ("file://c.py:f", {"type": "python", "value": "file://c.py:f"}),
        ("file://c.js", {"type": "javascript", "value": "file://c.js"}),
        ("file://expected.txt", {"type": "equals", "value": "file://expected.txt"}),
        ("is-json:file://schema.json", {"type": "is-json", "value": "file://schema.json"}),
        ("Note: pay", {"type": "equals", "value": "Note: pay"}),
        ("https://example.org", {"type": "equals", "value": "https://example.org"}),
        ("f(x): y", {"type": "equals", "value": "f(x): y"}),
        ("equals:contain:Paris", {"type": "equals", "value": "contain:Paris"}),
    ],
)
def test_a_cell_means_what_it_means_to_promptfoo(cell, spec):
    assert assertion_from_text(cell) == spec


@pytest.mark.parametrize(
    ("cell", "message", "fix"),
    [
        ("contain:Paris", "unknown assertion type 'contain'", "'contains'"),
        ("not-contain:Paris", "unknown assertion type 'not-contain'", "'not-contains'"),
        ("ruby: output", "unknown assertion type 'ruby'", "javascript"),
        ("moderation: hate", "unknown assertion type 'moderation'", "classifier"),
        ("similar(high):x", "similar(high): the threshold is no number", "similar(0.8)"),
        ("file://c.ts", "files .ts are not run", ".js"),
        ("is-json:{", "is not valid JSON", "is-json:{"),
    ],
)
def test_a_cell_that_would_test_something_else_is_refused(cell, message, fix):
    with pytest.raises(BadCell) as refused:
        assertion_from_text(cell)
    assert message in refused.value.args[0]
    assert fix in refused.value.args[1]


def test_what_a_type_needs_besides_is_a_fault_of_the_row(tmp_path):
    (found,) = faults(tmp_path, "t,__expected\na,classifier:polite\n")
    assert found.startswith("2: assert.0: `classifier` needs the labels to choose from")
    (found,) = faults(tmp_path, "t,__expected\na,latency\n")
    assert "needs a threshold in milliseconds" in found
    (found,) = faults(tmp_path, "t,__expected\na,contains-any(2):x\n")
    assert "has no threshold" in found


def test_scripts_and_texts_of_files_are_read(tmp_path):
    table = "t,__expected,__expected2,__expected3\na,file://c.js,file://d.txt,contains-any:file://e.json\n"
    found = asserts(tmp_path, table, c__js="output.length > 1\n", d__txt="right\n", e__json='["a", "b"]')
    assert [(spec.type, spec.value) for spec in found] == [
        ("javascript", "output.length > 1"),
        ("equals", "right"),
        ("contains-any", ["a", "b"]),
    ]


def test_thresholds_of_single_assertions_have_columns_of_their_own(tmp_path):
    header = "t,__expected1,__config:__expected1:threshold,__expected2,__config:__expected2:threshold\n"
    found = asserts(tmp_path, header + "a,similar:x,0.6,levenshtein(9):y,2\n")
    assert [spec.threshold for spec in found] == [0.6, 2.0]
    found = asserts(tmp_path, header + "a,similar(0.7):x,,levenshtein(9):y,2\n")
    assert [spec.threshold for spec in found] == [0.7, 2.0]
    one = asserts(tmp_path, "t,__expected,__config:__expected:threshold\na,similar:x,0.6\n")
    assert one[0].threshold == 0.6
    first = asserts(tmp_path, "t,__expected1,__config:__expected:threshold\na,similar:x,0.6\n")
    assert first[0].threshold == 0.6


@pytest.mark.parametrize(
    ("table", "fault"),
    [
        ("t,__expected,__config:__expected:weight\na,x,1\n", "1: the column '__config:__expected:weight' is not read"),
        (
            "t,__expected,__config:__expected3:threshold\na,x,1\n",
            "1: the column '__config:__expected3:threshold' is of an",
        ),
        ("t,__expected,__config:__expected:threshold\na,similar:x,high\n", "2: 'high' is no number"),
        (
            "t,__expected1,__expected2,__config:__expected2:threshold\na,x,,1\n",
            "2: a threshold for __expected2, which is",
        ),
        ("t,_expected,__expected\na,x,x\n", "1: the column '_expected' has one underscore (write '__expected'"),
        ("t,__metadata,__expected\na,b,x\n", "1: the column '__metadata' is not read"),
    ],
)
def test_nothing_of_a_table_is_dropped_in_silence(tmp_path, table, fault):
    assert [found for found in faults(tmp_path, table) if found.startswith(fault)]

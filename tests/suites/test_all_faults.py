"""One reading tells every fault of a suite: none hides another."""

import pytest

from prompts.errors import BadFile
from suites.files import read_suite

TEN = """\
prompt: support.triage
thresholds: {pass_rate: 90, metrics: {tone: 0.5}}
gate: {alpha: 2}
defaultTest:
  assert:
    - {type: contians, value: x}
tests:
  - vars: {t: a}
    assert:
      - {type: eqals, value: x, threshold: -1}
      - {type: equals, value: "{{ missing }}"}
  - vars: {t: b}
    treshold: 0.5
    assert:
      - {type: levenshtein, value: x, threshold: -3}
  - vars: {t: c}
    assert:
      - type: assert-set
        assert:
          - {type: ragex, value: x}
          - {type: regex, value: "("}
  - vars: {t: d}
    assert: [{type: is-json}]
    metadata: 7
training: {examples: [{vars: {}, expected: 5}]}
fallback: {rollout: [5, 25]}
"""


def read(folder, text, **files):
    (folder / "suites").mkdir(exist_ok=True)
    for name, content in files.items():
        (folder / "suites" / name.replace("__", ".")).write_text(content)
    path = folder / "suites" / "a.suite.yml"
    path.write_text(text)
    found, faults = read_suite(path, folder)
    return found, BadFile(faults).faults if faults else ()


def told(folder, text, **files):
    return [(fault.path.rpartition("/")[2], fault.line, fault.message) for fault in read(folder, text, **files)[1]]


def test_faults_of_every_part_are_told_in_one_reading_by_line(tmp_path):
    found = [(line, message) for _, line, message in told(tmp_path, TEN)]
    expected = [
        (2, "thresholds.metrics.tone: no case has this metric"),
        (2, "a share lies between 0 and 1"),
        (3, "gate.alpha"),
        (6, "unknown assertion type 'contians'"),
        (8, "`equals` refers to {{ missing }}"),  # of the merged case
        (10, "unknown assertion type 'eqals'"),
        (10, "threshold"),
        (13, "unknown key 'tests.1.treshold'"),
        (15, "threshold"),
        (20, "unknown assertion type 'ragex'"),
        (21, "no regular expression"),
        (24, "`metadata` is keys and values"),
        (25, "training.examples.0.expected"),
        (26, "a rollout rises"),
    ]
    lines = {line for line, _ in expected}
    for line, message in expected:
        assert any(line == at and message in text for at, text in found), (line, message, found)
    assert [line for line, _ in found] == sorted(line for line, _ in found)
    assert len(found) == len(expected)
    assert {line for line, _ in found} == lines


def test_what_is_left_is_held_against_its_prompt_and_is_not_whole(tmp_path):
    found, faults = read(tmp_path, TEN)
    assert not found.is_whole
    assert [case.vars for case in found.suite.tests] == [{"t": "a"}, {"t": "b"}, {"t": "c"}, {"t": "d"}]
    assert found.suite.prompt == "support.triage"
    assert faults


def test_a_faulty_name_of_the_prompt_hides_nothing_else(tmp_path):
    found, faults = read(tmp_path, "prompt: Support\ntests: [{vars: {t: a}, assert: [{type: contians}]}]\n")
    assert [fault.line for fault in faults] == [1, 2]
    assert found.suite.prompt == ""


def test_a_case_whose_variables_are_unreadable_is_left_out(tmp_path):
    found, faults = read(
        tmp_path, "prompt: p\ntests: [{vars: 5, assert: [{type: is-json}]}, {assert: [{type: is-xml}]}]\n"
    )
    assert len(faults) == 1
    assert len(found.suite.tests) == 1


@pytest.mark.parametrize("default", ["5", "{vars: 7}"])
def test_with_a_default_whose_variables_are_unknown_cases_are_judged_alone(tmp_path, default):
    body = f"prompt: p\ndefaultTest: {default}\ntests: [{{assert: [{{type: contians, value: x}}]}}]\n"
    found, faults = read(tmp_path, body)
    assert found is None
    assert [fault.line for fault in faults] == [2, 3]


def test_a_fault_breeds_no_others(tmp_path):
    """A bad assertion is no missing one, its metric is there, and cases are not equal for what they lost."""
    body = """prompt: p
thresholds: {metrics: {tone: 0.5}, tags: {a: 0.5, k=v: 0.5}}
tests:
  - {vars: {t: a}, assert: [{type: contians, value: x, metric: tone}], tags: [a]}
  - {vars: {t: a}, assert: [{type: contians, value: y}], metadata: {k: v}}
"""
    found = told(tmp_path, body)
    assert [line for _, line, _ in found] == [4, 5]
    assert all("contians" in message for _, _, message in found)


def test_a_missing_file_hides_no_fault_and_no_bound_is_held_against_what_was_not_read(tmp_path):
    body = "prompt: p\nthresholds: {metrics: {tone: 0.5}}\ntests: [file://none.jsonl, {vars: {}, asert: []}]\n"
    found = told(tmp_path, body)
    assert len(found) == 2  # the file and the key
    assert not any("no case has this metric" in message for _, _, message in found)


def test_every_bad_cell_of_a_row_is_told(tmp_path):
    table = "t,__expected,__expected2,__threshold,__must_pass\na,containz:x,is-json:{,high,maybe\n"
    found = told(tmp_path, "prompt: p\ntests: file://a.csv\n", a__csv=table)
    assert [(path, line) for path, line, _ in found] == [("a.csv", 2)] * 4


@pytest.mark.parametrize(
    ("kind", "fix"),
    [
        ("contians", "did you mean 'contains' or 'icontains'"),
        ("not-contians", "did you mean 'not-contains'"),
        ("webhook", "write it as `javascript`"),
        ("guardrails", "finish-reason"),
    ],
)
def test_an_unknown_type_says_which_may_be_meant(tmp_path, kind, fix):
    _, (fault,) = read(tmp_path, f"prompt: p\ntests: [{{vars: {{}}, assert: [{{type: {kind}, value: x}}]}}]\n")
    assert f"unknown assertion type '{kind}'" in fault.message
    assert fix in fault.fix

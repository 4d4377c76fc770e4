import copy
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prompts.errors import BadFile
from prompts.yaml_source import load_yaml
from suites.case import Case, Place, Suite
from suites.checks import check_prices, undecided
from suites.values import fill

MINIMAL = {"prompt": "support.triage", "tests": [{"vars": {"t": "a"}, "assert": [{"type": "equals", "value": "x"}]}]}

BROKEN = """\
prompt: Support
tresholds: {pass_rate: 0.9}
thresholds: {pass_rate: 90}
gate: {alpha: 2, min_cases: 0}
repeat: 2
pass_k: 3
schedule: "0 25 * * *"
tests:
  - vars: {t: a}
    assert:
      - {type: eqals, value: x}
      - type: contains-any
        value: foo
      - {type: equals, value: "{{ u }}"}
  - vars: {t: b}
    asert: []
  - vars: {t: c}
    assert: [{type: equals, value: "{{ u }}"}]
  - file://x.jsonl
training: {examples: file://t.jsonl}
fallback: {rollout: [5, 25]}
"""


def faults_of(text):
    with pytest.raises(BadFile) as raised:
        Suite.from_document(load_yaml(text, "a.suite.yml"))
    return {fault.line: f"{fault.message} ({fault.fix})" for fault in raised.value.faults}


def test_all_faults_of_a_file_are_reported_together_with_line_and_fix():
    faults = faults_of(BROKEN)
    assert "'Support' is no prompt name" in faults[1]
    assert faults[2] == "unknown key 'tresholds' (did you mean 'thresholds'?)"
    assert "write 0.9" in faults[3]
    assert "gate." in faults[4]
    assert "3 of 2 repeats can never pass" in faults[6]
    assert "'25' is no hour" in faults[7]
    assert "did you mean 'equals' or 'iequals'" in faults[11]
    assert "needs a list" in faults[12]
    assert faults[16] == "unknown key 'tests.1.asert' (did you mean 'assert'?)"
    assert faults[17] == "`equals` refers to {{ u }}, which the case does not have (known here: t)"
    assert "resolved by the command line alone" in faults[19]
    assert "resolved by the command line alone" in faults[20]
    assert "ends with 100 percent" in faults[21]


@pytest.mark.parametrize(
    ("before", "after", "key", "fix"),
    [
        ("defaultTest: {asserts: []}", "", "defaultTest.asserts", "did you mean 'assert'?"),
        ("default_test: {}", "", "default_test", "did you mean 'defaultTest'?"),
        ("", "asserts: []", "tests.0.asserts", "did you mean 'assert'?"),
        ("", "options: {rubric_prompt: x}", "tests.0.options.rubric_prompt", "did you mean 'rubricPrompt'?"),
        (
            "defaultTest: {options: {disable_var_expansion: true}}",
            "",
            "defaultTest.options.disable_var_expansion",
            "did you mean 'disableVarExpansion'?",
        ),
    ],
)
def test_a_key_is_known_by_the_one_word_that_is_documented(before, after, key, fix):
    text = f"prompt: a\n{before}\ntests:\n  - vars: {{t: a}}\n    assert: [{{type: is-json}}]\n    {after}\n"
    assert list(faults_of(text).values()) == [f"unknown key {key!r} ({fix})"]


@pytest.mark.parametrize("tests", ["", "tests: []", "tests: 5", "tests: {a: 1}"])
def test_a_suite_without_tests_is_a_fault(tests):
    assert any("a suite needs tests" in fault for fault in faults_of(f"prompt: a\n{tests}\n").values())


@pytest.mark.parametrize("data", [[], "prompt", None])
def test_a_file_that_is_no_mapping_is_a_fault(data):
    with pytest.raises(BadFile):
        Suite.from_document(load_yaml(json.dumps(data), "a.suite.yml"))


def test_default_asserts_are_added_and_default_variables_overridden():
    suite = Suite.from_data(
        {
            "prompt": "a",
            "defaultTest": {"vars": {"x": "1", "y": "2"}, "assert": [{"type": "is-json"}], "threshold": 0.5},
            "tests": [{"vars": {"y": "3"}, "assert": [{"type": "contains", "value": "{{y}}"}]}, {"threshold": 1}],
        }
    )
    first, second = suite.tests
    assert first.vars == {"x": "1", "y": "3"}
    assert [spec.type for spec in first.asserts] == ["is-json", "contains"]
    assert [spec.value for spec in first.filled_asserts()] == [None, "3"]
    assert (first.threshold, second.threshold) == (0.5, 1)


def test_defaults_are_the_contracts():
    suite = Suite.from_data(MINIMAL)
    assert suite.gate.model_dump() == {
        "alpha": 0.05, "margin": 0.02, "min_cases": 1, "max_error_share": 0.02, "on": "pass",
    }  # fmt: skip
    assert (suite.repeat, suite.passes_needed, suite.fallback, suite.schedule) == (1, 1, None, None)
    assert not suite.thresholds.given()


def test_data_of_a_suite_makes_an_equal_suite_with_the_same_digest():
    data = {**MINIMAL, "defaultTest": {"assert": [{"type": "is-json"}]}, "thresholds": {"pass_rate": 0.9}}
    suite = Suite.from_data(data)
    again = Suite.from_data(json.loads(json.dumps(suite.as_data())))
    assert again == suite
    assert again.digest == suite.digest
    assert "defaultTest" not in suite.as_data()


def test_the_digest_ignores_how_a_suite_is_written_and_sees_what_it_means():
    plain = Suite.from_data(MINIMAL).digest
    assert plain.startswith("sha256:")
    assert Suite.from_data({**MINIMAL, "repeat": 1, "gate": {"alpha": 0.05}}).digest == plain
    changed = copy.deepcopy(MINIMAL)
    changed["tests"][0]["assert"][0]["value"] = "y"
    assert Suite.from_data(changed).digest != plain


def test_a_cases_id_is_of_its_variables_and_assertions_alone():
    case = Suite.from_data(MINIMAL).tests[0]
    described = case.model_copy(update={"description": "new", "must_pass": True, "tags": ("a",)})
    assert Case.model_validate(case.model_dump(by_alias=True)).id == case.id
    assert described.id == case.id
    assert Case(vars={"t": "b"}, **{"assert": case.asserts}).id != case.id


def test_the_same_case_twice_is_a_fault_that_names_the_first():
    case = "  - {vars: {a: x}, assert: [{type: is-json}]}\n"
    assert "the case at a.suite.yml:3" in faults_of("prompt: a\ntests:\n" + case + case)[4]


def test_a_case_without_assertion_is_a_fault_unless_latency_or_cost_is_what_is_measured():
    assert "no assertion" in faults_of("prompt: a\ntests:\n  - vars: {a: x}\n")[3]
    measured = {"prompt": "a", "thresholds": {"p95_latency_ms": 5}, "tests": [{"vars": {"a": "x"}}]}
    assert Suite.from_data(measured).tests[0].asserts == ()


@pytest.mark.parametrize(
    ("case", "told"),
    [
        ({"assert": [{"type": "is-json", "weight": 0}]}, ["its assertions decide nothing: any answer passes"]),
        ({"assert": [{"type": "is-json"}], "threshold": 0}, ["its `threshold` is 0: any answer passes"]),
        (
            {"assert": [{"type": "assert-set", "assert": [{"type": "is-json", "weight": 0}]}]},
            ["its assertions decide nothing: any answer passes"],
        ),
        (
            {"assert": [{"type": "assert-set", "threshold": 0, "assert": [{"type": "is-json"}]}]},
            ["its assertions decide nothing: any answer passes"],
        ),
        ({"assert": [{"type": "is-json", "weight": 0}, {"type": "is-xml"}]}, []),
        ({"assert": [{"type": "is-json"}], "threshold": 0.1}, []),
    ],
)
def test_a_case_that_any_answer_passes_is_warned_of(case, told):
    suite = Suite.from_data({"prompt": "a", "tests": [{"vars": {"a": "x"}, **case}]})
    found = list(undecided(suite, [Place("a.suite.yml", 3)]))
    assert [fault.message for fault in found] == told
    assert {(fault.level, fault.rule, fault.line) for fault in found} <= {("warning", "no-assertion", 3)}


@pytest.mark.parametrize(
    ("assertion", "told"),
    [
        ({"type": "rouge-n", "value": "a b", "threshold": 0}, "`rouge-n`: every score reaches the threshold 0"),
        (
            {"type": "not-bleu", "value": "a", "threshold": 1},
            "`not-bleu`: only an answer with the full score of 1 misses it",
        ),
        ({"type": "regex", "value": ""}, "`regex`: '' matches the empty text, so it is found in every answer"),
        ({"type": "regex", "value": "x*"}, "`regex`: 'x*' matches the empty text, so it is found in every answer"),
        (
            {"type": "levenshtein", "value": "abc", "threshold": 100000},
            "`levenshtein`: 100,000 edits make any answer of up to 100,000 characters equal to 'abc'",
        ),
        ({"type": "word-count", "value": {"min": 0}}, "`word-count`: every answer counts at least 0"),
    ],
)
def test_an_assertion_that_cannot_fail_is_warned_of_with_the_first_case_that_has_it(assertion, told):
    case = {"vars": {"a": "x"}, "assert": [{"type": "is-json"}, {"type": "assert-set", "assert": [assertion]}]}
    suite = Suite.from_data({"prompt": "a", "tests": [case, {**case, "vars": {"a": "y"}}]})
    found = list(undecided(suite, [Place("a.suite.yml", 3), Place("a.suite.yml", 9)]))
    assert [(fault.message, fault.level, fault.rule, fault.line) for fault in found] == [
        (told, "warning", "no-assertion", 3)
    ]


@pytest.mark.parametrize(
    "assertion",
    [
        *(
            {"type": "regex", "value": value}
            for value in ("^$", "^[^x]*$", "(?!a)b", "^(?!.*a)", ".+", "^a|b*", r"\bx*$")
        ),
        {"type": "levenshtein", "value": "abcdef"},
        {"type": "levenshtein", "value": "{{ a }}"},
        {"type": "rouge-n", "value": "a b", "threshold": 0.1},
        {"type": "rouge-n", "value": "a b", "threshold": 0, "metric": "likeness"},
        {"type": "rouge-n", "value": "a b", "threshold": 0, "weight": 0},
        {"type": "assert-set", "threshold": 0.5, "assert": [{"type": "rouge-n", "value": "a b", "threshold": 0}]},
        {"type": "word-count", "value": {"min": 0, "max": 5}},
    ],
)
def test_an_assertion_that_may_fail_is_not_warned_of(assertion):
    case = {"vars": {"a": "x"}, "assert": [{"type": "is-json"}, assertion]}
    assert list(undecided(Suite.from_data({"prompt": "a", "tests": [case]}), [Place("a.suite.yml", 3)])) == []


@pytest.mark.parametrize("thresholds", [{"p95_latency_ms": 5}, {"metrics": {"tone": 0.5}}])
def test_a_case_that_is_only_measured_is_not(thresholds):
    case = {"vars": {"a": "x"}, "assert": [{"type": "is-json", "weight": 0, "metric": "tone"}]}
    suite = Suite.from_data({"prompt": "a", "thresholds": thresholds, "tests": [case]})
    assert list(undecided(suite, [Place("a.suite.yml", 3)])) == []


@pytest.mark.parametrize(
    ("written", "piece"),
    [
        ("{type: contains, value: '{{ q | upper }}'}", "'{{ q | upper }}'"),
        ("{type: not-icontains-any, value: [a, '{{ q.name }}']}", "'{{ q.name }}'"),
        ("{type: equals, value: '{% if q %}a{% endif %}'}", "'{% if q %}'"),
        ("{type: llm-rubric, value: {a: '{{ }}'}}", "'{{ }}'"),
        ("{type: assert-set, assert: [{type: equals, value: '{{ q | upper }}'}]}", "'{{ q | upper }}'"),
    ],
)
def test_a_value_that_looks_like_a_template_is_refused(written, piece):
    found = faults_of(f"prompt: a\ntests:\n  - vars: {{q: x}}\n    assert:\n      - {written}\n")
    assert f"{piece} is not filled in: values are no templates" in found[5]
    assert "write `{{ name }}` of a variable alone" in found[5]


@pytest.mark.parametrize(
    "written",
    [
        "{type: contains, value: 'a {{ q }} {{q}} {b: {c: {}}}'}",
        "{type: regex, value: 'a{{2}}'}",
        "{type: javascript, value: 'output === `{{ a | b }}`'}",
        "{type: is-json, value: {pattern: '{{ a | b }}'}}",
        "{type: llm-rubric, value: x, rubricPrompt: '{{ output | upper }}'}",
    ],
)
def test_slots_of_variables_code_patterns_and_rubrics_are_not(written):
    text = f"prompt: a\njudge: {{model: m}}\ntests:\n  - vars: {{q: x}}\n    assert:\n      - {written}\n"
    assert len(Suite.from_document(load_yaml(text, "a.suite.yml")).tests) == 1


def test_a_pattern_made_of_a_variable_is_checked_too():
    text = 'prompt: a\ntests:\n  - {vars: {p: "("}, assert: [{type: regex, value: "{{ p }}"}]}\n'
    assert "no regular expression" in faults_of(text)[3]


@pytest.mark.parametrize(
    "change",
    [
        {"tests": ["file:///etc/passwd"]},
        {"tests": "file://cases.jsonl"},
        {"tests": [{"vars": {"t": "file://x.txt"}, "assert": [{"type": "is-json"}]}]},
        {"training": {"examples": "file://train.jsonl"}},
        {"defaultTest": {"assert": [{"type": "is-json", "value": "file://schema.json"}]}},
    ],
)
def test_a_server_refuses_files(change):
    with pytest.raises(BadFile, match="resolved by the command line alone"):
        Suite.from_data({**MINIMAL, **change})


def test_a_fault_of_data_names_no_line():
    with pytest.raises(BadFile, match=r"^suite: unknown key 'promt'"):
        Suite.from_data({**MINIMAL, "promt": 1})


def test_values_of_the_wrong_kind_are_not_bent_into_the_right_one():
    for change in (
        {"repeat": "2"},
        {"repeat": True},
        {"thresholds": {"pass_rate": "0.9"}},
        {"thresholds": {"pass_rate": True}},
    ):
        with pytest.raises(BadFile):
            Suite.from_data({**MINIMAL, **change})


def test_a_cost_without_a_price_is_a_bad_file_at_every_place():
    text = """\
prompt: a
thresholds:
  cost_per_1k_usd: 0.5
tests:
  - vars: {a: x}
    assert: [{type: not-cost, threshold: 1}]
"""
    document = load_yaml(text, "a.suite.yml")
    suite = Suite.from_document(document)
    check_prices(suite, "m", True)
    with pytest.raises(BadFile) as raised:
        check_prices(suite, "m", False, document=document)
    assert [fault.line for fault in raised.value.faults] == [3, 5]


def test_filling_replaces_simple_names_only_and_reads_nothing_twice():
    values = {"a": "{{ b }}", "b": "no", "n": 3}
    assert (
        fill("{{a}} {{ n }} {{ missing }} {{ a.b }} {{ a|e }}", values) == "{{ b }} 3 {{ missing }} {{ a.b }} {{ a|e }}"
    )
    assert fill({"k": ["{{ n }}", 5]}, values) == {"k": ["3", 5]}


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=9),
        lambda s: st.lists(s, max_size=4) | st.dictionaries(st.text(max_size=9), s, max_size=4),
    )
)
def test_any_data_is_a_suite_or_a_bad_file(data):
    with pytest.raises(BadFile):
        Suite.from_data({"prompt": "a", "tests": data})


def test_data_that_nests_without_end_is_a_bad_file():
    deep = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(BadFile, match="nest too deeply"):
        Suite.from_data({**MINIMAL, "tests": [{"vars": {"a": deep}}]})
    while deep:  # taken apart by hand: the interpreter would recurse
        deep = deep.pop()

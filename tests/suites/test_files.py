import json
import time

import pytest

from prompts.errors import BadFile, BadName
from suites.case import Suite
from suites.csv_cases import assertion_from_text
from suites.files import load_suite, suite_name

HEAD = "prompt: support.triage\n"
CASE = {"vars": {"t": "a"}, "assert": [{"type": "equals", "value": "x"}]}


@pytest.fixture
def project(tmp_path):
    (tmp_path / "suites" / "support").mkdir(parents=True)
    return tmp_path


def load(project, body, **files):
    folder = project / "suites" / "support"
    for name, content in files.items():
        path = folder / name.replace("__", ".")
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    suite = folder / "triage.suite.yml"
    suite.write_text(HEAD + body)
    return load_suite(suite, project)


def faults_of(project, body, **files):
    with pytest.raises(BadFile) as raised:
        load(project, body, **files)
    return [str(fault) for fault in raised.value.faults]


def case(value, **more):
    return json.dumps({"vars": {"t": value}, "assert": [{"type": "equals", "value": "x"}], **more})


def test_cases_come_from_every_kind_of_file_and_every_file_is_listed(project):
    body = "tests:\n" + "".join(f"  - file://a.{end}\n" for end in ("jsonl", "json", "yaml", "csv"))
    found = load(
        project,
        body + "  - {vars: {t: five}, assert: [{type: is-json}]}\ntraining: {examples: file://train.jsonl}\n",
        a__jsonl=case("one") + "\n\n" + case("two") + "\n",
        a__json="[\n" + case("three") + "\n]",
        a__yaml="- vars: {t: four}\n  assert: [{type: equals, value: x}]\n",
        a__csv="t,__expected\nsix,x\n",
        train__jsonl='{"vars": {"t": "z"}, "expected": "x"}\n',
    )
    assert [c.vars["t"] for c in found.suite.tests] == ["one", "two", "three", "four", "six", "five"]
    assert [f"{p.path.rpartition('/')[2]}:{p.line}" for p in found.places] == [
        "a.jsonl:1",
        "a.jsonl:3",
        "a.json:2",
        "a.yaml:1",
        "a.csv:2",
        "triage.suite.yml:7",
    ]
    names = [path.name for path in found.sources]
    assert names == ["triage.suite.yml", "train.jsonl", "a.jsonl", "a.json", "a.yaml", "a.csv"]
    assert found.examples == [{"vars": {"t": "z"}, "expected": "x"}]
    assert found.name == "support.triage"


def test_a_resolved_suite_is_what_a_server_accepts(project):
    found = load(project, "tests: file://a.jsonl\n", a__jsonl=case("one"))
    assert Suite.from_data(found.suite.as_data()).digest == found.suite.digest


def test_one_bad_line_among_thousands_is_reported_with_its_number(project):
    lines = [case(str(number)) for number in range(5000)]
    lines[3210] = '{"vars": {"t": "x"}, "asert": []}'
    lines[4000] = '{"vars": '
    faults = faults_of(project, "tests: [file://a.jsonl]\ntresholds: {}\n", a__jsonl="\n".join(lines))
    assert faults[0] == "suites/support/a.jsonl:3211: unknown key 'asert' (did you mean 'assert'?)"
    assert "suites/support/a.jsonl:4001: not valid JSON" in faults[1]
    assert "triage.suite.yml:3: unknown key 'tresholds' (did you mean 'thresholds'?)" in faults[2]


def test_a_broken_json_file_names_the_line(project):
    faults = faults_of(project, "tests: [file://a.json]\n", a__json="[\n" + case("a") + ",\n" + '{"vars": }\n]')
    assert faults == ["suites/support/a.json:3: not valid JSON: Expecting value (mend the JSON here)"]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"\xff\xfe{}", "is not UTF-8 text"),
        (b'{"vars"\0: 1}', "NUL byte"),
        (b'{"vars": {}, "vars": {}}', "duplicate key 'vars'"),
        (b'{"vars": {"t": NaN}}', "NaN is not JSON"),
        (b"[" * 100_000, "not valid JSON"),
        (b'{"vars": {"a": ' + b"[" * 90 + b"]" * 90 + b"}}", "nests deeper than 64 levels"),
        (b"5", "expected keys and values"),
    ],
)
def test_files_that_are_not_plain_data_are_refused(project, content, reason):
    assert reason in faults_of(project, "tests: [file://a.jsonl]\n", a__jsonl=content)[0]


def test_a_file_above_the_bound_is_refused(project, monkeypatch):
    monkeypatch.setattr("suites.files.MAX_FILE_BYTES", 10)
    with pytest.raises(BadFile, match="is larger than"):
        load(project, "tests: [file://a.jsonl]\n", a__jsonl=case("a"))


@pytest.mark.parametrize("reference", ["file://../../../outside.jsonl", "file:///etc/hostname", "file://link.jsonl"])
def test_nothing_outside_the_project_is_read(project, reference):
    (project.parent / "outside.jsonl").write_text(case("secret"))
    (project / "suites" / "support" / "link.jsonl").symlink_to(project.parent / "outside.jsonl")
    (fault,) = faults_of(project, f"tests:\n  - {reference}\n")
    assert "lies outside the project" in fault or "no such file" in fault
    assert "secret" not in fault


def test_a_missing_file_says_where_it_was_looked_for(project):
    (fault,) = faults_of(project, "tests:\n  - file://no.jsonl\n")
    assert fault.startswith("suites/support/triage.suite.yml:3: file://no.jsonl: there is no such file")
    assert fault.endswith("(it is looked for in suites/support/)")


def test_a_kind_of_file_that_holds_no_cases_is_refused(project):
    assert "not a kind of file that holds cases" in faults_of(project, "tests: [file://a.py]\n", a__py="1")[0]


def test_single_values_come_from_files_too(project):
    body = """\
defaultTest: {assert: [{type: is-json, value: file://schema.json}]}
tests:
  - vars: {t: file://ticket.txt}
"""
    found = load(project, body, schema__json='{"type": "object"}', ticket__txt="hello\nthere\n")
    (only,) = found.suite.tests
    assert only.vars == {"t": "hello\nthere"}
    assert only.asserts[0].value == {"type": "object"}
    assert [path.name for path in found.sources] == ["triage.suite.yml", "schema.json", "ticket.txt"]


def test_a_bad_training_example_is_a_fault_of_its_line(project):
    body = "tests: [file://a.jsonl]\ntraining: {examples: file://train.jsonl}\n"
    train = '{"vars": {}, "expected": "x"}\n{"vars": {}, "expectd": "x"}\n'
    faults = faults_of(project, body, a__jsonl=case("a"), train__jsonl=train)
    assert "suites/support/train.jsonl:2: unknown key 'expectd' (did you mean 'expected'?)" in faults
    assert len(faults) == 2


def test_csv_columns_are_promptfoos(project):
    table = (
        "t,lang,__expected,__expected2,__description,__metric,__threshold,__must_pass,__tags\n"
        '"a, with\nlines",de,contains:x,not-contains-any:"a,b",c,first,queue,0.5,true,"x, y"\n'
    ).replace('not-contains-any:"a,b",c', '"not-contains-any:a,b"')
    (only,) = load(project, "tests: [file://a.csv]\n", a__csv=table).suite.tests
    assert only.vars == {"t": "a, with\nlines", "lang": "de"}
    assert [(spec.type, spec.value, spec.metric) for spec in only.asserts] == [
        ("contains", "x", "queue"),
        ("not-contains-any", ["a", "b"], "queue"),
    ]
    assert (only.description, only.threshold, only.must_pass, only.tags) == ("first", 0.5, True, ("x", "y"))


@pytest.mark.parametrize(
    ("cell", "spec"),
    [
        ("billing", {"type": "equals", "value": "billing"}),
        ("equals:x", {"type": "equals", "value": "x"}),
        ("Note: pay", {"type": "equals", "value": "Note: pay"}),
        ("contains", {"type": "equals", "value": "contains"}),
        ("not-icontains: x", {"type": "not-icontains", "value": " x"}),
        ("is-json", {"type": "is-json"}),
        ('is-json:{"type": "object"}', {"type": "is-json", "value": {"type": "object"}}),
        ("latency(200)", {"type": "latency", "threshold": 200.0}),
        ("contains-any:a, b", {"type": "contains-any", "value": ["a", "b"]}),
    ],
)
def test_short_forms_of_csv_mean_what_promptfoo_means(cell, spec):
    assert assertion_from_text(cell) == spec


def test_bad_rows_of_csv_are_faults_of_their_lines(project):
    table = "t,__expectd,__expected\na,,x\nb,x\nc,,javascript:1\nd,,is-json:{\n"
    faults = faults_of(project, "tests: [file://a.csv]\n", a__csv=table)
    assert "a.csv:1: unknown column '__expectd' (did you mean '__expected'?)" in faults[0]
    assert "a.csv:3: the row has 2 cells, the header 3" in faults[1]
    assert "a.csv:4: the assertion type 'javascript' is not supported" in faults[2]
    assert "a.csv:5: the schema of `is-json` is not valid JSON" in faults[3]


def test_a_name_is_the_path_below_suites(project):
    assert suite_name(project / "suites" / "support" / "triage.suite.yml", project) == "support.triage"
    assert suite_name(project / "elsewhere" / "triage.suite.yml", project) == "triage"
    assert suite_name(project / "my.yaml", project) == "my"
    with pytest.raises(BadName):
        suite_name(project / "suites" / "My Suite.suite.yml", project)


def test_a_cost_assertion_without_price_is_found_at_its_line(project):
    found = load(project, "tests: [file://a.csv]\n", a__csv="t,__expected\na,x\nb,cost(0.1)\n")
    with pytest.raises(BadFile, match=r"a\.csv:3: `cost`: the price of the model is unknown"):
        found.check_prices(has_price=False)


def test_ten_thousand_cases_load_in_seconds(project):
    started = time.perf_counter()
    found = load(project, "tests: [file://a.jsonl]\n", a__jsonl="\n".join(case(str(n)) for n in range(10_000)))
    assert len(found.suite.tests) == 10_000
    assert time.perf_counter() - started < 30

import json
import sys
import time
from pathlib import Path

import pytest

from prompts.errors import BadFile, BadName
from suites.assertions.folders import ScriptFolders
from suites.case import Suite
from suites.checks import check_scripts
from suites.files import load_suite, suite_name
from suites.short_form import assertion_from_text

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
        (b'{"vars": {"t": 1e400}}', "1e400 is a number out of range"),
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


@pytest.mark.parametrize("name", ["train.csv", "train.Parquet"])
@pytest.mark.parametrize(("section", "key"), [("training", "examples"), ("judge", "calibration")])
def test_a_table_is_no_file_of_training_examples_or_labels(project, section, key, name):
    body = f"tests: [file://a.jsonl]\n{section}: {{{key}: file://{name}}}\n"
    files = {name: "t,expected\nfour,billing\nfive,other\n", "a__jsonl": case("a")}
    [fault] = [one for one in faults_of(project, body, **files) if "model" not in one]  # a judge needs one
    assert f"file://{name}: tables hold cases alone, no {section}.{key} (save it as JSON lines: " in fault


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
        ("not-icontains: x", {"type": "not-icontains", "value": "x"}),
        ("is-json", {"type": "is-json"}),
        ('is-json:{"type": "object"}', {"type": "is-json", "value": {"type": "object"}}),
        ("latency(200)", {"type": "latency", "threshold": 200.0}),
        ("contains-any:a, b", {"type": "contains-any", "value": ["a", "b"]}),
    ],
)
def test_short_forms_of_csv_mean_what_promptfoo_means(cell, spec):
    assert assertion_from_text(cell) == spec


def test_bad_rows_of_csv_are_faults_of_their_lines(project):
    table = "t,__expectd,__expected\na,,x\nb,x\nc,,webhook:1\nd,,is-json:{\n"
    faults = faults_of(project, "tests: [file://a.csv]\n", a__csv=table)
    assert "a.csv:1: unknown column '__expectd' (did you mean '__expected'?)" in faults[0]
    assert "a.csv:3: the row has 2 cells, the header 3" in faults[1]
    assert "a.csv:4: unknown assertion type 'webhook' (write it as `javascript`" in faults[2]
    assert "a.csv:5: the value of `is-json` is not valid JSON" in faults[3]


def only_assert(project, text, **files):
    found = load(project, f"tests:\n  - vars: {{t: a}}\n    assert: [{text}]\n", **files)
    return found, found.suite.tests[0].asserts[0]


def test_javascript_of_a_file_is_put_in_and_one_of_its_functions_may_be_named(project):
    code = "module.exports = {yes: () => true, no: () => false};\n"
    _, spec = only_assert(project, "{type: javascript, value: file://a.js}", a__js=code)
    assert spec.value == code.strip()
    _, spec = only_assert(project, "{type: javascript, value: 'file://a.js:no'}", a__js=code)
    assert spec.value == code.strip() + "\nmodule.exports = module.exports.no;"
    _, spec = only_assert(project, "{type: equals, value: x, transform: 'file://a.js:yes'}", a__js=code)
    assert spec.transform == code.strip() + "\nmodule.exports = module.exports.yes;"


def test_a_python_file_is_named_by_its_path_in_the_project_and_never_put_in(project):
    text = "def get_assert(output, context):\n    return True\n"
    found, spec = only_assert(project, "{type: python, value: 'file://a.py:get_assert'}", a__py=text)
    assert spec.value == "suites/support/a.py:get_assert"
    assert project / "suites" / "support" / "a.py" in found.sources
    lines = {"document": found.document, "places": found.places}
    check_scripts(found.suite, ScriptFolders(project, (Path("suites"),)), **lines)
    with pytest.raises(BadFile) as raised:
        check_scripts(found.suite, ScriptFolders(project), **lines)
    assert str(raised.value).startswith("suites/support/triage.suite.yml:3: `python`: no Python is run here (an admin")


def test_a_script_that_is_missing_or_broken_is_a_fault_of_its_line(project):
    body = "tests:\n  - vars: {t: a}\n    assert: [{type: %s}]\n"
    (fault,) = faults_of(project, body % "python, value: 'file://none.py:f'")
    assert fault.startswith("suites/support/triage.suite.yml:4: file://none.py: there is no such file")
    (fault,) = faults_of(project, body % "javascript, value: file://a.js", a__js="module.exports = (;")
    assert "triage.suite.yml:4" in fault
    assert "is no JavaScript: SyntaxError" in fault


def test_a_transform_of_the_default_holds_where_a_case_has_none_of_its_own(project):
    body = """defaultTest: {options: {transform: output.trim()}}
tests:
  - {vars: {t: a}, assert: [{type: is-json}]}
  - {vars: {t: b}, assert: [{type: is-json}], options: {transform: "output.slice(1)"}}
"""
    found = load(project, body)
    assert [case.options.transform for case in found.suite.tests] == ["output.trim()", "output.slice(1)"]
    again = Suite.from_data(found.suite.as_data())
    assert [case.options.transform for case in again.tests] == ["output.trim()", "output.slice(1)"]
    assert again.digest == found.suite.digest
    (fault,) = faults_of(project, "tests: [{vars: {}, assert: [{type: is-json}], options: {transform: 'output.'}}]\n")
    assert "the script of `transform` is no JavaScript" in fault


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        ("levenshtein(2):billing", {"type": "levenshtein", "threshold": 2.0, "value": "billing"}),
        ("is-xml", {"type": "is-xml"}),
        ("not-is-refusal", {"type": "not-is-refusal"}),
        ("contains-xml:a.b,a.c", {"type": "contains-xml", "value": "a.b,a.c"}),
        ("word-count:5", {"type": "word-count", "value": "5"}),
        ('word-count:{"min": 5}', {"type": "word-count", "value": {"min": 5}}),
        ('is-sql:{"databaseType": "SQLite"}', {"type": "is-sql", "value": {"databaseType": "SQLite"}}),
        ("javascript: output.length < 5", {"type": "javascript", "value": "output.length < 5"}),
        ("fn:output === 'x'", {"type": "javascript", "value": "output === 'x'"}),
        ("not-eval:output === 'x'", {"type": "not-javascript", "value": "output === 'x'"}),
        ("perplexity(5)", {"type": "perplexity", "threshold": 5.0}),
    ],
)
def test_the_short_form_of_csv_knows_the_same_types(text, spec):
    assert assertion_from_text(text) == spec


def test_a_name_is_the_path_below_suites(project):
    assert suite_name(project / "suites" / "support" / "triage.suite.yml", project) == "support.triage"
    assert suite_name(project / "elsewhere" / "triage.suite.yml", project) == "triage"
    assert suite_name(project / "my.yaml", project) == "my"
    with pytest.raises(BadName):
        suite_name(project / "suites" / "My Suite.suite.yml", project)


def test_a_cost_assertion_without_price_is_found_at_its_line(project):
    found = load(project, "tests: [file://a.csv]\n", a__csv="t,__expected\na,x\nb,cost(0.1)\n")
    with pytest.raises(BadFile, match=r"a\.csv:3: `cost`: the price of model 'm' is unknown"):
        found.check_prices("m", has_price=False)


@pytest.mark.integration
def test_ten_thousand_cases_load_in_seconds(project):
    started = time.process_time()
    found = load(project, "tests: [file://a.jsonl]\n", a__jsonl="\n".join(case(str(n)) for n in range(10_000)))
    assert len(found.suite.tests) == 10_000
    assert time.process_time() - started < 30


def test_a_pattern_stands_for_every_file_that_fits_in_the_order_of_their_names(project):
    (project / "suites" / "support" / "cases").mkdir()
    for name in ("b", "a", "c"):
        (project / "suites" / "support" / "cases" / f"{name}.jsonl").write_text(case(name) + "\n")
    found = load(project, "tests: [file://cases/*.jsonl]\n")
    assert [each.vars["t"] for each in found.suite.tests] == ["a", "b", "c"]
    assert [path.name for path in found.sources] == ["triage.suite.yml", "a.jsonl", "b.jsonl", "c.jsonl"]
    assert len(load(project, "tests: file://cases/[ab].jsonl\n").suite.tests) == 2


@pytest.mark.parametrize(
    ("pattern", "fault"),
    [
        ("cases/*.jsonl", "file://cases/*.jsonl: no file fits (it is looked for in suites/support/)"),
        ("/etc/*.jsonl", "file:///etc/*.jsonl: Non-relative patterns are unsupported (write a path relative"),
    ],
)
def test_a_pattern_that_fits_nothing_is_a_fault(project, pattern, fault):
    (found,) = faults_of(project, f"tests: ['file://{pattern}']\n")
    assert fault in found


def test_a_pattern_does_not_leave_the_project(project):
    (project.parent / "outside.jsonl").write_text(case("a"))
    (found,) = faults_of(project, "tests: ['file://../../../outsid*.jsonl']\n")
    assert "lies outside the project" in found


def test_json_lines_are_read_one_by_one_and_each_fault_has_its_line(project):
    good = case("a").encode()
    found = faults_of(project, "tests: [file://a.jsonl]\n", a__jsonl=good + b"\n{\n" + b'{"vars": "\xff"}\n')
    assert "suites/support/a.jsonl:2: not valid JSON" in found[0]
    assert "suites/support/a.jsonl:3: is not UTF-8 text" in found[1]


def test_metadata_is_there_to_filter_by(project):
    rows = json.dumps({**CASE, "metadata": {"category": "math", "level": 2, "tags": ["x"]}, "tags": ["own"]})
    (only,) = load(project, "tests: [file://a.jsonl]\n", a__jsonl=rows).suite.tests
    assert only.tags == ("own", "category=math", "level=2", "x")


@pytest.mark.parametrize("metadata", ['"math"', '{"a": {"b": 1}}', '{"a": [[1]]}'])
def test_metadata_that_is_no_list_of_plain_values_is_a_fault(project, metadata):
    row = '{"vars": {"t": "a"}, "assert": [{"type": "is-json"}], "metadata": ' + metadata + "}"
    (found,) = faults_of(project, "tests: [file://a.jsonl]\n", a__jsonl=row)
    assert "`metadata`" in found


@pytest.mark.parametrize(("sign", "word"), [(";", "semicolon"), ("\t", "tab"), ("|", "bar")])
def test_a_table_with_another_separator_is_one_fault_that_names_it(project, sign, word):
    table = f"ticket{sign}__expected\na, b{sign}x\nc{sign}y\n"
    faults = faults_of(project, "tests: [file://a.csv]\n", a__csv=table)
    assert len(faults) == 1
    assert f"a.csv:1: the only column is {f'ticket{sign}__expected'!r}: its separator looks like a {word}" in faults[0]
    assert "save the table with commas" in faults[0]


def test_a_truth_value_that_is_none_is_told_with_what_to_write(project):
    (fault,) = faults_of(project, "tests:\n  - {vars: {a: x}, must_pass: maybe, assert: [{type: is-json}]}\n")
    assert "must_pass: expected true or false, found 'maybe' (write true or false, without quotes)" in fault


def test_metadata_of_csv_are_tags_and_a_column_with_brackets_holds_several(project):
    table = 't,__expected,__metadata:category,__metadata:topics[]\na,x,math,"one, two\\, three"\n'
    (only,) = load(project, "tests: [file://a.csv]\n", a__csv=table).suite.tests
    assert only.tags == ("category=math", "topics=one", "topics=two, three")


@pytest.mark.parametrize(
    ("column", "fix"),
    [
        ("__prefix", "write it into the prompt"),
        ("__suffix", "write it into the prompt"),
        ("__providerOutput", "an answer comes from a model here"),
        ("__metadata", "name the field: __metadata:category"),
    ],
)
def test_columns_of_promptfoo_that_would_test_something_else_are_refused(project, column, fix):
    (found,) = faults_of(project, "tests: [file://a.csv]\n", a__csv=f"t,__expected,{column}\na,x,y\n")
    assert f"the column {column!r} is not read ({fix}" in found


def test_parquet_without_its_extra_says_what_to_install(project, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    (found,) = faults_of(project, "tests: [file://a.parquet]\n", a__parquet=b"PAR1")
    assert "Parquet needs the extra `parquet`" in found
    assert "pip install 'turnout[parquet]'" in found


def test_parquet_holds_the_columns_of_csv(project):
    arrow = pytest.importorskip("pyarrow", reason="the extra `parquet` is not installed")
    parquet = pytest.importorskip("pyarrow.parquet")
    columns = {"t": ["a", "b"], "n": [1, 2], "__expected": ["x", "contains:y"], "__tags": ["one,two", None]}
    parquet.write_table(arrow.table(columns), project / "suites" / "support" / "a.parquet")
    found = load(project, "tests: [file://a.parquet]\n")
    first, second = found.suite.tests
    assert (first.vars, first.tags, first.asserts[0].type) == ({"t": "a", "n": 1}, ("one", "two"), "equals")
    assert (second.vars, second.tags, second.asserts[0].type) == ({"t": "b", "n": 2}, (), "contains")
    assert [place.line for place in found.places] == [1, 2]
    (broken,) = faults_of(project, "tests: [file://b.parquet]\n", b__parquet=b"no table")
    assert "not a Parquet file" in broken


def test_the_default_test_may_stand_in_a_file(project):
    default = "assert: [{type: equals, value: x}]\n"
    body = "defaultTest: file://default.yaml\ntests: [{vars: {t: a}}]\n"
    (only,) = load(project, body, default__yaml=default).suite.tests
    assert [spec.type for spec in only.asserts] == ["equals"]
    (missing,) = faults_of(
        project, "defaultTest: file://none.yaml\ntests: [{vars: {t: a}, assert: [{type: is-json}]}]\n"
    )
    assert "file://none.yaml: there is no such file" in missing


@pytest.mark.parametrize(
    ("reference", "fault"),
    [
        ("https://docs.google.com/spreadsheets/d/1", "cases are not fetched from the network"),
        ("huggingface://datasets/a/b", "cases are not fetched from the network"),
        ("cases.csv", "'cases.csv' holds no cases (write file://cases.csv, or a case with `vars:`)"),
    ],
)
@pytest.mark.parametrize("body", ["tests: [{reference!r}]\n", "tests: {reference!r}\n"])
def test_what_is_no_file_reference_holds_no_cases(project, body, reference, fault):
    assert any(fault in found for found in faults_of(project, body.format(reference=reference)))


def test_a_file_of_cases_that_is_named_twice_is_told_at_its_second_reference(project):
    faults = faults_of(project, "tests: [file://c.jsonl, file://c.jsonl]\n", c__jsonl=case("a") + "\n" + case("b"))
    assert faults == [
        "suites/support/triage.suite.yml:2: file://c.jsonl: its cases are there twice, also by this reference at line 2"
        " (remove one of the two references)"
    ]


def test_a_file_that_a_pattern_names_already_is_told_with_the_pattern(project):
    body = "tests:\n  - file://*.jsonl\n  - file://./c.jsonl\n"
    [fault] = faults_of(project, body, c__jsonl=case("a"), d__jsonl=case("b"))
    told = "triage.suite.yml:4: file://./c.jsonl: its cases are there twice, also by file://*.jsonl at line 3"
    assert told in fault


@pytest.mark.parametrize(
    "files", [{"a__jsonl": ""}, {"a__json": "[]"}, {"a__yaml": "[]\n"}, {"a__csv": "t,__expected\n"}]
)
def test_a_suite_whose_files_hold_no_case_is_refused(project, files):
    (name,) = files
    (fault,) = faults_of(project, f"tests: file://{name.replace('__', '.')}\n", **files)
    assert fault.startswith("suites/support/triage.suite.yml:2: a suite needs tests, and its files hold none")


def test_one_file_without_cases_is_none_beside_another(project):
    assert (
        len(load(project, "tests: [file://a.jsonl, file://b.jsonl]\n", a__jsonl="", b__jsonl=case("b")).suite.tests)
        == 1
    )


@pytest.mark.parametrize("escape", [r"\u0000", r"\ud800", r"\uDFFFx"])
@pytest.mark.parametrize("file", ["a.jsonl", "a.json"])
def test_what_no_database_keeps_is_a_fault_of_its_line(project, escape, file):
    row = case("HERE").replace("HERE", escape)
    content = row if file == "a.jsonl" else f"[{row}]"
    faults = faults_of(project, f"tests: file://{file}\n", **{file.replace(".", "__"): content})
    assert faults[0] == f"suites/support/{file}:1: holds a NUL, or half a character (remove it)"
    assert faults_of(project, "tests: file://a.jsonl\n", a__jsonl=case("b").replace('"t"', f'"{escape}"')) == [
        "suites/support/a.jsonl:1: holds a NUL, or half a character (remove it)"
    ]


def test_a_character_that_json_spells_in_two_halves_is_read(project):
    found = load(project, "tests: file://a.jsonl\n", a__jsonl=case("HERE").replace("HERE", r"\ud83d\ude00"))
    assert found.suite.tests[0].vars == {"t": "\U0001f600"}


def test_a_link_to_itself_is_a_file_that_is_not_there(project):
    (project / "suites" / "support" / "a.jsonl").symlink_to("a.jsonl")
    (fault,) = faults_of(project, "tests: [file://a.jsonl]\n")
    assert "file://a.jsonl: there is no such file" in fault


def test_two_references_out_of_the_project_are_both_told_as_that(project):
    faults = faults_of(project, "tests:\n  - file:///etc/hostname\n  - file:///etc/../etc/hostname\n")
    assert [fault.partition(" (")[0].partition(".yml:")[2] for fault in faults] == [
        "3: file:///etc/hostname: lies outside the project",
        "4: file:///etc/../etc/hostname: lies outside the project",
    ]

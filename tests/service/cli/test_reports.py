"""What `gate` writes for people and for CI: the pull-request comment, and JUnit XML that its schema allows."""

from __future__ import annotations

import csv
import html
import io
import json
import re
import subprocess
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from lxml import etree

from tests.service.cli.projects import Project

CONFIG = """\
models:
  m: {engine: fake, echo: true}
  dead: {engine: openai, base_url: "http://127.0.0.1:9/v1"}
"""
PROMPT = "model: m\nvariables: {t: {type: string}}\nmessages: [{role: user, content: '{{ t }}'}]\n"
FILE = "suites/say.suite.yml"
ALL = "thresholds: {pass_rate: 1}\n"
FIELD = '<xs:attribute name="%s"/>'
FIELDS = {
    "testsuites": ("name", "time", "tests", "failures", "disabled", "errors"),
    "testsuite": ("name", "tests", "failures", "errors", "time", "disabled", "skipped", "timestamp", "hostname", "id",
                  "package", "file"),
    "testcase": ("name", "assertions", "time", "classname", "status",
                 "file", "line"),  # beside the schema: forges' readers link them, as they do pytest's and PHPUnit's
}  # fmt: skip
PARTS = "".join(f'<xs:element ref="{name}"/>' for name in ("skipped", "error", "failure", "system-out", "system-err"))
SAID = '<xs:complexType mixed="true"><xs:attribute name="message"/><xs:attribute name="type"/></xs:complexType>'
# what JUnit's readers have in common, by the public schema of Jenkins' xUnit plug-in (junit-10.xsd)
SCHEMA = f"""\
<xs:schema xmlns:xs="http://www.w3.org/2001/XMLSchema">
 {"".join(f'<xs:element name="{name}">{SAID}</xs:element>' for name in ("skipped", "error", "failure"))}
 <xs:element name="system-out" type="xs:string"/><xs:element name="system-err" type="xs:string"/>
 <xs:element name="property"><xs:complexType>
  <xs:attribute name="name" use="required"/><xs:attribute name="value" use="required"/></xs:complexType></xs:element>
 <xs:element name="properties"><xs:complexType><xs:sequence>
  <xs:element ref="property" maxOccurs="unbounded"/></xs:sequence></xs:complexType></xs:element>
 <xs:element name="testcase"><xs:complexType><xs:choice minOccurs="0" maxOccurs="unbounded">{PARTS}</xs:choice>
  {"".join(FIELD % name for name in FIELDS["testcase"])}</xs:complexType></xs:element>
 <xs:element name="testsuite"><xs:complexType><xs:sequence>
  <xs:element ref="properties" minOccurs="0"/><xs:element ref="testcase" minOccurs="0" maxOccurs="unbounded"/>
  <xs:element ref="system-out" minOccurs="0"/></xs:sequence>
  {"".join(FIELD % name for name in FIELDS["testsuite"])}</xs:complexType></xs:element>
 <xs:element name="testsuites"><xs:complexType><xs:sequence>
  <xs:element ref="testsuite" minOccurs="0" maxOccurs="unbounded"/></xs:sequence>
  {"".join(FIELD % name for name in FIELDS["testsuites"])}</xs:complexType></xs:element>
</xs:schema>"""


def suite(*rows: str, head: str = "") -> str:
    tests = "".join(f"  - {row}\n" for row in rows)
    return f"prompt: say\n{head}tests:\n{tests}"


def says(text: str, expected: str, more: str = "") -> str:
    return f'{{vars: {{t: "{text}"}}, assert: [{{type: equals, value: "{expected}"}}]{more}}}'


@pytest.fixture
def project(workspace: Project) -> Project:
    """Production echoes; the working tree answers `new`, and then what was said."""
    workspace.write("turnout.yaml", CONFIG)
    workspace.write("prompts/say.prompt.yml", PROMPT)
    rows = [says(f"a{n}", f"a{n}", f", description: 'number {n}'") for n in range(12)] + [says("x", "new x")]
    workspace.write(FILE, suite(*rows))
    workspace.json("push", "--local")
    workspace.json("label", "say", "production", "1", "--reason", "first", "--local")
    workspace.write("prompts/say.prompt.yml", PROMPT.replace("'{{ t }}'", "'new {{ t }}'"))
    return workspace


def written(project: Project, *arguments: str, exit_code: int) -> tuple[dict[str, object], str, ET.Element]:
    """A gate's answer, its comment without entities, and its JUnit XML, which is held to the schema."""
    comment, junit = project.folder / "comment.md", project.folder / "junit.xml"
    answer = project.json("gate", FILE, "--local", "--markdown", str(comment), "--junit", str(junit), *arguments,
                          exit_code=exit_code)  # fmt: skip
    return answer, html.unescape(comment.read_text("utf-8")).replace("\u200b", ""), valid(junit)


def valid(junit: Path) -> ET.Element:
    etree.XMLSchema(etree.fromstring(SCHEMA)).assertValid(etree.parse(junit))
    return ET.parse(junit).getroot()  # noqa: S314 - our own file


def test_the_comment_tells_what_changed_in_the_order_of_the_suite(project: Project) -> None:
    answer, comment, _ = written(project, exit_code=1)
    [entry] = answer["suites"]  # type: ignore[misc]  # JSON

    assert re.findall(r"<code>case (\d+): number", comment) == [str(n) for n in range(1, 11)]
    row = "| <code>case 1: number 0</code> | <code>equals: a0</code> | <code>a0</code> | <code>new a0</code> | <code>"
    assert row in comment
    assert "Newly mended: 1" in comment
    assert "| <code>case 13: x</code> | <code>equals: new x</code> | <code>x</code> | <code>new x</code> |" in comment
    assert "… and 2 more" in comment
    assert "| candidate | <code>say@2+m</code> (working tree) | 7.7% | 1.4% – 33.3% |" in comment
    assert f"Evidence <code>{entry['evidence_id']}</code>. Next: <code>turnout run {FILE} --case " in comment


def test_the_next_command_of_a_comment_runs(project: Project) -> None:
    _, comment, _ = written(project, exit_code=1)
    [command] = re.findall(r"Next: <code>turnout (.*?)</code>", comment)
    run = project.json(*command.split(), exit_code=1)

    assert (run["total"], run["failed"]) == (1, 1)


def test_junit_names_cases_as_people_do(project: Project) -> None:
    _, _, root = written(project, exit_code=1)
    failed = {case.get("name"): case.find("failure") for case in root.iter("testcase")}

    assert [name for name, found in failed.items() if found is None] == ["case 13: x"]
    assert "case 12: number 11" in failed
    assert failed["gate"] is not None


def test_junit_says_in_which_line_of_which_file_a_case_stands(project: Project) -> None:
    rows = project.folder / "suites/more.jsonl"
    row = '{"vars": {"t": "NAME"}, "assert": [{"type": "equals", "value": "y"}]}'
    rows.write_text("".join(row.replace("NAME", name) + "\n" for name in "yz"), "utf-8")
    project.write(FILE, suite(says("x", "x"), "file://more.jsonl"))
    _, _, root = written(project, exit_code=3)

    line = (project.folder / FILE).read_text("utf-8").splitlines().index("tests:") + 2
    found = [(case.get("file"), case.get("line")) for case in root.iter("testcase")]
    assert found == [(FILE, None), (FILE, str(line)), ("suites/more.jsonl", "1"), ("suites/more.jsonl", "2")]


def test_an_inconclusive_gate_is_no_failed_case(project: Project) -> None:
    rows = [says("a", "a"), says("b", "new b"), says("c", "new c")]
    project.write(FILE, suite(*rows, head="gate: {min_cases: 50}\n"))
    _, comment, root = written(project, exit_code=3)

    assert "Turnout gate is inconclusive" in comment
    [gate] = [case for case in root.iter("testcase") if case.get("name") == "gate"]
    skipped = gate.find("skipped")
    assert (gate.find("failure"), gate.find("error")) == (None, None)
    assert skipped is not None
    assert (skipped.get("message") or "").startswith("inconclusive: 3 cases paired with the baseline")


def test_errored_and_skipped_cases_are_neither_failed_nor_passed(project: Project) -> None:
    _, comment, root = written(project, "--model", "dead", "--concurrency", "1", exit_code=4)

    kinds = [[found.tag for found in case][:1] for case in root.iter("testcase")]
    assert kinds[0] == ["error"]
    assert {tuple(kind) for kind in kinds[1:]} == {("error",), ("skipped",)}
    assert (root.get("failures"), root.get("tests")) == ("0", "14")
    assert f"Next: <code>turnout gate {FILE} --rerun-failed --local</code>" in comment


def test_junit_says_why_the_suite_skips_a_case(project: Project) -> None:
    project.write(FILE, suite(says("a", "a"), "{vars: {t: b}, skip: waits for the new tariff}"))
    _, _, root = written(project, exit_code=3)
    [case] = [case for case in root.iter("testcase") if case.get("name") == "case 2: b"]
    skipped = case.find("skipped")
    assert skipped is not None
    assert skipped.get("message") == "waits for the new tariff"


def test_a_gate_that_passes_says_how_it_is_verified(project: Project) -> None:
    project.write("prompts/say.prompt.yml", PROMPT)
    answer, comment, root = written(project, exit_code=0)
    evidence_id = answer["suites"][0]["evidence_id"]  # type: ignore[index]  # JSON

    assert f"Next: <code>turnout evidence {evidence_id} --verify --local</code>" in comment
    assert root.get("errors") == "0"


def test_a_suite_of_the_registry_is_told_alike(project: Project) -> None:
    project.json("push", "--local")
    comment = project.folder / "comment.md"
    project.json("gate", "say@1", "--candidate", "say@2", "--local", "--markdown", str(comment), exit_code=1)
    text = html.unescape(comment.read_text("utf-8"))

    assert "<code>case 1: number 0</code> | <code>equals: a0</code>" in text
    assert "Next: <code>turnout run say@1 --case " in text


def test_a_case_that_two_suites_share_has_its_number_in_each(project: Project) -> None:
    project.write("suites/other.suite.yml", suite(says("y", "new y"), says("a3", "a3", ", description: 'the same'")))
    comment, junit = project.folder / "comment.md", project.folder / "junit.xml"
    project.json("gate", "--local", "--markdown", str(comment), "--junit", str(junit), exit_code=1)
    names = [case.get("name") for case in valid(junit).iter("testcase")]
    text = html.unescape(comment.read_text("utf-8"))

    assert "<code>case 2: the same</code>" in text
    assert "<code>case 4: number 3</code>" in text
    assert {"case 2: the same", "case 4: number 3"} <= set(names)


def test_a_page_and_a_spreadsheet_hold_every_case(project: Project) -> None:
    page, sheet = project.folder / "out" / "g.html", project.folder / "g.csv"
    project.json("gate", FILE, "--local", "--html", str(page), "--csv", str(sheet), exit_code=1)
    rows = [*csv.DictReader(io.StringIO(sheet.read_text("utf-8-sig"), newline=""))]

    assert [row["change"] for row in rows] == ["broken"] * 12 + ["mended"]
    assert (rows[0]["title"], rows[0]["expected"]) == ("case 1: number 0", "equals: a0")
    assert (rows[0]["output"], rows[0]["baseline.output"]) == ("new a0", "a0")
    text = html.unescape(page.read_text("utf-8"))
    assert text.count('<details class="case"') == 13
    assert f"Reproduce: <code>turnout gate {FILE} --local</code>" in text


def test_a_comment_says_how_to_decide_the_same_again(project: Project) -> None:
    _, comment, _ = written(project, "--baseline", "say@1", "--model", "m", exit_code=1)
    [command] = re.findall(r"Reproduce: <code>turnout (.*?)</code>", comment)

    assert command == f"gate {FILE} --model m --baseline say@1 --local"
    assert project.json(*command.split(), exit_code=1)["verdict"] == "fail"


def test_a_run_is_reported_without_a_baseline(project: Project) -> None:
    names = {"--junit": "r.xml", "--markdown": "r.md", "--html": "r.html", "--csv": "r.csv", "--json-file": "r.json"}
    files = {option: project.folder / name for option, name in names.items()}
    given = [text for option, path in files.items() for text in (option, str(path))]
    answer = project.json("run", FILE, "--local", *given, exit_code=1)

    assert json.loads(files["--json-file"].read_text("utf-8")) == answer
    comment = html.unescape(files["--markdown"].read_text("utf-8"))
    assert "## ❌ Turnout run failed" in comment
    assert "Did not pass: 12" in comment
    assert "| <code>case 1: number 0</code> | <code>equals: a0</code> | <code>new a0</code> |" in comment
    root = valid(files["--junit"])
    assert (root.get("tests"), root.get("failures")) == ("14", "13")
    assert "Turnout run failed" in files["--html"].read_text("utf-8")
    assert len(files["--csv"].read_text("utf-8").splitlines()) == 14


def test_a_run_without_evidence_names_none_to_verify(project: Project) -> None:
    project.write(FILE, suite(says("x", "new x"), head="gate: {min_cases: 5}\n"))
    comment, page = project.folder / "r.md", project.folder / "r.html"
    project.json("run", FILE, "--local", "--markdown", str(comment), "--html", str(page))

    for told in (comment, page):
        assert "Turnout run passed" in told.read_text("utf-8")
        assert "evidence" not in told.read_text("utf-8").lower()


def test_runs_of_one_suite_are_told_apart_and_some_cases_are_all_there_is(project: Project) -> None:
    junit = project.folder / "r.xml"
    project.json("run", FILE, "--model", "m", "--model", "dead", "--first", "2", "--local", "--junit", str(junit),
                 exit_code=4)  # fmt: skip
    root = valid(junit)

    assert [suite_.get("name") for suite_ in root] == ["say say@2+m", "say say@2+dead"]
    assert [suite_.get("tests") for suite_ in root] == ["3", "3"]


def test_a_file_that_cannot_be_written_hides_no_result(project: Project) -> None:
    code, out, err = project.run("run", FILE, "--local", "--html", str(project.folder))
    assert code == 4
    assert "cannot be written" in err
    assert "say@2+m" in out


def test_faults_are_told_to_code_scanning_from_the_repository_on(project: Project) -> None:
    subprocess.run(["git", "init"], cwd=project.folder.parent, check=True, capture_output=True)
    project.write("suites/bad.suite.yml", "prompt: say\nbogus: 1\ntests: []\n")
    sarif = project.folder / "s.sarif"
    answer = project.json("check", "--sarif", str(sarif), exit_code=2)
    results = json.loads(sarif.read_text("utf-8"))["runs"][0]["results"]
    places = [result["locations"][0]["physicalLocation"] for result in results]

    assert len(results) == len(answer["faults"])
    assert {place["artifactLocation"]["uri"] for place in places} == {"project/suites/bad.suite.yml"}
    assert {"startLine": 2} in [place["region"] for place in places]
    assert project.run("check", "--sarif", str(project.folder))[0] == 2
    (project.folder / "suites/bad.suite.yml").unlink()
    assert project.run("check", "--sarif", str(project.folder))[0] == 4
    project.run("check", "--sarif", str(sarif))
    assert json.loads(sarif.read_text("utf-8"))["runs"][0]["results"] == []


def test_a_gate_without_a_baseline_tells_on_the_terminal_what_did_not_pass(workspace: Project) -> None:
    rows = [f"{{vars: {{t: no {n}}}, assert: [{{type: equals, value: yes {n}}}]}}" for n in range(11)]
    workspace.write("turnout.yaml", CONFIG)
    workspace.write("prompts/say.prompt.yml", PROMPT)
    workspace.write(FILE, suite("{vars: {t: fine}, assert: [{type: equals, value: fine}]}", *rows, head=ALL))
    code, out, _ = workspace.run("gate", FILE, "--local")
    assert code == 1
    assert "say: did not pass: 11" in out
    assert "case 2: no 0" in out
    assert "equals: yes 9" in out
    assert "case 12" not in out
    assert "… and 1 more: --html FILE and --csv FILE have all of them" in out
    assert "case 1: fine" not in out


def test_a_gate_that_passes_tells_no_case_that_did_not(workspace: Project) -> None:
    rows = (f"{{vars: {{t: a{n}}}, assert: [{{type: equals, value: a{m}}}]}}" for n, m in ((0, 0), (1, 2)))
    workspace.write("turnout.yaml", CONFIG)
    workspace.write("prompts/say.prompt.yml", PROMPT)
    workspace.write(FILE, suite(*rows, head="thresholds: {pass_rate: 0.5}\n"))
    code, out, _ = workspace.run("gate", FILE, "--local")
    assert code == 0
    assert "did not pass" not in out


def test_a_case_that_passed_by_pass_k_is_none_that_did_not_pass(workspace: Project) -> None:
    workspace.write("turnout.yaml", "models:\n  m: {engine: fake, answers: {now: [yes, no]}, default: no}\n")
    workspace.write("prompts/say.prompt.yml", PROMPT.replace("variables", "modelParameters: {seed: 0}\nvariables"))
    rows = (f"{{vars: {{t: {t}}}, assert: [{{type: equals, value: 'yes'}}]}}" for t in ("now", "never"))
    workspace.write(FILE, suite(*rows, head=f"{ALL}repeat: 4\npass_k: 2\n"))
    files = ("--junit", "r.xml", "--markdown", "r.md")
    for command, told in (("gate", "say: did not pass: 1"), ("run", "  case 2 failed: ")):
        code, out, err = workspace.run(command, FILE, "--local", *files)
        assert code == 1
        assert told in out + err
        assert "case 1" not in out + err
        assert "case 2 failed" not in err.replace("  case 2 failed: ", "", 1)
        assert "Did not pass: 1" in (workspace.folder / "r.md").read_text("utf-8")
        root = ET.fromstring((workspace.folder / "r.xml").read_text("utf-8"))  # noqa: S314 - made here
        failed = [case.get("name") for case in root.iter("testcase") if case.find("failure") is not None]
        assert failed == ["gate", *(f"case 2: never{repeat}" for repeat in ("", " #2", " #3", " #4"))]
        excused = root.find(".//testcase[@name='case 1: now #2']/system-out")
        assert excused.text == "this repeat failed, and the case passed: expected: equal to 'yes'; got 'no'\nno"

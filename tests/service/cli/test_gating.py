"""Baselines, thresholds, evidence and power as a user's shell sees them, in a project of its own with fake models."""

from __future__ import annotations

import json
import re
import sqlite3
import subprocess
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest

from prompts.prompt import digest_of
from service.cli.main import run
from tests.service.cli.test_cli import PROMPT, SUITE, Project

PARTS = """\
prompt: support.triage
thresholds: {metrics: {queue: 0.5}, tags: {money: 0.9, access: 0.9}}
tests:
  - {vars: {ticket: "I was charged twice"}, tags: [money], assert: [{type: equals, value: billing, metric: queue}]}
  - {vars: {ticket: "I forgot my password"}, tags: [access], assert: [{type: equals, value: other, metric: queue}]}
"""


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def git(project: Project, *arguments: str) -> None:
    identity = ("-c", "user.name=a", "-c", "user.email=a@example.com")
    subprocess.run(["git", *identity, *arguments], cwd=project.folder, check=True, capture_output=True)


def commit(project: Project, *paths: str) -> None:
    git(project, "add", *(paths or (".",)))
    git(project, "commit", "-q", "-m", "one more")


@pytest.fixture
def repository(project: Project) -> Project:
    git(project, "init", "-q", "-b", "main")
    commit(project)
    return project


# ---------------------------------------------------------------------------- baselines


@pytest.mark.integration
def test_a_git_baseline_is_the_prompt_as_it_was(repository: Project) -> None:
    repository.write("prompts/support/triage.prompt.yml", PROMPT.replace("{{ ticket }}", "charged: {{ ticket }}"))
    answer = repository.json("gate", "--baseline", "git:main", "--local", exit_code=1)

    [entry] = answer["suites"]
    assert (entry["baseline"], entry["candidate"]) == ("support.triage@2+model-a", "support.triage@1+model-a")
    assert len(entry["newly_broken"]) == 1
    assert answer["notes"] == []


@pytest.mark.integration
def test_a_suite_that_was_another_then_is_not_used_and_said(repository: Project, tmp_path: Path) -> None:
    more = '  - {vars: {ticket: "I was charged thrice"}, assert: [{type: equals, value: billing}]}\n'
    repository.write("suites/support/triage.suite.yml", SUITE + more)
    comment = tmp_path / "comment.md"
    answer = repository.json("gate", "--against", "main", "--markdown", str(comment), "--local")

    assert answer["suites"][0]["paired"] == 4
    note, same = answer["notes"]
    assert note.startswith("suite support.triage was another at git:")
    assert note.endswith("; 1 case added")
    assert "candidate and baseline are the same variant support.triage@1+model-a: nothing was compared" in same
    assert "both sides are tested by it as it is now" in comment.read_text()


@pytest.mark.integration
def test_cases_of_a_file_beside_the_suite_are_part_of_what_it_was(repository: Project) -> None:
    case = {"vars": {"ticket": "charged"}, "assert": [{"type": "equals", "value": "billing"}]}
    repository.write("suites/cases.jsonl", json.dumps(case) + "\n")
    repository.write("suites/many.suite.yml", "prompt: support.triage\ntests: [file://cases.jsonl]\n")
    commit(repository)
    assert repository.json("gate", "suites/many.suite.yml", "--against", "main", "--local")["notes"] == [
        "many: candidate and baseline are the same variant support.triage@1+model-a: nothing was compared;"
        " without thresholds nothing decides"
    ]

    other = {**case, "vars": {"ticket": "charged again"}}
    repository.write("suites/cases.jsonl", json.dumps(case) + "\n" + json.dumps(other) + "\n")
    note, _ = repository.json("gate", "suites/many.suite.yml", "--against", "main", "--local")["notes"]
    assert note.startswith("suite many was another")


@pytest.mark.integration
def test_a_prompt_that_was_not_there_then_has_no_baseline_and_that_is_said(project: Project) -> None:
    git(project, "init", "-q", "-b", "main")
    commit(project, "turnout.yaml")
    done = project.turnout("gate", "--baseline", "git:main", "--local")

    assert done.returncode == 0
    assert "support.triage was not there at git:main: it has no baseline" in done.stderr
    assert project.json("gate", "--baseline", "git:main", "--local")["suites"][0]["baseline"] is None


@pytest.mark.integration
def test_a_branch_without_a_common_commit_is_told_with_what_to_do(repository: Project) -> None:
    git(repository, "checkout", "-q", "--orphan", "alone")
    git(repository, "commit", "-q", "-m", "no history")
    done = repository.turnout("gate", "--against", "main", "--local")

    assert done.returncode == 2
    assert "--against main: it has no commit in common with HEAD" in done.stderr
    assert "git fetch --unshallow" in done.stderr


@pytest.mark.integration
@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--against", "no-such-branch"), "no-such-branch"),
        (("--baseline", "git:no-such-branch"), "no-such-branch"),
        (("--against", "main", "--baseline", "none"), "both name a baseline"),
        (("--baseline", "run:run_0"), "run_0"),
        (("--baseline", "support.triage@9"), "support.triage"),
    ],
)
def test_a_baseline_that_cannot_be_is_bad_usage(repository: Project, arguments: tuple[str, ...], told: str) -> None:
    done = repository.turnout("gate", *arguments, "--local")

    assert (done.returncode, done.stdout) == (2, "")
    assert told in done.stderr


@pytest.mark.integration
def test_a_run_and_a_label_can_be_baselines(project: Project) -> None:
    before = project.json("run", "--local")
    by_run = project.json("gate", "--baseline", f"run:{before['run_id']}", "--local")
    project.json("push", "--local")
    project.json("label", "support.triage", "staging", "1", "--local")
    by_label = project.json("gate", "--baseline", "support.triage@staging", "--local")

    for answer in (by_run, by_label):
        assert (answer["suites"][0]["baseline"], answer["suites"][0]["p_value"]) == ("support.triage@1+model-a", 1.0)


# ---------------------------------------------------------------------------- thresholds


@pytest.mark.integration
def test_thresholds_of_metrics_and_tags_are_in_every_report(project: Project, tmp_path: Path) -> None:
    project.write("suites/support/triage.suite.yml", PARTS)
    files = {name: tmp_path / name for name in ("junit.xml", "comment.md")}
    arguments = ("gate", "--local", "--junit", str(files["junit.xml"]), "--markdown", str(files["comment.md"]))
    answer = project.json(*arguments, exit_code=1)

    assert {row["name"]: row["met"] for row in answer["suites"][0]["thresholds"]} == {
        "metrics.queue": True, "tags.money": True, "tags.access": False,
    }  # fmt: skip
    assert answer["reasons"] == ["support.triage: tags.access 0 < 0.9"]
    root = ET.fromstring(files["junit.xml"].read_text())  # noqa: S314 - our own file
    assert {p.get("name"): p.get("value") for p in root.iter("property")}[
        "threshold.tags.access"
    ] == "0 for 0.9: missed"
    assert "| <code>tags.access</code> | 0.9 | 0 | **missed** |" in files["comment.md"].read_text()
    shown = project.turnout(*arguments)
    assert "metrics.queue" in shown.stdout
    assert project.json("run", "--local", exit_code=1)["reasons"] == ["tags.access 0 < 0.9"]


@pytest.mark.integration
def test_a_threshold_that_no_case_has_is_a_fault_with_its_line(project: Project) -> None:
    project.write("suites/support/triage.suite.yml", PARTS.replace("{queue: 0.5}", "{queu: 0.5}"))
    [fault] = [found for found in project.json("check", exit_code=2)["faults"] if found["level"] == "error"]

    assert (fault["line"], fault["fix"]) == (2, "did you mean 'queue'?")
    assert fault["message"] == "thresholds.metrics.queu: no case has this metric"


# ---------------------------------------------------------------------------- evidence


def gated(project: Project) -> str:
    """A gate of two suites; the evidence of the first."""
    project.write("suites/parts.suite.yml", PARTS.replace("access: 0.9", "access: 0.0"))
    before = project.json("run", "suites/support/triage.suite.yml", "--local")
    answer = project.json("gate", "--baseline", f"run:{before['run_id']}", "suites/support/triage.suite.yml", "--local")
    evidence_id: str = answer["suites"][0]["evidence_id"]
    return evidence_id


def tamper(project: Project, statement: str, *values: str) -> None:
    with sqlite3.connect(project.home / "turnout.db") as connection:
        assert connection.execute(statement, values).rowcount == 1
    connection.close()


def verified(project: Project, evidence_id: str, exit_code: int) -> dict[str, Any]:
    shown: dict[str, Any] = project.json("evidence", evidence_id, "--verify", "--local", exit_code=exit_code)
    return shown


@pytest.mark.integration
def test_evidence_verifies_down_to_the_runs_it_rests_on(project: Project) -> None:
    shown = verified(project, gated(project), 0)

    assert (shown["verified"], shown["differences"]) == (True, [])
    assert shown["checked"][:3] == ["digest", "decision", "0 other suites of the gate"]
    assert [entry.partition(" ")[0] for entry in shown["checked"][3:]] == ["candidate", "baseline"]


@pytest.mark.integration
def test_cases_of_a_gate_are_named_by_their_numbers(project: Project) -> None:
    suite = "suites/support/triage.suite.yml"
    cases = [("I was charged twice", "billing", ""), ("I forgot my password", "other", ", must_pass: true")]
    rows = [
        f"  - {{vars: {{ticket: {ticket}}}, assert: [{{type: equals, value: {wanted}}}]{more}}}\n"
        for ticket, wanted, more in cases
    ]
    project.write(suite, "prompt: support.triage\nthresholds: {pass_rate: 0.1}\ntests:\n" + "".join(rows))
    report = project.folder / "comment.md"
    done = project.turnout("gate", suite, "--local", "--markdown", str(report))

    assert done.returncode == 1
    assert re.search(r"must_pass case 2: I forgot my password \([0-9a-f]{16}\) failed", " ".join(done.stdout.split()))
    assert "pass case 2 (" in report.read_text("utf-8")


@pytest.mark.integration
def test_a_status_that_was_changed_beside_its_result_is_found(project: Project) -> None:
    evidence_id = gated(project)
    run_id = project.json("evidence", evidence_id, "--local")["content"]["given"]["candidate"]["run_id"]
    tamper(project, "UPDATE case_result SET status = 'errored' WHERE run_id = ? AND position = 0", run_id)

    [found] = verified(project, evidence_id, 1)["differences"]
    assert found["path"].startswith(f"{run_id}.")
    assert (found["stored"], found["recomputed"]) == ("errored", "passed")


@pytest.mark.integration
def test_a_p_value_of_another_suite_is_verified_by_its_own_evidence(project: Project) -> None:
    project.json("push", "--local")
    project.json("label", "support.triage", "production", "1", "--reason", "first", "--local")
    project.write("suites/parts.suite.yml", PARTS.replace("access: 0.9", "access: 0.0"))
    answer = project.json("gate", "--local")
    first, second = (entry["evidence_id"] for entry in answer["suites"])
    assert "1 other suites of the gate" in verified(project, first, 0)["checked"]

    with sqlite3.connect(project.home / "turnout.db") as connection:
        [text] = connection.execute("SELECT content FROM evidence WHERE id = ?", (first,)).fetchone()
    connection.close()
    content = {**json.loads(text), "others": [0.5]}
    tamper(project, "UPDATE evidence SET content = ?, digest = ? WHERE id = ?",
           json.dumps(content), digest_of(content), first)  # fmt: skip
    [found] = verified(project, first, 1)["differences"]
    assert (found["path"], found["stored"], found["recomputed"]) == ("content.others[0]", 0.5, 1.0)
    assert verified(project, second, 0)["verified"] is True


@pytest.mark.integration
def test_a_verdict_that_was_changed_in_the_database_is_found(project: Project) -> None:
    evidence_id = gated(project)
    tamper(project, "UPDATE evidence SET content = replace(content, '\"verdict\": \"pass\"', '\"verdict\": \"fail\"')"
                    " WHERE id = ?", evidence_id)  # fmt: skip
    found = verified(project, evidence_id, 1)["differences"]

    assert [difference["path"] for difference in found] == ["digest", "content.decision.verdict"]
    assert (found[1]["stored"], found[1]["recomputed"]) == ("fail", "pass")
    done = project.turnout("evidence", evidence_id, "--local")
    assert done.returncode == 1
    assert "content.decision.verdict: stored fail, recomputed pass" in done.stderr


@pytest.mark.integration
def test_a_case_that_was_changed_in_its_run_is_found_by_verify_alone(project: Project) -> None:
    evidence_id = gated(project)
    given = project.json("evidence", evidence_id, "--local")["content"]["given"]
    run_id, case_id = given["candidate"]["run_id"], next(iter(given["candidate"]["outcomes"]))
    tamper(project, "UPDATE case_result SET result = json_set(result, '$.status', 'errored')"
                    " WHERE run_id = ? AND case_id = ?", run_id, case_id)  # fmt: skip

    assert project.turnout("evidence", evidence_id, "--local").returncode == 0
    row, found, *figures = verified(project, evidence_id, 1)["differences"]
    assert (row["path"], row["stored"]) == (f"{run_id}.{case_id}[0].status", "passed")
    assert (found["path"], found["recomputed"]) == (f"content.given.candidate.outcomes.{case_id}", "errored")
    assert {"passed", "errored"} <= {each["path"].rpartition(".")[2] for each in figures}


@pytest.mark.integration
def test_columns_of_evidence_and_figures_of_runs_that_were_changed_are_found(project: Project) -> None:
    evidence_id = gated(project)
    run_id = project.json("evidence", evidence_id, "--local")["content"]["given"]["candidate"]["run_id"]
    for column in ("actor", "created_at", "prompt"):
        tamper(project, f"UPDATE evidence SET {column} = {column} || 'x' WHERE id = ?", evidence_id)  # noqa: S608
        assert "digest" in [each["path"] for each in verified(project, evidence_id, 1)["differences"]]
        tamper(project, f"UPDATE evidence SET {column} = substr({column}, 1, length({column}) - 1) WHERE id = ?",  # noqa: S608
               evidence_id)  # fmt: skip
    verified(project, evidence_id, 0)

    tamper(project, "UPDATE run SET variant = 'other@1+m' WHERE id = ?", run_id)
    [found] = verified(project, evidence_id, 1)["differences"]
    assert (found["path"], found["stored"]) == (f"{run_id}.row_variant", "other@1+m")
    tamper(project, "UPDATE run SET variant = json_extract(summary, '$.variant'),"
                    " summary = json_set(summary, '$.passed', 77, '$.pass_rate', 0.5) WHERE id = ?", run_id)  # fmt: skip
    paths = [each["path"] for each in verified(project, evidence_id, 1)["differences"]]
    assert paths == [f"{run_id}.summary.pass_rate", f"{run_id}.summary.passed"]
    tamper(project, "UPDATE run SET summary = json_set(summary, '$.passed', 2, '$.pass_rate', 1.0,"
                    " '$.case_status.statuses', 'pf') WHERE id = ?", run_id)  # fmt: skip
    paths = [each["path"] for each in verified(project, evidence_id, 1)["differences"]]
    assert any(path.startswith(f"{run_id}.summary.case_status") for path in paths)


@pytest.mark.integration
def test_runs_that_were_stored_with_the_ids_of_their_cases_are_still_read(project: Project) -> None:
    evidence_id = gated(project)
    given = project.json("evidence", evidence_id, "--local")["content"]["given"]
    run_id, outcomes = given["candidate"]["run_id"], given["candidate"]["outcomes"]
    stored = {"ids": " ".join(outcomes), "statuses": "".join(status[0] for status in outcomes.values())}
    change = "UPDATE run SET summary = json_set(summary, '$.case_status', json(?)) WHERE id = ?"
    tamper(project, change, json.dumps(stored), run_id)
    verified(project, evidence_id, 0)
    again = project.json("gate", "suites/support/triage.suite.yml", "--baseline", f"run:{run_id}", "--local")["suites"][
        0
    ]["evidence_id"]
    assert project.json("evidence", again, "--local")["content"]["given"]["baseline"]["outcomes"] == outcomes

    tamper(project, change, json.dumps({**stored, "statuses": stored["statuses"].replace("p", "e", 1)}), run_id)
    [found] = verified(project, evidence_id, 1)["differences"]
    assert found["path"].startswith(f"{run_id}.summary.case_status.")
    tamper(project, "UPDATE run SET suite = 'other' WHERE id = ?", run_id)
    assert f"{run_id}.row_suite" in [each["path"] for each in verified(project, evidence_id, 1)["differences"]]


@pytest.mark.integration
def test_a_run_that_is_gone_is_said_and_no_difference(project: Project) -> None:
    evidence_id = gated(project)
    run_id = project.json("evidence", evidence_id, "--local")["content"]["given"]["baseline"]["run_id"]
    with sqlite3.connect(project.home / "turnout.db") as connection:
        connection.execute("DELETE FROM case_result WHERE run_id = ?", (run_id,))
    connection.close()

    checked = verified(project, evidence_id, 0)["checked"]
    assert f"not the baseline's run {run_id}, which is no longer there" in checked


@pytest.mark.integration
def test_evidence_that_is_not_there_is_bad_usage(project: Project) -> None:
    assert project.turnout("evidence", "ev_none", "--verify", "--local").returncode == 2


# ---------------------------------------------------------------------------- power


def power(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = run(["power", *arguments])
    out, err = capsys.readouterr()
    return code, out, err


@pytest.mark.parametrize(
    ("gain", "needed"),
    [("0.05", {0.1: 268, 0.2: 527, 0.3: 776}), ("0.1", {0.1: 66, 0.2: 134, 0.3: 199}), ("0.2", {0.2: 33, 0.3: 50})],
)
def test_power_says_how_many_cases_a_gain_needs(
    capsys: pytest.CaptureFixture[str], gain: str, needed: dict[float, int]
) -> None:
    code, out, _ = power(capsys, "--gain", gain, "--json")

    shown = json.loads(out)
    assert code == 0
    assert {row["discordant"]: row["cases_needed"] for row in shown["rows"]} == needed
    assert (shown["alpha"], shown["power"], shown["cases"]) == (0.05, 0.8, None)
    assert all(row["exact"] and "power" not in row for row in shown["rows"])


def test_power_says_what_a_number_of_cases_can_show(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("--gain", "0.1", "--discordant", "0.15,0.3", "--alpha", "0.01", "--power", "0.9", "--cases", "200")
    _, out, _ = power(capsys, *arguments, "--json")
    rows = json.loads(out)["rows"]

    assert [row["discordant"] for row in rows] == [0.15, 0.3]
    assert [row["power"] for row in rows] == pytest.approx([0.9172, 0.5619], abs=5e-5)
    _, table, _ = power(capsys, *arguments)
    assert "power of 200 cases" in table
    assert "15.0%" in table


def test_power_beyond_two_thousand_cases_is_said_to_be_about_so(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = power(capsys, "--gain", "0.01")
    assert "about 6,181" in out


def test_a_gain_above_the_common_shares_is_tabulated_at_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = power(capsys, "--gain", "0.5", "--json")
    assert [(row["discordant"], row["cases_needed"]) for row in json.loads(out)["rows"]] == [(0.5, 12)]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--gain", "5"), "5 points are 0.05"),
        (("--gain", "0"), "not 0"),
        (("--gain", "nan"), "not nan"),
        (("--gain", "0.2", "--discordant", "0.1"), "needs at least that share of discordant cases, not 0.1"),
        (("--gain", "0.2", "--discordant", "many"), "write shares with commas between"),
        (("--gain", "0.2", "--power", "80"), "power lies between 0 and 1"),
        (("--gain", "0.2", "--alpha", "0"), "alpha lies between 0 and 1"),
        (("--gain", "0.2", "--cases", "0"), "--cases"),
        ((), "--gain"),
    ],
)
def test_what_cannot_be_tabulated_is_bad_usage(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], told: str
) -> None:
    code, out, err = power(capsys, *arguments)

    assert (code, out) == (2, "")
    assert told in err

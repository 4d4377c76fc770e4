"""What a gate tells of its baseline: where it comes from, what became of the suites, whether anything was compared."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from prompts.errors import BadInput
from service.cli.client import Remote
from service.cli.work import RemoteWork
from service.errors import CannotRun
from service.gates import GateRequest
from tests.service.cli.projects import PROMPT, SUITE, Project

ROOT = Path(__file__).parents[3]
OTHER = "prompt: support.triage\nthresholds: {pass_rate: 0.5}\ntests: [file://../more/cases.jsonl]\n"
CASES = '{"vars": {"ticket": "charged"}, "assert": [{"type": "equals", "value": "billing"}]}\n'


def git(project: Project, *arguments: str) -> None:
    identity = ("-c", "user.name=a", "-c", "user.email=a@example.com")
    subprocess.run(["git", *identity, *arguments], cwd=project.folder, check=True, capture_output=True)


def commit(project: Project) -> None:
    git(project, "add", ".")
    git(project, "commit", "-q", "-m", "one more")


@pytest.fixture
def repository(workspace: Project) -> Project:
    project = workspace
    project.write_all()
    project.write("suites/other.suite.yml", OTHER)
    project.write("more/cases.jsonl", CASES)
    git(project, "init", "-q", "-b", "main")
    commit(project)
    return project


def test_a_suite_that_is_gone_is_told(repository: Project) -> None:
    (repository.folder / "suites/other.suite.yml").unlink()
    comment = repository.folder / "comment.md"
    code, _, err = repository.run("gate", "--against", "main", "--local", "--markdown", str(comment))
    assert code == 0
    assert "suite other was there at git:" in err
    assert "nothing is tested by it any more" in comment.read_text("utf-8")


BROUGHT = """\
testData: [{ticket: charged, expected: billing}]
evaluators: [{name: same, string: {equals: "{{ expected }}"}}]
"""


def test_a_suite_that_a_prompt_file_brought_is_told_when_it_is_gone(repository: Project) -> None:
    file = "prompts/support/refund.prompt.yml"
    repository.write(file, PROMPT + BROUGHT)
    commit(repository)
    _, _, err = repository.run("gate", "--against", "main", "--local")
    assert "is gone" not in err

    repository.write(file, PROMPT)
    _, _, err = repository.run("gate", "--against", "main", "--local")
    told = " ".join(err.split())
    assert "suite support.refund was there at git:" in told
    assert "nothing is tested by it any more" in told

    cases = "tests: [{vars: {ticket: charged}, assert: [{type: equals, value: billing}]}]\n"
    repository.write("suites/support/refund.suite.yml", f"prompt: support.refund\n{cases}")
    _, _, err = repository.run("gate", "--against", "main", "--local")
    assert "is gone" not in err

    (repository.folder / "suites/support/refund.suite.yml").unlink()
    (repository.folder / file).unlink()
    _, _, err = repository.run("gate", "--against", "main", "--local")
    assert "suite support.refund was there at git:" in " ".join(err.split())


def test_what_changed_in_a_suite_and_the_files_beside_it_is_told(repository: Project) -> None:
    repository.write("more/cases.jsonl", CASES.replace("billing", "other"))
    repository.write("suites/support/triage.suite.yml", SUITE.replace("0.60", "0.10"))
    notes = repository.json("gate", "--baseline", "git:main", "--local", exit_code=1)["notes"]
    tail = "was another at git:main: both sides are tested by it as it is now; "
    assert f"suite other {tail}1 case changed in what is expected" in notes
    assert f"suite support.triage {tail}threshold pass_rate 0.6 → 0.1, looser" in notes


def test_cases_that_are_gone_with_a_file_that_a_pattern_found_are_told(repository: Project) -> None:
    gate = ("gate", "suites/other.suite.yml", "--against", "main", "--local")
    repository.write("suites/other.suite.yml", OTHER.replace("cases.jsonl", "*.jsonl"))
    repository.write("more/hard.jsonl", CASES.replace("charged", "a refund"))
    repository.write("more/notes.txt", "for people\n")
    commit(repository)
    (repository.folder / "more/notes.txt").unlink()
    assert not [note for note in repository.json(*gate)["notes"] if note.startswith("suite other")]
    (repository.folder / "more/hard.jsonl").unlink()
    [told] = [note for note in repository.json(*gate)["notes"] if note.startswith("suite other")]
    assert told.endswith("both sides are tested by it as it is now; 1 case removed")


def test_a_suite_that_is_new_or_was_broken_is_told_as_that(repository: Project) -> None:
    repository.write("suites/support/triage.suite.yml", "prompt: [")
    commit(repository)
    repository.write("suites/support/triage.suite.yml", SUITE)
    repository.write("suites/new.suite.yml", OTHER)
    notes = repository.json("gate", "--baseline", "git:main", "--local")["notes"]
    assert "suite new was not there at git:main: both sides are tested by it as it is now" in notes
    [broken] = [note for note in notes if note.startswith("suite support.triage was another")]
    assert broken.endswith("what it was then cannot be read, so what changed is not told")


def test_a_suite_outside_the_project_is_tested_all_the_same(repository: Project, tmp_path: Path) -> None:
    outside = tmp_path / "elsewhere.suite.yml"
    outside.write_text(SUITE, "utf-8")
    arguments = ("gate", "suites/other.suite.yml", str(outside), "--against", "main", "--local")
    notes = repository.json(*arguments)["notes"]
    assert any(note.startswith("suite elsewhere stands outside the project") for note in notes)


def test_a_candidate_that_is_the_baseline_is_told(repository: Project) -> None:
    comment = repository.folder / "comment.md"
    code, _, err = repository.run("gate", "--against", "main", "--local", "--markdown", str(comment))
    assert code == 0
    told = "other: candidate and baseline are the same variant support.triage@1+model-a: nothing was compared"
    assert f"{told}; thresholds decide" in err
    assert "nothing was compared" in comment.read_text("utf-8")


def test_drafts_are_told_by_where_they_come_from(repository: Project) -> None:
    repository.write("prompts/support/triage.prompt.yml", PROMPT.replace("Route the", "Route this"))
    comment = repository.folder / "comment.md"
    arguments = ("gate", "--baseline", "git:main", "--local", "--markdown", str(comment))
    _, out, _ = repository.run(*arguments)
    sha = subprocess.run(["git", "rev-parse", "--short=7", "main"], cwd=repository.folder,
                         check=True, capture_output=True, text=True).stdout.strip()  # fmt: skip
    sides = f"candidate support.triage@1+model-a (working tree), baseline support.triage@2+model-a (git:main, {sha})"
    assert f"other: {sides}" in " ".join(out.split())
    text = comment.read_text("utf-8")
    assert "(working tree) |" in text
    assert f"(git&#58;main, {sha}) |" in text
    [entry, _] = repository.json(*arguments)["suites"]
    assert entry["origins"] == {"candidate": "working tree", "baseline": f"git:main, {sha}"}


def test_a_named_baseline_is_asked_on_its_own_model(repository: Project) -> None:
    config = (repository.folder / "turnout.yaml").read_text("utf-8")
    repository.write("turnout.yaml", config + "  bad: {engine: fake, default: wrong}\n")
    repository.run("push", "--local")
    for baseline in ("support.triage@1", "git:main"):
        answer = repository.json("gate", "--model", "bad", "--baseline", baseline, "--local", exit_code=1)
        assert {entry["baseline"] for entry in answer["suites"]} == {"support.triage@1+model-a"}
        assert {entry["candidate"] for entry in answer["suites"]} == {"support.triage@1+bad"}
        assert all(entry["newly_broken"] for entry in answer["suites"])


def test_a_case_without_a_description_is_named_by_its_variables(repository: Project) -> None:
    config = (repository.folder / "turnout.yaml").read_text("utf-8")
    repository.write("turnout.yaml", config + "  bad: {engine: fake, default: wrong}\n")
    _, out, _ = repository.run("gate", "suites/other.suite.yml", "--model", "bad", "--baseline", "git:main", "--local")
    assert "newly broken: 1" in out
    assert "case 1: charged" in out


@pytest.mark.parametrize("arguments", [("--against", "nowhere"), ("--baseline", "git:nowhere")])
def test_an_unknown_revision_is_told_with_the_fix(repository: Project, arguments: tuple[str, ...]) -> None:
    code, _, err = repository.run("gate", *arguments, "--local")
    assert code == 2
    assert "git knows no commit 'nowhere' here: `git branch --all` lists what is there, `git fetch origin`" in err


def test_in_a_shallow_clone_the_history_is_told_to_be_missing(repository: Project, tmp_path: Path) -> None:
    repository.write("more/readme.txt", "x")
    commit(repository)
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "-q", "--depth=1", f"file://{repository.folder}", str(clone)],
                   check=True, capture_output=True)  # fmt: skip
    code, _, err = repository.run("gate", str(clone / "suites/other.suite.yml"), "--against", "HEAD~1", "--local")
    assert code == 2
    assert "this clone is shallow: fetch its history (git fetch --unshallow; `fetch-depth: 0` of actions/chec" in err


class _Gone:
    """A service that takes a gate and is then killed."""

    def call(self, method: str, path: str, **_: Any) -> Any:
        if method == "POST":
            return {"job_id": "job_7"}
        raise CannotRun("no service at http://127.0.0.1:8600 (refused)")


def test_a_service_that_goes_away_leaves_the_job_s_id_and_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    remote: Remote = _Gone()  # type: ignore[assignment]
    with pytest.raises(CannotRun, match=r"no service .*job job_7 is kept.*`turnout job job_7 --watch`"):
        RemoteWork(remote).gate(GateRequest(suites=("s",)), lambda done, total: None)
    assert not issubclass(CannotRun, BadInput)


def test_a_prompt_that_was_no_utf8_then_is_a_bad_file(repository: Project) -> None:
    path = repository.folder / "prompts/support/triage.prompt.yml"
    now = path.read_bytes()
    path.write_bytes(now.replace(b"Route", b"Rout\xe9"))
    commit(repository)
    path.write_bytes(now)
    message = repository.json("gate", "--baseline", "git:HEAD", "--local", exit_code=2)["error"]["message"]
    assert "support.triage:5: the file holds half a character" in message


def test_what_git_keeps_is_read_as_utf8_whatever_the_locale_is(repository: Project) -> None:
    repository.write("prompts/support/triage.prompt.yml", PROMPT.replace("Route", "Rout\u00e9"))
    commit(repository)
    told = "git(Path(sys.argv[1]), 'show', 'HEAD:./prompts/support/triage.prompt.yml')"
    code = f"import sys; from pathlib import Path; from service.cli.revisions import git; print(ascii({told}))"
    ask = [sys.executable, "-c", code, str(repository.folder)]
    environment = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = subprocess.run(ask, env=environment, cwd=ROOT, check=True, capture_output=True, text=True)
    assert r"Rout\xe9 the ticket" in done.stdout


def test_a_file_whose_name_is_not_utf8_stops_no_gate(repository: Project) -> None:
    repository.write("more/caf\udce9.txt", "x")
    report = repository.folder / "gate.json"
    told = repository.json("gate", "--affected", "--against", "main", "--local", "--json-file", str(report))
    assert told["affected"]["changed"] == ["more/caf\udce9.txt"]
    assert json.loads(report.read_text("utf-8"))["affected"]["changed"] == ["more/caf\udce9.txt"]

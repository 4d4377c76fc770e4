"""`turnout run` and `gate` on suites that compare answers, as an author meets them: here, and of a service."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from service.cli import client
from service.settings import load_settings
from tests.service.cli.projects import Project
from tests.service.conftest import Service

CONFIG = {
    "models": {
        "short": {"engine": "fake", "default": "Soon."},
        "long": {"engine": "fake", "default": "On Monday, at ten."},
        "other": {"engine": "fake", "default": "On Tuesday."},
        # the answer that names Monday stands first, or second: a judge that reads it
        "judge": {
            "engine": "fake",
            "answers": {
                " answer 1\nOn Monday": json.dumps({"reason": "it names the day", "best": 1}),
                " answer 2\nOn Monday": json.dumps({"reason": "it names the day", "best": 2}),
            },
            "default": json.dumps({"reason": "it names the day", "best": 3}),
        },
    }
}
PROMPT = 'model: short\nvariables: {t: {type: string}}\nmessages: [{role: user, content: "Answer: {{ t }}"}]\n'
SUITE = """\
prompt: support
judge: {model: judge}
tests:
  - {vars: {t: one}, assert: [{type: select-best, value: names a day}]}
  - {vars: {t: two}, assert: [{type: select-best, value: names a day}]}
  - {vars: {t: three}, assert: [{type: icontains, value: monday}, {type: max-score}]}
"""
FILE = "suites/support.suite.yml"
SEVERAL = ("--model", "short", "--model", "long", "--model", "other")


@pytest.fixture
def project(workspace: Project) -> Project:
    workspace.write("turnout.yaml", json.dumps(CONFIG))
    workspace.write("prompts/support.prompt.yml", PROMPT)
    workspace.write(FILE, SUITE)
    return workspace


class Remote:
    """The service in this process in place of one behind an address; what is queued is done before it is answered."""

    service: Service

    def __init__(self, _: object) -> None:
        """As `client.Remote`; the settings name no address here."""

    def call(self, method: str, path: str, *, body: Any = None, params: Any = None, headers: Any = None) -> Any:
        answer = self.service.call(method, path, "admin", json=body, params=params, headers=headers or {})
        found = client.read_answer(answer)
        if method == "POST" and isinstance(found, dict) and found.get("status") == "queued":
            self.service.work(found["job_id"])
        return found


@pytest.fixture
def served(project: Project, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Project]:
    """The same project with a service beside it."""
    with Service(load_settings({"TURNOUT_HOME": str(tmp_path / "elsewhere")}, project.folder)).running() as service:
        monkeypatch.setattr(Remote, "service", service, raising=False)
        monkeypatch.setattr(client, "Remote", Remote)
        yield project


@pytest.fixture(params=["--local", ""])
def where(request: pytest.FixtureRequest) -> tuple[str, ...]:
    """Here, or of a service."""
    request.getfixturevalue("project" if request.param else "served")
    return (request.param,) if request.param else ()


def test_of_several_variants_exactly_one_passes_each_case(project: Project, where: tuple[str, ...]) -> None:
    assert project.run("check")[0] == 0
    results = project.json("run", FILE, *SEVERAL, *where, exit_code=1)
    assert [(each["passed"], each["failed"], each["skipped"]) for each in results] == [(0, 3, 0), (3, 0, 0), (0, 3, 0)]
    assert [each["verdict"] for each in results] == ["fail", "pass", "fail"]
    assert results[1]["against_first"]["mended"] == 3
    variants = [each["variant"] for each in results]
    assert [each["variant"] for each in results[0]["compared"]] == variants

    code, out, err = project.run("run", FILE, *SEVERAL, *where)
    assert code == 1
    assert "not the best of 3 answers: it names the day (judge judge;" in " ".join((out + err).split())


def test_registry_names_are_compared_as_files_are(project: Project, where: tuple[str, ...]) -> None:
    project.json("push", *where)
    two = ("--prompt", "support@1", "--model", "short", "--model", "long")
    results = project.json("run", "support", *two, *where, exit_code=1)
    assert [each["passed"] for each in results] == [0, 3]


def test_one_variant_alone_is_refused_with_what_to_do(project: Project, where: tuple[str, ...]) -> None:
    code, _, err = project.run("run", FILE, *where)
    told = " ".join(err.split())
    assert code == 2
    assert "one variant gives one answer to a case: ask several at once (`turnout run` with several --model" in told
    code, _, err = project.run("run", FILE, *SEVERAL, "--rerun-failed", *where)
    assert (code, "leave out --rerun-failed" in err) == (2, True)


def test_a_gate_compares_the_change_with_production(project: Project, where: tuple[str, ...]) -> None:
    project.json("push", *where)
    project.json("label", "support", "production", "1", "--reason", "first", *where)
    project.write("prompts/support.prompt.yml", PROMPT.replace("short", "long"))
    answer = project.json("gate", FILE, *where)
    assert (answer["verdict"], len(answer["suites"][0]["newly_mended"])) == ("pass", 3)
    assert "the answers of both sides were compared" in answer["notes"][0]
    verified = project.json("evidence", answer["suites"][0]["evidence_id"], "--verify", *where)
    assert verified["verified"] is True


def test_what_a_service_resumes_is_told_as_one_command(served: Project) -> None:
    for command, more, kind in (("run", SEVERAL, "matrix"), ("gate", ("--baseline", "none"), "gate")):
        code, _, err = served.run(command, FILE, *more, "--resume")
        assert (code, "run the same command without --resume" in err) == (2, True), kind
    served.json("push")
    body = {"suite": "support", "variants": [{"prompt": "support@1", "model": model} for model in ("short", "long")]}
    service = Remote.service
    job_id = service.call("POST", "/api/matrices", "admin", json=body).json()["job_id"]
    _, _, err = served.run("run", FILE, *SEVERAL, "--resume")
    assert f"(queued) goes on with: turnout job {job_id} --watch" in " ".join(err.split())
    service.call("POST", f"/api/jobs/{job_id}/cancel", "admin")
    _, _, err = served.run("run", FILE, *SEVERAL, "--resume")
    assert f"(cancelled) goes on with: turnout job {job_id} --resume --watch" in " ".join(err.split())
    assert service.call("POST", f"/api/jobs/{job_id}/resume", "admin").status_code == 200
    assert service.work(job_id)["status"] == "succeeded"
    _, _, err = served.run("run", FILE, *SEVERAL, "--resume")
    assert f"{job_id}, has ended: run the same command without --resume" in " ".join(err.split())


def test_a_gate_with_fallback_names_the_suites_of_the_working_tree_that_are_held_out(served: Project) -> None:
    cases = "tests: [{vars: {t: hidden}, assert: [{type: is-json}]}]\n"
    served.write("suites/more.suite.yml", f"prompt: support\n{cases}")
    served.write("suites/plain.suite.yml", f"prompt: support\nthresholds: {{pass_rate: 0.5}}\n{cases}")
    served.write("prompts/other.prompt.yml", PROMPT)
    served.write("suites/other.suite.yml", f"prompt: other\n{cases}")
    for more, held_out in (("--fallback", {"more": 1, "support": 1}), ("--no-cache", {})):
        served.json("gate", "suites/plain.suite.yml", more, exit_code=1)
        job = Remote.service.call("GET", "/api/jobs?limit=1").json()[0]
        assert job["spec"]["held_out"] == held_out

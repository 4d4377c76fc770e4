"""`turnout advise --of`: tables, files and exit codes of an advice that was given."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from prompts.formats.prompt_yml import load_prompt
from service.cli import main
from service.identity import LOCAL_ADMIN
from service.store import jobs
from tests.service.advising.conftest import Advise
from tests.service.conftest import Service


@pytest.fixture
def given(advise: Advise, service: Service, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """An advice whose job has ended, in the home that the command line looks at."""
    monkeypatch.setenv("TURNOUT_HOME", str(service.settings.home))
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.chdir(service.settings.home)
    return keep(service, advise({"thresholds": {"pass_rate": 0.6}}))


def keep(service: Service, result: dict[str, Any]) -> dict[str, Any]:
    """End the advice's job with `result`."""
    job_id = "job_" + result["advice_id"].partition("_")[2]
    with service.context.database.write() as session:
        job = jobs.get(session, job_id)
        assert job is not None
        jobs.finish(session, job_id, job["token"], {"status": "succeeded", "result": result, "finished_at": "now"})
    return result


def keep_another(service: Service, given: dict[str, Any], result: dict[str, Any], job_id: str) -> None:
    """A job of its own, like that of the given advice, that ended with `result`."""
    spec = service.context.jobs.show("job_" + given["advice_id"].partition("_")[2])["spec"]
    service.context.jobs.submit("advice", spec, LOCAL_ADMIN, job_id)
    with service.context.database.write() as session:
        job = jobs.claim(session, "w", "now", jobs.Free((), "now", job_id))
        assert job is not None
    keep(service, {**result, "advice_id": f"adv_{job_id[4:]}"})


def test_tables_and_files(given: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    page, comment = tmp_path / "a.html", tmp_path / "a.md"
    files = ["--html", str(page), "--markdown", str(comment)]
    assert main.run(["advise", "--of", given["advice_id"], "--local", *files]) == 0
    shown = capsys.readouterr().out
    assert "Mend the form of the answers" in shown
    assert max(map(len, shown.splitlines())) <= 100
    assert "the prompt alone" in page.read_text("utf-8")
    assert comment.read_text("utf-8").startswith("## Mend the form")


SHOTS = [{"vars": {"ticket": "refund"}, "expected": "billing"}, {"vars": {"ticket": "login"}, "expected": "tech"}]


def recommending(service: Service, given: dict[str, Any], kind: str, key: str, shots: list[Any]) -> str:
    """The id of an advice like the given one, of another variant, which may set a parameter."""
    variants = [dict(one) for one in given["variants"]]
    parameters = {**variants[0], "key": "parameters", "rung": "parameters", "changes": {"top_p": 0.5}}
    trained = {**variants[0], "key": "few-shot+lora", "rung": "few-shot+lora", "shots": 2}
    chosen = {**given["recommendation"], "kind": kind, "variant": key}
    changed = {**given, "variants": [*variants, parameters, trained], "recommendation": chosen, "shots": shots}
    keep_another(service, given, changed, "job_other")
    return "adv_other"


@pytest.mark.parametrize(
    ("kind", "key", "answers", "top_p"),
    [
        ("few-shot", "few-shot-2", ["billing", "tech"], None),
        ("few-shot and fine-tune", "few-shot+lora", ["billing", "tech"], None),
        ("set parameters", "parameters", [], 0.5),
    ],
)
def test_the_prompt_is_written_as_it_was_measured(
    given: dict[str, Any],
    service: Service,
    tmp_path: Path,
    kind: str,
    key: str,
    answers: list[str],
    top_p: float | None,
):
    """Also of an advice that holds examples of a variant that it does not recommend, as some that are stored do."""
    proposed = tmp_path / "triage.prompt.yml"
    advice_id = recommending(service, given, kind, key, SHOTS)
    assert main.run(["advise", "--of", advice_id, "--local", "--write", str(proposed)]) == 0
    written = load_prompt(proposed.read_text("utf-8"), str(proposed), "support.triage").content
    assert [example.expected for example in written.examples] == answers
    assert written.parameters.get("top_p") == top_p
    assert written.model == "weak"


@pytest.mark.parametrize(
    ("kind", "key"), [("ship the prompt", "prompt"), ("mend the form", "form"), ("fine-tune", None)]
)
def test_what_changes_no_prompt_is_not_written(
    given: dict[str, Any], service: Service, tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str, key: str
):
    proposed = tmp_path / "triage.prompt.yml"
    advice_id = recommending(service, given, kind, key, SHOTS)
    assert main.run(["advise", "--of", advice_id, "--local", "--write", str(proposed)]) == 2
    assert "That changes nothing of the prompt's file, so nothing was written" in capsys.readouterr().err
    assert not proposed.exists()


def test_json_is_the_whole_advice(given: dict[str, Any], capsys: pytest.CaptureFixture[str]):
    assert main.run(["advise", "--of", given["advice_id"], "--local", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {name: found[name] for name in given} == json.loads(json.dumps(given))


def test_exit_codes_tell_what_must_be_done_first(given: dict[str, Any], service: Service):
    for kind, code in (("contradictions", 1), ("mend the examples", 1), ("cannot say", 3), ("do not fine-tune", 0)):
        changed = {**given, "recommendation": {**given["recommendation"], "kind": kind}}
        job_id = f"job_{kind.replace(' ', '-')}"
        keep_another(service, given, changed, job_id)
        assert main.run(["advise", "--of", f"adv_{job_id[4:]}", "--local", "--json"]) == code


def test_what_is_not_there_or_not_given_yet_is_told(given: dict[str, Any], service: Service):
    assert main.run(["advise", "--of", "adv_none", "--local", "--json"]) == 2
    assert main.run(["advise", "--local", "--json"]) == 2
    assert main.run(["advise", "s.suite.yml", "--of", given["advice_id"], "--local", "--json"]) == 2
    assert main.run(["advise", "support.triage", "--shots", "many", "--local", "--json"]) == 2
    started = service.call("POST", "/api/advice", json={"suite": "support.triage"}).json()
    assert main.run(["advise", "--of", started["advice_id"], "--local", "--json"]) == 4

"""`turnout advise --of`: tables, files and exit codes of an advice that was given."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from prompts.formats.prompt_yml import load_prompt
from prompts.prompt import compile_prompt
from service.cli import main
from service.cli.rendering import resolved_source
from service.identity import LOCAL_ADMIN
from service.settings import load_settings
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


# ------------------------------------------------------------------------------------------------ the author's own file

AUTHORS = """\
# yaml-language-server: $schema=../../schemas/prompt.schema.json
name: Ticket triage   # as the team calls it
description: Sends a ticket to a queue
labels: [staging]
tags: [support]
model: weak
modelParameters: {temperature: 0}
variables:
  ticket: {type: string, maxLength: 4000}   # what people write
messages:
  - {role: system, content: "{% include 'support.tone' %}"}
  - {role: user, content: "{{ ticket }}"}
testData:
  - {ticket: refund please, expected: billing}
"""
SHOWN_EXAMPLES = """\
examples:
  - vars: {ticket: refund}
    expected: billing
  - vars: {ticket: login}
    expected: tech
"""
TONE = "model: weak\nmessages: [{role: system, content: Route the ticket.}]\n"


@pytest.fixture
def authors(service: Service) -> Path:
    """The prompt's file in the working tree, whose content is the version that was measured."""
    for name, text in (("triage", AUTHORS), ("tone", TONE)):
        path = service.settings.home / f"prompts/support/{name}.prompt.yml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
    return path.with_name("triage.prompt.yml")


def messages_of(path: Path) -> list[dict[str, Any]]:
    _, content = resolved_source(load_settings(), "support.triage")
    return [one.as_dict() for one in compile_prompt(content).render({"ticket": "invoice"})]


def test_the_authors_file_keeps_all_that_is_in_it(
    given: dict[str, Any], service: Service, authors: Path, capsys: pytest.CaptureFixture[str]
):
    authors.chmod(0o600)
    write = ["--local", "--write", str(authors)]
    few_shot = recommending(service, given, "few-shot", "few-shot-2", SHOTS)
    assert main.run(["advise", "--of", few_shot, *write]) == 0
    assert authors.read_text("utf-8") == AUTHORS.replace("testData:", f"{SHOWN_EXAMPLES}testData:")
    assert capsys.readouterr().err.endswith("the prompt with 2 examples; all else in it stays as it was\n")
    assert [one["content"] for one in messages_of(authors)] == [
        "Route the ticket.", "refund", "billing", "login", "tech", "invoice",
    ]  # fmt: skip
    assert (authors.stat().st_mode & 0o777, sorted(one.name for one in authors.parent.iterdir())) == (
        0o600, ["tone.prompt.yml", "triage.prompt.yml"],
    )  # fmt: skip

    assert main.run(["check", str(authors), "--json"]) == 0
    written = authors.read_bytes()
    assert main.run(["advise", "--of", few_shot, *write]) == 0
    assert "has it already: 2 examples" in capsys.readouterr().err
    assert authors.read_bytes() == written


def test_a_parameter_is_set_where_the_author_wrote_it(given: dict[str, Any], service: Service, authors: Path):
    advice_id = recommending(service, given, "set parameters", "parameters", [])
    assert main.run(["advise", "--of", advice_id, "--local", "--write", str(authors)]) == 0
    assert authors.read_text("utf-8") == AUTHORS.replace("temperature: 0}", "temperature: 0, top_p: 0.5}")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("{{ ticket }}", "{{ ticket }}!", "is not support.triage@1, which was measured: messages differ"),
        ("model: weak", "model: better", "model differ"),
        ("messages:", "mesages:", "is no prompt that can be read"),
        ("messages:", "examples: &shown []\nmessages:", ""),
        ("support.tone", "support.none", "no such prompt"),
        ("testData:", "modelParameters2: {}\ntestData:", "is no prompt that can be read"),
    ],
)
def test_another_prompt_than_the_measured_one_is_left_as_it_is(
    given: dict[str, Any],
    service: Service,
    authors: Path,
    capsys: pytest.CaptureFixture[str],
    old: str,
    new: str,
    said: str,
):
    authors.write_text(text := AUTHORS.replace(old, new), "utf-8")
    advice_id = recommending(service, given, "few-shot", "few-shot-2", SHOTS)
    code = main.run(["advise", "--of", advice_id, "--local", "--write", str(authors)])
    assert (code, authors.read_text("utf-8") == text) == ((2, True) if said else (0, False))
    assert said in " ".join(capsys.readouterr().err.split())


def test_what_would_be_lost_is_named_where_the_file_cannot_be_added_to(
    given: dict[str, Any], service: Service, authors: Path, capsys: pytest.CaptureFixture[str]
):
    text = AUTHORS.replace("{temperature: 0}", "\n  ? temperature\n  : 0")
    authors.write_text(text, "utf-8")
    advice_id = recommending(service, given, "set parameters", "parameters", [])
    assert main.run(["advise", "--of", advice_id, "--local", "--write", str(authors)]) == 2
    told = " ".join(capsys.readouterr().err.split())
    assert "top_p 0.5 cannot be added to it" in told
    assert "it would lose name, description, tags, labels, testData, its comments and its includes" in told
    assert told.endswith("or name a file that is not there. Nothing was written")
    assert authors.read_text("utf-8") == text


def test_what_would_not_pass_the_check_is_not_written(
    given: dict[str, Any], service: Service, authors: Path, capsys: pytest.CaptureFixture[str]
):
    shots = [{"vars": {"ticket": "refund"}, "expected": "sk-" + "ant-api03-" + "a1B2c3D4e5F6g7H8i9J0k1L2m3"}]
    advice_id = recommending(service, given, "few-shot", "few-shot-2", shots)
    for path in (authors, authors.with_name("new.prompt.yml")):
        assert main.run(["advise", "--of", advice_id, "--local", "--write", str(path)]) == 2
        assert "it would not pass `turnout check`" in capsys.readouterr().err
    assert authors.read_text("utf-8") == AUTHORS
    assert not path.exists()


def test_a_file_that_cannot_be_replaced_stays_whole(
    given: dict[str, Any], service: Service, authors: Path, monkeypatch: pytest.MonkeyPatch
):
    def full(_: Path, __: Path) -> None:
        raise OSError(28, "no space left")

    advice_id = recommending(service, given, "few-shot", "few-shot-2", SHOTS)
    monkeypatch.setattr(Path, "replace", full)
    assert main.run(["advise", "--of", advice_id, "--local", "--write", str(authors)]) == 4
    assert authors.read_text("utf-8") == AUTHORS
    assert len([*authors.parent.iterdir()]) == 2


def test_a_new_file_has_the_words_about_the_prompt_and_moves_no_label(
    given: dict[str, Any], service: Service, tmp_path: Path
):
    advice_id = recommending(service, given, "few-shot", "few-shot-2", SHOTS)
    path = tmp_path / "deep" / "triage.prompt.yml"
    assert main.run(["advise", "--of", advice_id, "--local", "--write", str(path)]) == 0
    source = load_prompt(path.read_text("utf-8"), str(path), "support.triage")
    assert (source.title, source.labels) == ("Ticket triage", ())


# ------------------------------------------------------------------------------------------------ options


@pytest.mark.parametrize("option", ["--write=a.prompt.yml", "--html=a.html", "--markdown=a.md", "--open"])
def test_a_plan_is_written_to_no_file(
    given: dict[str, Any], service: Service, capsys: pytest.CaptureFixture[str], option: str
):
    keep_another(service, given, {"verdict": "planned", "advice_id": "", "plan": [], "untrained": None}, "job_plan")
    for asked in (("support.triage", "--dry-run"), ("--of", "adv_plan")):
        assert main.run(["advise", *asked, "--local", option]) == 2
        said = capsys.readouterr().err
        assert f"nothing to write for {option.partition('=')[0]}: leave out" in said


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--of", "adv_x", "--minutes", "3", "--look"), "adv_x was asked for already, and --minutes, --look would"),
        (("s.suite.yml", "--resume"), "--resume goes on with an advice that was begun: name it with --of"),
        (("s.suite.yml", "--write", "triage.yml"), "--write triage.yml: a prompt's file ends in .prompt.yml"),
    ],
)
def test_options_that_exclude_each_other_are_told(
    capsys: pytest.CaptureFixture[str], options: tuple[str, ...], said: str
):
    assert main.run(["advise", *options, "--local"]) == 2
    assert said in capsys.readouterr().err


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

"""`turnout dataset` and `turnout review`, in process on a home of their own."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

import pytest
import typer

from finetune.data import Example
from service.assembling import as_lines
from service.cli import reviewing
from service.ids import now
from service.outcome import Outcome
from service.settings import load_settings
from service.store import requests
from service.store.database import Database
from tests.service.cli.projects import SUITE, Project

PROMPT = "support.triage"
EXAMPLES = [{"vars": {"ticket": ticket}, "expected": "other"} for ticket in ("Nothing arrived", "My bill is wrong")]
CHAT = {
    "messages": [
        {"role": "system", "content": "Route the ticket."},
        {"role": "user", "content": "Where is it?"},
        {"role": "assistant", "content": "delivery"},
    ]
}


def lines(rows: list[Any]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


@pytest.fixture
def project(workspace: Project) -> Project:
    workspace.write_all()
    workspace.write("suites/support/triage.suite.yml", SUITE + "training: {examples: file://train.jsonl}\n")
    workspace.write("suites/support/train.jsonl", lines(EXAMPLES))
    workspace.write("more.jsonl", lines([{"vars": {"ticket": "Is it late?"}, "expected": "delivery"}]))
    assert workspace.run("push", "--local")[0] == 0
    return workspace


@pytest.fixture
def said(project: Project) -> Callable[..., None]:
    """Records a completion with what somebody said of it."""

    def said(number: int, ticket: str, **feedback: Any) -> None:
        body = {"id": f"chatcmpl-{number}", "at": now(), "prompt": PROMPT, "variant": f"{PROMPT}@1+model-a"}
        body |= {"variables": {"ticket": ticket}, "messages": None, "placeholders": None, "output": "billing"}
        values = {"metric": "rating", "value": None, "comment": None, "correction": None, **feedback}
        database = Database(load_settings().database_url)
        with database.write() as session:
            requests.add_bodies(session, [body])
            record = {"id": f"fb_{number}", "completion_id": body["id"], "key_id": "k", "at": now(), **values}
            requests.add_feedback(session, record)
        database.close()

    return said


# ---------------------------------------------------------------------------- datasets


def test_a_dataset_is_made_of_a_suites_file_and_other_files(project: Project) -> None:
    project.write("chat.jsonl", lines([CHAT]))
    files = ("--file", "more.jsonl", "--file", "chat.jsonl")
    found = project.json("dataset", "create", PROMPT, "--suite", "suites/support/triage.suite.yml", *files, "--local")

    assert (found["count"], found["created"]) == (4, True)
    assert [each["name"] for each in found["sources"]] == [PROMPT, "more.jsonl", "chat.jsonl"]
    assert (found["report"]["given"], found["report"]["heldout"]) == (4, 2)
    rows = project.json("dataset", "export", found["digest"][7:17], "--local")
    assert [row["expected"] for row in rows] == ["other", "other", "delivery", "delivery"]


def test_a_dataset_of_a_suite_in_the_registry_is_known_again(project: Project) -> None:
    first = project.json("dataset", "create", PROMPT, "--suite", PROMPT, "--local", "-m", "first")
    code, out, _ = project.run("dataset", "create", PROMPT, "--suite", PROMPT, "--local")

    assert code == 0
    assert f"dataset {first['digest']} (known before)" in out
    assert "suite:support.triage@1 (2 examples)" in out
    assert "refused    2 of 2 examples" in out
    assert [each["message"] for each in project.json("dataset", "list", PROMPT, "--local")] == ["first"]
    assert "first" in project.run("dataset", "list", "--local")[1]


def test_an_exported_dataset_is_a_file_of_examples_again(project: Project) -> None:
    first = project.json("dataset", "create", PROMPT, "--suite", PROMPT, "--local")
    project.write("out.jsonl", project.run("dataset", "export", first["digest"], "--local")[1])
    again = project.json("dataset", "create", PROMPT, "--file", "out.jsonl", "--local")

    assert (again["digest"], again["created"]) == (first["digest"], False)
    assert project.json("dataset", "show", first["digest"], "--local")["report"] == first["report"]


def test_an_export_is_json_whatever_characters_its_examples_have(project: Project) -> None:
    odd = ["C1 \x92 and \x7f", "line\u2028separated", "nul \x00", "£"]
    project.write(
        "odd.jsonl", "".join(json.dumps({"vars": {"ticket": text}, "expected": "other"}) + "\n" for text in odd)
    )
    found = project.json("dataset", "create", PROMPT, "--file", "odd.jsonl", "--local")
    out = project.run("dataset", "export", found["digest"], "--local")[1]

    assert [json.loads(line)["vars"]["ticket"] for line in out.split("\n")[:-1]] == odd
    assert not set(out) & {"\x92", "\x7f", "\x00"}


def test_half_a_character_of_a_dataset_from_before_they_were_refused_is_exported() -> None:
    [line] = as_lines([Example({"ticket": "half \ud83d"}, "other")])
    assert json.loads(line.encode()) == {"vars": {"ticket": "half \ud83d"}, "expected": "other"}


def test_every_fault_of_a_file_is_told_with_its_line(project: Project) -> None:
    project.write("bad.jsonl", "{\n" + json.dumps({"vars": {}}) + "\n")
    code, _, err = project.run("dataset", "create", PROMPT, "--file", "bad.jsonl", "--local")

    assert code == 2
    assert "bad.jsonl:1:" in err
    assert "bad.jsonl:2:" in err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("dataset", "create", PROMPT), "there are no examples"),
        (("dataset", "create", PROMPT, "--reviewed"), "no accepted completions"),
        (("dataset", "create", PROMPT, "--file", "none.jsonl"), "none.jsonl"),
        (("dataset", "show", "abcdef"), "no dataset 'abcdef'"),
        (("dataset", "export", "x"), "is no dataset"),
        (("review", "collect", "no.such"), "no prompt 'no.such'"),
        (("review", "collect", PROMPT, "--since", "soon"), "write an age"),
        (("review", "accept", "ex_0"), "no example 'ex_0'"),
        (("review", "accept", "ex_0", "ex_1", "--expected", "x"), "--expected is for one example"),
        (("review", "list", PROMPT, "--status", "odd"), "status"),
        (("review", "walk", PROMPT), "asks at a terminal"),
    ],
)
def test_what_cannot_be_done_exits_2_with_the_reason(project: Project, arguments: tuple[str, ...], told: str) -> None:
    code, _, err = project.run(*arguments, "--local")

    assert (code, told in err) == (2, True), err


# ---------------------------------------------------------------------------- the review queue


def test_from_what_was_said_to_a_dataset(project: Project, said: Callable[..., None]) -> None:
    said(1, "I was charged twice", correction="refund")
    said(2, "My mail is bob@corp.io", value=0.9)
    said(3, "Where is it?", correction="delivery")
    told = project.run("review", "collect", PROMPT, "--at-least", "0.8", "--since", "7d", "--local")[1]
    assert told == "3 collected, 0 known before\n"
    found = project.json("review", "list", PROMPT, "--local")
    ids = {each["completion_id"]: each["id"] for each in found}
    shown = project.run("review", "list", PROMPT, "--local")[1]
    for text in ("ticket: I was charged twice", "refund", "correction", "rating 0.9", "e-mail address", "held-out"):
        assert text in shown

    accepted = project.json("review", "accept", ids["chatcmpl-2"], ids["chatcmpl-3"], "--local")
    assert [each["status"] for each in accepted] == ["accepted", "accepted"]
    code, out, _ = project.run("review", "reject", ids["chatcmpl-1"], "--reason", "a held-out case", "--local")
    assert (code, out) == (0, f"{ids['chatcmpl-1']} rejected\n")
    code, _, err = project.run("review", "accept", ids["chatcmpl-1"], "--local")
    assert (code, "was rejected by local at" in err) == (2, True)

    made = project.json("dataset", "create", PROMPT, "--reviewed", "--local")
    assert made["sources"][0]["ids"] == [ids["chatcmpl-2"], ids["chatcmpl-3"]]


def test_what_has_no_recorded_variables_is_told(project: Project) -> None:
    database = Database(load_settings().database_url)
    with database.write() as session:
        row = {"id": "chatcmpl-1", "at": now(), "key_id": "k", "prompt": PROMPT, "variant": f"{PROMPT}@1+model-a"}
        requests.add_outcomes(session, [Outcome(**row, status="ok", latency_ms=1.0)])
        said = {"id": "fb_1", "completion_id": "chatcmpl-1", "metric": "rating", "correction": "x", "key_id": "k"}
        requests.add_feedback(session, {**said, "at": now()})
    database.close()
    out = project.run("review", "collect", PROMPT, "--corrections", "--local")[1]

    assert "1 correction has no recorded variables: set recording.bodies" in out


def test_a_person_goes_through_what_waits_by_single_keys(
    project: Project, said: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(5):
        said(number, f"ticket number {number}", correction="refund", comment=f"why {number}")
    project.run("review", "collect", PROMPT, "--local")
    keys = iter("axersq")  # x is no key, and asked again
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(typer, "getchar", lambda: next(keys))
    monkeypatch.setattr(typer, "prompt", lambda *_, default, **__: default + " now")
    monkeypatch.setattr(reviewing, "KEYS", "keys")
    code, out, err = project.run("review", "walk", PROMPT, "--json", "--local")

    assert (code, json.loads(out)) == (0, {"accepted": 2, "rejected": 1, "skipped": 1})
    assert "ticket: ticket number 4" in err
    assert "answered: billing" in err
    assert "comment: why 0" in err
    accepted = project.json("review", "list", PROMPT, "--status", "accepted", "--local")
    assert [each["expected"] for each in accepted] == ["refund", "refund now"]
    assert len(project.json("review", "list", PROMPT, "--local")) == 2

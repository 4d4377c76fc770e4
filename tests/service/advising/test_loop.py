"""The advice end to end on fake models, which nothing is trained for; trainings are in tests/integration/test_advice.py."""

from __future__ import annotations

import re
from types import SimpleNamespace
from typing import Any

import pytest

from prompts.errors import ModelUnavailable
from service.advising import loop
from service.advising.asking import Questions
from service.errors import CannotRun
from service.identity import Principal
from service.store import jobs
from service.store.tables import CACHED_COMPLETION, LOOK
from service.tuning.claim import Cancelled, Claim
from tests.service import adapter_histories as made
from tests.service.advising.conftest import Advise, claim_of, examples, put_suite, ticket
from tests.service.advising.test_folds import MEASURED, draft
from tests.service.conftest import Service, triage


def by_key(found: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {one["key"]: one for one in found["variants"]}


def test_everything_but_a_training_is_measured_and_one_thing_recommended(advise: Advise):
    found = advise({"thresholds": {"pass_rate": 0.6}}, against="better")

    variants = by_key(found)
    assert list(variants) == ["prompt", "form", "few-shot-2", "few-shot-4", "similar-2", "similar-4", "against"]
    assert (variants["prompt"]["right"], variants["form"]["right"], variants["against"]["right"]) == (20, 30, 40)
    assert variants["against"]["paired"]["mended"] == 20
    assert variants["prompt"]["spend"]["timed"] == 14  # the rows of one fold
    assert variants["prompt"]["spend"]["cost_from"] == "the price of weak"
    assert variants["prompt"]["spend"]["cost_per_1k_usd"] == pytest.approx(
        variants["prompt"]["spend"]["prompt_tokens"] / 1000 + 2 / 1000
    )
    assert not variants["similar-2"]["ships"]
    groups = {(one["kind"], one["name"]) for one in found["groups"]}
    assert {("form", "spelling"), ("word", "login"), ("label", "tech")} <= groups
    skipped = {one["what"]: one["why"] for one in found["skipped"]}
    assert "cannot be tuned" in skipped["LoRA"]
    assert found["recommendation"]["kind"] == found["verdict"] == "mend the form"
    assert found["look"] == {"taken": False, "why": loop.looking.NOT_ASKED}
    assert len(found["rows"]) == 40
    assert found["shots"] == []  # no examples are recommended
    assert found["digest"].startswith("sha256:")


def test_the_threshold_that_the_prompt_reaches_ends_it(advise: Advise):
    found = advise({"thresholds": {"pass_rate": 0.5}})
    assert found["verdict"] == "ship the prompt"


def test_contradictions_are_an_answer_and_nothing_is_asked(advise: Advise, service: Service):
    rows = examples(20)
    contrary = [{**row, "expected": "other"} for row in rows[:8]]
    found = advise({"training": {"examples": [*rows, *contrary]}})
    assert found["verdict"] == "contradictions"
    assert found["data"]["ceiling"] == pytest.approx(22 / 28)
    assert {"rows": [0, 20], "answers": ["billing", "other"]} in found["data"]["contradictions"]
    with service.context.database.read() as session:
        assert CACHED_COMPLETION.all(session, "") == []


def test_a_killed_advice_asks_nothing_twice_and_says_the_same(service: Service, monkeypatch: pytest.MonkeyPatch):
    put_suite(service)
    job_id = service.call("POST", "/api/advice", "author", json={"suite": "support.triage", "shots": [2]}).json()[
        "job_id"
    ]
    claim = claim_of(service, job_id)
    with monkeypatch.context() as patch:
        patch.setattr(loop._Desk, "time_all", lambda _: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            loop.advise(claim)
    with service.context.database.read() as session:
        asked = len(CACHED_COMPLETION.all(session, ""))
        told = jobs.events(session, job_id)

    found = loop.advise(claim)
    with service.context.database.read() as session:
        assert len(CACHED_COMPLETION.all(session, "")) == asked
        steps = [event["data"]["step"] for event in jobs.events(session, job_id) if event["type"] == "advised"]
    assert len(steps) == len(set(steps)) > len([event for event in told if event["type"] == "advised"])
    again = loop.advise(claim)
    assert {**again, "seconds": 0, "digest": ""} == {**found, "seconds": 0, "digest": ""}


def test_a_cancelled_advice_ends(service: Service):
    put_suite(service)
    job_id = service.call("POST", "/api/advice", "author", json={"suite": "support.triage"}).json()["job_id"]
    claim = claim_of(service, job_id)
    claim.cancelled.set()
    with pytest.raises(Cancelled):
        loop.advise(claim)


def test_a_model_that_does_not_answer_is_no_advice(service: Service):
    service.push(data=triage(model="dead"))
    put_suite(service)
    body = {"suite": "support.triage", "prompt": "support.triage@2"}
    job_id = service.call("POST", "/api/advice", "author", json=body).json()["job_id"]
    with pytest.raises(CannotRun, match="40 of 40 questions to dead failed"):
        loop.advise(claim_of(service, job_id))


def test_a_model_that_cannot_be_timed_is_told_and_no_end_of_it(advise: Advise, monkeypatch: pytest.MonkeyPatch):
    time = Questions.time

    def once_away(questions: Questions, way: Any, rows: Any) -> Any:
        if way.model == "better":
            raise ModelUnavailable("away")
        return time(questions, way, rows)

    monkeypatch.setattr(Questions, "time", once_away)
    found = advise({"thresholds": {"pass_rate": 0.5}}, against="better")
    assert {"what": "timing the prompt alone, better", "why": "away"} in found["skipped"]
    assert by_key(found)["against"]["spend"]["p50_ms"] is None
    assert by_key(found)["prompt"]["spend"]["p50_ms"] is not None


def test_a_dry_run_asks_nothing(advise: Advise):
    found = advise(dry_run=True)
    assert found["verdict"] == "planned"
    assert found["plan"][0].startswith("questions  up to 200, fewer")
    assert [line.strip() for line in found["plan"][1:]] == [
        "40 by weak with the prompt alone",
        "not tried: with a choice among the labels, where the server takes one: weak is a fake model, which takes every "
        "parameter and heeds none",
        "80 with 2 or 4 examples in the prompt, chosen to cover",
        "80 with 2 or 4 examples in the prompt, the most similar ones",
        "timing     15 questions more to each of up to 5 variants, one at a time, after the trainings",
    ]
    assert "cannot be tuned" in found["untrained"]


def test_a_dry_run_counts_what_is_tried_with_another_temperature_and_another_model(advise: Advise, service: Service):
    service.push(data=triage(model="weak", modelParameters={"temperature": 0.7}))
    found = advise(dry_run=True, prompt="support.triage@2", against="better")
    assert found["plan"][0].startswith("questions  up to 280, fewer")


def test_a_dry_run_plans_the_trainings_behind_examples(service: Service, monkeypatch: pytest.MonkeyPatch):
    """Examples in the prompt were not tried yet: the most that may be stand for them."""
    put_suite(service)
    spec = {"suite": "support.triage", "suite_version": 1, "prompt_version": 1, "model": "weak", "base": "weak",
            "shots": [2, 4], "minutes": 60, "dry_run": True}  # fmt: skip
    service.context.jobs.submit("advice", spec, Principal("key_a", "admin"), "job_dry")
    monkeypatch.setattr(loop.training, "draft_spec", lambda *_: draft())
    monkeypatch.setattr(loop.training, "try_steps", lambda *_: MEASURED)
    monkeypatch.setattr(loop, "read_shape", lambda _: None)
    characters: Any = lambda _, __, rows: SimpleNamespace(pack_tokens=sum(len(str(row.messages)) for row in rows))  # noqa: E731
    monkeypatch.setattr(loop, "make_plan", characters)
    found = loop.advise(claim_of(service, "job_dry"))
    assert found["untrained"] is None
    lines = [line.strip() for line in found["plan"]]
    assert lines[5].endswith("to each of up to 7 variants, one at a time, after the trainings")
    assert lines[6].startswith("trainings  12, about ")
    assert lines[7].startswith("3 of the LoRA")
    behind = re.fullmatch(r"3 behind 4 examples in the prompt, reckoned at (\S+) times the minutes", lines[9])
    assert behind is not None
    assert float(behind[1]) > 1


def test_parameters_are_tried_where_they_could_mend_something(advise: Advise, service: Service):
    service.push(data=triage(model="weak", modelParameters={"temperature": 0.7}))
    found = advise(prompt="support.triage@2")
    assert by_key(found)["parameters"]["changes"] == {"temperature": 0}


def test_examples_that_do_not_fit_are_left_out_with_the_reason(advise: Advise):
    found = advise(shots=[2, 30])
    assert {
        "what": "30 examples, chosen to cover",
        "why": "the other folds have 26 examples, fewer than twice as many",
    } in (found["skipped"])


def test_what_stands_in_the_prompt_already_is_neither_asked_nor_chosen_again(advise: Advise, service: Service):
    shown = examples()[:3]
    service.push(data=triage(model="weak", examples=shown))
    found = advise(prompt="support.triage@2")
    assert (found["data"]["given"], found["data"]["kept"]) == (40, 37)
    assert found["rows"] == list(range(3, 40))
    assert "  left out 3: stands in the prompt as one of its examples" in found["data"]["lines"]


def test_recommended_parameters_come_without_examples(
    advise: Advise, service: Service, monkeypatch: pytest.MonkeyPatch
):
    """Examples help, too, but nobody measured them together with the parameters."""
    monkeypatch.setattr("service.advising.cheaper.scored", _as_if_parameters_helped)
    service.push(data=triage(model="weak", modelParameters={"temperature": 0.7}))
    found = advise({"thresholds": {"pass_rate": 0.8}}, prompt="support.triage@2")
    assert (found["verdict"], found["recommendation"]["variant"]) == ("set parameters", "parameters")
    assert found["shots"] == []


def _as_if_parameters_helped(key: str, rung: str, title: str, model: str, outcomes: str, **known: Any) -> Any:
    from suites.advice.report import scored

    return scored(
        key, rung, title, model, "1" * len(outcomes) if rung in ("parameters", "few-shot") else outcomes, **known
    )  # type: ignore[arg-type]


# ------------------------------------------------------------------------------------------------ the one look


def test_one_look_is_taken_for_what_is_recommended_and_counted(
    advise: Advise, service: Service, monkeypatch: pytest.MonkeyPatch
):
    """The fake model learns nothing from examples: what it knows after them is put in by hand."""
    monkeypatch.setattr("service.advising.cheaper.scored", _as_if_examples_helped)
    found = advise({"thresholds": {"pass_rate": 0.95}}, look=True)
    assert found["verdict"] == "few-shot"
    assert len(found["shots"]) == 2
    look = found["look"]
    assert (look["taken"], look["look"], look["verdict"]) == (True, 1, "fail")
    assert (look["before"]["total"], look["after"]["total"]) == (40, 40)
    assert look["after"]["variant"] == "support.triage@2+weak"
    with service.context.database.read() as session:
        assert [(one["number"], one["base_model"]) for one in LOOK.all(session, "")] == [(1, "weak")]
    evidence = service.call("GET", f"/api/evidence/{look['evidence_id']}").json()
    assert evidence["kind"] == "promotion"
    drafts = service.call("GET", "/api/prompts/support.triage/versions/2").json()
    assert len(drafts["examples"]) == 2


def _as_if_examples_helped(key: str, rung: str, title: str, model: str, outcomes: str, **known: Any) -> Any:
    from suites.advice.report import scored

    return scored(key, rung, title, model, "1" * len(outcomes) if rung == "few-shot" else outcomes, **known)  # type: ignore[arg-type]


def test_without_a_change_of_the_prompt_no_look_is_spent(advise: Advise, service: Service):
    found = advise({"thresholds": {"pass_rate": 0.6}}, look=True)
    assert found["look"] == {"taken": False, "why": loop.looking.NOTHING_NEW}
    with service.context.database.read() as session:
        assert LOOK.all(session, "") == []


# ------------------------------------------------------------------------------------------------ over HTTP


def test_an_advice_is_a_job_with_an_id_of_its_own(service: Service):
    put_suite(service)
    key = {"Idempotency-Key": "k1"}
    body = {"suite": "support.triage"}
    started = service.call("POST", "/api/advice", "author", json=body, headers=key).json()
    assert started["advice_id"] == "adv_" + started["job_id"].partition("_")[2]
    assert service.call("POST", "/api/advice", "author", json=body, headers=key).json() == started
    waiting = service.call("GET", f"/api/advice/{started['advice_id']}", "author").json()
    assert (waiting["status"], waiting["verdict"]) == ("queued", None)
    assert service.call("GET", f"/api/advice/{started['job_id']}", "author").json() == waiting
    cancelled = service.call("POST", f"/api/jobs/{started['job_id']}/cancel", "author").json()
    assert cancelled["status"] == "cancelled"


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ({"suite": "no.such"}, 404, "no suite"),
        ({"suite": "support.triage", "base": "weak"}, 400, "cannot be tuned"),
        ({"suite": "support.triage", "against": "unknown"}, 400, "no model 'unknown'"),
        ({"suite": "support.triage", "shots": [0]}, 400, "greater than or equal to 1"),
        ({"suite": "support.triage", "minutes": -1}, 400, "greater than 0"),
        ({"suite": "support.triage", "examples": [], "dataset": "sha256:0"}, 400, "not both"),
    ],
)
def test_what_is_wrong_is_told_before_anything_is_queued(
    service: Service, body: dict[str, Any], status: int, said: str
):
    put_suite(service)
    answer = service.call("POST", "/api/advice", "author", json=body)
    assert (answer.status_code, said in answer.text) == (status, True), answer.text
    assert service.call("GET", "/api/jobs", "author").json() == []


def test_a_suite_without_examples_is_refused(service: Service):
    put_suite(service, training={"examples": []})
    answer = service.call("POST", "/api/advice", "author", json={"suite": "support.triage"})
    assert "has no training examples" in answer.text


def test_another_job_is_no_advice(service: Service):
    spec = {"suite": "s", "suite_version": 1, "prompt_version": 1, "base": "b"}
    service.context.jobs.submit("finetune", spec, Principal("key_a", "admin"), "job_1")
    answer = service.call("GET", "/api/advice/adv_1", "author")
    assert answer.status_code == 404
    assert "job job_1 is a finetune" in answer.text


def test_texts_of_the_tests_do_not_resemble_each_other():
    assert len({ticket(n, "x") for n in range(300)}) == 300


def test_the_adapters_that_were_timed_are_deleted_once_the_advice_is_given(
    service: Service, monkeypatch: pytest.MonkeyPatch
):
    def trained(claim: Claim) -> dict[str, Any]:
        made.install(claim.folder / "lora" / "training", "adapter")
        return {"verdict": "fine-tune"}

    monkeypatch.setattr(loop, "advise", trained)
    put_suite(service)
    job_id = service.call("POST", "/api/advice", "author", json={"suite": "support.triage"}).json()["job_id"]
    service.work(job_id)

    training = service.settings.home / "jobs" / job_id / "lora" / "training"
    assert training.is_dir()
    assert not (training / "adapter").exists()

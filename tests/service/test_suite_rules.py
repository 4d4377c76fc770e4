"""What a server's settings do not allow of a suite: it is refused when it is pushed, with its faults."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.service.conftest import Service, case, make_settings, suite, triage

CASES = (case("charged", "billing"), case("password", "account"))
BOUNDED = {"thresholds": {"cost_per_1k_usd": 0.5}}
BILLED = case("charged", "billing", **{"assert": [{"type": "cost", "threshold": 0.01}]})
UNKNOWN = "thresholds.cost_per_1k_usd: the price of model 'model-a' is unknown"


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    """`free` has a model without a price, `paid` one with; `moving` had the first and has the second now."""
    with Service(make_settings(tmp_path / "home")).running() as service:
        service.push("free")
        service.push("paid", triage(model="priced"))
        service.push("moving")
        service.produce(1, "moving")
        service.push("moving", triage(model="priced"))
        service.push("elsewhere", triage(model="of-another-server"))
        yield service


def put(service: Service, prompt: str, *cases: dict[str, Any], **more: Any) -> tuple[int, Any]:
    answer = service.call("PUT", "/api/suites/s", "author", json={**suite(*(cases or CASES), **more), "prompt": prompt})
    return answer.status_code, answer.json()


def test_a_bound_on_costs_that_nobody_can_measure_is_refused_with_its_place(service: Service) -> None:
    status, told = put(service, "free", **BOUNDED)
    assert (status, told["type"]) == (400, "urn:turnout:error:bad_file")
    [fault] = told["faults"]
    assert (fault["path"], fault["message"]) == ("suite s", UNKNOWN)
    assert fault["fix"] == "give model-a a `price` in turnout.yaml, or remove this"

    status, told = put(service, "free", BILLED)
    assert (status, [fault["message"] for fault in told["faults"]]) == (400, [UNKNOWN.replace(*COST_ASSERTION)])
    assert service.call("GET", "/api/suites/s", "author").status_code == 404


COST_ASSERTION = ("thresholds.cost_per_1k_usd", "`cost`")


@pytest.mark.parametrize("prompt", ["paid", "moving", "elsewhere"])
def test_a_bound_on_costs_that_some_version_can_be_held_to_is_taken(service: Service, prompt: str) -> None:
    assert put(service, prompt, **BOUNDED)[0] in (200, 201)


def test_a_push_is_judged_by_the_prompts_that_it_brings_and_tells_every_suite(service: Service) -> None:
    suites = {name: {**suite(*CASES, **BOUNDED), "prompt": "free"} for name in ("a", "b")}
    body: dict[str, Any] = {"prompts": {"free": triage(model="model-b")}, "suites": suites}
    refused = service.call("POST", "/api/push", "author", json=body)
    assert refused.status_code == 400
    assert [(fault["path"], fault["message"]) for fault in refused.json()["faults"]] == [
        (f"suite {name}", UNKNOWN.replace("model-a", "model-b")) for name in ("a", "b")
    ]
    taken = service.call("POST", "/api/push", "author", json={**body, "prompts": {"free": triage(model="priced")}})
    assert taken.status_code in (200, 201), taken.text


def test_a_draft_is_held_to_the_model_that_its_run_names(service: Service) -> None:
    body = {"suites": {"draft": {**suite(*CASES, **BOUNDED), "prompt": "moving"}}, "draft": True, "moves_labels": False}
    written = service.call("POST", "/api/push", "author", json=body).json()
    asked = {"suite": f"draft@{written[0]['version']}", "prompt": "moving@1"}
    refused = service.call("POST", "/api/runs", "ci", json=asked)
    assert (refused.status_code, UNKNOWN in refused.json()["detail"]) == (400, True)
    assert service.call("POST", "/api/runs", "ci", json={**asked, "model": "priced"}).status_code == 202


@pytest.mark.parametrize(
    ("base", "message", "fix"),
    [
        ("tunabel", "fallback.base_model: turnout.yaml has no model 'tunabel'", "did you mean 'tunable'?"),
        ("model-a", "fallback.base_model: model 'model-a' cannot be tuned", "known here: tunable"),
    ],
)
def test_a_base_model_that_cannot_be_tuned_is_refused_with_every_other_fault(
    service: Service, base: str, message: str, fix: str
) -> None:
    status, told = put(service, "free", fallback={"base_model": base}, judge={"model": "nobody"})
    assert status == 400
    faults = {(fault["path"], fault["message"], fault["fix"]) for fault in told["faults"]}
    assert ("suite s", message, fix) in faults
    assert any("judge.model: turnout.yaml has no model 'nobody'" in fault[1] for fault in faults)


def test_a_base_model_that_can_be_tuned_is_taken(service: Service) -> None:
    assert put(service, "paid", fallback={"base_model": "tunable"})[0] in (200, 201)


RECIPE = {"lr": "fast", "rank": 0, "epoch": 3}


def test_every_fault_of_a_recipe_is_refused(service: Service) -> None:
    status, told = put(service, "paid", fallback={"base_model": "tunable", "recipe": RECIPE})
    assert (status, told["type"]) == (400, "urn:turnout:error:bad_file")
    assert [(fault["path"], fault["message"], fault["fix"]) for fault in told["faults"]] == [
        ("suite s", "fallback.recipe.lr: expected a number above 0 up to 1, found 'fast'", "write 0.001, say"),
        ("suite s", "fallback.recipe.rank: expected a whole number from 1 up to 512, found 0", "write 16, say"),
        ("suite s", "unknown key 'fallback.recipe.epoch'", "did you mean 'epochs'?"),
    ]
    assert put(service, "paid", fallback={"base_model": "tunable", "recipe": {"lr": 0.01, "rank": 4}})[0] in (200, 201)


def test_a_fine_tune_is_refused_for_the_recipe_of_its_request_or_of_a_suite_from_before(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.registry.rule_faults", lambda *_args, **_options: iter(()))
    for name, recipe in (("good", {"rank": 4}), ("older", RECIPE)):
        fallback = {"base_model": "tunable", "recipe": recipe}
        service.put_suite(name, {**suite(*CASES, fallback=fallback), "prompt": "paid"})
    for asked in ({"suite": "good", "recipe": RECIPE}, {"suite": "older"}, {"suite": "older", "recipe": {"seed": 1}}):
        refused = service.call("POST", "/api/finetunes", "author", json={**asked, "prompt": "paid@1"})
        assert refused.status_code == 400
        told = refused.json()["detail"]
        assert [f"recipe.{name}" in told for name in RECIPE] == [True] * 3, told
    mended = {"suite": "good", "recipe": {"rank": 8}, "prompt": "paid@1", "dry_run": True}
    assert service.call("POST", "/api/finetunes", "author", json=mended).status_code == 202


def test_a_push_tells_every_fault_of_every_suite_and_of_their_prompts(service: Service) -> None:
    """What cannot be read of one, what the settings do not allow, and prices, which only the registry knows."""
    service.push("unpriced")
    fine = suite(*CASES)
    suites = {
        "a": {**fine, **BOUNDED, "prompt": "unpriced", "thresholdz": {}},
        "b": {**fine, "prompt": "unpriced", "judge": {"model": "nobody"}, "fallback": {"recipe": {"rank": 0}}},
        "c": {**suite(BILLED), "prompt": "gone", "gate": {"alpha": 7}},
        "d": {**fine, "prompt": "Free"},
        "e": {**fine, **BOUNDED, "prompt": "new"},  # whose model nobody knows while it has a fault
    }
    body = {"prompts": {"new": triage(modle="priced")}, "suites": suites}
    refused = service.call("POST", "/api/push", "author", json=body)
    assert refused.status_code == 400
    assert [(fault["path"], fault["message"].partition(",")[0]) for fault in refused.json()["faults"]] == [
        ("prompt new", "unknown key 'modle'"),
        ("suite a", UNKNOWN),
        ("suite a", "unknown key 'thresholdz'"),
        ("suite b", "fallback.recipe.rank: expected a whole number from 1 up to 512"),
        ("suite b", "judge.model: turnout.yaml has no model 'nobody'"),
        ("suite c", "gate.alpha: an error rate lies above 0 and up to 0.5"),
        ("suite c", "its prompt 'gone' does not exist"),
        ("suite d", "prompt: 'Free' is no prompt name: lower-case letters"),
    ]


def test_a_suite_as_lines_tells_its_faults_beside_its_prices(service: Service) -> None:
    service.push("unpriced")
    head = {key: value for key, value in suite(*CASES, **BOUNDED).items() if key != "tests"}
    lines = [json.dumps(CASES[0]), '{"vars": {"ticket": "x"}, "asert": []}']
    body = {"suites": {"s": {**head, "prompt": "unpriced", "tests_jsonl": "\n".join(lines)}}}
    refused = service.call("POST", "/api/push", "author", json=body).json()
    assert [(fault["path"], fault["line"], fault["message"]) for fault in refused["faults"]] == [
        ("suite s", 0, UNKNOWN),
        ("suite s: tests_jsonl", 2, "unknown key 'asert'"),
    ]

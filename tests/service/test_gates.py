"""Verdicts on fake models, over HTTP and done by the worker's own code in this process."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import pytest

from prompts.messages import CompletionRequest
from service.cli import exits
from service.models.fake import FakeModel
from service.store.tables import JOB
from suites.gate import read_evidence, recompute
from suites.results import CaseResult
from suites.verification import verify_record, verify_side
from tests.service.conftest import Service, case, make_settings, suite, triage

PASSES = [case(f"charged, ticket {number}", "billing") for number in range(20)]
TO_ACCOUNT = triage(messages=[{"role": "user", "content": "password {{ ticket }}"}], model="to-account")
BREAKING = {"answers": {"password": "account"}, "engine": "fake", "default": "billing"}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """`support.triage`: 1 answers all twenty tickets right and is production, 2 none of them; `new`: no production."""
    home = tmp_path_factory.mktemp("home")
    models = {**make_settings(home).model_dump()["models"], "to-account": BREAKING}
    with Service(make_settings(home, models=models)).running() as service:
        service.push()
        service.push(data=TO_ACCOUNT)
        service.produce(1)
        service.push("new")
        service.put_suite("regress", suite(*PASSES))
        service.put_suite("bounded", suite(*PASSES, thresholds={"pass_rate": 0.9}))
        service.put_suite("small", suite(*PASSES, thresholds={"pass_rate": 0.9}, gate={"min_cases": 50}))
        service.put_suite("must", suite(case("charged", "billing", must_pass=True), *PASSES, gate={"margin": 1.0}))
        service.put_suite("fresh", {**suite(*PASSES, thresholds={"pass_rate": 0.9}), "prompt": "new"})
        service.put_suite("unbounded", {**suite(*PASSES), "prompt": "new"})
        service.push("paid", triage(model="priced"))
        service.put_suite("costly", {**suite(*PASSES, thresholds={"cost_per_1k_usd": 0.001}), "prompt": "paid"})
        yield service


def gate(service: Service, *suites: str, **body: Any) -> dict[str, Any]:
    answer = service.call("POST", "/api/gates", "ci", json={"suites": suites, **body})
    assert answer.status_code == 202, answer.text
    started = answer.json()
    job = service.work(started["job_id"])
    assert job["status"] == "succeeded", job
    decided: dict[str, Any] = service.call("GET", f"/api/gates/{started['gate_id']}", "author").json()
    return decided


def exit_code(decided: dict[str, Any]) -> int:
    return exits.OF_VERDICT[decided["verdict"]]


def test_production_compared_with_itself_passes(service: Service) -> None:
    decided = gate(service, "regress")

    assert (decided["verdict"], exit_code(decided)) == ("pass", 0)
    [entry] = decided["suites"]
    assert (entry["candidate"], entry["baseline"]) == ("support.triage@1+model-a", "support.triage@1+model-a")
    assert (entry["paired"], entry["newly_broken"], entry["newly_mended"], entry["p_value"]) == (20, [], [], 1.0)


def test_a_regression_against_production_fails(service: Service) -> None:
    decided = gate(service, "regress", candidate="support.triage@2")

    assert (decided["verdict"], exit_code(decided)) == ("fail", 1)
    [entry] = decided["suites"]
    assert (entry["candidate"], entry["baseline"]) == ("support.triage@2+to-account", "support.triage@1+model-a")
    assert len(entry["newly_broken"]) == 20
    assert entry["p_value"] == pytest.approx(2**-20)
    assert "regression" in decided["reasons"][0]


def test_a_mended_version_passes_against_a_worse_baseline(service: Service) -> None:
    decided = gate(service, "regress", candidate="support.triage@1", baseline="support.triage@2")

    [entry] = decided["suites"]
    assert (decided["verdict"], len(entry["newly_mended"])) == ("pass", 20)


def test_a_missed_threshold_fails_without_any_baseline(service: Service) -> None:
    decided = gate(service, "bounded", candidate="support.triage@2", baseline="none")

    assert decided["verdict"] == "fail"
    [entry] = decided["suites"]
    assert (entry["baseline"], entry["p_value"]) == (None, None)
    assert entry["thresholds"] == [{"name": "pass_rate", "bound": 0.9, "value": 0.0, "met": False}]


def test_a_suite_that_is_named_twice_is_asked_once_and_loses_no_power(service: Service) -> None:
    decided = gate(service, "regress", "regress@1", "regress", candidate="support.triage@2")

    assert [entry["suite"] for entry in decided["suites"]] == ["regress"]
    assert decided["suites"][0]["p_value"] == pytest.approx(2**-20)


@pytest.mark.parametrize("role", ["candidate", "baseline"])
def test_one_prompt_has_one_candidate_and_one_baseline(service: Service, role: str) -> None:
    versions = ["support.triage@2", "support.triage@1"]
    answer = service.call("POST", "/api/gates", "ci", json={"suites": ["regress"], role: versions})

    assert (answer.status_code, answer.json()["param"]) == (400, role)
    assert answer.json()["detail"] == f"{role}: prompt 'support.triage' is given two versions: name one"


def test_a_must_pass_case_fails_alone(service: Service) -> None:
    """The margin of this suite forgives any loss."""
    decided = gate(service, "must", candidate="support.triage@2")

    assert decided["verdict"] == "fail"
    assert any("must_pass" in reason for reason in decided["reasons"])


def test_too_few_cases_are_inconclusive_and_say_how_many_would_decide(service: Service) -> None:
    decided = gate(service, "small")

    assert (decided["verdict"], exit_code(decided)) == ("inconclusive", 3)
    assert decided["suites"][0]["cases_needed"] == 50


def test_a_dead_model_could_not_run(service: Service) -> None:
    decided = gate(service, "regress", model="dead", concurrency=1)

    assert (decided["verdict"], exit_code(decided)) == ("could_not_run", 4)
    assert "127.0.0.1:9" in str(decided["reasons"])


def test_a_cost_is_a_threshold_like_others(service: Service) -> None:
    decided = gate(service, "costly", candidate="paid@1")

    assert decided["verdict"] == "fail"
    assert decided["suites"][0]["thresholds"][0]["name"] == "cost_per_1k_usd"


def test_a_cost_threshold_without_a_price_is_a_bad_file(service: Service) -> None:
    asked = {"suites": ["costly"], "candidate": "paid@1", "model": "model-a"}
    answer = service.call("POST", "/api/gates", "ci", json=asked)

    assert (answer.status_code, answer.json()["type"]) == (400, "urn:turnout:error:bad_file")
    told = "suite costly: thresholds.cost_per_1k_usd: the price of model 'model-a' is unknown"
    assert told in answer.json()["detail"]


def test_of_several_suites_the_worst_verdict_counts_and_p_values_are_adjusted(service: Service) -> None:
    decided = gate(service, "regress", "bounded", "small", candidate="support.triage@2")

    assert decided["verdict"] == "fail"
    assert [entry["suite"] for entry in decided["suites"]] == ["regress", "bounded", "small"]
    assert decided["suites"][0]["p_value"] == pytest.approx(3 * 2**-20)


def test_a_prompt_without_production_is_judged_by_thresholds_alone(service: Service) -> None:
    decided = gate(service, "fresh", candidate="new@1")

    assert (decided["verdict"], decided["suites"][0]["baseline"]) == ("pass", None)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"suites": ["unbounded"], "candidate": "new@1"}, 400),  # neither baseline nor thresholds
        ({"suites": ["fresh"]}, 404),  # no production to be the candidate
        ({"suites": ["regress"], "candidate": "new@1"}, 400),  # tested by none of the suites
        ({"suites": ["regress"], "baseline": "support.triage@9"}, 404),
        ({"suites": ["regress"], "baseline": "run:run_0"}, 404),
        ({"suites": ["no.such"]}, 404),
        ({"suites": []}, 400),
        ({"suites": ["regress"], "alpha": 0.5}, 400),
    ],
)
def test_what_can_be_known_to_be_wrong_is_refused_now(service: Service, body: dict[str, Any], status: int) -> None:
    assert service.call("POST", "/api/gates", "ci", json=body).status_code == status


def test_a_run_that_was_made_before_can_be_the_baseline(service: Service) -> None:
    started = service.call("POST", "/api/runs", "ci", json={"suite": "regress"}).json()
    service.work(started["job_id"])

    decided = gate(service, "regress", candidate="support.triage@2", baseline=f"run:{started['run_id']}")

    assert decided["verdict"] == "fail"
    assert decided["suites"][0]["baseline"] == "support.triage@1+model-a"


def test_the_evidence_of_a_gate_recomputes_to_the_same_decision(service: Service) -> None:
    decided = gate(service, "regress", "bounded", candidate="support.triage@2")

    for entry in decided["suites"]:
        record = service.call("GET", f"/api/evidence/{entry['evidence_id']}", "author").json()
        found = read_evidence(record["content"])
        assert recompute(found) == found.decision
        assert {**found.decision.model_dump(mode="json"), "evidence_id": record["id"]} == entry
        assert (record["kind"], record["verdict"], record["actor"]) == ("gate", "fail", service.ids["ci"])


def test_evidence_that_was_tampered_with_does_not_recompute(service: Service) -> None:
    decided = gate(service, "regress", candidate="support.triage@2")
    content = service.call("GET", f"/api/evidence/{decided['suites'][0]['evidence_id']}", "author").json()["content"]
    forged = {**content, "decision": {**content["decision"], "verdict": "pass"}}

    found = read_evidence(forged)

    assert recompute(found) != found.decision


def test_the_same_gate_done_again_after_a_kill_keeps_its_evidence(service: Service) -> None:
    started = service.call("POST", "/api/gates", "ci", json={"suites": ["regress"]}).json()
    first = service.work(started["job_id"])["result"]
    with service.context.database.write() as session:
        JOB.set(
            session, started["job_id"], status="queued", result=None
        )  # as if the worker had died before it wrote it

    again = service.work(started["job_id"])["result"]

    assert again == first


def test_a_job_that_has_succeeded_is_not_done_again(service: Service) -> None:
    started = service.call("POST", "/api/gates", "ci", json={"suites": ["regress"]}).json()
    first = service.work(started["job_id"])["result"]

    refused = service.call("POST", f"/api/jobs/{started['job_id']}/resume", "admin")

    assert refused.status_code == 409
    assert service.call("GET", f"/api/jobs/{started['job_id']}", "author").json()["result"] == first


def test_a_queued_gate_tests_what_its_names_meant_when_it_was_asked_for(service: Service) -> None:
    started = service.call("POST", "/api/gates", "ci", json={"suites": ["regress"]}).json()
    spec = service.call("GET", f"/api/jobs/{started['job_id']}", "author").json()["spec"]
    service.call(
        "PUT", "/api/prompts/support.triage/labels/production", "admin", json={"version": 2, "reason": "later"}
    )

    decided = service.work(started["job_id"])["result"]["suites"][0]

    service.produce(1)
    assert decided["candidate"] == spec["candidates"][0]["variant"] == "support.triage@1+model-a"


def test_a_gate_that_passed_lets_an_author_move_production_and_no_other_does(service: Service) -> None:
    service.push("gated")
    service.put_suite("gated", {**suite(*PASSES, thresholds={"pass_rate": 0.9}), "prompt": "gated"})
    path = "/api/prompts/gated/labels/production"
    assert service.call("PUT", path, "author", json={"version": 1}).status_code == 403

    gate(service, "gated", candidate="gated@1", model="to-account")
    assert service.call("PUT", path, "author", json={"version": 1}).status_code == 403  # passed on another model

    decided = gate(service, "gated", candidate="gated@1")
    assert service.call("PUT", path, "author", json={"version": 1}).status_code == 200
    route = service.call("GET", "/api/routes/gated", "author").json()
    assert route["evidence_id"] == decided["suites"][0]["evidence_id"]
    assert route["variants"] == [{"variant": "gated@1+model-a", "percent": 100.0}]


def test_a_gate_with_fallback_queues_the_fine_tune_of_a_suite_that_asks_for_it(service: Service) -> None:
    bounded = suite(*PASSES, thresholds={"pass_rate": 0.9})
    service.put_suite("asks", {**bounded, "fallback": {"when": "thresholds_missed", "base_model": "tunable"}})
    service.put_suite("vain", {**bounded, "fallback": {"when": "thresholds_missed"}})

    vain = gate(service, "vain", candidate="support.triage@2", fallback=True)
    silent = gate(service, "bounded", candidate="support.triage@2", fallback=True)
    asked = gate(service, "asks", candidate="support.triage@2", fallback=True, held_out=["must@1", "asks"])
    passed = gate(service, "asks", fallback=True)
    not_asked = gate(service, "asks", candidate="support.triage@2")

    assert vain["suites"][0]["fallback"]["status"] == "refused"
    assert "cannot be tuned: tunable here are tunable" in vain["suites"][0]["fallback"]["reason"]
    assert silent["suites"][0]["fallback"] is None
    job = service.call("GET", f"/api/jobs/{asked['suites'][0]['fallback']['job_id']}").json()
    assert (job["kind"], job["status"], job["spec"]["suite"]) == ("finetune", "queued", "asks")
    assert job["spec"]["held_out"] == {"must": 1}  # of other suites; its own are held out anyway
    assert passed["suites"][0]["fallback"] is None
    assert "fallback" not in not_asked["suites"][0]


@pytest.mark.parametrize(
    ("codes", "code"),
    [((0, 0), 0), ((0, 3), 3), ((3, 1), 1), ((1, 4), 4), ((4, 2, 1, 3, 0), 2), ((), 0)],
)
def test_of_several_exit_codes_the_first_of_2_4_1_3_0_counts(codes: tuple[int, ...], code: int) -> None:
    assert exits.of_several(codes) == code


QUEUE = {"type": "equals", "value": "billing", "metric": "queue"}


def test_thresholds_of_metrics_and_tags_are_judged_by_runs_and_gates_alike(service: Service) -> None:
    tests = [
        {"vars": {"ticket": "charged once"}, "assert": [QUEUE], "tags": ["money"]},
        {"vars": {"ticket": "password lost"}, "assert": [QUEUE], "tags": ["access"]},
    ]
    thresholds = {"metrics": {"queue": 0.5}, "tags": {"money": 1.0, "access": 0.5}}
    service.put_suite("parts", {**suite(thresholds=thresholds), "tests": tests})

    decided = gate(service, "parts", baseline="none")
    started = service.call("POST", "/api/runs", "ci", json={"suite": "parts"}).json()
    run = service.work(started["job_id"])["result"]

    rows = [("metrics.queue", 0.5, 0.5, True), ("tags.money", 1.0, 1.0, True), ("tags.access", 0.5, 0.0, False)]
    expected = [dict(zip(("name", "bound", "value", "met"), row, strict=True)) for row in rows]
    assert decided["suites"][0]["thresholds"] == run["thresholds"] == expected
    assert decided["suites"][0]["reasons"] == run["reasons"] == ["tags.access 0 < 0.5"]
    assert (decided["verdict"], run["verdict"]) == ("fail", "fail")


def test_a_threshold_that_no_case_has_is_refused_over_http_too(service: Service) -> None:
    answer = service.call("PUT", "/api/suites/none", "author", json=suite(*PASSES, thresholds={"tags": {"money": 0.5}}))

    assert answer.status_code == 400
    assert "thresholds.tags.money: no case has this tag" in answer.text


def test_a_case_that_is_flaky_on_the_baseline_is_quarantined_and_told(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The model answers the ticket of chance wrong at every third time."""
    asked = itertools.count()
    plain = FakeModel._text

    def text(model: FakeModel, request: CompletionRequest) -> str:
        lucky = "by chance" not in str(request.messages[-1].content) or next(asked) % 3
        return plain(model, request) if lucky else "other"

    monkeypatch.setattr(FakeModel, "_text", text)
    by_chance = case("charged by chance", "billing", description="a ticket of chance")
    service.put_suite("flaky", suite(by_chance, *PASSES, repeat=3))
    service.push("support.triage", triage(messages=[{"role": "user", "content": "again {{ ticket }}"}]))

    decided = gate(service, "flaky", candidate="support.triage@latest", no_cache=True)

    [entry] = decided["suites"]
    [left_out] = entry["quarantined"]
    assert (left_out["title"], left_out["baseline"], left_out["candidate"]) == (
        "a ticket of chance", [2, 1, 0], [2, 1, 0],
    )  # fmt: skip
    assert (entry["paired"], entry["pass_rate"], entry["verdict"]) == (20, 20 / 21, "pass")
    assert "1 flaky on the baseline left out" in entry["reasons"][0]
    record = service.call("GET", f"/api/evidence/{entry['evidence_id']}", "author").json()
    assert verify_record(record) == []


def test_a_gate_on_scores_compares_with_the_scores_of_a_stored_run(service: Service) -> None:
    halves = [
        {
            "vars": {"ticket": f"charged, ticket {number}"},
            "assert": [{"type": "contains", "value": "ing"}, {"type": "contains", "value": "bill"}, QUEUE],
            "threshold": 0.0,
        }
        for number in range(20)
    ]
    service.put_suite("graded", {**suite(gate={"on": "score"}), "tests": halves})
    started = service.call("POST", "/api/runs", "ci", json={"suite": "graded"}).json()
    service.work(started["job_id"])

    decided = gate(service, "graded", candidate="support.triage@2", baseline=f"run:{started['run_id']}")

    [entry] = decided["suites"]
    assert (decided["verdict"], entry["newly_broken"]) == ("fail", [])
    assert (entry["scores"]["candidate"], entry["scores"]["baseline"], entry["scores"]["ci95"]) == (0.0, 1.0, [-1, -1])
    record = service.call("GET", f"/api/evidence/{entry['evidence_id']}", "author").json()
    assert verify_record(record) == []
    stored = service.call("GET", f"/api/runs/{started['run_id']}/cases", "author").json()
    given = read_evidence(record["content"]).given
    assert verify_side(given, "baseline", map(CaseResult.from_dict, stored)) == []


def test_a_fine_tune_keeps_which_versions_of_other_suites_are_held_out(service: Service) -> None:
    body = {"suite": "bounded", "prompt": "support.triage@1", "base": "tunable", "held_out": ["must@1", "small"]}
    started = service.call("POST", "/api/finetunes", "author", json=body)
    assert started.status_code == 202, started.text
    job = service.call("GET", f"/api/jobs/{started.json()['job_id']}").json()
    assert job["spec"]["held_out"] == {"must": 1, "small": 1}

    unknown = service.call("POST", "/api/finetunes", "author", json={**body, "held_out": ["nobody@1"]})
    assert unknown.status_code == 404

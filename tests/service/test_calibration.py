"""Judges against people: calibrations, the floor of a suite, and answers that wait for people."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from suites.gate import read_evidence, recompute
from tests.service.conftest import Service, make_settings

YES = '{"pass": true, "score": 1, "reason": "kind"}'
NO = '{"pass": false, "score": 0, "reason": "curt"}'
MODELS = {
    "model-a": {"engine": "fake", "answers": {"first": "kind words", "second": "curt words"}, "default": "kind too"},
    "judge": {"engine": "fake", "answers": {"kind": YES, "curt": NO}, "default": "I cannot say"},
    "fair": {"engine": "fake", "answers": {"kind": YES, "curt": NO}, "default": "I cannot say"},
    "torn": {"engine": "fake", "answers": {"kind": [YES, NO, YES], "curt": [NO, NO, YES]}, "default": "?"},
}
PROMPT = {"model": "model-a", "messages": [{"role": "user", "content": "{{ ticket }}"}]}
RUBRIC = {"type": "llm-rubric", "value": "is polite", "metric": "tone"}
TESTS = [{"vars": {"ticket": name}, "assert": [RUBRIC]} for name in ("first", "second", "third")]
LABELS = [
    {"vars": {"ticket": "first"}, "output": "kind answer", "label": "pass"},
    {"vars": {"ticket": "second"}, "output": "curt answer", "label": "fail"},
    {"vars": {"ticket": "elsewhere"}, "output": "curt, too", "label": 0.4, "metric": "tone"},
    {"vars": {"ticket": "first"}, "output": "kind but wrong", "label": False},
]


@pytest.fixture
def service(tmp_path: Any) -> Iterator[Service]:
    with Service(make_settings(tmp_path, models=MODELS)).running() as service:
        service.push("t", PROMPT)
        service.produce(1, "t")
        yield service


def put(service: Service, name: str = "s", **more: Any) -> None:
    service.put_suite(name, {"prompt": "t", "tests": TESTS, "thresholds": {"pass_rate": 0.5}, **more})


def gate(service: Service, name: str = "s") -> dict[str, Any]:
    started = service.call("POST", "/api/gates", "ci", json={"suites": [name], "baseline": "none"}).json()
    job = service.work(started["job_id"])
    assert job["status"] == "succeeded", job
    found: dict[str, Any] = job["result"]
    return found


def calibrate(service: Service, labels: Any = LABELS, **more: Any) -> dict[str, Any]:
    body = {"suite": "s", "labels": labels, **more}
    answer = service.call("POST", "/api/calibrations", "author", json=body)
    assert answer.status_code == 202, answer.text
    job = service.work(answer.json()["job_id"])
    assert job["status"] == "succeeded", job
    assert job["result"]["calibration_id"] == answer.json()["calibration_id"]
    found: dict[str, Any] = job["result"]
    return found


def test_agreement_with_people_is_measured_and_kept(service: Service) -> None:
    put(service, judge={"model": "judge", "votes": 3})
    found = calibrate(service)

    [grader] = found["graders"]
    assert (grader["type"], grader["metric"], grader["model"], grader["n"]) == ("llm-rubric", "tone", "judge", 4)
    assert grader["confusion"] == {"pass_pass": 1, "pass_fail": 1, "fail_pass": 0, "fail_fail": 2}
    assert (grader["accuracy"], grader["kappa"]) == (0.75, pytest.approx(0.5))
    assert grader["accuracy_ci95"] == [pytest.approx(0.3006, abs=1e-4), pytest.approx(0.9544, abs=1e-4)]
    assert found["disagreements"] == [{"row": 4, "type": "llm-rubric", "metric": "tone", "judge": "pass"}]
    assert found["judges"]["completion"] > 0
    [kept] = service.call("GET", "/api/calibrations", "author", params={"suite": "s"}).json()
    assert kept["figures"]["kappa"] == grader["kappa"]
    assert kept["grader"]["rubrics"] == grader["rubrics"]
    assert {name: kept[name] for name in ("suite", "suite_version", "actor")} == {
        "suite": "s", "suite_version": 1, "actor": service.ids["author"],
    }  # fmt: skip


FLOOR = {"kappa": 0.5, "accuracy": 0.7}


def test_a_gate_with_a_floor_is_inconclusive_until_the_judge_was_measured(service: Service) -> None:
    put(service, judge={"model": "judge", "floor": FLOOR})

    before = gate(service)
    assert before["verdict"] == "inconclusive"
    assert "judge judge, llm-rubric (tone): its agreement with people was never measured" in before["reasons"][0]
    assert before["reasons"][0].endswith("turnout judge calibrate s")

    calibrate(service)
    after = gate(service)
    assert after["verdict"] == "pass"
    record = service.call("GET", f"/api/evidence/{after['suites'][0]['evidence_id']}", "author").json()
    standing = record["content"]["given"]["judge"]
    assert (standing["floor"], standing["votes"]) == (FLOOR, 1)
    assert (standing["graders"][0]["n"], standing["graders"][0]["kappa"]) == (4, pytest.approx(0.5))
    evidence = read_evidence(record["content"])
    assert recompute(evidence) == evidence.decision
    below = evidence.model_copy(
        update={"given": evidence.given.model_copy(update={"judge": _with_kappa(evidence.given.judge, 0.4)})}
    )
    assert recompute(below).verdict == "inconclusive"


def _with_kappa(standing: Any, kappa: float) -> Any:
    return standing.model_copy(update={"graders": (standing.graders[0].model_copy(update={"kappa": kappa}),)})


def test_a_judge_below_the_floor_never_makes_a_gate_pass(service: Service) -> None:
    put(service, judge={"model": "judge", "floor": {"kappa": 0.6}})
    assert calibrate(service)["graders"][0]["below_floor"] == "kappa 0.500 over 4 labels is below the floor of 0.6"
    found = gate(service)
    assert found["verdict"] == "inconclusive"
    assert "kappa 0.500 over 4 labels is below the floor of 0.6" in found["reasons"][0]


@pytest.mark.parametrize(
    "change",
    [
        {"judge": {"model": "fair", "floor": FLOOR}},
        {"judge": {"model": "judge", "votes": 3, "floor": FLOOR}},
        {"tests": [{"vars": {"ticket": "first"}, "assert": [{**RUBRIC, "rubricPrompt": "{{ rubric }}? {{ output }}"}]}]},
        {"tests": [{"vars": {"ticket": "first"}, "assert": [{**RUBRIC, "metric": "other"}]}]},
    ],
)  # fmt: skip
def test_a_calibration_is_not_one_of_another_judge_votes_rubric_or_metric(
    service: Service, change: dict[str, Any]
) -> None:
    judge = {"model": "judge", "floor": FLOOR}
    put(service, judge=judge)
    calibrate(service)
    put(service, **{"judge": judge, **change})

    found = gate(service)
    assert found["verdict"] == "inconclusive"
    assert "never measured" in found["reasons"][0]


def test_a_calibration_holds_for_the_suite_with_other_cases(service: Service) -> None:
    judge = {"model": "judge", "floor": FLOOR}
    put(service, judge=judge)
    calibrate(service)
    put(
        service, judge=judge, tests=[*TESTS, {"vars": {"ticket": "fourth"}, "assert": [{**RUBRIC, "value": "is nice"}]}]
    )
    assert gate(service)["verdict"] == "pass"


def test_kappa_of_labels_that_are_all_alike_reaches_no_floor(service: Service) -> None:
    put(service, judge={"model": "judge", "floor": {"kappa": 0.1}})
    calibrate(service, LABELS[:1])
    assert "kappa cannot be said of 1 labels that are all alike" in gate(service)["reasons"][0]


def test_a_label_with_variables_that_the_prompt_refuses_is_told_as_that(service: Service) -> None:
    put(service, judge={"model": "judge"})
    labels = [*LABELS, {"vars": {"no_ticket": "first"}, "output": "x", "label": "pass"}]
    answer = service.call("POST", "/api/calibrations", "author", json={"suite": "s", "labels": labels})
    error = service.work(answer.json()["job_id"])["error"]
    assert "the judge cannot be shown the question: unexpected variable 'no_ticket'" in error
    assert "; at labels 5; mend the judge or the labels" in error


def test_nothing_is_kept_where_judgements_are_missing(service: Service) -> None:
    put(service, judge={"model": "judge"})
    labels = [*LABELS, {"vars": {"ticket": "first"}, "output": "neither", "label": "pass"}]
    answer = service.call("POST", "/api/calibrations", "author", json={"suite": "s", "labels": labels})
    job = service.work(answer.json()["job_id"])
    assert job["status"] == "failed"
    assert "1 of 5 judgements are missing (20.0%)" in job["error"]
    assert "gave no verdict" in job["error"]
    assert "; at labels 5; mend the judge or the labels" in job["error"]
    assert service.call("GET", "/api/calibrations", "author", params={"suite": "s"}).json() == []


@pytest.mark.parametrize(
    ("labels", "told"),
    [
        (None, "nobody has labelled anything yet"),
        ([{"output": "x", "label": "good"}], "a label cannot be 'good'"),
        ([{"output": "x", "label": "pass", "metric": "else"}], "under the metric 'else'"),
    ],
)
def test_labels_that_say_nothing_of_the_suite_are_refused(service: Service, labels: Any, told: str) -> None:
    put(service, judge={"model": "judge"})
    answer = service.call("POST", "/api/calibrations", "author", json={"suite": "s", "labels": labels})
    assert answer.status_code in (400, 422), answer.text
    assert told in answer.text


# ---------------------------------------------------------------------------- people

HUMAN = {"vars": {"ticket": "first"}, "assert": [{"type": "human", "value": "Is it kind?", "metric": "kind"}]}


def rate(service: Service, case: dict[str, Any], run_id: str, value: Any, **more: Any) -> Any:
    body = {"completion_id": f"case:{case['case_id']}:{run_id}:0", "metric": "kind", "value": value}
    return service.call("POST", "/api/feedback", more.pop("role", "author"), json={**body, **more})


def test_a_case_waits_for_people_and_their_word_counts_for_the_same_answer(service: Service) -> None:
    put(service, tests=[HUMAN, {"vars": {"ticket": "second"}, "assert": [{"type": "contains", "value": "curt"}]}])
    found = gate(service)
    assert found["verdict"] == "inconclusive"
    run_id = service.call("GET", "/api/runs", "author", params={"suite": "s"}).json()[0]["run_id"]
    assert found["reasons"] == [f"s: 1 case waits for people in the candidate's run: turnout judge waiting {run_id}"]
    [waiting] = service.call("GET", f"/api/runs/{run_id}/cases", "author", params={"status": "skipped"}).json()
    assert (waiting["output"], waiting["outcomes"][0]["status"]) == ("kind words", "skipped")

    assert rate(service, waiting, run_id, 0.2).status_code in (200, 201)
    assert rate(service, waiting, run_id, 0.9).status_code in (200, 201)  # the same person's last word
    assert gate(service)["verdict"] == "pass"
    rate(service, waiting, run_id, 0.0, role="ci")  # another person's: a mean of 0.45
    assert gate(service)["suites"][0]["pass_rate"] == 0.5


def test_ratings_of_answers_that_are_not_there_are_refused(service: Service) -> None:
    put(service, tests=[HUMAN])
    gate(service)
    run_id = service.call("GET", "/api/runs", "author", params={"suite": "s"}).json()[0]["run_id"]
    [case] = service.call("GET", f"/api/runs/{run_id}/cases", "author").json()
    assert rate(service, case, run_id, 1.5).status_code == 400
    assert rate(service, case, run_id, "good").status_code == 400
    assert rate(service, case, "run_000000000000", 1).status_code == 404
    assert rate(service, {"case_id": "x"}, run_id, 1).status_code == 400
    assert rate(service, case, run_id, 1, role="app").status_code == 403
    other = rate(service, case, run_id, 1, metric="tone")
    assert (other.status_code, other.json()["detail"]) == (
        400, "case 1 has no assertion that people rate as 'tone': rate one of kind",
    )  # fmt: skip


def test_ratings_of_runs_are_labels_for_the_judge(service: Service) -> None:
    put(service, judge={"model": "judge"})
    gate(service)
    run_id = service.call("GET", "/api/runs", "author", params={"suite": "s"}).json()[0]["run_id"]
    for case in service.call("GET", f"/api/runs/{run_id}/cases", "author").json():
        rate(service, case, run_id, float(case["index"] == 0), metric="tone")
    [grader] = calibrate(service, None)["graders"]
    assert grader["confusion"] == {"pass_pass": 1, "pass_fail": 1, "fail_pass": 0, "fail_fail": 1}

"""What a suite asks of judges, cases that wait for people, and the gate's rules on both."""

import asyncio
import re

import pytest

from prompts.errors import BadFile, BadInput
from prompts.messages import Completion, Usage
from suites.assertions import AssertionErrored
from suites.assertions.spec import Spent
from suites.case import Case, Suite
from suites.gate import decide, decide_promotion
from suites.judging import Needs, check_alone, check_judges
from suites.policy import GateSettings, JudgeFloor, Thresholds
from suites.results import CaseResult
from suites.runner import run_suite
from suites.verdicts import GateInput, JudgeStanding, Measured, Side

ALIASES = ("judge", "near")
JUDGE = {"model": "judge", "embeddings": "near"}


def suite(*asserts, variables=None, **head):
    return Suite.from_data({"prompt": "p", "tests": [{"vars": variables or {}, "assert": list(asserts)}], **head})


def faults(found):
    with pytest.raises(BadFile) as refused:
        check_judges(found, ALIASES)
    return [(fault.message, fault.fix) for fault in refused.value.faults]


RUBRIC = {"type": "llm-rubric", "value": "fits"}


@pytest.mark.parametrize(
    ("spec", "head", "message", "fix"),
    [
        (RUBRIC, {}, "`llm-rubric` names no model to judge", "judge: {model: ALIAS}"),
        (RUBRIC, {"judge": {"model": "jude"}}, "judge.model: turnout.yaml has no model 'jude'", "'judge'"),
        ({**RUBRIC, "provider": "x"}, {}, "`llm-rubric`: provider: turnout.yaml has no model 'x'", "known here"),
        ({"type": "similar", "value": "x"}, {"judge": {"model": "judge"}}, "no model of embeddings", "provider: ALIAS"),
        ({"type": "answer-relevance"}, {"judge": {"model": "judge"}}, "no model of embeddings", "config: {embeddings"),
        ({"type": "context-relevance"}, {"judge": JUDGE}, "needs the variable `context`", "vars:"),
        ({"type": "select-best", "value": "x"}, {"judge": JUDGE, "fallback": {}}, "`fallback` asks one", "`fallback`"),
        ({"type": "select-best", "value": "x"}, {"judge": JUDGE, "schedule": "0 3 * * *"}, "`schedule` asks", "remove"),
        ({"type": "max-score"}, {}, "no scores to add up", "another assertion"),
        (
            {"type": "assert-set", "assert": [{"type": "contains", "value": "x"}, {"type": "max-score"}]},
            {},
            "adds up the scores of a case",
            "beside the `assert-set`",
        ),
        (
            {"type": "contains", "value": "x"},
            {"judge": {**JUDGE, "floor": {"kappa": 0.5}}},
            "judge.floor: no assertion of this suite is decided by a model",
            "remove it",
        ),
    ],
)
def test_judges_that_cannot_be_asked_are_refused(spec, head, message, fix):
    [(told, mend)] = faults(suite(spec, **head))
    assert message in told
    assert fix in mend


def test_judges_that_can_be_asked_are_not():
    asserts = [RUBRIC, {"type": "similar", "value": "x"}, {"type": "context-recall", "value": "x"}]
    check_judges(suite(*asserts, variables={"context": "c"}, judge=JUDGE), ALIASES)
    check_judges(suite({"type": "select-best", "value": "x", "weight": 0}, judge=JUDGE, repeat=2), ALIASES)
    check_judges(suite({"type": "select-best", "value": "x"}, judge=JUDGE, repeat=2, pass_k=1), ALIASES)
    check_judges(suite({"type": "select-best", "value": "x"}, judge=JUDGE), ALIASES)


@pytest.mark.parametrize(
    ("spec", "head", "message"),
    [
        (
            {"type": "max-score"},
            {},
            "suite s: `max-score` compares answers, and one variant gives one answer to a case: ask",
        ),
        (
            {"type": "select-best", "value": "x"},
            {"repeat": 3},
            "one variant has one best answer of 3 repeats, and 3 must pass",
        ),
    ],
)
def test_one_variant_alone_must_have_answers_to_compare(spec, head, message):
    scored = {"type": "contains", "value": "x"}
    with pytest.raises(BadInput, match=re.escape(message)):
        check_alone("s", suite(scored, spec, **head))
    check_alone("s", suite(scored, spec, repeat=2, pass_k=1))
    check_alone("s", suite(scored, {**spec, "weight": 0}, repeat=2))
    check_alone("s", suite(scored))


@pytest.mark.parametrize(
    ("judge", "message"),
    [
        ({"votes": 2}, "2 votes can be even"),
        ({"votes": 17}, "votes"),
        ({"floor": {}}, "a floor needs a bound"),
        ({"floor": {"kappa": 0}}, "kappa"),
        ({"calibration": "file://labels.jsonl"}, "resolved by the command line alone"),
        ({"calibration": [{"output": "x", "label": 2}]}, "a label cannot be 2"),
    ],
)
def test_bad_settings_of_a_judge_are_refused(judge, message):
    with pytest.raises(BadFile, match=message):
        suite(RUBRIC, judge={"model": "judge", **judge})


def test_a_suite_with_a_judge_survives_being_stored():
    labels = [{"vars": {"a": 1}, "output": "x", "label": "pass"}, {"output": "y", "label": 0.2, "metric": "m"}]
    judge = {"model": "judge", "votes": 3, "floor": {"kappa": 0.5}, "calibration": labels}
    found = suite(RUBRIC, {"type": "assert-set", "assert": [{**RUBRIC, "rubricPrompt": "judges.tone@2"}]}, judge=judge)
    again = Suite.from_data(found.as_data())
    assert again.digest == found.digest
    assert [label.passed for label in again.judge.calibration] == [True, False]
    assert again.tests[0].asserts[1].asserts[0].rubric_prompt == "judges.tone@2"


def test_what_a_suite_needs_is_found_within_sets_too():
    inner = {"type": "assert-set", "assert": [{**RUBRIC, "provider": "other"}, {**RUBRIC, "value": "else"}]}
    needs = Needs.of_suite(suite(RUBRIC, inner, {"type": "answer-relevance"}, judge=JUDGE))
    assert [(spec.type, spec.provider) for spec in needs.graders] == [
        ("llm-rubric", None),
        ("llm-rubric", "other"),
        ("answer-relevance", None),
    ]
    assert needs.aliases == {"judge", "other", "near"}
    assert (needs.others, needs.compares) == (True, False)
    assert Needs.of_suite(suite({"type": "contains", "value": "x"})) == Needs()


# ---------------------------------------------------------------------------- people

WAITS = {"type": "human"}


class People:
    """Aids that know the ratings of some answers, and count as if each look took a token."""

    votes, judge = 1, None

    def __init__(self, rated, answer):
        self._rated, self._answer = rated, answer
        self.spent = Spent(Usage(1, 0), 0.5)

    async def ratings(self, metric):
        return self._rated.get(self._answer, ())

    async def embed(self, alias, texts):
        raise AssertionErrored("none")


def run(rated, *asserts, **more):
    results = []
    cases = [Case.model_validate({"vars": {"n": n}, "assert": list(asserts)}) for n in ("a", "b")]

    async def ask(case, repeat):
        return Completion(case.vars["n"])

    def aids(case, repeat, answer):
        return People(rated, answer)

    summary = asyncio.run(run_suite(cases, ask, aids=aids, on_result=results.append, **more))
    return summary, sorted(results, key=lambda result: (result.index, result.repeat))


def test_a_case_that_waits_for_people_is_skipped_and_keeps_its_answer():
    summary, results = run({"a": [1.0]}, WAITS)
    assert [(result.status, result.waits, result.output) for result in results] == [
        ("passed", False, "a"),
        ("skipped", True, "b"),
    ]
    assert (summary.waiting, summary.skipped, summary.pass_rate) == (1, 1, 1.0)
    assert CaseResult.from_dict(results[1].as_dict()) == results[1]


def test_what_waits_within_a_set_or_counts_for_nothing():
    assert run({}, {"type": "assert-set", "assert": [WAITS]})[0].waiting == 2
    assert run({}, {**WAITS, "weight": 0}, {"type": "contains-any", "value": ["a", "b"]})[0].passed == 2
    assert run({}, WAITS, {"type": "similar", "value": "x"})[0].errored == 2


def test_waiting_cases_are_judged_anew_when_a_run_goes_on():
    _, before = run({"a": [1.0]}, WAITS)
    summary, results = run({"a": [1.0], "b": [0.0]}, WAITS, finished=before)
    assert [(result.output, result.status) for result in results] == [("b", "failed")]
    assert (summary.passed, summary.failed, summary.waiting) == (1, 1, 0)


def test_judging_is_summed_apart_from_the_model_under_test():
    summary, _ = run({"a": [1.0], "b": [1.0]}, WAITS)
    assert (summary.judges, summary.tokens) == (Spent(Usage(2, 0), 1.0), Usage())
    assert summary.as_dict()["judges"] == {"prompt": 2, "completion": 0, "cost_usd": 1.0}


# ---------------------------------------------------------------------------- the gate


def given(waiting=0, floor=None, **grader):
    side = Side(variant="p@1+m", outcomes={"a": "passed", "b": "passed"}, waiting=waiting, run_id="run_1")
    measured = Measured(type="llm-rubric", metric=None, model="judge", rubrics=("sha256:1",), **grader)
    standing = JudgeStanding(floor=JudgeFloor(**floor), votes=1, graders=(measured,)) if floor else None
    return GateInput(suite="s", candidate=side, thresholds=Thresholds(pass_rate=0.5), judge=standing)


GOOD = {"calibration_id": "cal_1", "n": 40, "accuracy": 0.9, "kappa": 0.8}


@pytest.mark.parametrize(
    ("input_", "verdict", "reason"),
    [
        (given(), "pass", "2 of 2 cases passed"),
        (
            given(waiting=2),
            "inconclusive",
            "2 cases wait for people in the candidate's run: turnout judge waiting run_1",
        ),
        (given(floor={"kappa": 0.8}, **GOOD), "pass", "2 of 2 cases passed"),
        (given(floor={"kappa": 0.8}), "inconclusive", "was never measured"),
        (given(floor={"kappa": 0.81}, **GOOD), "inconclusive", "kappa 0.800 over 40 labels is below the floor of 0.81"),
        (given(floor={"accuracy": 0.95}, **GOOD), "inconclusive", "accuracy 0.900 over 40 labels is below"),
        (given(floor={"kappa": 0.1}, **{**GOOD, "kappa": None}), "inconclusive", "kappa cannot be said of 40 labels"),
    ],
)
def test_a_gate_passes_on_the_word_of_judges_who_agree_with_people_alone(input_, verdict, reason):
    found = decide(input_)
    assert found.verdict == verdict
    assert reason in found.reasons[0]


def test_a_missed_threshold_is_a_fail_whatever_the_judge():
    below = given(floor={"kappa": 0.9}, **GOOD)
    side = below.candidate.model_copy(update={"outcomes": {"a": "failed", "b": "failed"}})
    assert decide(below.model_copy(update={"candidate": side})).verdict == "fail"


def test_a_suite_that_only_waits_is_inconclusive_not_broken():
    only = given(waiting=2)
    side = only.candidate.model_copy(update={"outcomes": {"a": "skipped", "b": "skipped"}})
    assert decide(only.model_copy(update={"candidate": side})).verdict == "inconclusive"


def test_nothing_is_promoted_on_the_word_of_a_judge_below_the_floor():
    cases = {f"c{n}": "failed" for n in range(20)}
    after = Side(variant="p@2+m", outcomes=dict.fromkeys(cases, "passed"))
    before = Side(variant="p@1+m", outcomes=cases)
    better = given(floor={"kappa": 0.8}, **GOOD).model_copy(
        update={"candidate": after, "baseline": before, "settings": GateSettings()}
    )
    assert decide_promotion(better, 1).promote
    unsure = better.model_copy(update={"judge": given(floor={"kappa": 0.8}).judge})
    assert (decide_promotion(unsure, 1).promote, decide_promotion(unsure, 1).verdict) == (False, "inconclusive")

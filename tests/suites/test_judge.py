import asyncio

import pytest

from suites.assertions import Output, Scene
from suites.case import Case
from suites.judge import judge as judge_scene


def made(*asserts, **case):
    return Case.model_validate({"vars": {"w": "yes"}, "assert": list(asserts), **case})


def judge(case, output):
    return asyncio.run(judge_scene(case, Scene(output, case.vars, case.id)))


HIT = {"type": "contains", "value": "{{ w }}"}
MISS = {"type": "contains", "value": "no"}


@pytest.mark.parametrize(
    ("case", "status", "score"),
    [
        (made(HIT), "passed", 1.0),
        (made(HIT, MISS), "failed", 0.5),
        (made({**HIT, "weight": 3}, MISS, threshold=0.75), "passed", 0.75),
        (made({**HIT, "weight": 3}, MISS, threshold=0.76), "failed", 0.75),
        (made(HIT, {**MISS, "weight": 0}), "passed", 1.0),
        (made({**MISS, "weight": 0}), "passed", 1.0),
        (made(), "passed", 1.0),
        (made(MISS, threshold=0), "passed", 0.0),
    ],
)
def test_all_must_hold_or_the_weighted_score_must_reach_the_threshold(case, status, score):
    found = judge(case, Output("yes"))
    assert (found.status, found.score) == (status, score)


def test_three_tenths_reach_a_threshold_of_three_tenths():
    case = made({**HIT, "weight": 0.1}, {**HIT, "weight": 0.2}, {**MISS, "weight": 0.7}, threshold=0.3)
    assert judge(case, Output("yes")).status == "passed"


def test_an_assertion_that_cannot_be_judged_makes_the_case_errored_and_keeps_the_others():
    found = judge(made(HIT, {"type": "cost", "threshold": 1}), Output("yes"))
    assert (found.status, found.score) == ("errored", None)
    assert [outcome.status for outcome in found.outcomes] == ["passed", "errored"]
    assert "no price" in found.error


def test_an_assert_set_counts_as_one_and_keeps_its_members():
    case = made(
        {"type": "assert-set", "metric": "both", "weight": 2, "assert": [HIT, {**MISS, "metric": "inner"}]}, HIT
    )
    found = judge(case, Output("yes"))
    assert (found.status, found.score) == ("failed", pytest.approx(2 / 3))
    whole = found.outcomes[0]
    assert (whole.type, whole.status, whole.score) == ("assert-set", "failed", 0.5)
    assert whole.reason == "1 of 2 hold; contains: expected: containing 'no'; got 'yes'"
    assert [(part.metric, part.status) for part in whole.walk()] == [
        ("both", "failed"),
        (None, "passed"),
        ("inner", "failed"),
    ]


def test_an_assert_set_with_a_threshold_needs_its_weighted_score():
    members = [{**HIT, "weight": 3}, MISS]
    for threshold, status in ((0.75, "passed"), (0.76, "failed")):
        case = made({"type": "assert-set", "threshold": threshold, "assert": members})
        assert judge(case, Output("yes")).outcomes[0].status == status


def test_an_assert_set_with_a_member_that_cannot_be_judged_is_errored():
    found = judge(made({"type": "assert-set", "assert": [HIT, {"type": "cost", "threshold": 1}]}), Output("yes"))
    assert (found.status, found.outcomes[0].status) == ("errored", "errored")
    assert "no price" in found.error

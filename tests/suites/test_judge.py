import pytest

from suites.assertions import Output
from suites.case import Case
from suites.judge import judge


def made(*asserts, **case):
    return Case.model_validate({"vars": {"w": "yes"}, "assert": list(asserts), **case})


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

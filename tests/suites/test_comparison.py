"""Answers to one case compared with each other: by a judge, and by the scores of the case's other assertions."""

import asyncio
import itertools
import json

import pytest
from pydantic_core import PydanticCustomError

from prompts.messages import Usage
from suites.assertions import AssertionWaits, Output, Scene, assess, check
from suites.assertions.spec import AssertionSpec
from suites.case import Case
from suites.comparison import Answer, compare
from suites.judge import judge
from suites.results import CaseResult
from tests.suites.test_judged import Bench

BEST = {"type": "select-best", "value": "names a day"}


def chooses(text):
    """A judge that chooses this text, wherever it stands."""

    def said(messages, vote):
        lines = messages[1].content.splitlines()
        number = next(line for line, after in itertools.pairwise(lines) if after == text)
        return json.dumps({"reason": f"it is {text}", "best": int(number.rpartition(" ")[2])})

    return said


def case(*asserts, **more):
    return Case.model_validate({"vars": {"t": "x"}, "assert": list(asserts), **more})


def answered(found, text, repeat=0):
    """What an answer comes to by its case before it is compared; without a text the model gave none."""
    if text is None:
        return CaseResult(found.id, 0, repeat, "errored", error="no answer")
    judged = asyncio.run(judge(found, Scene(Output(text), found.vars, found.id, repeat)))
    about = {"score": judged.score, "outcomes": judged.outcomes, "error": judged.error}
    return CaseResult(found.id, 0, repeat, judged.status, output=text, **about)


def compared(found, texts, aids=None, rule="variants"):
    answers = [Answer(f"p@1+{name}", answered(found, text)) for name, text in texts.items()]
    return asyncio.run(compare(found, answers, aids, rule))


def statuses(results):
    return [result.status for result in results]


def reasons(results, index=-1):
    return [result.outcomes[index].reason for result in results]


# ---------------------------------------------------------------------------- before all are in


def test_an_answer_that_is_to_be_compared_waits_and_not_for_people():
    result = answered(case(BEST), "Soon.")
    assert (result.status, result.is_open, result.is_to_compare, result.waits) == ("skipped", True, True, False)
    reported_only = answered(case({"type": "contains", "value": "S"}, {**BEST, "weight": 0}), "Soon.")
    assert (reported_only.status, reported_only.is_to_compare) == ("passed", True)
    both = answered(case(BEST, {"type": "contains", "value": "Monday"}), "Soon.")
    assert (both.status, both.is_to_compare) == ("skipped", True)
    with pytest.raises(AssertionWaits, match="decided when they are in"):
        asyncio.run(assess(Scene(Output("x")), AssertionSpec.model_validate(BEST)))


# ---------------------------------------------------------------------------- select-best


def test_exactly_one_of_several_variants_is_the_best_and_the_others_fail_by_the_judges_reason():
    results = compared(case(BEST), {"a": "Soon.", "b": "On Monday.", "c": "Later."}, Bench(chooses("On Monday.")))
    assert statuses(results) == ["failed", "passed", "failed"]
    assert [result.score for result in results] == [0.0, 1.0, 0.0]
    assert reasons(results)[1].startswith("the best of 3 answers: it is On Monday. (judge judge; rubric select-best ")
    assert reasons(results)[0].startswith("not the best of 3 answers: it is On Monday. (judge judge; ")


def test_the_best_fails_all_the_same_where_it_misses_another_assertion():
    results = compared(
        case(BEST, {"type": "contains", "value": "Soon"}),
        {"a": "Soon.", "b": "On Monday."},
        Bench(chooses("On Monday.")),
    )
    assert statuses(results) == ["failed", "failed"]
    assert [[one.status for one in result.outcomes] for result in results] == [
        ["failed", "passed"],
        ["passed", "failed"],
    ]


def test_of_equal_answers_the_first_variant_counts_and_of_a_gate_or_repeats_all():
    same = {"a": "Soon.", "b": "On Monday.", "c": "On Monday."}
    for rule, wanted in (
        ("variants", ["failed", "passed", "failed"]),
        ("gate", ["failed", "passed", "passed"]),
        ("repeats", ["failed", "passed", "passed"]),
    ):
        aids = Bench(chooses("On Monday."))
        results = compared(case(BEST), same, aids, rule)
        assert statuses(results) == wanted
        assert "of 2 answers" in reasons(results)[0]

    nobody = Bench()
    assert statuses(compared(case(BEST), {"a": "x", "b": "x"}, nobody, "gate")) == ["passed", "passed"]
    assert statuses(compared(case(BEST), {"a": "x", "b": "x"}, nobody)) == ["passed", "failed"]
    assert nobody.asked == []


def test_most_votes_choose_and_each_vote_is_kept_and_sees_another_order():
    def said(messages, vote):
        return chooses("Soon." if vote == 0 else "On Monday.")(messages, vote)

    aids = Bench(said, votes=3)
    results = compared(case(BEST), {"a": "Soon.", "b": "On Monday."}, aids)
    assert statuses(results) == ["failed", "passed"]
    assert [round(result.score, 3) for result in results] == [0.333, 0.667]
    assert [part.status for part in results[1].outcomes[0].parts] == ["failed", "passed", "passed"]
    assert "2 of 3 votes; it is On Monday." in reasons(results)[1]
    first_shown = [
        messages[1].content.index("Soon.") < messages[1].content.index("On Monday.") for _, messages, *_ in aids.asked
    ]
    assert first_shown in ([True, False, True], [False, True, False])


def test_a_judge_who_prefers_a_place_prefers_no_variant():
    """Over cases the order in which variants are shown is even, also with one vote."""
    chosen = 0
    for number in range(200):
        found = Case.model_validate({"vars": {"t": str(number)}, "assert": [BEST]})
        chosen += compared(found, {"a": "x", "b": "y"}, Bench('{"best": 1}'))[0].status == "passed"
    assert 75 <= chosen <= 125


def test_where_as_many_votes_choose_each_the_earliest_vote_decides():
    texts = {"a": "x", "b": "y", "c": "z"}
    results = compared(case(BEST), texts, Bench(lambda m, vote: chooses("zxy"[vote])(m, vote), votes=3))
    assert statuses(results) == ["failed", "failed", "passed"]


def test_what_never_came_has_no_part_and_two_are_needed():
    texts = {"a": "Soon.", "b": None, "c": "On Monday."}
    assert statuses(compared(case(BEST), texts, Bench(chooses("Soon.")))) == ["passed", "errored", "failed"]
    alone = compared(case(BEST), {"a": "Soon.", "b": None}, Bench())
    assert statuses(alone) == ["errored", "errored"]
    assert "there was only one" in alone[0].error
    assert alone[1].error == "no answer"


def test_a_judge_without_a_verdict_errs_all_that_it_was_to_compare():
    quoted = {"a": 'a {"best": 1}', "b": "b"}
    results = compared(case(BEST), quoted, Bench('{"best": 1}', '{"best":1}'))
    assert statuses(results) == ["errored", "errored"]
    assert "stands word for word" in results[0].error


def test_what_the_judge_took_counts_once_beside_what_judges_took_before():
    answers = [Answer("a", answered(case(BEST), "x")), Answer("b", answered(case(BEST), "y"))]
    aids = Bench(chooses("x"))
    results = asyncio.run(compare(case(BEST), answers, aids, "variants"))
    assert [result.judge_usage for result in results] == [Usage(1, 0), None]


def test_a_comparison_within_a_set_is_decided_with_the_set():
    whole = {"type": "assert-set", "threshold": 0.5, "assert": [BEST, {"type": "contains", "value": "Soon"}]}
    results = compared(case(whole), {"a": "Soon.", "b": "On Monday.", "c": "No."}, Bench(chooses("On Monday.")))
    assert statuses(results) == ["passed", "passed", "failed"]
    assert [result.outcomes[0].score for result in results] == [0.5, 0.5, 0.0]


def test_a_variant_compared_with_itself_passes():
    results = compared(case(BEST), {"a": "Soon."}, Bench(), "itself")
    assert (statuses(results), reasons(results)) == (["passed"], ["the only variant: it is compared with itself"])


# ---------------------------------------------------------------------------- max-score

THREE = (
    {"type": "contains", "value": "a"},
    {"type": "icontains", "value": "B"},
    {"type": "rouge-n", "value": "a b c d", "threshold": 0},
)


@pytest.mark.parametrize(
    ("value", "totals"),
    [
        (None, ["0.75", "0.8333"]),  # (1 + 1 + 1/4) / 3, (1 + 1 + 2/4) / 3
        ({"method": "sum"}, ["2.25", "2.5"]),
        ({"weights": {"contains": 3, "rouge-n": 0.5}}, ["0.9167", "0.9444"]),  # (3 + 1 + w/4) / 4.5
        ({"method": "sum", "weights": {"contains": 0}}, ["1.25", "1.5"]),
    ],
)
def test_the_highest_aggregate_is_chosen_by_promptfoos_methods_and_weights(value, totals):
    results = compared(case(*THREE, {"type": "max-score", "value": value}), {"x": "ab a", "y": "ab a c"})
    assert statuses(results) == ["failed", "passed"]
    assert reasons(results)[0] == f"a score of {totals[0]}; the highest is {totals[1]}, of p@1+y"
    assert reasons(results)[1] == f"the highest score, {totals[1]}"


def test_of_equal_scores_the_first_variant_counts_and_of_a_gate_all():
    found = case({"type": "contains", "value": "a"}, {"type": "max-score"})
    texts = {"x": "ab", "y": "a", "z": "b"}
    results = compared(found, texts)
    assert statuses(results) == ["passed", "failed", "failed"]
    assert reasons(results)[1] == "as high a score, 1, as that of p@1+x, which comes first"
    assert statuses(compared(found, texts, rule="gate")) == ["passed", "passed", "failed"]


def test_the_least_bad_is_chosen_unless_it_is_below_the_threshold():
    members = [{"type": "contains", "value": "a", "weight": 0}, {"type": "contains", "value": "b", "weight": 0}]
    texts = {"x": "a", "y": "c"}
    assert statuses(compared(case(*members, {"type": "max-score"}), texts)) == ["passed", "failed"]
    results = compared(case(*members, {"type": "max-score", "value": {"threshold": 0.6}}), texts)
    assert statuses(results) == ["failed", "failed"]
    assert reasons(results)[0] == "none is chosen: a score of 0.5, and the highest, 0.5, is below 0.6"


def test_an_answer_whose_scores_are_not_all_known_has_no_part():
    crash = {"type": "perplexity", "threshold": 5}  # no log-probabilities came
    results = compared(case(crash, {"type": "max-score"}), {"x": "a", "y": "b"})
    assert statuses(results) == ["errored", "errored"]
    assert "whose other assertions could all be judged" in reasons(results)[0]


def test_scores_that_people_have_yet_to_give_are_waited_for():
    found = case({"type": "human"}, {"type": "max-score"})

    class Rated(Bench):
        async def ratings(self, metric):
            return ()

    judged = [asyncio.run(judge(found, Scene(Output(text), found.vars, found.id, 0, Rated()))) for text in "xy"]
    before = [CaseResult(found.id, 0, 0, one.status, outcomes=one.outcomes, output="o") for one in judged]
    after = asyncio.run(compare(found, [Answer(str(n), one) for n, one in enumerate(before)], None, "variants"))
    assert [(result.status, result.waits) for result in after] == [("skipped", True)] * 2
    assert "when people have rated" in reasons(after)[0]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"value": "average"}, "cannot use 'average'"),
        ({"value": {"mode": "sum"}}, "no setting 'mode'"),
        ({"value": {"method": "median"}}, "method cannot be 'median'"),
        ({"value": {"weights": {"equals": -1}}}, "the weight of 'equals' cannot be -1"),
        ({"value": {"weights": ["equals"]}}, "weights cannot be"),
        ({"value": {"threshold": "high"}}, "threshold cannot be 'high'"),
        ({"threshold": 0.5}, "its threshold stands in its value"),
        ({"provider": "judge"}, "takes no `provider`"),
    ],
)
def test_a_max_score_that_cannot_be_computed_is_refused(more, message):
    with pytest.raises(PydanticCustomError) as refused:
        check(AssertionSpec.model_validate({"type": "max-score", **more}))
    assert message in refused.value.message()

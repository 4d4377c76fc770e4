"""The rule of docs/advice.md, line by line: what figures lead to what recommendation."""

from __future__ import annotations

import pytest

from suites.advice.deciding import break_even, recommend
from suites.advice.report import Spend, Variant, compared
from tests.suites.advice.conftest import curve, facts, variant

SLOW, DEAR = Spend(p95_ms=900), Spend(cost_per_1k_usd=3.0)


def test_contradicting_examples_come_before_all_else():
    found = recommend(facts(contradicting=30, ceiling=0.85, refusals=("30 of 100 …",)))
    assert (found.kind, found.title) == ("contradictions", "Your examples contradict each other")
    assert found.reasons[1] == "no model can answer more than 85.0% of the examples right"


def test_a_bar_above_what_contradictions_leave_possible_is_a_contradiction():
    found = recommend(facts(variant("prompt", 95), contradicting=12, ceiling=0.94, bar=0.95))
    assert found.kind == "contradictions"
    assert "at most" not in found.title
    assert "94.0% of the examples right, and the suite asks for 95.0%" in found.reasons[1]


def test_examples_that_are_refused_are_mended_first():
    found = recommend(facts(kept=4, refusals=("4 of 4 examples are usable, which is too few",)))
    assert found.kind == "mend the examples"
    assert found.next == ("turnout advise s",)


def test_a_prompt_that_is_good_enough_is_shipped_whatever_would_be_better():
    found = recommend(facts(variant("prompt", 91), variant("lora", 99), bar=0.9, curve=curve(0.9, 0.95, 0.98)))
    assert (found.kind, found.variant) == ("ship the prompt", "prompt")


def test_the_cheapest_rung_that_helps_and_is_good_enough_is_taken():
    tried = (variant("prompt", 40), variant("form", 80), variant("few-shot", 92), variant("lora", 99))
    found = recommend(facts(*tried, bar=0.9, curve=curve(0.9, 0.95, 0.98)))
    assert (found.kind, found.variant) == ("few-shot", "few-shot")
    assert found.next == ("turnout advise --of adv_1 --write PROMPT_FILE", "turnout gate s")
    assert "nothing cheaper does: 80.0% of 100 (71.1% to 86.7%) for form" in found.reasons


@pytest.mark.parametrize(
    ("rung", "kind"),
    [
        ("form", "mend the form"),
        ("parameters", "set parameters"),
        ("few-shot", "few-shot"),
        ("lora", "fine-tune"),
        ("few-shot+lora", "few-shot and fine-tune"),
    ],
)
def test_every_rung_has_its_recommendation(rung: str, kind: str):
    one = variant(rung, 95)  # type: ignore[arg-type]
    assert recommend(facts(variant("prompt", 40), one, bar=0.9)).kind == kind
    assert recommend(facts(variant("prompt", 40), one)).kind == kind


def test_how_the_form_is_mended_is_told():
    found = recommend(
        facts(variant("prompt", 40), variant("form", 95), forms=["55 answers, spelling: add a transform"])
    )
    assert "55 answers, spelling: add a transform" in found.reasons


def test_what_cannot_be_shipped_is_not_recommended():
    similar = variant("similar", 99, ships=False)
    assert recommend(facts(variant("prompt", 40), similar)).kind == "ship the prompt"


def test_a_forecast_that_reaches_the_bar_is_enough_for_a_training_that_helps():
    lora = variant("lora", 88, forecast=0.91)
    assert recommend(facts(variant("prompt", 40), lora, bar=0.9, curve=curve(0.8, 0.85, 0.88))).kind == "fine-tune"


def test_a_gain_that_may_be_luck_does_not_help():
    found = recommend(facts(variant("prompt", 40), variant("few-shot", 44), variant("lora", 43)))
    assert found.kind == "ship the prompt"
    assert "few-shot has 44.0%" in found.reasons[1]


def test_without_a_bar_the_cheapest_within_the_margin_of_the_best_is_taken():
    tried = (variant("prompt", 40), variant("few-shot", 93), variant("lora", 94))
    assert recommend(facts(*tried)).kind == "few-shot"
    assert recommend(facts(variant("prompt", 40), variant("few-shot", 80), variant("lora", 94))).kind == "fine-tune"


def test_more_examples_are_asked_for_where_the_curve_says_how_many():
    found = recommend(
        facts(variant("prompt", 10), variant("lora", 80), kept=150, bar=0.9, curve=curve(0.6, 0.72, 0.8, total=100_000))
    )
    assert found.kind == "collect examples"
    assert found.title.startswith("Collect about ")
    assert "by the learning curve it takes " in found.reasons[-1]


def test_do_not_fine_tune_is_an_answer():
    found = recommend(
        facts(variant("prompt", 10), variant("lora", 70), bar=0.99, curve=curve(0.7, 0.708, 0.71, bar=0.99))
    )
    assert found.kind == "do not fine-tune"
    assert found.next == ("turnout advise s --base ALIAS",)


def test_the_best_that_was_tried_is_the_best_as_measured_whatever_is_forecast():
    alone, behind = variant("lora", 70, forecast=0.8), variant("few-shot+lora", 75)
    found = recommend(facts(variant("prompt", 10), alone, behind, bar=0.99, curve=curve(0.7, 0.708, 0.71, bar=0.99)))
    assert found.reasons[1].startswith("the best that was tried, few-shot+lora, has 75.0% of 100")


def test_a_curve_that_does_not_fall_cannot_say():
    found = recommend(facts(variant("prompt", 10), variant("lora", 70), bar=0.9, curve=curve(0.7, 0.7, total=20)))
    assert found.kind == "collect examples"
    assert "cannot say" in found.reasons[-1]


@pytest.mark.parametrize(
    ("untrained", "command"),
    [
        ("gpt cannot be tuned: name one with --base", "turnout advise s --base ALIAS --local"),
        ("one training takes longer than 2 minutes: raise --minutes", "turnout advise s --minutes N --local"),
        ("training needs the extra `local`", "turnout advise s --local"),
    ],
)
def test_where_nothing_was_trained_nobody_can_say_and_the_command_is_what_mends_it(untrained: str, command: str):
    found = recommend(facts(variant("prompt", 10), bar=0.9, untrained=untrained, local=" --local"))
    assert found.kind == "cannot say"
    assert found.reasons[-1] == f"nothing was trained: {untrained}"
    assert found.next == (command,)


def test_bounds_of_time_and_price_rule_a_variant_out():
    slow = variant("few-shot", 95, spend=Spend(p95_ms=900))
    dear = variant("lora", 95, spend=Spend(cost_per_1k_usd=3.0))
    found = recommend(facts(variant("prompt", 40), slow, dear, bar=0.9, p95_ms=500, cost_per_1k_usd=1))
    assert found.kind == "cannot say"
    good = "it has 95.0% of 100 (88.8% to 97.8%), 55 mended and 0 broken, p = 1.1e-16 after Holm"
    assert found.reasons[1:4] == (
        "nothing that keeps the suite's bounds is surely better than the prompt alone",
        f"few-shot: p95 of 900 ms is above the suite's 500 ms; {good}",
        f"lora: $3 for 1,000 requests is above the suite's $1; {good}",
    )
    assert found.title.startswith("Nothing cheaper that keeps the suite's bounds reaches the threshold")


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (variant("few-shot", 95, spend=Spend(p95_ms=900)), "nothing that keeps the suite's bounds is surely better"),
        (variant("similar", 95, ships=False), "nothing that can be shipped as it stands is surely better"),
        (variant("against", 95), "nothing that was asked of the prompt's own model is surely better"),
        (variant("few-shot", 42, spend=Spend(p95_ms=900)), "nothing that was tried is surely better"),
        (
            variant("similar", 95, ships=False, spend=Spend(p95_ms=900)),
            "nothing that can be shipped as it stands and keeps the suite's bounds is surely better",
        ),
    ],
)
@pytest.mark.parametrize("bar", [None, 0.99])
def test_what_is_said_of_all_that_was_tried_is_contrary_to_no_figure(other: Variant, said: str, bar: float | None):
    found = recommend(facts(variant("prompt", 40), other, bar=bar, p95_ms=500))
    assert any(reason == f"{said} than the prompt alone" for reason in found.reasons)


def test_the_best_that_was_tried_is_the_best_of_those_within_the_bounds_where_a_better_one_is_not():
    tried = (variant("prompt", 10), variant("few-shot", 95, spend=SLOW), variant("lora", 70))
    found = recommend(facts(*tried, bar=0.99, p95_ms=500, curve=curve(0.7, 0.708, 0.71, bar=0.99)))
    assert found.reasons[1].startswith("the best that keeps the suite's bounds, lora, has 70.0% of 100")


def test_a_threshold_that_is_reached_by_what_may_be_luck_is_not_called_out_of_reach():
    found = recommend(facts(variant("prompt", 89), variant("few-shot", 91), bar=0.9, untrained="no"))
    assert found.title.startswith(
        "Nothing cheaper that is surely better than the prompt alone reaches the threshold; a fine-tune"
    )


def test_a_cheaper_variant_that_is_good_enough_and_out_of_bounds_or_not_surely_better_is_told():
    slow = variant("few-shot", 95, spend=SLOW)
    lora = variant("lora", 96, spend=Spend(p95_ms=100))
    found = recommend(facts(variant("prompt", 88), variant("parameters", 91), slow, lora, bar=0.9, p95_ms=500))
    assert found.kind == "fine-tune"
    assert any("for parameters, which is not surely better than the prompt alone" in reason for reason in found.reasons)
    assert any(reason.startswith("few-shot: p95 of 900 ms") for reason in found.reasons)


def test_a_prompt_that_is_good_and_too_slow_gives_way_to_what_is_as_good_and_fast():
    slow = variant("prompt", 95, spend=Spend(p95_ms=900))
    quick = variant("lora", 93, spend=Spend(p95_ms=100))
    found = recommend(facts(slow, quick, bar=0.9, p95_ms=500, options=" --base small"))
    assert found.kind == "fine-tune"
    assert found.reasons[0] == "prompt: p95 of 900 ms is above the suite's 500 ms"
    assert found.next == ("turnout finetune s --base small --watch",)


def test_a_fine_tune_that_the_curve_alone_promises_carries_no_cheaper_variants_key():
    shots, lora = variant("few-shot", 74, key="few-shot-8", shots=8), variant("lora", 61, forecast=0.779)
    found = recommend(facts(variant("prompt", 60), shots, lora, bar=0.775, curve=curve(0.6, 0.68, 0.75, bar=0.775)))
    assert (found.kind, found.variant) == ("fine-tune", "lora")
    assert "which the folds do not show surely" in found.reasons[-1]
    untold = recommend(facts(variant("prompt", 60), shots, bar=0.775, curve=curve(0.6, 0.68, 0.75, bar=0.775)))
    assert (untold.kind, untold.variant) == ("fine-tune", None)


@pytest.mark.parametrize("accuracies", [(0.8, 0.9, 0.95), (0.6, 0.72, 0.8), (0.7, 0.708, 0.71), (0.7, 0.7)])
@pytest.mark.parametrize("spend", [SLOW, DEAR])
def test_a_training_that_breaks_the_suites_bounds_is_never_advised(spend: Spend, accuracies: tuple[float, ...]):
    lora = variant("lora", 80, forecast=0.96, spend=spend)
    tried = facts(variant("prompt", 10), lora, bar=0.9, curve=curve(*accuracies), p95_ms=500, cost_per_1k_usd=1)
    found = recommend(tried)
    assert (found.kind, found.variant) == ("do not fine-tune", None)
    assert any("is above the suite's" in reason for reason in found.reasons)
    assert found.next == ("turnout advise s --base ALIAS",)


@pytest.mark.parametrize(
    ("spend", "said"),
    [
        (SLOW, "prompt: p95 of 900 ms is above the suite's 500 ms"),
        (DEAR, "prompt: $3 for 1,000 requests is above the suite's $1"),
    ],
)
@pytest.mark.parametrize("bar", [None, 0.9])
def test_a_prompt_that_breaks_a_bound_is_not_shipped(spend: Spend, said: str, bar: float | None):
    found = recommend(facts(variant("prompt", 95, spend=spend), bar=bar, p95_ms=500, cost_per_1k_usd=1))
    assert (found.kind, found.variant) == ("out of bounds", None)
    assert said in found.reasons
    assert "Do not ship the prompt as it is" in found.title


def test_without_a_bar_what_is_as_good_as_a_slow_prompt_and_faster_is_taken():
    slow, quick = variant("prompt", 80, spend=SLOW), Spend(p95_ms=100)
    found = recommend(facts(slow, variant("lora", 79, spend=quick), p95_ms=500))
    assert (found.kind, found.variant) == ("fine-tune", "lora")
    assert found.reasons[0] == "prompt: p95 of 900 ms is above the suite's 500 ms"
    assert recommend(facts(slow, variant("lora", 70, spend=quick), p95_ms=500)).kind == "out of bounds"


def test_a_good_prompt_that_is_too_slow_waits_for_examples_where_a_fast_fine_tune_takes_more_of_them():
    tried = (variant("prompt", 95, spend=SLOW), variant("lora", 80, spend=Spend(p95_ms=100)))
    more = recommend(facts(*tried, bar=0.9, p95_ms=500, kept=150, curve=curve(0.6, 0.72, 0.8, total=100_000)))
    assert more.kind == "collect examples"


def test_a_model_that_may_have_learnt_the_commonest_label_alone_is_told_as_that():
    """Of 50 examples 47 are ham: 48 right is not surely more than always saying so, 49 of which 30 are spam is."""
    tried = (variant("prompt", 0, 50), variant("lora", 48, 50))
    found = recommend(facts(*tried, bar=0.9, commonest="ham", always="1" * 47 + "000"))
    assert found.kind == "fine-tune"
    assert found.reasons[0] == (
        "always answering 'ham' would have 94.0% of 50 right: it is not sure that lora tells the other answers apart, so"
        " collect examples of those"
    )
    sure = recommend(facts(*tried, bar=0.9, commonest="ham", always="1" * 20 + "0" * 30))
    assert "always answering" not in " ".join(sure.reasons)
    assert recommend(facts(*tried, bar=0.9)).reasons == sure.reasons  # free text has no commonest label


@pytest.mark.parametrize("bar", [None, 0.75])
def test_a_prompt_that_always_answers_the_commonest_label_is_shipped_with_the_warning_first(bar: float | None):
    labels = {"commonest": "ham", "always": "1" * 80 + "0" * 20}
    found = recommend(facts(variant("prompt", 80), variant("few-shot", 81), bar=bar, **labels))
    assert (found.kind, found.variant) == ("ship the prompt", "prompt")
    assert found.reasons[0] == (
        "always answering 'ham' would have 80.0% of 100 right: it is not sure that prompt tells the other answers apart,"
        " so collect examples of those"
    )


def test_a_fine_tune_that_the_curve_alone_promises_is_held_against_the_commonest_label_too():
    tried = (variant("prompt", 60), variant("lora", 61, forecast=0.779))
    labels = {"commonest": "ham", "always": "1" * 61 + "0" * 39}
    found = recommend(facts(*tried, bar=0.775, curve=curve(0.6, 0.68, 0.75, bar=0.775), **labels))
    assert found.kind == "fine-tune"
    assert found.reasons[0].startswith("always answering 'ham' would have 61.0% of 100 right")


# ------------------------------------------------------------------------------------------------ break-even


def costing(rung: str, right: int, cost: float | None) -> Variant:
    return variant(rung, right, spend=Spend(cost_per_1k_usd=cost))  # type: ignore[arg-type]


def test_a_training_pays_against_the_cheapest_variant_that_is_as_good():
    tried = compared(
        (
            costing("prompt", 40, 0.1),
            costing("few-shot", 92, 1.0),
            costing("against", 93, 5.0),
            costing("lora", 93, 0.2),
        )
    )
    [found] = break_even(tried, 0.4, margin=0.02)
    assert (found.variant, found.against, found.requests) == ("lora", "few-shot", 500)
    assert found.saving_usd == pytest.approx(0.0008)


def test_a_request_that_saves_nothing_never_pays():
    tried = compared((costing("prompt", 95, 0.1), costing("lora", 93, 0.2)))
    [found] = break_even(tried, 0.4, margin=0.02)
    assert (found.against, found.requests, found.why) == ("prompt", None, "a request saves nothing")


@pytest.mark.parametrize(("cost", "price"), [(None, 0.4), (0.2, None)])
def test_without_prices_there_is_nothing_to_pay(cost: float | None, price: float | None):
    assert break_even((costing("prompt", 95, 0.1), costing("lora", 93, cost)), price, margin=0.02) == ()

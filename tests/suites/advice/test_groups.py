"""Failures grouped: what is planted is found, and chance is not."""

from __future__ import annotations

import random
from typing import Any

import pytest
from scipy.stats import fisher_exact

from suites.advice.answers import Asked, ceiling, outcomes, paired
from suites.advice.forms import form_of, is_right_read_kindly
from suites.advice.groups import fisher_p, forms_in, group_failures

LABELS = ("billing", "other", "tech")


def asked(row: int, text: str, expected: str, answer: str, **more: Any) -> Asked:
    return Asked(row, {"ticket": text, **more.pop("vars", {})}, expected, answer, **more)


@pytest.mark.parametrize(
    ("hits", "count", "failed", "total"),
    [(5, 6, 10, 40), (0, 5, 3, 30), (3, 3, 3, 20), (7, 20, 21, 60), (4, 30, 4, 33)],
)
def test_fishers_test_is_scipys(hits: int, count: int, failed: int, total: int):
    table = [[hits, count - hits], [failed - hits, total - count - (failed - hits)]]
    assert fisher_p(hits, count, failed, total) == pytest.approx(fisher_exact(table, alternative="greater").pvalue)


def test_a_label_that_always_fails_a_word_and_a_confusion_are_found():
    rows = [asked(n, f"login case {n}", "tech", "other") for n in range(10)]
    rows += [asked(10 + n, f"refund case {n}", "billing", "billing") for n in range(20)]
    rows += [asked(30 + n, f"thing case {n}", "other", "other") for n in range(20)]
    groups = {(one.kind, one.name): one for one in group_failures(rows, LABELS)}

    label = groups["label", "tech"]
    assert (label.count, label.failures, label.share, label.lift) == (10, 10, 1.0, 5.0)
    assert label.p is not None
    assert label.p < 1e-6
    assert [one["row"] for one in label.examples] == [0, 1, 2]
    assert label.examples[0]["answered"] == "other"
    assert ("word", "login") in groups
    assert groups["confusion", "tech → other"].failures == 10
    assert ("word", "case") not in groups  # it stands in answered ones, too


def test_a_value_of_a_variable_and_a_length_are_found():
    rows = [asked(n, "short", "yes", "yes", vars={"tier": "free"}) for n in range(30)]
    rows += [asked(30 + n, "a very long text of many words", "yes", "no", vars={"tier": "paid"}) for n in range(10)]
    found = {(one.kind, one.name) for one in group_failures(rows, ("no", "yes"))}
    assert ("variable", "tier = paid") in found
    assert ("length", "longest quarter of inputs (35 to 35 characters)") in found


def test_failures_dealt_out_blindly_make_no_group():
    """Holm holds the chance of any group at 5%: of 40 blind draws, at most six."""
    dice, found = random.Random(5), 0  # noqa: S311
    words = [f"w{n}" for n in range(30)]
    for _ in range(40):
        rows = [asked(n, " ".join(dice.sample(words, 6)), dice.choice(LABELS), "") for n in range(60)]
        rows = [asked(one.row, one.input, one.expected, one.expected if dice.random() < 0.7 else "?") for one in rows]
        found += any(one.p is not None for one in group_failures(rows, ()))
    assert found <= 6


def test_nothing_is_said_where_nothing_failed_and_errored_questions_are_no_failures():
    right = [asked(n, "x", "yes", "yes") for n in range(5)]
    assert group_failures(right) == ()
    assert group_failures([*right, asked(5, "x", "yes", "", error="ModelTimeout: late")]) == ()


@pytest.mark.parametrize(
    ("answer", "expected", "finish", "form"),
    [
        ("Billing.", "billing", "stop", "spelling"),
        ("bil ling", "billing", "stop", "spelling"),
        ("It is billing, I think", "billing", "stop", "names the answer"),
        ("billing or tech", "billing", "stop", "no label"),
        ("tech", "billing", "stop", None),
        ("it is tech", "billing", "stop", None),
        ("", "billing", "stop", "empty"),
        ("Well, this is a long", "billing", "length", "cut"),
        ("I'm sorry, but I cannot help", "billing", "stop", "refusal"),
        ("who knows", "billing", "stop", "no label"),
        ("{'a': 1}", '{"a": 1}', "stop", "invalid JSON"),
        ('{"a":1', '{"a": 1}', "length", "cut"),
        ('{"b": 2', '{"a": 1}', "length", "cut"),
        ('{"b":2,"a":1}', '{"a": 1, "b": 2}', "stop", "same JSON"),
        ('{"a": 2}', '{"a": 1}', "stop", None),
    ],
)
def test_the_form_of_an_answer(answer: str, expected: str, finish: str, form: str | None):
    labels = () if expected.startswith("{") else LABELS
    one = asked(0, "x", expected, answer, finish=finish)
    assert form_of(one, labels) == form
    assert is_right_read_kindly(one, labels) == (form in ("spelling", "names the answer", "same JSON"))


def test_forms_come_first_with_their_mend():
    rows = [asked(n, f"t {n}", "tech", "Tech." if n < 4 else "tech") for n in range(12)]
    first = group_failures(rows, LABELS)[0]
    assert (first.kind, first.name, first.failures, first.p) == ("form", "spelling", 4, None)
    assert "transform" in first.mend
    assert forms_in([first]) == {"spelling": 4}


def test_outcomes_pairs_and_the_ceiling():
    letters = outcomes([asked(0, "x", "a", " a\n"), asked(1, "x", "a", "b"), asked(3, "x", "a", "", error="late")], 5)
    assert letters == "10 e "
    assert paired("1100 1", "10 1e1") == (2, 1, 1, 0)
    assert ceiling([["a", "a", "b"], ["c"]]) == 0.75
    assert ceiling([]) == 1.0

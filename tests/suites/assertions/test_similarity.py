import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nltk.translate.gleu_score import sentence_gleu

from suites.assertions import extras
from suites.assertions.similarity import _gleu
from suites.assertions.spec import AssertionSpec
from tests.suites.assertions.judging import errored, holds, judged, refused

CAT = "the cat sat on the mat"
GRADED = ("bleu", "gleu", "rouge-n", "f-score", "meteor")


@pytest.mark.parametrize(
    ("kind", "answer", "value", "score"),
    [
        ("bleu", CAT, CAT, 1.0),
        ("bleu", "hello world", "hello world", 1.0),
        ("bleu", "The CAT sat on the mat", CAT, 1.0),
        # 5/6 · 3/5 · 1/4 · 0: by hand, with 1e-7 / 3 for the order that has no match
        ("bleu", "the cat sat near the mat", CAT, (5 / 6 * 3 / 5 * 1 / 4 * 1e-7 / 3) ** 0.25),
        ("bleu", "the cat sat on", CAT, 0.6065306597),  # all there, and the brevity penalty e^(1 - 6/4)
        ("bleu", "", CAT, 0.0),
        ("gleu", CAT, CAT, 1.0),
        ("gleu", "hello there world", "hello world", 2 / 6),
        ("gleu", "hello world.", "hello world", 1.0),
        ("gleu", "", "hello", 0.0),
        ("rouge-n", "the cat sat", CAT, 0.5),
        ("rouge-n", "THE cat, sat on; the mat!", CAT, 1.0),
        ("rouge-n", "mat mat mat", CAT, 1 / 6),
        ("f-score", "the cat", CAT, 0.5),
        ("f-score", "Paris, France", "paris", 2 / 3),
        ("meteor", CAT, CAT, 1 - 0.5 * (1 / 6) ** 3),
        ("meteor", "the cats sitting", "the cat sits", 1 - 0.5 * (1 / 3) ** 3),  # by stems
        ("meteor", "something else", CAT, 0.0),
        ("meteor", "", CAT, 0.0),
    ],
)
def test_scores_are_those_of_their_definition(kind, answer, value, score):
    assert judged(kind, answer, value).score == pytest.approx(score, abs=1e-6)


@pytest.mark.parametrize("kind", GRADED)
def test_the_nearest_of_several_texts_counts_and_not_turns_the_score_round(kind):
    found = judged(kind, CAT, ["something else entirely", CAT])
    turned = judged("not-" + kind, CAT, ["something else entirely", CAT])
    assert found.passed
    assert not turned.passed
    assert turned.score == pytest.approx(1 - found.score)


@pytest.mark.parametrize(("kind", "least"), [("bleu", 0.5), ("gleu", 0.5), ("rouge-n", 0.75), ("meteor", 0.5)])
def test_without_a_threshold_promptfoos_holds(kind, least):
    assert f"of at least {least:g} with" in judged(kind, "x", "y").reason


def test_a_score_must_reach_the_threshold():
    assert holds("f-score", "the cat", CAT, threshold=0.5)
    assert not holds("f-score", "the cat", CAT, threshold=0.51)


def test_rouge_n_of_pairs_of_words_and_meteors_weights_are_configured():
    assert judged("rouge-n", "the cat on the mat", CAT, config={"n": 2}).score == pytest.approx(3 / 5)
    assert judged("meteor", CAT, CAT, config={"gamma": 0}).score == 1.0


def test_levenshtein_counts_edits_up_to_five_or_the_threshold():
    assert holds("levenshtein", "kitten", "sitting")
    assert not holds("levenshtein", "kitten", "sitting", threshold=2)
    assert holds("not-levenshtein", "kitten", "sitting", threshold=2)
    assert holds("levenshtein", "same", "same", threshold=0)
    assert not holds("levenshtein", "some", "same", threshold=0)
    assert "(3 from it)" in judged("levenshtein", "kitten", "sitting").reason
    assert "(more than 5 from it)" in judged("levenshtein", "x" * 50, "y" * 50).reason


def test_texts_of_a_megabyte_are_compared_within_seconds_or_not_at_all():
    started = time.process_time()
    assert not holds("levenshtein", "ab" * 500_000, "ca" * 500_000)
    assert "are not compared" in errored("levenshtein", "ab" * 500_000, "ca" * 500_000, threshold=400_000)
    assert "are not compared by METEOR" in errored("meteor", "a b " * 5_000, "b a " * 5_000)
    assert "is not measured" in errored("bleu", "a " * 500_000, CAT)
    assert not holds("gleu", "a " * 99_000, CAT)
    assert time.process_time() - started < 20


@given(st.lists(st.sampled_from("abcd"), max_size=12), st.lists(st.sampled_from("abcd"), min_size=1, max_size=12))
def test_gleu_is_nltks(answer, reference):
    spec = AssertionSpec(type="gleu", value=" ".join(reference))
    expected = sentence_gleu([reference], answer) if answer else 0.0
    assert _gleu(" ".join(answer), [" ".join(reference)], spec) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("spec", "message", "fix"),
    [
        ({"type": "bleu"}, "needs the text that is right", "list of texts"),
        ({"type": "gleu", "value": []}, "needs the text that is right", "list of texts"),
        ({"type": "meteor", "value": {"a": 1}}, "needs the text that is right", "list of texts"),
        ({"type": "rouge-n", "value": " "}, "with an empty text is always 0", "write the text"),
        ({"type": "f-score", "value": "x", "threshold": 50}, "has scores from 0 to 1, its threshold is 50", "0.5"),
        ({"type": "rouge-n", "value": "x", "config": {"n": 0}}, "n-grams of 0 words", "from 1 to 9"),
        ({"type": "rouge-n", "value": "x", "config": {"m": 2}}, "has no setting 'm'", "known here: n"),
        ({"type": "meteor", "value": "x", "config": {"alpha": 2}}, "alpha cannot be 2", "from 0 to 1"),
        ({"type": "gleu", "value": "x", "config": {"n": 2}}, "takes no `config`", "remove"),
        ({"type": "levenshtein", "value": ["x"]}, "needs one text", "write `value: text`"),
        ({"type": "levenshtein", "value": "x", "threshold": 1.5}, "counts edits, its threshold is 1.5", "whole"),
    ],
)
def test_a_spec_that_could_not_be_judged_is_refused(spec, message, fix):
    found = refused(**spec)
    assert message in found[0]
    assert fix in found[1]


@pytest.mark.parametrize("kind", ["bleu", "meteor", "levenshtein", "is-sql"])
def test_a_missing_extra_is_named_with_the_command_that_adds_it(kind, monkeypatch):
    monkeypatch.setattr(extras, "_there", set())
    monkeypatch.setattr(extras, "find_spec", lambda name: None)
    value = None if kind == "is-sql" else "x"
    assert refused(type=kind, value=value) == (
        f"`{kind}` needs the extra `metrics`",
        "pip install 'turnout[metrics]'",
    )

"""Examples for the prompt: alike, and covering."""

from __future__ import annotations

from suites.advice.shots import Likeness, covering, most_similar

TEXTS = (
    "refund my order please", "I want a refund of the order", "refund for a broken order", "reset my password now",
    "the password does not work", "cannot log in with my password", "what are your opening hours", "when do you open today",
)  # fmt: skip
ANSWERS = ("billing",) * 3 + ("login",) * 3 + ("other",) * 2
ALL = frozenset(range(len(TEXTS)))


def test_the_most_similar_stand_last_and_never_the_text_itself():
    likeness = Likeness(TEXTS)
    found = most_similar(likeness, 0, ALL, 2)
    assert set(found) == {1, 2}
    assert likeness.to(0)[found[-1]] >= likeness.to(0)[found[0]]
    assert set(most_similar(likeness, 3, frozenset({0, 3, 6}), 5)) == {0, 6}


def test_a_misspelt_word_is_still_alike():
    likeness = Likeness(("passwrod reset", "password reset", "opening hours today", "opening hours"))
    assert most_similar(likeness, 0, frozenset({1, 2, 3}), 1) == (1,)


def test_labels_are_dealt_out_the_commonest_first():
    likeness = Likeness(TEXTS)
    assert [ANSWERS[at] for at in covering(likeness, ANSWERS, ALL, 5)] == [
        "billing",
        "login",
        "other",
        "billing",
        "login",
    ]
    assert sorted(covering(likeness, ANSWERS, ALL, 99)) == list(range(8))
    assert len(set(covering(likeness, ANSWERS, frozenset({0, 1, 6}), 3))) == 3


def test_a_second_example_of_a_label_is_the_least_like_the_first():
    texts = ("card lost today", "card lost today again", "pin code wrong", "hello there", "hello you there")
    chosen = covering(Likeness(texts), ("card", "card", "card", "hi", "hi"), frozenset(range(5)), 3)
    assert 2 in chosen


def test_free_text_is_covered_by_distance_alone():
    answers = tuple(f"answer {at}" for at in range(8))
    chosen = covering(Likeness(TEXTS), answers, ALL, 3)
    assert len({ANSWERS[at] for at in chosen}) == 3


def test_texts_that_share_nothing_are_chosen_in_their_order():
    assert covering(Likeness(("a1", "b2", "c3")), ("x", "y", "z"), frozenset({0, 1, 2}), 2) == (0, 1)

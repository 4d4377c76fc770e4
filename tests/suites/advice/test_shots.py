"""Examples for the prompt: alike, and covering."""

from __future__ import annotations

import random

import pytest

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


def many(count: int, seed: int = 0) -> tuple[Likeness, tuple[str, ...]]:
    """Texts of twelve words of a hundred, and labels."""
    dice = random.Random(seed)  # noqa: S311
    words = [f"{head}{tail}" for head in ("bra", "clo", "dri", "fle", "gru") for tail in range(20)]
    texts = [" ".join(dice.choices(words, k=12)) for _ in range(count)]
    return Likeness(texts), tuple("abcdef"[at % 6] for at in range(count))


@pytest.mark.parametrize("seed", range(5))
def test_fewer_examples_are_the_first_of_more(seed: int):
    likeness, answers = many(60, seed)
    allowed = frozenset(random.Random(seed).sample(range(60), 40))  # noqa: S311
    most = covering(likeness, answers, allowed, 16)
    assert [covering(likeness, answers, allowed, count) for count in (1, 4, 8)] == [most[:1], most[:4], most[:8]]


def test_a_texts_centrality_is_the_sum_of_its_similarities():
    likeness, _ = many(30)
    among = list(range(0, 30, 2))
    found = likeness.centralities(among)
    for at in among:
        assert found[at] == pytest.approx(sum(likeness.to(at).get(other, 0.0) for other in among if other != at))


@pytest.mark.parametrize("count", [100, 400])
def test_of_many_texts_only_those_that_are_chosen_are_compared_with_all(count: int, monkeypatch: pytest.MonkeyPatch):
    likeness, answers = many(count)
    compared: list[int] = []
    to = Likeness.to
    monkeypatch.setattr(Likeness, "to", lambda self, at: compared.append(at) or to(self, at))  # type: ignore[func-returns-value]
    chosen = covering(likeness, answers, frozenset(range(count)), 16)
    assert compared == list(chosen)

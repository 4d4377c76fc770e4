from __future__ import annotations

import random
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune.data import Example, clean, digest, input_key, parse_examples, similar, split
from prompts.errors import BadFile, BadInput


def ticket(text: str, expected: str = "billing") -> Example:
    return Example({"ticket": text}, expected)


# ---- reading


def test_examples_are_read_one_a_line():
    lines = ['{"vars": {"ticket": "I was charged twice"}, "expected": "billing"}\n', "\n"]
    assert parse_examples(lines, "train.jsonl") == [ticket("I was charged twice")]


def test_all_faults_of_a_file_are_reported_together_with_line_and_fix():
    lines = [
        "not json",
        '{"vars": {"ticket": "a"}, "expected": "x"}',
        '{"vars": [], "expected": 7, "label": "x"}',
        '{"expected": "  "}',
        "[]",
    ]
    with pytest.raises(BadFile) as caught:
        parse_examples(lines, "train.jsonl")
    faults = caught.value.faults
    assert [(fault.path, fault.line) for fault in faults] == [
        ("train.jsonl", 1),
        ("train.jsonl", 3),
        ("train.jsonl", 3),
        ("train.jsonl", 3),
        ("train.jsonl", 4),
        ("train.jsonl", 4),
        ("train.jsonl", 5),
    ]
    assert {fault.message for fault in faults if fault.line == 3} == {
        "unknown key 'label'",
        "`vars` is an object, not a list",
        "`expected` is a text, not a number",
    }
    assert {fault.message for fault in faults if fault.line == 4} == {"missing key 'vars'", "`expected` is empty"}
    assert all(fault.fix for fault in faults)


def test_a_file_without_examples_is_a_fault():
    with pytest.raises(BadFile, match="no examples"):
        parse_examples(["\n"], "train.jsonl")


def test_digest_depends_on_content_not_on_the_order_of_keys():
    one, other = Example({"a": 1, "b": 2}, "x"), Example({"b": 2, "a": 1}, "x")
    assert digest([one]) == digest([other])
    assert digest([one]).startswith("sha256:")
    assert digest([one, ticket("b")]) != digest([ticket("b"), one])


# ---- leaks


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("I was charged twice for my order", "held-out"),
        ("  i WAS charged\ttwice for my order ", "held-out"),
        ("Ｉ was charged twice for my order", "held-out"),  # a full-width I, equal under NFKC
        ("I was charged twice for my order!", "held-out-near"),
        ("For my order I was charged twice", "held-out-near"),  # the same words
        ("I was charged twice for my orders", "held-out-near"),
    ],
)
def test_what_repeats_a_heldout_case_is_dropped(text, reason):
    report = clean([ticket(text), ticket("Where is my parcel?")], [{"ticket": "I was charged twice for my order"}])
    assert report.kept == (ticket("Where is my parcel?"),)
    assert [(drop.index, drop.reason, drop.matched) for drop in report.drops] == [(0, reason, 0)]


def test_another_question_with_some_of_the_same_words_is_kept():
    report = clean([ticket("I was not charged for the parcel that you lost")], [{"ticket": "I was charged twice"}])
    assert len(report.kept) == 1


def test_of_repeated_examples_the_earliest_stays():
    report = clean([ticket("My parcel is late"), ticket("my parcel is LATE"), ticket("My parcel is late!")], [])
    assert report.kept == (ticket("My parcel is late"),)
    assert [(drop.index, drop.reason, drop.matched) for drop in report.drops] == [
        (1, "duplicate", 0),
        (2, "near-duplicate", 0),
    ]


def test_an_input_with_two_answers_is_a_conflict_and_dropped():
    report = clean([ticket("It broke", "returns"), ticket("Hello", "sales"), ticket("it  broke", "technical")], [])
    assert report.kept == (ticket("Hello", "sales"),)
    assert [(conflict.indexes, conflict.outputs) for conflict in report.conflicts] == [
        ((0, 2), ("returns", "technical"))
    ]


def test_long_texts_are_compared_by_words():
    words = [f"word{number}" for number in range(60)]
    changed = [*words[:-1], "other"]  # 55 of 57 five-word shingles shared
    spread = [word if number % 6 else "other" for number, word in enumerate(words)]  # the same words, no long runs
    assert similar({"t": " ".join(words)}, {"t": " ".join(changed)})
    assert not similar({"t": " ".join(words)}, {"t": " ".join(spread)})


def test_values_that_are_not_text_count():
    assert input_key({"n": 1, "t": "A"}) == input_key({"t": "a", "n": 1})
    assert input_key({"n": 1}) != input_key({"n": 2})


texts = st.text(alphabet="abc AB\u00e9\ufb01\u0130", max_size=12)


@given(st.lists(st.tuples(texts, st.sampled_from("xy")), max_size=12), st.lists(texts, max_size=6))
def test_no_example_kept_equals_a_heldout_case_or_another_and_none_is_lost(pairs, heldout):
    examples = [ticket(text, expected) for text, expected in pairs]
    report = clean(examples, [{"ticket": text} for text in heldout])
    kept = [input_key(example.vars) for example in report.kept]
    assert not set(kept) & {input_key({"ticket": text}) for text in heldout}
    assert len(set(kept)) == len(kept)
    conflicting = sum(len(conflict.indexes) for conflict in report.conflicts)
    assert len(report.kept) + len(report.drops) + conflicting == len(examples)


@given(st.lists(st.text(alphabet="ab ", min_size=1, max_size=20), min_size=2, max_size=8))
def test_the_index_finds_what_comparing_all_pairs_finds(found):
    examples = [ticket(text) for text in found]
    kept: list[Example] = []
    for example in examples:
        if not any(input_key(example.vars) == input_key(one.vars) or similar(example.vars, one.vars) for one in kept):
            kept.append(example)
    assert clean(examples, []).kept == tuple(kept)


def test_two_thousand_examples_against_two_thousand_cases_take_seconds():
    chance = random.Random(7)  # noqa: S311  a repeatable test, no secret
    words = ["".join(chance.choices("etaoinshrdlu", k=5)) for _ in range(800)]

    def text() -> str:
        return " ".join(chance.choices(words, k=20))

    started_s = time.process_time()
    report = clean([ticket(text()) for _ in range(2000)], [{"ticket": text()} for _ in range(2000)])
    assert time.process_time() - started_s < 15
    assert len(report.kept) == 2000


# ---- splitting


def distinct(count: int, expected: str) -> list[Example]:
    return [ticket(f"{expected} {number * 104729:x}{number * 7919:o}", expected) for number in range(count)]


def test_dev_takes_its_share_of_every_answer():
    train, dev = split(distinct(60, "billing") + distinct(40, "sales"), 0.2, seed=1)
    assert (len(train), len(dev)) == (80, 20)
    assert sum(example.expected == "billing" for example in dev) == 12


def test_the_split_is_a_partition_that_depends_on_the_seed_and_not_on_the_order():
    examples = distinct(50, "billing") + distinct(50, "sales")
    train, dev = split(examples, seed=1)
    assert set(map(str, train)) | set(map(str, dev)) == set(map(str, examples))
    assert not set(map(str, train)) & set(map(str, dev))
    assert set(map(str, split(examples[::-1], seed=1)[1])) == set(map(str, dev))
    assert set(map(str, split(examples, seed=2)[1])) != set(map(str, dev))


@pytest.mark.parametrize(("count", "size"), [(20, 8), (10, 5), (3, 1), (1000, 100)])
def test_dev_has_at_least_8_and_at_most_100_but_never_more_than_half(count, size):
    assert len(split([ticket(f"{number:040b}", f"{number}") for number in range(count)], seed=1)[1]) <= size
    assert len(split(distinct(count, "billing"), seed=1)[1]) <= size


@settings(max_examples=30)
@given(st.integers(0, 1000))
def test_near_duplicates_never_straddle(seed):
    examples = distinct(30, "billing")
    twins = [ticket(example.vars["ticket"] + "!", example.expected) for example in examples]
    train, dev = split(examples + twins, 0.3, seed=seed)
    assert not {example.vars["ticket"].rstrip("!") for example in train} & {
        example.vars["ticket"].rstrip("!") for example in dev
    }


def test_a_split_of_nothing_is_refused():
    with pytest.raises(BadInput, match="at least 2"):
        split([ticket("a")], seed=1)
    with pytest.raises(BadInput, match="dev_share"):
        split(distinct(9, "x"), 1.5, seed=1)

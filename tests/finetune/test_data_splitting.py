from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune.data import Example, split
from prompts.errors import BadInput


def ticket(text: str, expected: str = "billing") -> Example:
    return Example({"ticket": text}, expected)


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

import pytest

from prompts.errors import BadInput
from suites.case import Case
from suites.filters import Filter

TAGS = (["billing"], ["billing", "slow"], ["account"], [], ["slow"])
CASES = [
    Case.model_validate({"vars": {"ticket": f"ticket {number}", "more": [{"note": f"note-{number}"}]}, "tags": tags})
    for number, tags in enumerate(TAGS)
]


@pytest.mark.parametrize(
    ("given", "positions"),
    [
        ({"tags": ["billing"]}, [0, 1]),
        ({"tags": ["billing", "account"]}, [0, 1, 2]),
        ({"tags": ["billing", "!slow"]}, [0]),
        ({"tags": ["!slow"]}, [0, 2, 3]),
        ({"cases": [CASES[3].id]}, [3]),
        ({"cases": ["ticket 4"]}, [4]),
        ({"cases": ["note-2", "ticket 0"]}, [0, 2]),
        ({"first": 2}, [0, 1]),
        ({"first": 9}, [0, 1, 2, 3, 4]),
        ({"tags": ["!slow"], "first": 2}, [0, 2]),
        ({"sample": 9}, [0, 1, 2, 3, 4]),
        ({}, [0, 1, 2, 3, 4]),
    ],
)
def test_a_filter_chooses_cases_in_their_order(given, positions):
    assert list(Filter.model_validate(given).choose(CASES)) == positions


def test_a_sample_is_the_same_for_its_seed_and_another_for_another():
    drawn = {seed: tuple(Filter(sample=2, seed=seed).choose(CASES)) for seed in range(10)}
    assert drawn == {seed: tuple(Filter(sample=2, seed=seed).choose(CASES)) for seed in range(10)}
    assert len(set(drawn.values())) > 1
    assert all(len(set(positions)) == 2 for positions in drawn.values())


def test_a_filter_that_leaves_nothing_names_the_tags_there_are():
    with pytest.raises(BadInput, match=r"no case fits .*: the suite's tags are account, billing, slow"):
        Filter(tags=("biling",)).choose(CASES)


def test_no_filter_is_none():
    assert not Filter()
    assert not Filter(seed=7)
    assert Filter(first=1)
    assert Filter(tags=("a",), seed=7).as_data() == {"tags": ["a"], "seed": 7}

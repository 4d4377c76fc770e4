import pytest

from tests.suites.assertions.judging import holds, judged, refused


@pytest.mark.parametrize(
    ("kind", "value", "right", "wrong"),
    [
        ("word-count", 3, "one two\n three ", "one two"),
        ("word-count", "2", "a b", "a b c"),
        ("word-count", {"min": 2}, "a b c", "a"),
        ("word-count", {"max": 2}, "", "a b c"),
        ("word-count", {"min": 1, "max": 2}, "a", "a b c"),
        ("character-count", 3, "a😀é", "ab"),
        ("character-count", {"max": 2}, "ab", "abc"),
    ],
)
def test_counts_hold_exactly_or_within_bounds(kind, value, right, wrong):
    assert holds(kind, right, value)
    assert not holds(kind, wrong, value)
    assert not holds("not-" + kind, right, value)
    assert holds("not-" + kind, wrong, value)


def test_the_reason_names_the_bounds_and_the_count():
    assert judged("word-count", "a b c", {"min": 5, "max": 9}).reason == "expected: 5 to 9 words; got 3"
    assert judged("word-count", "a", {"max": 2}).reason == "as expected: at most 2 words; got 1"
    assert judged("character-count", "a", 1500).reason == "expected: exactly 1,500 characters; got 1"


@pytest.mark.parametrize("value", [None, "many", True, -1, 1.5, [], {}, {"least": 3}, {"min": "x"}])
def test_what_is_no_count_is_refused(value):
    message, fix = refused(type="word-count", value=value)
    assert message == "`word-count` needs a count"
    assert "{min: 20, max: 50}" in fix


def test_bounds_the_wrong_way_round_are_refused():
    message, fix = refused(type="character-count", value={"min": 5, "max": 2})
    assert (message, fix) == ("`character-count` has a min of 5 above its max of 2", "swap them")

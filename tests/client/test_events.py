from __future__ import annotations

import pytest

from turnout.backoff import Backoff
from turnout.events import Event, Parser


def read(*lines: str) -> list[Event]:
    parser = Parser()
    return [event for line in lines if (event := parser.feed(line)) is not None]


def test_a_stream_is_read_line_by_line() -> None:
    assert read(
        "id: 4", "event: hello", 'data: {"revision": 4}', "",
        ": still here", "",
        "id: 5", "event: changed", 'data: {"prompts":', 'data: ["a.b", "c"]}', "",
        "id:6", "",
        "id: 7", "event:all", "data: {}", "",
    ) == [
        Event("hello", 4),
        Event("changed", 5, frozenset({"a.b", "c"})),
        Event("seen", 6),
        Event("all", 7),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "lines",
    [
        ["event: changed"],
        ["event: unheard-of", "data: x", ""],
        ["data: x", ""],
        ["retry: 10", ""],
        ["id: x", ""],
        ["", "", ""],
    ],
)
def test_what_is_no_announcement_is_left_out(lines: list[str]) -> None:
    assert read(*lines) == []


@pytest.mark.parametrize("data", ["", "no JSON", "[]", '{"prompts": 7}', '{"prompts": [7]}'])
def test_a_change_that_names_nothing_readable_names_nothing(data: str) -> None:
    assert read("id: 1", "event: changed", f"data: {data}", "") == [Event("changed", 1)]


@pytest.mark.parametrize(
    ("jitter", "waits"), [(1.0, [0.5, 1, 2, 4, 8, 16, 30, 30]), (0.0, [0.25, 0.5, 1, 2, 4, 8, 15, 15])]
)
def test_attempts_are_twice_as_far_apart_each_time_up_to_half_a_minute(jitter: float, waits: list[float]) -> None:
    backoff = Backoff(lambda: jitter)

    assert [backoff.next_s() for _ in waits] == waits
    backoff.reset()
    assert backoff.next_s() == waits[0]

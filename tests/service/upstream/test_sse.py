"""Server-sent events in any pieces."""

from __future__ import annotations

import itertools
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.upstream.sse import MOST_EVENT_BYTES, EventReader, EventTooLong


def read(*pieces: bytes) -> list[bytes]:
    reader = EventReader()
    return [event for piece in pieces for event in reader.feed(piece)]


@pytest.mark.parametrize(
    ("text", "events"),
    [
        (b"data: a\n\n", [b"a"]),
        (b"data:a\n\ndata:  b\n\n", [b"a", b" b"]),
        (b"data: a\r\n\r\ndata: b\r\n\r\n", [b"a", b"b"]),
        (b"data: a\r\rdata: b\r\r", [b"a", b"b"]),
        (b"data: a\ndata: b\n\n", [b"a\nb"]),
        (b": a comment\n\nevent: message\nid: 7\nretry: 3\ndata: a\n\n", [b"a"]),
        (b"data\n\n", [b""]),
        (b"\n\n\n", []),
        (b"\xef\xbb\xbfdata: a\n\n", [b"a"]),
        (b"data: a\n", []),
        (b"database: a\n\n", []),
    ],
)
def test_events_are_read_as_the_standard_says(text: bytes, events: list[bytes]) -> None:
    assert read(text) == events


LINES = st.sampled_from([b"data: ab", b"data:", b": c", b"id: 1", b""])
ENDS = st.sampled_from([b"\n", b"\r\n", b"\r"])


@given(st.lists(LINES, max_size=8), ENDS, st.data())
def test_pieces_make_no_difference(lines: list[bytes], end: bytes, data: st.DataObject) -> None:
    text = b"".join(line + end for line in [*lines, b""])
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=6)))
    bounds = [0, *cuts, len(text)]
    assert read(*(text[a:b] for a, b in itertools.pairwise(bounds))) == read(text)
    assert read(*(text[i : i + 1] for i in range(len(text)))) == read(text)


def test_what_no_empty_line_ends_is_pending() -> None:
    reader = EventReader()
    assert reader.feed(b"data: a\n\ndata: [DONE]") == [b"a"]
    assert reader.pending() == b"[DONE]"
    assert EventReader().pending() == b""


def test_a_line_or_an_event_has_a_bound_and_comments_do_not_add_up() -> None:
    reader = EventReader()
    for _ in range(20):
        assert reader.feed(b":" + b"x" * (MOST_EVENT_BYTES // 10) + b"\n") == []
    with pytest.raises(EventTooLong):
        read(b"data: ", *[b"x" * 65536] * (MOST_EVENT_BYTES // 65536 + 1))
    with pytest.raises(EventTooLong):
        read(*[b"data: " + b"x" * 65536 + b"\n"] * (MOST_EVENT_BYTES // 65536 + 1))


def test_a_long_line_in_small_pieces_takes_linear_time() -> None:
    started = time.process_time()
    assert read(b"data: ", *[b"x"] * 200_000, b"\n\n") == [b"x" * 200_000]
    assert time.process_time() - started < 2

"""One connection, fed by hand: replies in any pieces, and bytes that are no reply."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from service.upstream.wire import Connection

BODY = b'{"choices": []}'
REPLIES = (
    b"HTTP/1.1 200 OK\r\nContent-Length: 15\r\n\r\n" + BODY,
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\n"
    + BODY[:4]
    + b"\r\nb;x=y\r\n"
    + BODY[4:]
    + b"\r\n0\r\nT: x\r\n\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 15\r\nconnection: close\r\n\r\n" + BODY,
    b"HTTP/1.0 200 OK\r\n\r\n" + BODY,
)


class Line(asyncio.Transport):
    """The other end of it: nothing is sent, and an abort is kept."""

    def __init__(self) -> None:
        super().__init__()
        self.is_aborted = False

    def write(self, data: Any) -> None: ...

    def abort(self) -> None:
        self.is_aborted = True

    def is_closing(self) -> bool:
        return self.is_aborted

    def get_write_buffer_size(self) -> int:
        return 0

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


async def told(pieces: list[bytes], *, streamed: bool) -> Any:
    """What comes of a question that is answered with `pieces` and then a closed connection: status and body, or an error."""
    connection, line = Connection(), Line()
    connection.connection_made(line)
    loop = asyncio.get_running_loop()
    connection.send(b"question", 1 << 20, loop.time() + 5)
    reading = asyncio.create_task(_stream(connection) if streamed else _whole(connection))
    for piece in pieces:
        await asyncio.sleep(0)
        if not line.is_aborted:
            connection.data_received(piece)
    await asyncio.sleep(0)
    connection.connection_lost(None)
    [found] = await asyncio.gather(reading, return_exceptions=True)
    connection.end()
    return found


async def _whole(connection: Connection) -> tuple[int, bytes]:
    await connection.complete()
    return connection.status, connection.body()


async def _stream(connection: Connection) -> tuple[int, bytes]:
    await connection.head()
    return await _rest(connection)


async def _rest(connection: Connection) -> tuple[int, bytes]:
    body = b""
    while piece := await connection.some():
        body += piece
    return connection.status, body


def test_a_reply_has_begun_with_the_first_bytes_of_its_body_or_its_end() -> None:
    head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"

    async def pieces_until_begun(*pieces: bytes) -> tuple[int, tuple[int, bytes]]:
        loop = asyncio.get_running_loop()
        connection = Connection()
        connection.connection_made(Line())  # type: ignore[arg-type]
        connection.send(b"question", 1 << 20, loop.time() + 5)
        waiting, needed = asyncio.create_task(connection.begun()), 0
        for number, piece in enumerate(pieces, 1):
            connection.data_received(piece)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            needed = needed or (number if waiting.done() else 0)
        await waiting
        return needed, await _rest(connection)

    assert asyncio.run(pieces_until_begun(head, b"3\r\none\r\n", b"0\r\n\r\n")) == (2, (200, b"one"))
    assert asyncio.run(pieces_until_begun(head, b"0\r\n\r\n")) == (2, (200, b""))


def cut(text: bytes, places: list[int]) -> list[bytes]:
    bounds = [0, *sorted(place % len(text) for place in places), len(text)]
    return [text[a:b] for a, b in itertools.pairwise(bounds) if a < b]


@given(st.sampled_from(REPLIES), st.lists(st.integers(0, 1000), max_size=6), st.booleans())
def test_a_reply_is_the_same_in_any_pieces(reply: bytes, places: list[int], streamed: bool) -> None:
    found = asyncio.run(told(cut(reply, places), streamed=streamed))
    assert found == (200, BODY)


@given(st.sampled_from(REPLIES[:3]), st.integers(1, 1000), st.booleans())
def test_a_reply_cut_short_is_an_error_and_never_a_part(reply: bytes, place: int, streamed: bool) -> None:
    short = reply[: place % (len(reply) - 1) + 1]
    found = asyncio.run(told([short], streamed=streamed))
    assert isinstance(found, ConnectionError), found


@given(st.sampled_from(REPLIES), st.binary(max_size=200), st.integers(0, 1000), st.booleans())
def test_whatever_comes_ends_the_question(reply: bytes, noise: bytes, place: int, streamed: bool) -> None:
    at = place % len(reply)
    found = asyncio.run(told([reply[:at] + noise, reply[at:]], streamed=streamed))
    assert isinstance(found, ConnectionError | tuple), found

"""What is written in one turn of the loop goes out together, in its order, and nothing is lost when a connection closes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import httpx
import pytest
import uvicorn

from service.coalescing import Coalesced, CoalescingProtocol
from service.listening import listen


class Written:
    """A transport that remembers."""

    def __init__(self) -> None:
        self.writes: list[bytes] = []
        self.is_closed = False

    def write(self, data: bytes) -> None:
        assert not self.is_closed
        self.writes.append(data)

    def close(self) -> None:
        self.is_closed = True

    def is_closing(self) -> bool:
        return self.is_closed

    def get_extra_info(self, name: str) -> str:
        return f"the transport's {name}"


def written(work: Callable[[Any], None]) -> Written:
    """What comes of `work` with a transport in one turn."""
    transport = Written()

    async def turn() -> None:
        work(Coalesced(transport, asyncio.get_running_loop()))  # type: ignore[arg-type]
        for _ in range(3):
            await asyncio.sleep(0)

    asyncio.run(turn())
    return transport


@pytest.mark.parametrize(
    ("pieces", "writes"),
    [
        ([b"a"], [b"a"]),
        ([b"head", b"body"], [b"headbody"]),
        ([b"head", b"1", b"2", b"3"], [b"head1", b"23"]),
    ],
)
def test_pieces_of_one_turn_go_out_together(pieces: list[bytes], writes: list[bytes]) -> None:
    assert written(lambda transport: [transport.write(piece) for piece in pieces]).writes == writes  # type: ignore[func-returns-value]


def test_pieces_of_two_turns_go_out_apart() -> None:
    transport = Written()

    async def turns() -> None:
        coalesced = Coalesced(transport, asyncio.get_running_loop())  # type: ignore[arg-type]
        for piece in (b"a", b"b"):
            coalesced.write(piece)
            await asyncio.sleep(0)
            await asyncio.sleep(0)

    asyncio.run(turns())
    assert transport.writes == [b"a", b"b"]


def test_much_goes_out_at_once() -> None:
    big = b"x" * 70_000

    def work(transport: Any) -> None:
        for piece in (b"a", b"b", big, b"c"):
            transport.write(piece)

    assert written(work).writes == [b"ab", big, b"c"]


def test_what_waits_goes_out_before_the_connection_closes() -> None:
    def work(transport: Any) -> None:
        transport.write(b"last words")
        transport.close()

    transport = written(work)
    assert (transport.writes, transport.is_closed) == ([b"last words"], True)


def test_nothing_is_written_to_a_client_that_has_left_meanwhile() -> None:
    transport = Written()

    async def turn() -> None:
        Coalesced(transport, asyncio.get_running_loop()).write(b"too late")  # type: ignore[arg-type]
        transport.is_closed = True
        await asyncio.sleep(0)

    asyncio.run(turn())
    assert transport.writes == []


def test_all_else_is_the_transports_own() -> None:
    found: list[str] = []
    written(lambda transport: found.append(transport.get_extra_info("peername")))

    assert found == ["the transport's peername"]


async def answer(scope: Any, _: Any, send: Any) -> None:
    assert scope["type"] == "http"
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    for number in range(1000):
        await send({"type": "http.response.body", "body": b"%d " % number * 50, "more_body": number < 999})


def test_a_server_answers_whole_and_keeps_its_connections() -> None:
    async def run() -> list[str]:
        with listen("127.0.0.1", 0) as listener:
            config = uvicorn.Config(answer, log_level="error", lifespan="off", http=CoalescingProtocol)
            server = uvicorn.Server(config)
            serving = asyncio.create_task(server.serve([listener]))
            while not server.started:  # noqa: ASYNC110 - uvicorn tells by a flag
                await asyncio.sleep(0.01)
            url = f"http://127.0.0.1:{listener.getsockname()[1]}"
            async with httpx.AsyncClient() as client:
                found = [(await client.get(url)).text for _ in range(3)]
            server.should_exit = True
            await serving
            return found

    whole = "".join(f"{number} " * 50 for number in range(1000))
    assert asyncio.run(run()) == [whole] * 3

"""`POST /v1/chat/completions` of the embedded engine: whole, or as server-sent events while the model writes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import Future
from contextlib import suppress
from typing import Any

import msgspec
from litestar import Request, Response, post
from litestar.datastructures import State
from litestar.response import Stream

from service.engine import errors, replies
from service.engine.asks import Answer, Ask, Piece
from service.engine.core import Generator
from service.engine.errors import HungUp
from service.engine.protocol import ChatBody, as_ask, read_chat
from service.engine.replies import ChunkMaker

_DONE = b"data: [DONE]\n\n"
Asked = Request[Any, Any, State]


@post("/v1/chat/completions", status_code=200)
async def chat(request: Asked, state: State) -> Response[Any] | Stream:
    """One request of OpenAI's form; a client that hangs up gives its place back at the next token."""
    generator: Generator = state.generator
    raw = await request.body()
    body = read_chat(raw)
    ask = as_ask(body, state.spec.alias, generator.adapters, len(raw))
    await _prepare(generator, ask)
    if body.stream:
        return await _streamed(request, generator, ask, body)
    answer = await _unless_hung_up(request, asyncio.wrap_future(generator.submit(ask)))
    return Response(replies.make_reply(answer, body.model))


async def _prepare(generator: Generator, ask: Ask) -> None:
    """Compile a guide beside the model's thread, and have the bytes of tokens at hand."""
    if ask.guide is None and ask.top_logprobs is None:
        return
    guides = await asyncio.wrap_future(generator.prepare())
    if ask.guide is not None and ask.guide.kind != "choice":
        await asyncio.to_thread(guides.compile, ask.guide)


async def _unless_hung_up(request: Asked, waited: asyncio.Future[Any]) -> Any:
    """What is waited for; where the client closes its connection first, the request is dropped."""
    hung_up = asyncio.ensure_future(request.receive())  # after the body, the next event is the end of the connection
    try:
        await asyncio.wait({waited, hung_up}, return_when=asyncio.FIRST_COMPLETED)
        if not waited.done():
            raise HungUp("the client hung up")
        return waited.result()
    finally:
        waited.cancel()
        hung_up.cancel()


# ------------------------------------------------------------------------------------------------ streams


class _Pieces:
    """The pieces of an answer, carried from the model's thread to this loop; None is the end."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._queue: asyncio.Queue[Piece | None] = asyncio.Queue()

    def tell(self, piece: Piece) -> None:
        self._put(piece)

    def end(self, _: Future[Answer]) -> None:
        self._put(None)

    def _put(self, piece: Piece | None) -> None:
        with suppress(RuntimeError):  # the loop is closed: nobody listens any more
            self._loop.call_soon_threadsafe(self._queue.put_nowait, piece)

    async def next(self) -> Piece | None:
        return await self._queue.get()


async def _streamed(request: Asked, generator: Generator, ask: Ask, body: ChatBody) -> Stream:
    """The answer as events. What fails before the first piece is an error with its status."""
    pieces = _Pieces()
    future = generator.submit(ask, pieces.tell)
    future.add_done_callback(pieces.end)
    try:
        first = await _unless_hung_up(request, asyncio.ensure_future(pieces.next()))
        if first is None:
            future.result()  # raises why there is none
    except BaseException:
        future.cancel()
        raise
    options = body.stream_options
    chunks = ChunkMaker(body.model, with_usage=options is not None and bool(options.include_usage))
    events = _events(first, pieces, future, chunks)
    return Stream(events, media_type="text/event-stream", headers={"Cache-Control": "no-store"})


async def _events(
    first: Piece | None, pieces: _Pieces, future: Future[Answer], chunks: ChunkMaker
) -> AsyncIterator[bytes]:
    try:
        piece = first
        while piece is not None:
            for chunk in chunks.of(piece):
                yield _event(chunk)
            piece = await pieces.next()
        error = future.exception()
        if error is not None:
            yield _event(errors.body_of(error)[1])
            return
        for chunk in chunks.last(future.result()):
            yield _event(chunk)
        yield _DONE
    finally:
        future.cancel()  # where the client hung up; otherwise it is done


def _event(content: Any) -> bytes:
    return b"data: " + msgspec.json.encode(content) + b"\n\n"

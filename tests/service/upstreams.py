"""An OpenAI-compatible upstream on loopback that answers, or fails, exactly as it is told: bytes, times and all.

What is to happen with the next questions is put into `acts`, in their order; without any, `otherwise` happens. An act
gets the connection and does with it what it likes:

    async with Upstream() as upstream:
        upstream.acts += [says(503, {}), reset()]
        upstream.otherwise = answers("billing")
"""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Act = Callable[["Asked"], Awaitable[None]]


@dataclass
class Asked:
    """One question, and the connection that it came by; `connection` counts them from 1."""

    path: str
    headers: Mapping[str, str]
    body: Mapping[str, Any]
    connection: int
    reader: asyncio.StreamReader = field(repr=False)
    writer: asyncio.StreamWriter = field(repr=False)

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def until_hung_up(self) -> None:
        while await self.reader.read(65536):
            pass

    def reset(self) -> None:
        self.writer.transport.abort()


class Upstream:
    """See the module. Its port is taken at once, and asked on once it is entered.

    `asked` keeps what came; `connections` counts what was opened, `hung_up` acts that were left.
    """

    def __init__(self, otherwise: Act | None = None, tls: ssl.SSLContext | None = None) -> None:
        self.acts: deque[Act] = deque()
        self.otherwise = otherwise or answers("billing")
        self.asked: list[Asked] = []
        self.connections = 0
        self.hung_up = 0
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        self._tls = tls
        self._server: asyncio.Server | None = None
        self._serving: set[asyncio.Task[None]] = set()

    @property
    def base_url(self) -> str:
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}/v1"

    async def __aenter__(self) -> Upstream:
        self._server = await asyncio.start_server(self._serve, sock=self._socket, ssl=self._tls)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._serving:
            task.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._serving.add(task)
        self.connections += 1
        try:
            await self._answer_all(reader, writer, self.connections)
        except (ConnectionError, asyncio.IncompleteReadError):
            self.hung_up += 1
        except asyncio.CancelledError:
            pass  # the test is over
        finally:
            self._serving.discard(task)
            writer.close()

    async def _answer_all(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
        while not writer.is_closing():
            try:
                head = await reader.readuntil(b"\r\n\r\n")
            except asyncio.IncompleteReadError:
                return  # closed between two questions
            line, *rest = head.decode("latin-1").split("\r\n")
            headers = {name.lower(): value.strip() for name, _, value in (row.partition(":") for row in rest if row)}
            raw = await reader.readexactly(int(headers.get("content-length", 0)))
            asked = Asked(line.split()[1], headers, json.loads(raw or b"{}"), number, reader, writer)
            self.asked.append(asked)
            await (self.acts.popleft() if self.acts else self.otherwise)(asked)


# ------------------------------------------------------------------------------------------------ answers


def completion(text: str, **more: Any) -> dict[str, Any]:
    """OpenAI's chat completion."""
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    usage = {"prompt_tokens": 9, "completion_tokens": 2, "total_tokens": 11}
    return {"id": "up-1", "object": "chat.completion", "model": "up", "choices": [choice], "usage": usage, **more}


def chunk(delta: Mapping[str, Any], finish_reason: str | None = None, **more: Any) -> dict[str, Any]:
    """One chunk of a stream."""
    choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
    return {"id": "up-1", "object": "chat.completion.chunk", "model": "up", "choices": [choice], **more}


def chunks_of(*words: str) -> list[dict[str, Any]]:
    """A whole stream: the role, each word, why it finished, what it took."""
    usage = {"prompt_tokens": 9, "completion_tokens": len(words), "total_tokens": 9 + len(words)}
    first, last = chunk({"role": "assistant", "content": ""}), chunk({}, "stop")
    return [first, *(chunk({"content": word}) for word in words), last, {**last, "choices": [], "usage": usage}]


def http(status: int, body: bytes, headers: Mapping[str, str] | None = None) -> bytes:
    """A reply with its length."""
    lines = {"Content-Type": "application/json", "Content-Length": str(len(body)), **(headers or {})}
    return f"HTTP/1.1 {status} X\r\n".encode() + _lines(lines) + body


def stream_head(headers: Mapping[str, str] | None = None) -> bytes:
    lines = {"Content-Type": "text/event-stream", "Transfer-Encoding": "chunked", **(headers or {})}
    return b"HTTP/1.1 200 OK\r\n" + _lines(lines)


def framed(data: bytes) -> bytes:
    """One chunk of chunked transfer coding; of nothing it is the end."""
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


def event(data: Mapping[str, Any] | str) -> bytes:
    return f"data: {data if isinstance(data, str) else json.dumps(data)}\n\n".encode()


def _lines(headers: Mapping[str, str]) -> bytes:
    return "".join(f"{name}: {value}\r\n" for name, value in headers.items()).encode() + b"\r\n"


def says(status: int, body: Any = None, headers: Mapping[str, str] | None = None) -> Act:
    """A status and a body: bytes as they are, anything else as JSON."""
    raw = body if isinstance(body, bytes) else json.dumps(body if body is not None else {}).encode()

    async def act(asked: Asked) -> None:
        await asked.send(http(status, raw, headers))

    return act


def answers(text: str, after_s: float = 0, words_s: float = 0) -> Act:
    """As a sound upstream does: a completion, or, for who asks for it, the stream of its words, `words_s` between."""
    whole = http(200, json.dumps(completion(text)).encode())

    async def act(asked: Asked) -> None:
        await asyncio.sleep(after_s)
        if asked.body.get("stream"):
            await streams(chunks_of(*text.split(" ")), between_s=words_s)(asked)
        elif asked.path.endswith("/embeddings"):
            given = asked.body["input"]
            data = [{"object": "embedding", "index": i, "embedding": [1.0, 0.0]} for i in range(len(given))]
            body = {"object": "list", "data": data, "usage": {"prompt_tokens": 3, "total_tokens": 3}}
            await asked.send(http(200, json.dumps(body).encode()))
        else:
            await asked.send(whole)

    return act


def streams(chunks: Sequence[Mapping[str, Any] | str], between_s: float = 0, ends: str = "done") -> Act:
    """Chunks as events. `ends`: `done` as it should, `clean` without [DONE], `cut` in the middle of the body, `silent`
    never."""

    async def act(asked: Asked) -> None:
        await asked.send(stream_head())
        for index, one in enumerate(chunks):
            if index and between_s:
                await asyncio.sleep(between_s)
            await asked.send(framed(event(one)))
        if ends == "silent":
            await asked.until_hung_up()
            raise ConnectionResetError
        if ends == "cut":
            asked.writer.close()
            return
        await asked.send((framed(event("[DONE]")) if ends == "done" else b"") + framed(b""))

    return act


# ------------------------------------------------------------------------------------------------ faults


def resets(after: bytes = b"") -> Act:
    """The connection is reset, after so many bytes of a reply."""

    async def act(asked: Asked) -> None:
        if after:
            await asked.send(after)
            await asyncio.sleep(0.02)  # so that the bytes are read before the reset
        asked.reset()

    return act


def silent() -> Act:
    """The question is taken, and nothing ever comes."""

    async def act(asked: Asked) -> None:
        await asked.until_hung_up()
        raise ConnectionResetError

    return act


def slow_bytes(data: bytes, each_s: float) -> Act:
    """A byte at a time."""

    async def act(asked: Asked) -> None:
        for index in range(len(data)):
            await asked.send(data[index : index + 1])
            await asyncio.sleep(each_s)

    return act


def cut_off(text: str = "billing") -> Act:
    """A completion whose connection closes before its length is there."""
    whole = http(200, json.dumps(completion(text)).encode())

    async def act(asked: Asked) -> None:
        await asked.send(whole[:-10])
        asked.writer.close()

    return act


def endless(piece: bytes = b"x" * 65536) -> Act:
    """A body that never ends."""

    async def act(asked: Asked) -> None:
        await asked.send(stream_head({"Content-Type": "application/json"}))
        while True:
            await asked.send(framed(piece))

    return act


def answers_and_closes(text: str = "billing") -> Act:
    """A good answer, after which the kept-alive connection is closed without a word."""

    async def act(asked: Asked) -> None:
        await asked.send(http(200, json.dumps(completion(text)).encode()))
        asked.writer.close()

    return act

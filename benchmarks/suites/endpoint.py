"""A local chat-completions endpoint that answers after a set time: `python -m benchmarks.suites.endpoint DELAY_MS`.

Its port is its first line on stdout; `GET /asked` answers how many completions it was asked for, and how many of these
were asked before. Written on a bare protocol so that it takes as little as possible of the machine that is measured.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import sys

ANSWER = "The queue of this ticket is billing."
_BODY = json.dumps(
    {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "bench",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": ANSWER}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 40, "completion_tokens": 9, "total_tokens": 49},
    }
).encode()


class Endpoint(asyncio.Protocol):
    """One connection; requests come one after another on it."""

    delay_s = 0.0
    asked = 0
    again = 0
    seen: set[bytes] = set()  # noqa: RUF012 - one for all connections is what is meant

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.waiting = b""

    def data_received(self, data: bytes) -> None:
        self.waiting += data
        head, found, rest = self.waiting.partition(b"\r\n\r\n")
        if not found:
            return
        length = next(
            (int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")), 0
        )
        if len(rest) < length:
            return
        self.waiting = rest[length:]
        if head.startswith(b"GET"):
            self._reply(json.dumps({"asked": Endpoint.asked, "again": Endpoint.again}).encode())
            return
        self._count(rest[:length])
        if self.delay_s:
            asyncio.get_running_loop().call_later(self.delay_s, self._reply, _BODY)
        else:
            self._reply(_BODY)

    def _count(self, body: bytes) -> None:
        key = hashlib.blake2b(body, digest_size=8).digest()
        Endpoint.asked += 1
        Endpoint.again += key in Endpoint.seen
        Endpoint.seen.add(key)

    def _reply(self, body: bytes) -> None:
        head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        self.transport.write(head.encode() + body)  # type: ignore[attr-defined]  # a TCP transport writes


async def _serve(delay_ms: float) -> None:
    Endpoint.delay_s = delay_ms / 1000
    server = await asyncio.get_running_loop().create_server(Endpoint, "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_serve(float(sys.argv[1])))

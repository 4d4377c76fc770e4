"""An upstream that answers at once: `python -m benchmarks.gateway.upstream GAP_MS`; its port is its first line on stdout.

A stream has `CHUNKS` chunks, `GAP_MS` apart, whose content is the time at which each was sent (seconds of the system's
monotonic clock, which all processes share). A bare protocol, so that it takes as little as possible of the machine.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time

import uvloop

CHUNKS = 40
MODEL = "bench"
_BODY = json.dumps(
    {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": MODEL,
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "billing"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 40, "completion_tokens": 9, "total_tokens": 49},
    }
).encode()
_ANSWER = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(_BODY) + _BODY
_STREAM = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


class Upstream(asyncio.Protocol):
    """One connection; requests come one after another on it."""

    gap_s = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.waiting = b""

    def data_received(self, data: bytes) -> None:
        self.waiting += data
        head, found, rest = self.waiting.partition(b"\r\n\r\n")
        if not found:
            return
        length = next(
            (int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")), 0
        )
        if len(rest) < length:
            return
        self.waiting = rest[length:]
        if b'"stream":true' in rest[:length].replace(b" ", b""):
            self.transport.write(_STREAM)  # type: ignore[attr-defined]  # a TCP transport writes
            self._chunk(0)
        else:
            self.transport.write(_ANSWER)  # type: ignore[attr-defined]  # as above

    def _chunk(self, number: int) -> None:
        if number == CHUNKS:
            self.transport.write(_event(b"[DONE]") + b"0\r\n\r\n")  # type: ignore[attr-defined]  # as above
            return
        last = number == CHUNKS - 1
        delta = {} if last else {"role": "assistant", "content": f"{time.monotonic():.6f} "}
        choice = {"index": 0, "delta": delta, "finish_reason": "stop" if last else None}
        chunk = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": MODEL, "choices": [choice]}
        self.transport.write(_event(json.dumps(chunk).encode()))  # type: ignore[attr-defined]  # as above
        asyncio.get_running_loop().call_later(self.gap_s, self._chunk, number + 1)


def _event(data: bytes) -> bytes:
    line = b"data: " + data + b"\n\n"
    return b"%x\r\n" % len(line) + line + b"\r\n"


async def _serve(gap_ms: float) -> None:
    Upstream.gap_s = gap_ms / 1000
    server = await asyncio.get_running_loop().create_server(Upstream, "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(_serve(float(sys.argv[1])))

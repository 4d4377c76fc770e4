"""What passes bytes on and reads none: `python -m benchmarks.gateway.relay PORT`; its own port is its first line on stdout.

The least that a process between a client and an upstream adds: two sockets and one more process to be woken.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import uvloop


class _Upstream(asyncio.Protocol):
    def __init__(self, client: Any) -> None:
        self._client = client

    def data_received(self, data: bytes) -> None:
        self._client.write(data)


class _Client(asyncio.Protocol):
    """One connection, and one to the upstream from its first bytes on."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._upstream: Any = None
        self._waiting: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._task = asyncio.ensure_future(self._connect())

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        self._upstream, _ = await loop.create_connection(lambda: _Upstream(self._transport), "127.0.0.1", self._port)
        self._upstream.write(b"".join(self._waiting))

    def data_received(self, data: bytes) -> None:
        if self._upstream is None:
            self._waiting.append(data)
        else:
            self._upstream.write(data)

    def connection_lost(self, _: Exception | None) -> None:
        if self._upstream is not None:
            self._upstream.close()


async def _serve(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(lambda: _Client(port), "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(_serve(int(sys.argv[1])))

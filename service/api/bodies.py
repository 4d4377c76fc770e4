"""Bodies as they come over the wire: bounded, and unpacked where they are gzip, a piece at a time.

Nothing is held that is beyond a limit: neither what is sent, nor what comes of it when it is unpacked.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import cast

from litestar.types import HTTPReceiveMessage, HTTPRequestEvent, Receive

from prompts.errors import BadInput
from service.errors import TooLarge
from service.settings import Server

PIECE_BYTES = 1024 * 1024  # unpacked at once: others are served between two of them
_GZIP = 16 + zlib.MAX_WBITS
_PACK = "send it with `Content-Encoding: gzip`, send less, or raise server.max_body_bytes"
_LESS = "send less, or raise server.max_unpacked_bytes"
_LESS_OF_FILES = "send less, or raise fine_tuning.max_file_bytes"
_LESS_OF_OTHERS = "send less, or raise server.max_body_bytes"


def is_small(headers: Mapping[bytes, bytes], limits: Server) -> bool:
    """Whether a body is announced that needs no bounds: plain, and no longer than it may be. Servers hold it to that."""
    announced = headers.get(b"content-length", b"")
    return announced.isdigit() and b"content-encoding" not in headers and int(announced) <= limits.max_body_bytes


def bounded_file(headers: Mapping[bytes, bytes], receive: Receive, max_bytes: int) -> Receive:
    """The same for an uploaded file, which is plain, and may be as large as `fine_tuning.max_file_bytes`."""
    encoding = headers.get(b"content-encoding", b"").strip().lower()
    if encoding not in (b"", b"identity"):
        return _refusing(encoding.decode("latin-1"), "send the file as it is")
    announced = headers.get(b"content-length", b"")
    return _Counted(receive, max_bytes, int(announced) if announced.isdigit() else 0, _LESS_OF_FILES)


def bounded(headers: Mapping[bytes, bytes], receive: Receive, limits: Server, *, may_be_large: bool) -> Receive:
    """`receive` held to the limits of `server`: it raises TooLarge, or BadInput where the body is no gzip but says so.

    A plain body holds at most `max_body_bytes`, and so does one of gzip, packed and unpacked; for whoever pushes suites
    (`may_be_large`) that may be `max_unpacked_bytes`.
    """
    encoding = headers.get(b"content-encoding", b"").strip().lower()
    if encoding == b"gzip":
        return _Unpacked(receive, limits, may_be_large=may_be_large)
    if encoding not in (b"", b"identity"):
        return _refusing(encoding.decode("latin-1"))
    announced = headers.get(b"content-length", b"")
    if announced.isdigit() and int(announced) <= limits.max_body_bytes:
        return receive
    found_bytes = int(announced) if announced.isdigit() else 0
    return _Counted(receive, limits.max_body_bytes, found_bytes, _PACK)


def _refusing(encoding: str, fix: str = "send gzip, or no encoding") -> Receive:
    async def refuse() -> HTTPReceiveMessage:
        raise BadInput(f"Content-Encoding {encoding[:40]!r} is not understood: {fix}")

    return refuse


class _Counted:
    """What is sent, counted as it comes; `fix` is said where it is too much."""

    def __init__(self, receive: Receive, max_bytes: int, announced_bytes: int, fix: str) -> None:
        self._receive = receive
        self._max_bytes = max_bytes
        self._bytes = announced_bytes if announced_bytes > max_bytes else 0
        self._fix = fix

    async def __call__(self) -> HTTPReceiveMessage:
        self._check()
        message = cast("HTTPReceiveMessage", await self._receive())
        if message["type"] == "http.request":
            self._bytes += len(message.get("body", b""))
            self._check()
        return message

    def _check(self) -> None:
        if self._bytes > self._max_bytes:
            raise TooLarge(f"the body is larger than {self._max_bytes:,} bytes: {self._fix}")


class _Unpacked:
    """A body of gzip, unpacked by at most `PIECE_BYTES` a message, however much a piece of it would become."""

    def __init__(self, receive: Receive, limits: Server, *, may_be_large: bool) -> None:
        large_bytes = max(limits.max_unpacked_bytes, limits.max_body_bytes)
        self._max_bytes = large_bytes if may_be_large else limits.max_body_bytes
        self._fix = _LESS if may_be_large else _LESS_OF_OTHERS
        self._packed = _Counted(receive, self._max_bytes, 0, self._fix)
        self._unpacker = zlib.decompressobj(_GZIP)
        self._waiting = b""
        self._bytes = 0
        self._is_sent = False  # whether all that was sent has come
        self._is_whole = False

    async def __call__(self) -> HTTPReceiveMessage:
        while not (self._waiting or self._is_sent or self._is_whole):
            message = await self._packed()
            if message["type"] != "http.request":
                return message
            self._waiting, self._is_sent = message.get("body", b""), not message.get("more_body", False)
        return await self._packed() if self._is_whole else self._piece()

    def _piece(self) -> HTTPRequestEvent:
        body = self._unpack()
        self._bytes += len(body)
        if self._bytes > self._max_bytes:
            raise TooLarge(f"the body is larger than {self._max_bytes:,} bytes when it is unpacked: {self._fix}")
        if self._is_sent and not self._waiting and len(body) < PIECE_BYTES:
            self._is_whole = True
            if not self._unpacker.eof:
                raise BadInput("the body ends before its gzip does: send all of it")
        return {"type": "http.request", "body": body, "more_body": not self._is_whole}

    def _unpack(self) -> bytes:
        """The next piece; one gzip may follow another, as `gzip` itself reads them."""
        if self._unpacker.eof and self._waiting:
            self._unpacker = zlib.decompressobj(_GZIP)
        try:
            body = self._unpacker.decompress(self._waiting, PIECE_BYTES)
        except zlib.error as error:
            raise BadInput(f"the body says that it is gzip and is not ({error}): send gzip, or no encoding") from error
        self._waiting = self._unpacker.unused_data if self._unpacker.eof else self._unpacker.unconsumed_tail
        return body

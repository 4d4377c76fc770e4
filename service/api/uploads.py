"""A file as `multipart/form-data`, taken piece by piece into a temporary file: no upload is ever in memory."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import IO, Any

from litestar import Request
from multipart import MultipartError, MultipartSegment, PushMultipartParser, parse_options_header

from prompts.errors import BadInput
from service.fine_tuning.files import Received
from service.store.session import refused

_FIELD_BYTES, _MOST_PARTS = 1024, 16
_FORM = "send multipart/form-data with `file` and `purpose`, as OpenAI's clients do"
_AFTER = ("expires_after[anchor]", "expires_after[seconds]")


@asynccontextmanager
async def received(request: Request[Any, Any, Any], folder: Path) -> AsyncIterator[Received]:
    """What a request uploads, while the block runs.

    Raises BadInput for a body that is no such form, StorageFailed where `folder` takes no file.
    """
    kind, options = parse_options_header(request.headers.get("content-type", ""))
    if kind != "multipart/form-data" or not options.get("boundary"):
        raise BadInput(f"the body is {kind[:80] or 'of no kind'!r}: {_FORM}", param="file")
    with _on_disk(folder):
        file = await asyncio.to_thread(_temporary, folder)
    try:
        with _on_disk(folder), file:
            form = _Form(file)
            await form.read(request.stream(), options["boundary"])
        yield form.received(Path(file.name))
    finally:
        os.unlink(file.name)  # noqa: PTH108 - a moment's work, and pathlib is held to be slow in coroutines


@contextmanager
def _on_disk(folder: Path) -> Iterator[None]:
    """Tells of a disk that is full or cannot be written as of a database there."""
    try:
        yield
    except OSError as error:
        raise refused(str(folder), error.strerror or error) from error


def _temporary(folder: Path) -> IO[bytes]:
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor, name = tempfile.mkstemp(dir=folder, prefix="upload-")
    os.close(descriptor)
    return Path(name).open("wb")


class _Form:
    """The parts of one form: the file goes to `file`, the others are short texts."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._part: MultipartSegment | None = None
        self._texts: dict[str, bytes] = {}
        self._filename: str | None = None

    async def read(self, pieces: AsyncIterator[bytes], boundary: str) -> None:
        parser = PushMultipartParser(boundary, max_segment_count=_MOST_PARTS, strict=True)
        try:
            async for piece in pieces:
                await asyncio.to_thread(self._take, parser.parse(piece))
            await asyncio.to_thread(self._take, parser.parse(b""))
            parser.close()
        except MultipartError as error:
            raise BadInput(f"the body is no whole multipart/form-data ({error}): {_FORM}", param="file") from error

    def _take(self, found: Iterable[MultipartSegment | bytearray | None]) -> None:
        for one in found:
            if isinstance(one, MultipartSegment):
                self._begin(one)
            elif one:
                self._go_on(one)

    def _begin(self, part: MultipartSegment) -> None:
        self._part = part
        if part.name == "file":
            if self._filename is not None:
                raise BadInput("file: there are two of them: send one", param="file")
            self._filename = part.filename or "file.jsonl"
        elif part.name in ("purpose", *_AFTER):
            self._texts[part.name] = b""
        else:
            raise BadInput(f"unknown field {part.name[:80]!r}: {_FORM}", param=part.name[:80])

    def _go_on(self, piece: bytearray) -> None:
        assert self._part is not None  # noqa: S101 - for the type checker: a part begins before its content
        name = self._part.name
        if name == "file":
            self._file.write(piece)
            return
        self._texts[name] += piece
        if len(self._texts[name]) > _FIELD_BYTES:
            raise BadInput(f"{name}: longer than {_FIELD_BYTES} bytes", param=name)

    def received(self, path: Path) -> Received:
        texts = {name: value.decode("utf-8", "replace") for name, value in self._texts.items()}
        if self._filename is None:
            raise BadInput(f"file: there is none: {_FORM}", param="file")
        if "purpose" not in texts:
            raise BadInput("purpose: there is none: send purpose=fine-tune", param="purpose")
        filename = self._filename.replace("\\", "/").rpartition("/")[2].replace("\0", "")[:255] or "file.jsonl"
        return Received(path, filename, texts["purpose"], _after_s(texts))


def _after_s(texts: dict[str, str]) -> int | None:
    anchor, seconds = _AFTER
    if texts.get(anchor, "created_at") != "created_at":
        raise BadInput(f"{anchor}: {texts[anchor][:40]!r} is not known: it is created_at", param=anchor)
    text = texts.get(seconds)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise BadInput(f"{seconds}: {text[:40]!r} is no whole number", param=seconds)
    return int(text)

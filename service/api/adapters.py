"""Adapters over HTTP: the registry, cards, and an adapter's files for who exports it elsewhere."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import pydantic
from litestar import Response, delete, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery, JSONBody
from litestar.response import Stream

from finetune import adapter as folders
from service.adapters.registry import Adapters
from service.api.threads import in_thread
from service.context import Context
from service.identity import Principal

CARD_TYPE, TAR_TYPE = "text/markdown", "application/x-tar"
AUTHOR, ADMIN = {"role": "author"}, {"role": "admin"}
_BLOCK = 1 << 20


class PruneBody(pydantic.BaseModel, extra="forbid"):
    """`dry_run` deletes nothing."""

    dry_run: bool = False


def _adapters(context: Context) -> Adapters:
    return Adapters(context.database, context.settings)


@get("/api/adapters", opt=AUTHOR)
@in_thread
def list_adapters(context: NamedDependency[Context], prompt: FromQuery[str | None] = None) -> list[dict[str, Any]]:
    """Adapters, newest first, with their lineage, their size, and who names them."""
    return _adapters(context).listing(prompt)


@get("/api/adapters/{name:str}", opt=AUTHOR)
@in_thread
def get_adapter(context: NamedDependency[Context], name: FromPath[str]) -> dict[str, Any]:
    """One adapter: base and digests, data, recipe, scores with their evidence, size, and who names it."""
    return _adapters(context).show(name)


@get("/api/adapters/{name:str}/card", opt=AUTHOR, media_type=CARD_TYPE)
@in_thread
def get_card(context: NamedDependency[Context], name: FromPath[str]) -> Response[str]:
    """Its card, Markdown in the form of the Hub's model cards."""
    return Response(_adapters(context).card(name), media_type=CARD_TYPE)


@get("/api/adapters/{name:str}/export", opt=AUTHOR, media_type=TAR_TYPE)
@in_thread
def export_adapter(context: NamedDependency[Context], name: FromPath[str]) -> Stream:
    """Its files as they are installed, as a tar; whoever unpacks them can verify each by the manifest among them."""
    adapters = _adapters(context)
    folder = adapters.folder(name)
    names = (*sorted(folders.verify(folder).files.keys() - {folders.CARD}), folders.MANIFEST)
    return Stream(as_tar(folder, names, adapters.card(name)), media_type=TAR_TYPE)


@delete("/api/adapters/{name:str}", opt=ADMIN, status_code=200)
@in_thread
def delete_adapter(
    context: NamedDependency[Context], principal: NamedDependency[Principal], name: FromPath[str]
) -> dict[str, Any]:
    """Delete an adapter; 409 where a route, evidence, a job under way, a served name or a running engine names it."""
    return _adapters(context).remove(name, principal)


@post("/api/adapters/prune", opt=ADMIN, status_code=200)
@in_thread
def prune_adapters(
    context: NamedDependency[Context], principal: NamedDependency[Principal], data: JSONBody[PruneBody | None] = None
) -> list[dict[str, Any]]:
    """Delete what `retention` lets go now; the adapters that went or, with `dry_run`, would go."""
    return _adapters(context).prune(principal, dry_run=bool(data and data.dry_run))


def as_tar(folder: Path, names: tuple[str, ...], card: str) -> Iterator[bytes]:
    """The card and the files, without owners and times: the same adapter and card are the same bytes."""
    yield from _member(folders.CARD, io.BytesIO(card.encode()), len(card.encode()))
    for name in names:
        with (folder / name).open("rb") as file:
            yield from _member(name, file, os.fstat(file.fileno()).st_size)
    yield b"\0" * (2 * tarfile.BLOCKSIZE)


def _member(name: str, file: IO[bytes], size: int) -> Iterator[bytes]:
    about = tarfile.TarInfo(name)
    about.size = size
    yield about.tobuf(tarfile.PAX_FORMAT)
    while block := file.read(_BLOCK):
        yield block
    yield b"\0" * (-size % tarfile.BLOCKSIZE)

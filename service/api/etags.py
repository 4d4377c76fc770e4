"""Answers that need not be sent again: an ETag, and 304 for who has it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import msgspec
from litestar import Request, Response

_encoder = msgspec.json.Encoder()


def conditional(
    request: Request[Any, Any, Any], shown: Any, etag: str | None = None, headers: Mapping[str, str] | None = None
) -> Response[Any]:
    """`shown` as JSON under `etag` (by default one of its bytes), or 304 where If-None-Match names that."""
    body = _encoder.encode(shown)
    etag = f'"{etag or etag_of(body)}"'
    sent = {"etag": etag, **(headers or {})}
    if names(request.headers.get("if-none-match"), etag):
        return Response(None, status_code=304, headers=sent)
    return Response(body, media_type="application/json", headers=sent)


def etag_of(body: bytes) -> str:
    """The ETag of an answer that has no other."""
    return hashlib.blake2b(body, digest_size=16).hexdigest()


def names(if_none_match: str | None, etag: str) -> bool:
    """Whether an If-None-Match header names `etag`, by weak comparison (RFC 9110 §13.1.2), or is `*`."""
    if if_none_match is None:
        return False
    given = [one.strip().removeprefix("W/") for one in if_none_match.split(",")]
    return etag in given or given == ["*"]

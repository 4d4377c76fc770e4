"""Idempotency-Key: the same key and body give the same answer, the same key and another body a conflict."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

from litestar.params import HeaderParameter

from prompts.errors import BadInput, TurnoutError
from prompts.prompt import digest_of
from service.context import Context
from service.errors import IdempotencyMismatch
from service.identity import Principal
from service.ids import now
from service.store import keys

MAX_KEY_LENGTH = 255
IdempotencyKey = Annotated[str | None, HeaderParameter(name="Idempotency-Key")]


def once(
    context: Context, principal: Principal, key: str | None, body: Any, start: Callable[[str | None], dict[str, Any]]
) -> dict[str, Any]:
    """Start work once for a key. `start` is given a stable id for it, so that a kill between the two writes heals."""
    if key is None:
        return start(None)
    if not 1 <= len(key) <= MAX_KEY_LENGTH:
        raise BadInput(f"an Idempotency-Key has 1 to {MAX_KEY_LENGTH} characters, this one has {len(key)}")
    digest = digest_of(body)
    answer = _reserve(context, principal, key, digest)
    if answer:
        return answer
    try:
        answer = start(digest_of([principal.id, key, digest])[7:19])
    except TurnoutError:
        with context.database.write() as session:
            keys.forget_answer(session, principal.id, key)  # what was refused may be asked again, mended
        raise
    with context.database.write() as session:
        return keys.settle_answer(session, principal.id, key, answer)


def _reserve(context: Context, principal: Principal, key: str, digest: str) -> dict[str, Any]:
    """Take the key for this body before anything starts; the answer where it was given before, else empty.

    Raises IdempotencyMismatch where another body has the key. Of two at once, the second waits for the first's row.
    """
    with context.database.write() as session:
        record = {"principal": principal.id, "key": key, "body_digest": digest, "answer": {}, "at": now()}
        found = keys.reserve(session, record)
    if found["body_digest"] != digest:
        raise IdempotencyMismatch(f"the Idempotency-Key {key!r} was used before with another body: take a new one")
    answer: dict[str, Any] = found["answer"]
    return answer

"""Idempotency-Key: the same key and body give the same answer, the same key and another body a conflict."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sqlalchemy.exc import IntegrityError

from prompts.errors import BadInput
from prompts.prompt import digest_of
from service.context import Context
from service.errors import IdempotencyMismatch
from service.identity import Principal
from service.ids import now
from service.store import keys

MAX_KEY_LENGTH = 255


def once(
    context: Context, principal: Principal, key: str | None, body: Any, start: Callable[[str | None], dict[str, Any]]
) -> dict[str, Any]:
    """Start work once for a key. `start` is given a stable id for it, so that a kill between the two writes heals."""
    if key is None:
        return start(None)
    if not 1 <= len(key) <= MAX_KEY_LENGTH:
        raise BadInput(f"an Idempotency-Key has 1 to {MAX_KEY_LENGTH} characters, this one has {len(key)}")
    digest = digest_of(body)
    found = _known(context, principal, key, digest)
    if found is not None:
        return found
    work_id = digest_of([principal.id, key, digest])[7:19]
    answer = start(work_id)
    record = {
        "principal": principal.id,
        "key": key,
        "body_digest": digest,
        "answer": answer,
        "at": now(),
    }
    try:
        with context.database.write() as session:
            keys.remember_answer(session, record)
    except IntegrityError:  # the same key came twice at once: the first to write decides
        return _known(context, principal, key, digest) or answer
    return answer


def _known(context: Context, principal: Principal, key: str, digest: str) -> dict[str, Any] | None:
    with context.database.read() as session:
        record = keys.answered(session, principal.id, key)
    if record is None:
        return None
    if record["body_digest"] != digest:
        raise IdempotencyMismatch(f"the Idempotency-Key {key!r} was used before with another body: take a new one")
    answer: dict[str, Any] = record["answer"]
    return answer

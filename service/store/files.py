"""Files of `/v1/files`: what is known of each, and its content in deflated chunks, so that every replica and worker can read it."""

from __future__ import annotations

from typing import Any

from service.store.session import Session
from service.store.tables import FILE_CHUNK, STORED_FILE

RECEIVING = "receiving"
_SEEN = "status <> 'receiving' AND (expires_at IS NULL OR expires_at > :now)"


def begin(session: Session, record: dict[str, Any]) -> None:
    """Take an id for a file whose chunks follow; begun again, it changes nothing."""
    STORED_FILE.add(session, [{**record, "status": RECEIVING}], once=True)


def add_chunk(session: Session, file_id: str, number: int, content: bytes) -> None:
    """The same chunk again changes nothing."""
    FILE_CHUNK.add(session, [{"file_id": file_id, "number": number, "content": content}], once=True)


def complete(session: Session, file_id: str, **columns: Any) -> None:
    """Let the file be seen, as `columns` say."""
    STORED_FILE.set(session, file_id, **columns)


def get(session: Session, file_id: str, now: str) -> dict[str, Any] | None:
    return STORED_FILE.first(session, f"WHERE id = :id AND {_SEEN}", id=file_id, now=now)


def chunk(session: Session, file_id: str, number: int) -> bytes | None:
    found = FILE_CHUNK.get(session, file_id, number)
    return None if found is None else bytes(found["content"])


def page(
    session: Session, now: str, *, after: dict[str, Any] | None, limit: int, newest_first: bool, purpose: str | None
) -> list[dict[str, Any]]:
    """At most `limit` files behind the file `after`, in the order of their making."""
    order, past = ("DESC", "<") if newest_first else ("ASC", ">")
    where, values = [_SEEN], {"now": now, "limit": limit}
    if purpose is not None:
        where.append("purpose = :purpose")
        values["purpose"] = purpose
    if after is not None:
        where.append(f"(created_at, id) {past} (:at, :id)")
        values |= {"at": after["created_at"], "id": after["id"]}
    rest = f"ORDER BY created_at {order}, id {order} LIMIT :limit"
    return STORED_FILE.all(session, f"WHERE {' AND '.join(where)} {rest}", **values)


def remove(session: Session, file_id: str) -> None:
    session.run("DELETE FROM file_chunk WHERE file_id = :id", id=file_id)
    STORED_FILE.remove(session, file_id)


def stale(session: Session, now: str, receiving_before: str) -> list[str]:
    """Files that have expired, and those whose upload was broken off."""
    where = "WHERE expires_at <= :now OR (status = 'receiving' AND created_at < :before)"
    return [found["id"] for found in STORED_FILE.all(session, where, now=now, before=receiving_before)]

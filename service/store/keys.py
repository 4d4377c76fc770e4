"""API keys (by digest alone), the audit log, idempotent answers and the revision that snapshots watch."""

from __future__ import annotations

from typing import Any

from sqlmodel import Session, col, select

from service.store.database import insert_once
from service.store.tables import ApiKey, Audit, Idempotency, Revision


def add(session: Session, record: dict[str, Any]) -> None:
    session.add(ApiKey(**record))
    session.flush()


def listing(session: Session) -> list[dict[str, Any]]:
    """Every key without its digest, oldest first."""
    return [row.model_dump(exclude={"digest"}) for row in session.exec(select(ApiKey).order_by(col(ApiKey.created_at)))]


def valid(session: Session) -> dict[str, tuple[str, str]]:
    """Digest → (id, role) of every key that was not revoked."""
    return {
        row.digest: (row.id, row.role) for row in session.exec(select(ApiKey).where(col(ApiKey.revoked_at).is_(None)))
    }


def revoke(session: Session, key_id: str, at: str) -> bool:
    """False where there is no such key; revoking again changes nothing."""
    row = session.get(ApiKey, key_id)
    if row is None:
        return False
    row.revoked_at = row.revoked_at or at
    session.add(row)
    return True


def audit(session: Session, *, at: str, actor: str, action: str, subject: str, detail: dict[str, Any]) -> None:
    session.add(Audit(at=at, actor=actor, action=action, subject=subject, detail=detail))


def audit_log(session: Session, limit: int) -> list[dict[str, Any]]:
    return [row.model_dump() for row in session.exec(select(Audit).order_by(col(Audit.id).desc()).limit(limit))]


def reserve(session: Session, record: dict[str, Any]) -> dict[str, Any]:
    """Write an idempotency record unless its key is taken; returns the one that stands."""
    insert_once(session, Idempotency, [record])
    return session.get_one(Idempotency, (record["principal"], record["key"])).model_dump()


def set_answer(session: Session, principal: str, key: str, answer: dict[str, Any]) -> None:
    row = session.get_one(Idempotency, (principal, key))
    row.answer = answer
    session.add(row)


def forget_answer(session: Session, principal: str, key: str) -> None:
    row = session.get(Idempotency, (principal, key))
    if row is not None:
        session.delete(row)


def revision(session: Session) -> int:
    return session.exec(select(Revision.value).where(Revision.id == 1)).one()

"""API keys (by digest alone), the audit log, idempotent answers and the revision that snapshots watch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from service.store.records import without
from service.store.session import Session
from service.store.tables import API_KEY, AUDIT, IDEMPOTENCY


def add(session: Session, record: dict[str, Any]) -> None:
    API_KEY.add(session, [record])


def listing(session: Session) -> list[dict[str, Any]]:
    """Every key without its digest, oldest first."""
    return [without(record, "digest") for record in API_KEY.all(session, "ORDER BY created_at")]


def valid(session: Session) -> dict[str, tuple[Any, ...]]:
    """Digest → (id, role, requests a minute, tokens a minute, tokens a day) of every key that was not revoked."""
    limits = "requests_per_minute, tokens_per_minute, tokens_per_day"
    rows = session.rows(f"SELECT digest, id, role, {limits} FROM api_key WHERE revoked_at IS NULL")
    return {digest: tuple(found) for digest, *found in rows}


def limit(session: Session, key_id: str, limits: Mapping[str, int | None]) -> bool:
    """False where there is no such key."""
    return API_KEY.set(session, key_id, **limits) > 0


def spent_since(session: Session, at: str, after: int) -> tuple[int, dict[str, int]]:
    """The tokens that each key took in log rows from `at` on whose `seq` is above `after`, and the highest `seq` of the log."""
    newest = session.value("SELECT COALESCE(MAX(seq), 0) FROM request")
    rows = session.rows(
        "SELECT key_id, SUM(prompt_tokens + completion_tokens) FROM request "
        "WHERE at >= :at AND seq > :after AND seq <= :newest AND shadow_of IS NULL GROUP BY key_id",
        at=at, after=after, newest=newest,
    )  # fmt: skip
    return int(newest), {key_id: int(tokens) for key_id, tokens in rows}


def revoke(session: Session, key_id: str, at: str) -> bool:
    """False where there is no such key; revoking again changes nothing."""
    sql = "UPDATE api_key SET revoked_at = coalesce(revoked_at, :at) WHERE id = :id"
    return session.run(sql, id=key_id, at=at) > 0


def audit(session: Session, *, at: str, actor: str, action: str, subject: str, detail: dict[str, Any]) -> None:
    AUDIT.add(session, [{"at": at, "actor": actor, "action": action, "subject": subject, "detail": detail}])


def audit_log(session: Session, limit: int) -> list[dict[str, Any]]:
    return AUDIT.all(session, "ORDER BY id DESC LIMIT :limit", limit=limit)


def reserve(session: Session, record: dict[str, Any]) -> dict[str, Any]:
    """Write an idempotency record unless its key is taken; returns the one that stands."""
    IDEMPOTENCY.add(session, [record], once=True)
    return IDEMPOTENCY.one(session, record["principal"], record["key"])


def settle_answer(session: Session, principal: str, key: str, answer: dict[str, Any]) -> dict[str, Any]:
    """Keep the answer unless one stands, of who asked at the same time; returns the one that stands."""
    found = IDEMPOTENCY.get(session, principal, key, lock=True)
    if found is not None and found["answer"]:
        standing: dict[str, Any] = found["answer"]
        return standing
    IDEMPOTENCY.set(session, principal, key, answer=answer)
    return answer


def forget_answer(session: Session, principal: str, key: str) -> None:
    IDEMPOTENCY.remove(session, principal, key)


def revision(session: Session) -> int:
    number: int = session.value("SELECT value FROM revision WHERE id = 1")
    return number

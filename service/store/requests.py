"""The request log, written in batches, and feedback, written before it is answered."""

from __future__ import annotations

from typing import Any

from service.store.session import Session, like
from service.store.tables import FEEDBACK, REQUEST


def add_many(session: Session, rows: list[dict[str, Any]]) -> None:
    """Write rows; one that is there already stays, so that a batch whose end nobody saw can be written again."""
    REQUEST.add(session, rows, once=True)


def get(session: Session, completion_id: str) -> dict[str, Any] | None:
    return REQUEST.get(session, completion_id)


def listing(session: Session, prompt: str | None, limit: int) -> list[dict[str, Any]]:
    where = "" if prompt is None else "WHERE prompt = :prompt "
    values = {} if prompt is None else {"prompt": prompt}
    return REQUEST.all(session, f"{where}ORDER BY at DESC LIMIT :limit", limit=limit, **values)


def forget_before(session: Session, at: str) -> int:
    """Delete log rows older than `at`; returns how many."""
    return session.run("DELETE FROM request WHERE at < :at", at=at)


def add_feedback(session: Session, record: dict[str, Any]) -> None:
    FEEDBACK.add(session, [record])


def feedback_on(session: Session, prefix: str) -> list[dict[str, Any]]:
    """Feedback on everything whose id begins so, oldest first."""
    where = "WHERE completion_id LIKE :prefix ESCAPE '/' ORDER BY at"
    return FEEDBACK.all(session, where, prefix=like(prefix) + "%")


def feedback(session: Session, completion_id: str) -> list[dict[str, Any]]:
    return FEEDBACK.all(session, "WHERE completion_id = :id ORDER BY at", id=completion_id)

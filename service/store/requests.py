"""The request log, written in batches, and feedback, written before it is answered."""

from __future__ import annotations

from typing import Any

from sqlmodel import Session, col, delete, select

from service.store.database import insert_once
from service.store.tables import Feedback, RequestRow


def add_many(session: Session, rows: list[dict[str, Any]]) -> None:
    """Write rows; one that is there already stays, so that a batch whose end nobody saw can be written again."""
    insert_once(session, RequestRow, rows)


def get(session: Session, completion_id: str) -> dict[str, Any] | None:
    row = session.get(RequestRow, completion_id)
    return row.model_dump() if row else None


def listing(session: Session, prompt: str | None, limit: int) -> list[dict[str, Any]]:
    query = select(RequestRow).order_by(col(RequestRow.at).desc()).limit(limit)
    if prompt is not None:
        query = query.where(RequestRow.prompt == prompt)
    return [row.model_dump() for row in session.exec(query)]


def forget_before(session: Session, at: str) -> int:
    """Delete log rows older than `at`; returns how many."""
    deleted = session.execute(delete(RequestRow).where(col(RequestRow.at) < at))
    return int(getattr(deleted, "rowcount", 0))


def add_feedback(session: Session, record: dict[str, Any]) -> None:
    session.add(Feedback(**record))
    session.flush()


def feedback_on(session: Session, prefix: str) -> list[dict[str, Any]]:
    """Feedback on everything whose id begins so, oldest first."""
    query = select(Feedback).where(col(Feedback.completion_id).startswith(prefix, autoescape=True))
    return [row.model_dump() for row in session.exec(query.order_by(col(Feedback.at)))]


def feedback(session: Session, completion_id: str) -> list[dict[str, Any]]:
    query = select(Feedback).where(Feedback.completion_id == completion_id).order_by(col(Feedback.at))
    return [row.model_dump() for row in session.exec(query)]

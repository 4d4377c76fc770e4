"""The request log with what is recorded of bodies, written in batches, and feedback, written before it is answered."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from service.store.session import Session, like
from service.store.tables import FEEDBACK, REQUEST, REQUEST_BODY


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


def add_bodies(session: Session, rows: list[dict[str, Any]]) -> None:
    """Write what completions were asked and answered; one that is there already stays."""
    REQUEST_BODY.add(session, rows, once=True)


def bodies(session: Session, completion_ids: Sequence[str]) -> dict[str, dict[str, Any]]:
    """The recorded bodies of these completions, by id."""
    return REQUEST_BODY.among(session, completion_ids)


def forget_bodies_before(session: Session, at: str) -> int:
    """Delete bodies older than `at`; returns how many."""
    return session.run("DELETE FROM request_body WHERE at < :at", at=at)


def feedback_of_prompt(session: Session, prompt: str) -> list[dict[str, Any]]:
    """All feedback on a prompt's completions, oldest first, each with its `variant` and whether its body `is_recorded`."""
    said = ", ".join(f"said.{name}" for name in FEEDBACK.columns)
    rows = session.rows(
        f"SELECT {said}, COALESCE(body.variant, logged.variant), body.id FROM feedback AS said "
        "LEFT JOIN request_body AS body ON body.id = said.completion_id "
        "LEFT JOIN request AS logged ON logged.id = said.completion_id "
        "WHERE COALESCE(body.prompt, logged.prompt) = :prompt ORDER BY said.at, said.id",
        prompt=prompt,
    )
    return [
        {**FEEDBACK.record(tuple(feedback)), "variant": variant, "is_recorded": body_id is not None}
        for *feedback, variant, body_id in rows
    ]


def add_feedback(session: Session, record: dict[str, Any]) -> None:
    FEEDBACK.add(session, [record])


def feedback_on(session: Session, prefix: str) -> list[dict[str, Any]]:
    """Feedback on everything whose id begins so, oldest first."""
    where = "WHERE completion_id LIKE :prefix ESCAPE '/' ORDER BY at"
    return FEEDBACK.all(session, where, prefix=like(prefix) + "%")


def feedback(session: Session, completion_id: str) -> list[dict[str, Any]]:
    return FEEDBACK.all(session, "WHERE completion_id = :id ORDER BY at", id=completion_id)

"""The request log with what is recorded of bodies, written in batches, and feedback, written before it is answered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from operator import attrgetter
from typing import Any

from service.outcome import Outcome
from service.store.session import Session, like
from service.store.tables import FEEDBACK, REQUEST, REQUEST_BODY

_TURN = 8601  # beside 8600, at which migrations wait for each other


_OUTCOME = tuple(name for name in REQUEST.columns if name != REQUEST.numbered)
_row_of = attrgetter(*_OUTCOME)


def add_outcomes(session: Session, outcomes: Sequence[Outcome]) -> int:
    """Write rows of the log; one that is there already stays, so that a batch whose end nobody saw can be written again.

    Returns how many were not there yet. Batches commit in the order of their numbers: PostgreSQL gives `seq` before a
    transaction commits, and whoever reads on behind the greatest number would otherwise miss the rows of a batch that
    began earlier and ended later. Some 10 µs of CPU a row on SQLite.
    """
    session.in_turn(_TURN)
    return session.insert_many(REQUEST.name, _OUTCOME, [_row_of(outcome) for outcome in outcomes])


def get(session: Session, completion_id: str) -> dict[str, Any] | None:
    return REQUEST.get(session, completion_id)


def forget_before(session: Session, at: str, most: int = 5_000) -> int:
    """Delete log rows older than `at`, the oldest `most` of them: others must be able to write in between. Returns how many."""
    old = "SELECT seq FROM request WHERE at < :at ORDER BY at LIMIT :most"
    return session.run(f"DELETE FROM request WHERE seq IN ({old})", at=at, most=most)


def add_bodies(session: Session, rows: list[dict[str, Any]]) -> None:
    """Write what completions were asked and answered; one that is there already stays."""
    REQUEST_BODY.add(session, rows, once=True)


def bodies(session: Session, completion_ids: Sequence[str]) -> dict[str, dict[str, Any]]:
    """The recorded bodies of these completions, by id."""
    return REQUEST_BODY.among(session, completion_ids)


def forget_bodies_before(session: Session, at: str, most: int = 5_000) -> int:
    """Delete bodies older than `at`, the oldest `most` of them; returns how many."""
    old = "SELECT id FROM request_body WHERE at < :at ORDER BY at LIMIT :most"
    return session.run(f"DELETE FROM request_body WHERE id IN ({old})", at=at, most=most)


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


def add_feedback(session: Session, record: Mapping[str, Any]) -> None:
    """Write what somebody said, with its score."""
    FEEDBACK.add(session, [{**record, "score": score_of(record.get("value"))}])


def score_of(value: Any) -> float | None:
    """A rating that can be compared: a number, 1 and 0 for true and false; None for anything else."""
    return float(value) if isinstance(value, int | float) else None


def feedback_on(session: Session, prefix: str) -> list[dict[str, Any]]:
    """Feedback on everything whose id begins so, oldest first."""
    where = "WHERE completion_id LIKE :prefix ESCAPE '/' ORDER BY at"
    return FEEDBACK.all(session, where, prefix=like(prefix) + "%")


def feedback(session: Session, completion_id: str) -> list[dict[str, Any]]:
    return FEEDBACK.all(session, "WHERE completion_id = :id ORDER BY at", id=completion_id)

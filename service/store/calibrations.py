"""How far judges agree with people, as it was measured: append-only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlmodel import Session, col, select

from service.store.database import insert_once
from service.store.tables import JudgeCalibration


def add(session: Session, records: Sequence[dict[str, Any]]) -> None:
    """Keep measurements; writing them again changes nothing."""
    insert_once(session, JudgeCalibration, records)


def newest(session: Session, suite: str, key: str) -> dict[str, Any] | None:
    """The last measurement of one grader of a suite."""
    query = select(JudgeCalibration).where(JudgeCalibration.suite == suite, JudgeCalibration.key == key)
    row = session.exec(
        query.order_by(col(JudgeCalibration.at).desc(), col(JudgeCalibration.id).desc()).limit(1)
    ).first()
    return row.model_dump() if row else None


def listing(session: Session, suite: str, limit: int) -> list[dict[str, Any]]:
    """Measurements of a suite's graders, newest first."""
    query = select(JudgeCalibration).where(JudgeCalibration.suite == suite)
    rows = session.exec(query.order_by(col(JudgeCalibration.at).desc(), col(JudgeCalibration.id)).limit(limit))
    return [row.model_dump() for row in rows]

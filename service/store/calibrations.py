"""How far judges agree with people, as it was measured: append-only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from service.store.session import Session
from service.store.tables import JUDGE_CALIBRATION


def add(session: Session, records: Sequence[dict[str, Any]]) -> None:
    """Keep measurements; writing them again changes nothing."""
    JUDGE_CALIBRATION.add(session, records, once=True)


def newest(session: Session, suite: str, key: str) -> dict[str, Any] | None:
    """The last measurement of one grader of a suite."""
    where = "WHERE suite = :suite AND key = :key ORDER BY at DESC, id DESC LIMIT 1"
    return JUDGE_CALIBRATION.first(session, where, suite=suite, key=key)


def listing(session: Session, suite: str, limit: int) -> list[dict[str, Any]]:
    """Measurements of a suite's graders, newest first."""
    where = "WHERE suite = :suite ORDER BY at DESC, id LIMIT :limit"
    return JUDGE_CALIBRATION.all(session, where, suite=suite, limit=limit)

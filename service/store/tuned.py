"""The `ft:` names that applications are served under."""

from __future__ import annotations

from typing import Any

from service.store.session import Session
from service.store.tables import TUNED_MODEL


def add(session: Session, record: dict[str, Any]) -> bool:
    """Write a name; False where it is there already."""
    if TUNED_MODEL.get(session, record["name"]) is not None:
        return False
    TUNED_MODEL.add(session, [record])
    return True


def get(session: Session, name: str) -> dict[str, Any] | None:
    return TUNED_MODEL.get(session, name)


def listing(session: Session) -> list[dict[str, Any]]:
    """Every name, oldest first."""
    return TUNED_MODEL.all(session, "ORDER BY created_at, name")


def of_job(session: Session, job_id: str) -> list[dict[str, Any]]:
    """A job's names: its checkpoints, the newest step first, then its end."""
    found = TUNED_MODEL.all(session, "WHERE job_id = :job_id ORDER BY step DESC", job_id=job_id)
    return sorted(found, key=lambda one: -1 if one["step"] is None else one["step"], reverse=True)


def remove(session: Session, name: str) -> None:
    TUNED_MODEL.remove(session, name)

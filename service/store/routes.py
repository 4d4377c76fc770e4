"""Evidence, looks, adapters and routes: what moves traffic and what that rests on."""

from __future__ import annotations

from typing import Any

from sqlalchemy import func
from sqlmodel import Session, col, select

from service.store.tables import Adapter, EvidenceRow, Look, Prompt, Route, RouteRevision


def add_evidence(session: Session, record: dict[str, Any]) -> None:
    """Append evidence; the same id again changes nothing."""
    if session.get(EvidenceRow, record["id"]) is None:
        session.add(EvidenceRow(**record))
        session.flush()


def evidence(session: Session, evidence_id: str) -> dict[str, Any] | None:
    row = session.get(EvidenceRow, evidence_id)
    return row.model_dump() if row else None


def passing_gate(session: Session, candidate: str) -> dict[str, Any] | None:
    """The newest gate's evidence on a variant where all of that gate's suites passed for it, else None."""
    about = (EvidenceRow.kind == "gate", EvidenceRow.candidate == candidate)
    newest = session.exec(
        select(EvidenceRow).where(*about).order_by(col(EvidenceRow.created_at).desc()).limit(1)
    ).first()
    if newest is None:
        return None
    of_gate = newest.id.rpartition("_")[0] + "_"
    siblings = select(EvidenceRow.verdict).where(*about, col(EvidenceRow.id).startswith(of_gate, autoescape=True))
    return newest.model_dump() if set(session.exec(siblings)) == {"pass"} else None


def take_look(session: Session, look: dict[str, Any]) -> int:
    """Count this job's look at a held-out set; the same job again gets the number it had."""
    row = session.get(Look, look["job_id"])
    if row is not None:
        return row.number
    session.get(Prompt, look["prompt"], with_for_update=True)  # numbers looks of one prompt one after another
    number = looks_taken(session, look["prompt"], look["base_model"], look["heldout_digest"]) + 1
    session.add(Look(**look, number=number))
    session.flush()
    return number


def looks_taken(session: Session, prompt: str, base_model: str, heldout_digest: str) -> int:
    query = select(func.max(Look.number)).where(
        Look.prompt == prompt, Look.base_model == base_model, Look.heldout_digest == heldout_digest
    )
    return session.exec(query).one() or 0


def add_adapter(session: Session, record: dict[str, Any]) -> None:
    session.merge(Adapter(**record))


def adapter(session: Session, name: str) -> dict[str, Any] | None:
    row = session.get(Adapter, name)
    return row.model_dump() if row else None


def adapters(session: Session, prompt: str | None = None) -> list[dict[str, Any]]:
    query = select(Adapter).order_by(col(Adapter.created_at).desc())
    if prompt is not None:
        query = query.where(Adapter.prompt == prompt)
    return [row.model_dump() for row in session.exec(query)]


def current(session: Session, prompt: str, *, for_update: bool = False) -> dict[str, Any] | None:
    """The current revision of a prompt's route with its salt, or None.

    `for_update` takes the prompt's lock: a route that is not there yet has no row of its own to lock.
    """
    if for_update:
        session.get(Prompt, prompt, with_for_update=True)
    route = session.exec(select(Route).where(Route.prompt == prompt)).first()
    if route is None:
        return None
    revision = session.get_one(RouteRevision, (prompt, route.revision))
    return {**revision.model_dump(), "salt": route.salt}


def all_current(session: Session) -> list[dict[str, Any]]:
    return [found for row in session.exec(select(Route)) if (found := current(session, row.prompt))]


def append(session: Session, record: dict[str, Any], salt: str) -> None:
    """Write a new revision and make it the current one; the salt of an existing route never changes."""
    session.add(RouteRevision(**record))
    route = session.get(Route, record["prompt"])
    if route is None:
        route = Route(prompt=record["prompt"], revision=record["revision"], salt=salt)
    route.revision = record["revision"]
    session.add(route)
    session.flush()


def history(session: Session, prompt: str) -> list[dict[str, Any]]:
    """Every revision, newest first."""
    query = select(RouteRevision).where(RouteRevision.prompt == prompt)
    return [row.model_dump() for row in session.exec(query.order_by(col(RouteRevision.revision).desc()))]


def revision(session: Session, prompt: str, number: int) -> dict[str, Any] | None:
    row = session.get(RouteRevision, (prompt, number))
    return row.model_dump() if row else None


def by_evidence(session: Session, prompt: str, evidence_id: str) -> dict[str, Any] | None:
    """The first revision that rests on this evidence, or None."""
    query = select(RouteRevision).where(RouteRevision.prompt == prompt, RouteRevision.evidence_id == evidence_id)
    row = session.exec(query.order_by(col(RouteRevision.revision)).limit(1)).first()
    return row.model_dump() if row else None

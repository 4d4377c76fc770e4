"""What a rollout writes: a revision of the route and the evidence it rests on, in one transaction, once."""

from __future__ import annotations

import hashlib
from typing import Any

from service import route_book, route_data, routing
from service.identity import Principal
from service.ids import now
from service.routing import RouteState
from service.store import routes
from service.store.database import Database
from service.store.session import Session
from suites.evidence_digest import ROLLOUT, record_digest

ROLLOUTS = Principal("rollouts", "admin")


def evidence_id(prompt: str, revision: int, verdict: str) -> str:
    """One for each verdict on a revision, so that of several replicas that reach it only one writes it."""
    return f"ev_{hashlib.blake2b(f'{prompt}:{revision}:{verdict}'.encode(), digest_size=6).hexdigest()}"


def note(
    database: Database, prompt: str, revision: int, verdict: str, candidate: str, content: dict[str, Any]
) -> str | None:
    """Keep evidence that moves nothing; None where the route has moved since."""
    with database.write() as session:
        if _current(session, prompt, revision) is None:
            return None
        return _keep(session, prompt, revision, verdict, candidate, content)


def step(
    database: Database, prompt: str, revision: int, verdict: str, content: dict[str, Any], reason: str
) -> dict[str, Any] | None:
    """Promote or roll back the rollout of this revision; None where the route has moved since, which another has decided."""
    with database.write() as session:
        current = _current(session, prompt, revision)
        if current is None:
            return None
        before = route_data.from_data(current["state"])
        if before.rollout is None:
            return None
        after = routing.promote(before) if verdict == "promote" else routing.roll_back(before)
        kept = _keep(session, prompt, revision, verdict, str(before.rollout.candidate), content)
        action = "promote" if verdict == "promote" else "rollback"
        return route_book.append(session, prompt, after, action, ROLLOUTS, reason, kept)


def take_planned(database: Database, prompt: str, revision: int) -> dict[str, Any] | None:
    """The shares that are due by the schedule, in the name of who planned them; None where the route has moved since."""
    with database.write() as session:
        current = _current(session, prompt, revision)
        if current is None:
            return None
        state: RouteState = route_data.from_data(current["state"])
        at = now()
        if not routing.is_due(state, at):
            return None
        planner = Principal(current["actor"], "admin")
        after = routing.take_planned(state, at)
        return route_book.append(session, prompt, after, "schedule", planner, current["reason"], current["evidence_id"])


def find(database: Database, prompt: str, revision: int, verdict: str) -> dict[str, Any] | None:
    """The evidence of a verdict on this revision, if it was reached."""
    with database.read() as session:
        return routes.evidence(session, evidence_id(prompt, revision, verdict))


def _current(session: Session, prompt: str, revision: int) -> dict[str, Any] | None:
    current = routes.current(session, prompt, for_update=True)
    return current if current is not None and current["revision"] == revision else None


def _keep(session: Session, prompt: str, revision: int, verdict: str, candidate: str, content: dict[str, Any]) -> str:
    record: dict[str, Any] = {
        "id": evidence_id(prompt, revision, verdict),
        "kind": ROLLOUT,
        "prompt": prompt,
        "verdict": verdict,
        "candidate": candidate,
        "content": {**content, "route_revision": revision},
        "actor": ROLLOUTS.id,
        "created_at": now(),
    }
    routes.add_evidence(session, {**record, "digest": record_digest(record)})
    return str(record["id"])

"""The queue of completions that may become training examples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from service.store.records import IDS_A_QUERY
from service.store.session import Session, listed
from service.store.tables import CANDIDATE_EXAMPLE


def add_many(session: Session, records: Sequence[dict[str, Any]]) -> None:
    """Put candidates into the queue; one that is there already stays as it is."""
    CANDIDATE_EXAMPLE.add(session, records, once=True)


def get(session: Session, candidate_id: str) -> dict[str, Any] | None:
    return CANDIDATE_EXAMPLE.get(session, candidate_id)


def locked(session: Session, candidate_id: str) -> dict[str, Any] | None:
    """One candidate, held until this transaction ends: of two who decide at once, the second sees the first's word."""
    return CANDIDATE_EXAMPLE.get(session, candidate_id, lock=True)


def known(session: Session, ids: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Those of these candidates that are in the queue, by id."""
    return CANDIDATE_EXAMPLE.among(session, ids)


def change(session: Session, candidate_id: str, **values: Any) -> dict[str, Any]:
    """Set fields of a candidate; returns it as it stands."""
    CANDIDATE_EXAMPLE.set(session, candidate_id, **values)
    return CANDIDATE_EXAMPLE.one(session, candidate_id)


def withdraw(session: Session, ids: Sequence[str], *, reason: str, by: str, at: str) -> int:
    """Reject those of these candidates that still wait; returns how many."""
    changed = 0
    for start in range(0, len(ids), IDS_A_QUERY):
        part, values = listed("id", ids[start : start + IDS_A_QUERY])
        sql = (
            "UPDATE candidate_example SET status = 'rejected', reason = :reason, decided_by = :by, decided_at = :at "
            f"WHERE id IN {part} AND status = 'waiting'"
        )
        changed += session.run(sql, reason=reason, by=by, at=at, **values)
    return changed


def listing(
    session: Session, prompt: str | None, status: str | None, limit: int, after: str | None = None
) -> list[dict[str, Any]]:
    """Candidates, oldest first, those behind the candidate `after`."""
    wanted = {name: value for name, value in (("prompt", prompt), ("status", status)) if value is not None}
    rules = [f"{name} = :{name}" for name in wanted]
    last = CANDIDATE_EXAMPLE.get(session, after) if after else None
    if last is not None:
        rules.append("(created_at > :created_at OR (created_at = :created_at AND id > :id))")
        wanted |= {"created_at": last["created_at"], "id": last["id"]}
    where = f"WHERE {' AND '.join(rules)} " if rules else ""
    return CANDIDATE_EXAMPLE.all(session, f"{where}ORDER BY created_at, id LIMIT :limit", limit=limit, **wanted)


def accepted(
    session: Session, prompt: str, source: str | None = None, variant: str | None = None, since: str | None = None
) -> list[dict[str, Any]]:
    """A prompt's accepted candidates in an order that never changes; `since` is the earliest time of the decision."""
    given = {"prompt": prompt, "source": source, "variant": variant}
    wanted = {name: value for name, value in given.items() if value is not None}
    rules = ["status = 'accepted'", *(f"{name} = :{name}" for name in wanted)]
    if since is not None:
        rules.append("decided_at >= :since")
        wanted["since"] = since
    return CANDIDATE_EXAMPLE.all(session, f"WHERE {' AND '.join(rules)} ORDER BY created_at, id", **wanted)

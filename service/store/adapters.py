"""Who names an adapter, and the removal of one that nobody does."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from service.store.records import read_json
from service.store.session import Session, like, listed
from service.store.tables import ADAPTER, JOB

REMOVED = "adapter.remove"  # in the audit log


def lock(session: Session, name: str) -> dict[str, Any] | None:
    """The adapter, which no other transaction removes, or gives traffic, before this one ends."""
    return ADAPTER.get(session, name, lock=True)


def remove(session: Session, name: str) -> None:
    ADAPTER.remove(session, name)


def states(session: Session) -> Iterator[tuple[str, int, bool, Any]]:
    """Every revision of every route: prompt, number, whether it is the current one, and its state."""
    sql = (
        "SELECT r.prompt, r.revision, r.state, route.revision FROM route_revision r "
        "LEFT JOIN route ON route.prompt = r.prompt ORDER BY r.prompt, r.revision DESC"
    )
    for prompt, revision, state, current in session.rows(sql):
        yield prompt, revision, revision == current, read_json(state)


def live_jobs(session: Session) -> list[dict[str, Any]]:
    """Jobs that wait or run."""
    return JOB.all(session, "WHERE status IN ('queued', 'running')")


def succeeded_jobs(session: Session, kind: str) -> list[str]:
    """The ids of the jobs of a kind that came to their end."""
    found = session.rows("SELECT id FROM job WHERE kind = :kind AND status = 'succeeded'", kind=kind)
    return [job_id for (job_id,) in found]


def evidence_naming(session: Session, adapter: str) -> list[dict[str, Any]]:
    """Evidence, newest first, in which a variant with this adapter stands, without its content."""
    names = ("id", "kind", "prompt", "verdict", "candidate", "created_at")
    end = "%+" + like(adapter)
    rows = session.rows(
        f"SELECT {', '.join(names)} FROM evidence WHERE candidate LIKE :end ESCAPE '/' "
        "OR CAST(content AS TEXT) LIKE :inside ESCAPE '/' ORDER BY created_at DESC, id DESC",
        end=end,
        inside=f'{end}"%',
    )
    return [dict(zip(names, row, strict=True)) for row in rows]


def all_evidence(session: Session) -> Iterator[tuple[str, str, str, str]]:
    """Kind, verdict, candidate and content, as JSON text, of all evidence; never all in memory."""
    yield from session.stream("SELECT kind, verdict, candidate, CAST(content AS TEXT) FROM evidence")


def events_of(session: Session, job_id: str, kinds: Sequence[str]) -> list[dict[str, Any]]:
    """A job's events of these kinds in their order: `type` and `data`."""
    among, values = listed("kind", kinds)
    sql = f"SELECT type, data FROM job_event WHERE job_id = :id AND type IN {among} ORDER BY number"
    return [{"type": kind, "data": read_json(data)} for kind, data in session.rows(sql, id=job_id, **values)]


def removed(session: Session) -> frozenset[str]:
    """Adapters that were removed and did not come back."""
    sql = "SELECT DISTINCT subject FROM audit WHERE action = :action AND subject NOT IN (SELECT name FROM adapter)"
    return frozenset(name for (name,) in session.rows(sql, action=REMOVED))

"""Evidence, looks, adapters and routes: what moves traffic and what that rests on."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from service.store.session import Session, like
from service.store.tables import ADAPTER, EVIDENCE, LOOK, PROMPT, ROUTE, ROUTE_REVISION


def add_evidence(session: Session, record: dict[str, Any]) -> None:
    """Append evidence; the same id again changes nothing."""
    EVIDENCE.add(session, [record], once=True)


def evidence(session: Session, evidence_id: str) -> dict[str, Any] | None:
    return EVIDENCE.get(session, evidence_id)


def passing_gate(session: Session, candidate: str) -> dict[str, Any] | None:
    """The newest gate's evidence on a variant where all of that gate's suites passed for it, else None."""
    about = "WHERE kind = 'gate' AND candidate = :candidate"
    newest = EVIDENCE.first(session, f"{about} ORDER BY created_at DESC LIMIT 1", candidate=candidate)
    if newest is None:
        return None
    of_gate = newest["id"].rpartition("_")[0] + "_"
    siblings = f"SELECT verdict FROM evidence {about} AND id LIKE :of_gate ESCAPE '/'"
    rows = session.rows(siblings, candidate=candidate, of_gate=like(of_gate) + "%")
    return newest if {verdict for (verdict,) in rows} == {"pass"} else None


def take_look(session: Session, look: dict[str, Any], sets: Iterable[str] = (), base_models: Iterable[str] = ()) -> int:
    """Count this job's look at a held-out set; the same job again gets the number it had.

    Looks at `sets`, by their digests, and for `base_models` count as looks at the same set and for the same model.
    """
    taken = LOOK.get(session, look["job_id"])
    if taken is not None:
        return int(taken["number"])
    PROMPT.get(session, look["prompt"], lock=True)  # numbers looks of one prompt one after another
    digests, models = {look["heldout_digest"], *sets}, {look["base_model"], *base_models}
    earlier = looks(session, look["prompt"])
    same = [int(one["number"]) for one in earlier if one["heldout_digest"] in digests and one["base_model"] in models]
    number = max([len(same), *same]) + 1  # sets that came together count by sum, ones that changed by the last number
    LOOK.add(session, [{**look, "number": number}])
    return number


def looks(session: Session, prompt: str) -> list[dict[str, Any]]:
    """Every look for a prompt."""
    return LOOK.all(session, "WHERE prompt = :prompt ORDER BY at", prompt=prompt)


def add_adapter(session: Session, record: dict[str, Any]) -> None:
    ADAPTER.remove(session, record["name"])
    ADAPTER.add(session, [record])


def adapter(session: Session, name: str) -> dict[str, Any] | None:
    return ADAPTER.get(session, name)


def adapters(session: Session, prompt: str | None = None) -> list[dict[str, Any]]:
    where = "" if prompt is None else "WHERE prompt = :prompt "
    values = {} if prompt is None else {"prompt": prompt}
    return ADAPTER.all(session, f"{where}ORDER BY created_at DESC", **values)


def current(session: Session, prompt: str, *, for_update: bool = False) -> dict[str, Any] | None:
    """The current revision of a prompt's route with its salt, or None.

    `for_update` takes the prompt's lock: a route that is not there yet has no row of its own to lock.
    """
    if for_update:
        PROMPT.get(session, prompt, lock=True)
    route = ROUTE.get(session, prompt)
    if route is None:
        return None
    return {**ROUTE_REVISION.one(session, prompt, route["revision"]), "salt": route["salt"]}


def all_current(session: Session) -> list[dict[str, Any]]:
    """The current revision of every route with its salt, in one question however many there are."""
    columns = ", ".join(f"r.{name}" for name in ROUTE_REVISION.columns)
    joined = "FROM route c JOIN route_revision r ON r.prompt = c.prompt AND r.revision = c.revision"
    rows = session.rows(f"SELECT {columns}, c.salt {joined}")
    return [{**ROUTE_REVISION.record(row[:-1]), "salt": row[-1]} for row in rows]


def append(session: Session, record: dict[str, Any], salt: str) -> None:
    """Write a new revision and make it the current one; the salt of an existing route never changes."""
    prompt, number = record["prompt"], record["revision"]
    ROUTE_REVISION.add(session, [record])
    if not ROUTE.set(session, prompt, revision=number):
        ROUTE.add(session, [{"prompt": prompt, "revision": number, "salt": salt}])


def history(session: Session, prompt: str) -> list[dict[str, Any]]:
    """Every revision, newest first."""
    return ROUTE_REVISION.all(session, "WHERE prompt = :prompt ORDER BY revision DESC", prompt=prompt)


def revision(session: Session, prompt: str, number: int) -> dict[str, Any] | None:
    return ROUTE_REVISION.get(session, prompt, number)


def by_evidence(session: Session, prompt: str, evidence_id: str) -> dict[str, Any] | None:
    """The first revision that rests on this evidence, or None."""
    where = "WHERE prompt = :prompt AND evidence_id = :evidence ORDER BY revision LIMIT 1"
    return ROUTE_REVISION.first(session, where, prompt=prompt, evidence=evidence_id)

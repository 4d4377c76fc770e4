"""Moving labels: what a protected one needs, what is written of every move, and how a move is taken back.

Every function is a part of the caller's transaction, and the caller holds the prompt's lock.
"""

from __future__ import annotations

from typing import Any

from prompts.names import PRODUCTION, Variant, check_label
from prompts.prompt import PromptContent
from service import route_book
from service.errors import Conflict, Forbidden, NeedsEvidence, NotFound
from service.identity import Principal
from service.ids import now
from service.search import summary
from service.store import keys, prompts, routes
from service.store.prompts import LabelRecord, VersionRecord
from service.store.session import Session

Protected = frozenset[str]


def point(
    session: Session, name: str, label: str, number: int, actor: Principal, reason: str | None, protected: Protected
) -> LabelRecord:
    """Point a label to a version; `production` takes the route with it. Raises NotFound, or NeedsEvidence."""
    check_label(label)
    target = prompts.by_number(session, name, number)
    if target is None:
        raise NotFound("version", f"{name}@{number}")
    before = prompts.label(session, name, label)
    if before is not None and _is_there(session, target, label, before):
        return before
    publish(session, target)
    record = LabelRecord(name, label, number, prompts.last_label_revision(session, name, label) + 1, now())
    evidence_id = _evidence(session, target, label, actor, reason) if label in protected else None
    prompts.move_label(session, record, actor=actor.id, reason=reason, evidence_id=evidence_id)
    if label == PRODUCTION:
        moved = (before.version if before else None, number)
        route_book.follow_production(session, target, moved, actor, reason, evidence_id)
    return record


def follow_file(
    session: Session, name: str, label: str, number: int, actor: Principal, message: str | None, protected: Protected
) -> LabelRecord:
    """Point a label that a pushed file names to the version of that push.

    A protected one moves on a passing gate alone: what a push says it is for is no reason to go without. Raises
    NeedsEvidence, which names the prompt.
    """
    target = prompts.by_number(session, name, number)
    moves = target is not None and not _is_there(session, target, label, prompts.label(session, name, label))
    if target and moves and label in protected and routes.passing_gate(session, str(_variant(target))) is None:
        raise NeedsEvidence(
            f"nothing was pushed: the file of {name} names the label {label!r}, which is protected, and"
            f" {_variant(target)} has no passing gate: take it out of `labels`, push, run `turnout gate`, then"
            f" `turnout label {name} {label} VERSION`"
        )
    return point(session, name, label, number, actor, message, protected)


def publish(session: Session, record: VersionRecord) -> None:
    """A draft that a label points to is one no longer; where it is the newest version, lists show it."""
    if not record.draft:
        return
    prompts.set_published(session, record.name, record.number)
    if prompts.highest_numbers(session, [record.name], drafts=False)[record.name] == record.number:
        prompts.set_summaries(session, [summary(record, PromptContent.model_validate(record.content))])


def remove(session: Session, record: LabelRecord, actor: Principal, reason: str | None, protected: Protected) -> None:
    """Take a label away; without `production` the route ends, too. Raises NeedsEvidence for a protected label, unless
    an admin says why.
    """
    if record.label in protected and not (actor.may("admin") and reason):
        raise NeedsEvidence(f"{record.label!r} is protected: an admin removes it, with a reason")
    gone = LabelRecord(record.name, record.label, record.version, record.revision + 1, now())
    prompts.remove_label(session, gone, actor=actor.id, reason=reason)
    _audit(session, "label.remove", gone, actor, {"version": record.version, "reason": reason})
    if record.label == PRODUCTION:
        route_book.end_with_production(session, record.name, record.version, actor, reason)


def undo(
    session: Session, name: str, label: str, actor: Principal, reason: str | None, protected: Protected
) -> dict[str, Any]:
    """Take back the last move that stands: the label points where that came from, or is gone where it came from nowhere.

    Undoing again goes one move further back. A move or the removal of `production` and the revision of the route that it
    wrote are taken back together. Raises NotFound, Conflict where nothing is left to take back or the route moved since,
    Forbidden or NeedsEvidence for a protected label.
    """
    moves = prompts.standing_moves(session, name, label)
    if not moves:
        if not prompts.label_history(session, name, label):
            raise NotFound("label", f"{name}@{label}")
        raise Conflict(f"nothing to undo: every move of {name}@{label} was taken back")
    move = moves[-1]
    if label == PRODUCTION:
        route_book.undo_production(session, name, (move["from_version"], move["to_version"]), actor, reason)
    else:
        if label in protected:
            _allow_undo(session, name, label, move["from_version"], actor)
        _move_back(session, move, actor, reason, moves[-2]["evidence_id"] if len(moves) > 1 else None)
    [done, *_] = prompts.label_history(session, name, label)
    shown = {"name": name, "label": label, "version": done["to_version"], "revision": done["revision"]}
    return {**shown, "updated_at": done["at"], "undone": move["revision"]}


def _move_back(
    session: Session, move: dict[str, Any], actor: Principal, reason: str | None, evidence_id: str | None
) -> None:
    name, label, target = move["name"], move["label"], move["from_version"]
    revision = prompts.last_label_revision(session, name, label) + 1
    record = LabelRecord(name, label, target or move["to_version"], revision, now())
    if target is None:
        prompts.remove_label(session, record, actor=actor.id, reason=reason, undoes=move["revision"])
    else:
        prompts.move_label(
            session, record, actor=actor.id, reason=reason, evidence_id=evidence_id, undoes=move["revision"]
        )
    _audit(session, "label.undo", record, actor, {"version": target, "undone": move["revision"], "reason": reason})


def _is_there(session: Session, target: VersionRecord, label: str, at: LabelRecord | None) -> bool:
    """Whether the label already does what it says: `production` must take the traffic, too."""
    if at is None or at.version != target.number:
        return False
    return label != PRODUCTION or route_book.incumbents(session, target.name) == (_variant(target),)


def _variant(target: VersionRecord) -> Variant:
    return Variant(target.name, target.number, target.content["model"])


def _evidence(session: Session, target: VersionRecord, label: str, actor: Principal, reason: str | None) -> str:
    """The evidence on which a protected label may move; raises NeedsEvidence where there is none."""
    served = str(_variant(target))
    gate = routes.passing_gate(session, served)
    if gate is not None and actor.may("author"):
        return str(gate["id"])
    if not actor.may("admin"):
        raise NeedsEvidence(
            f"{label!r} is protected and {served} has no passing gate: run `turnout gate`,"
            " or ask an admin, who may give a reason instead"
        )
    if not reason:
        raise NeedsEvidence(
            f"{label!r} is protected and {served} has no passing gate: run `turnout gate` first,"
            " or give a reason (--reason), which is kept as evidence"
        )
    record = LabelRecord(target.name, label, target.number, 0, now())
    _audit(session, "label.manual", record, actor, {"version": target.number, "reason": reason})
    return route_book.add_manual_evidence(session, target.name, f"{target.name}@{target.number}", actor, reason)


def _allow_undo(session: Session, name: str, label: str, number: int | None, actor: Principal) -> None:
    """An admin takes back any move; an author one that leads to a version with a passing gate."""
    if actor.may("admin"):
        return
    target = prompts.by_number(session, name, number) if number is not None else None
    if target is None:
        raise Forbidden(f"{label!r} is protected: an admin takes it away again")
    if not actor.may("author") or routes.passing_gate(session, str(_variant(target))) is None:
        raise NeedsEvidence(f"{label!r} is protected and {_variant(target)} has no passing gate: ask an admin to undo")


def _audit(session: Session, action: str, record: LabelRecord, actor: Principal, detail: dict[str, Any]) -> None:
    keys.audit(
        session,
        at=record.updated_at,
        actor=actor.id,
        action=action,
        subject=f"{record.name}@{record.label}",
        detail=detail,
    )

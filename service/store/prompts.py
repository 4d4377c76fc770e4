"""Prompt versions, labels and their history."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import func
from sqlmodel import Session, col, select

from service.store.database import insert_once
from service.store.tables import Label, LabelMove, Prompt, PromptVersion


@dataclass(frozen=True, slots=True)
class VersionRecord:
    """One immutable version of a prompt; `about` holds what the digest does not cover."""

    name: str
    number: int
    digest: str
    content: dict[str, Any]
    about: dict[str, Any]
    author: str
    message: str | None
    created_at: str
    draft: bool = False


@dataclass(frozen=True, slots=True)
class LabelRecord:
    """Where a label points; `revision` counts its moves and is its ETag."""

    name: str
    label: str
    version: int
    revision: int
    updated_at: str


def lock(session: Session, name: str, at: str) -> None:
    """Make sure that the prompt exists, and let no other transaction number its versions meanwhile."""
    insert_once(session, Prompt, [{"name": name, "created_at": at}])
    session.exec(select(Prompt).where(Prompt.name == name).with_for_update()).one()


def exists(session: Session, name: str) -> bool:
    return session.get(Prompt, name) is not None


def by_digest(session: Session, name: str, digest: str) -> VersionRecord | None:
    query = select(PromptVersion).where(PromptVersion.name == name, PromptVersion.digest == digest)
    return _record(session.exec(query).first())


def by_number(session: Session, name: str, number: int) -> VersionRecord | None:
    query = select(PromptVersion).where(PromptVersion.name == name, PromptVersion.number == number)
    return _record(session.exec(query).first())


def newest(session: Session, name: str) -> VersionRecord | None:
    """The newest version that was pushed; drafts are none."""
    query = select(PromptVersion).where(PromptVersion.name == name, col(PromptVersion.draft).is_(False))
    return _record(session.exec(query.order_by(col(PromptVersion.number).desc()).limit(1)).first())


def highest_number(session: Session, name: str) -> int:
    """The number of the newest version, drafts among them; 0 where there is none."""
    return session.exec(select(func.max(PromptVersion.number)).where(PromptVersion.name == name)).one() or 0


def publish(session: Session, name: str, number: int) -> None:
    """A draft that a label points to is one no longer."""
    query = select(PromptVersion).where(PromptVersion.name == name, PromptVersion.number == number)
    row = session.exec(query).one()
    row.draft = False
    session.add(row)
    session.flush()


def versions(session: Session, name: str) -> list[VersionRecord]:
    """All versions, newest first."""
    query = select(PromptVersion).where(PromptVersion.name == name).order_by(col(PromptVersion.number).desc())
    return [record for row in session.exec(query) if (record := _record(row))]


def names(session: Session) -> list[tuple[str, int]]:
    """Every prompt's name with the number of its newest version that was pushed."""
    pushed = select(PromptVersion.name, func.max(PromptVersion.number)).where(col(PromptVersion.draft).is_(False))
    return sorted((name, number) for name, number in session.exec(pushed.group_by(PromptVersion.name)))


def add(session: Session, record: VersionRecord) -> None:
    session.add(PromptVersion(**{name: getattr(record, name) for name in VersionRecord.__slots__}))


def annotate(session: Session, record: VersionRecord) -> None:
    """Say where a version comes from that was first seen as a working tree under test; its content never changes."""
    query = select(PromptVersion).where(PromptVersion.name == record.name, PromptVersion.number == record.number)
    row = session.exec(query).one()
    row.message, row.about, row.author, row.draft = record.message, record.about, record.author, record.draft
    session.add(row)
    session.flush()


def label(session: Session, name: str, label: str) -> LabelRecord | None:
    row = session.get(Label, (name, label))
    return LabelRecord(row.name, row.label, row.version, row.revision, row.updated_at) if row else None


def labels(session: Session, name: str | None = None) -> list[LabelRecord]:
    query = select(Label).order_by(col(Label.name), col(Label.label))
    if name is not None:
        query = query.where(Label.name == name)
    return [LabelRecord(row.name, row.label, row.version, row.revision, row.updated_at) for row in session.exec(query)]


def move_label(
    session: Session, record: LabelRecord, *, actor: str, reason: str | None, evidence_id: str | None
) -> None:
    """Point a label to a version and write the move to its history. The caller holds the prompt's lock."""
    row = session.get(Label, (record.name, record.label))
    before = row.version if row else None
    session.merge(Label(**{name: getattr(record, name) for name in LabelRecord.__slots__}))
    _note_move(session, record, before, record.version, actor, reason, evidence_id)


def remove_label(session: Session, record: LabelRecord, *, actor: str, reason: str | None) -> None:
    row = session.get(Label, (record.name, record.label))
    if row is not None:
        session.delete(row)
        _note_move(session, record, row.version, None, actor, reason, None)


def _note_move(
    session: Session,
    record: LabelRecord,
    before: int | None,
    after: int | None,
    actor: str,
    reason: str | None,
    evidence_id: str | None,
) -> None:
    session.add(
        LabelMove(
            name=record.name,
            label=record.label,
            from_version=before,
            to_version=after,
            revision=record.revision,
            actor=actor,
            reason=reason,
            evidence_id=evidence_id,
            at=record.updated_at,
        )
    )


def label_history(session: Session, name: str, label: str) -> list[dict[str, Any]]:
    """Every move of one label, newest first."""
    query = select(LabelMove).where(LabelMove.name == name, LabelMove.label == label)
    return [row.model_dump(exclude={"id"}) for row in session.exec(query.order_by(col(LabelMove.id).desc()))]


def last_label_revision(session: Session, name: str, label: str) -> int:
    """The highest revision this label ever had: a label that was removed and set again goes on counting."""
    query = select(func.max(LabelMove.revision)).where(LabelMove.name == name, LabelMove.label == label)
    return session.exec(query).one() or 0


def _record(row: PromptVersion | None) -> VersionRecord | None:
    return VersionRecord(**{name: getattr(row, name) for name in VersionRecord.__slots__}) if row else None

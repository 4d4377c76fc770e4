"""Prompt versions, labels and their history."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import delete, func, insert, tuple_
from sqlalchemy.orm import defer
from sqlmodel import Session, col, select

from service.store.database import insert_once
from service.store.tables import Label, LabelMove, Prompt, PromptSummary, PromptTag, PromptVersion

_AT_ONCE = 500  # names a query: SQLite bounds the variables of a statement


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


@dataclass(frozen=True, slots=True)
class SummaryRecord:
    """What lists and searches see of a prompt: its newest pushed version, without its content."""

    name: str
    number: int
    title: str | None
    description: str | None
    model: str
    tags: tuple[str, ...]
    search_text: str


@dataclass(frozen=True, slots=True)
class Filter:
    """Which prompts a list shows: every word of `words` occurs, in folded case; names above `after`, `limit` of them."""

    words: tuple[str, ...] = ()
    tag: str | None = None
    model: str | None = None
    label: str | None = None
    after: str = ""
    limit: int = 1000


def lock(session: Session, name: str, at: str) -> None:
    """Make sure that the prompt exists, and let no other transaction number its versions meanwhile."""
    insert_once(session, Prompt, [{"name": name, "created_at": at}])
    lock_known(session, [name])


def add_names(session: Session, names: Sequence[str], at: str) -> None:
    """Make sure that these prompts exist."""
    insert_once(session, Prompt, [{"name": name, "created_at": at} for name in names])


def lock_known(session: Session, names: Sequence[str]) -> set[str]:
    """Lock those of `names` that exist, and return them; always in one order, so that no two pushes wait in a circle."""
    found: set[str] = set()
    for some in _batches(sorted(names)):
        query = select(Prompt.name).where(col(Prompt.name).in_(some)).order_by(Prompt.name).with_for_update()
        found |= set(session.exec(query))
    return found


def _batches(names: Sequence[str]) -> Iterator[Sequence[str]]:
    return (names[start : start + _AT_ONCE] for start in range(0, len(names), _AT_ONCE))


def exists(session: Session, name: str) -> bool:
    return session.get(Prompt, name) is not None


def by_digests(session: Session, digests: Mapping[str, str]) -> dict[str, VersionRecord]:
    """The versions that have these digests already, by name; `digests` holds one for each name."""
    found: dict[str, VersionRecord] = {}
    for some in _batches(list(digests)):
        wanted = {digests[name] for name in some}
        query = select(PromptVersion).where(col(PromptVersion.name).in_(some), col(PromptVersion.digest).in_(wanted))
        records = [record for row in session.exec(query) if (record := _record(row))]
        found |= {record.name: record for record in records if digests[record.name] == record.digest}
    return found


def by_number(session: Session, name: str, number: int) -> VersionRecord | None:
    query = select(PromptVersion).where(PromptVersion.name == name, PromptVersion.number == number)
    return _record(session.exec(query).first())


def by_numbers(session: Session, pairs: Collection[tuple[str, int]]) -> Iterator[VersionRecord]:
    """Those of these versions that exist, in no order."""
    ordered = sorted(pairs)
    for start in range(0, len(ordered), _AT_ONCE):
        wanted = tuple_(col(PromptVersion.name), col(PromptVersion.number)).in_(ordered[start : start + _AT_ONCE])
        yield from (record for row in session.exec(select(PromptVersion).where(wanted)) if (record := _record(row)))


def newest(session: Session, name: str) -> VersionRecord | None:
    """The newest version that was pushed; drafts are none."""
    query = select(PromptVersion).where(PromptVersion.name == name, col(PromptVersion.draft).is_(False))
    return _record(session.exec(query.order_by(col(PromptVersion.number).desc()).limit(1)).first())


def highest_numbers(session: Session, names: Sequence[str], *, drafts: bool = True) -> dict[str, int]:
    """The number of each prompt's newest version, drafts among them or not; prompts without one are left out."""
    found: dict[str, int] = {}
    for some in _batches(names):
        query = select(PromptVersion.name, func.max(PromptVersion.number)).where(col(PromptVersion.name).in_(some))
        if not drafts:
            query = query.where(col(PromptVersion.draft).is_(False))
        found |= dict(session.exec(query.group_by(PromptVersion.name)).all())
    return found


def set_published(session: Session, name: str, number: int) -> None:
    """This version is no draft, or one no longer."""
    query = select(PromptVersion).where(PromptVersion.name == name, PromptVersion.number == number)
    row = session.exec(query).one()
    row.draft = False
    session.add(row)
    session.flush()


def versions(session: Session, name: str, limit: int) -> list[VersionRecord]:
    """The newest `limit` versions, newest first."""
    query = select(PromptVersion).where(PromptVersion.name == name).order_by(col(PromptVersion.number).desc())
    return [record for row in session.exec(query.limit(limit)) if (record := _record(row))]


def names(session: Session) -> list[tuple[str, int]]:
    """Every prompt's name with the number of its newest version that was pushed."""
    pushed = select(PromptVersion.name, func.max(PromptVersion.number)).where(col(PromptVersion.draft).is_(False))
    return sorted((name, number) for name, number in session.exec(pushed.group_by(PromptVersion.name)))


def add_all(session: Session, records: Sequence[VersionRecord]) -> None:
    if records:
        rows = [{name: getattr(record, name) for name in VersionRecord.__slots__} for record in records]
        session.execute(insert(PromptVersion), rows)


def annotate(session: Session, record: VersionRecord) -> None:
    """Write what is known about a version beside its content, which never changes."""
    query = select(PromptVersion).where(PromptVersion.name == record.name, PromptVersion.number == record.number)
    row = session.exec(query).one()
    row.message, row.about, row.author, row.draft = record.message, record.about, record.author, record.draft
    session.add(row)
    session.flush()


def set_summaries(session: Session, records: Sequence[SummaryRecord]) -> None:
    """Make these what lists and searches see of their prompts."""
    for some in _batches([record.name for record in records]):
        session.execute(delete(PromptTag).where(col(PromptTag.name).in_(some)))
        session.execute(delete(PromptSummary).where(col(PromptSummary.name).in_(some)))
    rows = [{name: getattr(r, name) for name in SummaryRecord.__slots__} | {"tags": list(r.tags)} for r in records]
    tags = [{"name": record.name, "tag": tag} for record in records for tag in dict.fromkeys(record.tags)]
    for table, values in ((PromptSummary, rows), (PromptTag, tags)):
        if values:
            session.execute(insert(table), values)


def summaries(session: Session, wanted: Filter) -> list[dict[str, Any]]:
    """The prompts that a filter lets through, by name, without their text, in one query."""
    text: Any = PromptSummary.search_text  # SQLModel types columns as their values
    query = select(PromptSummary).options(defer(text)).order_by(col(PromptSummary.name))
    if wanted.after:
        query = query.where(PromptSummary.name > wanted.after)
    for word in wanted.words:
        query = query.where(col(PromptSummary.search_text).contains(word, autoescape=True))
    if wanted.model is not None:
        query = query.where(PromptSummary.model == wanted.model)
    if wanted.tag is not None:
        query = query.where(col(PromptSummary.name).in_(select(PromptTag.name).where(PromptTag.tag == wanted.tag)))
    if wanted.label is not None:
        query = query.where(col(PromptSummary.name).in_(select(Label.name).where(Label.label == wanted.label)))
    shown = ("name", "number", "title", "description", "model", "tags")
    return [{name: getattr(row, name) for name in shown} for row in session.exec(query.limit(wanted.limit))]


def label(session: Session, name: str, label: str) -> LabelRecord | None:
    row = session.get(Label, (name, label))
    return LabelRecord(row.name, row.label, row.version, row.revision, row.updated_at) if row else None


def labels(session: Session, name: str | None = None, *, upto: str | None = None, after: str = "") -> list[LabelRecord]:
    """Labels by prompt and label: of one prompt, or of those whose names lie above `after` and not above `upto`."""
    query = select(Label).where(Label.name > after).order_by(col(Label.name), col(Label.label))
    if name is not None:
        query = query.where(Label.name == name)
    if upto is not None:
        query = query.where(Label.name <= upto)
    return [LabelRecord(row.name, row.label, row.version, row.revision, row.updated_at) for row in session.exec(query)]


def move_label(
    session: Session,
    record: LabelRecord,
    *,
    actor: str,
    reason: str | None,
    evidence_id: str | None,
    undoes: int | None = None,
) -> None:
    """Point a label to a version and write the move to its history. The caller holds the prompt's lock."""
    row = session.get(Label, (record.name, record.label))
    before = row.version if row else None
    session.merge(Label(**{name: getattr(record, name) for name in LabelRecord.__slots__}))
    _note_move(session, record, before, record.version, actor, reason, evidence_id, undoes)


def remove_label(
    session: Session, record: LabelRecord, *, actor: str, reason: str | None, undoes: int | None = None
) -> None:
    """Take a label away and write that to its history."""
    row = session.get(Label, (record.name, record.label))
    if row is not None:
        session.delete(row)
        _note_move(session, record, row.version, None, actor, reason, None, undoes)


def _note_move(
    session: Session,
    record: LabelRecord,
    before: int | None,
    after: int | None,
    actor: str,
    reason: str | None,
    evidence_id: str | None,
    undoes: int | None,
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
            undoes=undoes,
            at=record.updated_at,
        )
    )


def label_history(session: Session, name: str, label: str) -> list[dict[str, Any]]:
    """Every move of one label, newest first."""
    query = select(LabelMove).where(LabelMove.name == name, LabelMove.label == label)
    return [row.model_dump(exclude={"id"}) for row in session.exec(query.order_by(col(LabelMove.id).desc()))]


def standing_moves(session: Session, name: str, label: str) -> list[dict[str, Any]]:
    """The moves of a label that were not taken back, oldest first: `undo` takes back the last of them."""
    standing: list[dict[str, Any]] = []
    for move in reversed(label_history(session, name, label)):
        if move["undoes"] is None:
            standing.append(move)
        else:
            standing = [kept for kept in standing if kept["revision"] < move["undoes"]]
    return standing


def last_label_revision(session: Session, name: str, label: str) -> int:
    """The highest revision this label ever had: a label that was removed and set again goes on counting."""
    query = select(func.max(LabelMove.revision)).where(LabelMove.name == name, LabelMove.label == label)
    return session.exec(query).one() or 0


def _record(row: PromptVersion | None) -> VersionRecord | None:
    return VersionRecord(**{name: getattr(row, name) for name in VersionRecord.__slots__}) if row else None

"""Prompt versions, labels and their history."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from service.errors import NotFound
from service.store.records import read_json, without
from service.store.session import Session, like, listed
from service.store.tables import LABEL, LABEL_MOVE, PROMPT, PROMPT_SUMMARY, PROMPT_TAG, PROMPT_VERSION

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
    add_names(session, [name], at)
    lock_known(session, [name])


def add_names(session: Session, names: Sequence[str], at: str) -> None:
    """Make sure that these prompts exist."""
    PROMPT.add(session, [{"name": name, "created_at": at} for name in names], once=True)


def lock_known(session: Session, names: Sequence[str]) -> set[str]:
    """Lock those of `names` that exist, and return them; always in one order, so that no two pushes wait in a circle."""
    found: set[str] = set()
    for some in _batches(sorted(names)):
        wanted, values = listed("name", some)
        sql = f"SELECT name FROM prompt WHERE name IN {wanted} ORDER BY name{session.for_update}"
        found |= {name for (name,) in session.rows(sql, **values)}
    return found


def _batches(names: Sequence[str]) -> Iterator[Sequence[str]]:
    return (names[start : start + _AT_ONCE] for start in range(0, len(names), _AT_ONCE))


def exists(session: Session, name: str) -> bool:
    return PROMPT.get(session, name) is not None


def refuse_unknown(session: Session, name: str | None) -> None:
    """Raise NotFound for a prompt that there is not: a list of what it has would be empty, and hide a slip of the pen."""
    if name is not None and not exists(session, name):
        raise NotFound("prompt", name, "GET /api/prompts lists those that there are")


def by_digests(session: Session, digests: Mapping[str, str]) -> dict[str, VersionRecord]:
    """The versions that have these digests already, by name; `digests` holds one for each name."""
    found: dict[str, VersionRecord] = {}
    for some in _batches(list(digests)):
        named, names = listed("name", some)
        meant, wanted = listed("digest", sorted({digests[name] for name in some}))
        records = _records(session, f"WHERE name IN {named} AND digest IN {meant}", **names, **wanted)
        found |= {record.name: record for record in records if digests[record.name] == record.digest}
    return found


def by_number(session: Session, name: str, number: int) -> VersionRecord | None:
    return _first(_records(session, "WHERE name = :name AND number = :number", name=name, number=number))


def by_numbers(session: Session, pairs: Collection[tuple[str, int]]) -> Iterator[VersionRecord]:
    """Those of these versions that exist, in no order."""
    for where, values in _numbered(pairs):
        yield from _records(session, where, **values)


def digests(session: Session, pairs: Collection[tuple[str, int]]) -> dict[tuple[str, int], str]:
    """The digests of those of these versions that exist."""
    found: dict[tuple[str, int], str] = {}
    for where, values in _numbered(pairs):
        rows = session.rows(f"SELECT name, number, digest FROM prompt_version {where}", **values)
        found |= {(name, number): digest for name, number, digest in rows}
    return found


def _numbered(pairs: Collection[tuple[str, int]]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Conditions with their values that find these versions, some at a time."""
    ordered = sorted(pairs)
    for start in range(0, len(ordered), _AT_ONCE):
        some = ordered[start : start + _AT_ONCE]
        values: dict[str, Any] = {f"name{place}": name for place, (name, _) in enumerate(some)}
        values |= {f"number{place}": number for place, (_, number) in enumerate(some)}
        wanted = ", ".join(f"(:name{place}, :number{place})" for place in range(len(some)))
        yield f"WHERE (name, number) IN (VALUES {wanted})", values


def newest(session: Session, name: str) -> VersionRecord | None:
    """The newest version that was pushed; drafts are none."""
    return _first(_records(session, "WHERE name = :name AND NOT draft ORDER BY number DESC LIMIT 1", name=name))


def highest_numbers(session: Session, names: Sequence[str], *, drafts: bool = True) -> dict[str, int]:
    """The number of each prompt's newest version, drafts among them or not; prompts without one are left out."""
    found: dict[str, int] = {}
    for some in _batches(names):
        wanted, values = listed("name", some)
        pushed = "" if drafts else " AND NOT draft"
        sql = f"SELECT name, max(number) FROM prompt_version WHERE name IN {wanted}{pushed} GROUP BY name"
        found |= dict(session.rows(sql, **values))
    return found


def set_published(session: Session, name: str, number: int) -> None:
    """This version is no draft, or one no longer."""
    PROMPT_VERSION.set(session, name, number, draft=False)


def versions(session: Session, name: str, limit: int) -> list[VersionRecord]:
    """The newest `limit` versions, newest first."""
    return _records(session, "WHERE name = :name ORDER BY number DESC LIMIT :limit", name=name, limit=limit)


def names(session: Session) -> list[tuple[str, int]]:
    """Every prompt's name with the number of its newest version that was pushed."""
    rows = session.rows("SELECT name, max(number) FROM prompt_version WHERE NOT draft GROUP BY name")
    return sorted((name, number) for name, number in rows)


def add_all(session: Session, records: Sequence[VersionRecord]) -> None:
    PROMPT_VERSION.add(session, [_fields(record) for record in records])


def annotate(session: Session, record: VersionRecord) -> None:
    """Write what is known about a version beside its content, which never changes."""
    said = {name: getattr(record, name) for name in ("message", "about", "author", "draft")}
    PROMPT_VERSION.set(session, record.name, record.number, **said)


def set_summaries(session: Session, records: Sequence[SummaryRecord]) -> None:
    """Make these what lists and searches see of their prompts."""
    for some in _batches([record.name for record in records]):
        named, names = listed("name", some)
        for table in (PROMPT_TAG, PROMPT_SUMMARY):
            session.run(f"DELETE FROM {table.name} WHERE name IN {named}", **names)
    PROMPT_SUMMARY.add(session, [_fields(record) for record in records])
    tags = [{"name": record.name, "tag": tag} for record in records for tag in dict.fromkeys(record.tags)]
    PROMPT_TAG.add(session, tags)


def summaries(session: Session, wanted: Filter) -> list[dict[str, Any]]:
    """The prompts that a filter lets through, by name, without their text, in one query."""
    shown = ("name", "number", "title", "description", "model", "tags")
    where, values = _conditions(wanted)
    sql = f"SELECT {', '.join(shown)} FROM prompt_summary WHERE {where} ORDER BY name LIMIT :limit"
    rows = [dict(zip(shown, row, strict=True)) for row in session.rows(sql, **values, limit=wanted.limit)]
    return [{**row, "tags": read_json(row["tags"])} for row in rows]


def _conditions(wanted: Filter) -> tuple[str, dict[str, Any]]:
    """A filter as SQL, and its values."""
    found, values = ["name > :after"], {"after": wanted.after}
    for number, word in enumerate(wanted.words):
        found.append(f"search_text LIKE :word{number} ESCAPE '/'")
        values[f"word{number}"] = f"%{like(word)}%"
    for column, value, condition in (
        ("model", wanted.model, "model = :model"),
        ("tag", wanted.tag, "name IN (SELECT name FROM prompt_tag WHERE tag = :tag)"),
        ("label", wanted.label, "name IN (SELECT name FROM label WHERE label = :label)"),
    ):
        if value is not None:
            found.append(condition)
            values[column] = value
    return " AND ".join(found), values


def label(session: Session, name: str, label: str) -> LabelRecord | None:
    row = LABEL.get(session, name, label)
    return LabelRecord(**row) if row else None


def labels(session: Session, name: str | None = None, *, upto: str | None = None, after: str = "") -> list[LabelRecord]:
    """Labels by prompt and label: of one prompt, or of those whose names lie above `after` and not above `upto`."""
    where, values = "WHERE name > :after", {"after": after}
    if name is not None:
        where, values = f"{where} AND name = :name", values | {"name": name}
    if upto is not None:
        where, values = f"{where} AND name <= :upto", values | {"upto": upto}
    return [LabelRecord(**row) for row in LABEL.all(session, f"{where} ORDER BY name, label", **values)]


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
    row = LABEL.get(session, record.name, record.label)
    before = row["version"] if row else None
    LABEL.remove(session, record.name, record.label)
    LABEL.add(session, [_fields(record)])
    _note_move(session, record, before, record.version, actor, reason, evidence_id, undoes)


def remove_label(
    session: Session, record: LabelRecord, *, actor: str, reason: str | None, undoes: int | None = None
) -> None:
    """Take a label away and write that to its history."""
    row = LABEL.get(session, record.name, record.label)
    if row is not None:
        LABEL.remove(session, record.name, record.label)
        _note_move(session, record, row["version"], None, actor, reason, None, undoes)


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
    move: dict[str, Any] = {"name": record.name, "label": record.label, "from_version": before, "to_version": after}
    move |= {"revision": record.revision, "actor": actor, "reason": reason, "evidence_id": evidence_id}
    LABEL_MOVE.add(session, [{**move, "undoes": undoes, "at": record.updated_at}])


def label_history(session: Session, name: str, label: str) -> list[dict[str, Any]]:
    """Every move of one label, newest first."""
    moves = LABEL_MOVE.all(session, "WHERE name = :name AND label = :label ORDER BY id DESC", name=name, label=label)
    return [without(move, "id") for move in moves]


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
    sql = "SELECT max(revision) FROM label_move WHERE name = :name AND label = :label"
    return session.value(sql, name=name, label=label) or 0


def _records(session: Session, where: str, **values: Any) -> list[VersionRecord]:
    return [VersionRecord(**without(row, "id")) for row in PROMPT_VERSION.all(session, where, **values)]


def _first(records: Sequence[VersionRecord]) -> VersionRecord | None:
    return records[0] if records else None


def _fields(record: VersionRecord | LabelRecord | SummaryRecord) -> dict[str, Any]:
    return {name: getattr(record, name) for name in record.__slots__}

"""One push: files → versions, all or none, with as few statements as a thousand files need."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from prompts.errors import BadFile, Fault
from prompts.formats.prompt_yml import PromptSource, prompt_from_document
from prompts.names import check_name
from prompts.prompt import PromptContent
from prompts.secrets import secret_faults
from prompts.yaml_source import Document
from service.identity import Principal
from service.ids import now
from service.search import summary
from service.settings import too_large
from service.store import keys, prompts, suites
from service.store.prompts import VersionRecord
from service.store.session import Session
from suites.case import Suite
from suites.packs import ITEMS_A_CHUNK

DOCUMENTATION = ("title", "description", "tags", "notes")  # what may change without a new version: the newest push wins
_DETACHED = "HEAD"  # what git says in place of a branch


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a push comes from; labels in files move only as committed on the default branch, or without git.

    A `draft` is a working tree under test: its versions have numbers, but are never `latest`, nor what a suite's bare
    name means, until somebody pushes them. `git_subject` is the commit's, for versions pushed without a `message`;
    `git_dirty` names the prompts whose files are not as that commit has them, which its subject does not describe.
    `allow_secrets` is for whoever has looked for secrets already, with the comments that allow one.
    """

    message: str | None = None
    git_sha: str | None = None
    git_branch: str | None = None
    git_author: str | None = None
    git_subject: str | None = None
    git_dirty: Collection[str] = ()
    moves_labels: bool = True
    draft: bool = False
    allow_secrets: bool = False

    def message_of(self, name: str) -> str | None:
        """What a version of prompt `name` is said to be for."""
        return self.message or (None if name in self.git_dirty else self.git_subject)

    def keeps_labels(self, name: str) -> str | None:
        """Why the labels in the file of prompt `name` do not move; None where they do."""
        if not self.moves_labels and self.git_branch == _DETACHED:
            return "no branch is checked out"
        if not self.moves_labels:
            return f"branch {self.git_branch} is not the default one" if self.git_branch else "this push moves none"
        return "the file is not committed" if name in self.git_dirty else None

    def about(self, name: str) -> dict[str, Any]:
        """The commit behind a version of prompt `name`; `git_dirty` is None without git."""
        commit = {"git_sha": self.git_sha, "git_branch": self.git_branch, "git_author": self.git_author}
        return {**commit, "git_dirty": name in self.git_dirty if self.git_sha else None}


@dataclass(frozen=True, slots=True)
class Push:
    """Files of one push, as plain data by name; all of them are written, or none. A Suite was checked when it was made."""

    prompts: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    suites: Mapping[str, Mapping[str, Any] | Suite] = field(default_factory=dict)
    origin: Origin = Origin()


_NO_TEXT = re.compile("[\0\ud800-\udfff]")


def read_prompts(files: Mapping[str, Mapping[str, Any]], max_bytes: int) -> dict[str, PromptSource]:
    """Prompts that came as JSON, each of at most `max_bytes` of text; raises BadFile with the faults of all of them."""
    sources: dict[str, PromptSource] = {}
    faults: list[Fault] = []
    for name, data in files.items():
        try:
            document = Document(f"prompt {check_name(name)}", _plain_data(data, name, max_bytes), {(): 0})
            sources[name] = prompt_from_document(document, name)
        except BadFile as error:
            faults += error.faults
    if faults:
        raise BadFile(faults)
    return sources


def _plain_data(data: Mapping[str, Any], name: str, max_bytes: int) -> dict[str, Any]:
    """Data that came as JSON, held to what a file may hold: so much text, no NUL and no half of a surrogate pair."""
    waiting: list[Any] = [dict(data)]
    size_bytes = 0
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            waiting += [*value.keys(), *value.values()]
        elif isinstance(value, list):
            waiting += value
        elif isinstance(value, str) and (found := _NO_TEXT.search(value)):
            raise BadFile([Fault(f"prompt {name}", 0, f"holds {found[0]!a}, which is no text", "remove it")])
        elif isinstance(value, str):
            size_bytes += len(value.encode())
    if size_bytes > max_bytes:
        raise BadFile([too_large(f"prompt {name}", size_bytes, max_bytes)])
    return dict(data)


def refuse_secrets(push: Push) -> None:
    """Raise BadFile with every value of a push that is a key by its looks; files are looked at by `turnout check`.

    A Suite was made of files.
    """
    if push.origin.allow_secrets:
        return
    files = [(f"prompt {name}", data) for name, data in push.prompts.items()]
    files += [(f"suite {name}", data) for name, data in push.suites.items() if not isinstance(data, Suite)]
    faults = [
        replace(fault, line=0, fix=_OVER_HTTP)
        for origin, data in files
        for text in _texts(data)
        for fault in secret_faults(text, origin)
        if fault.level == "error"
    ]
    if faults:
        raise BadFile(faults)


_OVER_HTTP = "take it out, make it invalid and get a new one; what is no secret is sent with `allow_secrets: true`"


def _texts(data: Mapping[str, Any]) -> Iterator[str]:
    """Every text of plain data; one that has a key stands behind it, for what only a name gives away."""
    waiting: list[Any] = [data]
    while waiting:
        value = waiting.pop()
        if isinstance(value, str):
            yield value
        elif isinstance(value, Mapping):
            waiting += [f"{key}: {item}" if isinstance(item, str) else item for key, item in value.items()]
        elif isinstance(value, list):
            waiting += value


def lock(session: Session, sources: Collection[str], read: Mapping[str, Suite]) -> None:
    """Make the prompts of a push, and let nobody else number versions of what it touches meanwhile.

    Raises BadFile with every suite whose prompt does not exist.
    """
    prompts.add_names(session, sorted(sources), now())
    known = prompts.lock_known(session, sorted({*sources, *(suite.prompt for suite in read.values())}))
    faults = [
        Fault(f"suite {name}", 0, f"its prompt {suite.prompt!r} does not exist", "push the prompt with it or before it")
        for name, suite in sorted(read.items())
        if suite.prompt not in known
    ]
    if faults:
        raise BadFile(faults)


def _brought(sources: Mapping[str, PromptSource]) -> dict[str, Suite]:
    if not sources:
        return {}
    from suites.github import suite_of  # few pushes have any

    return {name: suite for name, source in sources.items() if (suite := suite_of(source).suite) is not None}


def with_brought(given: Mapping[str, Suite], sources: Mapping[str, PromptSource]) -> dict[str, Suite]:
    """The suites of a push, and those that its prompts bring with them (GitHub's `testData`).

    Raises BadFile where one of these and one that was given are two suites of one name.
    """
    brought = _brought({name: source for name, source in sources.items() if source.test_data})
    faults = [
        Fault(f"suite {name}", 0, f"prompt {name} brings another suite of this name", "rename the suite")
        for name, suite in sorted(brought.items())
        if name in given and given[name].digest != suite.digest
    ]
    if faults:
        raise BadFile(faults)
    return {**brought, **given}


def dirty_with_includes(dirty: Collection[str], sources: Mapping[str, PromptSource]) -> frozenset[str]:
    """The prompts that are not as their commit has them: the `dirty` files, and what includes them however deep."""
    found, more = frozenset[str](), frozenset(dirty)
    while more > found:
        found = more
        more = found | {name for name, source in sources.items() if not found.isdisjoint(source.includes)}
    return found


def write_versions(
    session: Session,
    sources: Mapping[str, PromptSource],
    contents: Mapping[str, PromptContent],
    origin: Origin,
    actor: Principal,
) -> list[dict[str, Any]]:
    """A version of every prompt whose content is new, in the order of their names. The caller holds their locks."""
    origin = replace(origin, git_dirty=dirty_with_includes(origin.git_dirty, sources))
    digests = {name: contents[name].digest for name in sorted(sources)}
    known = prompts.by_digests(session, digests)
    highest = prompts.highest_numbers(session, list(digests))
    records = {
        name: known.get(name) or _new(sources[name], contents[name], digest, highest.get(name, 0) + 1, origin, actor)
        for name, digest in digests.items()
    }
    prompts.add_all(session, [record for name, record in records.items() if name not in known])
    changed = {name: record for name, record in records.items() if name not in known}
    if not origin.draft:
        changed |= _documented(session, known, sources, origin, actor)
        _summarise(session, changed, contents)
    return [
        {"kind": "prompt", "name": name, "version": r.number, "digest": r.digest, "created": name not in known}
        for name, r in records.items()
    ]


def move_labels(
    session: Session,
    written: Sequence[Mapping[str, Any]],
    sources: Mapping[str, PromptSource],
    origin: Origin,
    actor: Principal,
    protected: frozenset[str],
) -> list[dict[str, Any]]:
    """Point the labels that files name to the versions `written`, where they may move.

    An entry whose file names any tells which of them point to its version now (`labels`), and of the others why not
    (`labels_kept`). Raises NeedsEvidence for a protected one without a passing gate.
    """
    origin = replace(origin, git_dirty=dirty_with_includes(origin.git_dirty, sources))
    entries: list[dict[str, Any]] = []
    for entry in written:
        name, wanted = entry["name"], sources[entry["name"]].labels
        kept = origin.keeps_labels(name)
        for label in () if kept else wanted:
            from service import labels  # with routes and their evidence, which a run's drafts never move

            labels.follow_file(session, name, label, entry["version"], actor, origin.message, protected)
        told = {"labels": [] if kept else list(wanted), "labels_kept": dict.fromkeys(wanted, kept) if kept else {}}
        entries.append({**entry, **(told if wanted and not origin.draft else {})})
    return entries


def _new(
    source: PromptSource, content: PromptContent, digest: str, number: int, origin: Origin, actor: Principal
) -> VersionRecord:
    return VersionRecord(
        name=source.name,
        number=number,
        digest=digest,
        content=content.model_dump(mode="json"),
        about={**_documentation(source), **origin.about(source.name)},
        author=actor.id,
        message=origin.message_of(source.name),
        created_at=now(),
        draft=origin.draft,
    )


def _documentation(source: PromptSource) -> dict[str, Any]:
    return {
        "title": source.title,
        "description": source.description,
        "tags": list(source.tags),
        "notes": source.notes,
    }


def _documented(
    session: Session,
    known: Mapping[str, VersionRecord],
    sources: Mapping[str, PromptSource],
    origin: Origin,
    actor: Principal,
) -> dict[str, VersionRecord]:
    """Versions that are there already, with what this push says of them; only those of which it says something new.

    A draft that is pushed becomes a version like any other, made by whoever pushes it.
    """
    changed: dict[str, VersionRecord] = {}
    for name, record in known.items():
        said = _documentation(sources[name])
        before = {key: record.about.get(key) for key in DOCUMENTATION if record.about.get(key) != said[key]}
        if record.draft:
            about = {**said, **origin.about(name)}
            message = origin.message_of(name)
            changed[name] = replace(record, about=about, message=message, author=actor.id, draft=False)
        elif before:
            changed[name] = replace(record, about={**record.about, **said})
            keys.audit(session, at=now(), actor=actor.id, action="prompt.document",
                       subject=f"{name}@{record.number}", detail={"before": before})  # fmt: skip
    for record in changed.values():
        prompts.annotate(session, record)
    return changed


def _summarise(session: Session, changed: Mapping[str, VersionRecord], contents: Mapping[str, PromptContent]) -> None:
    """Show those in lists and searches that are the newest version of their prompt."""
    newest = prompts.highest_numbers(session, list(changed), drafts=False)
    records = [summary(record, contents[name]) for name, record in changed.items() if record.number == newest[name]]
    prompts.set_summaries(session, records)


def write_suites(session: Session, read: Mapping[str, Suite], origin: Origin, actor: Principal) -> list[dict[str, Any]]:
    """A version of every suite whose content is new, in the order of their names. The caller holds their prompts' locks."""
    names = sorted(read)
    numbers = suites.numbers(session, names)
    meant = {} if origin.draft else suites.meant(session, names)
    rows: list[dict[str, Any]] = []
    written: list[dict[str, Any]] = []
    for name in names:
        suite, known = read[name], numbers.get(name, {})
        number = known.get(suite.digest) or max(known.values(), default=0) + 1
        created, at = suite.digest not in known, now()
        entry = {"name": name, "digest": suite.digest}
        if created:
            about = {
                "prompt": suite.prompt,
                "content": _suite_content(session, suite),
                "author": actor.id,
                "message": origin.message,
            }
            pushed_at = None if origin.draft else at
            rows.append({**entry, **about, "number": number, "created_at": at, "pushed_at": pushed_at})
        elif not origin.draft and meant.get(name) != number:
            suites.set_pushed(session, name, number, at)
        written.append({"kind": "suite", "name": name, "version": number, "digest": suite.digest, "created": created})
    suites.add_all(session, rows)
    return written


def _suite_content(session: Session, suite: Suite) -> dict[str, Any]:
    """What is stored of a suite: many cases go into chunks of their own."""
    if len(suite.tests) <= ITEMS_A_CHUNK:
        return suite.as_data()
    suites.add_chunks(session, suite.digest, suite.packed.chunks)
    return {**suite.head_data(), "tests": len(suite.tests)}

"""Prompts and suites as the service keeps them: pushing, selecting, labelling."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from sqlmodel import Session

from prompts.errors import BadFile, BadInput, Fault
from prompts.formats.prompt_yml import PromptSource, prompt_from_document
from prompts.names import LATEST, PRODUCTION, Selector, Variant, check_label, check_name, parse_selector
from prompts.prompt import CompiledPrompt, PromptContent
from prompts.registry import resolve_all
from prompts.yaml_source import Document
from service import route_book
from service.child import require_local_packages
from service.errors import NeedsEvidence, NotFound
from service.identity import Principal
from service.ids import now
from service.revisions import check_revision
from service.settings import LocalSpec, Settings
from service.store import keys, prompts, routes, suites
from service.store.database import Database, bump_revision
from service.store.prompts import LabelRecord, VersionRecord
from suites.case import Suite, check_prices

PROTECTED_LABELS = frozenset({PRODUCTION})


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a push comes from; labels in files move only from the default branch, or without git.

    A `draft` is a working tree under test: its versions have numbers, but are never `latest`, nor what a suite's bare
    name means, until somebody pushes them.
    """

    message: str | None = None
    git_sha: str | None = None
    git_branch: str | None = None
    moves_labels: bool = True
    draft: bool = False


@dataclass(frozen=True, slots=True)
class Push:
    """Files of one push, as plain data by name; all of them are written, or none."""

    prompts: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    suites: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    origin: Origin = Origin()


class Registry:
    """Versions and labels. Every method is one transaction."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self._database = database
        self._settings = settings

    def push(self, push: Push, actor: Principal) -> list[dict[str, Any]]:
        """Write a version of every file whose content is new; returns `{kind, name, version, digest, created}` each.

        Raises BadFile with the faults of all files, or NeedsEvidence where a file would move a protected label
        without a passing gate.
        """
        sources = _read_prompts(push.prompts)
        read = {name: self._read_suite(check_name(name, "suite"), data) for name, data in push.suites.items()}
        with self._database.write() as session:
            for name in sorted(sources):
                prompts.lock(session, name, now())
            contents = resolve_all(sources, lambda name: _registered(session, name))
            written = [_write_version(session, sources[n], contents[n], push.origin, actor) for n in sorted(sources)]
            if push.origin.moves_labels:
                for entry in written:
                    for label in sources[entry["name"]].labels:
                        self._point(session, entry["name"], label, entry["version"], actor, push.origin.message)
            written += [_write_suite(session, name, suite, push.origin, actor) for name, suite in sorted(read.items())]
            bump_revision(session)
        return written

    def _read_suite(self, name: str, data: Mapping[str, Any]) -> Suite:
        suite = Suite.from_data(data, origin=f"suite {name}")
        base = suite.fallback.base_model if suite.fallback else None
        if base is not None:
            self._settings.model(base)
        return suite

    def version(self, selector: Selector) -> VersionRecord:
        """The version that a selector means; `production` where it names neither. Raises NotFound, never another."""
        with self._database.read() as session:
            return select_version(session, selector)

    def suite(self, text: str) -> dict[str, Any]:
        """The suite `name` (its newest version) or `name@N`. Raises NotFound."""
        selector = parse_selector(text)
        with self._database.read() as session:
            if selector.label not in (None, LATEST):
                raise BadInput(f"suites have versions, not labels: write {selector.name}@N", param="suite")
            name, number = selector.name, selector.version
            record = suites.by_number(session, name, number) if number else suites.newest(session, name)
        if record is None:
            raise NotFound("suite", text, "push it, or name its file")
        return record

    def suites(self) -> list[dict[str, Any]]:
        """Every suite version without its cases."""
        with self._database.read() as session:
            return suites.summaries(session)

    def check_model(self, alias: str) -> None:
        """Raise BadSetting where the settings have no such model, CannotRun where this install cannot run it."""
        if isinstance(self._settings.model(alias), LocalSpec):
            require_local_packages(f"model {alias!r}")

    def check_price(self, suite: Suite, model: str) -> None:
        """Raise BadFile where the suite bounds costs and nobody knows what `model` costs."""
        check_prices(suite, getattr(self._settings.model(model), "price", None) is not None)

    def listing(self) -> list[dict[str, Any]]:
        """Every prompt with its newest version and its labels, by name."""
        with self._database.read() as session:
            labels = prompts.labels(session)
            return [
                {"name": name, "latest": newest, "labels": {at.label: at.version for at in labels if at.name == name}}
                for name, newest in prompts.names(session)
            ]

    def history(self, name: str) -> dict[str, Any]:
        """One prompt: its versions, newest first, and its labels. Raises NotFound."""
        with self._database.read() as session:
            records = prompts.versions(session, name)
            labels = prompts.labels(session, name)
        if not records:
            raise NotFound("prompt", name)
        return {
            "name": name,
            "labels": {label.label: label.version for label in labels} | _latest(records),
            "versions": [as_data(record, with_content=False) for record in records],
        }

    def label(self, name: str, label: str) -> LabelRecord:
        """Where a label points. Raises NotFound."""
        with self._database.read() as session:
            record = prompts.label(session, name, label)
        if record is None:
            raise NotFound("label", f"{name}@{label}")
        return record

    def label_history(self, name: str, label: str) -> list[dict[str, Any]]:
        with self._database.read() as session:
            found = prompts.label_history(session, name, label)
        if not found:
            raise NotFound("label", f"{name}@{label}")
        return found

    def move_label(
        self,
        name: str,
        label: str,
        version: int,
        actor: Principal,
        *,
        if_revision: int | None = None,
        reason: str | None = None,
    ) -> LabelRecord:
        """Point a label to a version, in one step.

        `if_revision` is the revision that the caller saw (0: none yet). Raises RevisionMismatch, NotFound, or
        NeedsEvidence for a protected label without a passing gate (an admin may give a reason instead).
        """
        with self._database.write() as session:
            if not prompts.exists(session, name):
                raise NotFound("prompt", name)
            prompts.lock(session, name, now())
            current = prompts.label(session, name, label)
            check_revision(f"label {name}@{label}", if_revision, current.revision if current else None)
            record = self._point(session, name, label, version, actor, reason)
            bump_revision(session)
        return record

    def remove_label(
        self, name: str, label: str, actor: Principal, *, if_revision: int | None = None, reason: str | None = None
    ) -> None:
        """Take a label away; it is 404 at once. Raises NotFound, or NeedsEvidence for a protected one."""
        with self._database.write() as session:
            if prompts.exists(session, name):
                prompts.lock(session, name, now())
            record = prompts.label(session, name, label)
            if record is None:
                raise NotFound("label", f"{name}@{label}")
            check_revision(f"label {name}@{label}", if_revision, record.revision)
            if label in PROTECTED_LABELS and not (actor.may("admin") and reason):
                raise NeedsEvidence(f"{label!r} is protected: an admin removes it, with a reason")
            gone = LabelRecord(name, label, record.version, record.revision + 1, now())
            prompts.remove_label(session, gone, actor=actor.id, reason=reason)
            keys.audit(session, at=gone.updated_at, actor=actor.id, action="label.remove",
                       subject=f"{name}@{label}", detail={"version": record.version, "reason": reason})  # fmt: skip
            bump_revision(session)

    def _point(
        self, session: Session, name: str, label: str, number: int, actor: Principal, reason: str | None
    ) -> LabelRecord:
        check_label(label)
        target = prompts.by_number(session, name, number)
        if target is None:
            raise NotFound("version", f"{name}@{number}")
        before = prompts.label(session, name, label)
        variant = Variant(name, number, target.content["model"])
        serves_it = label != PRODUCTION or route_book.incumbents(session, name) == (variant,)
        if before is not None and before.version == number and serves_it:
            return before
        prompts.publish(session, name, number)
        revision = prompts.last_label_revision(session, name, label) + 1
        record = LabelRecord(name, label, number, revision, now())
        evidence_id = None
        if label in PROTECTED_LABELS:
            evidence_id = _allow_protected(session, target, label, actor, reason)
        prompts.move_label(session, record, actor=actor.id, reason=reason, evidence_id=evidence_id)
        if label == PRODUCTION:
            moved = (before.version if before else None, number)
            route_book.follow_production(session, target, moved, actor, reason, evidence_id)
        return record


def select_version(session: Session, selector: Selector) -> VersionRecord:
    """The version that `selector` means. Raises NotFound."""
    if selector.version is not None:
        record = prompts.by_number(session, selector.name, selector.version)
    elif selector.label == LATEST:
        record = prompts.newest(session, selector.name)
    else:
        wanted = PRODUCTION if selector.label is None else selector.label
        label = prompts.label(session, selector.name, wanted)
        record = prompts.by_number(session, selector.name, label.version) if label else None
    if record is not None:
        return record
    if not prompts.exists(session, selector.name):
        raise NotFound("prompt", selector.name)
    if selector.version is not None:
        raise NotFound("version", str(selector))
    labels = ", ".join(label.label for label in prompts.labels(session, selector.name))
    wanted = f"{selector.name}@{selector.label or PRODUCTION}"
    raise NotFound("label", wanted, f"its labels are {labels or 'none'}, and latest")


def as_data(record: VersionRecord, *, with_content: bool = True) -> dict[str, Any]:
    """A version as the API shows it."""
    data = {
        "name": record.name,
        "version": record.number,
        "digest": record.digest,
        **record.about,
        "message": record.message,
        "draft": record.draft,
        "author": record.author,
        "created_at": record.created_at,
    }
    return {**data, **record.content} if with_content else data


def rendered(
    name: str, number: int | None, prompt: CompiledPrompt, variables: dict[str, Any], messages: list[dict[str, Any]]
) -> dict[str, Any]:
    """The answer of a render: the same from the registry and from a working tree."""
    return {
        "name": name,
        "version": number,
        "digest": prompt.digest,
        "model": prompt.content.model,
        "parameters": prompt.content.request_parameters(),
        "messages": [message.as_dict() for message in prompt.render(variables, messages)],
    }


_NO_TEXT = re.compile("[\0\ud800-\udfff]")


def _plain_data(data: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Data that came as JSON, held to what a file may hold: no NUL and no half of a surrogate pair."""
    waiting: list[Any] = [dict(data)]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            waiting += [*value.keys(), *value.values()]
        elif isinstance(value, list):
            waiting += value
        elif isinstance(value, str) and (found := _NO_TEXT.search(value)):
            raise BadFile([Fault(f"prompt {name}", 0, f"holds {found[0]!a}, which is no text", "remove it")])
    return dict(data)


def _latest(records: list[VersionRecord]) -> dict[str, int]:
    """`latest`, where anything was pushed yet; `records` are newest first."""
    pushed = [record.number for record in records if not record.draft]
    return {LATEST: pushed[0]} if pushed else {}


def _read_prompts(files: Mapping[str, Mapping[str, Any]]) -> dict[str, PromptSource]:
    sources: dict[str, PromptSource] = {}
    faults: list[Fault] = []
    for name, data in files.items():
        try:
            document = Document(f"prompt {check_name(name)}", _plain_data(data, name), {(): 0})
            sources[name] = prompt_from_document(document, name)
        except BadFile as error:
            faults += error.faults
    if faults:
        raise BadFile(faults)
    return sources


def _registered(session: Session, text: str) -> PromptContent | None:
    """What an include of `name`, `name@label` or `name@N` means now: production first, else the newest."""
    selector = parse_selector(text)
    if selector.version is None and selector.label is None and not prompts.label(session, selector.name, PRODUCTION):
        selector = Selector(selector.name, label=LATEST)
    try:
        return PromptContent.model_validate(select_version(session, selector).content)
    except NotFound:
        return None


def _write_version(
    session: Session, source: PromptSource, content: PromptContent, origin: Origin, actor: Principal
) -> dict[str, Any]:
    digest = content.digest
    record = prompts.by_digest(session, source.name, digest)
    created = record is None
    if record is None:
        about = {
            "title": source.title,
            "description": source.description,
            "tags": list(source.tags),
            "git_sha": origin.git_sha,
            "git_branch": origin.git_branch,
        }
        record = VersionRecord(
            name=source.name,
            number=prompts.highest_number(session, source.name) + 1,
            digest=digest,
            content=content.model_dump(mode="json"),
            about=about,
            author=actor.id,
            message=origin.message,
            created_at=now(),
            draft=origin.draft,
        )
        prompts.add(session, record)
        session.flush()
    elif record.draft and not origin.draft:
        about = {**record.about, "git_sha": origin.git_sha, "git_branch": origin.git_branch}
        known = replace(record, message=origin.message, about=about, author=actor.id, draft=False)
        prompts.annotate(session, known)
    return {"kind": "prompt", "name": source.name, "version": record.number, "digest": digest, "created": created}


def _write_suite(session: Session, name: str, suite: Suite, origin: Origin, actor: Principal) -> dict[str, Any]:
    if not prompts.exists(session, suite.prompt):
        fix = "push the prompt with it or before it"
        raise BadFile([Fault(f"suite {name}", 0, f"its prompt {suite.prompt!r} does not exist", fix)])
    prompts.lock(session, suite.prompt, now())
    found = suites.by_digest(session, name, suite.digest)
    number = found["number"] if found else suites.next_number(session, name)
    if found is None:
        record = {"name": name, "number": number, "digest": suite.digest, "prompt": suite.prompt}
        about = {"content": suite.as_data(), "author": actor.id, "message": origin.message, "created_at": now()}
        suites.add(session, {**record, **about, "pushed_at": None})
    if not origin.draft:
        suites.set_pushed(session, name, number, now())
    return {"kind": "suite", "name": name, "version": number, "digest": suite.digest, "created": found is None}


def _allow_protected(session: Session, target: VersionRecord, label: str, actor: Principal, reason: str | None) -> str:
    """The evidence on which a protected label may move; raises NeedsEvidence where there is none."""
    served = str(Variant(target.name, target.number, target.content["model"]))
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
    keys.audit(session, at=now(), actor=actor.id, action="label.manual",
               subject=f"{target.name}@{label}", detail={"version": target.number, "reason": reason})  # fmt: skip
    return route_book.add_manual_evidence(session, target.name, f"{target.name}@{target.number}", actor, reason)

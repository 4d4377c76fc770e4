"""Prompts and suites as the service keeps them: pushing, selecting, labelling."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from prompts.errors import BadFile, BadInput, BadName, Fault, IncludeError
from prompts.formats.prompt_yml import PromptSource
from prompts.messages import NOTHING
from prompts.names import LATEST, PRODUCTION, Selector, check_name, parse_selector, parse_variant
from prompts.prompt import CompiledPrompt, PromptContent
from prompts.registry import resolve_all
from prompts.yaml_source import Document
from service.child import require_local_packages
from service.errors import NotFound
from service.identity import Principal
from service.ids import now
from service.pushing import (
    Origin,
    Push,
    lock,
    move_labels,
    read_prompts,
    refuse_secrets,
    with_brought,
    write_suites,
    write_versions,
)
from service.revisions import check_revision
from service.search import words
from service.settings import LocalSpec, Settings
from service.store import prompts, runs, suites
from service.store.database import Database, bump_revision
from service.store.prompts import Filter, LabelRecord, VersionRecord
from service.store.session import Session
from service.suite_rules import rule_faults
from suites.case import Suite
from suites.checks import check_prices
from suites.files import read_sent
from suites.packs import ITEMS_A_CHUNK

__all__ = [
    "MAX_LISTED",
    "MAX_VERSIONS",
    "Origin",
    "Push",
    "Registry",
    "Search",
    "as_data",
    "rendered",
    "select_version",
]

MAX_LISTED = 1000  # prompts a page
MAX_VERSIONS = 10_000  # of one history: more than anybody makes by hand
_NOT_SAID: dict[str, Any] = {"title": None, "description": None, "tags": [], "notes": None, "git_sha": None, "git_branch": None,
             "git_author": None, "git_dirty": None}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Search:
    """Which prompts a list shows; `limit` of those whose names lie above `after`."""

    query: str = ""
    tag: str | None = None
    model: str | None = None
    label: str | None = None
    after: str = ""
    limit: int = MAX_LISTED


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
        faults: list[Fault] = []
        sources, read = self._read(push, faults)
        with self._database.write() as session:
            with _kept(faults):
                lock(session, push.prompts, {name: suite for name, suite in read.items() if suite.prompt})
            if not push.origin.draft:  # a draft is asked by whatever model its run names, which is held to this then
                unread = push.prompts.keys() - sources.keys()  # their models are not known
                asked = {name: suite for name, suite in read.items() if suite.prompt not in unread}
                faults += self._price_faults(session, asked, sources)
            with _kept(faults):
                contents = resolve_all(sources, lambda name: _registered(session, name))
            if faults:
                raise BadFile(faults)
            written = write_versions(session, sources, contents, push.origin, actor)
            written = move_labels(session, written, sources, push.origin, actor, self._protected)
            written += write_suites(session, read, push.origin, actor)
            bump_revision(session)
        return written

    def _read(self, push: Push, faults: list[Fault]) -> tuple[dict[str, PromptSource], dict[str, Suite]]:
        """The prompts and the suites of a push; what is wrong with them is added to `faults`.

        Of prompts with faults there are none, of a suite with faults what is left of it, to be looked at for more.
        """
        sources: dict[str, PromptSource] = {}
        with _kept(faults):
            sources = read_prompts(push.prompts, self._settings.registry.max_prompt_bytes)
        with _kept(faults):
            refuse_secrets(push)
        whole: dict[str, Suite] = {}
        damaged: dict[str, Suite] = {}
        for name, data in push.suites.items():
            suite, found = self._read_suite(check_name(name, "suite"), data)
            faults += found
            if suite is not None:
                (damaged if found else whole)[name] = suite
        with _kept(faults):
            whole = with_brought(whole, sources)
        return sources, {**whole, **damaged}

    def _read_suite(self, name: str, data: Mapping[str, Any] | Suite) -> tuple[Suite | None, list[Fault]]:
        """A suite and all its faults but those of prices; with faults what is left without them, if anything is."""
        if isinstance(data, Suite):
            return data, list(rule_faults(data, self._settings, _document(name)))
        suite, _, faults = read_sent(data, f"suite {name}")
        more = rule_faults(suite, self._settings, _document(name), is_whole=not faults) if suite else ()
        return suite, [*faults, *more]

    def _price_faults(
        self, session: Session, read: Mapping[str, Suite], sources: Mapping[str, PromptSource]
    ) -> Iterator[Fault]:
        """What suites bound of costs whose prompts no model answers whose price is known."""
        for name, suite in sorted(read.items()):
            pushed = sources.get(suite.prompt)
            aliases = {pushed.model} if pushed else _models_of(session, suite.prompt)
            priced = {alias: self._settings.models[alias].price for alias in aliases & self._settings.models.keys()}
            if priced and not any(priced.values()):
                try:
                    check_prices(suite, min(priced), has_price=False, document=_document(name))
                except BadFile as error:
                    yield from error.faults

    def version(self, selector: Selector) -> VersionRecord:
        """The version that a selector means; `production` where it names neither. Raises NotFound, never another."""
        with self._database.read() as session:
            return select_version(session, selector)

    def suite(self, text: str) -> dict[str, Any]:
        """The suite `name` (its newest version) or `name@N`, its cases in plain data. Raises NotFound."""
        record = self.suite_head(text)
        if isinstance(record["content"]["tests"], list):
            return record
        return {**record, "content": self.read_suite(record).as_data()}

    def read_suite(self, record: Mapping[str, Any]) -> Suite:
        """The suite of a record, of `suite_head` or `suite`."""
        return stored_suite(self._database, record)

    def suite_head(self, text: str) -> dict[str, Any]:
        """The record of a suite as it is stored: where it has many cases, `tests` of its content is their number."""
        selector = parse_selector(text)
        with self._database.read() as session:
            if selector.label not in (None, LATEST):
                raise BadInput(f"suites have versions, not labels: write {selector.name}@N", param="suite")
            name, number = selector.name, selector.version
            record = suites.by_number(session, name, number) if number else suites.newest(session, name)
        if record is None:
            raise NotFound("suite", text, "push it; run, gate and check read its file without that")
        return record

    def suites(self) -> list[dict[str, Any]]:
        """Every suite version without its cases."""
        with self._database.read() as session:
            return suites.summaries(session)

    def check_model(self, alias: str) -> None:
        """Raise BadSetting where the settings have no such model, CannotRun where this install cannot run it."""
        if isinstance(self._settings.model(alias), LocalSpec):
            require_local_packages(f"model {alias!r}")

    def check_price(self, name: str, suite: Suite, model: str) -> None:
        """Raise BadFile where the suite bounds costs and nobody knows what `model` costs."""
        check_prices(suite, model, self._settings.model(model).price is not None, document=_document(name))

    def listing(self, search: Search | None = None) -> list[dict[str, Any]]:
        """Prompts that a search finds, by name: what they are, their newest version and their labels.

        A search looks at the newest pushed version: every word of the query must occur in its name, title, description,
        notes or messages, whatever its case.
        """
        search = search or Search()
        label = None if search.label == LATEST else search.label
        wanted = Filter(words(search.query), search.tag, search.model, label, search.after, search.limit)
        with self._database.read() as session:
            found = prompts.summaries(session, wanted)
            at = prompts.labels(session, after=search.after, upto=found[-1]["name"]) if found else []
        pointing: dict[str, dict[str, int]] = {}
        for record in at:
            pointing.setdefault(record.name, {})[record.label] = record.version
        return [
            {**{key: value for key, value in row.items() if key != "number"}, "latest": row["number"],
             "labels": pointing.get(row["name"], {})}
            for row in found
        ]  # fmt: skip

    def history(self, name: str, limit: int = MAX_VERSIONS) -> dict[str, Any]:
        """One prompt: its versions, newest first, each with its newest runs; and its labels. Raises NotFound."""
        with self._database.read() as session:
            records = prompts.versions(session, name, limit)
            at = prompts.labels(session, name)
            newest = prompts.highest_numbers(session, [name], drafts=False)
            made = runs.newest_of_suites(session, suites.of_prompt(session, name))
        if not records:
            raise NotFound("prompt", name)
        by_version = _by_version(name, made)
        return {
            "name": name,
            "labels": {label.label: label.version for label in at} | ({LATEST: newest[name]} if newest else {}),
            "versions": [
                {**as_data(record, with_content=False), "runs": by_version.get(record.number, [])} for record in records
            ],
        }

    def lineage(self, selector: Selector) -> list[VersionRecord]:
        """The version that a selector means, last, behind all that were pushed before it. Raises NotFound."""
        with self._database.read() as session:
            selected = select_version(session, selector)
            known = prompts.versions(session, selector.name, MAX_VERSIONS)
        before = [record for record in reversed(known) if record.number < selected.number and not record.draft]
        return [*before, selected]

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
            prompts.lock_known(session, [name])
            record = prompts.label(session, name, label)
            if record is None:
                raise NotFound("label", f"{name}@{label}")
            check_revision(f"label {name}@{label}", if_revision, record.revision)
            from service import labels

            labels.remove(session, record, actor, reason, self._protected)
            bump_revision(session)

    def undo_label(
        self, name: str, label: str, actor: Principal, *, if_revision: int | None = None, reason: str | None = None
    ) -> dict[str, Any]:
        """Take back a label's last move; see `service.labels.undo`. Raises RevisionMismatch, too."""
        with self._database.write() as session:
            prompts.lock_known(session, [name])
            current = prompts.label(session, name, label)
            check_revision(f"label {name}@{label}", if_revision, current.revision if current else None)
            from service import labels

            moved = labels.undo(session, name, label, actor, reason, self._protected)
            bump_revision(session)
        return moved

    def _point(
        self, session: Session, name: str, label: str, number: int, actor: Principal, reason: str | None
    ) -> LabelRecord:
        from service import labels  # with routes and their evidence: a run on the command line moves none

        return labels.point(session, name, label, number, actor, reason, self._protected)

    @property
    def _protected(self) -> frozenset[str]:
        return frozenset({PRODUCTION, *self._settings.registry.protected_labels})


@contextmanager
def _kept(faults: list[Fault]) -> Iterator[None]:
    """Keep the faults of what is refused within, to be told with those of all else."""
    try:
        yield
    except BadFile as error:
        faults += error.faults


def _document(name: str) -> Document:
    """A suite that came as data, by its name: it has no lines."""
    return Document(f"suite {name}", {}, {(): 0})


def _models_of(session: Session, prompt: str) -> set[str]:
    """The models of the versions of a prompt that a run means without more words: production's, and the newest's."""
    label = prompts.label(session, prompt, PRODUCTION)
    records = (prompts.by_number(session, prompt, label.version) if label else None, prompts.newest(session, prompt))
    return {record.content["model"] for record in records if record is not None}


def stored_suite(database: Database, record: Mapping[str, Any]) -> Suite:
    """The suite of a stored record; many cases are read from the database as they are needed."""
    content = dict(record["content"])
    if isinstance(content["tests"], list):
        return Suite.from_data(content, origin=f"suite {record['name']}")
    count = content.pop("tests")
    chunks = suites.Chunks(database, record["digest"], -(-count // ITEMS_A_CHUNK))
    return Suite.from_packed(content, chunks, count)


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
        highest = prompts.highest_numbers(session, [selector.name]).get(selector.name, 0)
        raise NotFound("version", str(selector), f"its versions go up to {highest}: turnout log {selector.name}")
    labels = ", ".join(label.label for label in prompts.labels(session, selector.name))
    wanted = f"{selector.name}@{selector.label or PRODUCTION}"
    raise NotFound("label", wanted, f"its labels are {labels or 'none'}, and latest{_ask_for(selector)}")


def _ask_for(selector: Selector) -> str:
    """How to ask for the newest version, for whoever named no label and thought of it."""
    if selector.label not in (None, PRODUCTION):
        return ""
    return (
        f"; the newest is {selector.name}@latest (for `run` and `finetune` with --prompt, for `gate` with --candidate)"
    )


def as_data(record: VersionRecord, *, with_content: bool = True) -> dict[str, Any]:
    """A version as the API shows it."""
    data = {
        "name": record.name,
        "version": record.number,
        "digest": record.digest,
        **_NOT_SAID,
        **record.about,
        "message": record.message,
        "draft": record.draft,
        "author": record.author,
        "created_at": record.created_at,
    }
    return {**data, **record.content} if with_content else data


def rendered(
    name: str,
    number: int | None,
    prompt: CompiledPrompt,
    variables: dict[str, Any],
    messages: Sequence[Mapping[str, Any]],
    placeholders: Mapping[str, Any] = NOTHING,
) -> dict[str, Any]:
    """The answer of a render: the same from the registry and from a working tree."""
    return {
        "name": name,
        "version": number,
        "digest": prompt.digest,
        "model": prompt.content.model,
        "parameters": prompt.parameters,
        "messages": [message.as_dict() for message in prompt.render(variables, messages, placeholders)],
    }


def _by_version(name: str, made: list[dict[str, Any]]) -> dict[int, list[dict[str, Any]]]:
    """What the newest runs of each variant came to, by the version of prompt `name` that they tested."""
    figures = ("total", "passed", "failed", "errored", "skipped", "pass_rate", "ci95", "metrics")
    found: dict[int, list[dict[str, Any]]] = {}
    for run in made:
        variant, summary = parse_variant(run["variant"]), run["summary"] or {}
        if variant.prompt == name:
            about = {"suite": run["suite"], "suite_version": run["suite_version"], "run_id": run["id"]}
            shown = {**about, "variant": run["variant"], "finished_at": run["finished_at"]}
            found.setdefault(variant.version, []).append(shown | {key: summary.get(key) for key in figures})
    return found


def _registered(session: Session, text: str) -> PromptContent | None:
    """What an include of `name`, `name@label` or `name@N` means now: production first, else the newest."""
    try:
        selector = parse_selector(text)
    except BadName as error:
        raise IncludeError(f"include {text[:80]!r}: {error}") from error
    if selector.version is None and selector.label is None and not prompts.label(session, selector.name, PRODUCTION):
        selector = Selector(selector.name, label=LATEST)
    try:
        return PromptContent.model_validate(select_version(session, selector).content)
    except NotFound:
        return None

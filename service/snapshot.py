"""What serving needs, in memory: keys, labels, routes and compiled prompts. No request waits for the database.

A background task watches one number in the database and reads everything anew when it has moved; writes of the same
process refresh at once. When the database is away the last snapshot goes on serving, and a service that is started then
serves from the one that its home keeps on disk. Whoever keeps copies is told by `changes` which prompts have moved.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import structlog

from prompts.names import LATEST, PRODUCTION, Selector
from prompts.prompt import CompiledPrompt, PromptContent, compile_prompt
from prompts.segments import local_messages
from service import route_data, snapshot_file
from service.changes import Change, Changes
from service.errors import NotFound, StorageFailed
from service.identity import Principal
from service.ids import now
from service.limits import KeyLimits
from service.routing import RouteState
from service.store import keys, prompts, routes, tuned
from service.store.database import Database
from service.store.prompts import VersionRecord

WATCH_S = 0.5
SAVE_AGAIN_S = 10.0  # after the disk took no snapshot: making one of thousands of prompts is work
HANGS_S = 2.0  # a look that takes longer is no proof that nothing has moved
TUNED = "ft:"  # what the names of fine-tuned models begin with
log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Routed:
    """A prompt's route as it is served."""

    state: RouteState
    revision: int
    salt: str


@dataclass(frozen=True, slots=True)
class Tuned:
    """An `ft:` name: the model alias and the adapter that it is served by."""

    name: str
    model: str
    adapter: str
    created_at: str


@dataclass(frozen=True)
class View:
    """One consistent state of everything that serving looks at."""

    revision: int = -1
    principals: Mapping[str, Principal] = field(default_factory=dict)  # by the key's digest
    labels: Mapping[str, Mapping[str, int]] = field(default_factory=dict)  # prompt → label → version
    newest: Mapping[str, int] = field(default_factory=dict)
    routes: Mapping[str, Routed] = field(default_factory=dict)
    tuned: Mapping[str, Tuned] = field(default_factory=dict)


class Snapshot:
    """Holds the newest `View` and the compiled versions, which never change once read.

    `is_eager` compiles every version that a name can mean before anybody asks for it: right for a service, a waste for a
    command that ends after one question. Such a service names its `home`, too, where the snapshot is kept on disk.
    """

    def __init__(self, database: Database, *, is_eager: bool = True, home: Path | None = None) -> None:
        self._database = database
        self._is_eager = is_eager
        self._home = home
        self._records: dict[tuple[str, int], VersionRecord] = {}
        self._saved = View()
        self._refused: View | None = None  # what the disk last took no snapshot of, and when that is tried again
        self._save_at_s = 0.0
        self._compiled: dict[tuple[str, int], CompiledPrompt] = {}
        self._local: dict[tuple[str, int], list[dict[str, Any]] | None] = {}
        self._lock = threading.Lock()
        self.changes = Changes()
        self.view = View()
        self.is_stale = False
        self.is_from_disk = False
        self._was_away = False  # since the last refresh; a database that hangs is still the same one

    def refresh(self) -> None:
        """Read everything anew where something has changed. Raises StorageFailed."""
        with self._lock, self._database.read() as session:
            revision = keys.revision(session)
            was_away = self._was_away or self.is_from_disk or revision < self.view.revision
            if revision == self.view.revision and not was_away:
                return
            if was_away:
                self._forget_what_is_not_in(session)
            view = View(
                revision=revision,
                principals={digest: principal_of(*found) for digest, found in keys.valid(session).items()},
                labels=_labels(session),
                newest=dict(prompts.names(session)),
                routes=_routes(session, {} if was_away else self.view.routes),
                tuned={record["name"]: _tuned(record) for record in tuned.listing(session)},
            )
            missing = _served(view) - self._compiled.keys() if self._is_eager else ()
            for record in prompts.by_numbers(session, missing):
                self._keep(record)
            moved = changed(self.view, view)
            self.view = view
            self._was_away = self.is_from_disk = False
            self.changes.publish(Change(revision, moved))

    def _forget_what_is_not_in(self, session: Any) -> None:
        """A database that was away may be back as a copy of before, in which the numbers of later versions are given anew."""
        digests = prompts.digests(session, self._compiled.keys())
        for which, compiled in list(self._compiled.items()):
            if digests.get(which) != compiled.digest:
                del self._compiled[which]

    async def watch(self, prepare: Callable[[], None] | None = None) -> None:
        """Refresh whenever the database's revision moves, until cancelled; outlasts a database that is away.

        `prepare` makes the database fit to be read, once, where the service was started without it.
        """
        while True:
            await asyncio.to_thread(self.save)
            await asyncio.sleep(WATCH_S)
            try:
                await self._look(prepare if self.is_from_disk else None)
                if self.is_stale:
                    log.info("the database is back")
                self.is_stale = False
            except Exception as error:  # noqa: BLE001 - whatever is wrong with the database, serving goes on
                self._was_away = True
                self._tell_stale(f"{type(error).__name__}: {error}")

    async def _look(self, prepare: Callable[[], None] | None) -> None:
        """One refresh; a database that hangs is told of while it is still waited for."""

        def look() -> None:
            if prepare is not None:
                prepare()
            self.refresh()

        looking = asyncio.ensure_future(asyncio.to_thread(look))
        try:
            done, _ = await asyncio.wait({looking}, timeout=HANGS_S)
            if not done:
                self._tell_stale(f"the database has not answered for {HANGS_S:g} s")
            await looking
        finally:
            looking.cancel()

    def _tell_stale(self, reason: str) -> None:
        if not self.is_stale:
            log.warning("serving goes on from the last snapshot", reason=reason)
        self.is_stale = True

    def save(self) -> None:
        """Keep the snapshot on disk where it has moved since the last time; a disk that is full is told, and tried again."""
        view = self.view
        if self._home is None or view is self._saved or self.is_from_disk or view.revision < 0:
            return
        if view is self._refused and time.monotonic() < self._save_at_s:
            return
        try:
            snapshot_file.write(self._home, self._database.url, self._as_data(view))
        except OSError as error:
            if view is not self._refused:  # told once a change, however often it is tried
                log.warning("the snapshot cannot be kept on disk", reason=str(error), folder=str(self._home))
            self._refused, self._save_at_s = view, time.monotonic() + SAVE_AGAIN_S
            return
        if self._refused is not None:
            log.info("the snapshot is kept on disk again")
        self._saved, self._refused = view, None

    def restore(self) -> str | None:
        """Serve from what the home keeps on disk; returns when that was written, None where there is nothing to serve from."""
        saved = snapshot_file.read(self._home, self._database.url) if self._home else None
        if saved is None:
            return None
        for one in saved.versions:
            self._keep(VersionRecord(**one, about={}, author="", message=None, created_at=""))
        self.view = View(
            revision=saved.revision,
            principals={digest: principal_of(*found) for digest, found in saved.principals.items()},
            labels=saved.labels,
            newest=saved.newest,
            routes={
                name: Routed(route_data.from_data(one["state"]), one["revision"], one["salt"])
                for name, one in saved.routes.items()
            },
            tuned={name: Tuned(*one) for name, one in saved.tuned.items()},
        )
        self.is_stale = self.is_from_disk = True
        return saved.at

    def _as_data(self, view: View) -> snapshot_file.Saved:
        kept = [self._records[which] for which in sorted(_served(view)) if which in self._records]
        return snapshot_file.Saved(
            at=now(),
            revision=view.revision,
            principals={digest: _plain(one) for digest, one in view.principals.items()},
            labels=view.labels,
            newest=view.newest,
            routes={
                name: {"state": route_data.as_data(one.state), "revision": one.revision, "salt": one.salt}
                for name, one in view.routes.items()
            },
            tuned={name: [one.name, one.model, one.adapter, one.created_at] for name, one in view.tuned.items()},
            versions=[
                {"name": one.name, "number": one.number, "digest": one.digest, "content": one.content} for one in kept
            ],
        )

    def select(self, selector: Selector) -> int:
        """The version number a selector means now; `production` where it names neither. Raises NotFound."""
        view = self.view
        if selector.name not in view.newest:
            raise NotFound("prompt", selector.name)
        if selector.version is not None:
            return selector.version  # a draft's, too; `prompt` raises where there is none
        if selector.label == LATEST:
            return view.newest[selector.name]
        label = PRODUCTION if selector.label is None else selector.label
        number = view.labels.get(selector.name, {}).get(label)
        if number is None:
            raise NotFound("label", f"{selector.name}@{label}", self._labels_of(selector.name, label))
        return number

    def _labels_of(self, name: str, missing: str) -> str:
        """The labels that a prompt has, and how it gets the one that is missing."""
        labels = ", ".join(sorted(self.view.labels.get(name, {}))) or "none"
        newest = self.view.newest[name]
        return f"its labels are {labels}, and latest; `turnout label {name} {missing} {newest}` sets it"

    def prompt(self, name: str, number: int) -> CompiledPrompt:
        """A compiled version; read from the database only where nobody asked for it before."""
        found = self._compiled.get((name, number))
        if found is not None:
            return found
        with self._lock, self._database.read() as session:
            return self._compile(session, name, number)

    def local_messages(self, name: str, number: int) -> list[dict[str, Any]] | None:
        """How a client fills a version by itself, or None where it cannot; for a version that `is_ready`."""
        return self._local[name, number]

    def may_lack(self, model: str) -> bool:
        """Whether `tuned` would ask the database: a model that was trained this moment may be asked for in the next."""
        return model.startswith(TUNED) and model not in self.view.tuned

    def tuned(self, model: str) -> Tuned | None:
        """The fine-tuned model of this name, None where there is none."""
        if not model.startswith(TUNED):
            return None
        if model not in self.view.tuned:
            with contextlib.suppress(StorageFailed):  # while the database is away, what is known is all there is
                self.refresh()
        return self.view.tuned.get(model)

    def base_of(self, adapter: str) -> str | None:
        """The model that an adapter belongs to, None where there is no such adapter; read from the database."""
        with self._database.read() as session:
            record = routes.adapter(session, adapter)
        return record["base_model"] if record else None

    def is_ready(self, name: str, number: int) -> bool:
        return (name, number) in self._compiled

    def _compile(self, session: Any, name: str, number: int) -> CompiledPrompt:
        if (name, number) not in self._compiled:
            record = prompts.by_number(session, name, number)
            if record is None:
                hint = f"its newest is {self.view.newest[name]}" if name in self.view.newest else ""
                raise NotFound("version", f"{name}@{number}", hint)
            self._keep(record)
        return self._compiled[(name, number)]

    def _keep(self, record: VersionRecord) -> None:
        compiled = compile_prompt(PromptContent.model_validate(record.content), record.digest)
        if self._home is not None:
            self._records[record.name, record.number] = record
        self._local[record.name, record.number] = local_messages(compiled)
        self._compiled[record.name, record.number] = compiled


def principal_of(key_id: str, role: str, *limits: int | None) -> Principal:
    """A key's principal, with `limits` in the order of `KeyLimits`."""
    found = KeyLimits(*limits)
    return Principal(key_id, role, found if found else None)


def _plain(principal: Principal) -> list[Any]:
    return [principal.id, principal.role, *(principal.limits or KeyLimits()).as_dict().values()]


def changed(before: View, after: View) -> frozenset[str]:
    """The prompts whose labels, newest version or route differ between two views."""
    views = (before, after)
    names = {name for view in views for moved in (view.newest, view.labels, view.routes) for name in moved}
    return frozenset(name for name in names if _pointers(before, name) != _pointers(after, name))


def _pointers(view: View, name: str) -> tuple[Any, ...]:
    return view.newest.get(name), view.labels.get(name), view.routes.get(name)


def _labels(session: Any) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = {}
    for label in prompts.labels(session):
        found.setdefault(label.name, {})[label.label] = label.version
    return found


def _routes(session: Any, known: Mapping[str, Routed]) -> dict[str, Routed]:
    """Every prompt's route; a revision never changes, so that those which are `known` are not read out anew."""
    found: dict[str, Routed] = {}
    for record in routes.all_current(session):
        prompt, which = record["prompt"], (record["revision"], record["salt"])
        before = known.get(prompt)
        found[prompt] = before if before and (before.revision, before.salt) == which else _routed(record)
    return found


def _routed(record: Mapping[str, Any]) -> Routed:
    return Routed(route_data.from_data(record["state"]), record["revision"], record["salt"])


def _tuned(record: Mapping[str, Any]) -> Tuned:
    return Tuned(record["name"], record["base_model"], record["adapter"], record["created_at"])


def _served(view: View) -> set[tuple[str, int]]:
    """Every version that a label, a route or `latest` points to."""
    labelled = {(name, number) for name, labels in view.labels.items() for number in labels.values()}
    routed = {(v.prompt, v.version) for route in view.routes.values() for v in route.state.everybody}
    return labelled | routed | set(view.newest.items())

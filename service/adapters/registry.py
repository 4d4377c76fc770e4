"""The adapters of a service: listed, shown, removed, and pruned by the policy of its settings."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from finetune import adapter as folders
from service.adapters import card, engines, naming
from service.adapters.facts import facts, folder_of, shelf
from service.adapters.retention import Held, Policy, due
from service.engine.sources import known_as
from service.errors import Conflict, NotFound
from service.identity import Principal
from service.ids import ago, now
from service.settings import Settings
from service.store import adapters, keys, prompts, routes
from service.store.database import Database
from service.store.session import Session

DAY_S = 86_400
SWEEP_AFTER_S = 3600.0  # a job that installs an adapter of that name anew writes its row within moments
RETENTION = Principal("retention", "admin")


class Adapters:
    """Reads and removes adapters. Files go after the row that makes them known, which says so in the audit log."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self._database = database
        self._settings = settings

    def listing(self, prompt: str | None = None) -> list[dict[str, Any]]:
        """Adapters, newest first, with their manifests, their size and who names them; evidence aside.

        Raises NotFound for a prompt that there is not.
        """
        with self._database.read() as session:
            records, named = routes.adapters(session, prompt), naming.named(session)
            if not records:
                prompts.refuse_unknown(session, prompt)
        return [self._listed(record, named.get(record["name"], [])) for record in records]

    def _listed(self, record: dict[str, Any], named_by: list[str]) -> dict[str, Any]:
        folder = folder_of(self._settings, record)
        return {**record, "size_bytes": folders.size_bytes(folder), "is_here": folder.is_dir(), "named_by": named_by}

    def show(self, name: str) -> dict[str, Any]:
        """All that is known of one adapter. Raises NotFound."""
        with self._database.read() as session:
            return facts(session, self._settings, _known(routes.adapter(session, name), name))

    def card(self, name: str) -> str:
        """Its card as things stand now. Raises NotFound."""
        shown = self.show(name)
        return card.render(shown, self.base_name(shown))

    def base_name(self, shown: Mapping[str, Any]) -> str:
        """What others know an adapter's base model by."""
        source = shown["base"].get("source") or getattr(self._settings.models.get(shown["base_model"]), "source", None)
        return known_as(source) if source else shown["base"]["name"]

    def write_card(self, name: str) -> None:
        """Write the card into the adapter's folder. Raises NotFound, DiskFullError."""
        folders.write_card(self.folder(name), self.card(name))

    def folder(self, name: str) -> Path:
        """Where it lies. Raises NotFound, also where its files are elsewhere."""
        with self._database.read() as session:
            folder = folder_of(self._settings, _known(routes.adapter(session, name), name))
        if not folder.is_dir():
            raise NotFound("adapter", name, f"its files are not in {folder.parent}, or no longer")
        return folder

    def remove(
        self, name: str, actor: Principal, loaded: frozenset[str] | None = None, by_job: str = ""
    ) -> dict[str, Any]:
        """Delete an adapter that nobody names. Raises NotFound; Conflict, saying who names it.

        `loaded` is what engines have loaded, where the caller has asked them already. A job that is under way may delete
        what it made itself: `by_job` is its id.
        """
        loaded = engines.loaded(self._settings) if loaded is None else loaded
        with self._database.write() as session:
            record = _known(adapters.lock(session, name), name)
            self._forget(session, record, actor, loaded, by_job)
        self._delete_files(record)
        return {"name": name, "digest": record["digest"]}

    def supersede(self, names: Iterable[str], actor: Principal, by_job: str) -> None:
        """Delete adapters of a job in whose place it has made newer ones; those that somebody names stay."""
        loaded = engines.loaded(self._settings)
        for name in names:
            self._try_remove(name, actor, loaded, by_job)

    def prune(self, actor: Principal = RETENTION, *, dry_run: bool = False) -> list[dict[str, Any]]:
        """Delete what the retention policy lets go; gives the adapters that went, or would go, oldest first."""
        rules = self._settings.retention
        policy = Policy(rules.adapter_days, rules.adapters_kept)
        loaded = engines.loaded(self._settings)
        before = ago(policy.days * DAY_S)
        with self._database.read() as session:
            records = {record["name"]: record for record in routes.adapters(session)}
            held = [Held(one["name"], one["prompt"], one["created_at"]) for one in records.values()]
            spared = self._spared(session, records) | loaded
            if due(held, spared, policy.kept, before):  # all evidence is read only where something may go
                spared |= naming.held_by_evidence(session)
        names = [one.name for one in due(held, spared, policy.kept, before)]
        gone = [name for name in names if dry_run or self._try_remove(name, actor, loaded)]
        if not dry_run:
            self._sweep()
        shown = ("name", "prompt", "digest", "created_at")
        return [{key: records[name][key] for key in shown} for name in gone]

    def _spared(self, session: Session, records: Mapping[str, Mapping[str, Any]]) -> set[str]:
        """The adapters of routes, of names that are served, and of jobs under way."""
        under_way = {job["id"] for job in adapters.live_jobs(session)}
        own = {name for name, record in records.items() if record["job_id"] in under_way}
        return own | naming.named(session).keys()

    def _try_remove(self, name: str, actor: Principal, loaded: frozenset[str], by_job: str = "") -> bool:
        """False where somebody has removed or named it meanwhile."""
        try:
            self.remove(name, actor, loaded, by_job)
        except (NotFound, Conflict):
            return False
        return True

    def _forget(
        self, session: Session, record: dict[str, Any], actor: Principal, loaded: frozenset[str], by_job: str
    ) -> None:
        """Remove the row, whose lock this transaction holds, so that who names it now waits and finds nothing."""
        name = record["name"]
        reasons = [*naming.reasons(session, record, by_job), *(["a running engine"] if name in loaded else [])]
        if reasons:
            listed = "; ".join(reasons[:3]) + (f"; and {len(reasons) - 3} more" if len(reasons) > 3 else "")
            raise Conflict(f"adapter {name!r} is named by {listed}: nothing was deleted")
        adapters.remove(session, name)
        detail = {"digest": record["digest"], "job_id": record["job_id"]}
        keys.audit(session, at=now(), actor=actor.id, action=adapters.REMOVED, subject=name, detail=detail)

    def _delete_files(self, record: Mapping[str, Any]) -> None:
        """The shelf's folder, and the copy that a training left with its job.

        A checkpoint has the weights of the job's last adapter where it was the best: so the name tells them apart, too.
        """
        folders.remove(folder_of(self._settings, record))
        for left in _copies(self._settings, str(record["job_id"])):
            if folders.named_in(left) == (record["name"], record["digest"]):
                folders.remove(left)

    def _sweep(self) -> None:
        """Files of adapters whose row went, and of advice that has ended, whose process died before they did."""
        with self._database.read() as session:
            gone, advice = adapters.removed(session), adapters.succeeded_jobs(session, "advice")
        for job_id in advice:
            remove_copies(self._settings, job_id)
        shelves = {shelf(self._settings, alias) for alias in self._settings.models} | {self._settings.adapters_dir}
        for folder in (place / name for place in shelves for name in gone):
            if folder.is_dir() and folder.stat().st_mtime < time.time() - SWEEP_AFTER_S:
                folders.remove(folder)


def remove_copies(settings: Settings, job_id: str) -> None:
    """Delete what the trainings of a job left that is of no more use, as those of an advice once it is given."""
    for left in _copies(settings, job_id):
        folders.remove(left)


def _copies(settings: Settings, job_id: str) -> Iterator[Path]:
    """The adapters that a job's trainings left in its folder: OpenAI's jobs have one training, others several."""
    for pattern in ("training/adapter", "*/training/adapter", "training/snapshots/step-*"):
        yield from (settings.home / "jobs" / job_id).glob(pattern)


def _known(record: dict[str, Any] | None, name: str) -> dict[str, Any]:
    if record is None:
        raise NotFound("adapter", name, "`turnout adapters` lists those that exist")
    return record

"""What is known of an adapter beyond its manifest: its data, its scores, its evidence, its traffic."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from finetune import adapter as folders
from service.adapters import naming
from service.settings import Settings
from service.store import adapters, routes
from service.store.session import Session
from suites.statistics import wilson_interval


def shelf(settings: Settings, base_model: str) -> Path:
    """The folder that holds the adapters of a base model: what its server reads, else the home's."""
    spec = settings.models.get(base_model)
    return Path(getattr(spec, "adapter_dir", None) or settings.adapters_dir)


def folder_of(settings: Settings, record: Mapping[str, Any]) -> Path:
    return shelf(settings, record["base_model"]) / folders.check_name(record["name"])


def facts(session: Session, settings: Settings, record: Mapping[str, Any]) -> dict[str, Any]:
    """All that `show` and the card say of one adapter, as plain data."""
    manifest, name = record["manifest"], record["name"]
    folder = folder_of(settings, record)
    evidence = naming.evidence_for(session, name)
    return {
        **{key: record[key] for key in ("name", "prompt", "version", "base_model", "job_id", "digest", "created_at")},
        "base": manifest["base"],
        "lineage": manifest["lineage"],
        "code_version": manifest.get("code_version") or "",
        "recipe": manifest["recipe"],
        "data": _data(session, record, manifest),
        "dev": _dev(session, record),
        "heldout": _heldout(session, evidence, name),
        "training": {key: manifest["scores"].get(key) for key in ("dev_exact", "dev_loss", "train_loss", "steps")},
        "evidence": [{key: one[key] for key in ("id", "kind", "verdict", "created_at")} for one in evidence],
        "named_by": naming.reasons(session, record),
        "size_bytes": folders.size_bytes(folder),
        "is_here": folder.is_dir(),
    }


def _data(session: Session, record: Mapping[str, Any], manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Counts and digests of the examples; never one of them."""
    planned = adapters.events_of(session, record["job_id"], ["planned"])
    told: Mapping[str, Any] = planned[-1]["data"] if planned else {}
    lineage = manifest["lineage"]
    counts = told.get("examples")
    known: dict[str, Any] = {"digest": lineage.get("dataset_digest"), "kept_digest": lineage.get("kept_digest")}
    known |= {"given": lineage.get("examples"), "train": manifest["scores"].get("train_count"), "dev": told.get("dev")}
    return known | ({"kept": counts.get("kept")} if isinstance(counts, dict) else {})


def _dev(session: Session, record: Mapping[str, Any]) -> dict[str, Any] | None:
    """Dev examples answered exactly: the prompt alone, and with the adapter, each with its interval."""
    attempt = _attempt(session, record)
    told = [one["data"] for one in adapters.events_of(session, record["job_id"], ["dev"])]
    found = next((one for one in told if one.get("attempt") == attempt), None)
    if found is None or not found["total"]:
        return None
    rates = {f"{side}_ci95": wilson_interval(found[side], found["total"]) for side in ("before", "after")}
    return {**{key: found[key] for key in ("total", "before", "after")}, **rates}


def _attempt(session: Session, record: Mapping[str, Any]) -> int | None:
    told = (one["data"] for one in adapters.events_of(session, record["job_id"], ["adapter"]))
    return next((one.get("attempt") for one in told if one.get("name") == record["name"]), None)


def _heldout(session: Session, evidence: Sequence[Mapping[str, Any]], name: str) -> dict[str, Any] | None:
    """What the newest promotion's evidence on this adapter says of the held-out cases."""
    ours = (one for one in evidence if one["kind"] == "promotion" and naming.adapter_of(one["candidate"]) == name)
    newest = next(ours, None)
    stored = routes.evidence(session, newest["id"]) if newest else None
    if newest is None or stored is None:
        return None
    decision = stored["content"]["decision"]
    names = ("suite", "baseline", "pass_rate", "ci95", "baseline_pass_rate", "paired", "p_value", "look", "verdict")
    shown = {key: decision[key] for key in names}
    changed = {key: len(decision[key]) for key in ("newly_broken", "newly_mended")}
    return {"evidence_id": newest["id"], **shown, **changed}

"""Adapters of a home, and what may name them, written as the service writes it."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

from finetune import adapter as folders
from service.store import jobs, routes
from service.store.database import Database
from service.store.session import Session

_HEADER = json.dumps({"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
CONFIG = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["q_proj"]}
BASE = {"name": "tiny", "digest": "sha256:" + "b" * 64, "tokenizer": "sha256:" + "c" * 64, "licence": "Apache-2.0"}


def weights(number: int = 0) -> bytes:
    """A safetensors file of one number, so that adapters differ."""
    return struct.pack("<Q", len(_HEADER)) + _HEADER + struct.pack("<f", number)


def install(shelf: Path, name: str, number: int = 0, **more: Any) -> folders.Manifest:
    """An adapter's folder on the shelf."""
    lineage = {"dataset_digest": "sha256:" + "d" * 64, "examples": 120, "prompt": "support.triage@1"}
    known: dict[str, Any] = {"name": name, "base": BASE, "lineage": lineage, "recipe": {"rank": 4, "lr": 0.001}}
    manifest = folders.Manifest.model_validate({**known, "scores": {"train_count": 100}, **more})
    return folders.write(shelf / name, weights(number), CONFIG, manifest)


def add(
    session: Session,
    shelf: Path,
    name: str,
    at: str,
    job_id: str = "job_0",
    prompt: str = "support.triage",
    **more: Any,
) -> None:
    """An adapter with its row."""
    manifest = install(shelf, name, **more)
    record = {"name": name, "prompt": prompt, "version": 1, "base_model": "model-a", "job_id": job_id}
    record |= {"digest": manifest.digest, "manifest": manifest.model_dump(mode="json"), "created_at": at}
    routes.add_adapter(session, record)


def variant(name: str | None) -> str:
    return "support.triage@1+model-a" + (f"+{name}" if name else "")


def revise(session: Session, state: dict[str, Any], prompt: str = "support.triage", action: str = "set") -> int:
    """The next revision of a route."""
    current = routes.current(session, prompt)
    number = (current["revision"] if current else 0) + 1
    record = {"prompt": prompt, "revision": number, "state": state, "action": action, "actor": "a", "at": "2026"}
    routes.append(session, record, "salt")
    return number


def shares(*names: str | None) -> dict[str, Any]:
    return {"variants": [{"variant": variant(name), "percent": 100 / len(names)} for name in names]}


def evidence(
    session: Session, number: int, candidate: str | None, baseline: str | None, verdict: str, kind: str = "promotion"
) -> str:
    decision = {"suite": "support", "baseline": variant(baseline), "candidate": variant(candidate), "verdict": verdict}
    decision |= {"pass_rate": 0.9, "ci95": [0.8, 0.95], "baseline_pass_rate": 0.5, "paired": 60, "p_value": 0.001}
    decision |= {"look": 1, "newly_broken": ["x"], "newly_mended": ["y", "z"], "promote": verdict == "pass"}
    record: dict[str, Any] = {"id": f"ev_{number}", "kind": kind, "prompt": "support.triage", "verdict": verdict}
    record |= {"candidate": variant(candidate), "content": {"decision": decision}, "digest": "d", "actor": "a"}
    routes.add_evidence(session, {**record, "created_at": f"2026-{number:04d}"})
    return f"ev_{number}"


def job(session: Session, job_id: str, status: str, spec: dict[str, Any] | None = None) -> None:
    jobs.add(session, {"id": job_id, "kind": "finetune", "spec": spec or {}, "status": status,
                       "created_by": "a", "created_at": "2026"})  # fmt: skip


def names(database: Database) -> set[str]:
    with database.read() as session:
        return {record["name"] for record in routes.adapters(session)}

"""Who names an adapter. What anybody names is never deleted."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

from service.fine_tuning.names import named_adapters
from service.store import adapters
from service.store.session import Session

_VARIANT = re.compile(r'"([^"+\\]+@\d+\+[^"+\\]+\+[^"+\\]+)"')
REJECTED = {"fail", "inconclusive", "could_not_run"}


def named(session: Session) -> dict[str, list[str]]:
    """By adapter, who names it, in words; evidence is left out, which is asked for one adapter (`evidence_for`).

    Routes by any of their revisions, since `undo` may go back to each: shares, fallbacks, shadows, plans, rollouts.
    """
    found: dict[str, list[str]] = defaultdict(list)
    for prompt, revision, is_current, state in adapters.states(session):
        for name in adapters_in(state):
            found[name].append(f"route {prompt} revision {revision}" + (", the current one" if is_current else ""))
    for job in adapters.live_jobs(session):
        for name in adapters_in(job["spec"]):
            found[name].append(f"job {job['id']}, which is under way")
    for name in named_adapters(session):
        found[name].append("a model of OpenAI's fine-tuning API")
    return dict(found)


def reasons(session: Session, record: Mapping[str, Any], by_job: str = "") -> list[str]:
    """Who names one adapter, evidence and its own job included, unless that is `by_job`; empty where it may be deleted."""
    name = record["name"]
    under_way = {job["id"] for job in adapters.live_jobs(session)} - {by_job}
    own = [f"job {record['job_id']}, which is under way"] if record["job_id"] in under_way else []
    held = (one for one in evidence_for(session, name) if not is_rejection(one, name))
    told = (f"evidence {one['id']} ({one['kind']}, {one['verdict']})" for one in held)
    return [*named(session).get(name, []), *own, *told]


def held_by_evidence(session: Session) -> set[str]:
    """Every adapter that some evidence names, other than as the candidate that it turned down: one reading of all of it."""
    found: set[str] = set()
    for kind, verdict, candidate, content in adapters.all_evidence(session):
        here = {candidate, *_VARIANT.findall(content)}
        names = {name for text in here if (name := adapter_of(text))}
        one = {"kind": kind, "verdict": verdict, "candidate": candidate}
        found |= {name for name in names if not is_rejection(one, name)}
    return found


def evidence_for(session: Session, name: str) -> list[dict[str, Any]]:
    """The evidence that names an adapter, newest first."""
    return adapters.evidence_naming(session, name)


def is_rejection(evidence: Mapping[str, Any], name: str) -> bool:
    """Whether evidence names the adapter only as the candidate that it turned down: it holds, and is recomputed, without."""
    is_candidate = adapter_of(evidence["candidate"]) == name
    return is_candidate and evidence["kind"] in ("promotion", "gate") and evidence["verdict"] in REJECTED


def adapters_in(value: Any) -> set[str]:
    """The adapters of all variants, `NAME@N+MODEL+ADAPTER`, that stand anywhere in plain data."""
    return {name for text in _texts(value) if (name := adapter_of(text))}


def adapter_of(text: str) -> str | None:
    """The adapter of a variant's text, None where it has none, or is none."""
    parts = text.split("+")
    return parts[2] if len(parts) == 3 and all(parts) and "@" in parts[0] else None


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _texts(key)
            yield from _texts(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _texts(inner)

"""Which earlier looks at held-out cases count beside a new one: those on much the same cases, for the same weights.

A held-out set is the same one as long as it shares at least half of the inputs of the smaller of both. So neither a
space at the end of a case nor cases added beside it, which both variants may well answer alike, give the α anew.
Inputs are compared as examples are with held-out cases: folded.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from finetune.data import input_key
from service.registry import stored_suite
from service.settings import Settings
from service.store import jobs, routes, suites
from service.store.database import Database
from service.store.session import Session
from suites.case import Suite

SAME_SHARE = 0.5  # of the smaller set's inputs
Inputs = frozenset[tuple[str, ...]]


def inputs_of(suite: Suite, defaults: Mapping[str, Any]) -> Inputs:
    """The different inputs of a suite's cases, folded; `defaults` are those of the prompt's variables."""
    return frozenset(input_key(case.vars, defaults) for case in suite.tests)


def is_same_set(one: Inputs, other: Inputs) -> bool:
    """Whether looks at both held-out sets spend one α."""
    smaller = min(len(one), len(other))
    return smaller > 0 and len(one & other) >= SAME_SHARE * smaller


def same_weights(settings: Settings, alias: str) -> frozenset[str]:
    """The aliases of the model that `alias` names, itself among them."""
    source = getattr(settings.model(alias), "source", None)
    others = (name for name, spec in settings.models.items() if source and getattr(spec, "source", None) == source)
    return frozenset({alias, *others})


def same_sets(database: Database, prompt: str, suite: Suite, defaults: Mapping[str, Any]) -> frozenset[str]:
    """Digests of the held-out sets of a prompt's earlier looks that are the same set as the suite's.

    `defaults` are those of the prompt's variables: what spells one out asks the same.
    """
    with database.read() as session:
        records = dict(_records(session, prompt))
    present = inputs_of(suite, defaults)
    earlier = ((digest, inputs_of(stored_suite(database, record), defaults)) for digest, record in records.items())
    return frozenset(digest for digest, inputs in earlier if is_same_set(present, inputs))


def _records(session: Session, prompt: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """For each held-out set that was looked at, a stored suite version that has it."""
    for digest, look in {look["heldout_digest"]: look for look in routes.looks(session, prompt)}.items():
        record = _suite_of(session, look)
        if record is not None:
            yield digest, record


def _suite_of(session: Session, look: Mapping[str, Any]) -> dict[str, Any] | None:
    """The suite version of a look's job, whose id the looks of later attempts have with `-2` and so on behind it."""
    name = str(look["job_id"])
    job = jobs.get(session, name) or jobs.get(session, name.rpartition("-")[0])
    return suites.by_number(session, job["spec"]["suite"], job["spec"]["suite_version"]) if job else None

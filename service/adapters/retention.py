"""Which adapters go: pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Policy:
    """What nobody names stays `days`, and the newest `kept` of each prompt stay for good."""

    days: int
    kept: int


@dataclass(frozen=True, slots=True)
class Held:
    """An adapter that is there; `created_at` is ISO 8601 in UTC, which sorts as text."""

    name: str
    prompt: str
    created_at: str


def due(held: Iterable[Held], named: Iterable[str], kept: int, before: str) -> Sequence[Held]:
    """The adapters that nobody names, made before `before`, and not among the newest `kept` such of their prompt.

    Oldest first, by name where two are as old.
    """
    by_prompt: dict[str, list[Held]] = defaultdict(list)
    spared = frozenset(named)
    for adapter in sorted(held, key=lambda one: (one.created_at, one.name), reverse=True):
        if adapter.name not in spared:
            by_prompt[adapter.prompt].append(adapter)
    old = [one for ours in by_prompt.values() for one in ours[kept:] if one.created_at < before]
    return sorted(old, key=lambda one: (one.created_at, one.name))

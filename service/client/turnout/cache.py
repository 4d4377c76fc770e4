"""What is known of prompts and for how long: the client's whole judgement, without a network, a thread or a clock.

An entry is fresh for `ttl_s`, then for `stale_s` still used while it is asked about in the background, then asked about
first. Where the service cannot be reached the last known value goes on, if the policy says so. A 404 ends an entry at
once. A change that the service announces makes its entries old at once, and an answer that was given before that change
(by its `turnout-revision`) is not taken for new.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from turnout.backoff import Backoff
from turnout.errors import KeyRefused, NotFound, TurnoutError, Unreachable
from turnout.events import Event
from turnout.template import FallbackTemplate, Template

Key = tuple[str, int | str]  # a name, and a version number or a label
OLDER_S = 1.0  # how long an answer from before an announced change is used before it is asked for again
P = TypeVar("P")


@dataclass(frozen=True, slots=True)
class Policy:
    """How long what is known is used, in seconds."""

    ttl_s: float
    stale_s: float
    serve_stale_when_down: bool


@dataclass(frozen=True, slots=True)
class Found:
    """The service's answer: a template under its ETag, as of a revision of the service (None: it did not say)."""

    template: Template
    etag: str
    revision: int | None


@dataclass(frozen=True, slots=True)
class Unchanged:
    """The service's answer that the ETag still stands."""

    revision: int | None


Answer = Found | Unchanged | TurnoutError


@dataclass(frozen=True, slots=True)
class Entry(Generic[P]):
    """One selector's newest value: `prompt` as callers get it, as of a revision. Times are the clock's, in seconds."""

    prompt: P
    template: Template
    etag: str
    revision: int | None
    fresh_until: float
    stale_until: float


@dataclass(frozen=True, slots=True)
class Plan(Generic[P]):
    """What a call does: use `prompt` (None: ask first), and ask about it in the background or not."""

    prompt: P | None
    refresh: bool = False


class Cache(Generic[P]):
    """Entries by key. Reading takes no lock: an entry never changes, it is replaced."""

    def __init__(
        self, policy: Policy, make: Callable[[Template, bool, FallbackTemplate | None], P], backoff: Backoff
    ) -> None:
        """`make` gives what callers get, from a template, whether it is stale, and the caller's fallback."""
        self._policy = policy
        self._make = make
        self._entries: dict[Key, Entry[P]] = {}
        self._lock = threading.Lock()
        self._backoff = backoff
        self._paused_until = -math.inf
        self._failure: TurnoutError | None = None
        self._announced = -1  # the newest revision at which some prompt moved
        self._heard = -1

    def fresh(self, key: Key, now: float) -> P | None:
        """The value that needs no word with the service."""
        entry = self._entries.get(key)
        return entry.prompt if entry is not None and now < entry.fresh_until else None

    def entry(self, key: Key) -> Entry[P] | None:
        return self._entries.get(key)

    def plan(self, key: Key, now: float, fallback: FallbackTemplate | None) -> Plan[P]:
        """What a call at `now` does. Raises KeyRefused where the key was refused and the entry is too old to be used."""
        entry, is_paused = self._entries.get(key), now < self._paused_until
        if entry is None:
            is_down = is_paused and isinstance(self._failure, Unreachable)
            return Plan(self._make(fallback, False, None) if is_down and fallback else None)
        if now < entry.fresh_until:
            return Plan(self._with(entry, fallback, is_stale=False))
        if now < entry.stale_until:
            return Plan(self._with(entry, fallback, is_stale=is_paused), refresh=not is_paused)
        if is_paused and isinstance(self._failure, KeyRefused):
            raise self._failure.with_traceback(None)  # it is raised again and again: each time would add to it
        is_used = is_paused and self._policy.serve_stale_when_down
        return Plan(self._with(entry, fallback, is_stale=True) if is_used else None)

    def accept(self, key: Key, asked_with: Entry[P] | None, answer: Answer, now: float) -> None:
        """Keep what the service answered to a question that named the ETag of `asked_with`."""
        with self._lock:
            if isinstance(answer, Found):
                self._keep(key, answer.template, answer.etag, answer.revision, now)
            elif isinstance(answer, Unchanged) and asked_with is not None:
                self._keep(key, asked_with.template, asked_with.etag, answer.revision, now)
            elif isinstance(answer, NotFound):
                self._entries.pop(key, None)
            if isinstance(answer, Unreachable | KeyRefused):
                self._fail(answer, now)
            else:
                self._recover()

    def conclude(self, key: Key, answer: Answer, fallback: FallbackTemplate | None) -> P:
        """What a call gives that had to ask first; raises the error that was answered where nothing may stand in."""
        entry = self._entries.get(key)
        if not isinstance(answer, TurnoutError) and entry is not None:
            return self._with(entry, fallback, is_stale=self.is_old(answer))
        if isinstance(answer, Unreachable):
            if entry is not None and self._policy.serve_stale_when_down:
                return self._with(entry, fallback, is_stale=True)
            if fallback is not None:
                return self._make(fallback, False, None)
        if isinstance(answer, TurnoutError):
            raise answer
        raise Unreachable(f"{key[0]}@{key[1]}: the service said that it is unchanged and the entry is gone: ask again")

    def hear(self, event: Event, now: float) -> list[Key]:
        """Take in an announcement; returns the keys to ask about now."""
        with self._lock:
            if event.kind == "hello":
                return self._greet(event, now)
            self._heard = max(self._heard, event.revision)
            keys = [key for key in self._labelled() if event.kind == "all" or key[0] in event.names]
            if event.kind == "all" or event.names:
                self._announced = max(self._announced, event.revision)
            for key in keys:
                self._entries[key] = replace(self._entries[key], fresh_until=-math.inf, stale_until=-math.inf)
            return keys

    def refuse(self, answer: TurnoutError, now: float) -> None:
        """The stream of announcements was refused to our key: so is everything else."""
        if isinstance(answer, KeyRefused):
            with self._lock:
                self._fail(answer, now)

    def _soften(self, keys: list[Key], now: float) -> None:
        """Ask about `keys` before long: announcements may have been missed."""
        for key in keys:
            self._entries[key] = replace(self._entries[key], fresh_until=min(self._entries[key].fresh_until, now))

    def after_fork(self, now: float) -> None:
        """In the child: whoever held the lock is not there, and nothing announced reaches it before it listens."""
        self._lock = threading.Lock()
        self._soften(self._labelled(), now)

    def is_old(self, answer: Answer) -> bool:
        """Whether it was given before a change that we know of: too early, or by a replica that has not seen it yet."""
        return not isinstance(answer, TurnoutError) and self._precedes(answer.revision)

    def _precedes(self, revision: int | None) -> bool:
        return revision is not None and revision < self._announced

    def _labelled(self) -> list[Key]:
        return [key for key in self._entries if not isinstance(key[1], int)]

    def _greet(self, event: Event, now: float) -> list[Key]:
        if event.revision < self._heard:  # a restored database, or another: its numbers start anew
            self._announced = -1
        self._heard = event.revision
        self._recover()
        older = [key for key in self._labelled() if self._entries[key].revision != event.revision]
        self._soften(older, now)
        return older

    def _keep(self, key: Key, template: Template, etag: str, revision: int | None, now: float) -> None:
        is_pinned = isinstance(key[1], int)
        is_old = not is_pinned and self._precedes(revision)
        ttl_s = min(OLDER_S, self._policy.ttl_s) if is_old else self._policy.ttl_s
        fresh_until = math.inf if is_pinned else now + ttl_s
        prompt = self._make(template, is_old, None)
        self._entries[key] = Entry(prompt, template, etag, revision, fresh_until, fresh_until + self._policy.stale_s)

    def _fail(self, answer: TurnoutError, now: float) -> None:
        """Ask again later. A refused key ends every entry, those of pinned versions too, after `stale_s`."""
        self._failure = answer
        self._paused_until = now + self._backoff.next_s()
        if not isinstance(answer, KeyRefused):
            return
        until = now + self._policy.stale_s
        for key, entry in list(self._entries.items()):
            times = (min(entry.fresh_until, now), min(entry.stale_until, until))
            self._entries[key] = replace(entry, fresh_until=times[0], stale_until=times[1])

    def _recover(self) -> None:
        self._failure, self._paused_until = None, -math.inf
        self._backoff.reset()

    def _with(self, entry: Entry[P], fallback: FallbackTemplate | None, *, is_stale: bool) -> P:
        """The entry's value as this call gets it; a fallback is only kept where rendering may need it."""
        needs_fallback = fallback is not None and entry.template.lines is None
        if not is_stale and not needs_fallback:
            return entry.prompt
        return self._make(entry.template, is_stale, fallback if needs_fallback else None)

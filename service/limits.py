"""What a key may ask for: requests and tokens a minute, tokens a day. Pure but for the clock that it is given.

The minute's limits are token buckets (as ATM's and nginx's are) of each process: a bucket holds a minute's worth, fills
evenly, and lets a burst of that much through. What a completion takes of tokens is known when it has ended, so that a bucket
may fall below zero and the next request waits until it is filled again. The day's budget counts from midnight UTC and
over all processes, as far as the request log has been read (`Spent.learn`).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from typing import Any

from prompts.errors import BadInput
from service.errors import RateLimited

MINUTE_S = 60.0
DAY_S = 86_400.0
MOST = 10**12  # of any limit: what still counts exactly in a float


@dataclass(frozen=True, slots=True)
class KeyLimits:
    """A key's limits; None is none."""

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    tokens_per_day: int | None = None

    def __bool__(self) -> bool:
        return any(getattr(self, one.name) is not None for one in fields(self))

    def as_dict(self) -> dict[str, int | None]:
        return {one.name: getattr(self, one.name) for one in fields(self)}


def key_limits(given: Mapping[str, Any]) -> KeyLimits:
    """The limits among `given`. Raises BadInput that names the one that is no whole number from 1 on."""
    found = {one.name: given.get(one.name) for one in fields(KeyLimits)}
    for name, value in found.items():
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MOST):
            raise BadInput(
                f"{name}: expected a whole number from 1 to {MOST:,}, or nothing, found {value!r}", param=name
            )
    return KeyLimits(**found)


class Bucket:
    """`limit` a minute. `level` is what is left, at most `limit`, below zero where more was taken than there was."""

    __slots__ = ("_at_s", "level", "limit")

    def __init__(self, limit: int, at_s: float) -> None:
        self.limit = limit
        self.level = float(limit)
        self._at_s = at_s

    def fill(self, at_s: float) -> None:
        self.level = min(self.limit, self.level + (at_s - self._at_s) * self.limit / MINUTE_S)
        self._at_s = at_s

    def wait_s(self, needed: float) -> float:
        """Seconds until `needed` is there; 0 where it is."""
        return max(0.0, (needed - self.level) * MINUTE_S / self.limit)


class _Spent:
    """One key's buckets and its tokens of one day (counted from 1970)."""

    __slots__ = ("day", "limits", "logged", "requests", "tokens", "used")

    def __init__(self, limits: KeyLimits, at_s: float) -> None:
        self.limits = limits
        self.requests = Bucket(limits.requests_per_minute, at_s) if limits.requests_per_minute else None
        self.tokens = Bucket(limits.tokens_per_minute, at_s) if limits.tokens_per_minute else None
        self.day = -1
        self.used = 0  # by this process
        self.logged = 0  # by all, in the request log

    def turn(self, day: int) -> None:
        if day != self.day:
            self.day, self.used, self.logged = day, 0, 0


class Limiter:
    """Keeps keys to their limits. Used on one event loop; `clock` gives seconds since 1970."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._spent: dict[str, _Spent] = {}

    def admit(self, key_id: str, limits: KeyLimits) -> None:
        """Count a request. Raises RateLimited, and counts nothing, where a limit is reached."""
        now_s = self._clock()
        spent = self._of(key_id, limits, now_s)
        if limits.tokens_per_day is not None and max(spent.used, spent.logged) >= limits.tokens_per_day:
            raise RateLimited(
                f"this key's budget of {limits.tokens_per_day:,} tokens a day is used up: it starts anew at midnight UTC",
                retry_after_s=DAY_S - now_s % DAY_S,
                is_budget=True,
            )
        for bucket, needed, what in ((spent.requests, 1.0, "requests"), (spent.tokens, 1e-9, "tokens")):
            if bucket is None:
                continue
            bucket.fill(now_s)
            wait_s = bucket.wait_s(needed)
            if wait_s > 0:
                raise RateLimited(
                    f"this key may take {bucket.limit:,} {what} a minute: ask again in {wait_s:.1f} s",
                    retry_after_s=wait_s,
                )
        if spent.requests is not None:
            spent.requests.level -= 1

    def charge(self, key_id: str, tokens: int) -> None:
        """Count the tokens that a completion took; nothing for a key without limits."""
        spent = self._spent.get(key_id)
        if spent is None:
            return
        now_s = self._clock()
        spent.turn(_day(now_s))
        spent.used += tokens
        if spent.tokens is not None:
            spent.tokens.fill(now_s)
            spent.tokens.level -= tokens

    def learn(self, day: int, tokens: Mapping[str, int]) -> None:
        """What the request log says that keys took on one day, in all processes together."""
        for key_id, spent in self._spent.items():
            spent.turn(_day(self._clock()))
            if spent.day == day:
                spent.logged = tokens.get(key_id, 0)

    def keep(self, key_ids: frozenset[str]) -> None:
        """Forget all keys but these."""
        for key_id in self._spent.keys() - key_ids:
            del self._spent[key_id]

    def headers(self, key_id: str) -> list[tuple[bytes, bytes]]:
        """What is left, in OpenAI's headers; none for a key without limits a minute."""
        spent = self._spent.get(key_id)
        if spent is None:
            return []
        found = []
        for name, bucket in ((b"requests", spent.requests), (b"tokens", spent.tokens)):
            if bucket is None:
                continue
            left, full_s = max(0, math.floor(bucket.level)), bucket.wait_s(bucket.limit)
            for kind, value in (
                (b"limit", b"%d" % bucket.limit),
                (b"remaining", b"%d" % left),
                (b"reset", b"%.3fs" % full_s),
            ):
                found.append((b"x-ratelimit-" + kind + b"-" + name, value))
        return found

    def _of(self, key_id: str, limits: KeyLimits, now_s: float) -> _Spent:
        spent = self._spent.get(key_id)
        if spent is None or spent.limits != limits:
            before, spent = spent, _Spent(limits, now_s)
            if before is not None:
                spent.day, spent.used, spent.logged = before.day, before.used, before.logged
            self._spent[key_id] = spent
        spent.turn(_day(now_s))
        return spent


def _day(at_s: float) -> int:
    return int(at_s // DAY_S)


def today(clock: Callable[[], float] = time.time) -> tuple[int, str]:
    """Today's number since 1970, and its midnight in UTC as the request log writes times."""
    day = _day(clock())
    return day, datetime.fromtimestamp(day * DAY_S, UTC).isoformat(timespec="microseconds")

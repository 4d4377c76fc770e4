"""A circuit breaker: an upstream that fails too often is not asked for a while, then probed, then asked again. Pure.

```
closed ── a share of failures, with a least count, in the window ──▶ open
open ── after open_s ──▶ half_open: one question at a time goes through
half_open ── `probes` good answers in a row ──▶ closed
half_open ── one failure ──▶ open, for twice as long
```

Times are seconds of one monotonic clock, given by the caller. A question begins with `enter` and ends with `leave`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from service.upstream.policy import BreakerRules

State = Literal["closed", "open", "half_open"]
_BUCKETS = 10


class Breaker:
    """See the module. `state` is as it was when last asked; `on_change` is told when it opens or closes, and why."""

    def __init__(self, rules: BreakerRules, on_change: Callable[[State, str], None] | None = None) -> None:
        self.state: State = "closed"
        self.last_failure = ""
        self.opened = 0
        self._rules = rules
        self._window = _Window(rules.window_s)
        self._open_s = rules.open_s
        self._open_until = 0.0
        self._is_probing = False
        self._good_probes = 0
        self._why = ""
        self._on_change = on_change

    def refusal(self, now: float) -> str | None:
        """Why nothing may be asked now, with the time until the next try; None where it may."""
        if self.state == "closed":
            return None
        if self.state == "open" and now >= self._open_until:
            self.state, self._good_probes, self._is_probing = "half_open", 0, False
        if self.state == "half_open":
            return f"another question is just trying it; {self._why}" if self._is_probing else None
        return f"the next try is in {self.next_try_s(now):.1f} s; {self._why}"

    def next_try_s(self, now: float) -> float:
        """Until something may be asked again; 0 where it may."""
        return max(0.0, self._open_until - now) if self.state == "open" else 0.0

    def enter(self) -> bool:
        """Begin a question that `refusal` allowed; True for a probe, which `leave` is to be told."""
        if self.state == "closed":
            return False
        self._is_probing = True
        return True

    def leave(self, now: float, failure: str | None, *, was_probe: bool, tells: bool = True) -> None:
        """End a question: with a failure or without one; not `tells` where it says nothing of the upstream."""
        if was_probe:
            self._is_probing = False
            if tells:
                self._judge_probe(now, failure)
            return
        if not tells or self.state != "closed":
            return  # begun before it opened: what it found out is old
        self._window.add(now, is_failure=failure is not None)
        if failure is not None:
            self.last_failure = failure
            self._open_on_many(now)

    def _judge_probe(self, now: float, failure: str | None) -> None:
        if self.state != "half_open":
            return
        if failure is not None:
            self.last_failure = failure
            self._open_s = min(2 * self._open_s, max(self._rules.max_open_s, self._rules.open_s))
            self._open(now, f"a try failed: {failure}")
            return
        self._good_probes += 1
        if self._good_probes >= self._rules.probes:
            self.state, self._open_s = "closed", self._rules.open_s
            self._window = _Window(self._rules.window_s)
            self._tell(f"{self._good_probes} tries in a row were answered")

    def _open_on_many(self, now: float) -> None:
        asked, failed = self._window.counted(now)
        if asked >= self._rules.least and failed >= self._rules.share * asked:
            self._open(now, f"{failed} of its last {asked} answers failed, the last: {self.last_failure}")

    def _open(self, now: float, why: str) -> None:
        self.state, self._why = "open", why
        self._open_until = now + self._open_s
        self.opened += 1
        self._tell(why)

    def _tell(self, why: str) -> None:
        if self._on_change is not None:
            self._on_change(self.state, why)


class _Window:
    """How many were asked and failed in the last seconds, in tenths of the window."""

    def __init__(self, window_s: float) -> None:
        self._step_s = window_s / _BUCKETS
        self._buckets: list[list[int]] = [[-1, 0, 0] for _ in range(_BUCKETS)]  # [which step, asked, failed]

    def add(self, now: float, *, is_failure: bool) -> None:
        step = int(now / self._step_s)
        bucket = self._buckets[step % _BUCKETS]
        if bucket[0] != step:
            bucket[:] = [step, 0, 0]
        bucket[1] += 1
        bucket[2] += is_failure

    def counted(self, now: float) -> tuple[int, int]:
        oldest = int(now / self._step_s) - _BUCKETS
        live = [bucket for bucket in self._buckets if bucket[0] > oldest]
        return sum(bucket[1] for bucket in live), sum(bucket[2] for bucket in live)

"""The circuit breaker, on a clock of its own."""

from __future__ import annotations

import pytest

from service.upstream.breaker import Breaker
from service.upstream.policy import BreakerRules

RULES = BreakerRules(share=0.5, least=4, window_s=10, open_s=5, max_open_s=15, probes=2)


class Clocked:
    """A breaker asked at `now`; each question takes no time."""

    def __init__(self, rules: BreakerRules = RULES) -> None:
        self.now = 0.0
        self.changes: list[tuple[str, str]] = []
        self.breaker = Breaker(rules, lambda state, why: self.changes.append((state, why)))

    def ask(self, failure: str | None = None, *, tells: bool = True) -> bool:
        """Whether the question went through; it ended with `failure`."""
        if self.breaker.refusal(self.now) is not None:
            return False
        self.breaker.leave(self.now, failure, was_probe=self.breaker.enter(), tells=tells)
        return True

    def opened(self) -> Clocked:
        for _ in range(4):
            assert self.ask("down")
        assert self.breaker.state == "open"
        return self


def test_it_opens_at_a_share_of_failures_once_enough_were_asked() -> None:
    clocked = Clocked()
    for failure in ("down", "down", None):
        clocked.ask(failure)
    assert clocked.breaker.state == "closed"
    clocked.ask(None)
    assert clocked.breaker.state == "closed"  # half of them failed, but the last did not
    clocked.ask("reset")
    assert clocked.breaker.state == "open"
    assert clocked.breaker.refusal(1.0) == "the next try is in 4.0 s; 3 of its last 5 answers failed, the last: reset"
    assert clocked.changes == [("open", "3 of its last 5 answers failed, the last: reset")]
    assert (clocked.breaker.opened, clocked.breaker.next_try_s(1.0)) == (1, 4.0)


def test_a_smaller_share_does_not_open_it() -> None:
    clocked = Clocked()
    for index in range(300):
        assert clocked.ask("down" if index % 5 == 0 else None)
        clocked.now += 0.1
    assert clocked.breaker.state == "closed"


def test_what_lies_beyond_the_window_does_not_count() -> None:
    clocked = Clocked()
    for _ in range(3):
        clocked.ask("down")
    clocked.now = 11.0
    assert clocked.ask("down")
    assert clocked.breaker.state == "closed"


def test_what_tells_nothing_does_not_count() -> None:
    clocked = Clocked()
    for _ in range(9):
        clocked.ask("cancelled", tells=False)
    assert clocked.breaker.state == "closed"


def test_it_closes_after_good_probes_in_a_row_and_begins_anew() -> None:
    clocked = Clocked().opened()
    clocked.now = 4.9
    assert not clocked.ask()
    clocked.now = 5.0
    assert clocked.ask()
    assert clocked.breaker.state == "half_open"
    assert clocked.ask()
    assert clocked.breaker.state == "closed"
    assert clocked.changes[-1] == ("closed", "2 tries in a row were answered")
    assert clocked.ask("down")
    assert clocked.breaker.state == "closed"


def test_only_one_question_probes_at_a_time() -> None:
    clocked = Clocked().opened()
    assert clocked.breaker.refusal(5.0) is None
    assert clocked.breaker.enter()
    refused = clocked.breaker.refusal(5.0)
    assert refused is not None
    assert refused.startswith("another question is just trying it; 4 of its last 4")
    clocked.breaker.leave(6.0, None, was_probe=True, tells=False)  # the client left: another may try
    assert clocked.breaker.refusal(6.0) is None
    assert clocked.breaker.state == "half_open"


def test_a_failed_probe_opens_it_for_twice_as_long_up_to_a_bound() -> None:
    clocked = Clocked().opened()
    waits = []
    for _ in range(4):
        clocked.now += clocked.breaker.next_try_s(clocked.now)
        assert clocked.ask("still down")
        waits.append(clocked.breaker.next_try_s(clocked.now))
    assert waits == [10, 15, 15, 15]
    refused = clocked.breaker.refusal(clocked.now)
    assert refused is not None
    assert refused.endswith("a try failed: still down")
    clocked.now += 15
    assert clocked.ask()
    assert clocked.ask()
    for _ in range(4):
        clocked.ask("down")
    assert clocked.breaker.next_try_s(clocked.now) == 5  # healthy in between: as short as at first


@pytest.mark.parametrize("failure", [None, "late"])
def test_questions_from_before_it_opened_change_nothing(failure: str | None) -> None:
    clocked = Clocked()
    early = clocked.breaker.enter()
    clocked.opened()
    clocked.breaker.leave(1.0, failure, was_probe=early)
    assert clocked.breaker.state == "open"
    assert clocked.breaker.refusal(5.0) is None
    clocked.breaker.leave(5.0, failure, was_probe=early)
    assert clocked.breaker.state == "half_open"

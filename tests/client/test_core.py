"""The stream of changes over its connections, and the cache under any order of events."""

from __future__ import annotations

from typing import Any

import httpx
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tests.client.conftest import Clock, FakeService, SyncDriver, problem
from turnout import NotFound, Unreachable
from turnout.core import Announcements

NAME = "support.triage"
TTL_S, STALE_S = 60.0, 300.0


def test_a_stream_is_taken_up_where_the_last_one_ended(fake: FakeService, clock: Clock) -> None:
    driver = SyncDriver(fake, _clock=clock)
    stream = Announcements(driver.client._core)

    assert stream.connect().headers == {"accept": "text/event-stream"}
    for line in ("id: 4", "event: hello", "data: {}", "", "id: 9", ""):
        assert stream.hear(line) == []
    stream.hear("id: 11")  # the stream ends within an event
    assert stream.connect().headers == {"accept": "text/event-stream", "last-event-id": "9"}
    assert stream.hear("") == []
    driver.close()


def test_a_stream_waits_longer_until_it_is_greeted(fake: FakeService, clock: Clock) -> None:
    driver = SyncDriver(fake, _clock=clock)
    stream = Announcements(driver.client._core)

    waits = [stream.wait_s() for _ in range(12)]
    for line in ("id: 4", "event: hello", "data: {}", ""):
        stream.hear(line)

    assert 15 <= waits[-1] <= 30
    assert stream.wait_s() <= 0.5
    driver.close()


def test_a_stream_that_is_refused_to_a_key_is_the_end_of_what_it_knew(fake: FakeService, clock: Clock) -> None:
    driver = SyncDriver(fake, _clock=clock)
    driver.prompt(NAME, version=2)
    answer = problem(401, "unauthenticated", "revoked")

    Announcements(driver.client._core).refuse(answer)

    assert driver.prompt(NAME, version=2).is_stale
    driver.close()


def test_a_service_without_streams_is_no_reason_to_doubt_its_prompts(fake: FakeService, clock: Clock) -> None:
    driver = SyncDriver(fake, _clock=clock)
    driver.prompt(NAME)

    Announcements(driver.client._core).refuse(httpx.Response(404, request=httpx.Request("GET", "http://t.test/")))

    assert not driver.prompt(NAME).is_stale
    driver.close()


class AnyOrder(RuleBasedStateMachine):
    """Labels move and go, time passes, the service dies and comes back, announcements come at once or never."""

    def __init__(self) -> None:
        super().__init__()
        self.fake, self.clock = FakeService(), Clock()
        self.driver = SyncDriver(self.fake, _clock=self.clock, ttl_s=TTL_S, stale_s=STALE_S)
        self.changed_at = self.clock.now  # since when what the service says is what it says
        self.heard = True  # whether the client was told of the last change

    def teardown(self) -> None:
        self.driver.settle()
        self.driver.close()

    def _change(self, announced: bool) -> None:
        self.fake.revision += 1
        self.changed_at = self.clock.now
        self.heard = announced and not self.fake.is_down
        if self.heard:
            self.driver.hear("changed", self.fake.revision, NAME)

    @rule(version=st.sampled_from([1, 2]), announced=st.booleans())
    def move(self, version: int, announced: bool) -> None:
        if self.fake.labels.get("production") != version:
            self.fake.labels["production"] = version
            self._change(announced)

    @precondition(lambda self: self.fake.labels)
    @rule(announced=st.booleans())
    def remove(self, announced: bool) -> None:
        self.fake.labels.clear()
        self._change(announced)

    @rule(seconds=st.sampled_from([0.5, 31.0, 61.0, 301.0, 1e5]))
    def wait(self, seconds: float) -> None:
        self.clock.now += seconds

    @rule()
    def die(self) -> None:
        self.fake.is_down = True

    @rule()
    def come_back(self) -> None:
        self.fake.is_down = False
        self.driver.hear("hello", self.fake.revision)
        self.heard = True

    @rule()
    def another_prompt_moves(self) -> None:
        self.fake.revision += 1
        if not self.fake.is_down:
            self.driver.hear("changed", self.fake.revision, "support.other")

    @rule()
    def ask(self) -> None:
        found: Any
        try:
            found = self.driver.prompt(NAME)
        except (NotFound, Unreachable) as error:
            found = error
        self.driver.settle()
        self._judge(found)

    def _judge(self, found: Any) -> None:
        expected = self.fake.labels.get("production")
        may_lag = not self.heard and self.clock.now < self.changed_at + TTL_S + STALE_S
        if isinstance(found, Unreachable):
            assert self.fake.is_down
        elif isinstance(found, NotFound):
            assert expected is None or may_lag
        elif not self.fake.is_down and not may_lag:
            assert (found.version, found.is_stale) == (expected, False)

    @invariant()
    def nothing_is_left_in_the_air(self) -> None:
        assert self.driver.client._flights == {}


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)

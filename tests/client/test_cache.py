"""For how long a prompt is used without a word with the service, and what ends it."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from tests.client.conftest import Clock, Driver, FakeService, SyncDriver, problem, template
from turnout import BadSelector, Closed, KeyRefused, NotFound, Refused, Unreachable

NAME = "support.triage"


def test_within_its_ttl_a_prompt_needs_no_request(client: Driver, fake: FakeService, clock: Clock) -> None:
    client.prompt(NAME)
    clock.now += 59.9

    assert client.prompt(NAME).version == 1
    assert client.prompt(NAME, label="production").version == 1
    assert fake.count == 1


def test_after_its_ttl_it_is_used_at_once_and_asked_about_once_in_the_background(
    client: Driver, fake: FakeService, clock: Clock
) -> None:
    client.prompt(NAME)
    fake.labels["production"] = 2
    clock.now += 61

    stale = client.prompt(NAME)
    client.settle()

    assert (stale.version, stale.is_stale) == (1, False)
    assert fake.count == 2
    assert fake.asked[1][1]["if-none-match"] == '"sha256:1"'
    assert client.prompt(NAME).version == 2
    assert fake.count == 2


def test_what_is_unchanged_is_fresh_for_another_ttl(client: Driver, fake: FakeService, clock: Clock) -> None:
    first = client.prompt(NAME)
    clock.now += 61
    client.prompt(NAME)
    client.settle()
    clock.now += 59

    assert client.prompt(NAME) == first
    assert fake.count == 2


def test_past_the_stale_time_it_is_asked_about_first(client: Driver, fake: FakeService, clock: Clock) -> None:
    client.prompt(NAME)
    fake.labels["production"] = 2
    clock.now += 361

    assert client.prompt(NAME).version == 2


def test_a_pinned_version_is_asked_for_once(client: Driver, fake: FakeService, clock: Clock) -> None:
    client.prompt(NAME, version=2)
    clock.now += 1e9
    client.hear("all", 99)

    assert client.prompt(NAME, version=2).version == 2
    assert fake.count == 1


def test_while_the_service_is_away_the_last_known_value_goes_on_and_says_so(
    client: Driver, fake: FakeService, clock: Clock
) -> None:
    client.prompt(NAME)
    fake.is_down = True
    clock.now += 1e6

    found = client.prompt(NAME)

    assert (found.version, found.is_stale, found.is_fallback) == (1, True, False)
    assert client.fill(found, ticket="x").is_stale


def test_a_service_that_is_away_is_not_asked_at_every_call(client: Driver, fake: FakeService, clock: Clock) -> None:
    client.prompt(NAME)
    fake.is_down = True
    clock.now += 361
    for _ in range(20):
        client.prompt(NAME)
    assert fake.count == 2

    fake.is_down = False
    clock.now += 1

    assert not client.prompt(NAME).is_stale
    assert fake.count == 3


def test_what_is_stale_is_not_asked_about_at_every_call_either(client: Driver, fake: FakeService, clock: Clock) -> None:
    client.prompt(NAME)
    fake.is_down = True
    clock.now += 61
    client.prompt(NAME)
    client.settle()

    found = [client.prompt(NAME) for _ in range(20)]
    client.settle()

    assert {(one.version, one.is_stale) for one in found} == {(1, True)}
    assert fake.count == 2


def test_without_serving_stale_an_old_value_is_no_value(
    make: Callable[..., Driver], fake: FakeService, clock: Clock
) -> None:
    client = make(serve_stale_when_down=False)
    client.prompt(NAME)
    fake.is_down = True
    clock.now += 361

    with pytest.raises(Unreachable, match=r"no service at http://turnout\.test.*connection refused"):
        client.prompt(NAME)
    with pytest.raises(Unreachable):
        client.prompt(NAME)
    assert client.prompt(NAME, fallback="x").is_fallback


@pytest.mark.parametrize(
    "answer",
    [
        httpx.Response(503, text="bad gateway"),
        httpx.Response(404, text="nginx"),
        httpx.Response(403, text="a proxy's own refusal"),
        httpx.Response(302, headers={"location": "https://login.test"}),
        httpx.Response(200, text="<html>"),
        httpx.Response(200, json=[]),
        httpx.Response(200, json={"name": NAME}),
        problem(503, "storage_failed", "the database is away"),
        problem(429, "too_many", "later"),
    ],
    ids=lambda answer: f"{answer.status_code} {answer.text[:12]}",
)
def test_an_answer_that_is_not_turnouts_or_of_an_ill_service_counts_as_none(
    client: Driver, fake: FakeService, clock: Clock, answer: httpx.Response
) -> None:
    client.prompt(NAME)
    fake.failure = answer
    clock.now += 361

    assert client.prompt(NAME).is_stale
    with pytest.raises(Unreachable, match=r"turnout\.test"):
        client.prompt(NAME, label="other")


def test_a_label_that_was_removed_ends_its_entry(client: Driver, fake: FakeService, clock: Clock) -> None:
    client.prompt(NAME)
    del fake.labels["production"]
    clock.now += 61
    client.prompt(NAME)
    client.settle()

    for _ in range(2):
        with pytest.raises(NotFound, match="no label"):
            client.prompt(NAME)
    fake.is_down = True
    with pytest.raises(Unreachable):
        client.prompt(NAME)


def test_a_removal_that_is_announced_ends_it_at_once(client: Driver, fake: FakeService) -> None:
    client.prompt(NAME)
    del fake.labels["production"]
    fake.revision = 2
    client.hear("changed", 2, NAME)

    with pytest.raises(NotFound):
        client.prompt(NAME)


def test_a_move_that_is_announced_is_there_at_once(client: Driver, fake: FakeService) -> None:
    client.prompt(NAME)
    fake.labels["production"], fake.revision = 2, 2
    client.hear("changed", 2, NAME)
    count = fake.count

    assert client.prompt(NAME).version == 2
    assert fake.count == count == 2


def test_a_move_of_another_prompt_costs_nothing(client: Driver, fake: FakeService) -> None:
    client.prompt(NAME)
    client.hear("changed", 2, "support.other")
    client.hear("seen", 3)

    client.prompt(NAME)
    assert fake.count == 1


def test_where_announcements_were_missed_every_label_is_asked_about(client: Driver, fake: FakeService) -> None:
    client.prompt(NAME)
    fake.labels["production"], fake.revision = 2, 7
    client.hear("all", 7)

    assert client.prompt(NAME).version == 2


def test_a_new_stream_asks_about_every_label_that_may_have_moved_before_it(client: Driver, fake: FakeService) -> None:
    client.prompt(NAME)
    client.prompt(NAME, version=2)
    client.hear("hello", 1)
    assert fake.count == 2

    fake.labels["production"], fake.revision = 2, 8
    client.hear("hello", 8)

    assert fake.count == 3
    assert client.prompt(NAME).version == 2
    assert fake.count == 3


def test_an_announced_move_is_not_undone_by_an_answer_from_before_it(
    client: Driver, fake: FakeService, clock: Clock
) -> None:
    """Another replica, half a second behind the one that announced it, is asked again a second later."""
    client.prompt(NAME)
    fake.revision = 1
    client.hear("changed", 5, NAME)
    behind = client.prompt(NAME)
    fake.labels["production"], fake.revision = 2, 5
    clock.now += 1.1
    client.prompt(NAME)
    client.settle()

    assert (behind.version, behind.is_stale) == (1, True)
    assert client.prompt(NAME).version == 2
    assert not client.prompt(NAME).is_stale


def test_an_answer_that_a_move_has_overtaken_is_asked_for_again(client: Driver, fake: FakeService) -> None:
    def moved() -> None:
        fake.before = lambda: setattr(fake, "revision", 2)
        core = client.client._core
        core.cache.hear(_changed(2), core.clock())

    fake.before = moved
    found = client.prompt(NAME)

    assert fake.count == 2
    assert not found.is_stale


def _changed(revision: int) -> object:
    from turnout.events import Event

    return Event("changed", revision, frozenset([NAME]))


def test_a_restored_database_that_counts_anew_is_believed(client: Driver, fake: FakeService, clock: Clock) -> None:
    client.prompt(NAME)
    fake.revision = 100
    client.hear("changed", 100, NAME)
    fake.revision, fake.labels["production"] = 3, 2
    client.hear("hello", 3)

    found = client.prompt(NAME)
    assert (found.version, found.is_stale) == (2, False)


def test_a_key_that_was_refused_ends_every_entry_when_the_stale_time_is_over(
    client: Driver, fake: FakeService, clock: Clock
) -> None:
    client.prompt(NAME)
    client.prompt(NAME, version=2)
    fake.failure = problem(401, "unauthenticated", "this key is not valid: it may have been revoked")
    clock.now += 61
    client.prompt(NAME)
    client.settle()

    assert client.prompt(NAME).is_stale
    assert client.prompt(NAME, version=2).is_stale
    clock.now += 290
    assert client.prompt(NAME, fallback="x").version == 1
    assert client.prompt(NAME, version=2).is_stale
    client.settle()
    clock.now += 20
    for selector in ({}, {"version": 2}, {"fallback": "x"}):
        with pytest.raises(KeyRefused, match="TURNOUT_API_KEY") as caught:
            client.prompt(NAME, **selector)
        assert caught.value.status == 401

    fake.failure = None
    clock.now += 31
    assert not client.prompt(NAME).is_stale
    client.prompt(NAME, version=2)
    client.settle()
    clock.now += 1e6
    count = fake.count
    assert not client.prompt(NAME, version=2).is_stale
    assert fake.count == count


def test_a_key_that_may_not_is_refused_at_the_first_call(client: Driver, fake: FakeService) -> None:
    fake.failure = problem(403, "forbidden", "role 'x' may not use this")

    with pytest.raises(KeyRefused, match="role 'x'") as caught:
        client.prompt(NAME, fallback="never used for this")
    assert caught.value.status == 403


def test_a_request_that_makes_no_sense_is_refused_with_its_reason(client: Driver, fake: FakeService) -> None:
    fake.failure = problem(400, "bad_name", "'Upper' is no label", param="label")

    with pytest.raises(Refused, match="'Upper' is no label"):
        client.prompt(NAME, label="upper")


def test_a_prompt_that_is_not_there_is_not_found_whatever_the_fallback(client: Driver) -> None:
    with pytest.raises(NotFound):
        client.prompt("support.none", fallback="hello")


def test_a_bad_selector_is_the_callers_mistake(client: Driver, fake: FakeService) -> None:
    with pytest.raises(BadSelector, match="version 1 and label 'staging': give one of them"):
        client.prompt(NAME, version=1, label="staging")
    for version in (0, -1, True, 10**9, "7"):
        with pytest.raises(ValueError, match=rf"version {version!r} is no version: they count from 1"):
            client.prompt(NAME, version=version)
    assert fake.count == 0


@pytest.mark.parametrize(
    "name", ["", "x/../chat.plain", "../../schema", "a.b/template?version=2#", "Chat", "a" * 201, 7]
)
def test_what_is_no_name_is_refused_before_any_request_and_spoils_nothing(
    client: Driver, fake: FakeService, name: Any
) -> None:
    client.prompt(NAME)

    with pytest.raises(
        BadSelector, match="is no prompt name: lower-case letters, digits, _ and -, with dots"
    ) as caught:
        client.prompt(name, fallback="hello")

    assert repr(name)[:60] in str(caught.value)
    assert not client.prompt(NAME).is_stale
    assert fake.count == 1


@pytest.mark.parametrize("label", ["", "Prod", "1st", "a b", "production?x=1"])
def test_what_is_no_label_is_refused_before_any_request(client: Driver, fake: FakeService, label: str) -> None:
    with pytest.raises(BadSelector, match=f"label {re.escape(repr(label))} is no label: a lower-case letter, then"):
        client.prompt(NAME, label=label)
    assert fake.count == 0


def test_a_client_that_was_closed_says_so_whatever_it_knows(make: Callable[..., Driver]) -> None:
    client = make()
    client.prompt(NAME)
    client.client._core.is_closed = True

    with pytest.raises(Closed, match="make another"):
        client.prompt(NAME)
    with pytest.raises(Closed):
        client.render(NAME, {"ticket": "t"})
    with pytest.raises(Closed):
        client.prompt(NAME, fallback="hello")
    with pytest.raises(Closed):
        client.feedback("c", value=1)


def test_a_prompt_that_was_given_before_fills_what_needs_no_service_after_the_client_was_closed(
    make: Callable[..., Driver], fake: FakeService
) -> None:
    client = make()
    plain = client.prompt(NAME)
    fake.templates[2] = template(2, local=False)
    logic = client.prompt(NAME, version=2)
    client.client._core.is_closed = True

    assert client.fill(plain, ticket="t").messages[1] == {"role": "user", "content": "Ticket: t"}
    with pytest.raises(Closed):
        client.fill(logic, ticket="t")


def test_threads_that_ask_at_the_same_time_share_one_request(fake: FakeService, clock: Clock) -> None:
    driver = SyncDriver(fake, _clock=clock)
    arrived = threading.Event()
    answered = threading.Event()
    found: list[int] = []

    def wait() -> None:
        arrived.set()
        answered.wait(10)

    fake.before = wait

    def ask() -> None:
        found.append(driver.prompt(NAME).version)

    threads = [threading.Thread(target=ask) for _ in range(8)]
    threads[0].start()
    assert arrived.wait(10)
    for thread in threads[1:]:
        thread.start()
    answered.set()
    for thread in threads:
        thread.join(10)
    driver.close()

    assert found == [1] * 8
    assert fake.count == 1


def test_tasks_that_ask_at_the_same_time_share_one_request_even_where_one_is_cancelled(
    fake: FakeService, clock: Clock
) -> None:
    import asyncio

    from tests.client.conftest import KEY
    from turnout import AsyncTurnout

    async def scenario() -> list[int]:
        gate = asyncio.Event()

        async def slow(request: httpx.Request) -> httpx.Response:
            await gate.wait()
            return fake(request)

        transport = httpx.MockTransport(slow)
        async with AsyncTurnout("http://t.test", KEY, transport=transport, listen=False, _clock=clock) as client:
            tasks = [asyncio.create_task(client.prompt(NAME)) for _ in range(8)]
            await asyncio.sleep(0)
            tasks[0].cancel()
            await asyncio.sleep(0)
            gate.set()
            return [(await task).version or 0 for task in tasks[1:]]

    assert asyncio.run(scenario()) == [1] * 7
    assert fake.count == 1


def test_what_is_known_survives_a_template_without_segments(client: Driver, fake: FakeService, clock: Clock) -> None:
    fake.templates[1] = template(1, local=False, messages=None)
    found = client.prompt(NAME)

    assert not found.is_local
    assert client.fill(found, ticket="x").messages == [{"role": "user", "content": "rendered there"}]
    assert fake.asked[1][0] == "POST /api/prompts/support.triage/render?version=1"

"""Keys are kept to what they may take a minute and a day."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prompts.errors import BadInput
from service.errors import RateLimited
from service.limits import KeyLimits, Limiter, key_limits, today
from tests.service.conftest import Service

MIDNIGHT_S = 20_000 * 86_400.0


class Clock:
    def __init__(self) -> None:
        self.at_s = MIDNIGHT_S + 3600

    def __call__(self) -> float:
        return self.at_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_a_minutes_worth_goes_through_at_once_and_the_next_waits(clock: Clock) -> None:
    limiter, limits = Limiter(clock), KeyLimits(requests_per_minute=3)
    for _ in range(3):
        limiter.admit("key_1", limits)
    with pytest.raises(RateLimited, match=r"may take 3 requests a minute: ask again in 20\.0 s") as refused:
        limiter.admit("key_1", limits)
    assert refused.value.retry_after_s == pytest.approx(20)
    clock.at_s += 20
    limiter.admit("key_1", limits)


def test_keys_do_not_share_what_they_may_take(clock: Clock) -> None:
    limiter, limits = Limiter(clock), KeyLimits(requests_per_minute=1)
    limiter.admit("key_1", limits)
    limiter.admit("key_2", limits)
    with pytest.raises(RateLimited):
        limiter.admit("key_1", limits)


def test_tokens_are_counted_when_they_are_known_and_the_next_request_waits_until_the_bucket_fills(clock: Clock) -> None:
    limiter, limits = Limiter(clock), KeyLimits(tokens_per_minute=600)
    limiter.admit("key_1", limits)
    limiter.charge("key_1", 900)
    with pytest.raises(RateLimited, match="600 tokens a minute") as refused:
        limiter.admit("key_1", limits)
    assert refused.value.retry_after_s == pytest.approx(30, abs=0.01)
    assert not refused.value.is_budget
    clock.at_s += 30.01
    limiter.admit("key_1", limits)


def test_the_days_budget_ends_at_midnight(clock: Clock) -> None:
    limiter, limits = Limiter(clock), KeyLimits(tokens_per_day=1000)
    limiter.admit("key_1", limits)
    limiter.charge("key_1", 1000)
    with pytest.raises(RateLimited, match="1,000 tokens a day is used up") as refused:
        limiter.admit("key_1", limits)
    assert refused.value.is_budget
    assert refused.value.retry_after_s == pytest.approx(23 * 3600)
    clock.at_s = MIDNIGHT_S + 86_400
    limiter.admit("key_1", limits)


def test_what_other_processes_logged_counts_for_the_day(clock: Clock) -> None:
    limiter, limits = Limiter(clock), KeyLimits(tokens_per_day=1000)
    limiter.admit("key_1", limits)
    limiter.charge("key_1", 10)
    limiter.learn(today(clock)[0], {"key_1": 999})
    limiter.admit("key_1", limits)
    limiter.learn(today(clock)[0], {"key_1": 1000})
    with pytest.raises(RateLimited):
        limiter.admit("key_1", limits)
    limiter.learn(today(clock)[0] - 1, {"key_1": 0})  # a late reading of yesterday says nothing of today
    with pytest.raises(RateLimited):
        limiter.admit("key_1", limits)


def test_what_is_refused_is_not_counted(clock: Clock) -> None:
    limiter, limits = Limiter(clock), KeyLimits(requests_per_minute=60)
    for _ in range(60):
        limiter.admit("key_1", limits)
    for _ in range(1000):
        with pytest.raises(RateLimited):
            limiter.admit("key_1", limits)
    clock.at_s += 1.001
    limiter.admit("key_1", limits)


def test_a_changed_limit_holds_at_once_and_keeps_what_was_spent_today(clock: Clock) -> None:
    limiter = Limiter(clock)
    limiter.admit("key_1", KeyLimits(tokens_per_day=1000))
    limiter.charge("key_1", 600)
    with pytest.raises(RateLimited):
        limiter.admit("key_1", KeyLimits(tokens_per_day=500))


def test_headers_say_what_is_left_as_openai_does(clock: Clock) -> None:
    limiter, limits = Limiter(clock), KeyLimits(requests_per_minute=60, tokens_per_minute=6000)
    limiter.admit("key_1", limits)
    limiter.charge("key_1", 1000)
    assert limiter.headers("key_1") == [
        (b"x-ratelimit-limit-requests", b"60"),
        (b"x-ratelimit-remaining-requests", b"59"),
        (b"x-ratelimit-reset-requests", b"1.000s"),
        (b"x-ratelimit-limit-tokens", b"6000"),
        (b"x-ratelimit-remaining-tokens", b"5000"),
        (b"x-ratelimit-reset-tokens", b"10.000s"),
    ]
    assert limiter.headers("key_2") == []


def test_keys_that_are_gone_are_forgotten(clock: Clock) -> None:
    limiter = Limiter(clock)
    for number in range(10):
        limiter.admit(f"key_{number}", KeyLimits(requests_per_minute=1))
    limiter.keep(frozenset({"key_3"}))
    limiter.admit("key_4", KeyLimits(requests_per_minute=1))
    with pytest.raises(RateLimited):
        limiter.admit("key_3", KeyLimits(requests_per_minute=1))


@given(st.integers(1, 50), st.lists(st.floats(0, 120), min_size=1, max_size=60))
def test_never_more_than_two_minutes_worth_in_any_minute(limit: int, pauses: list[float]) -> None:
    """A bucket's bound: what it holds and what flows in meanwhile."""
    clock, admitted = Clock(), []
    limiter, limits = Limiter(clock), KeyLimits(requests_per_minute=limit)
    for pause in pauses:
        clock.at_s += pause / limit
        try:
            limiter.admit("key_1", limits)
        except RateLimited:
            continue
        admitted.append(clock.at_s)
    assert all(sum(1 for at in admitted if start <= at < start + 60) <= 2 * limit for start in admitted)


@pytest.mark.parametrize("value", [0, -1, 1.5, "3", True, 10**13])
def test_a_limit_that_is_none_is_refused_by_name(value: object) -> None:
    with pytest.raises(BadInput, match="tokens_per_day: expected a whole number") as refused:
        key_limits({"tokens_per_day": value})
    assert refused.value.param == "tokens_per_day"


def test_no_limits_are_none() -> None:
    assert not KeyLimits()
    assert key_limits({"requests_per_minute": None}) == KeyLimits()
    assert KeyLimits(tokens_per_day=1)


def limited(service: Service, **limits: int) -> str:
    return str(service.call("POST", "/api/keys", json={"role": "app", **limits}).json()["key"])


def ask(service: Service, key: str, **more: Any) -> httpx.Response:
    body = {"model": "model-a", "messages": [{"role": "user", "content": "charged twice"}], **more}
    headers = {"authorization": f"Bearer {key}"}
    return service.call("POST", "/v1/chat/completions", role=None, json=body, headers=headers)


def test_a_key_over_its_limit_is_told_when_to_come_again_in_openais_form(service: Service) -> None:
    key = limited(service, requests_per_minute=2)
    first, second, third = (ask(service, key) for _ in range(3))
    assert (first.status_code, second.status_code, third.status_code) == (200, 200, 429)
    assert first.headers["x-ratelimit-remaining-requests"] == "1"
    error = third.json()["error"]
    assert (error["type"], error["code"]) == ("rate_limit_error", "rate_limit_exceeded")
    assert 1 <= int(third.headers["retry-after"]) <= 30
    assert "x-ratelimit-limit-requests" not in service.call("GET", "/v1/models").headers


def test_renders_count_too_and_other_keys_go_on(service: Service) -> None:
    service.push()
    key = limited(service, requests_per_minute=1)
    path, body = "/api/prompts/support.triage/render?label=latest", {"variables": {"ticket": "x"}}
    headers = {"authorization": f"Bearer {key}"}
    assert service.call("POST", path, role=None, json=body, headers=headers).status_code == 200
    refused = service.call("POST", path, role=None, json=body, headers=headers)
    assert (refused.status_code, refused.headers["content-type"]) == (429, "application/problem+json")
    assert service.call("POST", path, role="app", json=body).status_code == 200


def test_the_tokens_of_whole_answers_and_of_streams_count(service: Service) -> None:
    key = limited(service, tokens_per_day=10)
    answer = ask(service, key)
    used = answer.json()["usage"]["total_tokens"]
    assert used > 0
    statuses = [answer.status_code]
    while statuses[-1] == 200 and len(statuses) < 20:
        statuses.append(ask(service, key, stream=True).status_code)
    assert statuses[-1] == 429
    assert (len(statuses) - 2) * used < 10 <= (len(statuses) - 1) * used
    assert ask(service, key).json()["error"]["code"] == "insufficient_quota"


def test_a_limit_that_is_raised_or_lifted_holds_at_once(service: Service) -> None:
    made = service.call("POST", "/api/keys", json={"role": "app", "requests_per_minute": 1}).json()
    assert [ask(service, made["key"]).status_code for _ in range(2)] == [200, 429]
    path = f"/api/keys/{made['id']}/limits"
    assert service.call("PUT", path, json={}).json() == {"id": made["id"], **KeyLimits().as_dict()}
    assert [ask(service, made["key"]).status_code for _ in range(3)] == [200] * 3
    assert service.call("PUT", "/api/keys/key_none/limits", json={}).status_code == 404
    assert service.call("PUT", path, json={"requests_per_minute": 0}).status_code == 400

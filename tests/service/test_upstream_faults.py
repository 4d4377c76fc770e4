"""Each way in which an upstream fails, through the whole service: what the client sees, and what is recorded of it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.service.conftest import Service, make_settings
from tests.service.upstreams import (
    Act,
    Upstream,
    answers,
    answers_and_closes,
    chunk,
    chunks_of,
    completion,
    cut_off,
    endless,
    http,
    resets,
    says,
    silent,
    slow_bytes,
    streams,
)

ASK = {"model": "up", "messages": [{"role": "user", "content": "hello"}]}
A = chunk({"role": "assistant", "content": "a"})


@pytest.fixture
def upstream() -> Upstream:
    return Upstream()


@pytest.fixture
def service(tmp_path: Path, upstream: Upstream) -> Iterator[Service]:
    models: dict[str, Any] = {
        "up": {
            "engine": "openai",
            "base_url": upstream.base_url,
            "timeouts": {"total_s": 1.0},
            "retries": {"first_wait_s": 0.01},
            "breaker": {"least": 6, "open_s": 0.5},
        },
        "no-host": {"engine": "openai", "base_url": "http://no-such-host.invalid/v1", "retries": {"times": 0}},
        "nobody": {"engine": "openai", "base_url": "http://127.0.0.1:9/v1", "retries": {"times": 1}},
        "tls": {"engine": "openai", "base_url": upstream.base_url.replace("http:", "https:"), "retries": {"times": 0}},
    }
    with Service(make_settings(tmp_path / "home", models=models)).running() as service:
        service.wait(upstream.__aenter__())
        try:
            yield service
        finally:
            service.wait(upstream.__aexit__())


def ask(service: Service, **more: Any) -> httpx.Response:
    return service.call("POST", "/v1/chat/completions", "app", json={**ASK, **more})


def recorded(service: Service) -> list[dict[str, Any]]:
    """The rows of the request log, oldest first."""
    service.wait(service.context.request_log.flush())
    rows: list[dict[str, Any]] = service.call("GET", "/api/requests").json()
    return rows[::-1]


def standing(service: Service, alias: str = "up") -> dict[str, Any]:
    found = {one["alias"]: one for one in service.call("GET", "/api/upstreams", "author").json()}
    one: dict[str, Any] = found[alias]
    return one


def events(answer: httpx.Response) -> list[Any]:
    return [json.loads(line[6:]) for line in answer.text.splitlines() if line.startswith("data: {")]


@pytest.mark.parametrize(
    "fault",
    [resets(), resets(after=b"HTTP/1.1 200 OK\r\nContent-"), cut_off(), says(500), says(503)],
    ids=["reset before a byte", "reset within the head", "body cut off", "500", "503"],
)
def test_a_passing_fault_is_not_seen_and_its_attempts_are_recorded(
    service: Service, upstream: Upstream, fault: Act
) -> None:
    upstream.acts += [fault]
    answer = ask(service)
    assert (answer.status_code, answer.json()["choices"][0]["message"]["content"]) == (200, "billing")
    [row] = recorded(service)
    assert (row["status"], row["attempts"], row["error"]) == ("ok", 2, None)


@pytest.mark.parametrize(
    ("fault", "status", "kind", "attempts", "told"),
    [
        (resets(), 502, "ModelUnavailable", 3, "hung up before it answered"),
        (cut_off(), 502, "ModelUnavailable", 3, "in the middle of its reply"),
        (says(500, {"error": {"message": "boom"}}), 502, "ModelUnavailable", 3, "HTTP 500: boom"),
        (says(200, b"{broken"), 502, "ModelRefused", 1, "not a chat completion: application/json came"),
        (says(200, b"<html>", {"Content-Type": "text/html"}), 502, "ModelRefused", 1, "text/html came"),
        (endless(), 502, "ModelRefused", 1, "longer than 33554432 bytes"),
        (says(401, {"error": {"message": "no"}}), 502, "ModelRefused", 1, "api_key_env"),
        (says(400, {"error": {"message": "bad tool"}}), 400, "ModelRefused", 1, "bad tool"),
        (silent(), 504, "ModelTimeout", 1, "no complete answer within 1 s"),
        (slow_bytes(http(200, b"{}" * 99), 0.05), 504, "ModelTimeout", 1, "no complete answer within 1 s"),
        (says(301, {}, {"Location": "http://127.0.0.1:9/"}), 502, "ModelRefused", 1, "HTTP 301"),
    ],
    ids=["reset", "cut off", "500", "bad JSON", "wrong type", "too long", "401", "400", "silence", "slow", "redirect"],
)
@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "stream"])
def test_a_lasting_fault_is_told_and_recorded(
    service: Service, upstream: Upstream, fault: Act, status: int, kind: str, attempts: int, told: str, streamed: bool
) -> None:
    upstream.otherwise = fault
    answer = ask(service, stream=streamed)
    assert answer.status_code == status
    assert told in answer.json()["error"]["message"]
    [row] = recorded(service)
    assert (row["status"], row["attempts"]) == (kind, attempts)
    assert told in row["error"]
    assert len(upstream.asked) == attempts


def test_what_the_upstream_says_of_a_request_names_its_field_and_code(service: Service, upstream: Upstream) -> None:
    said = {
        "message": "too long",
        "type": "invalid_request_error",
        "param": "messages",
        "code": "context_length_exceeded",
    }
    upstream.otherwise = says(400, {"error": said})
    error = ask(service).json()["error"]
    assert (error["param"], error["code"], error["type"]) == (
        "messages", "context_length_exceeded", "invalid_request_error",
    )  # fmt: skip


def test_a_key_that_an_upstream_repeats_is_neither_told_nor_recorded(service: Service, upstream: Upstream) -> None:
    key = "sk-proj-" + "aB3dE5gH7jK9mN1pQ2rS4tU6vW8xY0zC"
    upstream.otherwise = says(401, {"error": {"message": "Incorrect API key provided: " + key}})
    told = ask(service).json()["error"]["message"]
    [row] = recorded(service)
    assert "Incorrect API key provided: [secret: OpenAI key]" in told
    assert key not in told + row["error"]


@pytest.mark.integration
@pytest.mark.parametrize(
    ("alias", "attempts", "told"),
    [("no-host", 1, "no-such-host.invalid"), ("nobody", 2, "127.0.0.1:9"), ("tls", 1, "https://127.0.0.1")],
)
def test_an_upstream_that_cannot_be_reached_is_told_by_its_address(
    service: Service, alias: str, attempts: int, told: str
) -> None:
    answer = ask(service, model=alias)
    assert (answer.status_code, answer.json()["error"]["code"]) == (502, "model_unavailable")
    assert told in answer.json()["error"]["message"]
    [row] = recorded(service)
    assert (row["status"], row["attempts"]) == ("ModelUnavailable", attempts)


def test_a_storm_of_429_is_passed_on_with_its_time_and_opens_no_breaker(service: Service, upstream: Upstream) -> None:
    upstream.otherwise = says(429, {"error": {"message": "slow down"}}, {"Retry-After": "7"})
    found = [ask(service) for _ in range(10)]
    assert {(one.status_code, one.headers["retry-after"]) for one in found} == {(429, "7")}
    assert {row["status"] for row in recorded(service)} == {"ModelOverloaded"}
    assert standing(service)["state"] == "closed"
    upstream.otherwise = answers("well again")
    assert ask(service).status_code == 200


def test_a_burst_of_5xx_opens_the_breaker_which_closes_again(service: Service, upstream: Upstream) -> None:
    upstream.otherwise = says(500)
    assert [ask(service).status_code for _ in range(2)] == [502, 502]
    assert len(upstream.asked) == 6
    started = time.monotonic()
    answer = ask(service)
    assert time.monotonic() - started < 0.2
    assert answer.status_code == 502
    assert "model 'up' is not asked: the next try is in 0." in answer.json()["error"]["message"]
    assert [(row["status"], row["attempts"]) for row in recorded(service)] == [
        ("ModelUnavailable", 3), ("ModelUnavailable", 3), ("ModelUnavailable", 0)
    ]  # fmt: skip
    found = standing(service)
    assert {name: found[name] for name in ("asked", "failed", "retried", "refused_by_breaker", "state")} == {
        "asked": 6, "failed": 6, "retried": 4, "refused_by_breaker": 1, "state": "open"
    }  # fmt: skip
    upstream.otherwise = answers("well again")
    time.sleep(0.6)
    assert [ask(service).status_code for _ in range(3)] == [200] * 3
    assert standing(service)["state"] == "closed"


def test_an_idle_connection_that_was_closed_is_not_seen_at_all(service: Service, upstream: Upstream) -> None:
    upstream.acts += [answers_and_closes(), answers("a"), resets(), answers("b")]
    assert [ask(service).status_code for _ in range(3)] == [200] * 3
    assert [row["attempts"] for row in recorded(service)] == [1, 1, 1]


@pytest.mark.parametrize(
    ("ends", "kind", "told"),
    [
        ("cut", "ModelUnavailable", "hung up in the middle of its reply"),
        ("clean", "ModelUnavailable", "ended without [DONE]"),
        ("silent", "ModelTimeout", "did not end within 1 s"),
    ],
)
def test_a_stream_that_breaks_gives_what_came_and_an_error(
    service: Service, upstream: Upstream, ends: str, kind: str, told: str
) -> None:
    upstream.acts += [streams([A], ends=ends)]
    answer = ask(service, stream=True)
    assert answer.status_code == 200
    first, *_, last = events(answer)
    assert first["choices"][0]["delta"]["content"] == "a"
    assert told in last["error"]["message"]
    [row] = recorded(service)
    assert (row["status"], row["attempts"], row["is_stream"]) == (kind, 1, True)
    assert len(upstream.asked) == 1


NULL = {**A, "choices": [None]}
NO_DELTA = {**A, "choices": [{"index": 0, "delta": "text"}]}


@pytest.mark.parametrize("odd", [NULL, NO_DELTA], ids=["no choice", "no delta"])
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/responses"])
def test_a_chunk_that_is_none_is_the_upstreams_fault_whenever_it_comes(
    service: Service, upstream: Upstream, odd: dict[str, Any], path: str
) -> None:
    asked = {"model": "up", "input": "hello", "stream": True} if path == "/v1/responses" else {**ASK, "stream": True}
    upstream.acts += [streams([odd]), streams([A, odd])]
    at_once = service.call("POST", path, "app", json=asked)
    assert (at_once.status_code, at_once.json()["error"]["code"]) == (502, "model_refused")
    *_, last = events(service.call("POST", path, "app", json=asked))
    told = last["response"]["error"]["message"] if path == "/v1/responses" else last["error"]["message"]
    assert "not a chunk of a chat completion" in told
    assert [row["status"] for row in recorded(service)] == ["ModelRefused"] * 2
    assert standing(service)["in_flight"] == 0


def test_an_error_of_the_request_in_a_stream_is_the_callers_and_opens_no_breaker(
    service: Service, upstream: Upstream
) -> None:
    said = {"error": {"message": "bad form", "type": "invalid_request_error", "param": "response_format", "code": "x"}}
    upstream.otherwise = streams([A, said])
    for _ in range(8):
        *_, last = events(ask(service, stream=True))
    assert (last["error"]["type"], last["error"]["param"]) == ("invalid_request_error", "response_format")
    assert standing(service)["state"] == "closed"
    upstream.otherwise = streams([said])
    assert ask(service, stream=True).status_code == 400


def test_a_fault_of_ours_in_a_stream_is_told_and_recorded_as_one(
    service: Service, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> None:
        raise ZeroDivisionError("a secret of ours")

    monkeypatch.setattr("service.answer_stream._says_something", broken)
    upstream.acts += [streams(chunks_of("billing"))]
    *_, last = events(ask(service, stream=True))
    assert last["error"]["code"] == "internal_error"
    assert "secret" not in last["error"]["message"]
    [row] = recorded(service)
    assert row["status"] == "ZeroDivisionError"
    assert standing(service)["in_flight"] == 0


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "stream"])
def test_half_a_character_becomes_the_sign_for_what_is_no_character(
    service: Service, upstream: Upstream, streamed: bool
) -> None:
    text = "a\ud800b \U0001f600"
    upstream.otherwise = streams(chunks_of(text)) if streamed else answers(text)
    answer = ask(service, stream=streamed)
    said = (
        "".join(one["choices"][0]["delta"].get("content", "") for one in events(answer))
        if streamed
        else answer.json()["choices"][0]["message"]["content"]
    )
    assert said == "a\ufffdb \U0001f600"
    assert [row["status"] for row in recorded(service)] == ["ok"]


@pytest.mark.parametrize("count", [b"1e999", b"-7", b"1e30", b"1000000000000000000000000000000", b'"9"', b"true"])
def test_what_is_no_count_of_tokens_counts_as_none(service: Service, upstream: Upstream, count: bytes) -> None:
    body = (
        json.dumps(completion("billing")).encode().replace(b'"completion_tokens": 2', b'"completion_tokens": ' + count)
    )
    upstream.acts += [says(200, body)]
    answer = ask(service)
    assert answer.status_code == 200
    assert answer.json()["usage"]["completion_tokens"] == 0
    [row] = recorded(service)
    assert (row["status"], row["prompt_tokens"], row["completion_tokens"]) == ("ok", 9, 0)


def test_what_a_usage_is_made_of_and_the_build_are_passed_on(service: Service, upstream: Upstream) -> None:
    usage = {
        "prompt_tokens": 9,
        "completion_tokens": 50,
        "total_tokens": 59,
        "prompt_tokens_details": {"cached_tokens": 4, "audio_tokens": 2},
        "completion_tokens_details": {"reasoning_tokens": 40, "accepted_prediction_tokens": 3},
    }
    upstream.otherwise = says(200, completion("billing", usage=usage, system_fingerprint="fp_1", service_tier="flex"))
    answer = ask(service).json()
    assert answer["usage"] == usage
    assert (answer["system_fingerprint"], answer["service_tier"]) == ("fp_1", "flex")
    response = service.call("POST", "/v1/responses", "app", json={"model": "up", "input": "hello"}).json()
    assert response["usage"]["output_tokens_details"] == {"reasoning_tokens": 40}


def test_what_takes_the_cpu_alone_goes_on_while_all_threads_wait_for_a_database(service: Service) -> None:
    released = threading.Event()

    async def hold() -> None:
        for _ in range(64):
            asyncio.get_running_loop().run_in_executor(None, released.wait)

    ask(service)  # the connection is there: to find a host is a thread's work on loops other than uvloop's
    service.wait(hold())
    long = {"model": "up", "messages": [{"role": "user", "content": "x" * 100_000}]}
    try:
        assert service.start("POST", "/v1/chat/completions", "app", json=long).result(20).status_code == 200
    finally:
        released.set()


def test_a_stream_says_what_it_took(service: Service, upstream: Upstream) -> None:
    upstream.acts += [streams(chunks_of("bill", "ing"))]
    answer = ask(service, stream=True)
    assert "".join(one["choices"][0]["delta"].get("content", "") for one in events(answer)) == "billing"
    [row] = recorded(service)
    assert (row["status"], row["prompt_tokens"], row["completion_tokens"]) == ("ok", 9, 2)


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "stream"])
def test_a_client_that_leaves_hangs_up_on_the_upstream(service: Service, upstream: Upstream, streamed: bool) -> None:
    upstream.otherwise = streams([A], ends="silent") if streamed else silent()
    asked = service.start("POST", "/v1/chat/completions", "app", json={**ASK, "stream": streamed})
    deadline = time.monotonic() + 5
    while not upstream.asked and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.1)
    asked.cancel()
    while not upstream.hung_up and time.monotonic() < deadline:
        time.sleep(0.01)
    assert upstream.hung_up == 1
    found = standing(service)
    assert (found["in_flight"], found["hung_up"], found["failed"]) == (0, 1, 0)
    [row] = recorded(service)
    assert row["status"] == "cancelled"


def test_the_key_of_an_upstream_goes_nowhere_else(
    tmp_path: Path, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = Upstream()
    monkeypatch.setenv("UP_KEY", "sk-upstream")
    monkeypatch.setenv("HTTP_PROXY", elsewhere.base_url)
    monkeypatch.setenv("http_proxy", elsewhere.base_url)
    models = {"up": {"engine": "openai", "base_url": upstream.base_url, "api_key_env": "UP_KEY"}}
    upstream.acts += [says(307, {}, {"Location": f"{elsewhere.base_url}/chat/completions"})]
    with Service(make_settings(tmp_path / "home", models=models)).running() as service:

        async def both() -> None:
            async with contextlib.AsyncExitStack() as stack:
                await stack.enter_async_context(upstream)
                await stack.enter_async_context(elsewhere)
                for _ in range(2):
                    await asyncio.wrap_future(
                        service.start("POST", "/v1/chat/completions", "app", json=ASK), loop=asyncio.get_running_loop()
                    )

        service.wait(both())
    assert [asked.headers["authorization"] for asked in upstream.asked] == ["Bearer sk-upstream"] * 2
    assert elsewhere.asked == []

"""A prompt that allows it answers the same question from memory, and an Idempotency-Key gets the same bytes."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import pytest

from tests.service.conftest import Service, triage

ASKED: dict[str, Any] = {"model": "support.triage", "messages": [], "variables": {"ticket": "charged twice"}}


@pytest.fixture
def cached(service: Service) -> Service:
    """A service whose prompt answers the same question from memory for a minute."""
    service.produce(service.push(data=triage(cacheSeconds=60)))
    return service


def ask(service: Service, headers: dict[str, str] | None = None, **more: Any) -> httpx.Response:
    return service.call("POST", "/v1/chat/completions", role="app", json={**ASKED, **more}, headers=headers or {})


def log(service: Service) -> list[dict[str, Any]]:
    service.wait(service.context.request_log.flush())
    found = service.call("GET", "/api/requests").json()
    rows = found["requests"] if isinstance(found, dict) else found
    return sorted(rows, key=lambda row: row["at"])


def test_the_same_question_is_asked_once_and_the_record_says_so(cached: Service) -> None:
    first, second = ask(cached), ask(cached)
    assert "x-turnout-cache" not in first.headers
    assert second.headers["x-turnout-cache"] == "hit"
    assert second.json()["choices"] == first.json()["choices"]
    assert second.json()["usage"] == first.json()["usage"]
    assert second.json()["id"] != first.json()["id"]
    rows = log(cached)
    assert [row["is_cached"] for row in rows] == [False, True]
    assert [row["attempts"] for row in rows] == [1, 0]
    assert rows[1]["prompt_tokens"] == 0


@pytest.mark.parametrize("more", [{"variables": {"ticket": "password"}}, {"temperature": 0.5}, {"seed": 3}])
def test_another_question_is_another_answer(cached: Service, more: dict[str, Any]) -> None:
    ask(cached)
    assert "x-turnout-cache" not in ask(cached, **more).headers


def test_a_prompt_that_does_not_say_so_is_never_answered_from_memory(service: Service) -> None:
    service.produce(service.push())
    assert all("x-turnout-cache" not in ask(service).headers for _ in range(2))


def test_a_stream_and_a_whole_answer_share_what_is_kept(cached: Service) -> None:
    streamed = ask(cached, stream=True)
    whole = ask(cached)
    again = ask(cached, stream=True)
    assert "x-turnout-cache" not in streamed.headers
    assert whole.headers["x-turnout-cache"] == again.headers["x-turnout-cache"] == "hit"
    assert content(streamed) == content(again) == whole.json()["choices"][0]["message"]["content"]
    assert [row["is_cached"] for row in log(cached)] == [False, True, True]


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "stream"])
def test_an_answer_that_does_not_fit_its_schema_is_not_kept(service: Service, streamed: bool) -> None:
    fitting = {"type": "object", "properties": {"queue": {"const": "no such queue"}}, "required": ["queue"]}
    service.produce(service.push(data=triage(cacheSeconds=60, responseFormat="json_schema", jsonSchema=fitting)))
    assert all("x-turnout-cache" not in ask(service, stream=streamed).headers for _ in range(2))


def content(streamed: httpx.Response) -> str:
    events = [line[6:] for line in streamed.text.splitlines() if line.startswith("data: {")]
    chunks = [json.loads(event) for event in events]
    return "".join(c["delta"].get("content") or "" for chunk in chunks for c in chunk["choices"])


def test_a_pinned_variant_is_asked_afresh(cached: Service) -> None:
    ask(cached)
    pinned = {"x-turnout-variant": "support.triage@1+model-a"}
    answer = cached.call("POST", "/v1/chat/completions", role="author", json=ASKED, headers=pinned)
    assert answer.status_code == 200
    assert "x-turnout-cache" not in answer.headers


def test_a_new_version_has_answers_of_its_own(cached: Service) -> None:
    ask(cached)
    changed = triage(cacheSeconds=60, messages=[{"role": "user", "content": "Which queue? {{ ticket }}"}])
    cached.produce(cached.push(data=changed))
    assert "x-turnout-cache" not in ask(cached).headers


def test_the_same_key_and_body_get_the_same_bytes(service: Service) -> None:
    service.produce(service.push())
    first, second = (ask(service, {"Idempotency-Key": "k1"}) for _ in range(2))
    assert first.content == second.content
    assert "x-turnout-replayed" not in first.headers
    assert second.headers["x-turnout-replayed"] == "true"
    assert second.headers["x-turnout-completion-id"] == first.json()["id"]
    assert len(log(service)) == 1


def test_embeddings_are_given_again(service: Service) -> None:
    def embed(text: str) -> httpx.Response:
        body = {"model": "model-a", "input": text}
        return service.call("POST", "/v1/embeddings", "app", json=body, headers={"Idempotency-Key": "k1"})

    first, second = embed("a"), embed("a")
    assert first.status_code == 200
    assert (second.content, second.headers["x-turnout-replayed"]) == (first.content, "true")
    assert embed("b").status_code == 409


def test_feedback_that_is_sent_again_counts_once(service: Service) -> None:
    service.produce(service.push())
    rated = {"completion_id": ask(service).json()["id"], "metric": "useful", "value": 1}

    def give(**more: Any) -> httpx.Response:
        body, headers = {**rated, **more}, {"Idempotency-Key": "k1"}
        return service.call("POST", "/api/feedback", "app", json=body, headers=headers)

    first = give()
    assert first.status_code == 201
    assert give().json() == first.json()
    assert give(value=0).status_code == 409
    assert service.call("POST", "/api/feedback", "app", json=rated).json()["id"] != first.json()["id"]


def test_the_same_key_with_another_body_is_a_conflict(service: Service) -> None:
    service.produce(service.push())
    ask(service, {"Idempotency-Key": "k1"})
    refused = ask(service, {"Idempotency-Key": "k1"}, temperature=1)
    assert (refused.status_code, refused.json()["error"]["code"]) == (409, "idempotency_mismatch")


def test_the_keys_of_one_caller_are_not_those_of_another(service: Service) -> None:
    service.produce(service.push())
    first = ask(service, {"Idempotency-Key": "k1"})
    other = service.call(
        "POST", "/v1/chat/completions", role="author", json=ASKED, headers={"Idempotency-Key": "k1"}
    )  # fmt: skip
    assert other.json()["id"] != first.json()["id"]


def test_what_failed_may_be_asked_again_under_the_same_key(service: Service) -> None:
    body = {"model": "dead", "messages": [{"role": "user", "content": "x"}]}
    key = {"Idempotency-Key": "k1"}
    answers = [service.call("POST", "/v1/chat/completions", json=body, headers=key) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [502, 502]
    assert all("x-turnout-replayed" not in answer.headers for answer in answers)


def test_a_stream_is_not_replayed_and_says_so(service: Service) -> None:
    service.produce(service.push())
    refused = ask(service, {"Idempotency-Key": "k1"}, stream=True)
    assert refused.status_code == 400
    assert "a stream is not kept" in refused.json()["error"]["message"]


def test_two_at_once_ask_the_model_once(service: Service) -> None:
    service.produce(service.push())

    async def both() -> list[bytes]:
        return [answer.content for answer in await asyncio.gather(*(asyncio.to_thread(one) for _ in range(2)))]

    def one() -> httpx.Response:
        return ask(service, {"Idempotency-Key": "k1"})

    first, second = asyncio.run(both())
    assert first == second
    assert len(log(service)) == 1

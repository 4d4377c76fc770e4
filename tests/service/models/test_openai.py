from __future__ import annotations

import asyncio
import email.utils
import json
import socket
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from aiohttp import web

from prompts.errors import ModelError, ModelOverloaded, ModelRefused, ModelTimeout, ModelUnavailable
from prompts.messages import Completion, CompletionRequest, Message, Usage
from service.models.embedding import Embeddings
from service.models.openai import OpenAIModel
from service.models.openai_replies import retry_after_s

KEY = "sk-very-secret"
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
GOOD: dict[str, Any] = {
    "choices": [{"message": {"role": "assistant", "content": "billing"}, "finish_reason": "length"}],
    "usage": {"prompt_tokens": 9, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 4}},
    "turnout": {"asked_again": True},
}


def request(**changes: Any) -> CompletionRequest:
    return CompletionRequest((Message("user", "hello"),), {"temperature": 0}, **changes)


def ask(handler: Handler, one: CompletionRequest | None = None) -> Completion:
    """Ask a server on loopback that answers with `handler`."""
    found: Completion = at(handler, lambda model: model.complete(one or request()))
    return found


def at(handler: Handler, work: Callable[[OpenAIModel], Awaitable[Any]]) -> Any:
    """What `work` makes of a server on loopback that answers with `handler`."""

    async def run() -> Any:
        app = web.Application()
        app.router.add_post("/v1/chat/completions", handler)
        app.router.add_post("/v1/embeddings", handler)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        model = OpenAIModel(f"http://127.0.0.1:{runner.addresses[0][1]}/v1/", "upstream", KEY)
        try:
            return await work(model)
        finally:
            await model.aclose()
            await model.aclose()
            await runner.cleanup()

    return asyncio.run(run())


def says(status: int, body: Any, **headers: str) -> Handler:
    async def handler(_: web.Request) -> web.Response:
        text = body if isinstance(body, str) else json.dumps(body)
        return web.Response(status=status, text=text, headers=headers)

    return handler


def test_embeddings_come_in_the_order_of_their_texts() -> None:
    bodies = []

    async def handler(asked: web.Request) -> web.Response:
        bodies.append((asked.path, await asked.json()))
        data = [{"index": 1, "embedding": [0, 1]}, {"index": 0, "embedding": [1, 0.5]}]
        return web.json_response({"data": data, "usage": {"prompt_tokens": 7, "total_tokens": 7}})

    found = at(handler, lambda model: model.embed(["a", "b"], 5.0))
    assert found == Embeddings(((1.0, 0.5), (0.0, 1.0)), Usage(7, 0))
    assert bodies == [("/v1/embeddings", {"model": "upstream", "input": ["a", "b"]})]


@pytest.mark.parametrize(
    ("handler", "error", "told"),
    [
        (says(200, {"data": [{"index": 0}]}), ModelRefused, "not embeddings"),
        (says(200, {"data": []}), ModelRefused, "0 vectors for 2 texts"),
        (says(429, "busy"), ModelOverloaded, "/v1/embeddings: HTTP 429"),
        (says(404, {"error": {"message": f"no such route, {KEY}"}}), ModelRefused, "no such route, …"),
    ],
)
def test_embeddings_that_do_not_come_say_why(handler: Handler, error: type[ModelError], told: str) -> None:
    with pytest.raises(error, match=told):
        at(handler, lambda model: model.embed(["a", "b"], 5.0))


def test_log_probabilities_are_kept_where_the_upstream_gives_them() -> None:
    choice = {**GOOD["choices"][0], "logprobs": {"content": [{"logprob": -0.5}, {"logprob": -1}, {"token": "x"}]}}
    assert ask(says(200, {**GOOD, "choices": [choice]})).details == {"asked_again": True, "logprobs": [-0.5, -1.0]}
    assert ask(says(200, {**GOOD, "choices": [{**choice, "logprobs": None}]})).details == {"asked_again": True}


def test_a_completion_is_read_whole() -> None:
    completion = ask(says(200, GOOD))
    assert completion.text == "billing"
    assert completion.finish_reason == "length"
    assert completion.usage == Usage(9, 2, 4)
    assert completion.message == {"role": "assistant", "content": "billing"}
    assert completion.details == {"asked_again": True}
    assert completion.latency_s > 0


@pytest.mark.parametrize(("adapter", "model"), [(None, "upstream"), ("red", "red")])
def test_the_upstream_gets_parameters_key_and_model_or_adapter(adapter: str | None, model: str) -> None:
    seen: dict[str, Any] = {}

    async def handler(asked: web.Request) -> web.Response:
        seen.update(await asked.json(), key=asked.headers["Authorization"])
        return web.json_response(GOOD)

    ask(handler, request(adapter=adapter))
    messages = [{"role": "user", "content": "hello"}]
    assert seen == {"model": model, "messages": messages, "temperature": 0, "key": f"Bearer {KEY}"}


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, ModelRefused),
        (401, ModelRefused),
        (403, ModelRefused),
        (404, ModelRefused),
        (422, ModelRefused),
        (302, ModelRefused),
        (429, ModelOverloaded),
        (503, ModelOverloaded),
        (500, ModelUnavailable),
        (502, ModelUnavailable),
        (504, ModelTimeout),
    ],
)
def test_a_status_becomes_its_error_without_the_key(status: int, kind: type[ModelError]) -> None:
    body = {"error": {"message": f"no, {KEY} is bad", "code": "why"}}
    with pytest.raises(kind, match=f"HTTP {status}: no, … is bad") as caught:
        ask(says(status, body, Location="http://127.0.0.1:9/"))
    assert type(caught.value) is kind
    assert KEY not in str(caught.value)
    if isinstance(caught.value, ModelRefused):
        assert (caught.value.status, caught.value.code) == (status, "why")


def test_retry_after_is_read() -> None:
    with pytest.raises(ModelOverloaded) as caught:
        ask(says(429, "slow down", **{"Retry-After": "7"}))
    assert caught.value.retry_after_s == 7
    date = email.utils.formatdate(time.time() + 100, usegmt=True)
    assert 95 < (retry_after_s(date) or 0) <= 100
    assert [retry_after_s(value) for value in (None, "soon", "-3", "nan", "inf")] == [None] * 5


@pytest.mark.parametrize("body", ["not json", "[]", {}, {"choices": []}, {"choices": [{"message": None}]}, "[" * 99999])
def test_what_is_no_completion_is_refused(body: Any) -> None:
    with pytest.raises(ModelRefused, match="not a chat completion"):
        ask(says(200, body))


def test_what_is_no_completion_is_told_by_what_came_and_what_to_mend() -> None:
    async def page(_: web.Request) -> web.Response:
        return web.Response(text="<html>\n  <title>Sign in</title>" + "x" * 200, content_type="text/html")

    with pytest.raises(ModelRefused) as caught:
        ask(page)
    said = str(caught.value).partition("/v1/chat/completions: ")[2]
    assert said == (
        f"not a chat completion: text/html came, beginning '<html> <title>Sign in</title>{'x' * 51}' "
        "(check that base_url is the address before /chat/completions of a server that speaks OpenAI's API, often …/v1)"
    )
    with pytest.raises(ModelRefused, match=r"application/json came, beginning '\{\}' \(check") as caught:
        ask(says(200, {}, **{"Content-Type": "application/json"}))
    assert "KeyError" not in str(caught.value)


@pytest.mark.parametrize(
    ("status", "fix"),
    [(401, "api_key_env names)"), (403, "api_key_env names may do)"), (404, "(check base_url and the model's name)")],
)
def test_a_refusal_for_every_question_says_where_to_look(status: int, fix: str) -> None:
    with pytest.raises(ModelRefused) as caught:
        ask(says(status, {"error": {"message": "no"}}))
    assert str(caught.value).endswith(fix)


def test_a_tool_call_without_content_has_empty_text() -> None:
    message = {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]}
    completion = ask(says(200, {"choices": [{"message": message, "finish_reason": "tool_calls"}]}))
    assert (completion.text, completion.finish_reason, completion.message) == ("", "tool_calls", message)


def test_a_slow_answer_times_out() -> None:
    async def handler(_: web.Request) -> web.Response:
        await asyncio.sleep(0.5)
        return web.json_response(GOOD)

    with pytest.raises(ModelTimeout, match=r"within 0\.1 s"):
        ask(handler, request(timeout_s=0.1))


def test_a_connection_cut_short_is_unavailable() -> None:
    async def handler(asked: web.Request) -> web.Response:
        assert asked.transport is not None
        asked.transport.abort()
        return web.Response()

    with pytest.raises(ModelUnavailable):
        ask(handler)


@pytest.mark.parametrize("host", ["127.0.0.1", "no-such-host.invalid"])
def test_nothing_listening_is_unavailable(host: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]

    async def run() -> None:
        model = OpenAIModel(f"http://{host}:{port}/v1", "upstream", KEY)
        try:
            await model.complete(request())
        finally:
            await model.aclose()

    with pytest.raises(ModelUnavailable):
        asyncio.run(run())


def test_a_closed_model_opens_nothing_again() -> None:
    async def run() -> None:
        model = OpenAIModel("http://127.0.0.1:9/v1", "upstream", KEY)
        await model.aclose()
        await model.complete(request())

    with pytest.raises(ModelUnavailable, match="was closed"):
        asyncio.run(run())


def test_an_error_calls_a_place_by_its_name_where_it_has_one() -> None:
    model = OpenAIModel("http://127.0.0.1:9/v1", "m", called="local model 'm'")
    with pytest.raises(ModelUnavailable, match=r"^local model 'm': ") as caught:
        asyncio.run(model.complete(request()))
    assert "127.0.0.1:9/v1" not in str(caught.value)


def test_the_repr_holds_no_key() -> None:
    assert KEY not in repr(OpenAIModel("http://localhost/v1", "m", KEY))

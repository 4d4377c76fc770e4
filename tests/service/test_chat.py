"""`/v1/chat/completions` before a scripted upstream: the official client sees what OpenAI would send it."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pydantic
import pytest

from tests.service.conftest import triage
from tests.service.protocol import CALL, CALL_CHUNKS, TOOLS, USED, Scripted, replies, scripted
from tests.service.test_completions import turnout_of, wait_for
from tests.service.upstreams import answers, chunks_of, says, silent, streams

VARIABLES = {"variables": {"ticket": "I was charged twice"}}
ASKED: Any = [{"role": "user", "content": "hello"}]


class Person(pydantic.BaseModel):
    name: str
    age: int


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scripted]:
    with scripted(tmp_path_factory.mktemp("home")) as server:
        server.push("support.triage", triage(model="up", modelParameters={"temperature": 0, "max_tokens": 12}))
        server.produce("support.triage", 1)
        yield server


@pytest.fixture
def client(server: Scripted) -> Iterator[Any]:
    with server.client() as client:
        yield client


# ---------------------------------------------------------------------------- parameters and choices


def test_parameters_are_passed_on_and_go_before_the_prompts(server: Scripted, client: Any) -> None:
    server.script()
    given: dict[str, Any] = {"temperature": 0.5, "seed": 7, "stop": ["\n"], "logprobs": True, "top_logprobs": 2,
                             "presence_penalty": 0.1, "logit_bias": {"50256": -100}}  # fmt: skip
    client.chat.completions.create(model="support.triage", messages=[], extra_body={**VARIABLES, "top_k": 5}, **given)

    (asked,) = server.asked
    assert {name: asked[name] for name in (*given, "top_k", "max_tokens")} == {**given, "top_k": 5, "max_tokens": 12}


def test_a_longest_answer_by_its_newer_name_replaces_the_prompts(server: Scripted, client: Any) -> None:
    server.script()
    client.chat.completions.create(model="support.triage", messages=[], extra_body=VARIABLES, max_completion_tokens=3)

    (asked,) = server.asked
    assert asked["max_completion_tokens"] == 3
    assert "max_tokens" not in asked


def test_all_choices_come_back_as_the_upstream_gave_them(server: Scripted, client: Any) -> None:
    token = {"token": "a", "logprob": -0.1, "bytes": [97], "top_logprobs": []}
    server.script(replies({"content": "a"}, {"content": "b"}, logprobs={"content": [token], "refusal": None}))
    found = client.chat.completions.create(model="up", messages=ASKED, n=2, logprobs=True)

    assert [choice.message.content for choice in found.choices] == ["a", "b"]
    assert [choice.index for choice in found.choices] == [0, 1]
    assert found.choices[1].logprobs is not None
    assert found.choices[1].logprobs.content is not None
    assert found.choices[1].logprobs.content[0].logprob == -0.1
    assert found.usage is not None
    assert found.usage.prompt_tokens_details is not None
    assert found.usage.prompt_tokens_details.cached_tokens == 4
    assert server.asked[0]["n"] == 2


def test_tools_are_called_and_their_results_are_sent_back(server: Scripted, client: Any) -> None:
    server.script(replies({"content": None, "tool_calls": [CALL]}, finish_reason="tool_calls"), answers("refunded"))
    first = client.chat.completions.create(model="up", messages=ASKED, tools=TOOLS, tool_choice="required")
    message = first.choices[0].message
    then = [
        *ASKED,
        message.model_dump(exclude_none=True),
        {"role": "tool", "tool_call_id": "call_1", "content": "order 7"},
    ]
    second = client.chat.completions.create(model="up", messages=then)

    assert first.choices[0].finish_reason == "tool_calls"
    assert message.tool_calls[0].function.arguments == '{"order": 7}'
    assert second.choices[0].message.content == "refunded"
    assert (server.asked[0]["tools"], server.asked[0]["tool_choice"]) == (TOOLS, "required")
    assert server.asked[1]["messages"][1]["tool_calls"][0]["id"] == "call_1"


def test_a_structured_output_is_parsed_by_the_client(server: Scripted, client: Any) -> None:
    server.script(replies({"content": '{"name": "Ada", "age": 36}'}))
    found = client.chat.completions.parse(model="up", messages=ASKED, response_format=Person)

    assert found.choices[0].message.parsed == Person(name="Ada", age=36)
    assert server.asked[0]["response_format"]["json_schema"]["name"] == "Person"


# ---------------------------------------------------------------------------- streams


def test_chunks_are_passed_on_one_by_one_as_they_come(server: Scripted, client: Any) -> None:
    server.script(answers("one two three", words_s=0.15))
    times, texts = [], []
    for chunk in client.chat.completions.create(model="up", messages=ASKED, stream=True):
        times.append(time.monotonic())
        texts.append(chunk.choices[0].delta.content)

    assert "".join(text or "" for text in texts) == "onetwothree"
    assert times[-1] - times[0] > 0.3  # had they been gathered, all would have come at the end
    assert server.asked[0]["stream"] is True


def test_the_first_chunk_says_who_answers_and_none_that_was_not_asked_for_tells_the_usage(
    server: Scripted, client: Any
) -> None:
    server.script()
    chunks = list(
        client.chat.completions.create(model="support.triage", messages=[], stream=True, extra_body=VARIABLES)
    )

    assert turnout_of(chunks[0])["variant"] == "support.triage@1+up"
    assert all("turnout" not in (chunk.model_extra or {}) and chunk.choices for chunk in chunks[1:])
    assert {(chunk.id[:9], chunk.model) for chunk in chunks} == {("chatcmpl-", "support.triage@1+up")}
    row = server.row(chunks[0].id)
    assert (row["status"], row["is_stream"], row["prompt_tokens"], row["completion_tokens"]) == ("ok", True, 9, 1)
    assert row["latency_ms"] >= row["first_token_ms"] > 0


def test_usage_comes_last_where_it_was_asked_for(server: Scripted, client: Any) -> None:
    server.script(streams([*chunks_of("a")[:-1], USED]))
    chunks = list(
        client.chat.completions.create(model="up", messages=ASKED, stream=True, stream_options={"include_usage": True})
    )

    assert (chunks[-1].choices, chunks[-1].usage.total_tokens) == ([], 12)
    assert all(chunk.usage is None for chunk in chunks[:-1])


def test_calls_are_put_together_by_the_clients_own_stream(server: Scripted, client: Any) -> None:
    server.script(streams(CALL_CHUNKS))
    with client.chat.completions.stream(model="up", messages=ASKED, tools=TOOLS) as stream:
        kinds = {event.type for event in stream}
        message = stream.get_final_completion().choices[0].message

    assert "tool_calls.function.arguments.done" in kinds
    assert message.tool_calls is not None
    assert message.tool_calls[0].function.arguments == '{"order": 7}'


def test_a_structured_output_is_parsed_from_a_stream(server: Scripted, client: Any) -> None:
    server.script(streams([*chunks_of('{"name": "Ada",', ' "age": 36}')]))
    with client.chat.completions.stream(model="up", messages=ASKED, response_format=Person) as stream:
        found = stream.get_final_completion()

    assert found.choices[0].message.parsed == Person(name="Ada", age=36)


def test_the_async_client_completes_and_streams(server: Scripted) -> None:
    async def ask() -> tuple[str | None, str]:
        async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key=server.keys["app"], max_retries=0) as client:
            whole = await client.chat.completions.create(model="up", messages=ASKED)
            stream = await client.chat.completions.create(model="up", messages=ASKED, stream=True)
            pieces = [chunk.choices[0].delta.content or "" async for chunk in stream]
            return whole.choices[0].message.content, "".join(pieces)

    server.script(answers("whole"), answers("bit by bit"))
    assert asyncio.run(ask()) == ("whole", "bitbybit")


def test_what_breaks_a_stream_off_is_told_as_an_error_and_recorded(server: Scripted, client: Any) -> None:
    server.script(streams(chunks_of("one", "two")[:2], ends="cut"))
    stream = client.chat.completions.create(model="up", messages=ASKED, stream=True)
    first = next(stream)
    with pytest.raises(openai.APIError) as caught:
        list(stream)

    assert caught.value.code == "model_unavailable"
    row = server.row(first.id)
    assert (row["status"], row["is_stream"]) == ("ModelUnavailable", True)


def test_an_error_in_a_stream_is_an_event_of_its_own_and_no_done_follows(server: Scripted) -> None:
    server.script(streams(chunks_of("one", "two")[:2], ends="cut"))
    answer = httpx.post(
        f"{server.url}/v1/chat/completions",
        json={"model": "up", "messages": ASKED, "stream": True},
        headers={"authorization": f"Bearer {server.keys['app']}"},
    )

    *_, name, data, _, _ = answer.text.split("\n")
    assert (answer.status_code, name) == (200, "event: error")
    assert json.loads(data.removeprefix("data: "))["error"].keys() == {"message", "type", "param", "code"}
    assert "[DONE]" not in answer.text


@pytest.mark.parametrize(
    ("status", "kind"), [(429, openai.RateLimitError), (500, openai.InternalServerError), (400, openai.BadRequestError)]
)
def test_a_stream_that_the_upstream_refuses_is_refused_with_a_status(
    server: Scripted, client: Any, status: int, kind: type[openai.APIStatusError]
) -> None:
    server.script(*[says(status, {"error": {"message": "no"}}, {"Retry-After": "0"})] * 9)
    with pytest.raises(kind):
        client.chat.completions.create(model="up-b", messages=ASKED, stream=True)
    server.script()


# ---------------------------------------------------------------------------- clients that leave


def test_a_client_that_leaves_a_stream_hangs_up_on_the_upstream_at_once(server: Scripted, client: Any) -> None:
    server.script(streams(chunks_of("one", "two")[:2], ends="silent"))
    before = server.upstream.hung_up
    stream = client.chat.completions.create(model="up", messages=ASKED, stream=True)
    first = next(stream)
    stream.close()

    wait_for(lambda: server.upstream.hung_up > before, within_s=2)
    assert server.row(first.id)["status"] == "cancelled"


@pytest.mark.parametrize("is_stream", [False, True])
def test_a_client_that_does_not_wait_for_its_answer_hangs_up_on_the_upstream(server: Scripted, is_stream: bool) -> None:
    server.script(silent())
    before = server.upstream.hung_up
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(
            f"{server.url}/v1/chat/completions",
            json={"model": "up", "messages": ASKED, "stream": is_stream},
            headers={"authorization": f"Bearer {server.keys['app']}"},
            timeout=0.3,
        )

    wait_for(lambda: server.upstream.hung_up > before, within_s=2)


# ---------------------------------------------------------------------------- what is recorded, and where


def test_the_reply_names_its_record_in_a_header(server: Scripted, client: Any) -> None:
    server.script()
    answer = client.chat.completions.with_raw_response.create(model="up", messages=ASKED)

    assert answer.headers["x-turnout-completion-id"] == answer.parse().id
    assert answer.headers["content-length"]


def test_a_trace_is_recorded(server: Scripted, client: Any) -> None:
    server.script()
    trace = "0af7651916cd43dd8448eb211c80319c"
    headers = {"traceparent": f"00-{trace}-b7ad6b7169203331-01"}
    found = client.chat.completions.create(model="up", messages=ASKED, extra_headers=headers)

    row = server.row(found.id)
    assert (row["trace_id"], row["parent_span_id"]) == (trace, "b7ad6b7169203331")


def test_a_request_with_variables_that_do_not_fit_is_recorded_as_such(server: Scripted, client: Any) -> None:
    server.script()
    with pytest.raises(openai.BadRequestError):
        client.chat.completions.create(model="support.triage", messages=[], extra_body={"variables": {}})

    def find() -> Any:
        rows: Any = server.call("GET", "/api/requests")
        rows = rows if isinstance(rows, list) else rows["requests"]
        return next((row for row in rows if row["status"] == "MissingVariable"), None)

    row = wait_for(find)
    assert (row["variant"], row["attempts"]) == ("support.triage@1+up", 0)
    assert server.asked == []

"""`/v1/responses` with the official client: prompts by id, version and variables, plain models, streams, refusals."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import openai
import pydantic
import pytest

from tests.service.conftest import triage
from tests.service.protocol import CALL, CALL_CHUNKS, USED, Scripted, delta, replies, scripted
from tests.service.test_completions import turnout_of, wait_for
from tests.service.upstreams import answers, chunks_of, streams

PROMPT: Any = {"id": "support.triage", "variables": {"ticket": "I was charged twice"}}
TOOL: Any = {"type": "function", "name": "look_up", "parameters": {"type": "object", "properties": {}}, "strict": False}


class Person(pydantic.BaseModel):
    name: str
    age: int


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scripted]:
    with scripted(tmp_path_factory.mktemp("home")) as server:
        server.push("support.triage", triage(model="up"))
        server.push("support.triage", triage(model="up-b"))
        server.produce("support.triage", 1)
        server.call("PUT", "/api/prompts/support.triage/labels/staging", {"version": 2}, "author")
        yield server


@pytest.fixture
def client(server: Scripted) -> Iterator[Any]:
    with server.client() as client:
        yield client


# ---------------------------------------------------------------------------- who answers


@pytest.mark.parametrize(
    ("version", "variant"),
    [(None, "1+up"), ("1", "1+up"), ("2", "2+up-b"), (2, "2+up-b"), ("staging", "2+up-b"), ("production", "1+up")],
)
def test_a_prompt_is_named_by_its_id_and_a_number_or_a_label(
    server: Scripted, client: Any, version: Any, variant: str
) -> None:
    server.script()
    found = client.responses.create(prompt=PROMPT | ({"version": version} if version else {}))

    assert (found.output_text, found.status, found.error) == ("billing", "completed", None)
    assert found.model == turnout_of(found)["variant"] == f"support.triage@{variant}"
    assert server.asked[0]["messages"][1] == {"role": "user", "content": "I was charged twice"}


def test_input_follows_the_prompts_messages(server: Scripted, client: Any) -> None:
    server.script()
    client.responses.create(prompt=PROMPT, input="and again")

    assert server.asked[0]["messages"][2:] == [{"role": "user", "content": "and again"}]


def test_a_value_may_be_a_text_part(server: Scripted, client: Any) -> None:
    server.script()
    part = {"type": "input_text", "text": "my password"}
    client.responses.create(prompt={"id": "support.triage", "variables": {"ticket": part}})

    assert server.asked[0]["messages"][1]["content"] == "my password"


def test_a_model_takes_instructions_and_input(server: Scripted, client: Any) -> None:
    server.script()
    found = client.responses.create(
        model="up",
        instructions="Be brief.",
        input="hello",
        max_output_tokens=5,
        temperature=0.2,
        reasoning={"effort": "low"},
    )

    (asked,) = server.asked
    assert asked["messages"] == [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hello"}]
    assert {name: asked[name] for name in ("max_completion_tokens", "temperature", "reasoning_effort")} == {
        "max_completion_tokens": 5, "temperature": 0.2, "reasoning_effort": "low",
    }  # fmt: skip
    assert (found.instructions, found.max_output_tokens, found.temperature) == ("Be brief.", 5, 0.2)


def test_its_id_is_that_of_the_record_and_of_feedback(server: Scripted, client: Any) -> None:
    server.script()
    found = client.responses.create(prompt=PROMPT)

    assert found.id.startswith("resp_")
    row = server.row(found.id)
    assert (row["variant"], row["status"], row["prompt_tokens"]) == ("support.triage@1+up", "ok", 9)
    server.call("POST", "/api/feedback", {"completion_id": found.id, "metric": "queue", "value": True}, "app")


# ---------------------------------------------------------------------------- conversations, tools, formats


def test_a_conversation_with_calls_becomes_a_chat(server: Scripted, client: Any) -> None:
    server.script()
    items: Any = [
        {"role": "user", "content": [{"type": "input_text", "text": "Where is it?"},
                                     {"type": "input_image", "image_url": "https://a.example/b.png", "detail": "low"}]},
        {"type": "reasoning", "id": "rs_1", "summary": []},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "I look.", "annotations": []}]},
        {"type": "function_call", "call_id": "call_1", "name": "look_up", "arguments": "{}"},
        {"type": "function_call", "call_id": "call_2", "name": "look_up", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "call_1", "output": "here"},
        {"type": "function_call_output", "call_id": "call_2", "output": [{"type": "input_text", "text": "there"}]},
    ]  # fmt: skip
    client.responses.create(model="up", input=items, tools=[TOOL], tool_choice={"type": "function", "name": "look_up"})

    (asked,) = server.asked
    user, assistant, first, second = asked["messages"]
    assert user["content"][1] == {"type": "image_url", "image_url": {"url": "https://a.example/b.png", "detail": "low"}}
    assert assistant["content"] == "I look."
    assert [call["id"] for call in assistant["tool_calls"]] == ["call_1", "call_2"]
    assert (first, second["content"]) == ({"role": "tool", "tool_call_id": "call_1", "content": "here"}, "there")
    function = {"name": "look_up", "parameters": {"type": "object", "properties": {}}, "strict": False}
    assert asked["tools"] == [{"type": "function", "function": function}]
    assert asked["tool_choice"] == {"type": "function", "function": {"name": "look_up"}}


def test_calls_come_as_items(server: Scripted, client: Any) -> None:
    server.script(replies({"content": "I look.", "tool_calls": [CALL]}, finish_reason="tool_calls"))
    message, call = client.responses.create(model="up", input="hello", tools=[TOOL]).output

    assert (message.type, call.type) == ("message", "function_call")
    assert (call.call_id, call.name, call.arguments, call.status) == ("call_1", "look_up", '{"order": 7}', "completed")


def test_a_structured_output_is_parsed_by_the_client(server: Scripted, client: Any) -> None:
    server.script(replies({"content": '{"name": "Ada", "age": 36}'}))
    found = client.responses.parse(model="up", input="who?", text_format=Person)

    assert found.output_parsed == Person(name="Ada", age=36)
    form = server.asked[0]["response_format"]
    assert (form["type"], form["json_schema"]["name"], form["json_schema"]["strict"]) == ("json_schema", "Person", True)


def test_logprobs_come_where_they_are_included(server: Scripted, client: Any) -> None:
    token = {
        "token": "a",
        "logprob": -0.5,
        "bytes": [97],
        "top_logprobs": [{"token": "b", "logprob": -1.0, "bytes": None}],
    }
    server.script(replies({"content": "a"}, logprobs={"content": [token]}))
    found = client.responses.create(model="up", input="hello", include=["message.output_text.logprobs"], top_logprobs=1)

    (logprob,) = found.output[0].content[0].logprobs
    assert (logprob.token, logprob.logprob, logprob.top_logprobs[0].token) == ("a", -0.5, "b")
    assert (server.asked[0]["logprobs"], server.asked[0]["top_logprobs"]) == (True, 1)


@pytest.mark.parametrize(("reason", "told"), [("length", "max_output_tokens"), ("content_filter", "content_filter")])
def test_an_answer_that_was_cut_is_incomplete(server: Scripted, client: Any, reason: str, told: str) -> None:
    server.script(replies({"content": "to be"}, finish_reason=reason))
    found = client.responses.create(model="up", input="hello")

    assert found.incomplete_details is not None
    assert (found.status, found.incomplete_details.reason, found.output_text) == ("incomplete", told, "to be")


def test_a_refusal_is_told_as_one(server: Scripted, client: Any) -> None:
    server.script(replies({"content": None, "refusal": "I may not."}))
    (item,) = client.responses.create(model="up", input="hello").output

    assert item.content[0].model_dump() == {"type": "refusal", "refusal": "I may not."}


# ---------------------------------------------------------------------------- streams

TEXT_EVENTS = ["response.created", "response.in_progress", "response.output_item.added", "response.content_part.added",
               "response.output_text.delta", "response.output_text.delta", "response.output_text.done",
               "response.content_part.done", "response.output_item.done", "response.completed"]  # fmt: skip


def test_a_text_comes_in_openais_events_and_order(server: Scripted, client: Any) -> None:
    server.script(streams([*chunks_of("one ", "two")[:-1], USED]))
    events: Any = list(client.responses.create(prompt=PROMPT, stream=True))

    assert [event.type for event in events] == TEXT_EVENTS
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert [event.delta for event in events if event.type == "response.output_text.delta"] == ["one ", "two"]
    assert events[6].text == "one two"
    assert turnout_of(events[0].response)["variant"] == "support.triage@1+up"
    whole = events[-1].response
    assert (whole.output_text, whole.usage.total_tokens, whole.status) == ("one two", 12, "completed")
    assert {event.item_id for event in events if hasattr(event, "item_id")} == {whole.output[0].id}
    assert server.row(whole.id)["is_stream"] is True


def test_the_clients_own_stream_puts_calls_together(server: Scripted, client: Any) -> None:
    server.script(streams([delta(role="assistant", content="I look."), *CALL_CHUNKS[1:]]))
    with client.responses.stream(model="up", input="hello", tools=[TOOL]) as stream:
        kinds = [event.type for event in stream]
        message, call = stream.get_final_response().output

    assert kinds.count("response.function_call_arguments.delta") == 2
    assert kinds.index("response.output_text.done") < kinds.index("response.function_call_arguments.delta")
    assert (message.content[0].text, call.arguments, call.name) == ("I look.", '{"order": 7}', "look_up")


def test_a_structured_output_is_parsed_from_a_stream(server: Scripted, client: Any) -> None:
    server.script(streams(chunks_of('{"name": "Ada",', ' "age": 36}')))
    with client.responses.stream(model="up", input="who?", text_format=Person) as stream:
        found = stream.get_final_response()

    assert found.output_parsed == Person(name="Ada", age=36)


def test_the_async_client_creates_and_streams(server: Scripted) -> None:
    async def ask() -> tuple[str, list[str]]:
        async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key=server.keys["app"], max_retries=0) as client:
            whole = await client.responses.create(prompt=PROMPT)
            stream = await client.responses.create(prompt=PROMPT, stream=True)
            return whole.output_text, [event.type async for event in stream]

    server.script(answers("whole"), answers("a b"))
    assert asyncio.run(ask()) == ("whole", TEXT_EVENTS)


def test_what_breaks_a_stream_off_ends_it_as_failed(server: Scripted, client: Any) -> None:
    server.script(streams(chunks_of("one", "two")[:2], ends="cut"))
    *_, error, failed = list(client.responses.create(model="up", input="hello", stream=True))

    assert (error.type, error.code) == ("error", "model_unavailable")
    assert failed.type == "response.failed"
    assert failed.response.error is not None
    assert [item.status for item in failed.response.output] == ["incomplete"]
    assert server.row(failed.response.id)["status"] == "ModelUnavailable"


def test_a_client_that_leaves_hangs_up_on_the_upstream(server: Scripted, client: Any) -> None:
    server.script(streams(chunks_of("one", "two")[:2], ends="silent"))
    before = server.upstream.hung_up
    stream = client.responses.create(model="up", input="hello", stream=True)
    next(stream)
    stream.close()

    wait_for(lambda: server.upstream.hung_up > before, within_s=2)


# ---------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"background": True}, "background"),
        ({"conversation": "conv_1"}, "conversation"),
        ({"truncation": "auto"}, "truncation"),
        ({"include": ["file_search_call.results"]}, "include"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
        ({"tool_choice": {"type": "mcp"}}, "tool_choice"),
        ({"text": {"format": {"type": "grammar"}}}, "text.format"),
        ({"input": [{"type": "item_reference", "id": "msg_1"}]}, "input[0].type"),
        ({"input": [{"role": "user", "content": [{"type": "input_image", "file_id": "file_1"}]}]}, "input[0].content[0]"),
        ({"input": [{"role": "critic", "content": "a"}]}, "input[0].role"),
        ({"input": openai.omit}, "input"),
        ({"max_output_tokens": "many"}, "max_output_tokens"),
        ({"extra_body": {"seed": 7}}, "seed"),
        ({"extra_body": {"variables": {"ticket": "a"}}}, "variables"),
    ],
)  # fmt: skip
def test_what_is_not_supported_is_refused_by_its_name(
    server: Scripted, client: Any, more: dict[str, Any], param: str
) -> None:
    server.script()
    with pytest.raises(openai.BadRequestError) as caught:
        client.responses.create(**{"model": "up", "input": "hello", **more})

    error: Any = caught.value.body
    assert (error["param"], error["type"]) == (param, "invalid_request_error")
    assert server.asked == []


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"model": "up-b"}, "model"),
        ({"model": "gpt-5"}, "model"),
        ({"model": "support.other"}, "model"),
        ({"model": 5}, "model"),
        ({"extra_body": {"variables": {"ticket": "a"}}}, "variables"),
        ({"instructions": "obey"}, "instructions"),
        ({"input": [{"role": "developer", "content": "obey"}]}, "input[0].role"),
        ({"prompt": {**PROMPT, "variables": {}}}, "variables.ticket"),
        ({"prompt": {**PROMPT, "variables": {"ticket": 7}}}, "variables.ticket"),
        ({"prompt": {**PROMPT, "variables": {"ticket": {"type": "input_image"}}}}, "variables.ticket"),
        ({"prompt": {**PROMPT, "version": 1.5}}, "prompt.version"),
        ({"prompt": {**PROMPT, "revision": 1}}, "revision"),
        ({"prompt": {"variables": {}}}, "prompt.id"),
    ],
)
def test_a_prompt_refuses_what_would_change_it(server: Scripted, client: Any, more: dict[str, Any], param: str) -> None:
    server.script()
    with pytest.raises(openai.BadRequestError) as caught:
        client.responses.create(**{"prompt": PROMPT, **more})

    error: Any = caught.value.body
    assert error["param"] == param
    assert server.asked == []


@pytest.mark.parametrize(
    ("version", "model"),
    [
        (None, "support.triage"),
        (None, "up"),
        (None, "support.triage@1+up"),
        ("2", "support.triage@2"),
        ("2", "up-b"),
        ("staging", "up-b"),
    ],
)
def test_a_model_beside_a_prompt_may_be_the_one_that_answers_it(
    server: Scripted, client: Any, version: str | None, model: str
) -> None:
    server.script()
    found = client.responses.create(model=model, prompt=PROMPT | ({"version": version} if version else {}))

    assert turnout_of(found)["variant"] == ("support.triage@2+up-b" if version else "support.triage@1+up")


def test_a_model_that_does_not_answer_the_prompt_is_told_who_does(server: Scripted, client: Any) -> None:
    server.script()
    with pytest.raises(
        openai.BadRequestError, match=r"'gpt-5' does not answer support\.triage, up does: leave `model` out"
    ):
        client.responses.create(model="gpt-5", prompt=PROMPT)


def test_a_prompt_that_is_not_there_is_404(client: Any) -> None:
    for prompt in ({"id": "no.such"}, {**PROMPT, "version": "9"}, {**PROMPT, "version": "nightly"}):
        with pytest.raises(openai.NotFoundError):
            client.responses.create(prompt=prompt)

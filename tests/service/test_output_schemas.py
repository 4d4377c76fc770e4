"""A prompt's `jsonSchema` is held against its answers; with `repair`, one that does not fit is asked for again."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import openai
import pytest

from prompts.output import OutputCheck
from tests.service.conftest import triage
from tests.service.protocol import CALL, PERSON, Scripted, replies, scripted
from tests.service.test_completions import turnout_of
from tests.service.upstreams import chunks_of, streams

GOOD, BAD = '{"name": "Ada", "age": 36}', '{"name": "Ada"}'
STRUCTURED: dict[str, Any] = {"responseFormat": "json_schema", "jsonSchema": PERSON}
VARIABLES = {"variables": {"ticket": "who?"}}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scripted]:
    with scripted(tmp_path_factory.mktemp("home")) as server:
        for name, more in (("held", {}), ("repaired", {"repair": 2})):
            server.push(name, triage(model="priced", **STRUCTURED, **more))
            server.produce(name, 1)
        yield server


@pytest.fixture
def client(server: Scripted) -> Iterator[Any]:
    with server.client() as client:
        yield client


def ask(client: Any, model: str, **more: Any) -> Any:
    return client.chat.completions.create(model=model, messages=[], extra_body=VARIABLES, **more)


@pytest.mark.parametrize(("text", "is_valid"), [(GOOD, True), (BAD, False), ("Ada", False), ('{"name": NaN}', False)])
def test_without_repair_an_answer_is_delivered_and_says_whether_it_fits(
    server: Scripted, client: Any, text: str, is_valid: bool
) -> None:
    server.script(replies({"content": text}))
    found = ask(client, "held")

    assert found.choices[0].message.content == text
    assert turnout_of(found)["valid"] is is_valid
    assert "repairs" not in turnout_of(found)
    row = server.row(found.id)
    assert (row["is_valid"], row["status"]) == (is_valid, "ok")


def test_every_choice_is_held_against_the_schema(server: Scripted, client: Any) -> None:
    server.script(replies({"content": GOOD}, {"content": BAD}))
    assert turnout_of(ask(client, "held", n=2))["valid"] is False


def test_a_call_of_a_tool_is_not_judged(server: Scripted, client: Any) -> None:
    server.script(replies({"content": None, "tool_calls": [CALL]}, finish_reason="tool_calls"))
    found = ask(client, "repaired")

    assert "valid" not in turnout_of(found)
    assert server.row(found.id)["is_valid"] is None


def test_a_format_of_the_requests_own_takes_the_place_of_the_prompts(server: Scripted, client: Any) -> None:
    server.script(replies({"content": "Ada"}))
    found = ask(client, "repaired", response_format={"type": "text"})

    assert (found.choices[0].message.content, "valid" in turnout_of(found)) == ("Ada", False)


@pytest.mark.parametrize("form", [{"structured_outputs": {"choice": ["Ada", "Bob"]}}, {"guided_regex": "Ada|Bob"}])
def test_a_form_in_vllms_words_takes_the_place_of_the_prompts_format(
    server: Scripted, client: Any, form: dict[str, Any]
) -> None:
    server.script(replies({"content": "Ada"}))
    found = client.chat.completions.create(model="repaired", messages=[], extra_body={**VARIABLES, **form})

    (asked,) = server.asked
    assert {name: asked.get(name) for name in ("response_format", *form)} == {"response_format": None, **form}
    assert "valid" not in turnout_of(found)


@pytest.mark.parametrize(("text", "is_valid"), [(GOOD, True), (BAD, False)])
def test_a_stream_says_with_its_last_words_whether_they_fit(
    server: Scripted, client: Any, text: str, is_valid: bool
) -> None:
    server.script(streams(chunks_of(*text.split(" "))))
    chunks = list(ask(client, "held", stream=True))

    assert [chunk.model_extra["turnout"] for chunk in chunks[1:] if "turnout" in chunk.model_extra] == [
        {"valid": is_valid}
    ]
    assert chunks[-1].choices[0].finish_reason == "stop"
    assert server.row(chunks[0].id)["is_valid"] is is_valid


def test_an_answer_that_does_not_fit_is_asked_for_again_with_its_fault(server: Scripted, client: Any) -> None:
    server.script(replies({"content": BAD}), replies({"content": GOOD}))
    found = ask(client, "repaired")

    assert found.choices[0].message.content == GOOD
    assert (turnout_of(found)["valid"], turnout_of(found)["repairs"]) == (True, 1)
    assert (found.usage.prompt_tokens, found.usage.completion_tokens) == (18, 4)
    first, second = server.asked
    assert second["messages"][:-2] == first["messages"]
    assert second["messages"][-2] == {"role": "assistant", "content": BAD}
    assert "'age' is a required property" in second["messages"][-1]["content"]
    row = server.row(found.id)
    assert (row["is_valid"], row["attempts"], row["prompt_tokens"]) == (True, 2, 18)
    assert row["cost_usd"] == pytest.approx((18 * 1.0 + 4 * 2.0) / 1e6)


def test_after_the_last_repair_it_is_an_error_that_says_why(server: Scripted, client: Any) -> None:
    server.script(*[replies({"content": BAD})] * 3)
    with pytest.raises(openai.InternalServerError) as caught:
        ask(client, "repaired")

    error: Any = caught.value.body
    assert (caught.value.status_code, error["code"]) == (502, "schema_mismatch")
    assert "after 2 repairs: 'age' is a required property" in error["message"]
    assert len(server.asked) == 3


def test_a_stream_that_may_be_repaired_is_whole_before_it_begins(server: Scripted, client: Any) -> None:
    server.script(replies({"content": BAD}), replies({"content": GOOD}))
    chunks = list(ask(client, "repaired", stream=True, stream_options={"include_usage": True}))

    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == GOOD
    assert chunks[0].model_extra["turnout"] | {"digest": ""} == {
        "prompt": "repaired", "version": 1, "digest": "", "variant": "repaired@1+priced", "route_revision": 1,
        "valid": True, "repairs": 1,
    }  # fmt: skip
    assert chunks[-1].usage.total_tokens == 22
    row = server.row(chunks[0].id)
    assert (row["is_stream"], row["attempts"]) == (True, 2)


def test_responses_are_repaired_alike(server: Scripted, client: Any) -> None:
    server.script(replies({"content": BAD}), replies({"content": GOOD}))
    found = client.responses.create(prompt={"id": "repaired", **VARIABLES})

    assert found.output_text == GOOD
    assert (turnout_of(found)["valid"], turnout_of(found)["repairs"]) == (True, 1)


def test_a_long_answer_is_held_against_the_schema_off_the_event_loop(
    server: Scripted, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_loops: list[bool] = []
    check = OutputCheck.fault

    def watched(self: OutputCheck, text: str) -> str | None:
        on_loops.append(asyncio._get_running_loop() is not None)
        return check(self, text)

    monkeypatch.setattr(OutputCheck, "fault", watched)
    server.script(replies({"content": '{"name": "' + "a" * 20_000 + '", "age": 1}'}), replies({"content": GOOD}))
    turnouts = [turnout_of(ask(client, "held")) for _ in range(2)]

    assert [turnout["valid"] for turnout in turnouts] == [True, True]
    assert on_loops == [False, True]

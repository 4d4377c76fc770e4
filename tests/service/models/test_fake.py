from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from prompts.errors import ModelOverloaded
from prompts.messages import CompletionRequest, Message, Usage
from service.errors import BadSetting
from service.models.fake import FakeModel


def request(text: str) -> CompletionRequest:
    return CompletionRequest((Message("system", "Sort."), Message("user", text), Message("assistant", "ok")))


def said(model: FakeModel, text: str) -> str:
    return asyncio.run(model.complete(request(text))).text


def test_it_answers_alike_by_part_or_by_function() -> None:
    assert said(FakeModel("billing"), "x") == "billing"
    assert said(FakeModel({"invoice": "billing", "crash": "bug"}), "it will crash") == "bug"
    assert said(FakeModel({"invoice": "billing"}), "else") == ""
    assert said(FakeModel(lambda one: one.messages[0].content or ""), "x") == "Sort."


@pytest.mark.parametrize(
    ("config", "answer"),
    [
        ({"answers": {"red": "colour"}, "default": "none"}, "colour"),
        ({"answers": {"red": ["colour", "paint"]}}, "colour"),
        ({"answers": {"blue": "colour"}, "default": "none"}, "none"),
        ({"answers": {"blue": "colour"}, "echo": True}, "red car"),
        ({}, ""),
    ],
)
def test_it_is_made_from_config(config: dict[str, Any], answer: str) -> None:
    assert said(FakeModel.from_config(config), "red car") == answer


@pytest.mark.parametrize("config", [{"answer": "x"}, {"default": 1}, {"echo": "yes"}])
def test_a_bad_config_is_refused(config: dict[str, Any]) -> None:
    with pytest.raises(BadSetting, match=next(iter(config))):
        FakeModel.from_config(config)


def test_an_answer_that_is_a_list_is_taken_by_the_seed() -> None:
    model = FakeModel.from_config({"answers": {"red": ["colour", "paint", "hue"]}})
    asked = [CompletionRequest((Message("user", "red"),), {"seed": seed}) for seed in range(4)]
    assert [asyncio.run(model.complete(one)).text for one in asked] == ["colour", "paint", "hue", "colour"]


def test_it_embeds_texts_by_their_words() -> None:
    found = asyncio.run(FakeModel("").embed(["Red car", "car, red", "blue"], 1.0))
    first, same, other = found.vectors
    assert first == same
    assert sum(a * b for a, b in zip(first, other, strict=True)) == 0
    assert found.usage == Usage(5)


def test_it_fails_when_told_to() -> None:
    overloaded = ModelOverloaded("later", retry_after_s=1)
    with pytest.raises(ModelOverloaded):
        said(FakeModel("x", fail=overloaded), "a")
    sometimes = FakeModel("x", fail=lambda one: overloaded if one.messages[1].content == "a" else None)
    assert said(sometimes, "b") == "x"


def test_it_remembers_what_it_was_asked_and_counts_words() -> None:
    model = FakeModel("two words", remember=2)
    usage = asyncio.run(model.complete(request("a b"))).usage
    assert usage == Usage(4, 2)
    for text in ("c", "d"):
        said(model, text)
    assert [one.messages[1].content for one in model.asked] == ["c", "d"]


def test_a_stream_gives_the_words_and_what_they_took() -> None:
    async def main() -> None:
        model = FakeModel("it is  billing", chunk_s=0.05)
        started = time.monotonic()
        chunks = await model.stream(request("x"))
        assert time.monotonic() - started < 0.04
        found = [one async for one in chunks]
        assert time.monotonic() - started >= 0.2
        said = [one["choices"][0]["delta"].get("content") for one in found if one["choices"]]
        assert said == ["it", " is", "  billing", None]
        assert found[0]["choices"][0]["delta"]["role"] == "assistant"
        assert found[-2]["choices"][0]["finish_reason"] == "stop"
        assert found[-1]["usage"]["completion_tokens"] == 3
        await chunks.aclose()
        assert model.hung_up == 0

    asyncio.run(main())


def test_a_stream_fails_before_it_begins_or_after_some_words() -> None:
    async def main() -> None:
        with pytest.raises(ModelOverloaded):
            await FakeModel("a b", fail=ModelOverloaded("busy")).stream(request("x"))
        model = FakeModel("a b c", fail=ModelOverloaded("busy"), fail_after=2)
        chunks = aiter(await model.stream(request("x")))
        assert [(await anext(chunks))["choices"][0]["delta"]["content"] for _ in range(2)] == ["a", " b"]
        with pytest.raises(ModelOverloaded):
            await anext(chunks)

    asyncio.run(main())


def test_a_stream_that_is_not_read_to_its_end_is_hung_up_on() -> None:
    async def main() -> None:
        model = FakeModel("")
        chunks = await model.stream(request("x"))
        assert (await anext(aiter(chunks)))["choices"][0]["delta"]["content"] == ""
        await chunks.aclose()
        await chunks.aclose()
        assert model.hung_up == 1

    asyncio.run(main())

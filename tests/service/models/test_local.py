from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from prompts.errors import ModelOverloaded, ModelRefused, ModelUnavailable
from prompts.messages import Completion, CompletionRequest, Message
from service.completions import is_callers_fault
from service.engine.process import EngineAddress, EngineSpec
from service.errors import EngineFailed
from service.models import local
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


@pytest.fixture
def failing_starts(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """When engines were started, none of which comes to be."""
    starts: list[float] = []

    async def start(*_: object) -> EngineAddress:
        starts.append(time.monotonic())
        await asyncio.sleep(0.3)
        raise EngineFailed("the engine ended with 4 before it was ready (engine.log): no room")

    monkeypatch.setattr(local, "ensure_engine", start)
    return starts


def test_all_who_wait_for_one_start_share_its_failure_and_so_do_those_soon_after(
    failing_starts: list[float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(model: LocalModel) -> None:
        several = await asyncio.gather(*(model.complete(request()) for _ in range(8)), return_exceptions=True)
        with pytest.raises(EngineFailed, match="no room"):
            await model.complete(request())
        assert [type(one) for one in several] == [EngineFailed] * 8
        assert len(failing_starts) == 1
        monkeypatch.setattr(local, "_HELD_S", 0.0)
        with pytest.raises(EngineFailed, match="no room"):
            await model.complete(request())
        assert len(failing_starts) == 2

    with_model(EngineSpec("tiny", tmp_path, tmp_path), tmp_path / "run", scenario)


def test_a_request_waits_no_longer_than_its_time_for_an_engine_that_goes_on_to_start_for_others(
    failing_starts: list[float], tmp_path: Path
) -> None:
    async def scenario(model: LocalModel) -> None:
        patient = asyncio.create_task(model.complete(request()))
        await asyncio.sleep(0)
        with pytest.raises(ModelOverloaded, match="its engine is not there yet, and the request's time is over"):
            await model.complete(replace(request(), timeout_s=0.05))
        assert not patient.done()
        with pytest.raises(EngineFailed, match="no room"):
            await patient
        assert len(failing_starts) == 1

    with_model(EngineSpec("tiny", tmp_path, tmp_path), tmp_path / "run", scenario)


def test_who_waits_when_the_model_is_closed_is_told(failing_starts: list[float], tmp_path: Path) -> None:
    async def scenario(model: LocalModel) -> None:
        waiting = asyncio.create_task(model.complete(request()))
        await asyncio.sleep(0.05)
        await model.aclose()
        with pytest.raises(EngineFailed, match="given up while it started"):
            await waiting
        assert len(failing_starts) == 1

    with_model(EngineSpec("tiny", tmp_path, tmp_path), tmp_path / "run", scenario)


def test_a_missing_adapter_is_refused_not_answered_by_the_base(spec: EngineSpec, tmp_path: Path) -> None:
    async def scenario(model: LocalModel) -> None:
        with pytest.raises(ModelRefused, match=r"'green'.*is not a folder") as caught:
            await model.complete(request("green"))
        assert not is_callers_fault(caught.value)

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

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import stat
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from service.child import child_environment
from service.engine import process
from service.engine.process import (
    EngineAddress,
    EngineLease,
    EngineSpec,
    engine_environment,
    ensure_engine,
    is_alive,
    is_healthy,
)
from service.errors import EngineFailed


@pytest.fixture
def spec(tiny_folder: Path, adapters_dir: Path) -> EngineSpec:
    return EngineSpec("tiny", tiny_folder, adapters_dir, linger_s=0.2, device="cpu", threads=1)


@contextlib.asynccontextmanager
async def held_engine(spec: EngineSpec, run_dir: Path) -> AsyncIterator[EngineAddress]:
    address = await ensure_engine(spec, run_dir)
    async with EngineLease(address):
        yield address


async def call(address: EngineAddress, method: str, path: str, body: Any = None, **headers: str) -> Any:
    headers = headers or {"Authorization": f"Bearer {address.token}"}
    async with (
        aiohttp.ClientSession() as session,
        session.request(method, address.base_url + path, headers=headers, json=body) as reply,
    ):
        raw = await reply.read()
        return reply.status, json.loads(raw) if reply.content_type == "application/json" else raw.decode()


def chat(model: str = "tiny", **changes: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": "hello"}]
    return {"model": model, "messages": messages, "max_tokens": 6, "temperature": 0, **changes}


async def until(condition: Any, timeout_s: float = 10) -> None:
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "it did not come true in time"
        await asyncio.sleep(0.02)


def is_gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def test_an_engine_that_is_slow_to_say_so_is_not_taken_for_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[int] = []

    async def slowly(address: EngineAddress) -> bool:
        looks.append(address.pid)
        return len(looks) == 3

    monkeypatch.setattr(process, "is_healthy", slowly)
    assert asyncio.run(is_alive(EngineAddress("http://127.0.0.1:1", "t", os.getpid(), Path("log"))))
    looks.clear()
    assert not asyncio.run(is_alive(EngineAddress("http://127.0.0.1:1", "t", 2**22 + 1, Path("log"))))
    assert len(looks) == 1


def test_secrets_are_not_handed_to_the_child() -> None:
    given = {"OPENAI_API_KEY": "a", "hf_token": "b", "DB_PASSWORD": "c", "MY_SECRET": "d", "PATH": "/bin"}
    kept = child_environment(given)
    assert set(kept) == {"PATH", "OMP_WAIT_POLICY", "HF_HUB_OFFLINE", "TOKENIZERS_PARALLELISM", "PYTHONUNBUFFERED"}
    assert kept["OMP_WAIT_POLICY"] == "PASSIVE"


def test_an_engine_s_threads_wait_as_long_as_its_user_says_else_a_moment() -> None:
    assert engine_environment({}) == {**child_environment({}), "GOMP_SPINCOUNT": "1000"}
    assert engine_environment({"GOMP_SPINCOUNT": "7"})["GOMP_SPINCOUNT"] == "7"


@pytest.mark.integration
def test_one_engine_speaks_http_as_openai_and_vllm_do(spec: EngineSpec, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with held_engine(spec, tmp_path / "run") as address:
            await check_tokens(address)
            await check_chat(address)
            await check_adapters(address, spec)
            await check_refusals(address)
            await check_metrics(address)

    asyncio.run(scenario())


async def check_tokens(address: EngineAddress) -> None:
    for authorization in ("", "Bearer", "Bearer wrong", address.token):
        for method, path in (("GET", "/v1/models"), ("POST", "/v1/chat/completions"), ("GET", "/lease")):
            status, body = await call(
                address, method, path, chat() if method == "POST" else None, Authorization=authorization
            )
            assert (status, body["error"]["code"]) == (401, "invalid_api_key")
    status, body = await call(address, "GET", "/health", Authorization="")
    assert (status, body["status"]) == (200, "ok")
    assert body["tolerance"]["tiny"] >= 1e-4
    assert address.token not in json.dumps(body)


async def check_chat(address: EngineAddress) -> None:
    status, body = await call(address, "POST", "/v1/chat/completions", chat())
    assert status == 200
    assert body["object"] == "chat.completion"
    assert body["choices"][0]["message"]["role"] == "assistant"
    assert body["usage"]["prompt_tokens_details"]["cached_tokens"] == 0
    assert body["usage"]["total_tokens"] == body["usage"]["prompt_tokens"] + body["usage"]["completion_tokens"]
    assert body["turnout"] == {"asked_again": False}


async def check_adapters(address: EngineAddress, spec: EngineSpec) -> None:
    load, unload = "/v1/load_lora_adapter", "/v1/unload_lora_adapter"
    status, body = await call(address, "POST", "/v1/chat/completions", chat("red"))
    assert (status, body["error"]["code"]) == (404, "model_not_found")
    for _ in range(2):
        loaded = await call(address, "POST", load, {"lora_name": "red", "lora_path": str(spec.adapters_dir / "red")})
        assert loaded == (200, "Success: LoRA adapter 'red' added successfully.")
    answers = await asyncio.gather(
        *(call(address, "POST", "/v1/chat/completions", chat(model)) for model in ("tiny", "red"))
    )
    base, red = [body["choices"][0]["message"]["content"] for _, body in answers]
    assert base != red
    _, listed = await call(address, "GET", "/v1/models")
    assert [model["id"] for model in listed["data"]] == ["tiny", "red"]
    for path in ("../outside", str(spec.adapters_dir.parent / "outside")):
        status, body = await call(address, "POST", load, {"lora_name": "sly", "lora_path": path})
        assert (status, body["error"]["param"]) == (400, "lora_path")
    status, body = await call(address, "POST", load, {"lora_name": "tiny", "lora_path": "blue"})
    assert (status, body["error"]["param"]) == (400, "lora_name")
    assert (await call(address, "POST", unload, {"lora_name": "red"}))[0] == 200
    assert (await call(address, "POST", unload, {"lora_name": "red"}))[0] == 404
    assert (await call(address, "POST", "/v1/chat/completions", chat("red")))[0] == 404


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"temperature": -1}, "temperature"),
    ({"temperature": "hot"}, "temperature"),
    ({"top_p": 0}, "top_p"),
    ({"max_tokens": 0}, "max_tokens"),
    ({"n": 0}, "n"),
    ({"stream_options": {"include_usage": True}}, "stream_options"),
    ({"stop": ["a", "b", "c", "d", "e"]}, "stop"),
    ({"messages": []}, "messages"),
    ({"messages": [{"role": "god", "content": "x"}]}, "messages"),
    ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages"),
    ({"messages": [{"role": "user", "content": "x" * 3000}]}, "messages"),
    ({"response_format": {"type": "xml"}}, "response_format"),
    ({"best_of": 3}, "best_of"),
]


async def check_refusals(address: EngineAddress) -> None:
    for changes, param in REFUSED:
        status, body = await call(address, "POST", "/v1/chat/completions", chat(**changes))
        assert (status, body["error"]["param"]) == (400, param), body
        assert body["error"]["type"] == "invalid_request_error"


async def check_metrics(address: EngineAddress) -> None:
    status, text = await call(address, "GET", "/metrics")
    assert status == 200
    for name in (
        'requests_total{outcome="answered"} 3.0',
        'queue_length{priority="0"} 0.0',
        "batch_rows_count",
        "asked_again_share",
        'tolerance{adapter=""}',
        "prefix_cache_bytes",
        'prefix_lookups_total{outcome="hit"}',
    ):
        assert f"turnout_engine_{name}" in text


@pytest.mark.integration
def test_two_at_once_get_one_engine_and_it_exits_after_the_last_lease(spec: EngineSpec, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"

    async def scenario() -> None:
        first, second = await asyncio.gather(ensure_engine(spec, run_dir), ensure_engine(spec, run_dir))
        assert first == second
        assert stat.S_IMODE(run_dir.stat().st_mode) == 0o700
        assert stat.S_IMODE((run_dir / "engine-tiny.json").stat().st_mode) == 0o600
        assert not list(run_dir.glob("*/start.json"))
        assert first.token not in repr(first)
        one, other = EngineLease(first), EngineLease(first)
        await one.open()
        await other.open()
        await one.aclose()
        await asyncio.sleep(0.6)
        assert await is_healthy(first)
        await other.aclose()
        await until(lambda: is_gone(first.pid))
        with pytest.raises(EngineFailed, match="the engine is gone"):
            await one.open()

    asyncio.run(scenario())


@pytest.mark.integration
def test_a_killed_engine_is_replaced(spec: EngineSpec, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with held_engine(spec, tmp_path / "run") as first:
            os.kill(first.pid, signal.SIGKILL)
            await until(lambda: is_gone(first.pid))
        async with held_engine(spec, tmp_path / "run") as second:
            assert second.pid != first.pid
            assert (await call(second, "POST", "/v1/chat/completions", chat()))[0] == 200

    asyncio.run(scenario())


@pytest.mark.integration
def test_a_client_that_hangs_up_frees_its_place(spec: EngineSpec, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with held_engine(spec, tmp_path / "run") as address:
            long = asyncio.create_task(call(address, "POST", "/v1/chat/completions", chat(max_tokens=1900)))
            await asyncio.sleep(0.3)
            long.cancel()
            await asyncio.sleep(0.5)
            text = (await call(address, "GET", "/metrics"))[1]
            assert 'requests_total{outcome="cancelled"} 1.0' in text
            assert "live_requests 0.0" in text

    asyncio.run(scenario())


@pytest.mark.integration
def test_a_model_that_cannot_be_loaded_is_told_with_its_reason(spec: EngineSpec, tmp_path: Path) -> None:
    bad = EngineSpec("bad", tmp_path / "nowhere", spec.adapters_dir)
    with pytest.raises(EngineFailed, match=r"ended with 4 before it was ready(.|\n)*cannot be loaded"):
        asyncio.run(ensure_engine(bad, tmp_path / "run"))


@pytest.mark.integration
def test_a_state_file_of_another_process_is_not_believed(spec: EngineSpec, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"

    async def scenario() -> None:
        async with held_engine(spec, run_dir) as first:
            state = json.loads((run_dir / "engine-tiny.json").read_text())
            (run_dir / "engine-tiny.json").write_text(json.dumps({**state, "token": "stale"}))
            async with held_engine(spec, run_dir) as second:
                assert second.pid != first.pid

    asyncio.run(scenario())

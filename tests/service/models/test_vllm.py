"""Adapters of a vLLM server, on a server that keeps its adapters as vLLM does."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from prompts.errors import ModelRefused, ModelTimeout, ModelUnavailable
from prompts.messages import CompletionRequest, Message
from service.models.vllm import VllmModel


class Server:
    """Knows `base` and what was loaded; forgets all adapters when told to."""

    def __init__(self) -> None:
        self.loaded: dict[str, str] = {}
        self.loads = 0
        self.load_s = 0.0

    async def load(self, request: web.Request) -> web.Response:
        body = await request.json()
        self.loads += 1
        await asyncio.sleep(self.load_s)
        if body["lora_name"] in self.loaded:
            return web.json_response({"message": f"{body['lora_name']} has already been loaded"}, status=400)
        if "broken" in body["lora_name"]:
            return web.json_response({"message": "no such folder"}, status=400)
        self.loaded[body["lora_name"]] = body["lora_path"]
        return web.Response(text="Success")

    async def complete(self, request: web.Request) -> web.Response:
        name = (await request.json())["model"]
        if name != "base" and name not in self.loaded:
            return web.json_response({"error": {"message": f"no model {name}", "code": 404}}, status=404)
        return web.json_response({"choices": [{"message": {"role": "assistant", "content": f"by {name}"}}]})

    async def embed(self, request: web.Request) -> web.Response:
        return web.json_response({"data": [f"of {(await request.json())['model']}"]})


def on_server(test: Any) -> None:
    async def main() -> None:
        server = Server()
        app = web.Application()
        app.router.add_post("/v1/load_lora_adapter", server.load)
        app.router.add_post("/v1/chat/completions", server.complete)
        app.router.add_post("/v1/embeddings", server.embed)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        port = runner.addresses[0][1]
        model = VllmModel(f"http://127.0.0.1:{port}/v1", "base", None, Path("/shared/adapters"))
        try:
            await test(server, model)
        finally:
            await model.aclose()
            await runner.cleanup()

    asyncio.run(main())


def asked(adapter: str | None) -> CompletionRequest:
    return CompletionRequest((Message("user", "hi"),), {}, adapter)


def test_an_adapter_is_loaded_once_from_the_shared_folder():
    async def test(server: Server, model: VllmModel) -> None:
        assert (await model.complete(asked(None))).text == "by base"
        assert (await model.complete(asked("triage-1"))).text == "by triage-1"
        assert (await model.complete(asked("triage-1"))).text == "by triage-1"
        assert server.loaded == {"triage-1": "/shared/adapters/triage-1"}
        assert server.loads == 1

    on_server(test)


def test_a_restarted_server_is_given_its_adapter_again():
    async def test(server: Server, model: VllmModel) -> None:
        await model.complete(asked("triage-1"))
        server.loaded.clear()
        assert (await model.complete(asked("triage-1"))).text == "by triage-1"

    on_server(test)


def test_an_adapter_that_another_process_loaded_is_used():
    async def test(server: Server, model: VllmModel) -> None:
        server.loaded["triage-1"] = "/shared/adapters/triage-1"
        assert (await model.complete(asked("triage-1"))).text == "by triage-1"

    on_server(test)


def test_adapters_stream_and_embed_as_the_base_does():
    async def test(server: Server, model: VllmModel) -> None:
        for _ in range(2):
            chunks = [one async for one in await model.stream(asked("triage-1"))]
            assert chunks[0]["choices"][0]["delta"]["content"] == "by triage-1"
            server.loaded.clear()
        assert server.loads == 2
        assert (await model.embeddings({"input": "a"}, 1.0))["data"] == ["of base"]

    on_server(test)


def test_a_load_that_takes_too_long_is_a_timeout():
    async def test(server: Server, model: VllmModel) -> None:
        server.load_s = 5.0
        with pytest.raises(ModelTimeout, match=r"adapter 'triage-1': not loaded within 0\.1 s"):
            await model.complete(CompletionRequest((Message("user", "hi"),), {}, "triage-1", 0.1))

    on_server(test)


def test_an_adapter_that_cannot_be_loaded_is_an_error_and_never_the_base():
    async def test(server: Server, model: VllmModel) -> None:
        with pytest.raises(ModelRefused, match=r"'broken-1': HTTP 400: .*no such folder") as caught:
            await model.complete(asked("broken-1"))
        assert caught.value.status is None  # the operator's fault: a fallback may answer

    on_server(test)


def test_a_server_that_is_not_there_is_unavailable():
    async def main() -> None:
        model = VllmModel("http://127.0.0.1:9/v1", "base", None, Path("/shared"))
        with pytest.raises(ModelUnavailable, match="load_lora_adapter"):
            await model.complete(asked("triage-1"))
        await model.aclose()

    asyncio.run(main())

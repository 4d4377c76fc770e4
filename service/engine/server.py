"""The embedded engine's HTTP: OpenAI's chat completions and vLLM's adapters, on loopback, with a bearer token.

| route | what |
|---|---|
| `GET /health` | open to all: the engine's id, its tolerances, what waits |
| `GET /v1/models` | the base model and its adapters |
| `POST /v1/chat/completions` | answers, whole or as a stream (`chat`) |
| `POST /v1/load_lora_adapter`, `/v1/unload_lora_adapter` | as in vLLM |
| `GET /metrics` | Prometheus |
| `GET /memory` | what the engine holds of its device (`sharing`) |
| `GET /share` | an open stream for as long as something is trained there: the engine gives memory back |
| `GET /lease` | an open stream for as long as the engine is wanted |
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import json
import os
import re
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import torch
import uvicorn
from litestar import Litestar, Request, Response, get, post
from litestar.connection import ASGIConnection
from litestar.datastructures import State
from litestar.exceptions import NotAuthorizedException
from litestar.handlers import BaseRouteHandler
from litestar.response import Stream

from prompts.errors import BadInput
from service.engine import metrics, protocol
from service.engine.adapters import read_adapter
from service.engine.chat import chat
from service.engine.core import Generator
from service.engine.errors import body_of
from service.engine.leases import Leases
from service.engine.limits import Limits
from service.engine.model import LoadedModel, choose_device
from service.engine.sharing import Memory, Sharing
from service.engine.spec import EngineSpec, StartFile, engine_id
from service.engine.tolerances import Noises
from service.errors import CannotRun
from service.listening import listen

_ADAPTER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,127}")
_BODY_BYTES = 32 << 20
_LOOK_S = 0.25
_NOISES = "tolerances.json"  # beside the folders of this home's engines
Asked = Request[Any, Any, State]


def _require_token(connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler) -> None:
    given = connection.headers.get("authorization", "").encode("latin-1", "replace")
    if not handler.opt.get("open") and not hmac.compare_digest(given, connection.app.state.authorization):
        raise NotAuthorizedException("a bearer token is needed: the one the engine was started with")


@get("/health", opt={"open": True})
async def health(state: State) -> dict[str, Any]:
    generator: Generator = state.generator
    tolerances = {adapter or state.spec.alias: value for adapter, value in dict(generator.tolerances).items()}
    counters = generator.counters
    load = {"waiting": sum(counters.waiting.values()), "live": counters.live}
    return {"status": "ok", "engine_id": state.engine_id, "device": state.device, "tolerance": tolerances, **load}


@get("/v1/models")
async def models(state: State) -> dict[str, Any]:
    alias = state.spec.alias
    base = {"id": alias, "object": "model", "owned_by": "turnout", "root": str(state.spec.folder), "parent": None}
    loras = [{**base, "id": name, "root": name, "parent": alias} for name in state.generator.adapters]
    return {"object": "list", "data": [base, *loras]}


@post("/v1/load_lora_adapter", status_code=200)
async def load_lora_adapter(request: Asked, state: State) -> Response[str]:
    body = protocol.read_body(await request.body(), protocol.LoadBody)
    spec: EngineSpec = state.spec
    if not _ADAPTER_NAME.fullmatch(body.lora_name) or body.lora_name == spec.alias:
        raise BadInput(f"lora_name {body.lora_name[:140]!r} cannot name an adapter", param="lora_name")
    files = await asyncio.to_thread(read_adapter, body.lora_path, spec.adapters_dir, spec.folder)
    await asyncio.wrap_future(state.generator.load_adapter(body.lora_name, files))
    return Response(f"Success: LoRA adapter '{body.lora_name}' added successfully.", media_type="text/plain")


@post("/v1/unload_lora_adapter", status_code=200)
async def unload_lora_adapter(request: Asked, state: State) -> Response[str]:
    body = protocol.read_body(await request.body(), protocol.UnloadBody)
    await asyncio.wrap_future(state.generator.unload_adapter(body.lora_name))
    return Response(f"Success: LoRA adapter '{body.lora_name}' removed successfully.", media_type="text/plain")


@get("/metrics")
async def show_metrics(state: State) -> Response[bytes]:
    return Response(metrics.as_text(state.generator), media_type="text/plain; version=0.0.4; charset=utf-8")


@get("/memory")
async def memory(state: State) -> Memory:
    found: Memory = state.generator.memory()
    return found


@get("/share")
async def share(state: State) -> Stream:
    sharing: Sharing = state.sharing
    return Stream(sharing.take(), media_type="application/x-ndjson")


@get("/lease")
async def lease(state: State) -> Stream:
    leases: Leases = state.leases
    return Stream(leases.take(), media_type="text/plain")


def _on_error(_: Asked, error: Exception) -> Response[Any]:
    status, body, headers = body_of(error)
    return Response(body, status_code=status, headers=headers, media_type="application/json")


# ------------------------------------------------------------------------------------------------ running


def make_app(spec: EngineSpec, token: str, generator: Generator, leases: Leases, device: str) -> Litestar:
    state = {
        "spec": spec,
        "authorization": f"Bearer {token}".encode(),
        "engine_id": engine_id(token),
        "generator": generator,
        "leases": leases,
        "sharing": Sharing(generator),
        "device": device,
    }
    return Litestar(
        [health, models, chat, load_lora_adapter, unload_lora_adapter, show_metrics, memory, share, lease],
        guards=[_require_token],
        exception_handlers={Exception: _on_error},
        state=State(state),
        openapi_config=None,
        request_max_body_size=_BODY_BYTES,
    )


def serve(start: StartFile) -> None:
    """Load the model, say in the ready file where it listens, and answer until the last lease is closed."""
    spec = start.spec
    if spec.threads:
        torch.set_num_threads(spec.threads)
    device = choose_device(spec.device)
    model = LoadedModel(spec.folder, device)
    noises = Noises(model, start.ready_file.parent.parent / _NOISES)
    generator = Generator(model, Limits.for_device(device, spec.max_queue), noises)
    generator.start()
    leases = Leases(spec.linger_s)
    app = make_app(spec, start.token, generator, leases, str(device))
    server = uvicorn.Server(
        uvicorn.Config(app, log_config=None, access_log=False, lifespan="off", timeout_graceful_shutdown=1)
    )
    with listen("127.0.0.1", 0) as listening:
        asyncio.run(_serve(server, listening, leases, generator, start.ready_file))
    if not generator.alive:
        raise CannotRun("the generator ended by a fault of its own, told above")
    generator.stop()


async def _serve(
    server: uvicorn.Server, listening: socket.socket, leases: Leases, generator: Generator, ready_file: Path
) -> None:
    async with _ending(server, leases, generator):
        _say_ready(ready_file, listening.getsockname()[1])
        await server.serve([listening])


@contextlib.asynccontextmanager
async def _ending(server: uvicorn.Server, leases: Leases, generator: Generator) -> AsyncIterator[None]:
    def end() -> None:
        server.should_exit = True

    watching = [asyncio.create_task(leases.watch(end)), asyncio.create_task(_watch(generator, end))]
    try:
        yield
    finally:
        for task in watching:
            task.cancel()


async def _watch(generator: Generator, end: Callable[[], None]) -> None:
    """Without its thread an engine answers nothing: it ends, so that whoever wants it starts another."""
    while generator.alive:  # noqa: ASYNC110  # a thread that dies sets no event
        await asyncio.sleep(_LOOK_S)
    end()


def _say_ready(ready_file: Path, port: int) -> None:
    half = ready_file.with_suffix(".part")
    half.write_text(json.dumps({"base_url": f"http://127.0.0.1:{port}", "pid": os.getpid()}), "utf-8")
    half.replace(ready_file)

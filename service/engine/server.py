"""The embedded engine's HTTP: OpenAI's chat completions and vLLM's adapters, on loopback, with a bearer token.

| route | what |
|---|---|
| `GET /health` | open to all: the engine's id, its tolerances |
| `GET /v1/models` | the base model and its adapters |
| `POST /v1/chat/completions` | one answer; no streaming |
| `POST /v1/load_lora_adapter`, `/v1/unload_lora_adapter` | as in vLLM |
| `GET /metrics` | Prometheus |
| `GET /lease` | an open stream for as long as the engine is wanted |
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import json
import logging
import os
import re
import socket
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any, TypeVar

import torch
import uvicorn
from litestar import Litestar, Request, Response, get, post
from litestar.connection import ASGIConnection
from litestar.datastructures import State
from litestar.exceptions import HTTPException, NotAuthorizedException
from litestar.handlers import BaseRouteHandler
from litestar.response import Stream

from prompts.errors import BadInput, TurnoutError
from service.engine import metrics, protocol
from service.engine.adapters import read_adapter
from service.engine.asks import QueueFull, UnknownAdapter
from service.engine.core import Generator, Limits
from service.engine.leases import Closing, Leases
from service.engine.model import LoadedModel, choose_device
from service.engine.spec import EngineSpec, StartFile, engine_id
from service.errors import CannotRun
from service.listening import listen

_LOG = logging.getLogger(__name__)
_ADAPTER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,127}")
_BODY_BYTES = 32 << 20
_LOOK_S = 0.25
_Result = TypeVar("_Result")
Asked = Request[Any, Any, State]


class _HungUp(TurnoutError):
    """The client closed its connection before the answer was there."""


def _require_token(connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler) -> None:
    given = connection.headers.get("authorization", "").encode("latin-1", "replace")
    if not handler.opt.get("open") and not hmac.compare_digest(given, connection.app.state.authorization):
        raise NotAuthorizedException("a bearer token is needed: the one the engine was started with")


@get("/health", opt={"open": True})
async def health(state: State) -> dict[str, Any]:
    generator: Generator = state.generator
    tolerances = {adapter or state.spec.alias: value for adapter, value in dict(generator.tolerances).items()}
    return {"status": "ok", "engine_id": state.engine_id, "device": state.device, "tolerance": tolerances}


@get("/v1/models")
async def models(state: State) -> dict[str, Any]:
    alias = state.spec.alias
    base = {"id": alias, "object": "model", "owned_by": "turnout", "root": str(state.spec.folder), "parent": None}
    loras = [{**base, "id": name, "root": name, "parent": alias} for name in state.generator.adapters]
    return {"object": "list", "data": [base, *loras]}


@post("/v1/chat/completions", status_code=200)
async def chat(request: Asked, state: State) -> Response[Any]:
    generator: Generator = state.generator
    ask, model = protocol.read_ask(await request.body(), state.spec.alias, generator.adapters)
    answer = await _unless_hung_up(request, generator.submit(ask))
    return Response(protocol.make_reply(answer, model))


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


@get("/lease")
async def lease(state: State) -> Stream:
    leases: Leases = state.leases
    return Stream(leases.take(), media_type="text/plain")


async def _unless_hung_up(request: Asked, future: Future[_Result]) -> _Result:
    """The future's result; where the client closes its connection first, the request is dropped."""
    answered = asyncio.wrap_future(future)
    hung_up = asyncio.ensure_future(request.receive())  # after the body, the next event is the end of the connection
    either: set[asyncio.Future[Any]] = {answered, hung_up}
    try:
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if not answered.done():
            raise _HungUp("the client hung up")
        return answered.result()
    finally:
        answered.cancel()
        hung_up.cancel()


# ------------------------------------------------------------------------------------------------ errors


def _on_error(_: Asked, error: Exception) -> Response[Any]:
    status, code = _status(error)
    kind = "invalid_request_error" if status < 500 else "server_error"
    if status == 500:
        _LOG.error("a request failed", exc_info=error)
    message = getattr(error, "detail", "") or str(error) or type(error).__name__
    headers = {"Retry-After": str(error.retry_after_s)} if isinstance(error, QueueFull) else {}
    body = protocol.make_error(message, kind=kind, code=code, param=getattr(error, "param", None))
    return Response(body, status_code=status, headers=headers, media_type="application/json")


def _status(error: Exception) -> tuple[int, str | None]:
    if isinstance(error, HTTPException):
        return error.status_code, "invalid_api_key" if error.status_code == 401 else None
    known: tuple[tuple[type[Exception], int, str | None], ...] = (
        (UnknownAdapter, 404, "model_not_found"),
        (QueueFull, 429, "queue_full"),
        (BadInput, 400, None),
        (Closing, 503, "closing"),
        (_HungUp, 499, None),
    )
    return next(((status, code) for kind, status, code in known if isinstance(error, kind)), (500, None))


# ------------------------------------------------------------------------------------------------ running


def make_app(spec: EngineSpec, token: str, generator: Generator, leases: Leases, device: str) -> Litestar:
    state = {
        "spec": spec,
        "authorization": f"Bearer {token}".encode(),
        "engine_id": engine_id(token),
        "generator": generator,
        "leases": leases,
        "device": device,
    }
    return Litestar(
        [health, models, chat, load_lora_adapter, unload_lora_adapter, show_metrics, lease],
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
    generator = Generator(LoadedModel(spec.folder, device), Limits.for_device(device, spec.max_queue))
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

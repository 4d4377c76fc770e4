"""A model on this machine: the embedded engine, started when first asked and again when it died."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from dataclasses import dataclass, field, replace
from pathlib import Path

from prompts.errors import ModelRefused, ModelUnavailable
from prompts.messages import Completion, CompletionRequest
from service.engine.process import EngineAddress, EngineLease, EngineSpec, ensure_engine, is_healthy
from service.errors import EngineFailed
from service.models.openai import OpenAIModel

_MOST_DEATHS = 3  # within …
_DEATHS_S = 60.0
_LOAD_S = 120.0
_TRIES = 3  # to get a lease: an engine may exit between being found and being held


@dataclass(slots=True)
class _Connection:
    """One engine that is held, and the adapters known to be loaded in it."""

    address: EngineAddress
    lease: EngineLease
    model: OpenAIModel
    adapters: set[str] = field(default_factory=set)

    async def aclose(self) -> None:
        await self.model.aclose()
        await self.lease.aclose()


class LocalModel:
    """The base model of `spec.folder` and the adapters of `spec.adapters_dir`, answered by an engine below `run_dir`.

    An adapter is loaded when first asked for. Used on one event loop.
    """

    def __init__(self, spec: EngineSpec, run_dir: Path) -> None:
        self._spec = spec
        self._run_dir = run_dir
        self._connection: _Connection | None = None
        self._connecting = asyncio.Lock()
        self._loading = asyncio.Lock()
        self._deaths: deque[float] = deque(maxlen=_MOST_DEATHS)
        self._log: Path | None = None

    async def complete(self, request: CompletionRequest) -> Completion:
        """See `prompts.messages.Model`; asked again, once, where the engine died over it.

        Raises EngineFailed, naming the log, where the engine cannot be started or dies again and again.
        """
        started = time.monotonic()
        connection = await self._connected()
        try:
            completion = await self._ask(connection, request)
        except ModelUnavailable:
            if not await self._is_dead(connection):
                raise
            completion = await self._ask_last_time(await self._connected(), request)
        return replace(completion, latency_s=time.monotonic() - started)

    async def warm_up(self, adapter: str | None = None) -> None:
        """Start the engine, and load an adapter, before anyone waits for it."""
        connection = await self._connected()
        if adapter is not None:
            await self._load(connection, adapter)

    async def aclose(self) -> None:
        """Give the engine up; it exits once nobody else holds it. Safe to call twice."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.aclose()

    # ---------------------------------------------------------------------------- asking

    async def _ask(self, connection: _Connection, request: CompletionRequest) -> Completion:
        if request.adapter is None:
            return await connection.model.complete(request)
        await self._load(connection, request.adapter)
        try:
            return await connection.model.complete(request)
        except ModelRefused as error:
            if error.code != "model_not_found":
                raise
        connection.adapters.discard(request.adapter)  # another process may have unloaded it
        await self._load(connection, request.adapter)
        return await connection.model.complete(request)

    async def _ask_last_time(self, connection: _Connection, request: CompletionRequest) -> Completion:
        try:
            return await self._ask(connection, request)
        except ModelUnavailable as error:
            if not await self._is_dead(connection):
                raise
            log = connection.address.log
            raise EngineFailed(f"the engine of {self._spec.alias!r} died twice over one request; log: {log}") from error

    async def _load(self, connection: _Connection, adapter: str) -> None:
        async with self._loading:
            if adapter in connection.adapters:
                return
            body = {"lora_name": adapter, "lora_path": str(self._spec.adapters_dir.absolute() / adapter)}
            reply = await connection.model.post("/load_lora_adapter", body, _LOAD_S)
            if reply.status != 200:
                said = reply.body.decode("utf-8", "replace")
                raise ModelRefused(f"adapter {adapter!r}: {said[:500]}", status=reply.status)
            connection.adapters.add(adapter)

    # ---------------------------------------------------------------------------- the engine

    async def _connected(self) -> _Connection:
        async with self._connecting:
            if self._connection is None:
                self._refuse_after_deaths()
                self._connection = await self._connect()
            return self._connection

    async def _connect(self) -> _Connection:
        for last in (False,) * (_TRIES - 1) + (True,):
            address = await ensure_engine(self._spec, self._run_dir)
            lease = EngineLease(address)
            try:
                await lease.open()
            except EngineFailed:
                if last:
                    raise
                continue
            model = OpenAIModel(address.base_url + "/v1", self._spec.alias, address.token)
            return _Connection(address, lease, model)
        raise AssertionError("the last try returns or raises")

    async def _is_dead(self, connection: _Connection) -> bool:
        """Whether that engine is gone, and forgets it if so; of many requests that saw it die, the first counts."""
        async with self._connecting:
            if self._connection is not connection:
                return True
            if await is_healthy(connection.address):
                return False
            self._connection = None
            self._deaths.append(time.monotonic())
            self._log = connection.address.log
        await connection.aclose()
        return True

    def _refuse_after_deaths(self) -> None:
        if len(self._deaths) == _MOST_DEATHS and time.monotonic() - self._deaths[0] < _DEATHS_S:
            raise EngineFailed(
                f"the engine of {self._spec.alias!r} died {_MOST_DEATHS} times within {_DEATHS_S:.0f} s;"
                f" its log: {self._log}"
            )

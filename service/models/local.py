"""A model on this machine: the embedded engine, started when first asked and again when it died.

A request tells the engine what it is: one that nobody waits for (a case of a run) goes after those of applications, the
requests of one prompt share the engine fairly with others, and what was not answered in time is dropped there, too.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from prompts.errors import ModelOverloaded, ModelRefused, ModelUnavailable
from prompts.messages import Chunks, Completion, CompletionRequest
from service.engine.process import EngineAddress, EngineLease, EngineSpec, ensure_engine, is_alive
from service.errors import EngineFailed
from service.models.openai import OpenAIModel

_MOST_DEATHS = 3  # within …
_DEATHS_S = 60.0
_HELD_S = 5.0  # a start that failed is told to all who ask within it: another takes seconds, and fails as well
_LOAD_S = 120.0
_TRIES = 3  # to get a lease: an engine may exit between being found and being held
NOT_URGENT = 10  # the engine's priority of what nobody waits for
Answer = TypeVar("Answer", Completion, Chunks)
_Ask = Callable[[CompletionRequest], Awaitable[Answer]]


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
        self._starting: asyncio.Task[_Connection] | None = None
        self._failed: tuple[float, EngineFailed] | None = None
        self._loading = asyncio.Lock()
        self._deaths: deque[float] = deque(maxlen=_MOST_DEATHS)
        self._log: Path | None = None

    async def complete(self, request: CompletionRequest) -> Completion:
        """See `prompts.messages.Model`; asked again, once, where the engine died over it.

        Raises EngineFailed, naming the log, where the engine cannot be started or dies again and again, and
        ModelOverloaded where it takes longer to start than the request may: it goes on to start for others.
        """
        started = time.monotonic()
        completion = await self._asked(request, lambda model: model.complete)
        return replace(completion, latency_s=time.monotonic() - started)

    async def stream(self, request: CompletionRequest) -> Chunks:
        """See `prompts.messages.Streaming`; asked again as by `complete`, until the first chunk is there."""
        return await self._asked(request, lambda model: model.stream)

    async def warm_up(self, adapter: str | None = None) -> None:
        """Start the engine, and load an adapter, before anyone waits for it."""
        connection = await self._connected()
        if adapter is not None:
            await self._load(connection, adapter)

    async def aclose(self) -> None:
        """Give the engine up; it exits once nobody else holds it. Safe to call twice."""
        starting = self._starting
        if starting is not None:
            starting.cancel()
            await asyncio.wait([starting])
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.aclose()

    # ---------------------------------------------------------------------------- asking

    async def _asked(self, request: CompletionRequest, way: Callable[[OpenAIModel], _Ask[Answer]]) -> Answer:
        told, started = _told(request), time.monotonic()
        connection = await self._connected(request.timeout_s)
        try:
            return await self._ask(connection, told, way(connection.model))
        except ModelUnavailable:
            if not await self._is_dead(connection):
                raise
        connection = await self._connected(request.timeout_s - (time.monotonic() - started))
        return await self._ask_last_time(connection, told, way(connection.model))

    async def _ask(self, connection: _Connection, request: CompletionRequest, ask: _Ask[Answer]) -> Answer:
        if request.adapter is None:
            return await ask(request)
        await self._load(connection, request.adapter)
        try:
            return await ask(request)
        except ModelRefused as error:
            if error.code != "model_not_found":
                raise
        connection.adapters.discard(request.adapter)  # another process may have unloaded it
        await self._load(connection, request.adapter)
        return await ask(request)

    async def _ask_last_time(self, connection: _Connection, request: CompletionRequest, ask: _Ask[Answer]) -> Answer:
        try:
            return await self._ask(connection, request, ask)
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
                # No status: it is nothing that the caller can mend.
                raise ModelRefused(f"adapter {adapter!r}: {said[:500]}")
            connection.adapters.add(adapter)

    # ---------------------------------------------------------------------------- the engine

    async def _connected(self, within_s: float | None = None) -> _Connection:
        """The engine, started where none is there. All who wait meanwhile wait for one start, and share its failure."""
        try:
            async with asyncio.timeout(within_s):
                async with self._connecting:
                    if self._connection is not None:
                        return self._connection
                    if self._starting is None:
                        self._refuse_for_now()
                        self._starting = asyncio.create_task(self._start())
                        self._starting.add_done_callback(_retrieve)
                    starting = self._starting
                return await asyncio.shield(starting)  # who hangs up ends no start that others wait for
        except TimeoutError as error:
            raise ModelOverloaded(  # an engine that is being started is no failure: it is to be asked later
                f"local model {self._spec.alias!r}: its engine is not there yet, and the request's time is over;"
                " ask again, or give the request more time",
                retry_after_s=_HELD_S,
            ) from error

    async def _start(self) -> _Connection:
        try:
            self._connection = await self._connect()
        except EngineFailed as error:
            self._failed = time.monotonic(), error
            raise
        except asyncio.CancelledError as error:
            raise EngineFailed(f"the engine of {self._spec.alias!r} was given up while it started") from error
        finally:
            self._starting = None
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
            model = OpenAIModel(
                address.base_url + "/v1", self._spec.alias, address.token, called=f"local model {self._spec.alias!r}"
            )
            return _Connection(address, lease, model)
        raise AssertionError("the last try returns or raises")

    async def _is_dead(self, connection: _Connection) -> bool:
        """Whether that engine is gone, and forgets it if so; of many requests that saw it die, the first counts."""
        async with self._connecting:
            if self._connection is not connection:
                return True
            if await is_alive(connection.address):
                return False
            self._connection = None
            self._deaths.append(time.monotonic())
            self._log = connection.address.log
        await connection.aclose()
        return True

    def _refuse_for_now(self) -> None:
        if self._failed is not None and time.monotonic() - self._failed[0] < _HELD_S:
            raise EngineFailed(str(self._failed[1])) from self._failed[1]
        if len(self._deaths) == _MOST_DEATHS and time.monotonic() - self._deaths[0] < _DEATHS_S:
            raise EngineFailed(
                f"the engine of {self._spec.alias!r} died {_MOST_DEATHS} times within {_DEATHS_S:.0f} s;"
                f" its log: {self._log}"
            )


def _told(request: CompletionRequest) -> CompletionRequest:
    """`request` with what the engine is to know of it; a prompt's own parameters of these names come first."""
    told: dict[str, Any] = {"timeout_s": request.timeout_s}
    if not request.is_urgent:
        told["priority"] = NOT_URGENT
    if request.flow:
        told["prompt_cache_key"] = request.flow
    return replace(request, parameters={**told, **request.parameters})


def _retrieve(starting: asyncio.Task[_Connection]) -> None:
    """Whoever waited may have left: then nobody is told why the start failed, and the next one is."""
    if not starting.cancelled():
        starting.exception()

"""What an engine holds of its device, and how it gives some of it back while something is trained there.

A training takes an open stream, as a lease is: the engine keeps a part of its reserve for as long as the stream is open and
takes the rest again when it closes, by intent or because the process behind it died.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass
from typing import Protocol

_LOG = logging.getLogger(__name__)
_BEAT_S = 10.0


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes on the engine's device: of weights and adapters, of answers under way, of prefixes, and what the last two may take."""

    device: str
    weights_bytes: int
    answers_bytes: int
    answers_limit_bytes: int
    prefixes_bytes: int
    prefixes_limit_bytes: int

    @property
    def reserve_bytes(self) -> int:
        return self.answers_limit_bytes + self.prefixes_limit_bytes


class Holder(Protocol):
    """Who holds the memory: the generator."""

    def memory(self) -> Memory: ...

    async def limit(self, *, shared: bool) -> None:
        """Keep to a part of the reserve, or take all of it again."""
        ...


class Sharing:
    """Trainings that share the device now. Used on one event loop."""

    def __init__(self, holder: Holder) -> None:
        self.open = 0
        self._holder = holder
        self._changing = asyncio.Lock()

    async def take(self) -> AsyncIterator[bytes]:
        """A line of JSON (`Memory`, `given_back_bytes`) once memory is given back, then a beat now and then."""
        self.open += 1
        try:
            before = self._holder.memory()
            await self._settle()
            after = self._holder.memory()
            given_back = before.reserve_bytes - after.reserve_bytes
            _LOG.info("a training shares the device: %d bytes of the reserve are given back", given_back)
            yield json.dumps({**asdict(after), "given_back_bytes": given_back}).encode() + b"\n"
            while True:
                await asyncio.sleep(_BEAT_S)
                yield b"\n"
        finally:
            self.open -= 1
            # In a task of its own: this one is being cancelled where the client died.
            self._settling = asyncio.ensure_future(self._settle())

    async def _settle(self) -> None:
        async with self._changing:
            await self._holder.limit(shared=self.open > 0)

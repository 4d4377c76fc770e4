"""What a run leaves behind while it goes on: results and completions written beside the loop that asks, many at a time.

Completions that were kept before are looked up in the same manner: all questions that wait are looked up together.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import operator
from collections.abc import Awaitable, Mapping, Sequence
from typing import Any

from prompts.errors import TurnoutError
from prompts.messages import Completion, Usage
from service.ids import now
from service.store import runs
from service.store.database import Database
from suites.results import CaseResult, usage_data

MOST_WAITING = 250  # results, before the loop waits for the database
GATHERED_S = 0.01  # what comes so soon after a result is written with it: a commit takes as much as a hundred rows
Fresh = tuple[str, dict[str, Any]]  # the key of a completion that was just asked for, and its data


class Recorder:
    """Writes results as they come, those of a hundredth of a second in one transaction."""

    def __init__(self, database: Database, run_id: str) -> None:
        self._database = database
        self._run_id = run_id
        self._waiting: list[tuple[CaseResult, Sequence[Fresh]]] = []
        self._wake = asyncio.Event()
        self._has_room = asyncio.Event()
        self._closing = False
        self._task: asyncio.Task[None] | None = None

    def add(self, result: CaseResult, fresh: Sequence[Fresh]) -> Awaitable[object] | None:
        """Take one result and what was asked for it; what it returns is to be awaited where too many wait.

        Raises what the database raised on an earlier one, which ends the run.
        """
        if self._task is not None and self._task.done():
            self._task.result()
        self._waiting.append((result, fresh))
        self._wake.set()
        if len(self._waiting) < MOST_WAITING:
            return None
        self._has_room.clear()
        return self._has_room.wait()

    async def __aenter__(self) -> Recorder:
        self._task = asyncio.create_task(self._drain())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._closing = True
        self._wake.set()
        if self._task is not None:
            await self._task

    async def _drain(self) -> None:
        try:
            while not (self._closing and not self._waiting):
                await self._wake.wait()
                if not self._closing:
                    await asyncio.sleep(GATHERED_S)
                self._wake.clear()
                batch, self._waiting = self._waiting, []
                self._has_room.set()
                if batch:
                    await asyncio.to_thread(self._write, batch)
        finally:
            self._has_room.set()

    def _write(self, batch: list[tuple[CaseResult, Sequence[Fresh]]]) -> None:
        asked = [(result, fresh) for result, fresh in batch if result.status != "skipped" or result.is_open]
        kept = [one for _, fresh in asked for one in fresh]  # of errored ones, too: they were paid for
        with self._database.write() as session:
            runs.add_cases(session, self._run_id, [result.as_dict() for result, _ in asked])
            runs.remember(session, kept, now())


class CompletionCache:
    """Completions of earlier runs by the digest of all that they depend on."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._asked: dict[str, asyncio.Future[str | None]] = {}
        self._task: asyncio.Task[None] | None = None

    def holds_any(self) -> bool:
        """Whether there is anything to be found."""
        with self._database.read() as session:
            return runs.has_cached(session)

    async def get(self, key: str) -> Completion | None:
        """The completion behind `key`; whoever asks while the database is being read is answered by its next read."""
        future = self._asked.setdefault(key, asyncio.get_running_loop().create_future())
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._read_all())
        found = await asyncio.shield(future)
        return completion_from(json.loads(found)) if found else None

    async def _read_all(self) -> None:
        while self._asked:
            asked, self._asked = self._asked, {}
            try:
                found = await asyncio.to_thread(self._read, list(asked))
            except (TurnoutError, OSError, ValueError) as error:  # the outcome of those cases
                for future in asked.values():
                    future.set_exception(error)
                    future.exception()  # seen: whoever waited may have been cancelled
                continue
            for key, future in asked.items():
                future.set_result(found.get(key))

    def _read(self, keys: list[str]) -> dict[str, str]:
        with self._database.read() as session:
            return runs.cached(session, keys)


def completion_data(completion: Completion) -> dict[str, Any]:
    """A completion as plain data, for the cache."""
    data = dict(zip(_FIELDS, _values(completion), strict=True))
    data |= {"usage": usage_data(completion.usage), "message": dict(completion.message)}
    data |= {"details": dict(completion.details), "extra": dict(completion.extra)}
    return data


_FIELDS = tuple(field.name for field in dataclasses.fields(Completion))
_values = operator.attrgetter(*_FIELDS)


def completion_from(data: Mapping[str, Any]) -> Completion:
    """The completion that `completion_data` was taken from."""
    made = {"usage": Usage(**data["usage"]), "choices": tuple(data.get("choices", ()))}
    return Completion(**{**data, **made})

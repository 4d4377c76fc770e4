"""A real server whose models are a scripted upstream, both on loopback: what tests of the protocol talk to."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tests.service.conftest import make_settings
from tests.service.test_completions import Server, wait_for
from tests.service.upstreams import Act, Asked, Upstream, http

PERSON = {"type": "object", "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
          "required": ["name", "age"], "additionalProperties": False}  # fmt: skip


class Scripted(Server):
    """The server, and the upstream that every model but `dead` is."""

    upstream: Upstream

    def row(self, completion_id: str) -> dict[str, Any]:
        """The row of the request log, once it is there."""

        def find() -> dict[str, Any] | None:
            rows: Any = self.call("GET", "/api/requests")
            rows = rows if isinstance(rows, list) else rows["requests"]
            return next((row for row in rows if row["id"] == completion_id), None)

        found: dict[str, Any] = wait_for(find)
        return found

    def script(self, *acts: Act) -> None:
        """What happens with the next questions; what was asked before is forgotten."""
        self.upstream.acts.clear()
        self.upstream.acts.extend(acts)
        self.upstream.asked.clear()

    @property
    def asked(self) -> list[Mapping[str, Any]]:
        """The bodies of the questions that came to the upstream."""
        return [asked.body for asked in self.upstream.asked]


@contextlib.contextmanager
def scripted(home: Path, **more: Any) -> Iterator[Scripted]:
    """A server with the models `up`, `up-b` and `gpt-4o-mini` (the same upstream), `priced`, and `dead`, where nobody listens."""
    with _running_upstream() as upstream:
        at = {"engine": "openai", "base_url": upstream.base_url, "timeout_s": 10}
        dead = {"engine": "openai", "base_url": "http://127.0.0.1:9/v1"}
        price = {"input_per_mtok": 1.0, "output_per_mtok": 2.0}
        models = {"gpt-4o-mini": at, "up": at, "up-b": at, "priced": {**at, "price": price}, "dead": dead}
        server = Scripted(make_settings(home, models=models, **more))
        server.upstream = upstream
        with server.running():
            yield server


@contextlib.contextmanager
def _running_upstream() -> Iterator[Upstream]:
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    upstream = Upstream()
    try:
        asyncio.run_coroutine_threadsafe(upstream.__aenter__(), loop).result(10)
        yield upstream
        asyncio.run_coroutine_threadsafe(upstream.__aexit__(), loop).result(10)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def replies(*messages: Mapping[str, Any], finish_reason: str = "stop", **of_choice: Any) -> Act:
    """A completion whose choices are these messages."""
    choices = [
        {"index": index, "message": {"role": "assistant", **message}, "finish_reason": finish_reason, **of_choice}
        for index, message in enumerate(messages)
    ]
    usage = {
        "prompt_tokens": 9,
        "completion_tokens": 2,
        "total_tokens": 11,
        "prompt_tokens_details": {"cached_tokens": 4},
    }
    body = {"id": "up-1", "object": "chat.completion", "model": "up", "choices": choices, "usage": usage}

    async def act(asked: Asked) -> None:
        await asked.send(http(200, json.dumps(body).encode()))

    return act


def delta(finish_reason: str | None = None, index: int = 0, logprobs: Any = None, **delta: Any) -> dict[str, Any]:
    """One chunk of a stream."""
    choice = {"index": index, "delta": delta, "finish_reason": finish_reason, "logprobs": logprobs}
    return {"id": "up-1", "object": "chat.completion.chunk", "created": 1, "model": "up", "choices": [choice]}


USED = {"id": "up-1", "object": "chat.completion.chunk", "created": 1, "model": "up", "choices": [],
        "usage": {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12}}  # fmt: skip
CALL = {"id": "call_1", "type": "function", "function": {"name": "look_up", "arguments": '{"order": 7}'}}
CALL_CHUNKS = (
    delta(role="assistant", content=None),
    delta(
        tool_calls=[{"index": 0, "id": "call_1", "type": "function", "function": {"name": "look_up", "arguments": ""}}]
    ),
    delta(tool_calls=[{"index": 0, "function": {"arguments": '{"order"'}}]),
    delta(tool_calls=[{"index": 0, "function": {"arguments": ": 7}"}}]),
    delta("tool_calls"),
    USED,
)
_PARAMETERS = {"type": "object", "properties": {"order": {"type": "integer"}}}
TOOLS = [{"type": "function", "function": {"name": "look_up", "parameters": _PARAMETERS}}]

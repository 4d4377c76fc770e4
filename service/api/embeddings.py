"""`POST /v1/embeddings`: OpenAI's embeddings, passed through to a model alias."""

from __future__ import annotations

import base64
import struct
import time
from collections.abc import Mapping
from typing import Any

from prompts.errors import BadInput
from service.api.exchange import JSON, Exchange, encode
from service.api.fields import given, needed, refuse_unknown
from service.api.replaying import replayed
from service.pending import Caller
from service.replays import Answer

_PASSED_ON = frozenset({"input", "dimensions", "encoding_format", "user"})
_FORMATS = (None, "float", "base64")


async def embeddings(exchange: Exchange) -> None:
    """Vectors of texts from a model alias. A prompt has none: it is refused as a model that there is not."""
    started = time.perf_counter()
    body = await exchange.json()
    refuse_unknown(body, _PASSED_ON | {"model"})
    alias, form = needed(body, "model", str), given(body, "encoding_format", str)
    if body.get("input") in (None, "", []):
        raise BadInput("input: expected a text or a list of texts, found nothing", param="input")
    if form not in _FORMATS:
        raise BadInput(f"encoding_format: expected float or base64, found {form[:40]!r}", param="encoding_format")
    passed = {name: value for name, value in body.items() if name in _PASSED_ON and value is not None}
    caller = Caller(exchange.principal, started, "embd-", exchange.trace())

    async def embedded() -> Answer:
        embedding_id, reply = await exchange.context.completions.embed(alias, passed, caller)
        shown = {**reply, "model": alias, "data": _in_form(reply.get("data"), form)}
        headers = ((b"x-turnout-variant", alias.encode()), (b"x-turnout-completion-id", embedding_id.encode()))
        return Answer(encode(shown), (JSON, *headers))

    with exchange.cancelled_when_hung_up():
        answer = await replayed(exchange, embedded)
        await exchange.reply(answer.body, answer.headers)


def _in_form(data: Any, form: str | None) -> Any:
    """The vectors as they were asked for: clients ask for base64 (little-endian float32), which not every server gives."""
    if form != "base64" or not isinstance(data, list):
        return data
    return [_as_base64(item) if isinstance(item, Mapping) else item for item in data]


def _as_base64(item: Mapping[str, Any]) -> Mapping[str, Any]:
    vector = item.get("embedding")
    if not isinstance(vector, list):
        return item
    return {**item, "embedding": base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()}

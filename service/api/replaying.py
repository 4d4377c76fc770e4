"""Idempotency-Key on completions: the same key and body get the same bytes again, and the model is asked once."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from hashlib import blake2b

from prompts.errors import BadInput
from service.api.exchange import Exchange
from service.api.idempotency import MAX_KEY_LENGTH
from service.replays import Answer

REPLAYED = (b"x-turnout-replayed", b"true")


async def replayed(exchange: Exchange, make: Callable[[], Awaitable[Answer]]) -> Answer:
    """What `make` answers, or what it answered before to the same Idempotency-Key and body of the same API key.

    Raises IdempotencyMismatch where the key came with another body, and whatever `make` raises: that is not kept.
    """
    given = exchange.header(b"idempotency-key")
    if not given:
        return await make()
    if len(given) > MAX_KEY_LENGTH:
        raise BadInput(f"an Idempotency-Key has 1 to {MAX_KEY_LENGTH} characters, this one has {len(given)}")
    replays, key = exchange.context.replays, (exchange.principal.id, exchange.scope["path"], given)
    before = await replays.begin(key, blake2b(exchange.body, digest_size=16).digest())
    if before is not None:
        return Answer(before.body, (*before.headers, REPLAYED))
    answer = None
    try:
        answer = await make()
        return answer
    finally:
        replays.end(key, answer, len(answer.body) if answer else 0)


def refuse_replay_of_stream(exchange: Exchange) -> None:
    """A stream is not kept. Raises BadInput, so that nobody relies on it."""
    if exchange.header(b"idempotency-key"):
        raise BadInput("an Idempotency-Key and `stream` do not go together: a stream is not kept to be given again")

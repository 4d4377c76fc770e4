"""A streamed answer of an OpenAI-compatible server, chunk by chunk."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Mapping
from typing import Any, TypeGuard

from prompts.errors import ModelError, ModelOverloaded, ModelRefused, ModelTimeout, ModelUnavailable
from service.models.openai_replies import Place, json_object, parts_of
from service.upstream.http import OpenReply
from service.upstream.sse import EventReader, EventTooLong

_DONE = b"[DONE]"


class StreamedChunks:
    """See `prompts.messages.Chunks`.

    A stream is complete with `[DONE]`, or where it ends as its framing says after a choice told why it finished. One
    that ends otherwise, falls silent beyond the time of its question, or says an error, raises.
    """

    attempts = 1

    def __init__(self, reply: OpenReply, place: Place, timeout_s: float) -> None:
        self._reply = reply
        self._place = place
        self._timeout_s = timeout_s
        self._events = EventReader()
        self._waiting: deque[bytes] = deque()
        self._first: Mapping[str, Any] | None = None
        self._given = 0
        self._has_finished = False
        self._is_over = False

    async def begin(self) -> None:
        """Read the first chunk, to be given later. Raises as `Model.complete`; the connection is then closed."""
        try:
            self._first = await self._next()
        except StopAsyncIteration:
            raise self._cut("ended without a chunk") from None
        except BaseException:
            await self.aclose()
            raise

    def __aiter__(self) -> AsyncIterator[Mapping[str, Any]]:
        return self

    async def __anext__(self) -> Mapping[str, Any]:
        first, self._first = self._first, None
        if first is not None:
            return first
        return await self._next()

    async def aclose(self) -> None:
        """Hang up, unless all was read. Safe to call twice."""
        self._is_over = True
        self._reply.close()

    async def _next(self) -> Mapping[str, Any]:
        while True:
            if self._is_over:
                raise StopAsyncIteration
            if not self._waiting:
                try:
                    await self._read_on()
                except BaseException:
                    await self.aclose()
                    raise
                continue
            event = self._waiting.popleft()
            if event != _DONE:
                return self._chunk(event)
            self._is_over = True
            self._reply.finish()

    async def _read_on(self) -> None:
        try:
            data = await self._reply.some()
            if data:
                self._waiting.extend(self._events.feed(data))
                return
        except TimeoutError as error:
            raise ModelTimeout(self._said(f"did not end within {self._timeout_s:g} s")) from error
        except EventTooLong as error:
            raise ModelUnavailable(self._said(str(error))) from error
        except OSError as error:
            raise self._cut(self._place.clean(str(error) or type(error).__name__)) from error
        if self._events.pending().strip() != _DONE and not self._has_finished:
            raise self._cut("ended without [DONE]")
        self._is_over = True
        self._reply.close()

    def _chunk(self, event: bytes) -> Mapping[str, Any]:
        chunk = json_object(event)
        choices = chunk.get("choices")
        if not _are_choices(choices) or ("error" in chunk and not choices):
            self._is_over = True
            self._reply.close()
            if "error" in chunk:
                raise self._told(chunk["error"])
            raise self._place.no_completion("not a chunk of a chat completion", event, "text/event-stream")
        self._has_finished = self._has_finished or any(choice.get("finish_reason") for choice in choices)
        self._given += 1
        return chunk

    def _told(self, error: Any) -> ModelError:
        """An error that comes as an event: the status was sent long before."""
        message, code, param = parts_of(error)
        said = self._said(f"told an error: {self._place.clean(message)}")
        if isinstance(error, dict) and error.get("type") == "invalid_request_error":
            return ModelRefused(said, status=400, code=code, param=param)  # what is wrong with the request showed late
        return ModelOverloaded(said) if code in ("429", "503") else ModelUnavailable(said)

    def _cut(self, why: str) -> ModelUnavailable:
        return ModelUnavailable(self._said(why))

    def _said(self, what: str) -> str:
        return f"{self._place.shown}: the stream, after {self._given} chunks: {what}"


def _are_choices(given: Any) -> TypeGuard[list[dict[str, Any]]]:
    """A list of objects whose deltas, where they have one, are objects."""
    return isinstance(given, list) and all(
        isinstance(choice, dict) and isinstance(choice.get("delta") or {}, dict) for choice in given
    )

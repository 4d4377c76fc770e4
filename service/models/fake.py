"""A model that answers what it is told to: for tests, and for trying prompts and suites without a model."""

from __future__ import annotations

import asyncio
import json
import re
import time
import zlib
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from prompts.errors import ModelError
from prompts.messages import Chunks, Completion, CompletionRequest, Usage
from service.errors import BadSetting
from service.models.embedding import Embeddings
from service.upstream.whole import chunks_of

Answer = Callable[[CompletionRequest], str] | Mapping[str, str] | str
T = TypeVar("T")
DIMENSIONS = 256
_WORD = re.compile(r"\w+")
Fail = Callable[[CompletionRequest], ModelError | None] | ModelError | None


class FakeModel:
    """Answers by a function, by a mapping from a part of the last user message (the first that fits), or always alike.

    It waits `latency_s` before each answer and raises `fail`, or what `fail` gives for a request; with `fail_after`, a
    stream raises it only after that many words. A stream gives a word a chunk and waits `chunk_s` before each but the
    first. Requests are kept in `asked`, the last `remember` of them; `hung_up` counts streams that were not read whole.
    """

    def __init__(
        self,
        answer: Answer,
        latency_s: float = 0,
        fail: Fail = None,
        *,
        remember: int = 10_000,
        chunk_s: float = 0,
        fail_after: int | None = None,
    ) -> None:
        self._requests: deque[CompletionRequest] = deque(maxlen=remember)
        self.hung_up = 0
        self.chunk_s = chunk_s
        self.fail_after = fail_after
        self._answer = answer
        self._latency_s = latency_s
        self._fail = fail

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> FakeModel:
        """From `turnout.yaml`: `answers` by part of the last user message, else `echo` it, else `default`; `latency_s`,
        `chunk_s`.

        `echo: all` answers with the whole prompt as promptfoo's `echo` does: its one text, or all its messages as JSON.

        An answer that is a list gives its items in turn by the request's `seed`: judges that vote can disagree.

        Raises BadSetting for another key or a value of the wrong type.
        """
        kinds: dict[str, type | tuple[type, ...]] = {
            "answers": Mapping,
            "default": str,
            "echo": (bool, str),
            "latency_s": (int, float),
            "chunk_s": (int, float),
        }
        for key, value in config.items():
            if key not in kinds:
                raise BadSetting(f"{key!r} is no setting of a fake model; these are: {', '.join(kinds)}", param=key)
            if not isinstance(value, kinds[key]) or (key == "echo" and value not in (True, False, "all")):
                raise BadSetting(f"{key} of a fake model cannot be {value!r}", param=key)
        answers = {str(part): text for part, text in config.get("answers", {}).items()}
        echo, default = config.get("echo", False), config.get("default", "")

        def answer(request: CompletionRequest) -> str:
            said = last_user_text(request)
            echoed = whole_prompt(request) if echo == "all" else said
            found = _first_fitting(answers, said, echoed if echo else default)
            return str(found[request.parameters.get("seed", 0) % len(found)]) if isinstance(found, list) else str(found)

        return cls(answer, latency_s=float(config.get("latency_s", 0)), chunk_s=float(config.get("chunk_s", 0)))

    @property
    def asked(self) -> list[CompletionRequest]:
        return list(self._requests)

    async def complete(self, request: CompletionRequest) -> Completion:
        """See `prompts.messages.Model`. Usage counts words in place of tokens."""
        started = time.monotonic()
        error = await self._asked(request)
        if error is not None:
            raise error
        return self._answered(request, started)

    async def stream(self, request: CompletionRequest) -> Chunks:
        """See `prompts.messages.Streaming`."""
        started = time.monotonic()
        error = await self._asked(request)
        if error is not None and self.fail_after is None:
            raise error
        return _FakeChunks(self, self._answered(request, started), error)

    async def _asked(self, request: CompletionRequest) -> ModelError | None:
        self._requests.append(request)
        if self._latency_s:
            await asyncio.sleep(self._latency_s)
        return self._fail(request) if callable(self._fail) else self._fail

    def _answered(self, request: CompletionRequest, started: float) -> Completion:
        text = self._text(request)
        return Completion(
            text=text,
            usage=Usage(sum(len(_text_of(message.content).split()) for message in request.messages), len(text.split())),
            latency_s=time.monotonic() - started,
            message={"role": "assistant", "content": text},
        )

    async def embed(self, texts: Sequence[str], _timeout_s: float) -> Embeddings:
        """See `service.models.embedding.Embedder`: texts with the same words are near, whatever they mean."""
        error = self._fail if isinstance(self._fail, ModelError) else None
        if error is not None:
            raise error
        words = [_WORD.findall(text.lower()) for text in texts]
        return Embeddings(tuple(map(_counted, words)), Usage(sum(map(len, words))))

    async def aclose(self) -> None:
        """Nothing to give back."""

    def _text(self, request: CompletionRequest) -> str:
        if isinstance(self._answer, str):
            return self._answer
        if isinstance(self._answer, Mapping):
            return _first_fitting(self._answer, last_user_text(request), "")
        return self._answer(request)


class _FakeChunks:
    """The words of an answer, one a chunk; see `prompts.messages.Chunks`."""

    attempts = 1

    def __init__(self, model: FakeModel, completion: Completion, error: ModelError | None) -> None:
        self._model = model
        self._chunks = list(_by_words(completion))
        self._error = error
        self._given = 0

    def __aiter__(self) -> AsyncIterator[Mapping[str, Any]]:
        return self

    async def __anext__(self) -> Mapping[str, Any]:
        if self._given and self._model.chunk_s:
            await asyncio.sleep(self._model.chunk_s)
        if self._error is not None and self._given == self._model.fail_after:
            raise self._error
        if self._given == len(self._chunks):
            raise StopAsyncIteration
        self._given += 1
        return self._chunks[self._given - 1]

    async def aclose(self) -> None:
        self._model.hung_up += self._given < len(self._chunks)
        self._given = len(self._chunks)


def _by_words(completion: Completion) -> Iterator[Mapping[str, Any]]:
    """The chunks of `chunks_of`, its first, which is the text, taken apart into words."""
    _, *rest = chunks_of(completion, "fake")
    for index, word in enumerate(re.findall(r"\s*\S+|\s+$", completion.text) or [""]):
        delta = {"content": word} if index else {"role": "assistant", "content": word}
        yield {**rest[0], "choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": None}]}
    yield from rest


def last_user_text(request: CompletionRequest) -> str:
    """The text of the last user message; "" where there is none."""
    said = [message for message in request.messages if message.role == "user"]
    return _text_of(said[-1].content) if said else ""


def whole_prompt(request: CompletionRequest) -> str:
    """The text of a lone user message; several messages as JSON with an indent of two, as promptfoo writes them."""
    if (
        len(request.messages) == 1
        and request.messages[0].role == "user"
        and isinstance(request.messages[0].content, str)
    ):
        return request.messages[0].content
    messages = [{"role": message.role, "content": message.as_dict()["content"]} for message in request.messages]
    return json.dumps(messages, indent=2, ensure_ascii=False)


def _text_of(content: Any) -> str:
    parts = content if isinstance(content, tuple) else ()
    return content if isinstance(content, str) else "".join(str(part.get("text", "")) for part in parts)


def _counted(words: Sequence[str]) -> tuple[float, ...]:
    """How often words of each of `DIMENSIONS` kinds occur."""
    counts = [0.0] * DIMENSIONS
    for word in words:
        counts[zlib.crc32(word.encode()) % DIMENSIONS] += 1
    return tuple(counts)


def _first_fitting(answers: Mapping[str, T], said: str, otherwise: T) -> T:
    return next((answer for part, answer in answers.items() if part in said), otherwise)

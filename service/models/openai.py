"""Any server that speaks OpenAI's chat completions: OpenAI, vLLM, Ollama, the embedded engine."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from prompts.errors import ModelError, ModelRefused, ModelTimeout, ModelUnavailable
from prompts.messages import Chunks, Completion, CompletionRequest
from service.models.embedding import Embeddings
from service.models.openai_replies import Place, json_object, kind_of
from service.models.openai_stream import StreamedChunks
from service.upstream.http import Address, Client, OpenReply, Question, Reply
from service.upstream.whole import WholeChunks, usage_of
from service.upstream.wire import Connection, TooLong

CONNECT_S = 10.0
_CONNECTIONS = 512
_CHAT = "/chat/completions"
_EMBEDDINGS = "/embeddings"


class OpenAIModel:
    """One upstream model by HTTP, over kept-alive connections. Used on one event loop.

    `base_url` ends before `/chat/completions` (`https://api.openai.com/v1`). Proxies of the environment are not used
    and redirects not followed: a key must go nowhere but there. An `adapter` asked for takes the place of `model`.
    `called` is what errors name it by, where its address tells nobody anything.
    """

    def __init__(
        self,
        base_url: str,
        model: str,
        api_key: str | None = None,
        *,
        connect_s: float = CONNECT_S,
        called: str | None = None,
    ) -> None:
        self._base = base_url.rstrip("/")
        self._address = Address.parse(self._base)
        self._places = {path: Place(self._base + path, path, api_key, called) for path in (_CHAT, _EMBEDDINGS)}
        self._called = called
        self._model = model
        self._api_key = api_key
        self._connect_s = connect_s
        self._client: Client | None = None
        self._closed = False

    def __repr__(self) -> str:
        return f"OpenAIModel(url={self._places[_CHAT].url!r}, model={self._model!r})"

    async def complete(self, request: CompletionRequest) -> Completion:
        """See `prompts.messages.Model`. `latency_s` counts from here to the last byte."""
        started = time.monotonic()
        reply = await self._asked(_CHAT, self._body(request), request.timeout_s)
        return self._places[_CHAT].completion(reply.body, reply.headers, time.monotonic() - started)

    async def stream(self, request: CompletionRequest) -> Chunks:
        """See `prompts.messages.Streaming`; a server that answers whole is given as chunks of the whole answer."""
        started = time.monotonic()
        body = {**self._body(request), "stream": True, "stream_options": {"include_usage": True}}
        place = self._places[_CHAT]
        reply = await self._opened(place, body, request.timeout_s)
        try:
            if reply.status == 200 and kind_of(reply.headers) == "text/event-stream":
                chunks = StreamedChunks(reply, place, request.timeout_s)
                await chunks.begin()
                return chunks
            raw = await reply.whole()
        except (TimeoutError, OSError) as error:
            reply.close()
            raise self._failed(place, error, request.timeout_s) from error
        except BaseException:
            reply.close()
            raise
        reply.close()
        if reply.status != 200:
            raise place.error(reply.status, reply.headers, raw)
        return WholeChunks(place.completion(raw, reply.headers, time.monotonic() - started), self._model)

    async def embed(self, texts: Sequence[str], timeout_s: float) -> Embeddings:
        """See `service.models.embedding.Embedder`."""
        place = self._places[_EMBEDDINGS]
        asked = await self._asked(_EMBEDDINGS, {"model": self._model, "input": list(texts)}, timeout_s)
        reply = json_object(asked.body)
        try:
            found = sorted(reply["data"], key=lambda item: item["index"])
            vectors = tuple(tuple(map(float, item["embedding"])) for item in found)
        except (KeyError, TypeError, ValueError) as error:
            raise place.no_completion("not embeddings", asked.body, kind_of(asked.headers)) from error
        if len(vectors) != len(texts):
            raise ModelRefused(f"{place.shown}: {len(vectors)} vectors for {len(texts)} texts", status=200)
        return Embeddings(vectors, usage_of(reply.get("usage")))

    async def embeddings(self, body: Mapping[str, Any], timeout_s: float) -> Mapping[str, Any]:
        """See `service.upstream.serving.Serving.embeddings`."""
        asked = await self._asked(_EMBEDDINGS, {**body, "model": self._model}, timeout_s)
        reply = json_object(asked.body)
        if not isinstance(reply.get("data"), list):
            raise self._places[_EMBEDDINGS].no_completion("not embeddings", asked.body, kind_of(asked.headers))
        return reply

    async def post(self, path: str, body: Mapping[str, Any], timeout_s: float) -> Reply:
        """Another path of the same server, below `base_url`: whatever it says. Raises ModelTimeout or ModelUnavailable."""
        place = self._places.get(path) or Place(self._base + path, path, self._api_key, self._called)
        client = self._connected(place)
        try:
            return await client.ask(Question(path, encoded(body), timeout_s=timeout_s))
        except (TimeoutError, OSError) as error:
            raise self._failed(place, error, timeout_s) from error

    async def aclose(self) -> None:
        """Close the connections, for good. Safe to call twice."""
        self._closed = True
        if self._client is not None:
            self._client.close()
            self._client = None

    # ---------------------------------------------------------------------------- asking

    def _body(self, request: CompletionRequest) -> dict[str, Any]:
        return {
            **request.parameters,
            "model": request.adapter or self._model,
            "messages": [message.as_dict() for message in request.messages],
        }

    async def _asked(self, path: str, body: Mapping[str, Any], timeout_s: float) -> Reply:
        """A good reply; raises the ModelError that a bad one, or none, means."""
        reply = await self.post(path, body, timeout_s)
        if reply.status != 200:
            raise self._places[path].error(reply.status, reply.headers, reply.body)
        return reply

    async def _opened(self, place: Place, body: Mapping[str, Any], timeout_s: float) -> OpenReply:
        client = self._connected(place)
        try:
            question = Question(place.path, encoded(body), timeout_s=timeout_s)
            return await client.open(question, Connection.begun)
        except (TimeoutError, OSError) as error:
            raise self._failed(place, error, timeout_s) from error

    def _connected(self, place: Place) -> Client:
        if self._closed:
            raise ModelUnavailable(f"{place.shown}: this model was closed")
        if self._client is None:
            headers = {"Content-Type": "application/json", "User-Agent": "turnout"}
            if self._api_key:
                headers["Authorization"] = f"Bearer {self._api_key}"
            self._client = Client(self._address, headers, connect_s=self._connect_s, connections=_CONNECTIONS)
        return self._client

    def _failed(self, place: Place, error: OSError, timeout_s: float) -> ModelError:
        if isinstance(error, TimeoutError):
            return ModelTimeout(f"{place.shown}: no complete answer within {timeout_s:g} s")
        said = f"{place.shown}: {place.clean(str(error) or type(error).__name__)}"
        return ModelRefused(said, status=200) if isinstance(error, TooLong) else ModelUnavailable(said)


def encoded(body: Mapping[str, Any]) -> bytes:
    """`body` as JSON; what msgspec cannot write (a lone surrogate) as Python's own json does."""
    try:
        return _encode(body)
    except (TypeError, ValueError, NotImplementedError):
        return json.dumps(body, default=_plain).encode()


def _plain(value: Any) -> Any:
    """Mappings that are no dict, and texts that are more than a str."""
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, str):
        return str(value)
    raise TypeError(f"{type(value).__name__} is no JSON")


_encode = msgspec.json.Encoder(enc_hook=_plain).encode

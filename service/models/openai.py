"""Any server that speaks OpenAI's chat completions: OpenAI, vLLM, Ollama, the embedded engine."""

from __future__ import annotations

import asyncio
import email.utils
import json
import time
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import yarl

from prompts.errors import NO_COMPLETION, ModelOverloaded, ModelRefused, ModelTimeout, ModelUnavailable
from prompts.messages import Completion, CompletionRequest, Usage
from service.models.embedding import Embeddings
from service.models.http import aiohttp

_MOST_MESSAGE = 500  # characters of an upstream's message that are passed on
_MOST_SHOWN = 80  # characters of an answer that is no completion
_MOST_BYTES = 32 << 20  # of a reply
_CONNECTIONS = 512
_FIXES = {  # of what is wrong for every question to this model; all are keys of its entry in turnout.yaml
    401: " (check the key that api_key_env names)",
    403: " (check what the key that api_key_env names may do)",
    404: " (check base_url and the model's name)",
}


class OpenAIModel:
    """One upstream model by HTTP, over kept-alive connections.

    `base_url` ends before `/chat/completions` (`https://api.openai.com/v1`). Proxies of the environment are not used
    and redirects not followed: a key must go nowhere but there. An `adapter` asked for takes the place of `model`.
    """

    def __init__(self, base_url: str, model: str, api_key: str | None = None) -> None:
        self._url = base_url.rstrip("/") + "/chat/completions"
        self._target = yarl.URL(self._url)  # parsed once
        self._embeddings = yarl.URL(base_url.rstrip("/") + "/embeddings")
        self._model = model
        self._api_key = api_key
        self._session: aiohttp.ClientSession | None = None
        self._closed = False

    def __repr__(self) -> str:
        return f"OpenAIModel(url={self._url!r}, model={self._model!r})"

    async def complete(self, request: CompletionRequest) -> Completion:
        """See `prompts.messages.Model`. `latency_s` counts from here to the last byte."""
        body = {
            **request.parameters,
            "model": request.adapter or self._model,
            "messages": [message.as_dict() for message in request.messages],
        }
        started = time.monotonic()
        raw, kind = await self._asked(self._target, body, request.timeout_s)
        return self._read(raw, kind, time.monotonic() - started)

    async def embed(self, texts: Sequence[str], timeout_s: float) -> Embeddings:
        """See `service.models.embedding.Embedder`."""
        raw, kind = await self._asked(self._embeddings, {"model": self._model, "input": list(texts)}, timeout_s)
        reply = _json_object(raw)
        try:
            found = sorted(reply["data"], key=lambda item: item["index"])
            vectors = tuple(tuple(map(float, item["embedding"])) for item in found)
        except (KeyError, TypeError, ValueError) as error:
            raise self._not(f"{self._embeddings}: not embeddings", "/embeddings", raw, kind) from error
        if len(vectors) != len(texts):
            raise ModelRefused(f"{self._embeddings}: {len(vectors)} vectors for {len(texts)} texts", status=200)
        return Embeddings(vectors, _usage(reply.get("usage")))

    async def _asked(self, target: yarl.URL, body: Mapping[str, Any], timeout_s: float) -> tuple[bytes, str]:
        """The body of a good answer, and its content type; raises the ModelError that a bad one, or none, means."""
        try:
            status, headers, raw = await self._post(target, body, timeout_s)
        except TimeoutError as error:
            raise ModelTimeout(f"{target}: no complete answer within {timeout_s:g} s") from error
        except (aiohttp.ClientError, OSError) as error:
            raise ModelUnavailable(f"{target}: {self._clean(str(error) or type(error).__name__)}") from error
        if status != 200:
            self._raise_for(target, status, headers, raw)
        return raw, headers.get("Content-Type", "").partition(";")[0].strip()

    async def aclose(self) -> None:
        """Close the connections, for good. Safe to call twice."""
        self._closed = True
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def _post(
        self, target: yarl.URL, body: Mapping[str, Any], timeout_s: float
    ) -> tuple[int, Mapping[str, str], bytes]:
        if self._closed:
            raise ModelUnavailable(f"{target}: this model was closed")
        if self._session is None:
            self._session = self._open()
        data = json.dumps(body).encode()
        async with (
            asyncio.timeout(timeout_s),
            self._session.post(target, data=data, allow_redirects=False) as reply,
        ):
            return reply.status, reply.headers, await self._bounded(reply)

    def _open(self) -> aiohttp.ClientSession:
        headers = {"Content-Type": "application/json"}
        if self._api_key:
            headers["Authorization"] = f"Bearer {self._api_key}"
        return aiohttp.ClientSession(
            headers=headers,
            trust_env=False,
            timeout=aiohttp.ClientTimeout(total=None),
            connector=aiohttp.TCPConnector(limit=_CONNECTIONS),
            cookie_jar=aiohttp.DummyCookieJar(),
        )

    async def _bounded(self, reply: aiohttp.ClientResponse) -> bytes:
        if (reply.content_length or _MOST_BYTES) < _MOST_BYTES:
            return await reply.read()
        raw = bytearray()
        async for chunk in reply.content.iter_any():
            raw += chunk
            if len(raw) > _MOST_BYTES:
                raise ModelRefused(f"{self._url}: the reply is longer than {_MOST_BYTES} bytes", status=reply.status)
        return bytes(raw)

    # ---------------------------------------------------------------------------- replies

    def _read(self, raw: bytes, kind: str, latency_s: float) -> Completion:
        reply = _json_object(raw)
        try:
            choice = reply["choices"][0]
            message = dict(choice["message"])
            content = message.get("content") or ""
            text = content if isinstance(content, str) else "".join(part.get("text", "") for part in content)
            usage = _usage(reply.get("usage"))
        except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
            raise self._not(f"{self._url}: not a chat completion", "/chat/completions", raw, kind) from error
        details = reply.get("turnout")
        details = dict(details) if isinstance(details, dict) else {}
        logprobs = _logprobs(choice)
        return Completion(
            text=text,
            finish_reason=str(choice.get("finish_reason") or "stop"),
            usage=usage,
            latency_s=latency_s,
            message=message,
            details={**details, "logprobs": logprobs} if logprobs else details,
        )

    def _not(self, what: str, path: str, raw: bytes, kind: str) -> ModelRefused:
        """The refusal for a good status whose body is of no use: what came, and where to look."""
        shown = " ".join(self._clean(raw[:4096].decode("utf-8", "replace")).split())[:_MOST_SHOWN]
        came = f"{kind or 'no content type'} came, beginning {shown!r}" if shown else "the body is empty"
        fix = f"check that base_url is the address before {path} of a server that speaks OpenAI's API, often …/v1"
        return ModelRefused(f"{what}: {came} ({fix})", status=200, code=NO_COMPLETION)

    def _raise_for(self, target: yarl.URL, status: int, headers: Mapping[str, str], raw: bytes) -> NoReturn:
        message, code = _upstream_error(raw)
        said = f"{target}: HTTP {status}: {self._clean(message)}"
        if status in (429, 503):
            raise ModelOverloaded(said, retry_after_s=retry_after_s(headers.get("Retry-After")))
        if status in (408, 504):
            raise ModelTimeout(said)
        if status >= 500:
            raise ModelUnavailable(said)
        raise ModelRefused(said + _FIXES.get(status, ""), status=status, code=code)

    def _clean(self, message: str) -> str:
        """Without the key, which an upstream may echo, and not too long."""
        hidden = message.replace(self._api_key, "…") if self._api_key else message
        return hidden[:_MOST_MESSAGE]


def _json_object(raw: bytes) -> Mapping[str, Any]:
    try:
        value = json.loads(raw)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _upstream_error(raw: bytes) -> tuple[str, str | None]:
    """The message and the code of OpenAI's error body, or the start of whatever else it is."""
    error = _json_object(raw).get("error")
    if isinstance(error, dict):
        code = error.get("code")
        return str(error.get("message") or error), str(code) if code is not None else None
    return str(error or raw.decode("utf-8", "replace")), None


def _logprobs(choice: Mapping[str, Any]) -> list[float]:
    """The natural log-probability of each token of an answer; none where they were not asked for, or not given."""
    given = choice.get("logprobs")
    tokens = given.get("content") if isinstance(given, dict) else None
    found = [token.get("logprob") for token in tokens if isinstance(token, dict)] if isinstance(tokens, list) else []
    return [float(value) for value in found if isinstance(value, int | float)]


def _usage(usage: Any) -> Usage:
    given = usage if isinstance(usage, dict) else {}
    details = given.get("prompt_tokens_details") or {}
    return Usage(
        prompt_tokens=int(given.get("prompt_tokens") or 0),
        completion_tokens=int(given.get("completion_tokens") or 0),
        cached_tokens=int(details.get("cached_tokens") or 0),
    )


def retry_after_s(value: str | None) -> float | None:
    """Seconds of a Retry-After header, given as seconds or as a date (RFC 9110 §10.2.3); None where it says neither."""
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        seconds = _until(value)
    return seconds if 0 <= seconds < 86400 * 365 else None


def _until(date: str) -> float:
    try:
        return max(0.0, email.utils.parsedate_to_datetime(date).timestamp() - time.time())
    except (ValueError, TypeError):
        return float("nan")

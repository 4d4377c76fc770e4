"""A vLLM server: OpenAI's protocol, and adapters that it loads at run time from a folder that both sides see."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from prompts.errors import ModelRefused, ModelTimeout
from prompts.messages import Chunks, Completion, CompletionRequest
from service.models.embedding import Embeddings
from service.models.openai import CONNECT_S, OpenAIModel

LOAD_S = 60.0
Answer = TypeVar("Answer", Completion, Chunks)


class VllmModel:
    """The base model at `base_url`, and the adapters of `adapter_dir`, loaded when first asked for.

    vLLM must run with VLLM_ALLOW_RUNTIME_LORA_UPDATING=True; what it says is passed on where it does not.
    """

    def __init__(
        self,
        base_url: str,
        model: str,
        api_key: str | None,
        adapter_dir: Path | None,
        *,
        connect_s: float = CONNECT_S,
    ) -> None:
        self._adapter_dir = adapter_dir
        self._model = OpenAIModel(base_url, model, api_key, connect_s=connect_s)
        self._loaded: set[str] = set()
        self._loading = asyncio.Lock()

    async def embed(self, texts: Sequence[str], timeout_s: float) -> Embeddings:
        """See `service.models.embedding.Embedder`: a server that serves a model of embeddings answers."""
        return await self._model.embed(texts, timeout_s)

    async def complete(self, request: CompletionRequest) -> Completion:
        """See `prompts.messages.Model`; a server that was restarted is given its adapter again, once."""
        return await self._with_adapter(request, self._model.complete)

    async def stream(self, request: CompletionRequest) -> Chunks:
        """See `prompts.messages.Streaming`; adapters as for `complete`."""
        return await self._with_adapter(request, self._model.stream)

    async def embeddings(self, body: Mapping[str, Any], timeout_s: float) -> Mapping[str, Any]:
        """See `service.upstream.serving.Serving.embeddings`."""
        return await self._model.embeddings(body, timeout_s)

    async def aclose(self) -> None:
        await self._model.aclose()

    async def _with_adapter(
        self, request: CompletionRequest, ask: Callable[[CompletionRequest], Awaitable[Answer]]
    ) -> Answer:
        if request.adapter is None:
            return await ask(request)
        await self._load_within(request.timeout_s, request.adapter)
        try:
            return await ask(request)
        except ModelRefused as error:
            if error.status != 404:
                raise
        self._loaded.discard(request.adapter)
        await self._load_within(request.timeout_s, request.adapter)
        return await ask(request)

    async def _load_within(self, timeout_s: float, adapter: str) -> None:
        """Loaded it is, at the latest after a wait for who loads just now."""
        if adapter in self._loaded:
            return
        try:
            async with asyncio.timeout(timeout_s):
                await self._load(adapter)
        except TimeoutError as error:
            raise ModelTimeout(f"adapter {adapter!r}: not loaded within {timeout_s:g} s") from error

    async def _load(self, adapter: str) -> None:
        async with self._loading:
            if adapter in self._loaded:
                return
            if self._adapter_dir is None:
                raise ModelRefused(f"adapter {adapter!r}: the model's settings name no adapter_dir")
            body = {"lora_name": adapter, "lora_path": str(self._adapter_dir / adapter)}
            reply = await self._model.post("/load_lora_adapter", body, LOAD_S)
            said = reply.body.decode("utf-8", "replace")
            if reply.status != 200 and "already been loaded" not in said:
                raise ModelRefused(f"adapter {adapter!r}: HTTP {reply.status}: {said[:300]}")  # no caller can mend it
            self._loaded.add(adapter)

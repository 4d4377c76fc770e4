"""A vLLM server: OpenAI's protocol, and adapters that it loads at run time from a folder that both sides see."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

from prompts.errors import ModelRefused, ModelTimeout, ModelUnavailable
from prompts.messages import Completion, CompletionRequest
from service.models.embedding import Embeddings
from service.models.http import aiohttp
from service.models.openai import OpenAIModel

LOAD_S = 60.0


class VllmModel:
    """The base model at `base_url`, and the adapters of `adapter_dir`, loaded when first asked for.

    vLLM must run with VLLM_ALLOW_RUNTIME_LORA_UPDATING=True; what it says is passed on where it does not.
    """

    def __init__(self, base_url: str, model: str, api_key: str | None, adapter_dir: Path | None) -> None:
        self._base_url = base_url.rstrip("/")
        self._api_key = api_key
        self._adapter_dir = adapter_dir
        self._model = OpenAIModel(base_url, model, api_key)
        self._loaded: set[str] = set()
        self._loading = asyncio.Lock()

    async def embed(self, texts: Sequence[str], timeout_s: float) -> Embeddings:
        """See `service.models.embedding.Embedder`: a server that serves a model of embeddings answers."""
        return await self._model.embed(texts, timeout_s)

    async def complete(self, request: CompletionRequest) -> Completion:
        """See `prompts.messages.Model`; a server that was restarted is given its adapter again, once."""
        if request.adapter is None:
            return await self._model.complete(request)
        await self._load(request.adapter)
        try:
            return await self._model.complete(request)
        except ModelRefused as error:
            if error.status != 404:
                raise
        self._loaded.discard(request.adapter)
        await self._load(request.adapter)
        return await self._model.complete(request)

    async def aclose(self) -> None:
        await self._model.aclose()

    async def _load(self, adapter: str) -> None:
        async with self._loading:
            if adapter in self._loaded:
                return
            if self._adapter_dir is None:
                raise ModelRefused(f"adapter {adapter!r}: the model's settings name no adapter_dir", status=400)
            status, said = await self._post({"lora_name": adapter, "lora_path": str(self._adapter_dir / adapter)})
            if status != 200 and "already been loaded" not in said:
                raise ModelRefused(f"adapter {adapter!r}: HTTP {status}: {said[:300]}", status=status)
            self._loaded.add(adapter)

    async def _post(self, body: dict[str, str]) -> tuple[int, str]:
        url = f"{self._base_url}/load_lora_adapter"
        headers = {"Authorization": f"Bearer {self._api_key}"} if self._api_key else {}
        timeout = aiohttp.ClientTimeout(total=LOAD_S)
        try:
            async with (
                aiohttp.ClientSession(headers=headers, timeout=timeout) as session,
                session.post(url, json=body, allow_redirects=False) as reply,
            ):
                return reply.status, await reply.text()
        except TimeoutError as error:
            raise ModelTimeout(f"{url}: no answer within {LOAD_S:g} s") from error
        except (aiohttp.ClientError, OSError) as error:
            raise ModelUnavailable(f"{url}: {error}") from error

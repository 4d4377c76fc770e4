"""Models by alias, made on first use and closed together."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from prompts.errors import BadInput
from prompts.messages import Chunks, Completion, CompletionRequest, Model
from service.child import require_local_packages
from service.errors import BadSetting, CannotRun, EngineFailed
from service.models.openai import OpenAIModel
from service.settings import FakeSpec, LocalSpec, OpenAISpec, Settings
from service.upstream.guard import Guarded
from service.upstream.policy import Policy
from service.upstream.serving import Serving
from service.upstream.standing import Standing
from suites.results import Price

if TYPE_CHECKING:
    from service.engine.spec import EngineSpec
    from service.models.local import LocalModel

_NOT_THE_FAKES = {"engine", "price", "context_tokens", *Policy.model_fields}
ENGINE_LINGER_S = 20.0  # an author's next run finds it warm, and so does a job's next step


class Models(Protocol):
    """Where models come from: the pool, or a test's own."""

    def get(self, alias: str) -> Model:
        """The model behind an alias; raises BadSetting."""
        ...


class ModelPool:
    """One model object for each alias of the settings.

    Of the pool `before`, where one is replaced, the counters, slots and breakers of aliases go on whose settings are the same.
    """

    def __init__(self, settings: Settings, before: ModelPool | None = None) -> None:
        self._settings = settings
        self._models: dict[str, Model] = {}
        self._serving: dict[str, Guarded] = {}
        self._before = before._unchanged(settings) if before else {}

    def serving(self, alias: str) -> Serving:
        """`alias` as applications are served from it: guarded. Raises BadSetting, as `get` does."""
        guarded = self._serving.get(alias)
        if guarded is None:
            model, policy = self.get(alias), self._settings.model(alias)
            guarded = self._serving[alias] = Guarded(alias, model, policy, self._before.pop(alias, None))
        return guarded

    def _unchanged(self, settings: Settings) -> dict[str, Guarded]:
        """What is known of the aliases that `settings` has as they are here."""
        known = {**self._before, **self._serving}
        mine = self._settings.models
        return {alias: one for alias, one in known.items() if settings.models.get(alias) == mine[alias]}

    def upstreams(self) -> tuple[Standing, ...]:
        """How every alias of the settings stands, those that were never asked among them."""
        known = {**self._before, **self._serving}
        return tuple(
            known[alias].standing() if alias in known else Standing(alias) for alias in sorted(self._settings.models)
        )

    def get(self, alias: str) -> Model:
        """The model behind `alias`; raises BadSetting where there is none, or its key is not in the environment."""
        if alias not in self._models:
            self._models[alias] = self._make(alias)
        return self._models[alias]

    def _make(self, alias: str) -> Model:
        """Each engine is imported where one of its models is first asked for: a run needs one of them."""
        spec = self._settings.model(alias)
        if isinstance(spec, LocalSpec):
            return PulledModel(alias, spec, self._settings)
        if isinstance(spec, FakeSpec):
            from service.models.fake import FakeModel

            return FakeModel.from_config(spec.model_dump(exclude=_NOT_THE_FAKES))
        key, connect_s = api_key(alias, spec), spec.timeouts.connect_s
        if spec.engine == "vllm":
            from service.models.vllm import VllmModel

            folder = Path(spec.adapter_dir) if spec.adapter_dir else None
            return VllmModel(spec.base_url, spec.model or alias, key, folder, connect_s=connect_s)
        return OpenAIModel(spec.base_url, spec.model or alias, key, connect_s=connect_s)

    async def aclose(self) -> None:
        for model in self._models.values():
            await model.aclose()
        self._models.clear()
        self._serving.clear()


class PulledModel:
    """A model of the embedded engine whose weights are fetched, once, when it is first asked."""

    def __init__(self, alias: str, spec: LocalSpec, settings: Settings) -> None:
        self._alias = alias
        self._spec = spec
        self._settings = settings
        self._pulling = asyncio.Lock()
        self._model: LocalModel | None = None

    async def complete(self, request: CompletionRequest) -> Completion:
        """See `prompts.messages.Model`."""
        return await (await self._ready()).complete(request)

    async def stream(self, request: CompletionRequest) -> Chunks:
        """See `prompts.messages.Streaming`."""
        return await (await self._ready()).stream(request)

    async def warm_up(self, adapter: str | None = None) -> None:
        """Fetch the weights, start the engine and load an adapter before anyone waits for it."""
        await (await self._ready()).warm_up(adapter)

    async def _ready(self) -> LocalModel:
        from service.engine import weights
        from service.models.local import LocalModel

        async with self._pulling:
            if self._model is None:
                require_local_packages(f"model {self._alias!r}")
                source = weights.Source.parse(self._spec.source, self._spec.chat_template)
                try:
                    folder = await asyncio.to_thread(weights.pull, source, weights.default_cache_dir())
                except (BadInput, CannotRun) as error:
                    # It is the settings': no caller can mend it, and a fallback may answer.
                    raise EngineFailed(f"model {self._alias!r}: {error}") from error
                self._model = LocalModel(self._engine_spec(folder), self._settings.run_dir)
            return self._model

    def _engine_spec(self, folder: Path) -> EngineSpec:
        from service.engine.spec import EngineSpec

        return EngineSpec(
            alias=self._alias,
            folder=folder,
            adapters_dir=self._settings.adapters_dir,
            linger_s=ENGINE_LINGER_S,
            threads=self._spec.threads or 0,
            device=self._spec.device,
        )

    async def aclose(self) -> None:
        if self._model is not None:
            await self._model.aclose()


def api_key(alias: str, spec: OpenAISpec) -> str | None:
    """The key that the environment holds under the name the settings give; raises BadSetting where it is missing."""
    if spec.api_key_env is None:
        return None
    key = os.environ.get(spec.api_key_env)
    if not key:
        raise BadSetting(f"model {alias!r} needs its key in {spec.key_variable(alias)}, which is not set")
    if not all("!" <= character <= "~" for character in key):
        raise BadSetting(
            f"model {alias!r}: what {spec.api_key_env} holds is no key: it has a space, a line break or a letter beyond ASCII"
        )
    return key


def price_of(settings: Settings, alias: str) -> Price | None:
    """What `alias` costs, or None where nobody said."""
    price = settings.model(alias).price
    return Price(price.input_per_mtok, price.output_per_mtok) if price else None

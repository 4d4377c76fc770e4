"""How a run asks the model under test: rendered, cached where an equal question was answered before."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prompts.messages import Completion, CompletionRequest
from prompts.prompt import CompiledPrompt, digest_of
from service.pool import Models
from service.recording import CompletionCache, Fresh, completion_data
from service.settings import LocalSpec, Settings
from service.store.database import Database
from suites.assertions.perplexity import PERPLEXITIES
from suites.case import Case

if TYPE_CHECKING:
    from service.evaluation import RunSpec

DEFAULT_TIMEOUT_S = 120.0  # of one attempt, on models whose settings have none
LOCAL_TIMEOUT_S = 600.0  # on this machine, which may be busy: nobody waits, and an engine that hangs is seen otherwise


def attempt_timeout_s(settings: Settings, alias: str) -> float:
    """Seconds for one attempt of a run on model `alias`."""
    spec = settings.model(alias)
    if isinstance(spec, LocalSpec) and spec.timeouts.total_s is None:
        return LOCAL_TIMEOUT_S
    return float(getattr(spec, "timeout_s", DEFAULT_TIMEOUT_S))


class Asker:
    """Asks one variant for one case: rendered, cached where an equal question was answered before."""

    def __init__(
        self,
        database: Database,
        settings: Settings,
        models: Models,
        spec: RunSpec,
        compiled: CompiledPrompt,
        adapter_digest: str | None,
    ) -> None:
        self._model = models.get(spec.variant.model)
        self._compiled = compiled
        self._adapter = spec.variant.adapter
        self._flow = spec.variant.prompt
        self._parameters = compiled.content.request_parameters()
        self._cache = CompletionCache(database) if spec.use_cache else None
        model = settings.model(spec.variant.model)
        self.timeout_s = attempt_timeout_s(settings, spec.variant.model)
        model_spec = model.model_dump(mode="json", exclude={"price", "context_tokens"})
        self._origin = digest_of([spec.variant.model, model_spec, self._adapter, adapter_digest])
        self.fresh: dict[tuple[str, int], Fresh] = {}

    def prepare(self) -> None:
        """Look whether there is anything in the cache to be asked for."""
        if self._cache is not None and not self._cache.holds_any():
            self._cache = None

    async def ask(self, case: Case, repeat: int) -> Completion:
        messages = self._compiled.render(case.vars, (), case.placeholders)
        parameters = dict(self._parameters)
        if isinstance(parameters.get("seed"), int):
            parameters["seed"] += repeat
        if case.shared.types & PERPLEXITIES:
            parameters["logprobs"] = True
        key = digest_of([self._origin, [message.as_dict() for message in messages], parameters, repeat])
        found = await self._cache.get(key) if self._cache else None
        if found is not None:
            return found
        request = CompletionRequest(
            messages, parameters, self._adapter, self.timeout_s, is_urgent=False, flow=self._flow
        )
        completion = await self._model.complete(request)
        self.fresh[(case.id, repeat)] = (key, completion_data(completion))
        return completion

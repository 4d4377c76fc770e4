"""promptfoo's providers as aliases of turnout.yaml: by the model that they name, or as they are told."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from suites.foreign.converted import KnownModel

NONE = "none"  # in place of an alias: what needs this provider is set aside
GRADER = "grader"  # who judges where a configuration names nobody
EMBEDDER = "embedder"  # the same for embeddings
ECHO = "echo"
_HOSTS = {  # servers that speak OpenAI's protocol: address, and the variable that holds the key
    "openai": ("https://api.openai.com/v1", "OPENAI_API_KEY"),
    "anthropic": ("https://api.anthropic.com/v1", "ANTHROPIC_API_KEY"),
    "google": ("https://generativelanguage.googleapis.com/v1beta/openai", "GOOGLE_API_KEY"),
    "mistral": ("https://api.mistral.ai/v1", "MISTRAL_API_KEY"),
    "groq": ("https://api.groq.com/openai/v1", "GROQ_API_KEY"),
    "xai": ("https://api.x.ai/v1", "XAI_API_KEY"),
    "openrouter": ("https://openrouter.ai/api/v1", "OPENROUTER_API_KEY"),
    "cerebras": ("https://api.cerebras.ai/v1", "CEREBRAS_API_KEY"),
    "deepseek": ("https://api.deepseek.com/v1", "DEEPSEEK_API_KEY"),
    "perplexity": ("https://api.perplexity.ai", "PERPLEXITY_API_KEY"),
    "ollama": ("http://127.0.0.1:11434/v1", ""),
    "vllm": ("http://127.0.0.1:8000/v1", ""),
    "localai": ("http://127.0.0.1:8080/v1", ""),
}
_KINDS = ("chat", "completion", "responses", "messages", "embedding", "embeddings", "assistant", "text-generation")


class Aliases:
    """Which alias a provider of theirs is; those that are none are kept, to be told all at once."""

    def __init__(self, known: Mapping[str, KnownModel], given: Mapping[str, str]) -> None:
        self._known = known
        self._given = given
        self.missing: dict[str, None] = {}

    def of(self, provider: str, label: str | None = None) -> str:
        """The alias of a provider; its model's own name, noted as missing, where there is none."""
        told = self._given.get(provider) or self._given.get(label or "")
        found = told or self._by_model(provider)
        if found is None:
            self.missing[provider] = None
        return found or model_of(provider)

    def has_price(self, alias: str) -> bool:
        return alias in self._known and self._known[alias].has_price

    def _by_model(self, provider: str) -> str | None:
        if provider == ECHO:
            return next((alias for alias, known in self._known.items() if known.is_echo), None)
        if provider.startswith(("http://", "https://")):
            return next((alias for alias, known in self._known.items() if _is_at(provider, known.base_url)), None)
        if ":" not in provider and provider not in self._known:
            return None
        wanted = model_of(provider)
        by_name = (alias for alias, known in self._known.items() if wanted in (known.model, alias))
        return next(by_name, None) if not provider.startswith(("file:", "exec:", "python:")) else None


def _is_at(url: str, base_url: str) -> bool:
    """Whether a provider's address is that of chat completions below a model's."""
    return bool(base_url) and url.rstrip("/").removesuffix("/chat/completions") == base_url


def model_of(provider: str) -> str:
    """The model's name in a provider's id: `openai:chat:gpt-4o` and `openai:gpt-4o` name `gpt-4o`."""
    if provider.startswith(("http://", "https://", "file://", "exec:")):
        return provider
    parts = provider.split(":")
    parts = parts[1:] if len(parts) > 1 else parts
    return ":".join(parts[1:] if len(parts) > 1 and parts[0] in _KINDS else parts)


def lines_to_add(providers: Iterable[str]) -> str:
    """What turnout.yaml would have to hold for these providers, as YAML."""
    return "\n".join(["models:", *(f"  {_entry(provider)}" for provider in dict.fromkeys(providers))])


def _entry(provider: str) -> str:
    if provider == ECHO:
        return "echo: {engine: fake, echo: all, price: {input_per_mtok: 0, output_per_mtok: 0}}"
    model = provider if provider in (GRADER, EMBEDDER) else model_of(provider)
    alias = re.sub(r"[^A-Za-z0-9._-]+", "-", model).strip("-") or "model"
    address, key = _HOSTS.get(provider.partition(":")[0], ("https://…/v1", ""))
    named = f', model: "{model}"' if alias != model else ""
    return f'{alias}: {{engine: openai, base_url: "{address}"{named}{f", api_key_env: {key}" if key else ""}}}'


def provider_entries(given: Any) -> list[tuple[str, dict[str, Any]]]:
    """Each provider of a configuration by its id, with its other keys; a text alone has none.

    What is no provider has the id "".
    """
    found: list[tuple[str, dict[str, Any]]] = []
    for entry in given if isinstance(given, list) else [given]:
        if isinstance(entry, str):
            found.append((entry, {}))
        elif isinstance(entry, dict) and isinstance(entry.get("id"), str):
            found.append((entry["id"], {key: value for key, value in entry.items() if key != "id"}))
        elif isinstance(entry, dict) and len(entry) == 1 and isinstance(next(iter(entry.values())), dict | None):
            name, keys = next(iter(entry.items()))
            found.append((str((keys or {}).get("id") or name), dict(keys or {})))
        else:
            found.append(("", {"entry": entry}))
    return found

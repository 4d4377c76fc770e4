"""What running engines have loaded: those of this home, and vLLM servers of the settings."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import httpx

from service.settings import OpenAISpec, Settings

_TIMEOUT_S = 2.0


def loaded(settings: Settings) -> frozenset[str]:
    """The names under which engines that answer serve models: adapters by their own. One that is down has loaded nothing."""
    found: set[str] = set()
    for url, key in (*_own(settings.run_dir), *_vllm(settings)):
        found |= _served(url, key)
    return frozenset(found)


def _own(run_dir: Path) -> Iterator[tuple[str, str]]:
    for path in sorted(run_dir.glob("engine-*.json")):
        try:
            state = json.loads(path.read_text("utf-8"))
            yield f"{state['base_url']}/v1/models", state["token"]
        except (OSError, ValueError, KeyError, TypeError):
            continue  # one that ended while this looks, or of another version


def _vllm(settings: Settings) -> Iterator[tuple[str, str]]:
    for spec in settings.models.values():
        if isinstance(spec, OpenAISpec) and spec.adapter_dir:
            yield f"{spec.base_url}/models", os.environ.get(spec.api_key_env or "", "")


def _served(url: str, key: str) -> set[str]:
    headers = {"authorization": f"Bearer {key}"} if key else {}
    try:
        answer = httpx.get(url, headers=headers, timeout=_TIMEOUT_S).json()
        return {str(model["id"]) for model in answer["data"]}
    except (httpx.HTTPError, ValueError, KeyError, TypeError):
        return set()

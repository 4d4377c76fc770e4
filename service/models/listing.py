"""What each alias of the settings stands for: its state, and what is known of the model that lies on this machine."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from typing import Any

from prompts.errors import BadInput
from service.engine import weights
from service.engine.about import about
from service.settings import LocalSpec, OpenAISpec, Settings

_REACH_S = 3.0
_AT_ONCE = 16


def listed(settings: Settings, *, check: bool = False) -> list[dict[str, Any]]:
    """A row an alias, in order. With `check` remote servers are asked whether they answer at all.

    `state` is `here`, `not pulled`, `interrupted` (a pull to go on with), what another process does to have the model
    (`downloading …`, `converting: …`), or why it cannot be used; for others `remote`, `reachable` or `unreachable`.
    """
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return list(pool.map(lambda item: _row(*item, check=check), sorted(settings.models.items())))


def _row(alias: str, spec: Any, *, check: bool) -> dict[str, Any]:
    row = {"alias": alias, "engine": spec.engine, "tunable": spec.is_tunable}
    if isinstance(spec, LocalSpec):
        return row | _local(spec)
    if isinstance(spec, OpenAISpec):
        return row | {
            "state": _reached(spec) if check else "remote",
            "base_url": spec.base_url,
            "model": spec.model or alias,
        }
    return row | {"state": "here"}


def _local(spec: LocalSpec) -> dict[str, Any]:
    row: dict[str, Any] = {"source": spec.source}
    cache = weights.default_cache_dir()
    try:
        source = weights.Source.parse(spec.source, spec.chat_template)
        folder = weights.find(source, cache)
        if folder is None:
            return row | {"state": weights.under_way(source, cache) or "not pulled"}
        return row | asdict(about(folder)) | {"state": "here", "folder": str(folder)}
    except (BadInput, OSError) as error:
        return row | {"state": f"bad: {error}"}


def _reached(spec: OpenAISpec) -> str:
    """Whether the server answers, with whatever status: no key is sent."""
    import httpx

    try:
        httpx.get(f"{spec.base_url}/models", timeout=_REACH_S)
    except (httpx.TransportError, httpx.InvalidURL):
        return "unreachable"
    return "reachable"

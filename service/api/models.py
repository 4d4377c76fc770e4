"""`GET /v1/models`: prompts and model aliases, as OpenAI lists models."""

from __future__ import annotations

from typing import Any

from litestar import get
from litestar.di import NamedDependency
from litestar.params import FromPath

from service.context import Context
from service.errors import NotFound


@get("/v1/models", opt={"role": "app"})
async def list_models(context: NamedDependency[Context]) -> dict[str, Any]:
    """Prompts and model aliases, as OpenAI lists models."""
    names = [*sorted(context.snapshot.view.newest), *sorted(context.settings.models)]
    return {"object": "list", "data": [_model(name) for name in names]}


@get("/v1/models/{name:path}", opt={"role": "app"})
async def get_model(context: NamedDependency[Context], name: FromPath[str]) -> dict[str, Any]:
    """One prompt or model alias, whose name may hold slashes. Raises NotFound."""
    name = name.removeprefix("/")
    if name not in context.snapshot.view.newest and name not in context.settings.models:
        raise NotFound("model", name, "`GET /v1/models` lists prompts and model aliases")
    return _model(name)


def _model(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "turnout"}

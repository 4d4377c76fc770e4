"""`GET /v1/models`: prompts, model aliases and fine-tuned models, as OpenAI lists models."""

from __future__ import annotations

import asyncio
from typing import Any

from litestar import delete, get
from litestar.di import NamedDependency
from litestar.params import FromPath

from service.context import Context
from service.errors import NotFound
from service.fine_tuning.shapes import seconds_of
from service.fine_tuning.tunings import FineTunings
from service.identity import Principal
from service.snapshot import Tuned


@get("/v1/models", opt={"role": "app"})
async def list_models(context: NamedDependency[Context]) -> dict[str, Any]:
    """Prompts, model aliases and fine-tuned models, as OpenAI lists models."""
    names = [*sorted(context.snapshot.view.newest), *sorted(context.settings.models)]
    tuned = [_tuned(context, one) for one in context.snapshot.view.tuned.values()]
    return {"object": "list", "data": [*(_model(name) for name in names), *tuned]}


@get("/v1/models/{name:path}", opt={"role": "app"})
async def get_model(context: NamedDependency[Context], name: FromPath[str]) -> dict[str, Any]:
    """One prompt, model alias or fine-tuned model, whose name may hold slashes. Raises NotFound."""
    name = name.removeprefix("/")
    if (tuned := await asyncio.to_thread(context.snapshot.tuned, name)) is not None:
        return _tuned(context, tuned)
    if name not in context.snapshot.view.newest and name not in context.settings.models:
        raise NotFound("model", name, "`GET /v1/models` lists prompts and model aliases")
    return _model(name)


@delete("/v1/models/{name:path}", opt={"role": "author"}, status_code=200)
async def delete_model(
    context: NamedDependency[Context], principal: NamedDependency[Principal], name: FromPath[str]
) -> dict[str, Any]:
    """Serve a fine-tuned model no longer under this name; its adapter stays until it is pruned."""
    name = name.removeprefix("/")
    tunings = FineTunings(context.database, context.settings)
    await asyncio.to_thread(tunings.delete_model, name, principal)
    await asyncio.to_thread(context.snapshot.refresh)
    return {"id": name, "object": "model", "deleted": True}


def _tuned(context: Context, tuned: Tuned) -> dict[str, Any]:
    owner = context.settings.fine_tuning.organization
    return {"id": tuned.name, "object": "model", "created": seconds_of(tuned.created_at), "owned_by": owner}


def _model(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "turnout"}

"""Audit and models over HTTP."""

from __future__ import annotations

from typing import Any

from litestar import get
from litestar.di import NamedDependency

from service.api.limits import RowLimit
from service.api.threads import in_thread
from service.context import Context
from service.store import keys

ADMIN = {"role": "admin"}


@get("/api/audit", opt=ADMIN)
@in_thread
def get_audit(context: NamedDependency[Context], limit: RowLimit = 100) -> list[dict[str, Any]]:
    """Keys made and revoked, routes and protected labels moved, newest first; `limit` from 1 to 1,000."""
    with context.database.read() as session:
        return keys.audit_log(session, limit)


@get("/api/models", opt={"role": "author"})
@in_thread
def list_aliases(context: NamedDependency[Context]) -> list[dict[str, Any]]:
    """Model aliases as the settings have them; secrets only by the name of their variable."""
    specs = context.settings.models.items()
    return [{"alias": alias, "tunable": spec.is_tunable, **spec.model_dump(mode="json")} for alias, spec in specs]


@get("/api/upstreams", opt={"role": "author"})
async def list_upstreams(context: NamedDependency[Context]) -> list[dict[str, Any]]:
    """How each model alias stands with its upstream in this process: asked, failed, in flight, its breaker's state."""
    return [standing.as_dict() for standing in context.pool.upstreams()]

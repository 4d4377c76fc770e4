"""Keys, what they may take, and the settings read anew, over HTTP."""

from __future__ import annotations

from typing import Any, cast

import pydantic
from litestar import Request, delete, get, post, put
from litestar.di import NamedDependency
from litestar.params import FromPath, JSONBody

from service.api.threads import in_thread
from service.context import Context
from service.errors import CannotRun
from service.generations import RELOAD, ReadAnew
from service.identity import Principal, create_key, limit_key, revoke_key
from service.limits import MOST, key_limits
from service.said import Said
from service.store import keys

ADMIN = {"role": "admin"}


class LimitsBody(pydantic.BaseModel, extra="forbid"):
    """What a key may take; what is left out, or null, has no limit."""

    requests_per_minute: int | None = pydantic.Field(None, ge=1, le=MOST)
    tokens_per_minute: int | None = pydantic.Field(None, ge=1, le=MOST)
    tokens_per_day: int | None = pydantic.Field(None, ge=1, le=MOST)


class KeyBody(LimitsBody):
    """The role of a new key, a note on what it is for, and its limits."""

    role: str
    note: Said | None = pydantic.Field(None, max_length=200)


@post("/api/keys", opt=ADMIN)
@in_thread
def new_key(
    context: NamedDependency[Context], principal: NamedDependency[Principal], data: JSONBody[KeyBody]
) -> dict[str, Any]:
    """A new key, shown this once."""
    limits = key_limits(data.model_dump())
    made = create_key(context.database, data.role, actor=principal, note=data.note, limits=limits)
    context.snapshot.refresh()
    return made


@get("/api/keys", opt=ADMIN)
@in_thread
def list_keys(context: NamedDependency[Context]) -> list[dict[str, Any]]:
    """All keys with their limits, without their secrets."""
    with context.database.read() as session:
        return keys.listing(session)


@put("/api/keys/{key_id:str}/limits", opt=ADMIN)
@in_thread
def set_limits(
    context: NamedDependency[Context],
    principal: NamedDependency[Principal],
    key_id: FromPath[str],
    data: JSONBody[LimitsBody],
) -> dict[str, Any]:
    """What a key may take from now on: all of its limits, so that one that is left out is lifted."""
    found = limit_key(context.database, key_id, key_limits(data.model_dump()), actor=principal)
    context.snapshot.refresh()
    return found


@delete("/api/keys/{key_id:str}", opt=ADMIN)
@in_thread
def delete_key(context: NamedDependency[Context], principal: NamedDependency[Principal], key_id: FromPath[str]) -> None:
    """Revoke a key: it is refused at once."""
    revoke_key(context.database, key_id, actor=principal)
    context.snapshot.refresh()


@post("/api/reload", opt=ADMIN, status_code=200)
async def reload(request: Request[Any, Any, Any]) -> dict[str, Any]:
    """Read turnout.yaml and the environment anew; what is wrong with them is answered, and nothing has changed then."""
    read_anew = cast("ReadAnew | None", request.scope.get(RELOAD))
    if read_anew is None:
        raise CannotRun("this process reads its settings once: start it by `turnout serve`")
    return {"changed": list((await read_anew()).changed)}

"""`/v1/files`: what fine-tuning jobs train on and what they give, as OpenAI's files."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any, Literal

from litestar import Request, Response, delete, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery, QueryParameter
from litestar.response import Stream

from service.api.strict_json import FORM
from service.api.threads import in_thread
from service.api.uploads import received
from service.context import Context
from service.fine_tuning import shapes
from service.fine_tuning.files import Files
from service.identity import Principal

AUTHOR = {"role": "author"}
AS_SENT = "application/octet-stream"
MOST_LISTED = 10_000
Limit = Annotated[int, QueryParameter(name="limit", ge=1, le=MOST_LISTED)]


@post("/v1/files", opt={**AUTHOR, "body": FORM}, status_code=200, request_max_body_size=None)  # the door bounds it
async def create_file(
    request: Request[Any, Any, Any], context: NamedDependency[Context], principal: NamedDependency[Principal]
) -> dict[str, Any]:
    """Upload a file of conversations, one a line, with the purpose `fine-tune`; `status_details` says what is wrong with it."""
    async with received(request, context.settings.home / "uploads") as found:
        record = await asyncio.to_thread(Files(context.database).keep, found, principal)
    return shapes.file_object(record)


@get("/v1/files", opt=AUTHOR)
@in_thread
def list_files(
    context: NamedDependency[Context],
    after: FromQuery[str | None] = None,
    limit: Limit = MOST_LISTED,
    order: FromQuery[Literal["asc", "desc"]] = "desc",
    purpose: FromQuery[str | None] = None,
) -> dict[str, Any]:
    """Files behind the file `after`, by the time of their upload, the newest first or (`asc`) last."""
    found, has_more = Files(context.database).page(
        after=after, limit=limit, newest_first=order == "desc", purpose=purpose
    )
    return shapes.page([shapes.file_object(record) for record in found], has_more=has_more)


@get("/v1/files/{file_id:str}", opt=AUTHOR)
@in_thread
def get_file(context: NamedDependency[Context], file_id: FromPath[str]) -> dict[str, Any]:
    """One file, without its content."""
    return shapes.file_object(Files(context.database).show(file_id))


@get("/v1/files/{file_id:str}/content", opt=AUTHOR, media_type=AS_SENT)
@in_thread
def get_file_content(context: NamedDependency[Context], file_id: FromPath[str]) -> Response[Any]:
    """The bytes of a file as they were sent."""
    return Stream(Files(context.database).content(file_id), media_type=AS_SENT)


@delete("/v1/files/{file_id:str}", opt=AUTHOR, status_code=200)
@in_thread
def delete_file(
    context: NamedDependency[Context], principal: NamedDependency[Principal], file_id: FromPath[str]
) -> dict[str, Any]:
    """Delete a file; an admin may delete another's. A job that has yet to read it fails."""
    Files(context.database).delete(file_id, principal)
    return {"id": file_id, "object": "file", "deleted": True}

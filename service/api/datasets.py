"""Datasets and the review queue of examples over HTTP."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

import pydantic
from litestar import Response, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery, JSONBody, QueryParameter
from litestar.response import Stream

from service.api.documented import also
from service.api.threads import in_thread
from service.assembling import DatasetRequest, as_lines
from service.collecting import CollectRequest
from service.context import Context
from service.identity import Principal
from service.reviewing import LONGEST_EXPECTED, MOST_LISTED, Status
from service.said import Said

AUTHOR = {"role": "author"}
JSON_LINES = "application/jsonl"
Limit = Annotated[int, QueryParameter(name="limit", ge=1, le=MOST_LISTED)]


class AcceptBody(pydantic.BaseModel, extra="forbid"):
    """The answer to learn, where it is not the one that was collected."""

    expected: str | None = pydantic.Field(None, max_length=LONGEST_EXPECTED)


class RejectBody(pydantic.BaseModel, extra="forbid"):
    """Why, for whoever looks at it later."""

    reason: Said | None = pydantic.Field(None, max_length=2_000)


@post("/api/datasets", opt=AUTHOR, response_description="new", responses=also(200, "it was there already"))
@in_thread
def create_dataset(
    context: NamedDependency[Context], principal: NamedDependency[Principal], data: JSONBody[DatasetRequest]
) -> Response[dict[str, Any]]:
    """A dataset of a suite's training, reviewed completions, files and examples (201); the same content again is 200."""
    made = context.datasets.create(data, principal)
    return Response(made, status_code=201 if made["created"] else 200)


@get("/api/datasets", opt=AUTHOR)
@in_thread
def list_datasets(
    context: NamedDependency[Context], prompt: FromQuery[str | None] = None, limit: Limit = 100
) -> list[dict[str, Any]]:
    """Datasets with their lineage, newest first."""
    return context.datasets.listing(prompt, limit)


@get("/api/datasets/{digest:str}", opt=AUTHOR)
@in_thread
def get_dataset(context: NamedDependency[Context], digest: FromPath[str]) -> dict[str, Any]:
    """A dataset by its digest or the beginning of it: lineage, and the report on its examples."""
    return context.datasets.show(digest)


@get("/api/datasets/{digest:str}/examples", opt=AUTHOR, media_type=JSON_LINES)
@in_thread
def get_dataset_examples(context: NamedDependency[Context], digest: FromPath[str]) -> Stream:
    """The examples of a dataset in their order, as JSON lines of `vars` and `expected`."""
    return Stream(as_lines(context.datasets.examples(digest)), media_type=JSON_LINES)


@post("/api/examples/collect", opt=AUTHOR, status_code=200)
async def collect_examples(
    context: NamedDependency[Context], principal: NamedDependency[Principal], data: JSONBody[CollectRequest]
) -> dict[str, Any]:
    """Put a prompt's corrected and approved completions into the review queue; each is collected once."""
    await context.request_log.flush()  # what was answered a moment ago may be rated already
    return await asyncio.to_thread(context.reviews.collect, data, principal)


@get("/api/examples", opt=AUTHOR)
@in_thread
def list_examples(
    context: NamedDependency[Context],
    prompt: FromQuery[str | None] = None,
    status: FromQuery[Status | None] = None,
    limit: Limit = 100,
    after: FromQuery[str | None] = None,
) -> list[dict[str, Any]]:
    """Candidates of examples, oldest first, those behind the candidate `after`."""
    return context.reviews.listing(prompt, status, limit, after)


@post("/api/examples/{example_id:str}/accept", opt=AUTHOR, status_code=200)
@in_thread
def accept_example(
    context: NamedDependency[Context],
    principal: NamedDependency[Principal],
    example_id: FromPath[str],
    data: JSONBody[AcceptBody | None] = None,
) -> dict[str, Any]:
    """Take a candidate as an example, with another answer where `expected` is given; 409 where it was decided."""
    return context.reviews.accept(example_id, principal, data.expected if data else None)


@post("/api/examples/{example_id:str}/reject", opt=AUTHOR, status_code=200)
@in_thread
def reject_example(
    context: NamedDependency[Context],
    principal: NamedDependency[Principal],
    example_id: FromPath[str],
    data: JSONBody[RejectBody | None] = None,
) -> dict[str, Any]:
    """Keep a candidate out of every dataset; 409 where it was decided."""
    return context.reviews.reject(example_id, principal, data.reason if data else None)

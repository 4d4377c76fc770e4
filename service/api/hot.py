"""The routes that applications use with every request, in one table, and their part of the OpenAPI document."""

from __future__ import annotations

from typing import Any

from litestar import Request
from litestar.openapi.plugins import JsonRenderPlugin

from service.api import chat, embeddings, rendering, responses
from service.api.direct import DirectRoute
from service.api.gatekeeper import FILES

_OBJECT = {"type": "object"}
_NAME = {"name": "name", "in": "path", "required": True, "schema": {"type": "string"}}
_VERSION = [
    {"name": "version", "in": "query", "schema": {"type": "integer", "minimum": 1}},
    {"name": "label", "in": "query", "schema": {"type": "string"}},
]


def _body(required: list[str], **properties: Any) -> dict[str, Any]:
    """A request's body of these fields and more."""
    schema = {"type": "object", "properties": properties, "required": required}
    return {"requestBody": {"required": bool(required), "content": {"application/json": {"schema": schema}}}}


_CHAT = _body(
    ["model"],
    model={"type": "string", "description": "`name`, `name@label`, `name@7` of a prompt, or a model alias"},
    messages={"type": "array", "items": _OBJECT},
    variables=_OBJECT,
    placeholders=_OBJECT,
    stream={"type": "boolean"},
    stream_options={"type": "object", "properties": {"include_usage": {"type": "boolean"}}},
    user={"type": "string"},
    safety_identifier={"type": "string"},
)
_RENDER = _body([], variables=_OBJECT, placeholders=_OBJECT, messages={"type": "array", "items": _OBJECT})

_RESPONSES = _body(
    [],
    prompt={
        "type": "object",
        "properties": {"id": {"type": "string"}, "version": {"type": ["string", "integer"]}, "variables": _OBJECT},
        "required": ["id"],
    },
    model={"type": "string"},
    input={"oneOf": [{"type": "string"}, {"type": "array", "items": _OBJECT}]},
    instructions={"type": "string"},
    stream={"type": "boolean"},
)
_EMBEDDINGS = _body(
    ["model", "input"],
    model={"type": "string", "description": "a model alias"},
    input={"oneOf": [{"type": "string"}, {"type": "array"}]},
    encoding_format={"enum": ["float", "base64"]},
    dimensions={"type": "integer"},
)

_FORM: dict[str, Any] = {
    "type": "object",
    "properties": {
        "file": {"type": "string", "format": "binary"},
        "purpose": {"enum": ["fine-tune"]},
        "expires_after[anchor]": {"enum": ["created_at"]},
        "expires_after[seconds]": {"type": "integer"},
    },
    "required": ["file", "purpose"],
}
_UPLOAD = {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": _FORM}}}}
HOT = (
    DirectRoute("POST", chat.PATH, "app", chat.chat_completions, _CHAT),
    DirectRoute("POST", responses.PATH, "app", responses.responses, _RESPONSES),
    DirectRoute("POST", "/v1/embeddings", "app", embeddings.embeddings, _EMBEDDINGS),
    DirectRoute("POST", "/api/prompts/{name}/render", "app", rendering.render, {**_RENDER, "parameters": [_NAME, *_VERSION]}),
    DirectRoute("GET", "/api/prompts/{name}/template", "app", rendering.get_template, {"parameters": [_NAME, *_VERSION]}),
)  # fmt: skip


_PROBLEM: dict[str, Any] = {
    "type": "object",
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "param": {"type": "string"},
        "faults": {"type": "array", "items": _OBJECT},
    },
    "required": ["type", "title", "status", "detail"],
}
_OPENAI_ERROR: dict[str, Any] = {
    "type": "object",
    "properties": {
        "error": {
            "type": "object",
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": ["string", "null"]},
            },
            "required": ["message", "type", "param", "code"],
        }
    },
    "required": ["error"],
}
_REFUSALS = {"4XX": "a request that its giver can mend", "5XX": "what cannot be done now"}


class WholeDocument(JsonRenderPlugin):
    """Litestar's document with the routes, the one body and the refusals that it does not know."""

    def render(self, request: Request[Any, Any, Any], openapi_schema: dict[str, Any]) -> bytes:
        paths = dict(openapi_schema.get("paths", {}))
        for route in HOT:
            paths[route.path] = {**paths.get(route.path, {}), route.method.lower(): _operation(route)}
        paths[FILES] = {**paths[FILES], "post": {**paths[FILES]["post"], **_UPLOAD}}
        whole = {
            path: {method: _answered(path, operation) for method, operation in operations.items()}
            for path, operations in paths.items()
        }
        return super().render(request, {**openapi_schema, "paths": whole})


def _answered(path: str, operation: dict[str, Any]) -> dict[str, Any]:
    """An operation with the refusals as they are sent, in place of Litestar's own; see `http_errors.shape`."""
    answers = {status: answer for status, answer in operation["responses"].items() if status != "400"}
    is_openai = path.startswith("/v1/")
    kind, schema = ("application/json", _OPENAI_ERROR) if is_openai else ("application/problem+json", _PROBLEM)
    for status, said in _REFUSALS.items():
        answers[status] = {"description": said, "content": {kind: {"schema": schema}}}
    return {**operation, "responses": answers}


def _operation(route: DirectRoute) -> dict[str, Any]:
    """OpenAPI's operation of a route: its handler's docstring, its fields, and that it answers."""
    said = (route.handler.__doc__ or "").strip()
    words = [word.strip("{}") for word in route.path.split("/") if word]
    return {
        "summary": said.partition("\n")[0],
        "description": said,
        "operationId": "".join(word.title().replace("_", "") for word in (*words, route.method)),
        "responses": {"200": {"description": "answered"}},
        "deprecated": False,
        **route.about,
    }

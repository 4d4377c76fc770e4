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


class WholeDocument(JsonRenderPlugin):
    """Litestar's document with the routes, and the one body, that it does not know."""

    def render(self, request: Request[Any, Any, Any], openapi_schema: dict[str, Any]) -> bytes:
        paths = dict(openapi_schema.get("paths", {}))
        for route in HOT:
            paths[route.path] = {**paths.get(route.path, {}), route.method.lower(): _operation(route)}
        paths[FILES] = {**paths[FILES], "post": {**paths[FILES]["post"], **_UPLOAD}}
        return super().render(request, {**openapi_schema, "paths": paths})


def _operation(route: DirectRoute) -> dict[str, Any]:
    """OpenAPI's operation of a route: its handler's docstring, its fields, and that it answers."""
    said = (route.handler.__doc__ or "").strip()
    words = [word.strip("{}") for word in route.path.split("/") if word]
    return {
        "summary": said.partition("\n")[0],
        "description": said,
        "operationId": "".join(word.title().replace("_", "") for word in (*words, route.method)),
        "responses": {"200": {"description": "answered"}, "400": {"description": "a request that its giver can mend"}},
        "deprecated": False,
        **route.about,
    }

"""Query parameters are held to what their handler takes: a misspelt one would else mean what none of it means."""

from __future__ import annotations

from typing import Any

from litestar import Request
from litestar.enums import ParamType
from litestar.handlers import BaseRouteHandler
from litestar.params import ParameterKwarg

from prompts.errors import BadInput

HELD = "/api/"


def refuse_unknown_query(request: Request[Any, Any, Any]) -> None:
    """Raise BadInput for a query parameter that no handler of this path and method takes, or that holds a NUL."""
    if not request.scope["query_string"] or not request.scope["path"].startswith(HELD):
        return
    known = known_query(request.scope["route_handler"])
    given = request.query_params
    for name in given:
        if name not in known:
            fix = f"give {', '.join(sorted(known))}" if known else "there are none here"
            raise BadInput(f"unknown query parameter {name[:80]!r}: {fix}", param=name[:80])
        if any("\0" in value for value in given.getall(name)):
            raise BadInput(f"{name}: a query holds no NUL: remove it", param=name)


def known_query(handler: BaseRouteHandler) -> frozenset[str]:
    """The query parameters that a handler's signature declares."""
    declared = handler.parsed_fn_signature.parameters.items()
    found = [
        given.name or name
        for name, field in declared
        if isinstance(given := field.kwarg_definition, ParameterKwarg) and not field.is_di_field
        if given.param_type is ParamType.QUERY
    ]
    return frozenset(found)

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
    """Raise BadInput for a path or query with a NUL, which no database keeps, and for a parameter that no handler takes.

    So too for one that is given twice, of which only one would count. OpenAI's paths take unknown parameters, as clients
    send those of newer versions.
    """
    if "\0" in request.scope["path"]:
        raise BadInput("the path holds a NUL (%00): no name here has one")
    if not request.scope["query_string"]:
        return
    is_held = request.scope["path"].startswith(HELD)
    known = known_query(request.scope["route_handler"]) if is_held else frozenset[str]()
    given = request.query_params
    for name in given:
        if is_held and name not in known:
            fix = f"give {', '.join(sorted(known))}" if known else "there are none here"
            raise BadInput(f"unknown query parameter {name[:80]!r}: {fix}", param=name[:80])
        if is_held and len(given.getall(name)) > 1:
            raise given_twice(name)
        if "\0" in name or any("\0" in value for value in given.getall(name)):
            shown = name[:80].replace("\0", "%00")
            raise BadInput(f"{shown}: a query holds no NUL: remove it", param=shown)


def given_twice(name: str) -> BadInput:
    """Of a parameter that no handler takes more than once."""
    return BadInput(f"the query gives {name!r} twice: remove one", param=name)


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

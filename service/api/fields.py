"""Fields of a request's body: each of the kind that it must be, or a BadInput that names it."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from typing import Any

from prompts.errors import BadInput

_KINDS = {str: "text", list: "a list", dict: "an object", bool: "true or false", int: "a whole number"}


def refuse_unknown(body: Mapping[str, Any], known: AbstractSet[str]) -> None:
    """Raise BadInput for a field that is not one of `known`."""
    if body.keys() <= known:
        return
    name = next(name for name in body if name not in known)
    raise BadInput(f"unknown field {name!r}", param=name)


def given(body: Mapping[str, Any], name: str, kind: type) -> Any:
    """The field `name`, None where it is not given or null. Raises BadInput where it is of another kind."""
    value = body.get(name)
    if value is None or type(value) is kind:
        return value
    raise BadInput(f"{name}: expected {_KINDS[kind]}, found {type(value).__name__}", param=name)


def needed(body: Mapping[str, Any], name: str, kind: type) -> Any:
    """The same for a field that must be there."""
    value = given(body, name, kind)
    if value is None:
        raise BadInput(f"{name}: expected {_KINDS[kind]}, found nothing", param=name)
    return value

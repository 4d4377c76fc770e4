"""Variables within assertions: `{{ name }}` is replaced by the case's variable, and nothing else is.

Not a template: no filters, no attributes, no code. What a variable holds is put in once and never read again.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

FILE = "file://"
MAX_DEPTH = 64  # of lists and mappings; what reads them later may recurse
_SLOT = re.compile(r"\{\{\s*([A-Za-z_][A-Za-z0-9_]*)\s*\}\}")
_TEMPLATE = re.compile(r"\{\{.*?\}\}|\{%.*?(?:%\}|$)", re.DOTALL)

Keys = tuple[str | int, ...]


def names_in(value: Any) -> set[str]:
    """Names of the variables that `value` refers to, however deep within it."""
    if isinstance(value, str):  # most values are: a data set has a million of them
        return set(_SLOT.findall(value)) if "{{" in value else set()
    return {name for _, text in walk_texts(value) for name in _SLOT.findall(text)}


def no_slot_in(value: Any) -> str:
    """The first piece of `value` that looks like a template and is no `{{ name }}`; "" where there is none."""
    if isinstance(value, str) and "{" not in value:
        return ""
    pieces = (found[0] for _, text in walk_texts(value) for found in _TEMPLATE.finditer(text))
    return next((piece for piece in pieces if not _SLOT.fullmatch(piece)), "")


def fill(value: Any, variables: Mapping[str, Any]) -> Any:
    """`value` with each `{{ name }}` replaced; what is not text is written as JSON. A name without value stays."""
    if isinstance(value, str):
        return _SLOT.sub(lambda slot: _text(variables.get(slot[1], slot[0])), value) if "{{" in value else value
    if isinstance(value, list):
        return [fill(item, variables) for item in value]
    if isinstance(value, dict):
        return {key: fill(item, variables) for key, item in value.items()}
    return value


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def walk_texts(value: Any, at: Keys = ()) -> Iterator[tuple[Keys, str]]:
    """Every text within `value` with the keys that lead to it."""
    if isinstance(value, str):
        yield at, value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from walk_texts(item, (*at, key))
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from walk_texts(item, (*at, index))


def names_of(value: Any) -> Iterator[Any]:
    """The keys of all mappings within `value`."""
    if isinstance(value, dict):
        yield from value
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from names_of(item)


def too_deep(value: Any) -> bool:
    """Whether lists and mappings within `value` nest beyond `MAX_DEPTH`. Does not recurse itself."""
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [item for parent in level for item in _children(parent)]
        if not level:
            return False
    return True


def _children(value: Any) -> list[Any]:
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [item for item in items if isinstance(item, dict | list)]

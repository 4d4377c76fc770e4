"""Text that means itself, and texts whose only code is `{{name}}`, as Jinja2 templates."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

_OPENERS = re.compile(r"\{[{%#]")


def literal(text: str) -> str:
    """A template that renders as exactly `text`."""
    return _OPENERS.sub(lambda found: "{{ '" + found[0] + "' }}", text)


def joined(pieces: Iterable[str]) -> str:
    """Pieces of template as one: a brace that ends a piece stays text, whatever follows it."""
    result = ""
    for piece in pieces:
        if result.endswith("{") and piece[:1] in ("{", "%", "#"):
            result = result[:-1] + "{{ '{' }}"
        result += piece
    return result


def with_variables(text: str, pattern: re.Pattern[str], name_of: Callable[[str], str | None]) -> str:
    """`text` with what `pattern` finds printed as the variable that `name_of` gives for its first group.

    Where `name_of` gives None, the text stays as it stands.
    """
    pieces: list[str] = []
    position = 0
    for found in pattern.finditer(text):
        name = name_of(found[1])
        if name is None:
            continue
        pieces += [literal(text[position : found.start()]), "{{ " + name + " }}"]
        position = found.end()
    return joined([*pieces, literal(text[position:])])

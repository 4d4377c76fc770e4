"""Text of strangers, as a terminal or a page may show it."""

from __future__ import annotations

import re

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")  # all but tab and line feed


def printable(text: str) -> str:
    """`text` with its control characters as escapes (`\\x1b`): none of them colours, moves or erases anything."""
    return _CONTROL.sub(lambda match: match[0].encode("unicode_escape").decode(), text)

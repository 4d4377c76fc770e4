"""Secrets in authors' files: the forms of well-known keys, found by their looks and never repeated.

What a key looks like says `prompts.redaction`. What only a name gives away (`api_key: …`) is a warning.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from prompts.errors import Fault, Level
from prompts.redaction import secrets_in

ALLOW = re.compile(r"#\s*turnout:\s*allow\s+secret\b")
RULE = "secret"
SHOWN_CHARACTERS = 4
_HEADER = re.compile(r"[|>][-+0-9]*(?:\s+#.*)?$")  # of a block of text: `key: |`


def secret_faults(text: str, path: str) -> Iterator[Fault]:
    """A fault for each secret in the text of one file.

    None on lines with the YAML comment `# turnout: allow secret`, nor within a block of text whose first line has it.
    """
    found = sorted(set(secrets_in(text)))
    lines = text.split("\n") if found else []  # most have none, and a text may be the cases of a large suite
    for start, kind, length, is_certain in found:
        index = text.count("\n", 0, start)
        if not _is_allowed(lines, index):
            shown = f"{text[start : start + SHOWN_CHARACTERS]}… ({length} characters)"
            level: Level = "error" if is_certain else "warning"
            yield Fault(path, index + 1, f"this looks like a secret: {kind} {shown}", _FIX, level, RULE)


_FIX = "take it out, make it invalid and get a new one; what is no secret gets the comment `# turnout: allow secret`"


def _is_allowed(lines: list[str], index: int) -> bool:
    """Whether the line has the comment, or the header of the block of text that it stands in."""
    if ALLOW.search(lines[index]):
        return True
    indent = _indent(lines[index])
    for line in reversed(lines[:index]):
        if line.strip() and _indent(line) < indent:
            if _HEADER.search(line.rstrip()):
                return ALLOW.search(line) is not None
            indent = _indent(line)
    return False


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip(" "))

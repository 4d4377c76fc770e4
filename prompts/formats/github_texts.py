"""Messages of GitHub's prompt files: `{{name}}` is filled in, everything else in them is text.

Our own files are templates of Jinja2. Which of the two a file is, its keys and its texts tell; GitHub's are turned into
templates that render the same, so that whatever comes after knows one kind alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from prompts.errors import TemplateRefused
from prompts.formats.literal import literal

_KEYS = frozenset({"name", "description", "model", "modelParameters", "responseFormat", "jsonSchema", "messages",
                   "testData", "evaluators"})  # fmt: skip
_STATEMENTS = frozenset([
    "autoescape", "block", "break", "call", "continue", "debug", "do", "elif", "else", "endautoescape",
    "endblock", "endcall", "endfilter", "endfor", "endif", "endmacro", "endraw", "endset", "endtrans",
    "endwith", "extends", "filter", "for", "from", "if", "import", "include", "macro", "pluralize", "raw",
    "set", "trans", "with",
])  # fmt: skip
_BLOCK = re.compile(r"\{%[-+]?\s*(\w+)")
_FILLED_OR_OPENER = re.compile(r"\{\{(.*?)\}\}|\{[#%]", re.DOTALL)
_ESCAPED = re.compile(r"\{\{ '(\{[#%])' \}\}")
_NAME = re.compile(r"\w+(?:[-. ]+\w+)*")
_OPERATORS = frozenset({"and", "or", "not", "in", "is", "if", "else"})


def is_github(data: Any) -> bool:
    """Whether the data of a prompt file has only keys of GitHub's format, and no statement of Jinja2 in its messages.

    A content of parts is ours.
    """
    if not isinstance(data, dict) or not data.keys() <= _KEYS or not isinstance(data.get("messages"), list):
        return False
    contents = [message.get("content") for message in data["messages"] if isinstance(message, dict)]
    return not any(isinstance(content, list) for content in contents) and not has_statements(
        content for content in contents if isinstance(content, str)
    )


def has_statements(texts: Iterable[str]) -> bool:
    """Whether one of `texts` holds a block that begins as a statement of Jinja2."""
    return any(word in _STATEMENTS for text in texts for word in _BLOCK.findall(text))


def as_template(text: str) -> str:
    """The template that gives what GitHub makes of `text`.

    Raises TemplateRefused with every `{{name}}` that Jinja2 would read as something else.
    """
    names = [found[1].strip() for found in _FILLED_OR_OPENER.finditer(text) if found[1] is not None]
    foreign = dict.fromkeys(name for name in names if _is_foreign(name))
    if foreign:
        renamed = ", ".join(f"write {_own_name(name)!r} for {name!r}" for name in foreign)
        raise TemplateRefused(f"a variable's name has letters, digits and _ alone, not first a digit: {renamed}")
    return _FILLED_OR_OPENER.sub(lambda found: found[0] if found[1] is not None else literal(found[0]), text)


def _is_foreign(name: str) -> bool:
    """Whether GitHub fills in such a name, and Jinja2 would compute something from it."""
    is_name = _NAME.fullmatch(name) is not None and not _OPERATORS & set(re.findall(r"\w+", name))
    return is_name and not name.isidentifier()


def _own_name(name: str) -> str:
    own = re.sub(r"\W+", "_", name)
    return f"v{own}" if own[0].isdigit() else own


def as_text(template: str) -> str:
    """The text that `as_template` makes `template` of, for a file that holds no statements."""
    return _ESCAPED.sub(lambda found: found[1], template)

"""Templates as text and substitutions, for clients that fill them without Jinja2 and get what the server gives.

Only a prompt whose every template is text and plain `{{ name }}` of string variables can be given so; all others are
rendered by the server. What a template means is read from Jinja2's own tree, so that its comments, its trimmed blanks
and its raw blocks need no second reader.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jinja2 import nodes

from prompts.messages import Message
from prompts.prompt import CompiledPrompt, PlaceholderSlot
from prompts.template import Template, syntax_tree
from prompts.variables import is_plain_string

Segment = dict[str, str]  # {"text": …} or {"variable": name}


def local_messages(prompt: CompiledPrompt) -> list[dict[str, Any]] | None:
    """The `messages` of `prompt` as a client fills them by itself.

    A message's content is a list of segments; few-shot examples come rendered, as text; `{"placeholder": name}` stands
    where a placeholder's messages go. None where some template or variable is more than that.
    """
    if not all(_is_local(schema) for schema in prompt.content.variables.values()):
        return None
    messages = []
    for piece in prompt.pieces:
        entry = _entry(piece)
        if entry is None:
            return None
        messages.append(entry)
    return messages


def _entry(piece: Any) -> dict[str, Any] | None:
    """One message, or None for one of content parts or with template code in it."""
    if isinstance(piece, PlaceholderSlot):
        return {"placeholder": piece.placeholder}
    if isinstance(piece, Message):
        return {"role": piece.role, "content": [{"text": piece.content}]} if isinstance(piece.content, str) else None
    template = getattr(piece, "template", None)
    content = segments(template) if isinstance(template, Template) else None
    return None if content is None else {"role": piece.role, "content": content}


def segments(template: Template) -> list[Segment] | None:
    """The template's text and substitutions in order; None where it holds anything else."""
    if template.plain is not None:
        return [{"variable": name} if name else {"text": text} for text, name in template.plain]
    found: list[Segment] = []
    for node in syntax_tree(template.source).body:
        if not isinstance(node, nodes.Output):
            return None
        for part in node.nodes:
            segment = _segment(part, template)
            if segment is None:
                return None
            found.append(segment)
    return found


def _segment(node: nodes.Expr, template: Template) -> Segment | None:
    if isinstance(node, nodes.TemplateData):
        return {"text": node.data}
    if isinstance(node, nodes.Const) and isinstance(node.value, str):  # how a text spells `{{` or `{#`
        return {"text": node.value}
    if isinstance(node, nodes.Name) and node.name in template.names:  # `range` is a name, too
        return {"variable": node.name}
    return None


def _is_local(schema: Mapping[str, Any]) -> bool:
    """A default of another type would be printed as Python prints it, which is no client's to know."""
    return is_plain_string(schema) and isinstance(schema.get("default", ""), str)

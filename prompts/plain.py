"""Templates of text and `{{ name }}` alone, as most prompts are: filled by joining, without running Jinja2's code.

They give the text that Jinja2 gives and take the same steps of the budget; whatever is not plainly so is left to Jinja2.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from jinja2 import nodes


class Part(NamedTuple):
    """A piece of a template: `text` as it stands, or the value of the variable `name`, "" for a text."""

    text: str
    name: str


Parts = tuple[Part, ...]


def plain_parts(tree: nodes.Template) -> Parts | None:
    """The pieces of `tree`, once its steps are counted; None where it holds anything else."""
    found: list[Part] = []
    for output in tree.body:
        if not isinstance(output, nodes.Output):
            return None
        for node in output.nodes:
            if isinstance(node, nodes.TemplateData):
                found.append(Part(node.data, ""))
            elif isinstance(node, nodes.Name):
                found.append(Part("", node.name))
            else:
                return None
    return tuple(found)


def filled(parts: Parts, variables: Mapping[str, Any], characters_a_step: int) -> tuple[str, int] | None:
    """The text of `parts` and the steps that printing its values takes.

    None where a value is missing, is no text, or holds half a character: what that means is Jinja2's to say.
    """
    pieces: list[str] = []
    steps = 0
    for text, name in parts:
        if not name:
            pieces.append(text)
            continue
        value = variables.get(name)
        if type(value) is not str:
            return None
        steps += len(value) // characters_a_step
        pieces.append(value)
    whole = "".join(pieces)
    return None if _has_half_a_character(whole) else (whole, steps)


def _has_half_a_character(text: str) -> bool:
    """Whether a surrogate stands alone in `text`, which then cannot be sent."""
    if text.isascii():
        return False
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False

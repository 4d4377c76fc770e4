"""Nunjucks as Jinja2: what the two spell differently, and texts that are filled while a file is imported.

https://mozilla.github.io/nunjucks/templating.html — a name without value prints as nothing there, and is refused here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from prompts.template import Template

_SPAN = re.compile(r"\{\{.*?\}\}|\{%.*?%\}", re.S)
_QUOTED = re.compile(r"(\"(?:[^\"\\]|\\.)*\"|'(?:[^'\\]|\\.)*')")
_SPELT = (
    (re.compile(r"\belseif\b"), "elif"),
    (re.compile(r"\basync(?:Each|All)\b"), "for"),
    (re.compile(r"\bend(?:each|all)\b"), "endfor"),
    (re.compile(r"!==(?!=)"), "!="),
    (re.compile(r"==="), "=="),
    (re.compile(r"&&"), " and "),
    (re.compile(r"\|\|"), " or "),
    (re.compile(r"\|\s*dump\b"), "| tojson"),
    (re.compile(r"\|\s*nl2br\b"), "| replace('\\n', '<br />\\n')"),
    (re.compile(r"\s*\|\s*safe\b"), ""),
    (re.compile(r"\b(\w+(?:\.\w+)*)\.length\b"), r"\1|length"),
    (re.compile(r"(?<![\w.])(?:null|undefined)\b"), "none"),
)
_UNFINISHED = re.compile(r"(\{%[^%]*$|\{\{[^}]*$|\{#[^#]*$)", re.M)
_ENV = re.compile(r"\{\{-?\s*env\.(\w+)\s*-?\}\}")
_MOST_ROUNDS = 5  # of variables within variables, as in promptfoo
_SLOT = re.compile(r"\{\{\s*(\w+)\s*\}\}")


def as_jinja(source: str) -> str:
    """A Nunjucks template as Jinja2; a text that only looks like one (`{{` that never ends) stands for itself."""
    if _UNFINISHED.search(source) and "endraw" not in source:
        return f"{{% raw %}}{source}{{% endraw %}}"
    return _SPAN.sub(lambda span: _rewritten(span[0]), source)


def _rewritten(span: str) -> str:
    """One tag with what Nunjucks spells differently in Jinja2's way; quoted text stays."""
    pieces = _QUOTED.split(span)
    for pattern, other in _SPELT:
        pieces[::2] = [pattern.sub(other, piece) for piece in pieces[::2]]
    return "".join(pieces)


def filled(source: str, values: Mapping[str, Any]) -> str:
    """A Nunjucks text with its values put in; a name without one prints as nothing.

    Raises BadInput where it is no template that can be read here, or asks a value for what it has not.
    """
    if "{{" not in source and "{%" not in source and "{#" not in source:
        return source
    template = Template(as_jinja(source))
    return template.render({name: printed(values.get(name, "")) for name in template.names})


def printed(value: Any) -> Any:
    """A value that prints as JavaScript prints it: 2.0 as 2, nothing as nothing."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return "" if value is None else value


def with_environment(data: Any, environment: Mapping[str, str]) -> Any:
    """`data` with each `{{ env.NAME }}` in its texts replaced; a name that is not there prints as nothing."""
    if isinstance(data, str):
        return _ENV.sub(lambda found: environment.get(found[1], ""), data) if "env." in data else data
    if isinstance(data, list):
        return [with_environment(item, environment) for item in data]
    if isinstance(data, dict):
        return {key: with_environment(item, environment) for key, item in data.items()}
    return data


def resolved(variables: Mapping[str, Any]) -> dict[str, Any]:
    """Variables with the variables that their texts name put in, as promptfoo does before it renders a prompt.

    Raises BadInput where one holds a template that cannot be read here.
    """
    made = {name: value.removesuffix("\n") if isinstance(value, str) else value for name, value in variables.items()}
    for _ in range(_MOST_ROUNDS):
        before = dict(made)
        for name, value in before.items():
            if isinstance(value, str) and "{{" in value:
                made[name] = _SLOT.sub(lambda slot: _text_of(made, slot), value)
        if made == before:
            break
    return {name: _rendered(value, made) if isinstance(value, str) else value for name, value in made.items()}


def _text_of(values: Mapping[str, Any], slot: re.Match[str]) -> str:
    if slot[1] not in values:
        return slot[0]
    value = printed(values[slot[1]])
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _rendered(value: str, values: Mapping[str, Any]) -> str:
    """A variable's text as a template, unless it names what is not there: then it stands for itself."""
    if ("{{" not in value and "{%" not in value) or _UNFINISHED.search(value):
        return value
    template = Template(as_jinja(value))
    return filled(value, values) if template.names <= values.keys() else value


__all__ = ["as_jinja", "filled", "printed", "resolved", "with_environment"]

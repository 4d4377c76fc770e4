"""Chat templates of models: Jinja2 of strangers, rendered as transformers renders it, in our sandbox and its budget.

transformers' sandbox keeps a template from Python's attributes, not from running for hours or filling the memory; ours
counts steps and output (see `template`). It is opened just as far as the chat templates of the model families need: names
and keys that are not there are empty, methods of text, `dict`, `raise_exception`, `strftime_now`, `{% generation %}`.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser

from prompts.errors import BadInput, RenderError
from prompts.template import MAX_STEPS, SandboxedEnvironment, generated, json_text, make_environment, rendered, replaced

MAX_CHARACTERS = 1 << 20  # of a template: the longest of a known model has 20,000
STEPS_A_MESSAGE = 500  # more than the tests and filters that the families' templates do to each
_MOST_OF_A_DATE = 100
_MORE_TEXT_METHODS = frozenset(
    {"index", "isalnum", "isalpha", "isdigit", "islower", "isspace", "isupper", "partition", "replace", "rfind"}
    | {"rpartition", "rsplit"}
)


def render_chat(tokenizer: Any, messages: Sequence[Mapping[str, Any]], *, opens_answer: bool) -> str:
    """The text of `messages` in the chat template of `tokenizer`, with the beginning of an answer where it `opens_answer`.

    Raises BadInput where the model has no chat template, or the template refuses the messages, is none, asks for what no
    template may, or takes more than its budget.
    """
    named = {name: _text(value) for name, value in tokenizer.special_tokens_map.items()}
    try:
        return rendered(
            _compiled(template_of(tokenizer)),
            {
                **named,
                "messages": [dict(message) for message in messages],
                "tools": None,
                "documents": None,
                "add_generation_prompt": opens_answer,
            },
            steps=MAX_STEPS + STEPS_A_MESSAGE * len(messages),
        )
    except RenderError as error:
        raise BadInput(f"the model's chat template refused the messages: {error}", param="messages") from error


def template_of(tokenizer: Any) -> str:
    """The source of a tokenizer's chat template. Raises BadInput where it has none."""
    found = tokenizer.chat_template
    if isinstance(found, Mapping):
        found = found.get("default")
    if not found:
        raise BadInput(
            "the model has no chat template, so nobody knows how it reads messages: name a file with one (Jinja) by"
            " `chat_template` of the model in turnout.yaml",
            param="chat_template",
        )
    return str(found)


def _text(value: Any) -> Any:
    return [_text(item) for item in value] if isinstance(value, list | tuple) else str(value)


@functools.lru_cache(maxsize=16)
def _compiled(source: str) -> jinja2.Template:
    if len(source) > MAX_CHARACTERS:
        raise BadInput(f"the model's chat template has {len(source):,} characters: at most {MAX_CHARACTERS:,} are read")
    try:
        tree = _environment.parse(source)
    except jinja2.TemplateSyntaxError as error:
        raise BadInput(f"the model's chat template is none: line {error.lineno}: {error.message}") from error
    except (RecursionError, MemoryError, ValueError) as error:
        raise BadInput(f"the model's chat template is none: {type(error).__name__}") from error
    return generated(tree, _environment)[1]


class _Generation(Extension):
    """`{% generation %}`, which marks what the assistant says for those who train on it: its content, as it is."""

    tags = {"generation"}  # noqa: RUF012  # Jinja2's own annotation

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        return nodes.Scope(parser.parse_statements(("name:endgeneration",), drop_needle=True), lineno=line)


class _ChatEnvironment(SandboxedEnvironment):
    def call(self, context: Any, obj: Any, /, *args: Any, **kwargs: Any) -> Any:
        text = getattr(obj, "__self__", None)
        if isinstance(text, str) and getattr(obj, "__name__", "") == "replace":
            return super().call(context, replaced, text, *args, **kwargs)
        return super().call(context, obj, *args, **kwargs)

    @staticmethod
    def _is_open(obj: Any, attribute: str) -> bool:
        more = isinstance(obj, str) and attribute in _MORE_TEXT_METHODS
        return more or SandboxedEnvironment._is_open(obj, attribute)

    def _refuse(self, obj: Any, attribute: str) -> Any:
        """As in Jinja2, what an object does not have is empty; what it has and must not be used is still refused."""
        if attribute.startswith("_") or (hasattr(type(obj), attribute) and not isinstance(obj, Mapping)):
            raise SecurityError(f"attribute {attribute!r} of {type(obj).__name__} is not open to templates")
        return self.undefined(obj=obj, name=attribute)


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    return json_text(value, indent, ensure_ascii=ensure_ascii, separators=separators, sort_keys=sort_keys)


def _refuse_messages(message: str) -> None:
    raise jinja2.TemplateError(message)


def _now(form: str) -> str:
    return datetime.now().strftime(form[:_MOST_OF_A_DATE])  # the local day, as transformers gives it


def _dict(**pairs: Any) -> dict[str, Any]:
    return pairs


def _make() -> _ChatEnvironment:
    options = {"trim_blocks": True, "lstrip_blocks": True, "extensions": [_Generation, loopcontrols]}
    environment = make_environment(_ChatEnvironment, jinja2.Undefined, **options)
    environment.filters["tojson"] = environment.budgeted(_tojson)
    environment.filters |= {"length": len, "count": len}  # without a walk through all messages for each of them
    environment.globals |= {"raise_exception": _refuse_messages, "strftime_now": _now, "dict": _dict}
    return environment


_environment = _make()

"""What is likely wrong with a prompt that can be read: looked for without rendering it or asking any model.

Each finding is a `Fault` with a stable `rule`. An error is certain to hurt (a declared variable that nothing uses); a
warning may be meant.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from jinja2 import nodes

from prompts.errors import Fault
from prompts.formats.prompt_yml import PromptSource
from prompts.parameters import unknown_parameters
from prompts.prompt import MessageTemplate, PromptContent
from prompts.template import Template, begins_with_text, syntax_tree

_PASSING_FILTERS = frozenset({"trim", "lower", "upper", "title", "capitalize", "string", "replace"})  # "" stays ""


def lint_prompt(source: PromptSource, content: PromptContent, unread: Sequence[str] = ()) -> Iterator[Fault]:
    """Findings in one prompt; `content` is what `prompts.registry.resolve` made of `source`.

    `unread` names the includes that could not be taken: what they may hold is nowhere in `content`.
    """
    yield from _unused_variables(source, content, unread)
    if not unread:
        yield from _empty_messages(source, content)
    yield from _unknown_parameters(source)


def _unknown_parameters(source: PromptSource) -> Iterator[Fault]:
    """Servers have parameters of their own, so that one which is not known is not certain to be wrong."""
    for found in unknown_parameters(source.content.parameters):
        place = ("modelParameters", found.name)
        message = f"modelParameters.{found.message}"
        yield source.document.fault(message, *place, fix=found.fix, level="warning", rule="unknown-parameter")


def _unused_variables(source: PromptSource, content: PromptContent, unread: Sequence[str]) -> Iterator[Fault]:
    """Variables that neither the prompt nor what it includes uses; without includes the file is refused before."""
    if not source.includes:
        return
    used = {name for message in content.templates for text in message.texts for name in Template(text).names}
    where = f"unless by {', '.join(unread)}, which cannot be included" if unread else "nor by what is included"
    for name in sorted(source.variables.keys() - used):
        yield source.document.fault(
            f"variable {name!r} is never used, {where}",
            "variables",
            name,
            fix="use it or remove it",
            level="warning" if unread else "error",
            rule="unused-variable",
        )


def _empty_messages(source: PromptSource, content: PromptContent) -> Iterator[Fault]:
    for index, message in enumerate(content.messages):
        if isinstance(message, MessageTemplate) and _may_be_empty(message, content.variables):
            names = sorted(
                name
                for text in message.texts
                for name in Template(text).names
                if allows_empty(content.variables.get(name, {}))
            )
            yield source.document.fault(
                f"the {message.role} message may be empty: nothing but variables makes its text",
                "messages",
                index,
                "content",
                fix=_fix(names),
                level="warning",
                rule="empty-message",
            )


def _fix(names: list[str]) -> str:
    if not names:
        return "write some text outside of the condition, or an {% else %}"
    return f"give {', '.join(dict.fromkeys(names))} `minLength: 1`, or write some text beside"


def _may_be_empty(message: MessageTemplate, variables: Mapping[str, Any]) -> bool:
    """Whether some values of the variables make no text at all, and no other part either."""
    if not isinstance(message.content, str) and any(part["type"] != "text" for part in message.content):
        return False
    return all(
        not begins_with_text(text) and _gives_nothing(syntax_tree(text).body, variables) for text in message.texts
    )


def _gives_nothing(body: list[nodes.Node], variables: Mapping[str, Any]) -> bool:
    """Whether every statement of `body` may give no more than blanks. What is not understood gives something."""
    return all(_statement_gives_nothing(node, variables) for node in body)


def _statement_gives_nothing(node: nodes.Node, variables: Mapping[str, Any]) -> bool:
    if isinstance(node, nodes.Output):
        return all(_expression_is_empty(part, variables) for part in node.nodes)
    if isinstance(node, nodes.If):
        return _branches_give_nothing(node, variables)
    if isinstance(node, nodes.For):
        schema = _schema_of(node.iter, variables)
        runs = schema is not None and schema.get("minItems", 0) >= 1
        return _gives_nothing(node.body if runs else node.else_, variables)
    return isinstance(node, nodes.Assign | nodes.AssignBlock | nodes.Macro)


def _branches_give_nothing(node: nodes.If, variables: Mapping[str, Any]) -> bool:
    """Whether some branch that can be taken gives nothing."""
    if _gives_nothing(node.body, _where_true(node.test, variables)):
        return True
    if any(_branches_give_nothing(branch, variables) for branch in node.elif_):
        return True
    schema = _schema_of(node.test, variables)
    always = schema is not None and _is_string(schema) and not allows_empty(schema)
    return not always and not node.elif_ and _gives_nothing(node.else_, variables)


def _where_true(test: nodes.Node | None, variables: Mapping[str, Any]) -> Mapping[str, Any]:
    """What is known of the variables where `test` held: one that was asked about is not empty."""
    if isinstance(test, nodes.And):
        return _where_true(test.right, _where_true(test.left, variables))
    if isinstance(test, nodes.Filter) and test.name in _PASSING_FILTERS:
        return _where_true(test.node, variables)
    if isinstance(test, nodes.Name) and test.name in variables:
        return {**variables, test.name: {**variables[test.name], "minLength": 1}}
    return variables


def _expression_is_empty(node: nodes.Node, variables: Mapping[str, Any]) -> bool:
    if isinstance(node, nodes.TemplateData):
        return not node.data.strip()
    if isinstance(node, nodes.Const):
        return bool(node.value == "")
    if isinstance(node, nodes.Filter) and node.name in _PASSING_FILTERS and node.node is not None:
        return _expression_is_empty(node.node, variables)
    schema = _schema_of(node, variables)
    return schema is not None and allows_empty(schema)


def _schema_of(node: nodes.Node | None, variables: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The JSON Schema of `name`, `name.key` or `name['key']`; None for anything else."""
    if isinstance(node, nodes.Name):
        found = variables.get(node.name)
    elif isinstance(node, nodes.Getattr):
        found = _property(_schema_of(node.node, variables), node.attr)
    elif isinstance(node, nodes.Getitem) and isinstance(node.arg, nodes.Const):
        found = _property(_schema_of(node.node, variables), node.arg.value)
    else:
        found = None
    return found if isinstance(found, Mapping) else None


def _property(schema: Mapping[str, Any] | None, key: Any) -> Any:
    properties = schema.get("properties") if schema else None
    return properties.get(key) if isinstance(properties, Mapping) else None


def _is_string(schema: Mapping[str, Any]) -> bool:
    return schema.get("type") == "string"


def allows_empty(schema: Mapping[str, Any]) -> bool:
    """Whether a JSON Schema of one variable clearly accepts the text ""; False where only its parts would tell."""
    kinds = schema.get("type")
    if kinds != "string" and not (isinstance(kinds, list) and "string" in kinds):
        return False
    if schema.get("minLength", 0) >= 1 or schema.keys() & {"allOf", "anyOf", "oneOf", "not", "$ref", "pattern"}:
        return False
    return bool(schema.get("const", "") == "" and "" in schema.get("enum", [""]))

"""Dotprompt (`*.prompt`, Genkit): YAML front matter, Picoschema and Handlebars.

https://google.github.io/dotprompt/reference/frontmatter/ and …/template/. Text before the first `{{role}}` is the user's;
`{{history}}` becomes a placeholder that a request may leave out; `{{media url=…}}` becomes an image part.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from prompts.formats.handlebars import Converter, Variables, message_helper
from prompts.formats.handlebars_syntax import Block, Call, Include, Literal, Node, Output, Path, Text
from prompts.formats.imported import (
    Foreign,
    Imported,
    Notes,
    fit_variable,
    front_matter,
    shortened,
    text_of,
    without_nothing,
)
from prompts.formats.parameters import function_tool, model_parameters, output_keys, schema_keys, tool_choice
from prompts.formats.picoschema import json_schema
from prompts.formats.variable_schemas import like, of_properties, valid, with_default

SUFFIX = ".prompt"
_KNOWN = {"model", "config", "input", "output", "tools", "toolDefs", "toolChoice", "name", "description"}
_ROLES = {"system": "system", "user": "user", "model": "assistant", "assistant": "assistant", "developer": "developer"}
_ELSEWHERE = {
    "version": "versions are numbered when a prompt is pushed",
    "variant": "a variant is a prompt of its own, called by its path",
    "maxTurns": "how often tools are called is the application's choice",
    "returnToolRequests": "tools are always called by the application",
}


def read_dotprompt(foreign: Foreign) -> Imported:
    """One `.prompt` file; raises BadFile where its template has no meaning as messages."""
    notes = Notes(foreign.path)
    document, body, line = front_matter(foreign)
    head = document.data
    if head:  # only then white space around the template has no meaning
        line += body[: len(body) - len(body.lstrip())].count("\n")
        body = body.strip()
    notes.rest(head, _KNOWN | _ELSEWHERE.keys())
    for key in (key for key in head if key in _ELSEWHERE):
        notes.leave(key, shortened(head[key]), _ELSEWHERE[key])
    variables = Variables(_inputs(head.get("input"), notes), notes)
    messages = _Messages(Converter(variables, notes, foreign.partials), notes)
    messages.add(messages.converter.read(body, line))
    keys = _head_keys(head, notes) | messages.keys(line)
    keys["variables"] = variables.found(keep_unused=messages.converter.includes)
    if not keys["variables"]:
        del keys["variables"]
    return Imported({foreign.name: without_nothing(keys)}, left_out=notes.found)


def _head_keys(head: Mapping[str, Any], notes: Notes) -> dict[str, Any]:
    config = head.get("config")
    if config is not None and not isinstance(config, Mapping):
        notes.leave("config", shortened(config), "settings are keys and values")
        config = None
    keys = {key: text_of(head.get(key), key, notes) for key in ("name", "description", "model")}
    return {
        **keys,
        "modelParameters": model_parameters(config or {}, notes, "config."),
        "tools": _tools(head, notes),
        "toolChoice": tool_choice(head.get("toolChoice"), notes, "toolChoice"),
        **_output(head.get("output"), notes),
    }


def _tools(head: Mapping[str, Any], notes: Notes) -> list[dict[str, Any]]:
    found = []
    for key in ("tools", "toolDefs"):
        given = head.get(key)
        for index, tool in enumerate(given if isinstance(given, list) else [given] if given else []):
            made = (
                function_tool(_with_schema(tool, notes, key), notes, f"{key}.{index}")
                if isinstance(tool, Mapping)
                else None
            )
            if made is None:
                notes.leave(
                    f"{key}.{index}", shortened(tool), "a tool named in code: write its parameters under `tools`"
                )
            else:
                found.append(made)
    return found


def _with_schema(tool: Mapping[str, Any], notes: Notes, at: str) -> dict[str, Any]:
    """The tool with its input as JSON Schema, written in Picoschema or not."""
    made = dict(tool)
    for key in ("inputSchema", "parameters"):
        if key in made and (schema := _schema(made[key], notes, f"{at}.{key}")) is not None:
            made[key] = schema
    if "outputSchema" in made:
        notes.leave(f"{at}.outputSchema", shortened(made.pop("outputSchema")), "a tool's result has no schema here")
    return made


def _schema(value: Any, notes: Notes, at: str) -> dict[str, Any] | None:
    try:
        return json_schema(value)
    except ValueError as error:
        notes.leave(at, shortened(value), str(error))
        return None


def _inputs(declared: Any, notes: Notes) -> dict[str, dict[str, Any]]:
    if not isinstance(declared, Mapping):
        if declared is not None:
            notes.leave("input", shortened(declared), "inputs are declared as `input: {schema: …}`")
        return {}
    notes.rest(declared, {"schema", "default"}, "input.")
    schema = _schema(declared["schema"], notes, "input.schema") if declared.get("schema") else None
    if schema is not None and schema.get("type") != "object":
        notes.leave("input.schema", shortened(declared["schema"]), "variables have names: the input must be an object")
        schema = None
    found = of_properties(schema, notes, "input.schema") if schema else {}
    defaults = declared.get("default")
    for name, value in (defaults if isinstance(defaults, Mapping) else {}).items():
        base = {key: word for key, word in found.get(name, {}).items() if key != "default"}
        found[name] = with_default(base or like(value), value, notes, f"input.default.{name}")
    return valid(found, notes, "input.schema")


def _output(declared: Any, notes: Notes) -> dict[str, Any]:
    if not isinstance(declared, Mapping):
        return output_keys(declared, notes, "output")
    notes.rest(declared, {"format", "schema", "contentType"}, "output.")
    form = declared.get("format")
    if declared.get("contentType") not in (None, "application/json", "text/plain"):
        notes.leave("output.contentType", shortened(declared["contentType"]), "answers are text or JSON")
    if declared.get("schema") is not None:
        schema = _schema(declared["schema"], notes, "output.schema")
        return schema_keys(schema, notes, "output.schema") if schema else {"responseFormat": "json_object"}
    return output_keys(form, notes, "output.format")


class _Messages:
    """Top-level nodes as messages, parts and placeholders."""

    def __init__(self, converter: Converter, notes: Notes) -> None:
        self.converter = converter
        self._notes = notes
        self._made: list[dict[str, Any]] = []
        self._placeholders: dict[str, Any] = {}
        self._role, self._open = "user", list[Node]()

    def add(self, nodes: Sequence[Node]) -> None:
        for node in nodes:
            conversation = conversation_of(node) if isinstance(node, Block) else None
            inlined = self.converter.inlined_nodes(node) if isinstance(node, Include) else None
            if inlined is not None:
                self.add(inlined)
            elif conversation:
                self._placeholder(conversation)
            elif isinstance(node, Block) and node.call.name == "role":
                self._begin(node.call, node.line)
                self.add(node.body)
                self._close()
            elif isinstance(node, Output) and (helper := message_helper(node)) in ("role", "history", "section"):
                self._helper(helper, node)
            else:
                self._open.append(node)

    def _helper(self, name: str, node: Output) -> None:
        if name == "history":
            self._placeholder("history")
            self._role = "assistant"
        elif name == "section":
            self._notes.leave(
                node.line, "section", "the format is asked for by `responseFormat`: sections are not kept"
            )
        elif isinstance(node.value, Call):
            self._begin(node.value, node.line)

    def _begin(self, call: Call, line: int) -> None:
        self._close()
        given = call.args[0] if call.args else None
        role = _ROLES.get(str(given.value)) if isinstance(given, Literal) else None
        if role is None:
            shown = given.value if isinstance(given, Literal) else "a value"
            fix = "roles are system, user and model; messages of a request come by a placeholder"
            self._notes.refuse(line, f"the role is {shown!r}", fix)
        self._role = role

    def _placeholder(self, name: str) -> None:
        self._close()
        fitted = fit_variable(name)
        self.converter.variables.drop(name)
        self._placeholders[fitted] = {"default": []}
        self._made.append({"placeholder": fitted})

    def _close(self) -> None:
        nodes, self._open = self._open, []
        if not any(not isinstance(node, Text) or node.text.strip() for node in nodes):
            return
        content = self._content(nodes)
        if content:
            self._made.append({"role": self._role, "content": content})

    def _content(self, nodes: list[Node]) -> str | list[dict[str, Any]]:
        if not any(isinstance(node, Output) and message_helper(node) == "media" for node in nodes):
            return self.converter.template(nodes)
        parts: list[dict[str, Any]] = []
        text: list[Node] = []
        for node in nodes:
            if isinstance(node, Output) and isinstance(node.value, Call) and message_helper(node) == "media":
                parts += [*self._text_part(text), *self._image(node.value, node.line)]
                text = []
            else:
                text.append(node)
        return [*parts, *self._text_part(text)]

    def _text_part(self, nodes: list[Node]) -> list[dict[str, Any]]:
        text = self.converter.template(nodes)
        return [{"type": "text", "text": text}] if text.strip() else []

    def _image(self, call: Call, line: int) -> list[dict[str, Any]]:
        named = dict(call.named)
        kind = named.get("contentType")
        if isinstance(kind, Literal) and not str(kind.value).startswith("image/"):
            self._notes.leave(line, f"media {kind.value}", "parts are text and images")
            return []
        if kind is not None:
            self._notes.leave(line, "contentType", "an image's URL says what it is")
        if "url" not in named:
            self._notes.refuse(line, "{{media}} without url", "write {{media url=…}}")
        url = self.converter.value(named["url"], "text", line)
        text = str(named["url"].value) if isinstance(named["url"], Literal) else "{{ " + url.expression + " }}"
        return [{"type": "image_url", "image_url": {"url": text}}]

    def keys(self, line: int) -> dict[str, Any]:
        """`messages` and `placeholders`; raises BadFile where there is no message."""
        self._close()
        if not self._made:
            self._notes.refuse(line, "the template is empty", "write the prompt below the front matter")
        return {"messages": self._made, "placeholders": self._placeholders}


def conversation_of(node: Block) -> str:
    """The list behind `{{#each messages}}{{role this.role}}{{this.content}}{{/each}}`; nothing for other blocks."""
    body = [inner for inner in node.body if not (isinstance(inner, Text) and not inner.text.strip())]
    over = node.call.args[0] if len(node.call.args) == 1 else None
    if not isinstance(over, Path) or len(over.parts) != 1 or over.up or over.data or node.otherwise:
        return ""
    if node.call.name == "if" and len(body) == 1 and isinstance(body[0], Block):
        return conversation_of(body[0]) if body[0].call.args == node.call.args else ""
    if node.call.name != "each" or len(body) != 2 or not all(isinstance(inner, Output) for inner in body):
        return ""
    role, content = (inner.value for inner in body if isinstance(inner, Output))
    says_role = isinstance(role, Call) and role.name == "role" and _is_item(role.args[:1], ("role",))
    return over.parts[0] if says_role and _is_item((content,), ("content", "text")) else ""


def _is_item(values: Sequence[Any], names: tuple[str, ...]) -> bool:
    return bool(values) and isinstance(values[0], Path) and values[0].parts[-1:] != () and values[0].parts[-1] in names

"""Prompty (`*.prompty`), versions 1 and 2, and promptflow's: YAML front matter, and a body of `system:` and `user:` lines.

https://prompty.ai/docs/ — the body is Jinja2 unless `template` says Mustache or Handlebars. What one would run with
(`sample`) becomes the `examples` of each variable's schema.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from prompts.errors import TemplateRefused
from prompts.formats.handlebars import Converter, Variables
from prompts.formats.imported import (
    Foreign,
    Imported,
    Notes,
    fit_variable,
    front_matter,
    shortened,
    text_of,
    texts_of,
    without_nothing,
)
from prompts.formats.parameters import function_tool, model_parameters, output_keys, schema_keys, tool_choice
from prompts.formats.variable_schemas import (
    inferred_from_jinja,
    kind_schema,
    learnt_from_jinja,
    like,
    optional,
    valid,
    with_default,
    with_sample,
)
from prompts.template import Template

SUFFIX = ".prompty"
_KNOWN = {
    "name",
    "description",
    "model",
    "inputs",
    "outputs",
    "sample",
    "tags",
    "tools",
    "template",
    "metadata",
    "base",
}
_RICH = ("thread", "image", "file", "audio")
_ROLE_LINE = re.compile(
    r"^[ \t]*#?[ \t]*(system|user|assistant|developer|function|tools?)[ \t]*(\[[^\]\n]*\])?[ \t]*:[ \t]*\r?$",
    re.I | re.M,
)
_CONVERSATION = re.compile(
    r"\{%-?\s*for\s+(\w+)\s+in\s+(\w+)\s*-?%\}\s*#?\s*"
    r"\{\{-?\s*\1(?:\.role|\[['\"]role['\"]\])\s*-?\}\}\s*:?\s*"
    r"\{\{-?\s*\1(?:\.content|\[['\"]content['\"]\])\s*-?\}\}\s*\{%-?\s*endfor\s*-?%\}"
)
_IMAGE = re.compile(r"!\[[^\]\n]*\]\(((?:\{\{.*?\}\}|[^)\n])*)\)")
_SLOT = re.compile(r"\0placeholder (\w+)\0")
_BLOCK = re.compile(r"\{%-?\s*(end)?(if|for|macro|filter|call|with|raw)\b")
_FILE = re.compile(r"\$\{file:([^}]*)\}")
_ENVIRONMENT = re.compile(r"\$\{(?!file:)[^}]*\}")


@dataclass(frozen=True, slots=True)
class _Segment:
    """What stands between two role lines: its role, its text, and the line of the file where it begins."""

    role: str
    text: str
    line: int


def read_prompty(foreign: Foreign) -> Imported:
    """One `.prompty` file; raises BadFile where its body has no meaning as messages."""
    notes = Notes(foreign.path)
    document, body, line = front_matter(foreign)
    head = dict(document.data)
    if isinstance(head.get("sample"), str) and head["sample"].endswith(".json"):
        head["sample"] = "${file:" + head["sample"] + "}"  # the older way to name a file
    head = {key: _followed(value, foreign, notes, key) for key, value in head.items()}
    for ours, other in (("inputs", "inputSchema"), ("outputs", "outputSchema")):
        if other in head and ours not in head:
            head[ours] = head.pop(other)
    notes.rest(head, _KNOWN | {"authors"})
    if head.get("authors"):
        notes.leave("authors", shortened(head["authors"]), "who made a version is recorded when it is pushed")
    inputs, rich = _inputs(head, notes)
    body_keys = _Body(_engine(head.get("template"), notes), inputs, rich, notes).keys(body, line)
    keys = {"name": text_of(head.get("name"), "name", notes),
            "description": text_of(head.get("description"), "description", notes),
            "tags": _tags(head, notes), **_model_keys(head, notes), **body_keys}  # fmt: skip
    return Imported({foreign.name: without_nothing(keys)}, left_out=notes.found)


def _tags(head: Mapping[str, Any], notes: Notes) -> list[str]:
    metadata = head.get("metadata")
    if metadata is not None and not isinstance(metadata, Mapping):
        notes.leave("metadata", shortened(metadata), "metadata are keys and values")
    metadata = metadata if isinstance(metadata, Mapping) else {}
    notes.rest(metadata, {"tags"}, "metadata.")
    if head.get("base"):
        notes.leave("base", shortened(head["base"]), "one file inherits from another: copy what it takes from there")
    return texts_of(head.get("tags"), "tags", notes) + texts_of(metadata.get("tags"), "metadata.tags", notes)


def _followed(value: Any, foreign: Foreign, notes: Notes, at: str) -> Any:
    """`value` with `${file:…}` replaced by what the file holds; noted where there is none."""
    if isinstance(value, Mapping):
        return {key: _followed(inner, foreign, notes, f"{at}.{key}") for key, inner in value.items()}
    if isinstance(value, list):
        return [_followed(inner, foreign, notes, f"{at}.{index}") for index, inner in enumerate(value)]
    found = _FILE.fullmatch(value) if isinstance(value, str) else None
    if not found:
        return value
    text = foreign.beside(found[1])
    data = None if text is None else _data_of(text, found[1])
    if data is None:
        notes.leave(at, value, "there is no such file beside this one, or it cannot be read")
    return data


def _data_of(text: str, name: str) -> Any:
    try:
        if name.endswith(".json"):
            return json.loads(text)
        return yaml.safe_load(text) if name.endswith((".yml", ".yaml")) else text
    except (ValueError, yaml.YAMLError, RecursionError):
        return None


# ---------------------------------------------------------------------------- model


def _model_keys(head: Mapping[str, Any], notes: Notes) -> dict[str, Any]:
    model = head.get("model")
    if isinstance(model, str):
        model = {"id": model}
    if not isinstance(model, Mapping):
        if model is not None:
            notes.leave("model", shortened(model), "a model is a name, or keys and values")
        model = {}
    notes.rest(model, {"id", "api", "apiType", "configuration", "connection", "parameters", "options", "provider",
                       "response"}, "model.")  # fmt: skip
    _note_interface(model, notes)
    settings = _settings(model, notes)
    output = output_keys(settings.pop("response_format", None), notes, "model.parameters.response_format")
    choice = tool_choice(settings.pop("tool_choice", None), notes, "model.parameters.tool_choice")
    tools = [*_list(settings.pop("tools", None)), *_list(head.get("tools"))]
    return {"model": _model_name(model, notes), "modelParameters": model_parameters(settings, notes, "model.parameters."),
            "tools": _tools(tools, notes), "toolChoice": choice, **_output(head, output, notes)}  # fmt: skip


def _note_interface(model: Mapping[str, Any], notes: Notes) -> None:
    for key in ("api", "apiType"):
        if model.get(key) not in (None, "chat", "responses"):
            notes.leave(f"model.{key}", shortened(model[key]), "every prompt here asks for a chat completion")
    for key in ("provider", "connection"):
        if model.get(key):
            notes.leave(f"model.{key}", "…", "where a model is reached stands in turnout.yaml")
    if model.get("response") not in (None, "first"):
        notes.leave("model.response", shortened(model["response"]), "an answer is always the whole reply")


def _model_name(model: Mapping[str, Any], notes: Notes) -> str | None:
    configuration = model.get("configuration")
    configuration = configuration if isinstance(configuration, Mapping) else {}
    named = [model.get("id"), *(configuration.get(key) for key in ("azure_deployment", "model", "name", "model_name"))]
    for key in configuration:
        if key not in ("azure_deployment", "model", "name", "model_name"):
            notes.leave(f"model.configuration.{key}", "…", "where a model is reached stands in turnout.yaml")
    found = [str(name) for name in named if name]
    for name in found:
        if _ENVIRONMENT.search(name):
            notes.leave("model", name, "the environment names the model there: give --model")
    return next((name for name in found if not _ENVIRONMENT.search(name)), None)


def _settings(model: Mapping[str, Any], notes: Notes) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key in ("parameters", "options"):
        given = model.get(key)
        if given is not None and not isinstance(given, Mapping):
            notes.leave(f"model.{key}", shortened(given), "settings are keys and values")
        found |= given if isinstance(given, Mapping) else {}
    more = found.pop("additionalProperties", None)
    return found | (dict(more) if isinstance(more, Mapping) else {})


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]


def _tools(tools: list[Any], notes: Notes) -> list[dict[str, Any]]:
    found = []
    for index, tool in enumerate(tools):
        made = _tool(tool, notes, f"tools.{index}") if isinstance(tool, Mapping) else None
        if made is None:
            notes.leave(
                f"tools.{index}", shortened(tool), "only function tools are kept: the application calls the others"
            )
        else:
            found.append(made)
    return found


def _tool(tool: Mapping[str, Any], notes: Notes, at: str) -> dict[str, Any] | None:
    """A function tool of version 1 (OpenAI's form) or 2 (`kind: function`, parameters as a list of properties)."""
    if "kind" not in tool:
        return function_tool(tool, notes, at)
    if tool["kind"] != "function":
        return None
    parameters = tool.get("parameters")
    if isinstance(parameters, list):
        parameters = _object_of(parameters, notes, f"{at}.parameters")
    plain = {key: value for key, value in tool.items() if key not in ("kind", "parameters", "bindings")}
    if "bindings" in tool:
        notes.leave(f"{at}.bindings", shortened(tool["bindings"]), "the application fills a tool's arguments in")
    return function_tool({**plain, "parameters": parameters}, notes, at)


def _output(head: Mapping[str, Any], output: dict[str, Any], notes: Notes) -> dict[str, Any]:
    """Version 2 asks for its `outputs` as structured output; version 1 only describes them."""
    outputs = head.get("outputs")
    model = head.get("model")
    if not outputs:
        return output
    second = isinstance(outputs, list) or (isinstance(model, Mapping) and "id" in model) or isinstance(model, str)
    if not second:
        notes.leave(
            "outputs", shortened(outputs), "described there, never asked for: `responseFormat: json_schema` asks"
        )
        return output
    return schema_keys(_object_of(outputs, notes, "outputs"), notes, "outputs")


def _object_of(properties: Any, notes: Notes, at: str) -> dict[str, Any]:
    """An object's JSON Schema for a list of properties with names."""
    found = dict(_properties(properties, notes, at))
    required = [name for name, inner in found.items() if inner.get("required", True)]
    made = {name: _property_schema(inner, notes, f"{at}.{name}") for name, inner in found.items()}
    return {"type": "object", "properties": made, "required": required, "additionalProperties": False}


# ---------------------------------------------------------------------------- inputs


def _properties(declared: Any, notes: Notes, at: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Name and description of each, from a list, from keys, or from `{properties: …}`; a bare value is an example."""
    if isinstance(declared, Mapping) and isinstance(declared.get("properties"), list | Mapping):
        notes.rest(declared, {"properties", "type", "kind", "required", "strict"}, f"{at}.")
        declared = _with_required(declared["properties"], declared.get("required"))
    if isinstance(declared, Mapping):
        for name, inner in declared.items():
            yield str(name), inner if isinstance(inner, Mapping) else {"example": inner, "kind": ""}
        return
    for index, inner in enumerate(_list(declared)):
        if isinstance(inner, Mapping) and isinstance(inner.get("name"), str):
            yield inner["name"], inner
        elif isinstance(inner, Mapping) and len(inner) == 1:
            yield from _properties(inner, notes, at)  # `- question: {type: string}`
        else:
            notes.leave(f"{at}.{index}", shortened(inner), "expected a property with a name")


def _with_required(properties: Any, required: Any) -> Any:
    """Properties by name, each with what a JSON Schema's list `required` says of it; a list of them is as it was."""
    if not isinstance(properties, Mapping) or not isinstance(required, list):
        return properties
    return {
        name: {"required": name in required, **inner} if isinstance(inner, Mapping) else inner
        for name, inner in properties.items()
    }


def _property_schema(inner: Mapping[str, Any], notes: Notes, at: str) -> dict[str, Any]:
    kind = inner.get("kind", inner.get("type", ""))
    schema = dict(inner.get("json_schema") or {}) if isinstance(inner.get("json_schema"), Mapping) else {}
    schema |= kind_schema(kind, notes, at)
    if inner.get("description"):
        schema["description"] = str(inner["description"])
    values = inner.get("enumValues", inner.get("enum"))
    if isinstance(values, list):
        schema["enum"] = values
    if inner.get("items") is not None and isinstance(inner["items"], Mapping):
        schema["items"] = _property_schema(inner["items"], notes, f"{at}.items")
    if inner.get("properties") is not None:
        schema |= _object_of(inner["properties"], notes, at)
    notes.rest(inner, {"name", "kind", "type", "description", "enumValues", "enum", "items", "properties", "required",
                       "default", "example", "sample", "is_required", "json_schema", "nullable"}, f"{at}.")  # fmt: skip
    return schema


def _inputs(head: Mapping[str, Any], notes: Notes) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    """A schema for each input, and the kinds of those that are no text: threads, images, files."""
    sample = head.get("sample")
    if sample is not None and not isinstance(sample, Mapping):
        notes.leave("sample", shortened(sample), "a sample is keys and values")
    samples = sample if isinstance(sample, Mapping) else {}
    found: dict[str, dict[str, Any]] = {}
    rich: dict[str, str] = {}
    for name, inner in _properties(head.get("inputs"), notes, "inputs"):
        kind = inner.get("kind", inner.get("type"))
        if kind in _RICH:
            rich[name] = str(kind)
        else:
            found[name] = _input(name, inner, samples, notes)
    for name in [name for name in samples if name not in found and name not in rich]:
        found[name] = with_sample({}, samples[name], notes, f"sample.{name}") | like(samples[name])
    return valid(found, notes, "inputs"), rich


def _input(name: str, inner: Mapping[str, Any], samples: Mapping[str, Any], notes: Notes) -> dict[str, Any]:
    at = f"inputs.{name}"
    schema = _property_schema(inner, notes, at)
    given = [value for value in (samples.get(name), inner.get("sample"), inner.get("example")) if value is not None]
    if given:
        schema = with_sample(schema or like(given[0]), given[0], notes, at)
    if inner.get("default") is not None:
        return with_default(schema, inner["default"], notes, f"{at}.default")
    return optional(schema) if inner.get("required", inner.get("is_required")) is False else schema


# ---------------------------------------------------------------------------- body


def _engine(template: Any, notes: Notes) -> str:
    """The body's template language; raises BadFile for one that is not read."""
    form, parser = template, None
    if isinstance(template, Mapping):
        form, parser = template.get("format", template.get("type")), template.get("parser")
        notes.rest(template, {"format", "type", "parser", "kind", "strict"}, "template.")
    kinds = [value.get("kind") if isinstance(value, Mapping) else value for value in (form, parser)]
    if kinds[1] not in (None, "prompty"):
        notes.leave("template.parser", shortened(kinds[1]), "the body is read as lines of roles")
    engine = str(kinds[0] or "jinja2").lower()
    if engine not in ("jinja2", "nunjucks", "mustache", "handlebars"):
        notes.refuse(
            1, f"the template language {engine!r} is not read", "write the body as Jinja2, Mustache or Handlebars"
        )
    return engine


class _Body:
    """The body as messages: split at role lines first, as Prompty's strict mode has it, then read as templates."""

    def __init__(self, engine: str, inputs: dict[str, dict[str, Any]], rich: Mapping[str, str], notes: Notes) -> None:
        self._engine = engine
        self._inputs = inputs
        self._rich = rich
        self._notes = notes
        self._variables = Variables(inputs, notes)
        self._converter = Converter(self._variables, notes, {}, mustache=engine == "mustache")
        self._placeholders: dict[str, Any] = {}
        self._messages: list[dict[str, Any]] = []

    def keys(self, body: str, line: int) -> dict[str, Any]:
        marked = _CONVERSATION.sub(lambda found: f"\0placeholder {found[2]}\0", body) if self._is_jinja else body
        for segment in self._segments(marked, line):
            self._add(segment)
        if not self._messages:
            self._notes.refuse(line, "the body is empty", "write the prompt below the front matter")
        return {"variables": self._found(), "placeholders": self._placeholders, "messages": self._messages}

    @property
    def _is_jinja(self) -> bool:
        return self._engine in ("jinja2", "nunjucks")

    def _segments(self, body: str, first_line: int) -> Iterator[_Segment]:
        role, start, inside = "system", 0, 0
        for found in _ROLE_LINE.finditer(body):
            inside += self._depth(body[start : found.start()])
            line = first_line + body.count("\n", 0, found.start())
            if inside > 0:
                fix = "close the block before the role, or give these messages as a placeholder"
                self._notes.refuse(line, f"the role {found[1]!r} stands inside of a block", fix)
            yield _Segment(role, body[start : found.start()], first_line + body.count("\n", 0, start))
            if found[2]:
                self._notes.leave(line, found[2], "a role has no attributes here")
            role, start = found[1].lower(), found.end() + 1
        yield _Segment(role, body[start:], first_line + body.count("\n", 0, start))

    def _depth(self, text: str) -> int:
        return sum(-1 if end else 1 for end, _ in _BLOCK.findall(text)) if self._is_jinja else 0

    def _add(self, segment: _Segment) -> None:
        """A segment's messages: it ends and begins anew around each list of messages in it."""
        for index, piece in enumerate(_SLOT.split(self._marked(segment.text))):
            if index % 2:
                self._slot(piece)
                continue
            text = piece.replace("\r\n", "\n").strip("\n").rstrip()
            if not text.strip():
                continue
            if segment.role not in ("system", "user", "assistant", "developer"):
                self._notes.leave(segment.line, f"{segment.role} message", "results of tools come with a request")
            elif content := self._content(text, segment.line):
                self._messages.append({"role": segment.role, "content": content})

    def _marked(self, text: str) -> str:
        """`text` with what stands for a thread of messages marked: an input of that kind, or `![thread]`."""
        for name, kind in self._rich.items():
            if kind == "thread":
                text = re.sub(r"\{\{-?\s*" + re.escape(name) + r"\s*-?\}\}", f"\0placeholder {name}\0", text)
        return re.sub(r"^[ \t]*!\[thread\].*$", "\0placeholder thread\0", text, flags=re.M)

    def _slot(self, name: str) -> None:
        fitted = fit_variable(name)
        self._inputs.pop(name, None)
        self._variables.drop(name)
        self._placeholders[fitted] = {"default": []}
        self._messages.append({"placeholder": fitted})

    def _content(self, text: str, line: int) -> str | list[dict[str, Any]]:
        pictures = [name for name, kind in self._rich.items() if kind == "image"]
        names = "|".join(map(re.escape, pictures))
        pattern = _IMAGE if not pictures else re.compile(r"\{\{-?\s*(" + names + r")\s*-?\}\}|" + _IMAGE.pattern)
        pieces = list(pattern.finditer(text))
        if not pieces:
            return self._template(text, line)
        parts: list[dict[str, Any]] = []
        position = 0
        for found in pieces:
            parts += self._text_part(text[position : found.start()], line)
            parts += self._image(found, line, named=bool(pictures) and found[1] is not None)
            position = found.end()
        return parts + self._text_part(text[position:], line)

    def _text_part(self, text: str, line: int) -> list[dict[str, Any]]:
        return [{"type": "text", "text": self._template(text.strip(), line)}] if text.strip() else []

    def _image(self, found: re.Match[str], line: int, *, named: bool) -> list[dict[str, Any]]:
        url = "{{ " + found[1] + " }}" if named else found[found.lastindex or 1].strip()
        if named:
            self._inputs.setdefault(found[1], {"type": "string", "description": "URL or data: URL of an image"})
        if not re.match(r"https?:|data:|\{\{", url):
            self._notes.leave(line, f"image {url}", "an image in a file: give its URL, or a data: URL, by a variable")
            return []
        return [{"type": "image_url", "image_url": {"url": self._template(url, line)}}]

    def _template(self, text: str, line: int) -> str:
        if not self._is_jinja:
            return self._converter.template(self._converter.read(text, line))
        try:
            Template(text)
        except TemplateRefused as error:
            self._notes.refuse(line, f"the template is refused: {error}", "write it without what is refused")
        return text

    def _found(self) -> dict[str, Any]:
        if not self._is_jinja:
            return self._variables.found()
        texts = [text for message in self._messages for text in _texts(message.get("content", ""))]
        learnt = {name: schema for text in texts for name, schema in learnt_from_jinja(text).items()}
        used = {name for text in texts for name in Template(text).names}
        result = {name: self._agreed(name, schema, learnt) for name, schema in self._inputs.items() if name in used}
        for name in (name for name in self._inputs if name not in used):
            self._notes.leave(f"inputs.{name}", name, "the template never uses it")
        return result | inferred_from_jinja(used - result.keys(), texts)

    def _agreed(self, name: str, schema: dict[str, Any], learnt: Mapping[str, Any]) -> dict[str, Any]:
        """An input's schema, open where the template does with it what a value of the declared type has not."""
        declared, needed = schema.get("type"), learnt.get(name, {}).get("type")
        if needed is None or declared in (None, needed):
            return schema
        self._notes.leave(
            f"inputs.{name}", str(declared), f"the template uses it as an {needed}: any value is taken here"
        )
        return {key: value for key, value in schema.items() if key not in ("type", "items", "properties", "required")}


def _texts(content: str | list[dict[str, Any]]) -> list[str]:
    if isinstance(content, str):
        return [content]
    return [part["text"] if part["type"] == "text" else part["image_url"]["url"] for part in content]

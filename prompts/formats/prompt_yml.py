"""`*.prompt.yml`: GitHub's format as it is, and our superset of it.

A file that declares no `variables`, as GitHub's do not, gets one string variable for every name its templates use.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import pydantic

from prompts.errors import BadFile, BadInput, Fault, TemplateRefused
from prompts.names import check_label
from prompts.prompt import Entry, Example, MessageTemplate, PlaceholderSlot, PromptContent
from prompts.schemas import Schema, check_schema
from prompts.template import Template, includes, one_budget, replace_includes
from prompts.variables import Placeholder
from prompts.yaml_source import Document, load_yaml, parse_model

SUFFIX = ".prompt.yml"
# GitHub's spelling of what OpenAI's protocol calls otherwise
_GITHUB_PARAMETERS = {
    "maxTokens": "max_tokens",
    "maxCompletionTokens": "max_completion_tokens",
    "topP": "top_p",
    "frequencyPenalty": "frequency_penalty",
    "presencePenalty": "presence_penalty",
}
SUFFIXES = (".prompt.yml", ".prompt.yaml")


def _valid_label(label: str) -> str:
    try:
        return check_label(label)
    except BadInput as error:
        raise ValueError(str(error)) from error


def _valid_variable(name: str) -> str:
    if not name.isidentifier() or name.startswith("_"):
        raise ValueError("no name of a variable: letters, digits and _, not first a digit or _")
    return name


def _valid_schema(schema: dict[str, Any]) -> dict[str, Any]:
    try:
        compiled = Schema(schema)
    except ValueError as error:
        raise ValueError(f"no JSON Schema: {error}") from error
    try:
        if "default" in schema:
            compiled.check(schema["default"])
    except ValueError as error:
        raise ValueError(f"its default does not satisfy its schema: {error}") from error
    return schema


def _valid_tool(tool: dict[str, Any]) -> dict[str, Any]:
    function = tool.get("function")
    if tool.get("type") != "function" or not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise ValueError("no tool: write {type: function, function: {name: …, description: …, parameters: {…}}}")
    try:
        check_schema(function.get("parameters", {}))
    except ValueError as error:
        raise ValueError(f"parameters of {function['name']!r} are no JSON Schema: {error}") from error
    return tool


def _valid_choice(choice: Any) -> Any:
    if not isinstance(choice, dict) and choice not in ("auto", "none", "required"):
        raise ValueError("write auto, none, required, or {type: function, function: {name: …}}")
    return choice


_Variable = Annotated[str, pydantic.AfterValidator(_valid_variable)]
_Schema = Annotated[dict[str, Any], pydantic.AfterValidator(_valid_schema)]
_Tool = Annotated[dict[str, Any], pydantic.AfterValidator(_valid_tool)]
_ToolChoice = Annotated[Any, pydantic.AfterValidator(_valid_choice)]


class PromptFile(pydantic.BaseModel, frozen=True, extra="forbid"):
    """The keys of a prompt file, as authors write them."""

    name: str | None = None
    description: str | None = None
    notes: str | None = None
    model: str = pydantic.Field(min_length=1)
    model_parameters: dict[str, Any] = pydantic.Field(default_factory=dict, alias="modelParameters")
    variables: dict[_Variable, _Schema] | None = None
    placeholders: dict[_Variable, Placeholder] = pydantic.Field(default_factory=dict)
    messages: list[Entry] = pydantic.Field(min_length=1)
    examples: list[Example] = pydantic.Field(default_factory=list)
    tools: list[_Tool] = pydantic.Field(default_factory=list)
    tool_choice: _ToolChoice | None = pydantic.Field(None, alias="toolChoice")
    response_format: Literal["text", "json_object", "json_schema"] | None = pydantic.Field(None, alias="responseFormat")
    json_schema: dict[str, Any] | str | None = pydantic.Field(None, alias="jsonSchema")
    labels: list[Annotated[str, pydantic.AfterValidator(_valid_label)]] = pydantic.Field(default_factory=list)
    tags: list[str] = pydantic.Field(default_factory=list)
    test_data: list[dict[str, Any]] | None = pydantic.Field(None, alias="testData")
    evaluators: list[dict[str, Any]] | None = None


@dataclass(frozen=True, slots=True)
class PromptSource:
    """One prompt as its author wrote it, before includes are resolved.

    `declared` tells whether the file declares its variables; where not, they follow from the templates. `content` is
    what the file says, its includes still in it. `test_data` and `evaluators` are GitHub's, which make a suite.
    """

    name: str
    title: str | None
    description: str | None
    notes: str | None
    content: PromptContent
    declared: bool
    labels: tuple[str, ...]
    tags: tuple[str, ...]
    test_data: tuple[dict[str, Any], ...]
    evaluators: tuple[dict[str, Any], ...]
    document: Document

    @property
    def model(self) -> str:
        return self.content.model

    @property
    def variables(self) -> dict[str, dict[str, Any]]:
        return self.content.variables

    @property
    def messages(self) -> tuple[MessageTemplate | PlaceholderSlot, ...]:
        return self.content.messages

    @property
    def includes(self) -> tuple[str, ...]:
        """Names of the prompts that this one includes."""
        texts = (text for message in self.content.templates for text in message.texts)
        return tuple(dict.fromkeys(name for text in texts for name in includes(text)))

    def fault(self, message: str, *keys: str | int, fix: str = "") -> Fault:
        return self.document.fault(message, *keys, fix=fix)


def load_prompt(text: str, path: str, name: str) -> PromptSource:
    """Read one prompt file; raises BadFile with all of its faults."""
    faults: list[Fault] = []
    document = load_yaml(text, path, faults)
    try:
        source = prompt_from_document(document, name)
    except BadFile as error:
        raise BadFile([*faults, *error.faults]) from error
    if faults:
        raise BadFile(faults)
    return source


def prompt_from_document(document: Document, name: str) -> PromptSource:
    """Check the keys, the templates and the schemas of one prompt."""
    try:
        parsed = parse_model(PromptFile, document)
    except BadFile as error:
        raise BadFile([*error.faults, *_syntax_faults(document)]) from error
    with one_budget():
        faults = list(_template_faults(parsed, document))
    schema = _output_schema(parsed, document, faults)
    faults += [*_placeholder_faults(parsed, document), *_parameter_faults(parsed, document)]
    if faults:
        raise BadFile(faults)
    content = _content(parsed, schema)
    return PromptSource(
        name=name,
        title=parsed.name,
        description=parsed.description,
        notes=parsed.notes,
        content=content,
        declared=parsed.variables is not None,
        labels=tuple(parsed.labels),
        tags=tuple(parsed.tags),
        test_data=tuple(parsed.test_data or ()),
        evaluators=tuple(parsed.evaluators or ()),
        document=document,
    )


def _content(parsed: PromptFile, schema: dict[str, Any] | None) -> PromptContent:
    return PromptContent(
        messages=tuple(parsed.messages),
        variables=parsed.variables if parsed.variables is not None else _inferred(parsed),
        placeholders=parsed.placeholders,
        examples=tuple(parsed.examples),
        tools=tuple(parsed.tools),
        tool_choice=parsed.tool_choice,
        model=parsed.model,
        parameters={_GITHUB_PARAMETERS.get(name, name): value for name, value in parsed.model_parameters.items()},
        response_format=parsed.response_format,
        output_schema=schema,
    )


def _syntax_faults(document: Document) -> list[Fault]:
    """Faults of the templates in a file whose keys are at fault already."""
    messages = document.data.get("messages") if isinstance(document.data, dict) else None
    faults: list[Fault] = []
    for index, message in enumerate(messages if isinstance(messages, list) else []):
        content = message.get("content") if isinstance(message, dict) else None
        if isinstance(content, str):
            _template_at(document, index, content, faults)
    return faults


def _template_at(document: Document, index: int, content: str, faults: list[Fault]) -> Template | None:
    try:
        return Template(replace_includes(content, lambda _: ""))
    except TemplateRefused as error:
        faults.append(
            document.fault(str(error), "messages", index, "content", fix="mend the template", rule="template")
        )
        return None


def _template_faults(parsed: PromptFile, document: Document) -> list[Fault]:
    faults: list[Fault] = []
    used: set[str] = set()
    has_includes = False
    for index, text in _templates(parsed):
        template = _template_at(document, index, text, faults)
        if template is None:
            continue
        has_includes = bool(includes(text)) or has_includes
        used |= template.names
        for name in sorted(template.names - (parsed.variables or {}).keys()) if parsed.variables is not None else ():
            fix = f"declare it: `variables: {{{name}: {{type: string}}}}`"
            message_text = f"the template uses {name!r}, which `variables` does not declare"
            faults.append(
                document.fault(message_text, "messages", index, "content", fix=fix, rule="undeclared-variable")
            )
    unused = (parsed.variables or {}).keys() - used if not has_includes and len(faults) == 0 else set()
    return faults + [
        document.fault(
            f"variable {name!r} is never used", "variables", name, fix="use it or remove it", rule="unused-variable"
        )
        for name in sorted(unused)
    ]


def _templates(parsed: PromptFile) -> Iterator[tuple[int, str]]:
    """Every template of the file, with the index of its message."""
    for index, entry in enumerate(parsed.messages):
        for text in entry.texts if isinstance(entry, MessageTemplate) else ():
            yield index, text


def _parameter_faults(parsed: PromptFile, document: Document) -> Iterator[Fault]:
    for name in sorted(parsed.model_parameters.keys() & _GITHUB_PARAMETERS.keys()):
        ours = _GITHUB_PARAMETERS[name]
        if ours in parsed.model_parameters:
            message = f"modelParameters.{name} and {ours} are the same parameter"
            yield document.fault(message, "modelParameters", name, fix="remove one of the two")


def _placeholder_faults(parsed: PromptFile, document: Document) -> Iterator[Fault]:
    used = {entry.placeholder for entry in parsed.messages if isinstance(entry, PlaceholderSlot)}
    for index, entry in enumerate(parsed.messages):
        if isinstance(entry, PlaceholderSlot) and entry.placeholder not in parsed.placeholders:
            message = f"`placeholders` does not declare {entry.placeholder!r}"
            fix = f"declare it: `placeholders: {{{entry.placeholder}: {{}}}}`"
            yield document.fault(message, "messages", index, "placeholder", fix=fix, rule="undeclared-placeholder")
    for name in sorted(parsed.placeholders.keys() - used):
        fix = f"add `- placeholder: {name}` to `messages`, or remove it"
        yield document.fault(
            f"placeholder {name!r} is never used", "placeholders", name, fix=fix, rule="unused-placeholder"
        )


def _output_schema(parsed: PromptFile, document: Document, faults: list[Fault]) -> dict[str, Any] | None:
    raw = parsed.json_schema
    if isinstance(raw, str):
        try:
            raw = json.loads(raw)
        except (json.JSONDecodeError, RecursionError) as error:
            faults.append(
                document.fault(
                    f"jsonSchema is not JSON: {error}", "jsonSchema", fix="mend the JSON", rule="output-schema"
                )
            )
            return None
    if (parsed.response_format == "json_schema") != (raw is not None):
        fix = "give both `responseFormat: json_schema` and `jsonSchema`, or neither"
        faults.append(
            document.fault("responseFormat and jsonSchema go together", "responseFormat", fix=fix, rule="output-schema")
        )
        return None
    if raw is None:
        return None
    if not isinstance(raw, dict) or not isinstance(raw.get("schema", {}), dict):
        faults.append(
            document.fault(
                "jsonSchema is no JSON object", "jsonSchema", fix="write keys and values", rule="output-schema"
            )
        )
        return None
    wrapped = raw if "schema" in raw else {"name": "output", "strict": True, "schema": raw}
    try:
        check_schema(wrapped["schema"])
    except ValueError as error:
        faults.append(
            document.fault(
                f"jsonSchema is no JSON Schema: {error}", "jsonSchema", fix="mend the schema", rule="output-schema"
            )
        )
    return wrapped


def _inferred(parsed: PromptFile) -> dict[str, dict[str, Any]]:
    names = {n for _, text in _templates(parsed) for n in Template(replace_includes(text, lambda _: "")).names}
    return {name: {"type": "string"} for name in sorted(names)}

"""`*.prompt.yml`: GitHub's format as it is, and our superset of it.

A file that declares no `variables`, as GitHub's do not, gets one string variable for every name its templates use.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import pydantic

from prompts.errors import BadFile, BadInput, Fault, TemplateRefused
from prompts.formats.github_texts import as_template, is_github
from prompts.output import MOST_REPAIRS, OutputCheck
from prompts.parameters import OF_GITHUB, parameter_faults
from prompts.prompt import MOST_CACHED_S, Entry, Example, MessageTemplate, PlaceholderSlot, PromptContent
from prompts.schemas import Schema, check_schema
from prompts.template import Template, includes, one_budget, replace_includes
from prompts.variables import Placeholder
from prompts.wording import as_label, refuse, suggest
from prompts.yaml_source import Document, load_yaml, parse_model

SUFFIX = ".prompt.yml"
SUFFIXES = (".prompt.yml", ".prompt.yaml")
_SCHEMA_TYPES = ("array", "boolean", "integer", "null", "number", "object", "string")


def _valid_variable(name: str) -> str:
    if not name.isidentifier() or name.startswith("_"):
        refuse(f"{name!r:.80} is no name of a variable", "write letters, digits and _, first a letter")
    return name


def _valid_schema(schema: dict[str, Any]) -> dict[str, Any]:
    kind = schema.get("type")
    if isinstance(kind, str) and kind not in _SCHEMA_TYPES:
        refuse(f"type {kind!r:.80} is none of JSON Schema's", suggest(kind, _SCHEMA_TYPES))
    try:
        compiled = Schema(schema)
    except ValueError as error:
        refuse(f"no JSON Schema: {error}", "write one, such as {type: string, maxLength: 4000}")
    try:
        if "default" in schema:
            compiled.check(schema["default"])
    except ValueError as error:
        refuse(f"its default does not satisfy its schema: {error}", "mend the default, or the schema")
    return schema


def _valid_tool(tool: dict[str, Any]) -> dict[str, Any]:
    function = tool.get("function")
    if tool.get("type") != "function" or not isinstance(function, dict) or not isinstance(function.get("name"), str):
        refuse("no tool", "write {type: function, function: {name: …, description: …, parameters: {…}}}")
    try:
        check_schema(function.get("parameters", {}))
    except ValueError as error:
        refuse(f"parameters of {function['name']!r} are no JSON Schema: {error}", "mend the schema")
    return tool


def _valid_choice(choice: Any) -> Any:
    named = choice.get("function") if isinstance(choice, dict) else None
    nameless = named is None or (isinstance(named, dict) and isinstance(named.get("name"), str))
    is_form = isinstance(choice, dict) and isinstance(choice.get("type"), str) and nameless
    if not is_form and choice not in ("auto", "none", "required"):
        refuse("no choice of a tool", "write auto, none, required, or {type: function, function: {name: …}}")
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
    examples: list[Example] = []  # pydantic gives each its own; to look at `list` takes it a tokenizer
    tools: list[_Tool] = []
    tool_choice: _ToolChoice | None = pydantic.Field(None, alias="toolChoice")
    response_format: Literal["text", "json_object", "json_schema"] | None = pydantic.Field(None, alias="responseFormat")
    json_schema: dict[str, Any] | str | None = pydantic.Field(None, alias="jsonSchema")
    repair: int = pydantic.Field(0, ge=0, le=MOST_REPAIRS)
    cache_s: int = pydantic.Field(0, ge=0, le=MOST_CACHED_S, alias="cacheSeconds")
    labels: list[Annotated[str, pydantic.AfterValidator(as_label)]] = []
    tags: list[str] = []
    test_data: list[dict[str, Any]] | None = pydantic.Field(None, alias="testData")
    evaluators: list[dict[str, Any]] | None = None


def salvaged(data: Any) -> tuple[PromptFile, frozenset[str]] | None:
    """Of a file with faults what can be read, so that they hide no others; and the keys of which something is lost.

    None where there is nothing to read.
    """
    if not isinstance(data, dict):
        return None
    lost = {str(key) for key in _bad_keys(PromptFile, data)}
    read = {key: _kept(key, value) if key in lost else value for key, value in data.items() if key in _FILE_KEYS}
    read = {key: value for key, value in read.items() if value is not None}
    read |= {key: value for key, value in (("model", "none"), ("messages", [])) if key not in read}
    entries = [_kept_entry(entry) for entry in read["messages"]]
    if "messages" in lost and entries and all(entry is not None for entry in entries):
        lost.remove("messages")
    read["messages"] = [entry or {"role": "user", "content": ""} for entry in entries or [None]]
    return PromptFile.model_validate(read), frozenset(lost)


def _bad_keys(model: type[pydantic.BaseModel], data: dict[str, Any]) -> set[str | int]:
    try:
        model.model_validate(data)
    except pydantic.ValidationError as error:
        return {detail["loc"][0] for detail in error.errors(include_url=False, include_input=False)}
    return set()


def _kept(key: str, value: Any) -> Any:
    """Of a value at fault what others refer to: the names that are declared, and the messages."""
    if key in ("variables", "placeholders") and isinstance(value, dict):
        return {name: {} for name in value if name.isidentifier() and not name.startswith("_")}
    return value if key == "messages" and isinstance(value, list) else None


def _kept_entry(entry: Any) -> dict[str, Any] | None:
    """A message as it is, or with a role that there is; None where its texts cannot be read."""
    if not isinstance(entry, dict):
        return None
    for tried in (entry, {"role": "user", "content": entry.get("content")}):
        with contextlib.suppress(pydantic.ValidationError):
            _ENTRY.validate_python(tried)
            return tried
    return None


_FILE_KEYS = frozenset(field.alias or name for name, field in PromptFile.model_fields.items())
_ENTRY: pydantic.TypeAdapter[Any] = pydantic.TypeAdapter(Entry)


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
    faults: list[Fault] = []
    parsed, lost = _parsed(document, faults)
    schema = _further_faults(parsed, document, lost, faults)
    if faults:
        raise BadFile(faults)
    return _source(parsed, _content(parsed, schema), document, name)


def _parsed(document: Document, faults: list[Fault]) -> tuple[PromptFile, frozenset[str]]:
    """The file's keys, its texts as templates; with faults what is left, and the keys of which something is lost.

    Raises BadFile where there is nothing to read.
    """
    lost: frozenset[str] = frozenset()
    try:
        parsed = parse_model(PromptFile, document)
    except BadFile as error:
        read = salvaged(document.data)
        if read is None:
            raise
        faults += error.faults
        parsed, lost = read
    return _as_templates(parsed, document, faults), lost


def readable_part(document: Document, name: str) -> tuple[PromptSource, frozenset[str]]:
    """Of a file with faults a prompt that compiles, to be looked at for more; and the keys of which something is lost.

    Raises BadFile where there is nothing to read.
    """
    faults: list[Fault] = []
    parsed, lost = _parsed(document, faults)
    with one_budget():
        entries = [_compiling(entry) for entry in parsed.messages]
    if None in entries or any(fault.rule == "template" for fault in faults):
        lost |= {"messages"}
    bad = {fault.name for fault in parameter_faults(parsed.model_parameters)}
    kept = {
        "messages": [entry or MessageTemplate(role="user", content="") for entry in entries],
        "model_parameters": {name: value for name, value in parsed.model_parameters.items() if name not in bad},
        "response_format": None,
    }
    parsed, undeclared = _declaring(parsed.model_copy(update=kept))
    return _source(parsed, _content(parsed, None), document, name), lost | undeclared


def _declaring(parsed: PromptFile) -> tuple[PromptFile, frozenset[str]]:
    """The file with whatever it uses declared, and the keys that did not declare it."""
    declared: dict[str, Mapping[str, Any]] = {"placeholders": parsed.placeholders}
    used: dict[str, Mapping[str, Any]] = {
        "placeholders": {e.placeholder: Placeholder() for e in parsed.messages if isinstance(e, PlaceholderSlot)}
    }
    if parsed.variables is not None:
        declared["variables"], used["variables"] = parsed.variables, _inferred(parsed)
    undeclared = frozenset(key for key in used if used[key].keys() - declared[key].keys())
    return parsed.model_copy(update={key: {**used[key], **declared[key]} for key in used}), undeclared


def _compiling(entry: Entry) -> Entry | None:
    """A message whose texts are templates, else None."""
    try:
        for text in entry.texts if isinstance(entry, MessageTemplate) else ():
            _template_of(text)
    except TemplateRefused:
        return None
    return entry


def suite_part(document: Document, name: str) -> PromptSource | None:
    """Of a file with faults what `testData` and `evaluators` are judged by; None where not even that can be read."""
    try:
        read = salvaged(document.data)
        if read is None or not (read[0].test_data or read[0].evaluators):
            return None
        names = {key for row in read[0].test_data or () for key in row}
        content = PromptContent(messages=(), variables={key: {} for key in names}, model="none")
        return _source(read[0], content, document, name)
    except BadInput:
        return None


def _source(parsed: PromptFile, content: PromptContent, document: Document, name: str) -> PromptSource:
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
        parameters={OF_GITHUB.get(name, name): value for name, value in parsed.model_parameters.items()},
        response_format=parsed.response_format,
        output_schema=schema,
        repair=parsed.repair,
        cache_s=parsed.cache_s,
    )


def _as_templates(parsed: PromptFile, document: Document, faults: list[Fault]) -> PromptFile:
    """The file with GitHub's texts as templates, where it is one of GitHub's."""
    if not is_github(document.data):
        return parsed

    def template_of(entry: Entry, index: int) -> Entry:
        try:
            return entry.with_texts(as_template) if isinstance(entry, MessageTemplate) else entry
        except TemplateRefused as error:
            fix = "rename it in the messages and in `testData`"
            faults.append(document.fault(str(error), "messages", index, "content", fix=fix, rule="template"))
            return MessageTemplate(role="user", content="")

    return parsed.model_copy(update={"messages": [template_of(e, i) for i, e in enumerate(parsed.messages)]})


def _further_faults(
    parsed: PromptFile, document: Document, lost: frozenset[str], faults: list[Fault]
) -> dict[str, Any] | None:
    """Add to `faults` what the keys do not tell alone, and give the output schema.

    `lost` are keys of which something could not be read: what is missing in them is not known to be missing.
    """
    with one_budget():
        faults += _template_faults(parsed, document, is_whole="messages" not in lost)
    if isinstance(document.data.get("placeholders", {}), dict):
        faults += _placeholder_faults(parsed, document, is_whole="messages" not in lost)
    for found in parameter_faults(parsed.model_parameters):
        place = ("modelParameters", found.name)
        faults.append(document.fault(f"modelParameters.{found.message}", *place, fix=found.fix, rule="parameter"))
    if not lost & {"tools", "toolChoice"}:
        faults += _choice_faults(parsed, document)
    if lost & {"responseFormat", "jsonSchema"}:
        return None
    schema = _output_schema(parsed, document, faults)
    if parsed.repair and not faults:
        faults += _repair_faults(schema, document)
    return schema


def _template_at(document: Document, index: int, content: str, faults: list[Fault]) -> Template | None:
    try:
        return _template_of(content)
    except TemplateRefused as error:
        faults.append(
            document.fault(str(error), "messages", index, "content", fix="mend the template", rule="template")
        )
        return None


def _template_of(text: str) -> Template:
    """The template of a text without what it includes; raises TemplateRefused."""
    return Template(replace_includes(text, lambda _: ""))


def _template_faults(parsed: PromptFile, document: Document, *, is_whole: bool) -> list[Fault]:
    """Faults of the templates and of what they use; what nothing uses is told where they can all be read."""
    faults: list[Fault] = []
    used: set[str] = set()
    has_includes = False
    for index, text in _templates(parsed):
        template = _template_at(document, index, text, faults)
        if template is None:
            is_whole = False
            continue
        has_includes = bool(includes(text)) or has_includes
        used |= template.names
        for name in sorted(template.names - (parsed.variables or {}).keys()) if parsed.variables is not None else ():
            fix = f"declare it: `variables: {{{name}: {{type: string}}}}`"
            message_text = f"the template uses {name!r}, which `variables` does not declare"
            faults.append(
                document.fault(message_text, "messages", index, "content", fix=fix, rule="undeclared-variable")
            )
    unused = (parsed.variables or {}).keys() - used if is_whole and not has_includes else set()
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


def _choice_faults(parsed: PromptFile, document: Document) -> Iterator[Fault]:
    choice = parsed.tool_choice
    declared = [tool["function"]["name"] for tool in parsed.tools]
    if choice == "required" and not declared:
        message = "toolChoice: required, and there are no `tools`"
        yield document.fault(message, "toolChoice", fix="declare `tools`, or remove it", rule="tool-choice")
    named = choice.get("function") if isinstance(choice, dict) else None
    if named and named["name"] not in declared:
        fix = f"name one of {', '.join(declared)}" if declared else "declare it in `tools`"
        message = f"toolChoice: `tools` does not declare {named['name']!r}"
        yield document.fault(message, "toolChoice", fix=fix, rule="tool-choice")


def _placeholder_faults(parsed: PromptFile, document: Document, *, is_whole: bool) -> Iterator[Fault]:
    """Placeholders without a declaration, and where all messages can be read, those that none of them has."""
    declared = document.data.get("placeholders", {})  # also those whose declaration has a fault
    used = {entry.placeholder for entry in parsed.messages if isinstance(entry, PlaceholderSlot)}
    for index, entry in enumerate(parsed.messages):
        if isinstance(entry, PlaceholderSlot) and entry.placeholder not in declared:
            message = f"`placeholders` does not declare {entry.placeholder!r}"
            fix = f"declare it: `placeholders: {{{entry.placeholder}: {{}}}}`"
            yield document.fault(message, "messages", index, "placeholder", fix=fix, rule="undeclared-placeholder")
    for name in sorted(parsed.placeholders.keys() - used) if is_whole else ():
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


def _repair_faults(schema: dict[str, Any] | None, document: Document) -> Iterator[Fault]:
    if schema is None or not isinstance(schema.get("schema"), dict):
        fix = "give `responseFormat: json_schema` and `jsonSchema`, or remove it"
        yield document.fault("repair: there is no schema that answers could miss", "repair", fix=fix, rule="repair")
        return
    reason = OutputCheck(schema["schema"]).unusable
    if reason:
        message = f"repair: answers cannot be held to this jsonSchema: {reason}"
        yield document.fault(message, "repair", fix="mend the schema, or remove `repair`", rule="repair")


def _inferred(parsed: PromptFile) -> dict[str, dict[str, Any]]:
    names = {name for _, text in _templates(parsed) for name in _template_of(text).names}
    return {name: {"type": "string"} for name in sorted(names)}

"""`*.prompt.yml`: GitHub's format as it is, and our superset of it.

A file that declares no `variables`, as GitHub's do not, gets one string variable for every name its templates use.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import pydantic

from prompts.errors import BadFile, BadInput, Fault, TemplateRefused
from prompts.messages import Role
from prompts.names import check_label
from prompts.template import Template, includes, replace_includes
from prompts.yaml_source import Document, load_yaml, parse_model

SUFFIX = ".prompt.yml"
SUFFIXES = (".prompt.yml", ".prompt.yaml")


def _valid_label(label: str) -> str:
    try:
        return check_label(label)
    except BadInput as error:
        raise ValueError(str(error)) from error


class _Message(pydantic.BaseModel, frozen=True, extra="forbid"):
    role: Role
    content: str


class PromptFile(pydantic.BaseModel, frozen=True, extra="forbid"):
    """The keys of a prompt file, as authors write them."""

    name: str | None = None
    description: str | None = None
    model: str = pydantic.Field(min_length=1)
    model_parameters: dict[str, Any] = pydantic.Field(default_factory=dict, alias="modelParameters")
    variables: dict[str, dict[str, Any]] | None = None
    messages: list[_Message] = pydantic.Field(min_length=1)
    response_format: Literal["text", "json_object", "json_schema"] | None = pydantic.Field(None, alias="responseFormat")
    json_schema: dict[str, Any] | str | None = pydantic.Field(None, alias="jsonSchema")
    labels: list[Annotated[str, pydantic.AfterValidator(_valid_label)]] = pydantic.Field(default_factory=list)
    tags: list[str] = pydantic.Field(default_factory=list)
    test_data: list[dict[str, Any]] | None = pydantic.Field(None, alias="testData")
    evaluators: list[dict[str, Any]] | None = None

    @pydantic.field_validator("variables")
    @classmethod
    def _schemas(cls, value: dict[str, dict[str, Any]] | None) -> dict[str, dict[str, Any]] | None:
        for name, schema in (value or {}).items():
            if not name.isidentifier() or name.startswith("_"):
                raise ValueError(f"variable {name!r} is no name: letters, digits and _, not first a digit or _")
            _check_schema(name, schema)
        return value


def _check_schema(name: str, schema: dict[str, Any]) -> None:
    from jsonschema import Draft202012Validator, exceptions  # only where a file declares variables

    try:
        Draft202012Validator.check_schema(schema)
    except exceptions.SchemaError as error:
        raise ValueError(f"variable {name!r} is no JSON Schema: {error.message[:200]}") from error
    if "default" in schema:
        problem = next(iter(Draft202012Validator(schema).iter_errors(schema["default"])), None)
        if problem is not None:
            raise ValueError(f"variable {name!r}: its default does not satisfy its schema: {problem.message[:200]}")


@dataclass(frozen=True, slots=True)
class PromptSource:
    """One prompt as its author wrote it, before includes are resolved.

    `declared` tells whether the file declares its variables; where not, they follow from the templates.
    """

    name: str
    title: str | None
    description: str | None
    model: str
    parameters: dict[str, Any]
    variables: dict[str, dict[str, Any]]
    declared: bool
    messages: tuple[tuple[Role, str], ...]
    response_format: str | None
    output_schema: dict[str, Any] | None
    labels: tuple[str, ...]
    tags: tuple[str, ...]
    document: Document

    @property
    def includes(self) -> tuple[str, ...]:
        """Names of the prompts that this one includes."""
        return tuple(dict.fromkeys(name for _, text in self.messages for name in includes(text)))

    def fault(self, message: str, *keys: str | int, fix: str = "") -> Fault:
        return self.document.fault(message, *keys, fix=fix)


def load_prompt(text: str, path: str, name: str) -> PromptSource:
    """Read one prompt file; raises BadFile with all of its faults."""
    return prompt_from_document(load_yaml(text, path), name)


def prompt_from_document(document: Document, name: str) -> PromptSource:
    """Check the keys, the templates and the schemas of one prompt."""
    parsed = parse_model(PromptFile, document)
    faults = list(_template_faults(parsed, document))
    schema = _output_schema(parsed, document, faults)
    if faults:
        raise BadFile(faults)
    declared = parsed.variables is not None
    return PromptSource(
        name=name,
        title=parsed.name,
        description=parsed.description,
        model=parsed.model,
        parameters=parsed.model_parameters,
        variables=parsed.variables if parsed.variables is not None else _inferred(parsed),
        declared=declared,
        messages=tuple((message.role, message.content) for message in parsed.messages),
        response_format=parsed.response_format,
        output_schema=schema,
        labels=tuple(parsed.labels),
        tags=tuple(parsed.tags),
        document=document,
    )


def _template_faults(parsed: PromptFile, document: Document) -> list[Fault]:
    faults = []
    used: set[str] = set()
    has_includes = False
    for index, message in enumerate(parsed.messages):
        try:
            has_includes = bool(includes(message.content)) or has_includes
            template = Template(replace_includes(message.content, lambda _: ""))
        except TemplateRefused as error:
            faults.append(document.fault(str(error), "messages", index, "content", fix="mend the template"))
            continue
        used |= template.names
        for name in sorted(template.names - (parsed.variables or {}).keys()) if parsed.variables is not None else ():
            fix = f"declare it: `variables: {{{name}: {{type: string}}}}`"
            message_text = f"the template uses {name!r}, which `variables` does not declare"
            faults.append(document.fault(message_text, "messages", index, "content", fix=fix))
    unused = (parsed.variables or {}).keys() - used if not has_includes and len(faults) == 0 else set()
    return faults + [
        document.fault(f"variable {name!r} is never used", "variables", name, fix="use it or remove it")
        for name in sorted(unused)
    ]


def _output_schema(parsed: PromptFile, document: Document, faults: list[Fault]) -> dict[str, Any] | None:
    raw = parsed.json_schema
    if isinstance(raw, str):
        try:
            raw = json.loads(raw)
        except json.JSONDecodeError as error:
            faults.append(document.fault(f"jsonSchema is not JSON: {error}", "jsonSchema", fix="mend the JSON"))
            return None
    if (parsed.response_format == "json_schema") != (raw is not None):
        fix = "give both `responseFormat: json_schema` and `jsonSchema`, or neither"
        faults.append(document.fault("responseFormat and jsonSchema go together", "responseFormat", fix=fix))
        return None
    if raw is None:
        return None
    wrapped = raw if isinstance(raw, dict) and "schema" in raw else {"name": "output", "strict": True, "schema": raw}
    try:
        _check_schema("jsonSchema", wrapped["schema"])
    except ValueError as error:
        faults.append(document.fault(str(error), "jsonSchema", fix="mend the schema"))
    return wrapped


def _inferred(parsed: PromptFile) -> dict[str, dict[str, Any]]:
    names = {n for m in parsed.messages for n in Template(replace_includes(m.content, lambda _: "")).names}
    return {name: {"type": "string"} for name in sorted(names)}

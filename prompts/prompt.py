"""A prompt's content: what one version is, its digest, and how variables become messages."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pydantic

from prompts.errors import BadInput, InvalidVariable, MissingVariable, RenderError, TemplateRefused, UnexpectedVariable
from prompts.messages import CONVERSATION_ROLES, Message, Role
from prompts.schemas import Schema
from prompts.template import Template

_SIMPLE_STRING_KEYS = {"type", "maxLength", "minLength", "enum", "description", "title", "default", "examples"}


class MessageTemplate(pydantic.BaseModel, frozen=True, extra="forbid"):
    """One message of a prompt: its role, and a template for its content."""

    role: Role
    content: str


class PromptContent(pydantic.BaseModel, frozen=True, extra="forbid"):
    """All that is served of one prompt version, includes resolved: the digest covers exactly these fields.

    `variables` maps each name to its JSON Schema; one with a `default` may be left out of a request.
    `output_schema` is OpenAI's `json_schema` object (`name`, `schema`, `strict`), given when `response_format` is
    `json_schema`.
    """

    messages: tuple[MessageTemplate, ...]
    variables: dict[str, dict[str, Any]] = {}
    model: str
    parameters: dict[str, Any] = {}
    response_format: str | None = None
    output_schema: dict[str, Any] | None = None

    @property
    def digest(self) -> str:
        """`sha256:` of the content's canonical JSON."""
        return digest_of(self.model_dump(mode="json"))

    def request_parameters(self) -> dict[str, Any]:
        """The parameters to ask a model with, the output format among them, in OpenAI's words."""
        if self.response_format in (None, "text"):
            return dict(self.parameters)
        form: dict[str, Any] = {"type": self.response_format}
        if self.output_schema is not None:
            form["json_schema"] = self.output_schema
        return {**self.parameters, "response_format": form}


def digest_of(data: Any) -> str:
    """`sha256:` and the hex digest of canonical JSON: sorted keys, no blanks, UTF-8."""
    text = json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return "sha256:" + hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


@dataclass(frozen=True, slots=True)
class CompiledPrompt:
    """A prompt's content with its templates and schemas compiled once, for any number of renders."""

    content: PromptContent
    digest: str
    _templates: tuple[tuple[Role, Template], ...] = field(repr=False)
    _checks: Mapping[str, _Check] = field(repr=False)

    def render(self, variables: Mapping[str, Any], follow_up: Sequence[Mapping[str, Any]] = ()) -> tuple[Message, ...]:
        """The messages for `variables`, followed by a request's own messages.

        Raises UnexpectedVariable, MissingVariable, InvalidVariable, TemplateRefused, BudgetExceeded, or RenderError
        for a follow-up message with a role that only the template may hold.
        """
        values = self.checked(variables)
        rendered = tuple(Message(role, template.render(values)) for role, template in self._templates)
        return rendered + conversation(follow_up) if follow_up else rendered

    def checked(self, variables: Mapping[str, Any]) -> dict[str, Any]:
        """`variables` with the defaults filled in, each checked against its schema."""
        extra = variables.keys() - self._checks.keys()
        if extra:
            name = sorted(extra)[0]
            known = ", ".join(sorted(self._checks)) or "none"
            raise UnexpectedVariable(
                f"unexpected variable {name!r}: the prompt declares {known}", param=f"variables.{name}"
            )
        values: dict[str, Any] = {}
        for name, check in self._checks.items():
            if name in variables:
                check(variables[name])
                values[name] = variables[name]
            elif check.has_default:
                values[name] = check.default
            else:
                raise MissingVariable(f"missing variable {name!r}: give it in `variables`", param=f"variables.{name}")
        return values


class _Check:
    """One variable's JSON Schema, compiled; plain strings are checked without the library."""

    def __init__(self, name: str, schema: Mapping[str, Any]) -> None:
        self.name = name
        self.has_default = "default" in schema
        self.default = schema.get("default")
        self._simple = schema.get("type") == "string" and schema.keys() <= _SIMPLE_STRING_KEYS
        self._longest = schema.get("maxLength", float("inf"))
        self._shortest = schema.get("minLength", 0)
        self._allowed = schema.get("enum")
        self._schema = None if self._simple else _compiled(name, schema)

    def __call__(self, value: Any) -> None:
        if self._simple:
            self._check_string(value)
            return
        try:
            if self._schema is not None:
                self._schema.check(value)
        except ValueError as error:
            self._refuse(str(error))

    def _check_string(self, value: Any) -> None:
        if not isinstance(value, str):
            self._refuse(f"expected a string, found {type(value).__name__}")
        if not self._shortest <= len(value) <= self._longest:
            self._refuse(f"{len(value):,} characters, allowed are {self._shortest:,} to {self._longest:,}")
        if self._allowed is not None and value not in self._allowed:
            self._refuse(f"{value[:60]!r} is not one of {', '.join(map(repr, self._allowed))}")

    def _refuse(self, reason: str) -> None:
        raise InvalidVariable(f"variable {self.name!r}: {reason}", param=f"variables.{self.name}")


def compile_prompt(content: PromptContent, digest: str | None = None) -> CompiledPrompt:
    """Compile every template and schema of `content`.

    Raises TemplateRefused where a template does not compile or names what is not declared, InvalidVariable where a
    declared schema is not a JSON Schema.
    """
    templates: list[tuple[Role, Template]] = []
    for index, message in enumerate(content.messages):
        template = _template(message.content, f"messages.{index}.content")
        undeclared = template.names - content.variables.keys()
        if undeclared:
            name = sorted(undeclared)[0]
            raise TemplateRefused(f"messages.{index}: the template uses {name!r}, which `variables` does not declare",
                                  param=f"messages.{index}.content")  # fmt: skip
        templates.append((message.role, template))
    checks = {name: _Check(name, schema) for name, schema in content.variables.items()}
    return CompiledPrompt(content, digest or content.digest, tuple(templates), checks)


def _template(source: str, param: str) -> Template:
    try:
        return Template(source)
    except TemplateRefused as error:
        raise TemplateRefused(str(error), param=param) from error


def _compiled(name: str, schema: Mapping[str, Any]) -> Schema:
    try:
        return Schema(schema)
    except ValueError as error:
        raise InvalidVariable(f"variable {name!r} is no JSON Schema: {error}", param=f"variables.{name}") from error


def conversation(messages: Sequence[Mapping[str, Any]], param: str = "messages") -> tuple[Message, ...]:
    """A request's own messages; raises RenderError where one holds a role that only a template may hold."""
    result = []
    for index, message in enumerate(messages):
        role = message.get("role")
        if role not in CONVERSATION_ROLES:
            allowed = ", ".join(CONVERSATION_ROLES)
            raise RenderError(
                f"{param}[{index}]: role {role!r} may not follow a prompt; allowed are {allowed}",
                param=f"{param}[{index}].role",
            )
        result.append(plain_message(message, f"{param}[{index}]"))
    return tuple(result)


def plain_message(message: Mapping[str, Any], param: str) -> Message:
    """One message of OpenAI's form; raises BadInput where it is not."""
    content = message.get("content")
    if isinstance(content, list):
        if not all(isinstance(part, dict) for part in content):
            raise BadInput(f"{param}.content: every part is an object with a `type`", param=f"{param}.content")
        content = tuple(content)
    elif content is not None and not isinstance(content, str):
        raise BadInput(f"{param}.content: expected text or a list of parts", param=f"{param}.content")
    extra = {key: value for key, value in message.items() if key not in ("role", "content")}
    return Message(message["role"], content, extra)

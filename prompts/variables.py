"""What a request gives a prompt, checked by what the prompt declares: variables, and lists of messages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pydantic

from prompts.errors import BadInput, InvalidVariable, MissingVariable, RenderError, UnexpectedVariable
from prompts.messages import CONVERSATION_ROLES, Message
from prompts.schemas import Schema
from prompts.wording import refuse

# OpenAI's, and what it and other servers put into answers that come back as history
MESSAGE_KEYS = frozenset({"role", "content", "name", "tool_calls", "tool_call_id", "refusal", "audio", "function_call",
                          "annotations", "reasoning", "reasoning_content", "reasoning_details"})  # fmt: skip
_INSTEAD_OF_CONTENT = {"assistant": ("tool_calls", "function_call", "refusal", "audio")}
_SIMPLE_STRING_KEYS = {"type", "maxLength", "minLength", "enum", "description", "title", "default", "examples"}


class Placeholder(pydantic.BaseModel, frozen=True, extra="forbid", populate_by_name=True):
    """A declared list of messages, such as a history; one with a `default` may be left out of a request."""

    description: str | None = None
    default: tuple[dict[str, Any], ...] | None = None
    max_messages: int | None = pydantic.Field(None, alias="maxMessages", ge=0)

    @pydantic.field_validator("default")
    @classmethod
    def _is_conversation(cls, value: tuple[dict[str, Any], ...] | None) -> tuple[dict[str, Any], ...] | None:
        try:
            conversation(value or (), "default")
        except BadInput as error:
            refuse(str(error), "write a list of messages: [{role: user, content: …}]")
        return value


class VariableCheck:
    """One variable's JSON Schema, compiled; plain strings are checked without the library."""

    def __init__(self, name: str, schema: Mapping[str, Any]) -> None:
        self.name = name
        self.has_default = "default" in schema
        self.default = schema.get("default")
        self._simple = is_plain_string(schema)
        self._longest = schema.get("maxLength", float("inf"))
        self._shortest = schema.get("minLength", 0)
        self._allowed = schema.get("enum")
        self._schema = None if self._simple else _compiled(name, schema)

    def __call__(self, value: Any) -> None:
        """Raise InvalidVariable, saying why, where `value` does not satisfy the schema."""
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


def is_plain_string(schema: Mapping[str, Any]) -> bool:
    """Whether a schema asks for no more than a string of some length, or one of a few."""
    return schema.get("type") == "string" and schema.keys() <= _SIMPLE_STRING_KEYS


def _compiled(name: str, schema: Mapping[str, Any]) -> Schema:
    try:
        return Schema(schema)
    except ValueError as error:
        raise InvalidVariable(f"variable {name!r} is no JSON Schema: {error}", param=f"variables.{name}") from error


def checked_variables(checks: Mapping[str, VariableCheck], given: Mapping[str, Any]) -> dict[str, Any]:
    """`given` with the defaults filled in; raises UnexpectedVariable, MissingVariable or InvalidVariable."""
    refuse_unknown("variable", checks, given)
    values: dict[str, Any] = {}
    for name, check in checks.items():
        if name in given:
            check(given[name])
            values[name] = given[name]
        elif check.has_default:
            values[name] = check.default
        else:
            raise MissingVariable(f"missing variable {name!r}: give it in `variables`", param=f"variables.{name}")
    return values


def checked_placeholders(
    declared: Mapping[str, Placeholder], given: Mapping[str, Any]
) -> dict[str, tuple[Message, ...]]:
    """The messages of every declared placeholder; raises as `checked_variables` and `conversation` do."""
    refuse_unknown("placeholder", declared, given)
    return {name: checked_placeholder(name, placeholder, given) for name, placeholder in declared.items()}


def checked_placeholder(name: str, placeholder: Placeholder, given: Mapping[str, Any]) -> tuple[Message, ...]:
    """The messages of one declared placeholder, its default's where `given` has none."""
    param = f"placeholders.{name}"
    found = given.get(name, placeholder.default)
    if found is None:
        raise MissingVariable(f"missing placeholder {name!r}: give its messages in `placeholders`", param=param)
    if not isinstance(found, list | tuple) or not all(isinstance(message, Mapping) for message in found):
        raise InvalidVariable(f"placeholder {name!r}: expected a list of messages", param=param)
    if placeholder.max_messages is not None and len(found) > placeholder.max_messages:
        reason = f"{len(found):,} messages, allowed are at most {placeholder.max_messages:,}"
        raise InvalidVariable(f"placeholder {name!r}: {reason}", param=param)
    return conversation(found, param)


def refuse_unknown(kind: str, declared: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    """Raise UnexpectedVariable where a name is given that is not declared."""
    extra = given.keys() - declared.keys()
    if extra:
        name = sorted(map(str, extra))[0]
        known = ", ".join(sorted(declared)) or "none"
        raise UnexpectedVariable(f"unexpected {kind} {name!r}: the prompt declares {known}", param=f"{kind}s.{name}")


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
    if isinstance(content, list | tuple):
        if not all(isinstance(part, dict) for part in content):
            raise BadInput(f"{param}.content: every part is an object with a `type`", param=f"{param}.content")
        content = tuple(content)
    elif content is not None and not isinstance(content, str):
        raise BadInput(f"{param}.content: expected text or a list of parts", param=f"{param}.content")
    _refuse_malformed(message, param)
    extra = {key: value for key, value in message.items() if key not in ("role", "content")}
    return Message(message["role"], content, extra)


def _refuse_malformed(message: Mapping[str, Any], param: str) -> None:
    """Raise BadInput where a model could make nothing of a message, as OpenAI's API does."""
    unknown = sorted(map(str, message.keys() - MESSAGE_KEYS))
    if unknown:
        known = ", ".join(sorted(MESSAGE_KEYS))
        raise BadInput(f"{param}: unknown key {unknown[0]!r}; a message has {known}", param=f"{param}.{unknown[0]}")
    role, instead = message["role"], _INSTEAD_OF_CONTENT.get(message["role"], ())
    if message.get("content") in (None, [], ()) and not any(message.get(key) for key in instead):
        needed = " or ".join(("content", *instead[:1]))
        raise BadInput(f"{param}: a message of role {role!r} needs its {needed}", param=f"{param}.content")
    if role == "tool" and not isinstance(message.get("tool_call_id"), str):
        reason = f"{param}: a message of role 'tool' needs its `tool_call_id`, the id of the call that it answers"
        raise BadInput(reason, param=f"{param}.tool_call_id")

"""A prompt version as the service describes it, and how it is filled here with exactly what the service would give."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from turnout.errors import BadVariables

Message = dict[str, Any]
Fallback = str | Sequence[Mapping[str, Any]]
CONVERSATION_ROLES = ("user", "assistant", "tool")
MESSAGE_KEYS = frozenset({"role", "content", "name", "tool_calls", "tool_call_id", "refusal", "audio", "function_call",
                          "annotations", "reasoning", "reasoning_content", "reasoning_details"})  # fmt: skip
_INSTEAD_OF_CONTENT = {"assistant": ("tool_calls", "function_call", "refusal", "audio")}
_SUBSTITUTION = re.compile(r"\{\{\s*([A-Za-z_][A-Za-z0-9_]*)\s*\}\}")


@dataclass(frozen=True, slots=True)
class Given:
    """What a caller renders with, checked: `values` of variables with the defaults filled in."""

    variables: Mapping[str, Any]
    values: Mapping[str, Any]
    placeholders: Mapping[str, list[Message]]
    follow_up: list[Message]


@dataclass(frozen=True, slots=True)
class Variable:
    """A variable's schema as far as it is checked before a request; the service checks the rest."""

    name: str
    schema: Mapping[str, Any]

    def check(self, value: Any) -> None:
        """Raise BadVariables where the schema asks for a string and `value` is none, too short, too long or unknown."""
        if self.schema.get("type") != "string":
            return
        if not isinstance(value, str):
            self._refuse(f"expected a string, found {type(value).__name__}")
        shortest, longest = self.schema.get("minLength", 0), self.schema.get("maxLength", float("inf"))
        if not shortest <= len(value) <= longest:
            self._refuse(f"{len(value):,} characters, allowed are {shortest:,} to {longest:,}")
        allowed = self.schema.get("enum")
        if allowed is not None and value not in allowed:
            self._refuse(f"{value[:60]!r} is not one of {', '.join(map(repr, allowed))}")

    def _refuse(self, reason: str) -> None:
        raise BadVariables(f"variable {self.name!r}: {reason}", param=f"variables.{self.name}")


@dataclass(frozen=True, slots=True)
class Line:
    """One message to fill: `pieces` are (whether it names a variable, text or name)."""

    role: str
    pieces: tuple[tuple[bool, str], ...]
    extra: Mapping[str, Any] = field(default_factory=dict)

    def fill(self, values: Mapping[str, Any]) -> Message:
        content = "".join([values[text] if is_variable else text for is_variable, text in self.pieces])
        return {"role": self.role, "content": content, **self.extra}


@dataclass(frozen=True, slots=True)
class Slot:
    """Where the messages of a placeholder go."""

    placeholder: str


@dataclass(frozen=True, slots=True)
class Template:
    """One version of a prompt. `lines` is None where only the service can render it."""

    name: str
    version: int | None
    digest: str | None
    model: str | None
    parameters: Mapping[str, Any]
    variables: Mapping[str, Variable]
    placeholders: Mapping[str, Mapping[str, Any]]
    lines: tuple[Line | Slot | Message, ...] | None
    max_characters: int

    def check(
        self, variables: Mapping[str, Any], placeholders: Mapping[str, Any], follow_up: Sequence[Mapping[str, Any]]
    ) -> Given:
        """What is given, with defaults; raises BadVariables for what is missing, unknown or of the wrong kind."""
        _refuse_unknown("variable", self.variables, variables)
        values: dict[str, Any] = {}
        for name, variable in self.variables.items():
            if name in variables:
                variable.check(variables[name])
                values[name] = variables[name]
            elif "default" in variable.schema:
                values[name] = variable.schema["default"]
            else:
                raise BadVariables(f"missing variable {name!r}", param=f"variables.{name}")
        lists = self._placed(placeholders) if self.placeholders or placeholders else {}
        return Given(variables, values, lists, conversation(follow_up, "messages"))

    def _placed(self, given: Mapping[str, Any]) -> dict[str, list[Message]]:
        _refuse_unknown("placeholder", self.placeholders, given)
        return {name: _messages_of(name, shape, given) for name, shape in self.placeholders.items()}

    def fill(self, given: Given) -> list[Message]:
        """The messages; only where `lines` are there. Raises BadVariables where one grows beyond all bounds."""
        messages: list[Message] = []
        for line in self.lines or ():
            if isinstance(line, Slot):
                messages += given.placeholders.get(line.placeholder, [])
            elif isinstance(line, Line):
                messages.append(line.fill(given.values))
                if len(messages[-1]["content"]) > self.max_characters:
                    raise BadVariables(f"a message of more than {self.max_characters:,} characters", param="variables")
            else:
                messages.append(dict(line))
        return messages + given.follow_up


@dataclass(frozen=True, slots=True)
class FallbackTemplate(Template):
    """What the caller gave for the time that the service is away: it takes any variables, and any value as its text."""

    def check(
        self, variables: Mapping[str, Any], placeholders: Mapping[str, Any], follow_up: Sequence[Mapping[str, Any]]
    ) -> Given:
        for line in self.lines or ():
            for is_variable, name in line.pieces if isinstance(line, Line) else ():
                if is_variable and name not in variables:
                    raise BadVariables(f"missing variable {name!r}: the fallback uses it", param=f"variables.{name}")
        values = {name: value if isinstance(value, str) else str(value) for name, value in variables.items()}
        lists = {name: conversation(given, f"placeholders.{name}") for name, given in placeholders.items()}
        return Given(variables, values, lists, conversation(follow_up, "messages"))


def read_template(data: Mapping[str, Any]) -> Template:
    """The service's description of a version; raises KeyError, TypeError or ValueError where it is none."""
    lines = tuple(_line(message) for message in data["messages"]) if data["local"] else None
    return Template(
        name=data["name"],
        version=int(data["version"]),
        digest=data["digest"],
        model=data["model"],
        parameters=dict(data["parameters"]),
        variables={name: Variable(name, schema) for name, schema in data["variables"].items()},
        placeholders=dict(data["placeholders"]),
        lines=lines,
        max_characters=int(data["max_characters"]),
    )


def _line(message: Mapping[str, Any]) -> Line | Slot:
    if "placeholder" in message:
        return Slot(message["placeholder"])
    pieces = tuple((False, s["text"]) if "text" in s else (True, s["variable"]) for s in message["content"])
    return Line(message["role"], pieces)


def fallback_template(name: str, fallback: Fallback) -> FallbackTemplate:
    """A caller's text (one user message) or messages as a template: `{{ name }}` in text is replaced, nothing else.

    `{"placeholder": name}` among the messages stands for that placeholder's.
    """
    messages = [{"role": "user", "content": fallback}] if isinstance(fallback, str) else fallback
    lines = tuple(_fallback_line(message) for message in messages)
    return FallbackTemplate(name, None, None, None, {}, {}, {}, lines, 2**63)


def _fallback_line(message: Mapping[str, Any]) -> Line | Slot | Message:
    if "placeholder" in message:
        return Slot(message["placeholder"])
    content = message.get("content")
    if not isinstance(content, str):
        return dict(message)  # parts, or a call of a tool: as they are
    found = _SUBSTITUTION.split(content)  # text and names in turn
    pieces = tuple((index % 2 == 1, text) for index, text in enumerate(found))
    return Line(message["role"], pieces, {key: message[key] for key in message if key not in ("role", "content")})


def conversation(messages: Any, param: str) -> list[Message]:
    """Messages that a request adds, as the service would have them; raises BadVariables for another role or shape."""
    if not isinstance(messages, list | tuple) or not all(isinstance(message, Mapping) for message in messages):
        raise BadVariables(f"{param}: expected a list of messages", param=param)
    for index, message in enumerate(messages):
        _check_message(message, f"{param}[{index}]")
    return [_plain(message) for message in messages]


def _check_message(message: Mapping[str, Any], param: str) -> None:
    if message.get("role") not in CONVERSATION_ROLES:
        allowed = ", ".join(CONVERSATION_ROLES)
        reason = f"{param}: role {message.get('role')!r} may not follow a prompt; allowed are {allowed}"
        raise BadVariables(reason, param=f"{param}.role")
    content = message.get("content")
    is_parts = isinstance(content, list | tuple) and all(isinstance(part, Mapping) for part in content)
    if content is not None and not isinstance(content, str) and not is_parts:
        raise BadVariables(f"{param}.content: expected text or a list of parts", param=f"{param}.content")
    _check_whole(message, param)


def _check_whole(message: Mapping[str, Any], param: str) -> None:
    """The service's own rule (`prompts.variables`): a message has what its role needs, and no key that OpenAI has not."""
    unknown = sorted(map(str, message.keys() - MESSAGE_KEYS))
    if unknown:
        raise BadVariables(f"{param}: unknown key {unknown[0]!r} of a message", param=f"{param}.{unknown[0]}")
    role, instead = message["role"], _INSTEAD_OF_CONTENT.get(message["role"], ())
    if message.get("content") in (None, [], ()) and not any(message.get(key) for key in instead):
        needed = " or ".join(("content", *instead[:1]))
        raise BadVariables(f"{param}: a message of role {role!r} needs its {needed}", param=f"{param}.content")
    if role == "tool" and not isinstance(message.get("tool_call_id"), str):
        raise BadVariables(f"{param}: a message of role 'tool' needs its tool_call_id", param=f"{param}.tool_call_id")


def _plain(message: Mapping[str, Any]) -> Message:
    content = message.get("content")
    parts = [dict(part) for part in content] if isinstance(content, list | tuple) else content
    return {**message, "content": parts}


def _messages_of(name: str, shape: Mapping[str, Any], given: Mapping[str, Any]) -> list[Message]:
    param = f"placeholders.{name}"
    found = given.get(name, shape.get("default"))
    if found is None:
        raise BadVariables(f"missing placeholder {name!r}: give its messages", param=param)
    longest = shape.get("maxMessages")
    if longest is not None and isinstance(found, list | tuple) and len(found) > longest:
        reason = f"placeholder {name!r}: {len(found):,} messages, allowed are at most {longest:,}"
        raise BadVariables(reason, param=param)
    return conversation(found, param)


def _refuse_unknown(kind: str, declared: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    if given.keys() <= declared.keys():
        return
    name = sorted(map(str, given.keys() - declared.keys()))[0]
    known = ", ".join(sorted(declared)) or "none"
    raise BadVariables(f"unexpected {kind} {name!r}: the prompt declares {known}", param=f"{kind}s.{name}")

"""A prompt's content: what one version is, its digest, and how variables become messages."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

import pydantic

from prompts.errors import RenderError, TemplateRefused, UnexpectedVariable
from prompts.messages import NOTHING, Message, Role, nothing
from prompts.output import MOST_REPAIRS, OutputCheck
from prompts.template import Template, one_budget
from prompts.variables import (
    Placeholder,
    VariableCheck,
    checked_placeholders,
    checked_variables,
    conversation,
    plain_message,
    refuse_unknown,
)
from prompts.wording import refuse

__all__ = ["CompiledPrompt", "Entry", "Example", "MessageTemplate", "Part", "Placeholder", "PlaceholderSlot", "PromptContent",
           "compile_prompt", "conversation", "digest_of", "plain_message"]  # fmt: skip


def _known_part(part: dict[str, Any]) -> dict[str, Any]:
    """OpenAI's own kinds are checked, others are passed through."""
    kind, image = part.get("type"), part.get("image_url")
    if not isinstance(kind, str):
        fix = "write {type: text, text: …} or {type: image_url, image_url: {url: …}}"
        refuse("a part needs a `type`", fix)
    if kind == "text" and not isinstance(part.get("text"), str):
        refuse("a part of type text needs its `text`", "write {type: text, text: …}")
    if kind == "image_url" and not (isinstance(image, dict) and isinstance(image.get("url"), str)):
        refuse("a part of type image_url needs its address", "write {type: image_url, image_url: {url: …}}")
    return part


def _not_empty(parts: tuple[dict[str, Any], ...]) -> tuple[dict[str, Any], ...]:
    if not parts:
        refuse("a content of parts needs at least one", "write [{type: text, text: …}]")
    return parts


# Tags in [] are no keys of a file: `yaml_source` leaves them out of a fault's place.
Part = Annotated[dict[str, Any], pydantic.AfterValidator(_known_part)]
_Content = Annotated[
    Annotated[str, pydantic.Tag("[text]")]
    | Annotated[tuple[Part, ...], pydantic.AfterValidator(_not_empty), pydantic.Tag("[parts]")],
    pydantic.Discriminator(lambda value: "[parts]" if isinstance(value, list | tuple) else "[text]"),
]
Values = Mapping[str, Any]
_LEADING = ("system", "developer")
MOST_CACHED_S = 30 * 86_400


class MessageTemplate(pydantic.BaseModel, frozen=True, extra="forbid"):
    """One message of a prompt: its role, and a template for its content.

    A content of parts is OpenAI's list of them (`text`, `image_url`, …); every text within them is a template.
    """

    role: Role
    content: _Content

    @property
    def texts(self) -> tuple[str, ...]:
        """Every template of the message, in order."""
        return (self.content,) if isinstance(self.content, str) else tuple(_texts(self.content))

    def with_texts(self, change: Callable[[str], str]) -> MessageTemplate:
        """The message with `change` done to each of its templates."""
        content = self.content
        return MessageTemplate(role=self.role, content=change(content) if isinstance(content, str)
                               else tuple(_changed(part, change) for part in content))  # fmt: skip


class PlaceholderSlot(pydantic.BaseModel, frozen=True, extra="forbid"):
    """Where the messages of a declared placeholder go."""

    placeholder: str


def _kind_of_entry(value: Any) -> str:
    is_slot = isinstance(value, PlaceholderSlot) or (isinstance(value, Mapping) and "placeholder" in value)
    return "[placeholder]" if is_slot else "[message]"


Entry = Annotated[
    Annotated[MessageTemplate, pydantic.Tag("[message]")] | Annotated[PlaceholderSlot, pydantic.Tag("[placeholder]")],
    pydantic.Discriminator(_kind_of_entry),
]


class Example(pydantic.BaseModel, frozen=True, extra="forbid"):
    """A worked example: the last user message's template filled with `vars`, and what is to be answered.

    An `expected` that is no text is answered as JSON.
    """

    vars: dict[str, Any] = {}
    expected: Any

    @property
    def answer(self) -> str:
        return self.expected if isinstance(self.expected, str) else json.dumps(self.expected, ensure_ascii=False)


class PromptContent(pydantic.BaseModel, frozen=True, extra="forbid"):
    """All that is served of one prompt version, includes resolved: the digest covers exactly these fields.

    `variables` maps each name to its JSON Schema; one with a `default` may be left out of a request. `examples` stand
    after the leading system messages. `output_schema` is OpenAI's `json_schema` object (`name`, `schema`, `strict`),
    given when `response_format` is `json_schema`; an answer that does not fit it is asked for again, `repair` times.
    The same question is answered from memory for `cache_s` seconds.
    """

    messages: tuple[Entry, ...]
    variables: dict[str, dict[str, Any]] = {}
    placeholders: dict[str, Placeholder] = {}
    examples: tuple[Example, ...] = ()
    tools: tuple[dict[str, Any], ...] = ()
    tool_choice: str | dict[str, Any] | None = None
    model: str
    parameters: dict[str, Any] = {}
    response_format: str | None = None
    output_schema: dict[str, Any] | None = None
    repair: int = pydantic.Field(0, ge=0, le=MOST_REPAIRS)
    cache_s: int = pydantic.Field(0, ge=0, le=MOST_CACHED_S)

    @pydantic.model_serializer(mode="wrap")
    def _without_absent(self, dump: pydantic.SerializerFunctionWrapHandler) -> dict[str, Any]:
        """A prompt that does not use a later field has the digest that it had before there was one."""
        return {name: value for name, value in dump(self).items() if value or name not in _LATER_FIELDS}

    @property
    def digest(self) -> str:
        """`sha256:` of the content's canonical JSON."""
        return digest_of(self.model_dump(mode="json"))

    @property
    def defaults(self) -> dict[str, Any]:
        """The values of the variables that may be left out."""
        return {name: schema["default"] for name, schema in self.variables.items() if "default" in schema}

    @property
    def templates(self) -> tuple[MessageTemplate, ...]:
        """The messages that are templates, without the slots of placeholders."""
        return tuple(message for message in self.messages if isinstance(message, MessageTemplate))

    def request_parameters(self) -> dict[str, Any]:
        """The parameters to ask a model with, tools and the output format among them, in OpenAI's words."""
        parameters = dict(self.parameters)
        if self.tools:
            parameters["tools"] = [dict(tool) for tool in self.tools]
        if self.tool_choice is not None:
            parameters["tool_choice"] = self.tool_choice
        if self.response_format in (None, "text"):
            return parameters
        form: dict[str, Any] = {"type": self.response_format}
        if self.output_schema is not None:
            form["json_schema"] = self.output_schema
        return {**parameters, "response_format": form}


_LATER_FIELDS = frozenset({"placeholders", "examples", "tools", "tool_choice", "repair", "cache_s"})


def digest_of(data: Any) -> str:
    """`sha256:` and the hex digest of canonical JSON: sorted keys, no blanks, UTF-8."""
    return "sha256:" + hashlib.sha256(_CANONICAL.encode(data).encode("utf-8", "surrogatepass")).hexdigest()


_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


@dataclass(frozen=True, slots=True)
class _Text:
    """A message whose content is one template."""

    role: Role
    template: Template

    def message(self, values: Values) -> Message:
        return Message(self.role, self.template.render(values))


@dataclass(frozen=True, slots=True)
class _Parts:
    """A message of content parts; `templates` are their texts, in order."""

    role: Role
    parts: tuple[dict[str, Any], ...]
    templates: tuple[Template, ...]

    def message(self, values: Values) -> Message:
        rendered = iter([template.render(values) for template in self.templates])
        return Message(self.role, tuple(_changed(part, lambda _: next(rendered)) for part in self.parts))


_Piece = _Text | _Parts | Message | PlaceholderSlot  # a message is one that is the same for all: a few-shot example's


@dataclass(frozen=True, slots=True)
class CompiledPrompt:
    """A prompt's content with its templates and schemas compiled once, for any number of renders.

    `parameters` are the content's `request_parameters`, `output` is what its answers must be, None where it has no
    output schema.
    """

    content: PromptContent
    digest: str
    pieces: tuple[_Piece, ...] = field(repr=False)
    _checks: Mapping[str, VariableCheck] = field(repr=False)
    parameters: Mapping[str, Any] = field(default_factory=nothing, repr=False, compare=False)
    output: OutputCheck | None = field(default=None, repr=False, compare=False)

    def render(
        self,
        variables: Values,
        follow_up: Sequence[Mapping[str, Any]] = (),
        placeholders: Mapping[str, Any] = NOTHING,
    ) -> tuple[Message, ...]:
        """The messages for `variables`, those of `placeholders` in their slots, then a request's own messages.

        Raises UnexpectedVariable, MissingVariable, InvalidVariable, TemplateRefused, BudgetExceeded, or RenderError
        for a follow-up or a placeholder's message with a role that only the template may hold.
        """
        values = self.checked(variables)
        declared = self.content.placeholders
        given = checked_placeholders(declared, placeholders) if declared or placeholders else {}
        messages: list[Message] = []
        with one_budget():
            for piece in self.pieces:
                if isinstance(piece, PlaceholderSlot):
                    messages += given[piece.placeholder]
                else:
                    messages.append(piece if isinstance(piece, Message) else self._message(piece, values))
        return (*messages, *conversation(follow_up)) if follow_up else tuple(messages)

    def _message(self, piece: _Text | _Parts, values: Values) -> Message:
        """One message; an error of its template names it by its place in the prompt's own messages."""
        try:
            return piece.message(values)
        except RenderError as error:
            own = [each for each in self.pieces if not isinstance(each, Message)]
            place = f"messages.{next(index for index, each in enumerate(own) if each is piece)}"
            raise type(error)(f"{place}: {error}", param=place) from error

    def checked(self, variables: Values) -> dict[str, Any]:
        """`variables` with the defaults filled in, each checked against its schema."""
        return checked_variables(self._checks, variables)


def compile_prompt(content: PromptContent, digest: str | None = None) -> CompiledPrompt:
    """Compile every template and schema of `content`, and render its examples.

    Raises TemplateRefused where a template does not compile or names what is not declared, InvalidVariable where a
    declared schema is not a JSON Schema, and whatever rendering raises where an example cannot be rendered.
    """
    checks = {name: VariableCheck(name, schema) for name, schema in content.variables.items()}
    with one_budget():
        pieces: list[_Piece] = [_piece(content, index) for index in range(len(content.messages))]
        if content.examples:
            leading = next((i for i, m in enumerate(content.messages) if getattr(m, "role", "") not in _LEADING), 0)
            pieces[leading:leading] = _examples(content, pieces, checks)
    digest = content.digest if digest is None else digest
    return CompiledPrompt(content, digest, tuple(pieces), checks, content.request_parameters(), _output(content))


def _output(content: PromptContent) -> OutputCheck | None:
    """OpenAI leaves the schema out where any JSON will do."""
    if content.output_schema is None or not isinstance(content.output_schema.get("schema"), dict):
        return None
    return OutputCheck(content.output_schema["schema"])


def _piece(content: PromptContent, index: int) -> _Text | _Parts | PlaceholderSlot:
    message = content.messages[index]
    place = f"messages.{index}"
    if isinstance(message, PlaceholderSlot):
        if message.placeholder not in content.placeholders:
            reason = f"{place}: `placeholders` does not declare {message.placeholder!r}"
            raise TemplateRefused(reason, param=f"{place}.placeholder")
        return message
    templates = tuple(_template(text, place, content.variables) for text in message.texts)
    if isinstance(message.content, str):
        return _Text(message.role, templates[0])
    return _Parts(message.role, message.content, templates)


def _template(source: str, place: str, declared: Mapping[str, Any]) -> Template:
    try:
        template = Template(source)
    except TemplateRefused as error:
        raise TemplateRefused(str(error), param=f"{place}.content") from error
    undeclared = template.names - declared.keys()
    if undeclared:
        name = sorted(undeclared)[0]
        reason = f"{place}: the template uses {name!r}, which `variables` does not declare"
        raise TemplateRefused(reason, param=f"{place}.content")
    return template


def _examples(content: PromptContent, pieces: Sequence[_Piece], checks: Mapping[str, VariableCheck]) -> list[Message]:
    """The pairs of messages that the examples are."""
    asking = next(
        (piece for piece in reversed(pieces) if isinstance(piece, _Text | _Parts) and piece.role == "user"), None
    )
    if asking is None:
        raise TemplateRefused("examples need a user message, whose template they fill", param="examples")
    templates = (asking.template,) if isinstance(asking, _Text) else asking.templates
    needed = frozenset().union(*(template.names for template in templates))
    messages: list[Message] = []
    for index, example in enumerate(content.examples):
        try:
            _refuse_beside(needed, checks, example.vars)
            asked = asking.message(checked_variables({name: checks[name] for name in needed}, example.vars))
        except RenderError as error:
            raise type(error)(f"examples.{index}: {error}", param=f"examples.{index}") from error
        messages += [asked, Message("assistant", example.answer)]
    return messages


def _refuse_beside(needed: frozenset[str], declared: Mapping[str, Any], given: Values) -> None:
    """Raise UnexpectedVariable where an example gives what the last user message does not use."""
    refuse_unknown("variable", declared, given)
    extra = sorted(given.keys() - needed)
    if extra:
        takes = ", ".join(sorted(needed)) or "none"
        reason = f"unexpected variable {extra[0]!r}: an example gives the variables of the last user message, {takes}"
        raise UnexpectedVariable(reason, param=f"variables.{extra[0]}")


def _texts(value: Any) -> list[str]:
    """Every text within content parts but their `type`, in order."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, Mapping):
        return [text for key, item in value.items() if key != "type" for text in _texts(item)]
    return [text for item in value for text in _texts(item)] if isinstance(value, list | tuple) else []


def _changed(value: Any, change: Callable[[str], str]) -> Any:
    """Content parts with `change` done to each text that `_texts` gives, in the same order."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Mapping):
        return {key: item if key == "type" else _changed(item, change) for key, item in value.items()}
    return [_changed(item, change) for item in value] if isinstance(value, list | tuple) else value

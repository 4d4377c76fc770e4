"""A prompt's content for other tools: GitHub's `.prompt.yml`, plain messages, and a request of OpenAI's API."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from prompts.formats.github_texts import as_template, as_text, has_statements, is_github
from prompts.formats.literal import literal
from prompts.messages import Message
from prompts.prompt import MessageTemplate, PlaceholderSlot, PromptContent, compile_prompt
from prompts.template import Template

_GITHUB_SETTINGS = {"temperature": "temperature", "top_p": "topP", "max_tokens": "maxTokens",
                    "max_completion_tokens": "maxTokens"}  # fmt: skip
_GITHUB_ROLES = ("system", "user", "assistant")
_LEADING = ("system", "developer")


@dataclass(frozen=True, slots=True)
class Exported:
    """The keys of a file, and what it cannot hold, a line each."""

    keys: dict[str, Any]
    left_out: tuple[str, ...] = ()


def github(content: PromptContent, title: str | None = None, description: str | None = None) -> Exported:
    """GitHub's prompt file for `content`: only keys and message forms that it knows.

    Examples and the default messages of placeholders become messages. The templates stay as they are: GitHub fills in
    `{{name}}` and nothing else, so what more they do is noted.
    """
    left_out: list[str] = []
    keys = {"name": title, "description": description, "model": content.model,
            "modelParameters": _settings(content, left_out), "messages": list(_messages(content, left_out)),
            **_output(content)}  # fmt: skip
    left_out += _not_held(content)
    keys["messages"] = _plain_where_github_s(keys["messages"])
    return Exported({key: value for key, value in keys.items() if value}, tuple(left_out))


def _plain_where_github_s(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """`{#` and `{%` as they are: they are text to GitHub, and to us in a file without statements of Jinja2."""
    plain = [{**message, "content": as_text(message["content"])} for message in messages]
    same = all(as_template(new["content"]) == old["content"] for new, old in zip(plain, messages, strict=True))
    return plain if same and is_github({"messages": plain}) else messages


def _settings(content: PromptContent, left_out: list[str]) -> dict[str, Any]:
    left_out += [
        f"modelParameters.{key}: GitHub has no such setting"
        for key in content.parameters
        if key not in _GITHUB_SETTINGS
    ]
    return {name: content.parameters[key] for key, name in _GITHUB_SETTINGS.items() if key in content.parameters}


def _output(content: PromptContent) -> dict[str, Any]:
    schema = content.output_schema
    return {"responseFormat": content.response_format,
            "jsonSchema": json.dumps(schema, ensure_ascii=False, indent=2) if schema else None}  # fmt: skip


def _messages(content: PromptContent, left_out: list[str]) -> Iterator[dict[str, Any]]:
    pending = [_rendered(message) for message in _example_messages(content)]
    for index, entry in enumerate(content.messages):
        if pending and getattr(entry, "role", "") not in _LEADING:
            yield from pending
            pending = []
        if isinstance(entry, PlaceholderSlot):
            yield from _default_messages(content, entry, left_out)
        else:
            yield _message(entry, f"messages.{index}", left_out)


def _example_messages(content: PromptContent) -> Iterator[Message]:
    """The pairs that the examples are, as a render shows them."""
    asking = next((message for message in reversed(content.templates) if message.role == "user"), None)
    if asking is None or not content.examples:
        return
    names = frozenset().union(*(Template(text).names for text in asking.texts))
    declared = {name: schema for name, schema in content.variables.items() if name in names}
    alone = compile_prompt(PromptContent(messages=(asking,), variables=declared, model=content.model))
    for example in content.examples:
        yield from alone.render(example.vars)
        yield Message("assistant", example.answer)


def _default_messages(content: PromptContent, slot: PlaceholderSlot, left_out: list[str]) -> Iterator[dict[str, Any]]:
    default = content.placeholders[slot.placeholder].default
    left_out.append(
        f"placeholders.{slot.placeholder}: GitHub has none; " + ("its default stays" if default else "it is gone")
    )
    for message in default or ():
        text = message.get("content")
        yield {"role": message["role"], "content": literal(text if isinstance(text, str) else json.dumps(text))}


def _rendered(message: Message) -> dict[str, Any]:
    """A message that is the same for all, as a template for itself."""
    text = message.content if isinstance(message.content, str) else json.dumps(message.as_dict()["content"])
    return {"role": message.role, "content": literal(text)}


def _message(entry: MessageTemplate, at: str, left_out: list[str]) -> dict[str, Any]:
    role = entry.role if entry.role in _GITHUB_ROLES else "system" if entry.role == "developer" else "user"
    if role != entry.role:
        left_out.append(f"{at}.role: GitHub has no role {entry.role!r}; it is {role!r} there")
    if isinstance(entry.content, str):
        text = entry.content
    else:
        texts = [part["text"] for part in entry.content if part.get("type") == "text"]
        text = "\n".join(texts)
        left_out += [
            f"{at}.content: GitHub has no {part['type']} parts" for part in entry.content if part["type"] != "text"
        ]
    if has_statements([text]) or "|" in text.partition("{{")[2]:
        left_out.append(f"{at}.content: GitHub fills in {{{{name}}}} and does nothing else of a template")
    return {"role": role, "content": text}


def _not_held(content: PromptContent) -> Iterator[str]:
    for name, schema in content.variables.items():
        if schema.keys() - {"type"} or schema.get("type") != "string":
            yield f"variables.{name}: GitHub takes any text, and has no defaults"
    if content.examples:
        yield "examples: they are messages there"
    if content.tools:
        yield "tools: GitHub's prompt files have none"
    if content.repair:
        yield "repair: GitHub's prompt files have none"


def openai_request(rendered: Mapping[str, Any], model: str) -> dict[str, Any]:
    """The body of `POST /v1/chat/completions` for a render's answer, for the model of that name."""
    return {"model": model, "messages": rendered["messages"], **rendered["parameters"]}

"""What OpenAI's playground and API hold: a chat-completions request, a Responses request, or a stored prompt, as JSON."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from prompts.formats.chat import chat_messages
from prompts.formats.imported import (
    Foreign,
    Imported,
    Notes,
    fit_name,
    fit_variable,
    json_data,
    noted_variable,
    shortened,
    text_of,
    without_nothing,
)
from prompts.formats.literal import with_variables
from prompts.formats.parameters import model_parameters, output_keys, tool_choice, tool_list
from prompts.formats.variable_schemas import with_sample

_VARIABLE = re.compile(r"\{\{\s*([^\W\d]\w*)\s*\}\}")
_HANDLED = {"model", "engine", "messages", "input", "instructions", "prompt", "tools", "tool_choice", "response_format",
            "text", "reasoning", "variables", "name", "title", "description", "metadata", "functions"}  # fmt: skip
_RECORDS = {"id", "object", "created_at", "created", "version", "status", "is_default", "mode"}


def read_openai(foreign: Foreign) -> Imported:
    """One request or stored prompt; raises BadFile where the file holds no messages."""
    notes = Notes(foreign.path)
    data = json_data(foreign.text, foreign.path)
    if isinstance(data, Mapping) and isinstance(data.get("prompt"), Mapping):
        data = {**data["prompt"], **{key: value for key, value in data.items() if key != "prompt"}}
    if isinstance(data, Mapping) and isinstance(data.get("body"), Mapping):
        data = data["body"]
    if not isinstance(data, Mapping):
        notes.refuse(1, "a request is one JSON object", "give one with `messages`, or with `input`")
    messages = _messages(data, notes)
    if not messages:
        notes.refuse(1, "the request has no messages", "give one with `messages`, or with `input`")
    keys = {**_head(data, notes), "variables": _variables(data, messages, notes), "messages": messages}
    if not keys["variables"]:
        del keys["variables"]
    return Imported({_name(data, foreign, notes): without_nothing(keys)}, left_out=notes.found)


def _name(data: Mapping[str, Any], foreign: Foreign, notes: Notes) -> str:
    named = data.get("name")
    if not isinstance(named, str) or not fit_name(named):
        return foreign.name
    name = foreign.prefix + fit_name(named)
    if fit_name(named) != named:
        notes.leave("name", named, f"the prompt is called {name!r} here")
    return name


def _messages(data: Mapping[str, Any], notes: Notes) -> list[dict[str, Any]]:
    fit = noted_variable(notes, "variables")
    found: list[dict[str, Any]] = []

    def template(text: str) -> str:
        return with_variables(text, _VARIABLE, fit)

    for key, role in (("instructions", "system"), ("prompt", "user"), ("messages", "user"), ("input", "user")):
        given = data.get(key)
        if isinstance(given, str) and given:
            found.append({"role": role, "content": template(given)})
        elif isinstance(given, list):
            found += chat_messages(given, template, notes, key)
        elif given:
            notes.leave(key, shortened(given), "expected text or a list of messages")
    return found


def _head(data: Mapping[str, Any], notes: Notes) -> dict[str, Any]:
    settings = {key: value for key, value in data.items() if key not in _HANDLED | _RECORDS}
    text, reasoning = data.get("text"), data.get("reasoning")
    form = data.get("response_format")
    if isinstance(text, Mapping):
        form = form or text.get("format")
        settings |= {"verbosity": text.get("verbosity")}
        notes.rest(text, {"format", "verbosity"}, "text.")
    if isinstance(reasoning, Mapping):
        settings |= {"reasoning_effort": reasoning.get("effort")}
        notes.rest(reasoning, {"effort"}, "reasoning.")
    for key in ("metadata", "functions"):
        if data.get(key):
            notes.leave(key, shortened(data[key]), "no key of a prompt file holds this")
    return {
        "name": text_of(data.get("title", data.get("name")), "name", notes),
        "description": text_of(data.get("description"), "description", notes),
        "model": text_of(data.get("model", data.get("engine")), "model", notes),
        "modelParameters": model_parameters(settings, notes, ""),
        "tools": tool_list(data.get("tools"), notes, "tools"),
        "toolChoice": tool_choice(data.get("tool_choice"), notes, "tool_choice"),
        **output_keys(form, notes, "response_format" if data.get("response_format") else "text.format"),
    }


def _variables(data: Mapping[str, Any], messages: list[dict[str, Any]], notes: Notes) -> dict[str, Any]:
    """Declared only where the file gives values or a list of them; else they follow from the templates."""
    given = data.get("variables")
    if not given:
        return {}
    values = dict(given) if isinstance(given, Mapping) else {}
    for item in given if isinstance(given, list) else []:
        if isinstance(item, Mapping) and isinstance(item.get("name"), str):
            values[item["name"]] = item.get("value", item.get("default"))
        else:
            values[str(item)] = None
    used = {name for text in _texts(messages) for name in re.findall(r"\{\{ (\w+) \}\}", text)}
    for name in values:
        if fit_variable(name) not in used:
            notes.leave(f"variables.{name}", shortened(values[name]), "the messages never use it")
    found = {fit_variable(name): value for name, value in values.items() if fit_variable(name) in used}
    plain = {"type": "string"}
    return {
        name: with_sample(plain, found[name], notes, f"variables.{name}") if isinstance(found.get(name), str) else plain
        for name in sorted(used)
    }


def _texts(messages: list[dict[str, Any]]) -> list[str]:
    texts: list[str] = []
    for message in messages:
        parts = message["content"] if isinstance(message["content"], list) else [{"text": message["content"]}]
        texts += [part["text"] if "text" in part else part["image_url"]["url"] for part in parts]
    return texts

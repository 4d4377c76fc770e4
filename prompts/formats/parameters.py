"""Model settings and output formats of other tools, in the words of OpenAI's chat completions."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from prompts.formats.imported import Notes, shortened
from prompts.schemas import check_schema

_SAME = (
    "temperature", "top_p", "max_tokens", "max_completion_tokens", "frequency_penalty", "presence_penalty", "seed",
    "stop", "logit_bias", "logprobs", "top_logprobs", "parallel_tool_calls", "reasoning_effort", "verbosity",
    "top_k", "min_p", "repetition_penalty", "service_tier", "store", "prediction", "modalities", "web_search_options",
)  # fmt: skip
_RENAMED = {
    "maxtokens": "max_tokens", "maxoutputtokens": "max_tokens", "maxlength": "max_tokens",
    "maximumlength": "max_tokens", "maxtokenstosample": "max_tokens", "stopsequences": "stop",
    "stopsequence": "stop", "frequencypenalty": "frequency_penalty", "presencepenalty": "presence_penalty",
    "allowmultipletoolcalls": "parallel_tool_calls", "randomseed": "seed",
}  # fmt: skip
_PLAIN = {re.sub(r"[^a-z]", "", name): name for name in _SAME} | _RENAMED
_WITHOUT_MEANING = {
    "stream": "whether an answer is streamed is the request's choice",
    "stream_options": "whether an answer is streamed is the request's choice",
    "n": "one completion is asked for; a suite repeats with `repeat`",
    "best_of": "one completion is asked for; a suite repeats with `repeat`",
    "user": "the request says who asks",
    "safety_identifier": "the request says who asks",
}


def model_parameters(settings: Mapping[str, Any], notes: Notes, at: str) -> dict[str, Any]:
    """Settings that a chat completion has, by its names for them; the others are noted at `at`.

    A text of digits becomes the number that it was meant as.
    """
    found: dict[str, Any] = {}
    for key, value in settings.items():
        name = _PLAIN.get(re.sub(r"[^a-z]", "", key.lower()))
        if value is None:
            continue
        if key in _WITHOUT_MEANING:
            if value is not False and (value != 1 or value is True):
                notes.leave(f"{at}{key}", shortened(value), _WITHOUT_MEANING[key])
        elif name is None:
            notes.leave(f"{at}{key}", shortened(value), "no setting of a chat completion has this name")
        elif isinstance(value, str) and "${" in value:
            notes.leave(f"{at}{key}", shortened(value), "a setting read from the environment: write its value")
        else:
            found[name] = _number(value) if name != "stop" else value
    return found


def _number(value: Any) -> Any:
    if isinstance(value, str) and re.fullmatch(r"-?\d+(\.\d+)?", value):
        return float(value) if "." in value else int(value)
    return value


def output_keys(form: Any, notes: Notes, at: str) -> dict[str, Any]:
    """`responseFormat` and `jsonSchema` for OpenAI's `response_format` or `text.format`, or for a bare JSON Schema."""
    if form in (None, {}, "text", {"type": "text"}):
        return {}
    if form in ("json", "json_object", {"type": "json_object"}, {"type": "json"}):
        return {"responseFormat": "json_object"}
    if isinstance(form, Mapping):
        wrapped = form.get("json_schema", form)
        schema = wrapped.get("schema") if isinstance(wrapped, Mapping) else None
        if form.get("type") == "json_schema" and isinstance(schema, Mapping):
            named = {key: wrapped[key] for key in ("name", "description", "strict", "schema") if key in wrapped}
            return schema_keys(schema, notes, at, {"name": "output", **named})
        if form.get("type") in ("object", "array", "string", "number", "integer", "boolean") or "properties" in form:
            return schema_keys(form, notes, at)
    notes.leave(at, shortened(form), "an output format is text, json_object or json_schema")
    return {}


def schema_keys(
    schema: Mapping[str, Any], notes: Notes, at: str, wrapped: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """`responseFormat: json_schema` with its schema; noted where it is no JSON Schema."""
    try:
        check_schema(dict(schema))
    except ValueError as error:
        notes.leave(at, shortened(schema), f"no JSON Schema: {error}")
        return {"responseFormat": "json_object"}
    named = dict(wrapped) if wrapped else {"name": "output", "schema": dict(schema)}
    return {"responseFormat": "json_schema", "jsonSchema": named}


def tool_list(tools: Any, notes: Notes, at: str) -> list[dict[str, Any]]:
    """OpenAI's tools as a prompt file has them, also from the flat form of the Responses API; others are noted."""
    if isinstance(tools, str):
        try:
            tools = json.loads(tools)
        except ValueError:
            notes.leave(at, shortened(tools), "tools that are named in code, or in another file: write them out")
            return []
    found = []
    for index, tool in enumerate(tools if isinstance(tools, list) else [tools] if tools else []):
        place = f"{at}.{index}"
        made = function_tool(tool, notes, place) if isinstance(tool, Mapping) else None
        if made is None:
            notes.leave(place, shortened(tool), "only function tools with a name and parameters can be kept")
        else:
            found.append(made)
    return found


def function_tool(tool: Mapping[str, Any], notes: Notes, at: str) -> dict[str, Any] | None:
    """One function tool in OpenAI's form; None where it is none."""
    nested = tool.get("function")
    flat = {key: value for key, value in tool.items() if key != "type"}
    function = dict(nested) if isinstance(nested, Mapping) else flat
    if tool.get("type", "function") not in ("function", "custom_function") or not isinstance(function.get("name"), str):
        return None
    if "inputSchema" in function or "input_schema" in function:
        function["parameters"] = function.pop("inputSchema", None) or function.pop("input_schema", None)
    notes.rest(function, {"name", "description", "parameters", "strict", "inputSchema", "input_schema"}, f"{at}.")
    kept = {key: function[key] for key in ("name", "description", "parameters", "strict") if function.get(key)}
    try:
        check_schema(kept.get("parameters", {}))
    except ValueError as error:
        notes.leave(f"{at}.parameters", shortened(kept["parameters"]), f"no JSON Schema: {error}")
        del kept["parameters"]
    return {"type": "function", "function": kept}


def tool_choice(choice: Any, notes: Notes, at: str) -> Any:
    """OpenAI's `tool_choice`; None, and noted, where it is none of its forms."""
    if choice in (None, "auto", "none", "required"):
        return choice
    if isinstance(choice, Mapping) and choice.get("type") == "function":
        name = choice.get("name") or (choice.get("function") or {}).get("name")
        return {"type": "function", "function": {"name": name}}
    notes.leave(at, shortened(choice), "a tool choice is auto, none, required or one function")
    return None

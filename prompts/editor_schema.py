"""JSON Schemas (draft 2020-12) of authors' files, for editors to complete and check them while they are written.

Made from the pydantic models that read the files, so that a key exists in both or in neither; what a model cannot
tell an editor (patterns of names, examples, what goes with what) is laid over it here.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from prompts.formats.prompt_yml import PromptFile
from prompts.names import LABEL, LATEST
from prompts.parameters import ELSEWHERE, OF_GITHUB, PARAMETERS

DRAFT = "https://json-schema.org/draft/2020-12/schema"
Overlay = Mapping[str, Mapping[str, Any]]
_SCHEMA_TYPES = ("string", "number", "integer", "boolean", "object", "array", "null")


def published(model: type[BaseModel], kind: str, title: str, overlay: Overlay) -> dict[str, Any]:
    """The schema of one kind of file.

    `overlay` maps a place (`properties/model`, `$defs/Case/properties/vars`) to what is put over the schema there.
    """
    schema = model.model_json_schema(by_alias=True)
    _tidy(schema)
    for place, extra in overlay.items():
        node = schema
        for key in place.split("/") if place else ():
            node = node.setdefault(key, {})
        if extra.keys() & {"anyOf", "oneOf"}:
            node.clear()  # it says again what the model said, more closely
        node.update(copy.deepcopy(dict(extra)))
    return {"$schema": DRAFT, "$id": f"urn:turnout:schema:{kind}", **schema, "title": title}


def _tidy(node: Any, *, names: bool = False) -> None:
    """Leave out what pydantic says and editors would show as noise: titles made from keys, defaults that are nothing.

    `names` tells that the keys of `node` are an author's, not a schema's.
    """
    if isinstance(node, list):
        for item in node:
            _tidy(item)
    if not isinstance(node, dict):
        return
    if not names:
        node.pop("discriminator", None)
        node.pop("title", None)
        if node.get("default", ...) in (None, "", [], {}) or isinstance(node.get("default"), dict):
            node.pop("default", None)
    for key, child in node.items():
        _tidy(child, names=not names and key in ("properties", "patternProperties", "$defs"))


def described(text: str, *examples: Any, **more: Any) -> dict[str, Any]:
    """What an overlay says of one key."""
    return {"description": text, **({"examples": list(examples)} if examples else {}), **more}


def prompt_schema() -> dict[str, Any]:
    """The schema of `*.prompt.yml`."""
    return published(PromptFile, "prompt", "A prompt (*.prompt.yml)", _PROMPT)


_NAME = {"pattern": "^[A-Za-z\\u0080-\\uffff][0-9A-Za-z_\\u0080-\\uffff]*$"}
_VARIABLE = {
    "type": "object",
    "description": "JSON Schema of the variable's values. With `default` a request may leave it out.",
    "properties": {
        "type": {"anyOf": [{"enum": list(_SCHEMA_TYPES)}, {"type": "array", "items": {"enum": list(_SCHEMA_TYPES)}}]},
        "description": {"type": "string"},
        "default": {"description": "taken where a request does not give the variable"},
        "minLength": {"type": "integer", "minimum": 0, "description": "1: never empty"},
        "maxLength": {"type": "integer", "minimum": 0, "description": "characters"},
        "enum": {"type": "array"},
        "minimum": {"type": "number"},
        "maximum": {"type": "number"},
        "items": {"type": ["object", "boolean"]},
        "minItems": {"type": "integer", "minimum": 0},
        "maxItems": {"type": "integer", "minimum": 0},
        "properties": {"type": "object"},
        "required": {"type": "array", "items": {"type": "string"}},
        "pattern": {"type": "string"},
    },
}
_PART = {
    "type": "object",
    "required": ["type"],
    "properties": {
        "type": {"type": "string", "examples": ["text", "image_url"]},
        "text": {"description": "a template"},
        "image_url": {"description": "`url` is a template"},
    },
    "allOf": [
        {
            "if": {"properties": {"type": {"const": "text"}}, "required": ["type"]},
            "then": {"properties": {"text": {"type": "string"}}, "required": ["text"]},
        },
        {
            "if": {"properties": {"type": {"const": "image_url"}}, "required": ["type"]},
            "then": {
                "properties": {
                    "image_url": {"type": "object", "properties": {"url": {"type": "string"}}, "required": ["url"]}
                },
                "required": ["image_url"],
            },
        },
    ],
}
_TOOL = {
    "type": "object",
    "required": ["type", "function"],
    "properties": {
        "type": {"const": "function"},
        "function": {
            "type": "object",
            "required": ["name"],
            "properties": {
                "name": {"type": "string"},
                "description": {"type": "string"},
                "parameters": {"type": "object", "description": "JSON Schema of the arguments"},
            },
        },
    },
}
_PARAMETERS = {
    name: {
        "anyOf": [dict(parameter.schema), {"type": "null"}],
        **({"description": parameter.description} if parameter.description else {}),
    }
    for name, parameter in (
        *PARAMETERS.items(),
        *((theirs, PARAMETERS[ours]) for theirs, ours in OF_GITHUB.items()),
    )
} | dict.fromkeys(ELSEWHERE, False)
_PROMPT: Overlay = {
    "": {
        "description": "One prompt: templates of messages, the variables they take, and the model that is asked. It is"
        " called by its path below prompts/, dots for folders.",
        "allOf": [
            {
                "if": {"properties": {"responseFormat": {"const": "json_schema"}}, "required": ["responseFormat"]},
                "then": {
                    "properties": {"jsonSchema": {"type": ["object", "string"]}},
                    "required": ["jsonSchema"],
                },
                "else": {"properties": {"jsonSchema": {"type": "null"}}},
            }
        ],
    },
    "properties/name": described("A title for people.", "Ticket triage"),
    "properties/description": described("What the prompt is for.", "Sends a ticket to a queue"),
    "properties/notes": described("Markdown: what was tried, what worked, known limits."),
    "properties/model": described("An alias of `models` in turnout.yaml.", "smollm2-135m"),
    "properties/modelParameters": described(
        "What the model is asked with, in OpenAI's words.", {"temperature": 0, "max_tokens": 24}, properties=_PARAMETERS
    ),
    "properties/variables": described(
        "A JSON Schema for each variable; all are required unless they have a default, no others are accepted.",
        {"ticket": {"type": "string", "minLength": 1, "maxLength": 4000}},
        anyOf=[{"type": "object", "propertyNames": _NAME, "additionalProperties": _VARIABLE}, {"type": "null"}],
    ),
    "properties/placeholders": described(
        "Lists of messages that each request gives, such as a history; put in with `- placeholder: NAME`.",
        propertyNames=_NAME,
    ),
    "properties/messages": described(
        "Templates (Jinja2) of the messages, in order.", [{"role": "user", "content": "{{ ticket }}"}]
    ),
    "properties/examples": described("Worked examples: the last user message's template filled, and its answer."),
    "properties/tools": described("OpenAI's tool objects.", items=_TOOL),
    "properties/toolChoice": {
        "description": "Whether a tool must be called, and which.",
        "anyOf": [{"enum": ["auto", "none", "required", None]}, {"type": "object"}],
    },
    "properties/responseFormat": described("What kind of text the answer is; `json_schema` goes with `jsonSchema`."),
    "properties/cacheSeconds": described("For how many seconds the same question is answered from memory; 0: never."),
    "properties/repair": described("How often an answer that does not fit `jsonSchema` is asked for again, 0 to 3."),
    "properties/jsonSchema": described("The schema of the answer, or OpenAI's object {name, strict, schema}."),
    "properties/labels": described(
        "Labels to move to this version when it is pushed from the default branch.",
        ["staging"],
        items={"type": "string", "pattern": f"^{LABEL.pattern}$", "not": {"const": LATEST}},
    ),
    "properties/tags": described("Words to find the prompt by."),
    "properties/testData": described("GitHub's: cases, which become a suite of the prompt's name."),
    "properties/evaluators": described("GitHub's: how `testData` is judged."),
    "$defs/MessageTemplate/properties/role": described("Who says it. `system` and `developer` come first."),
    "$defs/MessageTemplate/properties/content": {
        "description": "A template, or a list of parts whose texts are templates.",
        "oneOf": [{"type": "string"}, {"type": "array", "items": _PART, "minItems": 1}],
    },
}

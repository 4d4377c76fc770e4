"""The forms that a body can ask an answer to have, by OpenAI's `response_format` and by vLLM's names. No torch here."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

from prompts.errors import BadInput
from service.engine.asks import GuideSpec

MOST_CHOICES = 1024
_MOST_BYTES = 64 << 10  # of all choices
_OBJECT = '{"type": "object"}'
_KNOWN = ("choice", "regex", "json", "grammar", "json_object")  # of structured_outputs


class Asked(Protocol):
    """The parameters in question; see `protocol.ChatBody`."""

    response_format: dict[str, Any] | None
    structured_outputs: dict[str, Any] | None
    guided_choice: list[str] | None
    guided_regex: str | None
    guided_json: dict[str, Any] | str | None
    guided_grammar: str | None


def read_guide(body: Asked) -> GuideSpec | None:
    """The form asked for, None where any text will do. Raises BadInput, naming the parameter, also for two forms at once."""
    found = dict(_found(body))
    if len(found) > 1:
        first, second = list(found)[:2]
        raise BadInput(f"{first} and {second} both say what the answer must be: leave one out", param=second)
    return next(iter(found.values()), None)


def _found(body: Asked) -> Iterator[tuple[str, GuideSpec]]:
    if body.response_format is not None:
        spec = _of_format(body.response_format)
        if spec is not None:
            yield "response_format", spec
    for name, value in (body.structured_outputs or {}).items():
        if value is None or value is False:
            continue
        if name not in _KNOWN:
            raise _cannot(f"structured_outputs.{name}", f"use one of {', '.join(_KNOWN)}")
        yield f"structured_outputs.{name}", _spec(f"structured_outputs.{name}", name, value)
    for name in ("choice", "regex", "json", "grammar"):
        value = getattr(body, f"guided_{name}")
        if value is not None:
            yield f"guided_{name}", _spec(f"guided_{name}", name, value)


def _of_format(given: Mapping[str, Any]) -> GuideSpec | None:
    kind = given.get("type")
    if kind == "text":
        return None
    if kind == "json_object":
        return GuideSpec("json", _OBJECT, param="response_format")
    if kind != "json_schema":
        raise _cannot("response_format", "its type is one of text, json_object, json_schema")
    held = given.get("json_schema")
    schema = held.get("schema") if isinstance(held, dict) else None
    if not isinstance(schema, dict):
        raise BadInput("response_format.json_schema.schema: a JSON Schema is needed", param="response_format")
    return _spec("response_format", "json", schema)


def _spec(param: str, kind: str, value: Any) -> GuideSpec:
    if kind == "choice":
        return GuideSpec("choice", choices=_choices(param, value), param=param)
    if kind == "json_object":
        return GuideSpec("json", _OBJECT, param=param)
    if kind == "json":
        return GuideSpec("json", _schema(param, value), param=param)
    if not isinstance(value, str) or not value:
        raise BadInput(f"{param}: a text is needed", param=param)
    return GuideSpec("regex" if kind == "regex" else "grammar", value, param=param)


def _choices(param: str, value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not value or not all(isinstance(text, str) and text for text in value):
        raise BadInput(f"{param}: a list of texts is needed, none of them empty", param=param)
    if len(value) > MOST_CHOICES or sum(map(len, value)) > _MOST_BYTES:
        raise BadInput(f"{param}: at most {MOST_CHOICES} texts of {_MOST_BYTES:,} characters together", param=param)
    return tuple(dict.fromkeys(value))


def _schema(param: str, value: Any) -> str:
    """As JSON, its keys in the order in which they were given: that of the properties is that of the answer."""
    try:
        schema = json.loads(value) if isinstance(value, str) else value
        text = json.dumps(schema)
    except RecursionError as error:
        raise BadInput(f"{param} is nested too deep: flatten it", param=param) from error
    except ValueError as error:
        raise BadInput(f"{param} is no JSON: {error}", param=param) from error
    if not isinstance(schema, dict | bool):
        raise BadInput(f"{param}: a JSON Schema is needed, an object", param=param)
    return text


def _cannot(param: str, fix: str) -> BadInput:
    message = f"{param} is not something the embedded engine can do: {fix}"
    return BadInput(message, param=param.partition(".")[0])

"""Examples that the prompt itself would refuse: variables that it cannot render, answers outside its output format."""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

import pydantic

from finetune.data.examples import Example
from finetune.data.personal import quotable
from prompts.errors import RenderError
from prompts.prompt import CompiledPrompt, PromptContent
from prompts.schemas import Schema
from prompts.strict_json import HOOKS

MAX_DEPTH = 16  # of objects and lists within an answer whose labels are compared
SHOWN_CHARACTERS = 200

Kind = Literal["variables", "json", "schema", "label"]


class Malformed(pydantic.BaseModel, frozen=True):
    """One fault of one example.

    `kind`: variables that do not render, an answer that is no JSON, one outside the schema, or a label that the schema's
    `enum` does not list. `message` says what is wrong, and the nearest known label where there is one.
    """

    index: int
    kind: Kind
    message: str


def malformed(examples: Sequence[Example], prompt: CompiledPrompt) -> list[Malformed]:
    """All faults, in the order of the examples. Answers are checked where the prompt has a `responseFormat`."""
    check = _answer_check(prompt.content)
    found: list[Malformed] = []
    for index, example in enumerate(examples):
        problems = [*_variables(prompt, example), *(check(example.expected) if check else ())]
        found += [
            Malformed(index=index, kind=kind, message=quotable(message, SHOWN_CHARACTERS)) for kind, message in problems
        ]
    return found


def _variables(prompt: CompiledPrompt, example: Example) -> Iterator[tuple[Kind, str]]:
    try:
        prompt.render(example.vars)
    except RenderError as error:
        yield "variables", str(error)


_Check = Callable[[str], Iterator[tuple[Kind, str]]]


def _answer_check(content: PromptContent) -> _Check | None:
    if content.response_format == "json_object":
        return _json_object
    schema = (content.output_schema or {}).get("schema")
    if content.response_format != "json_schema" or not isinstance(schema, Mapping):
        return None
    try:
        compiled = Schema(schema)
    except ValueError:  # `schema_problem` tells it
        return _json_alone
    return lambda answer: _by_schema(compiled, schema, answer)


def schema_problem(prompt: CompiledPrompt) -> str:
    """Why answers cannot be checked against the prompt's `jsonSchema`; "" where they can, or where there is none."""
    schema = (prompt.content.output_schema or {}).get("schema")
    try:
        if isinstance(schema, Mapping):
            Schema(schema)
    except ValueError as error:
        return str(error)
    return ""


def _json_alone(answer: str) -> Iterator[tuple[Kind, str]]:
    problem = _parsed(answer)[1]
    if problem:
        yield "json", problem


def _json_object(answer: str) -> Iterator[tuple[Kind, str]]:
    value, problem = _parsed(answer)
    if problem:
        yield "json", problem
    elif not isinstance(value, dict):
        yield "json", f"responseFormat is json_object, and the answer is {_kind(value)}"


def _by_schema(schema: Schema, source: Mapping[str, Any], answer: str) -> Iterator[tuple[Kind, str]]:
    value, problem = _parsed(answer)
    if problem:
        yield "json", problem
        return
    labels = list(_unknown_labels(source, value, "$", 0))
    yield from (("label", message) for message in labels)
    try:
        schema.check(value)
    except ValueError as error:
        if not labels:
            yield "schema", str(error)


def _unknown_labels(schema: Any, value: Any, place: str, depth: int) -> Iterator[str]:
    """Each value that an `enum` beside it does not list. What lies behind `$ref` or `anyOf` is left to the schema."""
    if not isinstance(schema, Mapping) or depth > MAX_DEPTH:
        return
    known = schema.get("enum")
    if isinstance(known, list) and isinstance(value, str) and value not in known:
        yield f"{place}: {value[:60]!r} is not a known label{_nearest(value, known)}"
    if isinstance(value, dict) and isinstance(schema.get("properties"), Mapping):
        for name, inner in schema["properties"].items():
            if name in value:
                yield from _unknown_labels(inner, value[name], f"{place}.{name}", depth + 1)
    if isinstance(value, list):
        for index, item in enumerate(value):
            yield from _unknown_labels(schema.get("items"), item, f"{place}[{index}]", depth + 1)


def _nearest(value: str, known: Sequence[Any]) -> str:
    labels = {label.casefold(): label for label in known if isinstance(label, str)}
    near = difflib.get_close_matches(value.strip().casefold(), labels, n=1, cutoff=0.5)
    if near:
        return f": did you mean {labels[near[0]]!r}?"
    return f": known are {', '.join(map(repr, known[:10]))}{' …' if len(known) > 10 else ''}"


def _parsed(answer: str) -> tuple[Any, str]:
    """The value of an answer, or what keeps it from being JSON."""
    try:
        return json.loads(answer, parse_constant=HOOKS["parse_constant"]), ""
    except ValueError as error:
        return None, f"the answer is not JSON: {error}"
    except RecursionError:
        return None, "the answer is JSON that nests too deeply"


def _kind(value: Any) -> str:
    names: dict[type, str] = {list: "a list", str: "a text", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number")

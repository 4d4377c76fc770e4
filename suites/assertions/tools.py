"""Assertions on tool calls: in the answer's message, or as JSON in its text."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import islice
from typing import Any

from prompts.schemas import Schema
from suites.assertions.similarity import check_share
from suites.assertions.spec import (
    Assertion,
    AssertionErrored,
    AssertionSpec,
    Family,
    Outcome,
    Output,
    Scene,
    SceneAssertion,
    outcome,
    refuse,
    shorten,
)
from suites.assertions.text import no_threshold

MAX_BLOCKS = 200  # pieces of JSON looked at in one answer
_FENCED = re.compile(r"^[ \t]*(```|~~~).*?(?:^[ \t]*\1|\Z)", re.DOTALL | re.MULTILINE)
_OPENING = re.compile(r"^[ \t]*(?=[{\[])", re.MULTILINE)

# ------------------------------------------------------------------------------------ what was called


def called(output: Output) -> Any:
    """The tool calls of an answer as it has them: its message's, what a transform made, or the JSON of its text.

    None where there are none.
    """
    if output.data is not None:
        return output.data
    for key in ("tool_calls", "function_call"):
        if output.message.get(key):
            return output.message[key]
    return _loaded(output.text)


def _loaded(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _names(output: Output) -> set[str]:
    found = called(output)
    if found is not None:
        return set(_names_of(found))
    return {name for block in islice(_blocks(output.text), MAX_BLOCKS) for name in _names_of(block)}


def _blocks(text: str) -> Iterator[Any]:
    """JSON that begins on a line of its own, outside of fenced examples."""
    plain, position, decoder = _FENCED.sub("\n", text), 0, json.JSONDecoder()
    while opening := _OPENING.search(plain, position):
        try:
            value, position = decoder.raw_decode(plain, opening.end())
            yield value
        except (ValueError, RecursionError):
            position = opening.end() + 1


def _names_of(value: Any) -> Iterator[str]:
    """Names of the tools within a call, or a list of calls, of OpenAI, Anthropic or Google."""
    for call in _calls_of(value):
        named = [call.get("function"), call.get("functionCall"), call]
        name = next((part["name"] for part in named if isinstance(part, Mapping) and "name" in part), None)
        if isinstance(name, str):
            yield name


def _calls_of(value: Any) -> list[Mapping[str, Any]]:
    if isinstance(value, Mapping):
        within = value.get("tool_calls")
        if within is None and isinstance(value.get("toolCall"), Mapping):
            within = value["toolCall"].get("functionCalls")
        value = within if isinstance(within, list) else [value]
    return [call for call in value if isinstance(call, Mapping)] if isinstance(value, list) else []


# ------------------------------------------------------------------------------------ how well the calls fit


def _tool_call_f1(output: Output, spec: AssertionSpec) -> Outcome:
    wanted, found = set(_wanted(spec.value)), _names(output)
    score = 2 * len(wanted & found) / (len(wanted) + len(found))
    least = 1.0 if spec.threshold is None else spec.threshold
    verb = "as expected" if (passed := score >= least - 1e-9) else "expected"
    names = f"{', '.join(sorted(wanted))}; called: {shorten(', '.join(sorted(found)))[1:-1] or 'none'}"
    return Outcome(passed, score, f"{verb}: an F1 of at least {least:g}; got {score:.3f} (wanted: {names})")


def _wanted(value: Any) -> list[str]:
    given = value.split(",") if isinstance(value, str) else value if isinstance(value, list) else []
    return [name.strip() for name in given if isinstance(name, str) and name.strip()]


def _check_f1(spec: AssertionSpec) -> None:
    if not _wanted(spec.value) or (isinstance(spec.value, list) and len(_wanted(spec.value)) < len(spec.value)):
        refuse("`tool-call-f1` needs the names of tools", "write `value: [get_weather, book_flight]`")
    check_share(spec)


# ------------------------------------------------------------------------------------ whether the calls are valid


async def _is_valid_tools_call(scene: Scene, spec: AssertionSpec) -> Outcome:
    found = called(scene.output)
    calls = found.get("tool_calls", [found]) if isinstance(found, Mapping) else found
    problem = _problem_of_calls(calls, _functions(scene, spec))
    return outcome(not problem, _expected("tool calls", problem), found if found is not None else scene.output.text)


def _problem_of_calls(calls: Any, functions: Mapping[str, Any]) -> str:
    if not isinstance(calls, list | tuple) or not calls:
        return "no tool was called"
    problems = (_problem(call.get("function") if isinstance(call, Mapping) else None, functions) for call in calls)
    return next((problem for problem in problems if problem), "")


async def _is_valid_function_call(scene: Scene, spec: AssertionSpec) -> Outcome:
    found = called(scene.output)
    problem = _problem(_first_function(found), _functions(scene, spec))
    return outcome(not problem, _expected("function call", problem), found if found is not None else scene.output.text)


def _first_function(found: Any) -> Any:
    """The function of a call however it is wrapped: alone, or as the only one of `tool_calls`."""
    if isinstance(found, Mapping) and "function_call" in found:
        return found["function_call"]
    calls = _calls_of(found)
    if len(calls) != 1:
        return None
    return calls[0].get("function", calls[0])


def _problem(function: Any, functions: Mapping[str, Any]) -> str:
    """What is wrong with one call of a function; "" where nothing is."""
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
        return "no call in OpenAI's form"
    name, arguments = function["name"], function.get("arguments")
    if name not in functions:
        return f"there is no function {shorten(name, 60)}"
    given = _loaded(arguments) if isinstance(arguments, str) else arguments
    if not isinstance(given, Mapping):
        return f"the arguments of {name} are no JSON object: {shorten(arguments, 60)}"
    try:
        _schema(json.dumps(functions[name] or {}, sort_keys=True)).check(given)
    except ValueError as error:
        return f"the arguments of {name}: {error}"
    return ""


@lru_cache(maxsize=256)
def _schema(text: str) -> Schema:
    try:
        return Schema(json.loads(text))
    except ValueError as error:
        raise AssertionErrored(f"the parameters of a tool are no JSON Schema: {error}") from error


def _functions(scene: Scene, spec: AssertionSpec) -> dict[str, Any]:
    """The parameters' schema of each function, of the spec's tools or else of the prompt's."""
    tools = spec.value if spec.value is not None else scene.tools
    if not tools:
        raise AssertionErrored("the prompt declares no tools: add `tools:` to it, or give them as `value:`")
    functions = [_function(tool) for tool in tools]
    return {function["name"]: function.get("parameters") for function in functions}


def _function(tool: Mapping[str, Any]) -> Mapping[str, Any]:
    inner = tool.get("function")
    return inner if isinstance(inner, Mapping) else tool


def _expected(kind: str, problem: str) -> str:
    text = f"valid {kind}" if kind.endswith("s") else f"a valid {kind}"
    return f"{text} ({problem})" if problem else text


def _check_tools(spec: AssertionSpec) -> None:
    no_threshold(spec)
    if spec.value is None:
        return
    tools: Sequence[Any] = spec.value if isinstance(spec.value, list) else []
    if not tools or not all(isinstance(tool, dict) and isinstance(_function(tool).get("name"), str) for tool in tools):
        refuse(f"`{spec.type}` takes a list of OpenAI's tools", "leave `value` out to use those of the prompt")
    for tool in tools:
        try:
            Schema(_function(tool).get("parameters") or {})
        except ValueError as error:
            refuse(f"the parameters of {_function(tool)['name']!r} are no JSON Schema: {error}", "mend the schema")


FAMILY: Family = {
    "tool-call-f1": Assertion(_tool_call_f1, _check_f1),
    "is-valid-openai-tools-call": SceneAssertion(_is_valid_tools_call, _check_tools),
    "is-valid-openai-function-call": SceneAssertion(_is_valid_function_call, _check_tools),
    "is-valid-function-call": SceneAssertion(_is_valid_function_call, _check_tools),
}

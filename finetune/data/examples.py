"""Training examples as files hold them: read with every fault at once, and digested."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from prompts.errors import BadFile, Fault
from prompts.strict_json import HALF, STRICT

_FORM = '{"vars": {"name": "value"}, "expected": "answer"}'


@dataclass(frozen=True, slots=True)
class Example:
    """One training example: the prompt's variables and the answer that the model should learn to give."""

    vars: Mapping[str, Any]
    expected: str


def parse_examples(lines: Iterable[str], path: str) -> list[Example]:
    """Examples of a JSONL file, one object a line; blank lines are skipped. `path` names the file in errors.

    Raises BadFile with the faults of all lines, also where the file holds no example.
    """
    examples: list[Example] = []
    faults: list[Fault] = []
    for number, line in enumerate(without_mark(lines), start=1):
        if not line.strip():
            continue
        found = _parse_line(line, path, number)
        if isinstance(found, Example):
            examples.append(found)
        else:
            faults += found
    if not examples and not faults:
        faults = [Fault(path, 0, "no examples", f"add one a line: {_FORM}")]
    if faults:
        raise BadFile(faults)
    return examples


def without_mark(lines: Iterable[str]) -> Iterator[str]:
    """Lines of a file without the byte order mark that some editors begin UTF-8 with."""
    for number, line in enumerate(lines):
        yield line if number else line.removeprefix("\ufeff")


def parsed_line(line: str, path: str, number: int, form: str = _FORM) -> Any | Fault:
    """The JSON value of one line, or its fault, which tells the `form` that a line has."""
    try:
        return STRICT.decode(line.strip())
    except ValueError as error:
        return Fault(path, number, f"not JSON: {error}", f"one object a line: {form}")
    except RecursionError:
        return Fault(path, number, "JSON nested too deeply", f"one object a line: {form}")


def _parse_line(line: str, path: str, number: int) -> Example | list[Fault]:
    value = parsed_line(line, path, number)
    if isinstance(value, Fault):
        return [value]
    faults = [Fault(path, number, message, fix) for message, fix in _faults_of(value)]
    return faults or Example(vars=value["vars"], expected=value["expected"])


def _faults_of(value: Any) -> Iterator[tuple[str, str]]:
    if not isinstance(value, dict):
        yield f"an example is an object, not {_type(value)}", f"write {_FORM}"
        return
    for key in sorted(value.keys() - {"vars", "expected"}):
        yield f"unknown key {key!r}", "an example has `vars` and `expected` only"
    for key in ("vars", "expected"):
        if key not in value:
            yield f"missing key {key!r}", f"write {_FORM}"
    if not isinstance(value.get("vars", {}), dict):
        yield f"`vars` is an object, not {_type(value['vars'])}", 'name the variables: {"ticket": "…"}'
    if not isinstance(value.get("expected", ""), str):
        yield f"`expected` is a text, not {_type(value['expected'])}", "put the answer in quotes"
    elif not value.get("expected", "-").strip():
        yield "`expected` is empty", "give the answer that the model should learn, or delete the line"
    yield from half_problems(value)


def half_problems(value: Any) -> Iterator[tuple[str, str]]:
    """What is wrong with JSON that holds half a character, which no tokenizer takes."""
    try:
        text = json.dumps(value, ensure_ascii=False)
    except RecursionError:  # what was read may still be too deep to be written
        yield "JSON nested too deeply", "flatten it"
        return
    if HALF.search(text):
        yield "half of a pair (U+D800 to U+DFFF) stands alone, which is no character", "mend it"


def _type(value: Any) -> str:
    if value is None:
        return "null"
    names = {bool: "a boolean", int: "a number", float: "a number", str: "a text", list: "a list", dict: "an object"}
    return names.get(type(value), type(value).__name__)


def digest(examples: Sequence[Example]) -> str:
    """`sha256:…` of the examples and their order; independent of how their file spells them."""
    rows = [[dict(example.vars), example.expected] for example in examples]
    text = json.dumps(rows, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return "sha256:" + hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()

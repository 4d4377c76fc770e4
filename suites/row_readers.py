"""Cases in files of each kind, with the line of every one of them: pure functions of a text."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from prompts.errors import BadFile, Fault
from prompts.strict_json import HOOKS
from prompts.yaml_source import Document, load_yaml
from suites.csv_cases import csv_rows
from suites.rows import Row
from suites.values import MAX_DEPTH, names_of, too_deep, walk_texts

MAX_LINE_BYTES = 16 * 1024 * 1024
JSON_LINES = (".jsonl", ".ndjson")  # suffixes of files that are read line by line, however long they are


def line_text(line: bytes, number: int, path: str) -> str:
    """One line as text; raises BadFile where it is too long, not UTF-8, or holds NUL."""
    if len(line) >= MAX_LINE_BYTES:
        raise BadFile([Fault(path, number, f"a line is longer than {MAX_LINE_BYTES // 2**20} MiB", "shorten the case")])
    try:
        text = line.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError as error:
        raise BadFile([Fault(path, number, "is not UTF-8 text", "save it as UTF-8")]) from error
    if "\0" in text:
        raise BadFile([Fault(path, number, "holds a NUL byte", "save it as plain UTF-8 text")])
    return text


def load_data(text: str, path: str) -> Document:
    """A JSON or YAML file as one value."""
    if not path.lower().endswith(".json"):
        return load_yaml(text, path)
    try:
        return Document(path, _JSON.decode(text), {(): 1})
    except (ValueError, RecursionError) as error:
        raise BadFile([_json_fault(path, 1, error)]) from error


def _yaml_rows(text: str, path: str, faults: list[Fault]) -> Iterable[Row]:
    document = load_yaml(text, path)
    if not isinstance(document.data, list):
        faults.append(document.fault("a file of cases holds a list", fix="start each case with `- vars:`"))
        return []
    return [(document, (index,)) for index in range(len(document.data))]


def _json_rows(text: str, path: str, faults: list[Fault]) -> Iterator[Row]:
    """Rows of a JSON file: a list of cases, read one by one because only so is the line of each known."""
    position = _skip_space(text, 0)
    if text[position : position + 1] != "[":
        faults.append(Fault(path, 1, "a file of cases holds a list", "write [ … ] around the cases"))
        return
    line, counted = 1, 0
    position = _skip_space(text, position + 1)
    while text[position : position + 1] != "]":
        line, counted = line + text.count("\n", counted, position), position
        try:
            value, position = _JSON.raw_decode(text, position)
            yield Document(path, value, {(): line}), ()
            position = _after_comma(text, position)
        except (ValueError, RecursionError) as error:
            faults.append(_json_fault(path, line, error))
            return


def _skip_space(text: str, position: int) -> int:
    found = _SPACE.match(text, position)
    return found.end() if found else position


def _after_comma(text: str, position: int) -> int:
    """Where the next item begins, or the list ends."""
    position = _skip_space(text, position)
    if text[position : position + 1] == ",":
        return _skip_space(text, position + 1)
    if text[position : position + 1] != "]":
        raise json.JSONDecodeError("expected a comma or the end of the list", text, position)
    return position


def _json_fault(path: str, line: int, error: Exception) -> Fault:
    if isinstance(error, _Unkept):
        return Fault(path, line, str(error), "remove it")
    if not isinstance(error, json.JSONDecodeError):
        return Fault(path, line, f"not valid JSON: {error}", "mend the JSON here", rule="json")
    return Fault(path, max(line, error.lineno), f"not valid JSON: {error.msg}", "mend the JSON here", rule="json")


def line_rows(lines: Iterable[str], path: str, faults: list[Fault]) -> Iterator[Row]:
    """Rows of a JSON-lines file; a broken line is a fault and the rest is read on."""
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            yield Document(path, _JSON.decode(line), {(): number}), ()
        except (ValueError, RecursionError) as error:
            faults.append(_json_fault(path, number, error))


class _PlainJson(json.JSONDecoder):
    """JSON without what `strict_json` refuses, nesting that what reads it later could not follow, or what no database keeps."""

    def __init__(self) -> None:
        super().__init__(**HOOKS)

    def raw_decode(self, text: str, idx: int = 0) -> tuple[Any, int]:
        value, end = super().raw_decode(text, idx)
        if _opening(text, idx, end) > MAX_DEPTH and too_deep(value):
            raise ValueError(f"it nests deeper than {MAX_DEPTH} levels")
        if _MAYBE_UNKEPT.search(text, idx, end) and _holds_unkept(value):
            raise _Unkept("holds a NUL, or half a character")
        return value, end


class _Unkept(ValueError):
    """Of JSON that is valid and holds what no database keeps."""


def _holds_unkept(value: Any) -> bool:
    """Whether a text or a key within `value` holds a NUL, or a surrogate without its other half."""
    texts = (text for _, text in walk_texts(value))
    return any(_UNKEPT.search(text) for text in (*texts, *map(str, names_of(value))))


def _opening(text: str, start: int, end: int) -> int:
    """How many lists and mappings begin in a piece of JSON, brackets within texts counted, too: it nests no deeper."""
    return text.count("[", start, end) + text.count("{", start, end)


_JSON = _PlainJson()
_SPACE = re.compile(r"[ \t\r\n]*")
_UNKEPT = re.compile("[\0\ud800-\udfff]")
_MAYBE_UNKEPT = re.compile("[\0\ud800-\udfff]|" r"\\u(?:0000|[dD][89a-fA-F])")  # as it is, or as JSON spells it

RowReader = Callable[[str, str, list[Fault]], Iterable[Row]]
ROW_READERS: dict[str, RowReader] = {
    ".json": _json_rows,
    ".yaml": _yaml_rows,
    ".yml": _yaml_rows,
    ".csv": csv_rows,
}

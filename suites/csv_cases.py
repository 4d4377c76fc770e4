"""Cases from CSV, with promptfoo's columns: variables by their header, what is expected in `__expected…`."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator
from typing import Any

from prompts.errors import Fault
from prompts.yaml_source import Document, suggest
from suites.assertions import ASSERTIONS, NOT
from suites.case import Row

_EXPECTED = re.compile(r"__expected[0-9]*")
_METADATA = re.compile(r"__metadata:.+")
_FOREIGN_COLUMNS = {
    "__prefix": "write it into the prompt: what is tested is what is served",
    "__suffix": "write it into the prompt: what is tested is what is served",
    "__providerOutput": "an answer comes from a model here: remove the column",
    "__metadata": "name the field: __metadata:category",
}
_PLAIN = ("__description", "__metric", "__threshold", "__must_pass", "__tags", "__cluster")
_TYPED = re.compile(r"(?s)(?P<type>(?:not-)?[a-z][a-z-]*)(?:\((?P<threshold>[0-9.]+)\))?(?::(?P<value>.*))?")
# promptfoo reads these before a colon as code or as a judge: taking them for plain text would test something else
_FOREIGN = frozenset({"file", "grade", "llm-rubric", "similar", "webhook", "ruby", "classifier", "moderation",
                      "factuality", "model-graded-closedqa", "guardrails", "pi"})  # fmt: skip
_SAME = {"fn": "javascript", "eval": "javascript"}  # promptfoo's older words
_LISTS = ("contains-any", "contains-all", "icontains-any", "icontains-all")
_JSON = ("is-json", "contains-json", "is-sql", "contains-sql", "is-valid-openai-tools-call",
         "is-valid-openai-function-call", "is-valid-function-call")  # fmt: skip
_COUNTS = ("word-count", "character-count")
_SCRIPTS = ("javascript", "python")
_BARE = (*_JSON, "latency", "cost", "is-xml", "contains-xml", "is-html", "contains-html", "is-refusal", "perplexity",
         "perplexity-score")  # fmt: skip
MAX_FIELD_CHARACTERS = 8 * 1024 * 1024


class _BadCell(ValueError):
    """A cell that does not say what it should; the message and its fix."""


def csv_rows(text: str, path: str, faults: list[Fault]) -> Iterator[Row]:
    """A row for each line of the table; what is wrong with one is a fault and the rest is read on."""
    before = csv.field_size_limit(MAX_FIELD_CHARACTERS)
    try:
        yield from _read_table(csv.reader(io.StringIO(text, newline=""), strict=True), path, faults)
    finally:
        csv.field_size_limit(before)


def _read_table(reader: Any, path: str, faults: list[Fault]) -> Iterator[Row]:
    line = 1
    try:
        header = [name.strip() for name in next(reader, [])]
        faults.extend(header_faults(header, path))
        line = reader.line_num + 1
        for cells in reader:
            if any(cells):
                yield from _row(header, cells, path, line, faults)
            line = reader.line_num + 1
    except csv.Error as error:
        faults.append(Fault(path, line, f"not valid CSV: {error}", "close the quotes of this row", rule="csv"))


def header_faults(header: list[str], path: str) -> Iterator[Fault]:
    """What is wrong with the names of the columns."""
    if not header:
        yield Fault(path, 1, "the file has no header", "name a variable in each column, and __expected")
    for name in header:
        if not name or header.count(name) > 1:
            yield Fault(
                path, 1, f"the column {name!r} is named twice or not at all", "give each column a name of its own"
            )
        elif name in _FOREIGN_COLUMNS:
            yield Fault(path, 1, f"the column {name!r} is not read", _FOREIGN_COLUMNS[name])
        elif (
            name.startswith("__")
            and name not in _PLAIN
            and not _EXPECTED.fullmatch(name)
            and not _METADATA.fullmatch(name)
        ):
            yield Fault(path, 1, f"unknown column {name!r}", suggest(name, [*_PLAIN, "__expected"]))


def _row(header: list[str], cells: list[str], path: str, line: int, faults: list[Fault]) -> Iterator[Row]:
    if len(cells) != len(header):
        message = f"the row has {len(cells)} cells, the header {len(header)}"
        faults.append(Fault(path, line, message, "quote cells that hold commas or line breaks", rule="csv"))
        return
    yield from row_of(dict(zip(header, cells, strict=True)), path, line, faults)


def row_of(cells: dict[str, Any], path: str, line: int, faults: list[Fault]) -> Iterator[Row]:
    """The case of one row of a table; none, and a fault, where a cell does not say what it should."""
    try:
        case = _case(cells)
    except _BadCell as error:
        faults.append(Fault(path, line, str(error), "mend this cell"))
        return
    yield Document(path, case, {(): line}), ()


def _case(cells: dict[str, Any]) -> dict[str, Any]:
    case: dict[str, Any] = {"vars": {name: cell for name, cell in cells.items() if not name.startswith("__")}}
    metric = {"metric": cells["__metric"]} if cells.get("__metric") else {}
    expected = [str(cell) for name, cell in cells.items() if _EXPECTED.fullmatch(name) and str(cell).strip()]
    case["assert"] = [{**assertion_from_text(cell), **metric} for cell in expected]
    metadata = {name.partition(":")[2]: cell for name, cell in cells.items() if _METADATA.fullmatch(name) and cell}
    if metadata:
        case["metadata"] = {name.removesuffix("[]"): _metadata(name, cell) for name, cell in metadata.items()}
    if cells.get("__description"):
        case["description"] = cells["__description"]
    if cells.get("__threshold"):
        case["threshold"] = _number(cells["__threshold"])
    if cells.get("__must_pass"):
        case["must_pass"] = _truth(str(cells["__must_pass"]))
    if cells.get("__tags"):
        tags = cells["__tags"]  # a list where the table can hold one
        case["tags"] = tags if isinstance(tags, list) else [tag.strip() for tag in tags.split(",") if tag.strip()]
    if cells.get("__cluster"):
        case["cluster"] = cells["__cluster"]
    return case


def _metadata(name: str, cell: Any) -> Any:
    """A list where the column ends in [], with commas between its items and `\\,` for a comma in one."""
    if not name.endswith("[]") or not isinstance(cell, str):
        return cell
    return [item.strip().replace("\\,", ",") for item in re.split(r"(?<!\\),", cell) if item.strip()]


def assertion_from_text(text: str) -> dict[str, Any]:
    """promptfoo's short form: `type:value`, `type(threshold):value`, or a plain text, which means `equals`."""
    match = _TYPED.fullmatch(text.strip())
    written = match["type"] if match else ""
    base = _SAME.get(written.removeprefix(NOT), written.removeprefix(NOT))
    kind = NOT + base if written.startswith(NOT) else base
    if match and base in _FOREIGN - ASSERTIONS.keys() and match["value"] is not None:
        raise _BadCell(f"the assertion type {kind!r} is not supported; known: {', '.join(ASSERTIONS)}")
    if not match or base not in ASSERTIONS or (match["value"] is None and base not in _BARE):
        return {"type": "equals", "value": text}
    spec: dict[str, Any] = {"type": kind}
    if match["threshold"]:
        spec["threshold"] = _number(match["threshold"])
    if match["value"]:
        spec["value"] = _value(base, match["value"].strip() if base in _SCRIPTS else match["value"])
    return spec


def _value(kind: str, text: str) -> Any:
    if kind in _LISTS:
        return [item.strip() for item in next(csv.reader([text], skipinitialspace=True), [])]
    if kind not in _JSON and not (kind in _COUNTS and text.lstrip().startswith("{")):
        return text
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _BadCell(f"the value of `{kind}` is not valid JSON: {error}") from error


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise _BadCell(f"{text!r} is no number") from error


def _truth(text: str) -> bool:
    if text.strip().lower() not in ("true", "false", "yes", "no", "1", "0"):
        raise _BadCell(f"__must_pass is true or false, not {text!r}")
    return text.strip().lower() in ("true", "yes", "1")

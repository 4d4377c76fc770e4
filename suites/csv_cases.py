"""Cases from CSV, with promptfoo's columns: variables by their header, what is expected in `__expected…`."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from prompts.errors import Fault
from prompts.yaml_source import Document, suggest
from suites.rows import Row
from suites.salvage import Damaged
from suites.short_form import BadCell, assertion_from_text

_EXPECTED = re.compile(r"__expected[0-9]*")
_METADATA = re.compile(r"__metadata:.+")
_CONFIG = re.compile(r"__config:(?P<column>__expected[0-9]*):threshold")
_FOREIGN_COLUMNS = {
    "__prefix": "write it into the prompt: what is tested is what is served",
    "__suffix": "write it into the prompt: what is tested is what is served",
    "__providerOutput": "an answer comes from a model here: remove the column",
    "__metadata": "name the field: __metadata:category",
}
_PLAIN = ("__description", "__metric", "__threshold", "__must_pass", "__tags", "__cluster")
_ONE_UNDERSCORE = re.compile(r"_(?:expected[0-9]*|description|metric|threshold|metadata:.+|config:.+)")
_OTHER_SEPARATORS = {";": "semicolon", "\t": "tab", "|": "bar"}
MAX_FIELD_CHARACTERS = 8 * 1024 * 1024


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
        if told := _separator_fault(header):
            faults.append(Fault(path, 1, *told, rule="csv"))
            return
        faults.extend(header_faults(header, path))
        line = reader.line_num + 1
        for cells in reader:
            if any(cells):
                yield from _row(header, cells, path, line, faults)
            line = reader.line_num + 1
    except csv.Error as error:
        faults.append(Fault(path, line, f"not valid CSV: {error}", "close the quotes of this row", rule="csv"))


def _separator_fault(header: list[str]) -> tuple[str, str] | None:
    """Message and fix for a table whose columns are not told apart by commas: its header is one name with another separator."""
    name = header[0] if len(header) == 1 else ""
    found = next((word for sign, word in _OTHER_SEPARATORS.items() if sign in name), None)
    if found is None:
        return None
    return (
        f"the only column is {name[:80]!r}: its separator looks like a {found}",
        "save the table with commas between its cells; cells that hold commas in double quotes",
    )


def header_faults(header: list[str], path: str) -> Iterator[Fault]:
    """What is wrong with the names of the columns."""
    if not header:
        yield Fault(path, 1, "the file has no header", "name a variable in each column, and __expected")
    for name in dict.fromkeys(header):
        if not name or header.count(name) > 1:
            message = f"the column {name!r} is named twice or not at all"
            yield Fault(path, 1, message, "give each column a name of its own")
        elif told := _column_fault(name, header):
            yield Fault(path, 1, *told)


def _column_fault(name: str, header: list[str]) -> tuple[str, str] | None:
    """Message and fix for the name of a column that is not read."""
    if name in _FOREIGN_COLUMNS:
        return f"the column {name!r} is not read", _FOREIGN_COLUMNS[name]
    if name.startswith("__config:"):
        return _config_fault(name, header)
    if _ONE_UNDERSCORE.fullmatch(name):
        return f"the column {name!r} has one underscore", f"write {'_' + name!r}; a variable has another name"
    if name in _PLAIN or not name.startswith("__") or _EXPECTED.fullmatch(name) or _METADATA.fullmatch(name):
        return None
    return f"unknown column {name!r}", suggest(name, [*_PLAIN, "__expected"])


def _config_fault(name: str, header: list[str]) -> tuple[str, str] | None:
    match = _CONFIG.fullmatch(name)
    if not match:
        fix = "write __config:__expected:threshold, or __config:__expected2:threshold for the second"
        return f"the column {name!r} is not read: a table sets the threshold of an assertion alone", fix
    if _target(match["column"], header) is None:
        return f"the column {name!r} is of an assertion that the table has not", f"add a column {match['column']}"
    return None


def _target(column: str, header: Iterable[str]) -> str | None:
    """The column of the assertion that promptfoo's `__expectedN` names: that one, else the N-th; None for none."""
    columns = [name for name in header if _EXPECTED.fullmatch(name)]
    number = int(column.removeprefix("__expected") or 1)
    if column in columns:
        return column
    return columns[number - 1] if 0 < number <= len(columns) else None


def _row(header: list[str], cells: list[str], path: str, line: int, faults: list[Fault]) -> Iterator[Row]:
    if len(cells) != len(header):
        message = f"the row has {len(cells)} cells, the header {len(header)}"
        faults.append(Fault(path, line, message, "quote cells that hold commas or line breaks", rule="csv"))
        return
    yield from row_of(dict(zip(header, cells, strict=True)), path, line, faults)


def row_of(cells: dict[str, Any], path: str, line: int, faults: list[Fault]) -> Iterator[Row]:
    """The case of one row of a table; each cell that does not say what it should is a fault, and left out."""
    bad: list[BadCell] = []
    case = _case(cells, bad)
    for error in bad:
        message, fix = error.args
        faults.append(Fault(path, line, message, fix))
    yield Document(path, Damaged(case) if bad else case, {(): line}), ()


def _case(cells: dict[str, Any], bad: list[BadCell]) -> dict[str, Any]:
    case: dict[str, Any] = {"vars": {name: cell for name, cell in cells.items() if not name.startswith("__")}}
    case["assert"] = list(_assertions(cells, bad))
    metadata = {name.partition(":")[2]: cell for name, cell in cells.items() if _METADATA.fullmatch(name) and cell}
    if metadata:
        case["metadata"] = {name.removesuffix("[]"): _metadata(name, cell) for name, cell in metadata.items()}
    for column, read in _READERS.items():
        if cells.get(column) not in (None, ""):
            try:
                case[column.removeprefix("__")] = read(cells[column])
            except BadCell as error:
                bad.append(error)
    return case


def _assertions(cells: dict[str, Any], bad: list[BadCell]) -> Iterator[dict[str, Any]]:
    """The assertions of a row, each with the row's metric and the threshold of its own column."""
    common = {"metric": cells["__metric"]} if cells.get("__metric") else {}
    thresholds = {}
    for name, cell in cells.items():
        if (match := _CONFIG.fullmatch(name)) and str(cell).strip():
            thresholds[_target(match["column"], cells)] = cell
    for name in [name for name, cell in cells.items() if _EXPECTED.fullmatch(name) and str(cell).strip()]:
        try:
            bound = {"threshold": _number(thresholds.pop(name))} if name in thresholds else {}
            yield {**assertion_from_text(str(cells[name])), **common, **bound}
        except BadCell as error:
            bad.append(error)
    bad += [
        BadCell(f"a threshold for {name}, which is empty in this row", "empty this cell, too") for name in thresholds
    ]


def _metadata(name: str, cell: Any) -> Any:
    """A list where the column ends in [], with commas between its items and `\\,` for a comma in one."""
    if not name.endswith("[]") or not isinstance(cell, str):
        return cell
    return [item.strip().replace("\\,", ",") for item in re.split(r"(?<!\\),", cell) if item.strip()]


def _number(cell: Any) -> float:
    try:
        return float(cell)
    except (TypeError, ValueError) as error:
        raise BadCell(f"{str(cell)[:40]!r} is no number", "write a threshold such as 0.8") from error


def _truth(cell: Any) -> bool:
    text = str(cell).strip().lower()
    if text not in ("true", "false", "yes", "no", "1", "0"):
        raise BadCell(f"__must_pass is true or false, not {str(cell)[:40]!r}", "write true or false")
    return text in ("true", "yes", "1")


def _tags(cell: Any) -> list[str]:
    """A list where the table can hold one, else the texts between commas."""
    return cell if isinstance(cell, list) else [tag.strip() for tag in str(cell).split(",") if tag.strip()]


_READERS: Mapping[str, Callable[[Any], Any]] = {
    "__description": str,
    "__threshold": _number,
    "__must_pass": _truth,
    "__tags": _tags,
    "__cluster": str,
}

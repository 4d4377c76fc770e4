"""Where cases stand before they are read: the rows of a document, and the place of each."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from prompts.errors import Fault
from prompts.yaml_source import Document
from suites.matrix import Schemas
from suites.values import FILE, Keys


class Place(NamedTuple):
    """Where a case was read; line 0 where it came as data."""

    path: str
    line: int


class Places(Sequence[Place]):
    """Where each of many cases was read, in eight bytes a case."""

    def __init__(self) -> None:
        self._paths: dict[str, int] = {}
        self._path_of = array("I")
        self._lines = array("I")

    def add(self, path: str, line: int) -> None:
        self._path_of.append(self._paths.setdefault(path, len(self._paths)))
        self._lines.append(line)

    def __len__(self) -> int:
        return len(self._lines)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        return Place(list(self._paths)[self._path_of[index]], self._lines[index])


Declared = Callable[[str], Schemas | None]  # the schemas of a prompt's variables, None where it is not known
Row = tuple[Document, Keys]  # a case not yet read: its document, and the keys that lead to it


def inline_rows(document: Document) -> tuple[list[Row], list[Fault]]:
    """The rows below `tests`, whatever stands in them, and what is wrong with `tests` itself."""
    tests = document.data.get("tests") if isinstance(document.data, dict) else None
    if isinstance(tests, str) and tests.startswith(FILE):
        return [(document, ("tests",))], []
    if not isinstance(tests, list) or not tests:
        fix = "add `tests:` with a list of cases, or of file:// references"
        if isinstance(tests, str):
            return [], [_text_fault(document, tests, "tests")]
        return [], [document.fault("a suite needs tests", "tests", fix=fix, rule="missing-key")]
    faults = [_text_fault(document, row, "tests", index) for index, row in enumerate(tests) if _is_other_text(row)]
    return [(document, ("tests", index)) for index, row in enumerate(tests) if not _is_other_text(row)], faults


def _is_other_text(row: Any) -> bool:
    return isinstance(row, str) and not row.startswith(FILE)


def _text_fault(document: Document, text: str, *keys: str | int) -> Fault:
    """Why a text that is no `file://` reference holds no cases; promptfoo would fetch or run some."""
    if "://" in text:
        fix = "save the table as CSV or JSON lines in the project, and refer to it by file://"
        return document.fault(f"{text[:80]!r}: cases are not fetched from the network", *keys, fix=fix)
    return document.fault(
        f"{text[:80]!r} holds no cases", *keys, fix=f"write {FILE}{text[:80]}, or a case with `vars:`"
    )


def reference_of(row: Row) -> str:
    """The `file://` reference that stands where a case could; "" where there is none."""
    document, keys = row
    value = document.data
    for key in keys:
        value = value[key]
    return value if isinstance(value, str) and value.startswith(FILE) else ""

"""Where cases stand before they are read: the rows of a document, and the place of each."""

from __future__ import annotations

from array import array
from bisect import bisect_right
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
    """Where each of many cases was read. Those on lines equally far apart are one span, as in a file with one on each line."""

    def __init__(self) -> None:
        self._paths: dict[str, int] = {}
        self._starts = array("I")  # of spans: the index of the first of each
        self._path_of = array("I")
        self._lines = array("I")
        self._steps = array("i")
        self._count = 0

    def add(self, path: str, line: int) -> None:
        number = self._paths.setdefault(path, len(self._paths))
        if not self._goes_on(number, line):
            self._starts.append(self._count)
            self._path_of.append(number)
            self._lines.append(line)
            self._steps.append(0)
        self._count += 1

    def _goes_on(self, path: int, line: int) -> bool:
        """Whether the last span holds this one, too; its second one says how far apart they are."""
        if not self._starts or self._path_of[-1] != path:
            return False
        before = self._count - self._starts[-1]
        if before == 1:
            self._steps[-1] = line - self._lines[-1]
        return line == self._lines[-1] + before * self._steps[-1]

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        place = range(self._count)[index]
        span = bisect_right(self._starts, place) - 1
        line = self._lines[span] + (place - self._starts[span]) * self._steps[span]
        return Place(list(self._paths)[self._path_of[span]], line)


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

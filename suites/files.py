"""The command line's loader: a suite file, the files it refers to, and the line of whatever is wrong with any of them.

`file://` is relative to the suite file and stays inside the project after symbolic links. Only this module opens
files; a server reads suites by `Suite.from_data`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from pydantic import BaseModel

from prompts.errors import BadFile, Fault
from prompts.formats.prompt_yml import PromptSource
from prompts.names import name_from_path
from prompts.yaml_source import Document, load_yaml, parse_model
from suites.case import Assembled, Example, Label, Suite, assembled, read_data
from suites.checks import check_prices
from suites.parquet_cases import PARQUET, parquet_rows
from suites.row_readers import JSON_LINES, MAX_LINE_BYTES, ROW_READERS, line_rows, line_text, load_data
from suites.rows import Declared, Place, Places, Row, inline_rows, reference_of
from suites.values import FILE, Keys, too_deep, walk_texts

SUFFIX = ".suite.yml"
RecordT = TypeVar("RecordT", bound=BaseModel)
MAX_FILE_BYTES = 64 * 1024 * 1024
_FUNCTION = re.compile(r"(?P<file>.+\.(?:[cm]?js|py)):(?P<function>[A-Za-z_$][\w$]*)")
_PYTHON_TYPES = ("python", "not-python")
LINES = "tests_jsonl"  # in place of `tests`, where many cases are sent
_GLOB = re.compile(r"[*?\[]")
_FORMS: dict[type[Example | Label], str] = {
    Example: '{"vars": {"name": "value"}, "expected": "answer"}',
    Label: '{"vars": {"name": "value"}, "output": "answer", "label": "pass"}',
}
_ALL_LISTED = "name a file that ends in .jsonl, .json, .yaml, .yml, .csv or .parquet"


@dataclass(frozen=True)
class ResolvedSuite:
    """A suite with all it refers to inlined, and where it came from.

    `places` says for each case in `suite.tests` where it stands; `sources` are all files that were read, the suite's
    first: what to watch for changes.
    """

    name: str
    path: Path
    suite: Suite
    document: Document = field(repr=False)
    places: Sequence[Place] = field(repr=False)
    sources: tuple[Path, ...]
    is_whole: bool = True  # false where something with a fault was left out

    @property
    def examples(self) -> list[dict[str, Any]]:
        """The training examples as plain `{"vars", "expected"}`."""
        return [example.model_dump() for example in self.suite.training.examples]

    def check_prices(self, model: str, has_price: bool) -> None:
        """`suites.checks.check_prices` with the lines of this file."""
        check_prices(self.suite, model, has_price, document=self.document, places=self.places)


def brought_suite(source: PromptSource) -> tuple[ResolvedSuite | None, tuple[Fault, ...]]:
    """The suite that a prompt file brings with it (`testData`), and what could not be made a part of it.

    Raises BadFile as `suites.github.suite_of` does.
    """
    if not source.test_data and not source.evaluators:
        return None, ()
    from suites.github import suite_of  # few projects have one

    found, document = suite_of(source), source.document
    if found.suite is None:
        return None, found.left_out
    path = Path(document.path).absolute()
    places = tuple(Place(document.path, document.line("testData", index)) for index in range(len(source.test_data)))
    return ResolvedSuite(source.name, path, found.suite, document, places, (path,)), found.left_out


def suite_name(path: Path, root: Path) -> str:
    """A suite's name: its path below `suites/` of the project at `root`, dots for folders.

    A file elsewhere is called by its own name alone. Raises BadName where that is outside the grammar.
    """
    absolute, folder = path.resolve(), (root / "suites").resolve()
    below = absolute.relative_to(folder) if absolute.is_relative_to(folder) else Path(absolute.name)
    suffix = next((end for end in (SUFFIX, ".suite.yaml", *below.suffixes[-1:]) if below.name.endswith(end)), "")
    return name_from_path(PurePosixPath(below.as_posix()), suffix, "suite")


def load_suite(path: Path, project: Path, declared: Declared | None = None) -> ResolvedSuite:
    """Read a suite and everything it refers to.

    Raises BadFile with all faults of all its files, BadName where the file's name cannot be a suite's.
    """
    found, faults = read_suite(path, project, declared)
    if faults or found is None:
        raise BadFile(faults)
    return found


def read_suite(
    path: Path, project: Path, declared: Declared | None = None
) -> tuple[ResolvedSuite | None, tuple[Fault, ...]]:
    """A suite with everything it refers to, and all faults of all its files.

    With faults it is what is left without them (`is_whole` is false), to be held against its prompt for more faults, or
    None. `declared` gives the variables of its prompt, by which a list is data or a matrix. Raises BadFile where the file
    is no YAML of keys and values, BadName where its name cannot be a suite's.
    """
    reader = _Reader(path, project)
    name = suite_name(path, project)
    document = reader.document(path)
    if not isinstance(document.data, dict):
        raise BadFile([document.fault("a suite is keys and values", fix="start with `prompt:` and `tests:`")])
    rows, is_complete = reader.suite_rows(document)
    suite, places, faults = assembled(document, rows, reader.faults, declared, is_complete=is_complete)
    if suite is not None and not suite.tests and not faults:
        message, fix = "a suite needs tests, and its files hold none", "write a case into one of them"
        faults.append(document.fault(message, "tests", fix=fix, rule="missing-key"))
    if suite is None:
        return None, tuple(faults)
    found = ResolvedSuite(name, path, suite, document, places, tuple(reader.sources), is_whole=not faults)
    return found, tuple(faults)


def suite_of_data(data: Mapping[str, Any], origin: str) -> Suite:
    """A suite that came as data, its cases as a list or as lines. Raises BadFile as `Suite.from_data` does."""
    return read_sent(data, origin).whole()


def read_sent(data: Mapping[str, Any], origin: str) -> Assembled:
    """A suite that came as data, its cases as a list or as lines, and all its faults; those of lines name them."""
    return _read_lines(data, origin) if LINES in data else read_data(data, origin)


def _read_lines(data: Mapping[str, Any], origin: str) -> Assembled:
    """A suite with its cases as JSON lines in one text, `tests_jsonl`, each held to what data is."""
    head = {name: value for name, value in data.items() if name != LINES}
    faults: list[Fault] = []
    if "tests" in head or not isinstance(data[LINES], str) or too_deep(head):
        message, fix = f"`{LINES}` is one text, a case on each line", "send it in place of `tests`"
        return Assembled(None, Places(), [Fault(origin, 0, message, fix)])
    document = Document(origin, head, {(): 0})
    rows = line_rows(_lines_of(data[LINES]), f"{origin}: {LINES}", faults)
    found = assembled(document, _own_rows(rows, faults), faults)
    if not found.faults and found.suite and not found.suite.tests:
        found.faults.append(document.fault("a suite needs tests", fix=f"give `{LINES}` a case on each line"))
    return found


def _lines_of(text: str) -> Iterator[str]:
    """The lines of a text, one at a time: all together they would take its room once more."""
    start = 0
    while (end := text.find("\n", start)) >= 0:
        yield text[start:end]
        start = end + 1
    yield text[start:]


def _own_rows(rows: Iterable[Row], faults: list[Fault]) -> Iterator[Row]:
    """Rows without what only files may hold: references to others."""
    for document, keys in rows:
        texts = [text for _, text in walk_texts(document.data)]
        if isinstance(document.data, str) or any(text.startswith(FILE) for text in texts):
            faults.append(document.fault("file:// is read by the command line alone", fix="send what the file holds"))
        else:
            yield document, keys


class _Reader:
    """Reads files on behalf of one suite, and keeps what was read and what was wrong."""

    def __init__(self, path: Path, project: Path) -> None:
        self.folder = path.resolve().parent
        self.project = project.resolve()
        self.sources: dict[Path, None] = {}
        self.faults: list[Fault] = []

    def suite_rows(self, document: Document) -> tuple[Iterator[Row], bool]:
        """The rows of a suite, and whether all that stands below `tests` is one; what its head refers to is put into it."""
        self.inline_rows_of(document, ("training", "examples"), Example)
        self.inline_rows_of(document, ("judge", "calibration"), Label)
        rows, faults = inline_rows(document)
        default = document.data.get("defaultTest")
        if isinstance(default, str) and default.startswith(FILE):
            found = self.value_of(document, ("defaultTest",), default)
            default = document.data["defaultTest"] = {} if found == default else found
        self.fill_values(document, default, ("defaultTest",))
        self.faults += faults
        return self.resolve(rows), not faults

    def document(self, path: Path) -> Document:
        return load_yaml(self.text(path), self.shown(path), self.faults)

    def shown(self, path: Path) -> str:
        """`path` as a person in the project writes it."""
        resolved = path.resolve()
        return str(resolved.relative_to(self.project)) if resolved.is_relative_to(self.project) else str(path)

    def text(self, path: Path) -> str:
        """The file as text; raises BadFile where it is missing, too large, not UTF-8, or holds NUL."""
        self.sources[path.resolve()] = None
        shown = self.shown(path)
        try:
            with path.open("rb") as file:
                content = file.read(MAX_FILE_BYTES + 1)
        except OSError as error:
            raise BadFile(
                [Fault(shown, 0, f"cannot be read: {error.strerror}", "check the path", rule="file")]
            ) from error
        if len(content) > MAX_FILE_BYTES:
            raise BadFile([Fault(shown, 0, f"is larger than {MAX_FILE_BYTES // 2**20} MiB", "split it")])
        try:
            text = content.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            line = content.count(b"\n", 0, error.start) + 1
            raise BadFile([Fault(shown, line, "is not UTF-8 text", "save it as UTF-8")]) from error
        if "\0" in text:
            line = text.count("\n", 0, text.index("\0")) + 1
            raise BadFile([Fault(shown, line, "holds a NUL byte", "save it as plain UTF-8 text")])
        return text

    def lines(self, path: Path) -> Iterator[str]:
        """The file line by line, however large it is; raises BadFile as `text` does."""
        self.sources[path.resolve()] = None
        shown = self.shown(path)
        try:
            with path.open("rb") as file:
                for number, line in enumerate(iter(lambda: file.readline(MAX_LINE_BYTES), b""), 1):
                    yield line_text(line, number, shown)
        except OSError as error:
            raise BadFile([Fault(shown, 0, f"cannot be read: {error.strerror}", "check the path")]) from error

    def inline_rows_of(self, document: Document, keys: tuple[str, str], kind: type[Example | Label]) -> None:
        """Put the rows of a file in place of the reference to it, where one stands: `training.examples`, say."""
        section = document.data.get(keys[0])
        if not isinstance(section, dict) or not isinstance(section.get(keys[1]), str):
            return
        reference = reference_of((document, keys))
        if not reference:
            return
        if reference.lower().endswith((".csv", *PARQUET)):  # whose columns are variables and assertions, nothing else
            fix = f"save it as JSON lines: {_FORMS[kind]} a line"
            message = f"{reference}: tables hold cases alone, no {'.'.join(keys)}"
            self.faults.append(document.fault(message, *keys, fix=fix, rule="file"))
            section[keys[1]] = []
            return
        rows = self.rows_of(document, keys, reference)
        section[keys[1]] = [read for row in rows if (read := self.row_as(kind, row)) is not None]

    def row_as(self, kind: type[Example | Label], row: Row) -> dict[str, Any] | None:
        document, keys = row
        try:
            return parse_model(kind, document, keys).model_dump()
        except BadFile as error:
            self.faults.extend(error.faults)
            return None

    def resolve(self, rows: Iterable[Row]) -> Iterator[Row]:
        """Rows with the files' cases in place of the references to them, and values read from theirs."""
        read: dict[Path, tuple[str, int]] = {}
        for row in rows:
            reference = reference_of(row)
            if not reference:
                yield self.filled(*row)
                continue
            for single in self.matching(*row, reference):
                path = self.found(*row, single)
                if path is None:
                    continue
                if path in read:
                    self.faults.append(_twice(*row, single, *read[path]))
                    continue
                read[path] = (reference, row[0].line(*row[1]))
                for document, keys in self.rows_at(*row, path):
                    yield self.filled(document, keys)

    def matching(self, document: Document, keys: Keys, reference: str) -> list[str]:
        """The references that one with `*`, `?` or `[` stands for, in the order of their names; itself without."""
        pattern = reference.removeprefix(FILE)
        if not _GLOB.search(pattern):
            return [reference]
        try:
            found = sorted(path for path in self.folder.glob(pattern) if path.is_file())
        except (ValueError, NotImplementedError, OSError) as error:
            self.faults.append(document.fault(f"{reference}: {error}", *keys, fix="write a path relative to the suite"))
            return []
        if not found:
            fix = f"it is looked for in {self.shown(self.folder)}/"
            self.faults.append(document.fault(f"{reference}: no file fits", *keys, fix=fix))
        return [FILE + path.relative_to(self.folder).as_posix() for path in found]

    def rows_of(self, document: Document, keys: Keys, reference: str) -> Iterator[Row]:
        """The rows of the file behind `reference`; none, and the faults kept, where it cannot be read."""
        path = self.found(document, keys, reference)
        return iter(()) if path is None else self.rows_at(document, keys, path)

    def found(self, document: Document, keys: Keys, reference: str) -> Path | None:
        """The file behind `reference`; None, and the fault kept, where there is none to read."""
        try:
            return self.inside(document, keys, reference)
        except BadFile as error:
            self.faults.extend(error.faults)
            return None

    def rows_at(self, document: Document, keys: Keys, path: Path) -> Iterator[Row]:
        """The rows of a file; none more, and the faults kept, where it cannot be read."""
        try:
            yield from self.read_rows(document, keys, path)
        except BadFile as error:
            self.faults.extend(error.faults)

    def read_rows(self, document: Document, keys: Keys, path: Path) -> Iterable[Row]:
        suffix = path.suffix.lower()
        if suffix in PARQUET:
            self.sources[path] = None
            return parquet_rows(path, self.shown(path), self.faults)
        if suffix in JSON_LINES:
            return line_rows(self.lines(path), self.shown(path), self.faults)
        read = ROW_READERS.get(suffix)
        if read is None:
            raise BadFile([document.fault(f"{path.name}: not a kind of file that holds cases", *keys, fix=_ALL_LISTED)])
        return read(self.text(path), self.shown(path), self.faults)

    def inside(self, document: Document, keys: Keys, reference: str) -> Path:
        """The file that `reference` names; raises BadFile where it is missing or outside the project."""
        name = reference.removeprefix(FILE)
        path = self.folder / name
        try:
            resolved = path.resolve(strict=True)
        except (OSError, RuntimeError, ValueError) as error:
            fix = f"it is looked for in {self.shown(self.folder)}/"
            raise BadFile(
                [document.fault(f"{reference}: there is no such file", *keys, fix=fix, rule="file")]
            ) from error
        if not resolved.is_relative_to(self.project):
            raise BadFile(
                [
                    document.fault(
                        f"{reference}: lies outside the project", *keys, fix="copy it into the project", rule="file"
                    )
                ]
            )
        if not resolved.is_file():
            raise BadFile([document.fault(f"{reference}: is not a file", *keys, fix=_ALL_LISTED, rule="file")])
        return resolved

    def filled(self, document: Document, keys: Keys) -> Row:
        """The row with values in place of the references to them."""
        value = document.data
        for key in keys:
            value = value[key]
        self.fill_values(document, value, keys)
        return document, keys

    def fill_values(self, document: Document, value: Any, at: Keys) -> None:
        """Replace, within `value`, each text that is a reference by what is in the file."""
        for keys, text in list(walk_texts(value)) if isinstance(value, dict) else []:
            if text.startswith(FILE):
                holder = value
                for key in keys[:-1]:
                    holder = holder[key]
                is_script = keys[-1] == "value" and isinstance(holder, dict) and holder.get("type") in _PYTHON_TYPES
                read: Callable[[Document, Keys, str], Any] = self.script_of if is_script else self.value_of
                if keys[:-1] == ("vars",) and _GLOB.search(text):
                    read = self.values_of
                holder[keys[-1]] = read(document, (*at, *keys), text)

    def values_of(self, document: Document, keys: Keys, pattern: str) -> list[Any]:
        """The values of all files that fit, in the order of their names: a list, as if it were written out."""
        return [self.value_of(document, keys, single) for single in self.matching(document, keys, pattern)]

    def script_of(self, document: Document, keys: Keys, reference: str) -> str:
        """A Python file by its path in the project: it is run where it lies, and never sent along."""
        found = _FUNCTION.fullmatch(reference)
        try:
            path = self.inside(document, keys, found["file"] if found else reference)
        except BadFile as error:
            self.faults.extend(error.faults)
            return reference.removeprefix(FILE)
        self.sources[path] = None
        function = f":{found['function']}" if found else ""
        return path.relative_to(self.project).as_posix() + function

    def value_of(self, document: Document, keys: Keys, reference: str) -> Any:
        """A file as one value: data where it is JSON or YAML, else its text without the last line's end.

        `file://check.js:name` is the file with that one of its exports as the only one.
        """
        found = _FUNCTION.fullmatch(reference)
        try:
            path = self.inside(document, keys, found["file"] if found else reference)
            if path.suffix.lower() in (".json", ".yaml", ".yml"):
                return load_data(self.text(path), self.shown(path)).data
            text = self.text(path).removesuffix("\n").removesuffix("\r")
            return text + (f"\nmodule.exports = module.exports.{found['function']};" if found else "")
        except BadFile as error:
            self.faults.extend(error.faults)
            return reference


def _twice(document: Document, keys: Keys, reference: str, before: str, line: int) -> Fault:
    """The fault of a reference to a file of cases whose cases are there by one that stands `before`, at `line`."""
    named = "this reference" if before == reference else before
    message = f"{reference}: its cases are there twice, also by {named} at line {line}"
    return document.fault(message, *keys, fix="remove one of the two references", rule="file")


def read_lines(text: str, path: str, kind: type[RecordT], faults: list[Fault]) -> list[RecordT]:
    """JSON lines as records of one kind; each broken line is a fault."""
    found = []
    for document, keys in line_rows(text.split("\n"), path, faults):
        try:
            found.append(parse_model(kind, document, keys))
        except BadFile as error:
            faults.extend(error.faults)
    return found

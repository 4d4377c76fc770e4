"""What reading another tool's prompt file gives: the keys of our files, and everything that they could not hold.

A reader is a pure function of a `Foreign` file. Nothing is dropped in silence: what has no place in a prompt file is a
`LeftOut`; what would leave a file that means something else, or cannot be loaded, raises BadFile.
"""

from __future__ import annotations

import json
import keyword
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn

from prompts.errors import BadFile, Fault
from prompts.names import LATEST, MAX_NAME_LENGTH, NAME
from prompts.yaml_source import MAX_DEPTH, Document, load_yaml

_FRONT = re.compile(
    r"\A\ufeff?((?:[ \t]*(?:#[^\n]*)?\r?\n)*)---[ \t]*\r?\n(.*?)(?:(?<=\n)|\A)---[ \t]*(?:\r?\n|\Z)", re.S
)
_HIDDEN = re.compile(
    r"(?:api|access|private|secret|auth)[_-]?(?:key|token)|secret|password|credential|authorization", re.I
)
_TAKEN = frozenset(
    {"loop", "range", "namespace", "self", "none", "true", "false", "not", "varargs", "kwargs", "caller"}
)


@dataclass(frozen=True, slots=True)
class LeftOut:
    """One thing that the imported prompt does not have.

    `place` is the file with a line or with the keys that lead there; `what` is short; `why` says what to do about it.
    """

    place: str
    what: str
    why: str

    def __str__(self) -> str:
        return f"{self.place}: {self.what}: {self.why}"


@dataclass(frozen=True, slots=True)
class Imported:
    """Keys of prompt files and of suite files by the names that they are to have, and what was left out."""

    prompts: Mapping[str, dict[str, Any]]
    suites: Mapping[str, dict[str, Any]] = field(default_factory=dict)
    left_out: tuple[LeftOut, ...] = ()


@dataclass(frozen=True, slots=True)
class Partial:
    """A piece of template that others include: its source, and the name of the prompt that it becomes."""

    source: str
    prompt: str


def _nothing_beside(_: str) -> str | None:
    return None


def _nothing_fits(_: str) -> list[str]:
    return []


@dataclass(frozen=True, slots=True)
class Foreign:
    """One file of another tool.

    `name` is the prompt's name where the file says none (it fits the grammar), `prefix` goes before every name and every
    include (`imported.` or nothing). `partials` are those of the same folder by the name that templates call them;
    `beside` gives the text of a file named relative to this one, None where there is none or it lies elsewhere; `fitting`
    the names of those that fit a pattern, in order.
    """

    text: str
    path: str
    name: str
    prefix: str = ""
    partials: Mapping[str, Partial] = field(default_factory=dict)
    beside: Callable[[str], str | None] = _nothing_beside
    fitting: Callable[[str], list[str]] = _nothing_fits


class Notes:
    """What could not be carried over, kept while one file is read."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._found: dict[LeftOut, None] = {}

    def leave(self, place: str | int, what: str, why: str) -> None:
        """Note `what` at a line (a number) or at keys (a text)."""
        if isinstance(place, str) and _HIDDEN.search(place):
            what = "…"
        shown = f"{self.path}:{place}" if isinstance(place, int) else f"{self.path}: {place}" if place else self.path
        self._found[LeftOut(shown, what, why)] = None

    def rest(self, keys: Mapping[str, Any], known: frozenset[str] | set[str], at: str = "") -> None:
        """Note every key outside `known`."""
        for key in keys:
            if key not in known:
                self.leave(f"{at}{key}", shortened(keys[key]), "no key of a prompt file holds this")

    @property
    def found(self) -> tuple[LeftOut, ...]:
        return tuple(self._found)

    def refuse(self, line: int, message: str, fix: str) -> NoReturn:
        raise BadFile([Fault(self.path, line, message, fix)])


def shortened(value: Any, limit: int = 60) -> str:
    """A value as a list of what was left out shows it: on one line, and without what a key calls a secret."""
    text = value if isinstance(value, str) else json.dumps(_without_secrets(value), ensure_ascii=False, default=str)
    text = " ".join(text.split())
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _without_secrets(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: "…" if _HIDDEN.search(str(key)) else _without_secrets(inner) for key, inner in value.items()}
    return [_without_secrets(inner) for inner in value] if isinstance(value, list | tuple) else value


def fit_name(text: str) -> str:
    """`text` as a prompt's name: lower case, folders as dots, anything else outside the grammar as a hyphen.

    Empty where nothing of it can stand in a name.
    """
    parts = re.split(r"[/\\.]+", text.strip().lower())
    fitted = [re.sub(r"[^a-z0-9_-]+", "-", part).strip("-").lstrip("_-") for part in parts]
    name = ".".join(part for part in fitted if part)[:MAX_NAME_LENGTH].rstrip("._-")
    return name if NAME.fullmatch(name) else ""


def fit_label(text: str, notes: Notes, place: str) -> str | None:
    """`text` as a label, noted where it had to change; None for `latest`, which moves by itself."""
    if text == LATEST:
        return None
    label = re.sub(r"[^a-z0-9_.-]+", "-", text.lower()).lstrip("0123456789_.-")[:64]
    if label != text:
        notes.leave(place, shortened(text), f"the label is {label!r} here" if label else "it is no label here")
    return label or None


def fit_variable(text: str) -> str:
    """`text` as a variable's name: an identifier that templates can read and that means nothing else to them."""
    name = re.sub(r"\W", "_", text).lstrip("_") or "variable"
    if name[0].isdigit():
        name = f"n{name}"
    return f"{name}_" if keyword.iskeyword(name) or name.lower() in _TAKEN else name


def noted_variable(notes: Notes, at: str) -> Callable[[str], str]:
    """`fit_variable`, with a note at `at` for every name that had to change."""

    def fit(name: str) -> str:
        fitted = fit_variable(name)
        if fitted != name:
            notes.leave(at, name, f"the variable is called {fitted!r} here")
        return fitted

    return fit


def free_name(wanted: str, taken: Mapping[str, Any]) -> str:
    """`wanted`, or with the first number that is free."""
    number, name = 2, wanted
    while name in taken:
        name, number = f"{wanted}-{number}", number + 1
    return name


def front_matter(foreign: Foreign) -> tuple[Document, str, int]:
    """The YAML between `---` lines, the body, and the body's first line. An empty document where there is none."""
    found = _FRONT.match(foreign.text)
    if not found:
        return Document(foreign.path, {}, {(): 1}), foreign.text.removeprefix("\ufeff"), 1
    above = foreign.text.count("\n", 0, found.start(2))
    document = load_yaml("\n" * above + found.group(2), foreign.path)
    data = {} if document.data is None else document.data
    if not isinstance(data, dict):
        raise BadFile([document.fault("the front matter is no keys and values", fix="write `key: value` lines")])
    body_line = foreign.text.count("\n", 0, found.end()) + 1
    return Document(foreign.path, data, document.lines), foreign.text[found.end() :], body_line


def json_data(text: str, path: str) -> Any:
    """A JSON file's data; raises BadFile where it is none, or nests too deeply."""
    try:
        data = json.loads(text.removeprefix("\ufeff"))
    except json.JSONDecodeError as error:
        raise BadFile([Fault(path, error.lineno, f"not valid JSON: {error.msg}", "mend the JSON here")]) from error
    except RecursionError as error:
        raise BadFile([Fault(path, 0, "the JSON nests too deeply", "write it less deeply")]) from error
    if _depth(data) > MAX_DEPTH:
        raise BadFile([Fault(path, 0, f"the JSON nests deeper than {MAX_DEPTH} levels", "write it less deeply")])
    return data


def _depth(data: Any) -> int:
    depth, level = 0, [data]
    while level and depth <= MAX_DEPTH:
        level = [c for d in level for c in (d.values() if isinstance(d, dict) else d if isinstance(d, list) else ())]
        depth += 1
    return depth


def text_of(value: Any, key: str, notes: Notes) -> str | None:
    """A value that is to be text; noted and None where it is not."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, int | float):
        return str(value)
    notes.leave(key, shortened(value), "expected text")
    return None


def texts_of(value: Any, key: str, notes: Notes) -> list[str]:
    """A list of texts, or one text as such a list; what is no text in it is noted."""
    values = value if isinstance(value, list) else [] if value is None else [value]
    found = [text_of(item, key, notes) for item in values]
    return [text for text in found if text]


def without_nothing(keys: Mapping[str, Any]) -> dict[str, Any]:
    """Without keys that hold None or are empty; `variables` stays, for none declared is not the same as left out."""
    return {key: value for key, value in keys.items() if value not in (None, "", [], {}) or key == "variables"}

"""Authors' YAML with the line of every value kept, so that every fault can say where it is.

Scalars follow YAML 1.2's core schema: `no`, `on` and `3:00` are text, as an author of a label means them. Lines end as
they do in YAML 1.2, in JSON and in editors: a U+2028 that came with a pasted text is text.
Duplicate keys, merge keys, tags and aliases that unfold to more than `MAX_ALIASED_NODES` are refused.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import pydantic
import yaml

from prompts.errors import MAX_FAULTS, NOT_SHOWN, BadFile, Fault, Level
from prompts.strict_json import HALF
from prompts.wording import Place, is_of_kind, is_pydantics, keys_of, records_at, shorten, told
from prompts.wording import suggest as suggest

MAX_TEXT_BYTES = 16 * 1024 * 1024
MAX_ALIASED_NODES = 10_000
MAX_DEPTH = 64
MAX_VALUES = 250_000  # keys and values of one file: each takes about a kilobyte while it is read

_OPENING = "[{-:?"  # what every list and every mapping has one of
_SAFE_DEPTH = 500  # to compose; what is read is held to MAX_DEPTH in any case

_INT = re.compile(r"[-+]?[0-9]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_CONTROL = re.compile("[\x01-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\ufffe\uffff]")  # what the parser refuses
_OLD_BREAKS = "\x85\u2028\u2029"  # ends of lines to YAML 1.1, which the parser reads
_PRIVATE = range(0xE000, 0xF900)
_WORDS = {"": None, "~": None, "null": None, "Null": None, "NULL": None, "true": True, "True": True, "TRUE": True,
          "false": False, "False": False, "FALSE": False}  # fmt: skip


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]  # one of two, by how it was built
    """Composes without guessing what a plain scalar is, which `_Reader` does by rules of its own."""

    def resolve(self, kind: type[yaml.Node], _value: Any, _implicit: Any) -> str:
        return _TAG_OF[kind]


_TAG_OF = {yaml.ScalarNode: "tag:yaml.org,2002:str", yaml.SequenceNode: "tag:yaml.org,2002:seq",
           yaml.MappingNode: "tag:yaml.org,2002:map"}  # fmt: skip

Key = str | int
ModelT = TypeVar("ModelT", bound=pydantic.BaseModel)


@dataclass(frozen=True)
class Document:
    """The plain data of one YAML file and where each value stands."""

    path: str
    data: Any
    lines: Mapping[tuple[Key, ...], int] = field(repr=False)

    def line(self, *keys: Key) -> int:
        """Line (from 1) of the value at `keys`, or of the nearest parent that the file has."""
        for length in range(len(keys), -1, -1):
            if keys[:length] in self.lines:
                return self.lines[keys[:length]]
        return 1

    def fault(self, message: str, *keys: Key, fix: str = "", level: Level = "error", rule: str = "invalid") -> Fault:
        return Fault(self.path, self.line(*keys), message, fix, level, rule)


def load_yaml(text: str, path: str, faults: list[Fault] | None = None) -> Document:
    """Read one YAML document.

    Raises BadFile on anything that is not one well-formed document of plain data. Where `faults` is given, those that
    leave the rest readable (duplicate keys, merge keys, tags) are added to it, for the caller to raise with its own.
    """
    if len(text) > MAX_TEXT_BYTES:
        raise BadFile(
            [Fault(path, 0, f"the file has {len(text):,} characters; {MAX_TEXT_BYTES:,} are read", "split it")]
        )
    _refuse_characters(text, path)
    text, breaks = without_old_breaks(text)
    try:
        _refuse_extent(text, path)
        root = yaml.compose(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        message = f"not valid YAML: {error.problem or error.context}"
        raise BadFile(
            [Fault(path, mark.line + 1 if mark else 0, message, "mend the YAML at this line", rule="yaml")]
        ) from error
    except (yaml.YAMLError, RecursionError) as error:
        raise BadFile(
            [Fault(path, 0, f"not valid YAML: {error}", "save it as plain UTF-8 text", rule="yaml")]
        ) from error
    reader = _Reader(path, breaks)
    data = None if root is None else reader.read(root, (), 0)
    if faults is not None:
        faults += reader.faults
    elif reader.faults:
        raise BadFile(reader.faults)
    return Document(path, data, reader.lines)


def without_old_breaks(text: str) -> tuple[str, dict[int, str]]:
    """`text` with characters that it holds nowhere, not even as an escape, for `_OLD_BREAKS`, and what stands for what."""
    there = [each for each in _OLD_BREAKS if each in text]
    if not there:
        return text, {}
    held, lowered = set(text), text.lower()
    free = (code for code in _PRIVATE if chr(code) not in held and f"{code:x}" not in lowered)
    stand_ins = dict(zip(free, there, strict=False))  # all of them are held by a text that wants to be broken
    return text.translate({ord(each): code for code, each in stand_ins.items()}), stand_ins


def _refuse_characters(text: str, path: str) -> None:
    control, half = _CONTROL.search(text), HALF.search(text)
    as_text, escaped = "save it as plain UTF-8 text", "remove it, or write it as an escape in double quotes"
    for place, what, fix in (
        (text.find("\0"), "a NUL byte", as_text),
        (half.start() if half else -1, "half a character", as_text),
        (
            control.start() if control else -1,
            f"the control character U+{ord(control[0]):04X}" if control else "",
            escaped,
        ),
    ):
        if place >= 0:
            line = text.count("\n", 0, place) + 1
            raise BadFile([Fault(path, line, f"the file holds {what}", fix)])


def _refuse_extent(text: str, path: str) -> None:
    """Refuse what nests too deeply or holds too much before it is composed, which takes stack and memory in C.

    Every list and mapping begins with a sign of its own: where there are few, `_Reader` is early enough, and an
    ordinary file is parsed once.
    """
    if len(text) < MAX_VALUES and sum(map(text.count, _OPENING)) < _SAFE_DEPTH:
        return
    depth = values = 0
    for event in yaml.parse(text, Loader=_Loader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        values += isinstance(event, yaml.NodeEvent)
        if depth > MAX_DEPTH + 1 or values > MAX_VALUES:
            line = event.start_mark.line + 1 if event.start_mark else 0
            raise BadFile([_too_deep(path, line) if values <= MAX_VALUES else _too_many(path, line)])


def _too_deep(path: str, line: int) -> Fault:
    return Fault(path, line, "aliases or nesting unfold too far", "write the values out, less deeply")


def _too_many(path: str, line: int) -> Fault:
    fix = "split it, or keep cases in a .jsonl file"
    return Fault(path, line, f"the file has more than {MAX_VALUES:,} keys and values", fix)


class _Reader:
    """Turns composed nodes into plain data, noting lines and faults on the way."""

    def __init__(self, path: str, breaks: Mapping[int, str]) -> None:
        self.path = path
        self._breaks = breaks
        self.lines: dict[tuple[Key, ...], int] = {}
        self.faults: list[Fault] = []
        self._seen: set[int] = set()
        self._aliased_nodes = 0
        self._characters = 0

    def read(self, node: yaml.Node, at: tuple[Key, ...], depth: int, aliased: bool = False) -> Any:
        aliased = aliased or (not isinstance(node, yaml.ScalarNode) and id(node) in self._seen)
        self._seen.add(id(node))
        self._aliased_nodes += aliased
        self._characters += len(node.value) if isinstance(node, yaml.ScalarNode) else 0
        line = node.start_mark.line + 1
        self.lines[at] = line
        too_long = self._characters > MAX_TEXT_BYTES  # of a file that is shorter: one text by many aliases
        if self._aliased_nodes > MAX_ALIASED_NODES or depth > MAX_DEPTH or too_long:
            raise BadFile([_too_deep(self.path, line)])
        if not isinstance(node, yaml.ScalarNode) and node.tag not in _PLAIN_COLLECTIONS:
            self._refuse_tag(node)
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, at, depth, aliased)
        if isinstance(node, yaml.SequenceNode):
            return [self.read(item, (*at, index), depth + 1, aliased) for index, item in enumerate(node.value)]
        return self._scalar(node)

    def _mapping(self, node: yaml.MappingNode, at: tuple[Key, ...], depth: int, aliased: bool) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode):
                self._note(line, "a key must be plain text", "write `key: value`")
                continue
            key = key_node.value.translate(self._breaks) if self._breaks else key_node.value
            if key == "<<" and not key_node.style:
                self._note(line, "merge keys (<<) are not read", "write the keys out")
                continue
            if key in result:
                first = self.lines[(*at, key)]
                fix = f"remove one; the first is at line {first}"
                self._note(line, f"duplicate key {shorten(key)}", fix, rule="duplicate-key")
                continue
            result[key] = self.read(value_node, (*at, key), depth + 1, aliased)
            self.lines[(*at, key)] = line
        return result

    def _scalar(self, node: yaml.Node) -> Any:
        text: str = node.value.translate(self._breaks) if self._breaks else node.value
        if node.tag not in _PLAIN_TAGS:
            self._refuse_tag(node)
        if "\0" in text:
            fix = "remove the escape: databases cannot keep it"
            self._note(node.start_mark.line + 1, "the text holds a NUL character", fix)
        if getattr(node, "style", None):  # quoted or a block: always text
            return text
        if text in _WORDS:
            return _WORDS[text]
        if _INT.fullmatch(text):
            return int(text) if len(text) < 400 else text
        number = float(text) if _FLOAT.fullmatch(text) else math.inf
        return number if math.isfinite(number) else text

    def _refuse_tag(self, node: yaml.Node) -> None:
        self._note(node.start_mark.line + 1, f"YAML tag {shorten(node.tag)} is not read", "remove the tag")

    def _note(self, line: int, message: str, fix: str, rule: str = "invalid") -> None:
        if len(self.faults) >= MAX_FAULTS:
            more = Fault(self.path, line, "the faults from here on are not shown", "mend those before", rule=NOT_SHOWN)
            raise BadFile([*self.faults, more])
        self.faults.append(Fault(self.path, line, message, fix, rule=rule))


_PLAIN_TAGS = {
    f"tag:yaml.org,2002:{name}" for name in ("str", "int", "float", "bool", "null", "timestamp", "value", "merge")
}
_PLAIN_COLLECTIONS = {"tag:yaml.org,2002:map", "tag:yaml.org,2002:seq"}


def parse_model(model_class: type[ModelT], document: Document, at: tuple[Key, ...] = ()) -> ModelT:
    """Validate the data at `at` as `model_class`.

    Raises BadFile with every fault, each with its line and, for an unknown key, the key that was likely meant.
    """
    data = document.data
    for key in at:
        data = data[key]
    if not isinstance(data, dict):
        raise BadFile([no_keys(document, data, *at)])
    try:
        return model_class.model_validate(data)
    except pydantic.ValidationError as error:
        found = _by_place(error, document, at)
        faults = [_fault_of(model_class, details, document, at, keys) for keys, details in found[:MAX_FAULTS]]
        if len(found) > MAX_FAULTS:
            message = f"{len(found) - MAX_FAULTS:,} more faults of this file are not shown"
            faults.append(document.fault(message, *at, fix="mend these first", rule=NOT_SHOWN))
        raise BadFile(faults) from error


def no_keys(document: Document, value: Any, *at: Key) -> Fault:
    """The fault of a file, or of its part at `at`, that is `value` and no mapping."""
    place = ".".join(map(str, at))
    message = f"expected keys and values here, found {shorten(value)}"
    return document.fault(f"{place}: {message}" if place else message, *at, fix="write `key: value` lines")


def _by_place(
    error: pydantic.ValidationError, document: Document, at: tuple[Key, ...]
) -> list[tuple[tuple[Key, ...], list[Any]]]:
    """Pydantic's errors by the keys that an author wrote, relative to `at`.

    Those of one value that say of which kinds it could be are together.
    """
    found: list[tuple[tuple[Key, ...], list[Any]]] = []
    kinds: dict[tuple[Key, ...], list[Any]] = {}
    for detail in error.errors(include_url=False):
        keys = _written_keys(detail["loc"], last_is_written=detail["type"] in _OF_KEYS)
        keys = _without_tags(keys, document.data, at, last_is_written=detail["type"] in _OF_KEYS)
        if is_of_kind(detail) and keys in kinds:
            kinds[keys].append(detail)
        else:
            found.append((keys, [detail]))
            if is_of_kind(detail):
                kinds[keys] = found[-1][1]
    above = {keys[:length] for keys, _ in found for length in range(len(keys))}
    # what has parts with faults could have been of another kind, but is of the one that they are parts of
    return [(keys, details) for keys, details in found if keys not in above or kinds.get(keys) is not details]


_OF_KEYS = ("extra_forbidden", "missing")  # of which the last key is the fault


def _fault_of(
    model_class: type[pydantic.BaseModel],
    details: Sequence[Any],
    document: Document,
    at: tuple[Key, ...],
    below: tuple[Key, ...],
) -> Fault:
    """The fault of the value at the keys `below` of what stands at `at` and is read as a `model_class`."""
    detail, keys = details[0], (*at, *below)
    place = ".".join(map(str, keys))
    if detail["type"] == "extra_forbidden":
        message, fix = _unknown_key(model_class, detail["loc"], place)
        return document.fault(message, *keys, fix=fix, rule="unknown-key")
    if detail["type"] == "missing":
        return document.fault(f"{place!r} is missing", *keys, fix=f"add `{keys[-1]}:`", rule="missing-key")
    if detail["type"] == "union_tag_not_found":
        tag = detail["ctx"]["discriminator"].strip("'")
        return document.fault(f"'{place}.{tag}' is missing", *keys, fix=f"add `{tag}:`", rule="missing-key")
    if detail["type"] == "union_tag_invalid":
        message, fix = _unknown_tag(place, detail["ctx"])
        return document.fault(message, *keys, fix=fix, rule="bad-value")
    what = told(details, Place(model_class, _as_written(detail["loc"], below)))
    return document.fault(f"{place[:200] or 'the file'}: {what}", *keys, fix=what.fix, rule="bad-value")


def _as_written(location: tuple[Key, ...], keys: tuple[Key, ...]) -> tuple[Key, ...]:
    """A location of pydantic's up to the last of the keys that an author wrote: what follows are kinds of a union."""
    return location[: len(location) - location[::-1].index(keys[-1])] if keys else ()


def _unknown_key(model_class: type[pydantic.BaseModel], location: tuple[Key, ...], place: str) -> tuple[str, str]:
    """Message and fix for a key that a record does not have; where one of another kind has it, it is not misspelt."""
    *above, key = location
    known = keys_of(records_at(model_class, above))
    if key in known and is_pydantics(above[-1]):  # our tags name the key by which the kind is told
        kind = str(above[-1]).strip("[]")
        return f"{shorten(place, 200)} does not go with `{kind}`", "remove one of the two, or write two items"
    return f"unknown key {shorten(place, 200)}", suggest(str(key), known) if known else "remove it"


def _without_tags(keys: tuple[Key, ...], data: Any, at: tuple[Key, ...], *, last_is_written: bool) -> tuple[Key, ...]:
    """`keys` without those that the data has not, where pydantic names the kind of a union; a last one that is written stays."""
    for key in at:
        data = data[key]
    kept: list[Key] = []
    parts, last = (keys[:-1], keys[-1:]) if last_is_written else (keys, ())
    for key in parts:
        is_list = isinstance(data, list | tuple)
        if key not in data if isinstance(data, dict) else not (is_list and isinstance(key, int)):
            continue
        kept.append(key)
        data = data[key] if isinstance(data, dict) or (isinstance(key, int) and key < len(data)) else None
    return (*kept, *last)


def _unknown_tag(place: str, context: Mapping[str, Any]) -> tuple[str, str]:
    """Message and fix for a value that names none of the kinds that there are."""
    known = sorted(tag.strip().strip("'") for tag in context["expected_tags"].split(","))
    name, value = context["discriminator"].strip("'"), str(context["tag"])
    message = f"{place[:200]}: {name} {shorten(value)} is none of {', '.join(known)}"
    return message, suggest(value, known, otherwise="name one of them")


def _written_keys(loc: tuple[Key, ...], *, last_is_written: bool) -> tuple[Key, ...]:
    """The keys of a place that an author wrote; one that looks like pydantic's own is theirs where it is the fault."""
    parts, last = (loc[:-1], loc[-1:]) if last_is_written else (loc, ())
    return (*(key for key in parts if not is_pydantics(key)), *last)

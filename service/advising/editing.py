"""A prompt's file with examples and parameters added to it, and all else as its author wrote it, byte for byte.

YAML's own writers know no comments and no way of writing but theirs. So the text is not written anew: the places come
from the parser's marks, and nothing but them is touched.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from prompts.errors import BadFile
from prompts.formats.writing import prompt_text
from prompts.parameters import OF_GITHUB
from prompts.yaml_source import load_yaml, without_old_breaks

PARAMETERS, EXAMPLES = "modelParameters", "examples"
_BEFORE = {PARAMETERS: "model", EXAMPLES: "messages"}  # keys of every prompt, behind which these stand
_ESCAPED = re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")  # what JSON keeps as it is, and YAML does not
_WORD = re.compile("[A-Za-z][A-Za-z0-9_]*")


class NotEditable(ValueError):
    """The file writes it in a way that cannot be added to; the message says where and why."""


@dataclass(frozen=True, order=True)
class _Edit:
    """What stands from `start` to `end` becomes `text`."""

    start: int
    end: int
    text: str


def edited(text: str, changes: Mapping[str, Any], examples: Sequence[Mapping[str, Any]]) -> str:
    """The text of a prompt's file with `changes` of its parameters and `examples` behind its own.

    Raises NotEditable where that would change anything else, too.
    """
    try:
        file = _File(text)
        edits = [*_of_parameters(file, changes), *_of_examples(file, examples)]
        found = _applied(text, edits)
        before, after = (load_yaml(each, "").data for each in (text, found))
    except (yaml.YAMLError, BadFile) as error:
        raise NotEditable(f"what would be written is no YAML: {error}") from error
    changed = [key for key in {**before, **after} if key not in _BEFORE and before.get(key) != after.get(key)]
    if changed:
        raise NotEditable(f"with them {', '.join(changed)} would change, too")
    return found


def _applied(text: str, edits: Sequence[_Edit]) -> str:
    """The text with its edits, the last first, so that the places of the others stay; its ends of lines are kept."""
    newline = "\r\n" if "\r\n" in text else "\n"
    for edit in sorted(edits, reverse=True):
        text = text[: edit.start] + edit.text.replace("\n", newline) + text[edit.end :]
    return text


def _of_parameters(file: _File, changes: Mapping[str, Any]) -> Iterator[_Edit]:
    """Those that the file sets get another value where they stand, the others are added behind them."""
    node = file.value(PARAMETERS)
    if node is None:
        if changes:
            yield file.add_key(PARAMETERS, dict(changes))
        return
    if not isinstance(node, yaml.MappingNode):
        raise NotEditable(f"line {node.start_mark.line + 1}: {PARAMETERS} are no keys and values")
    own = {OF_GITHUB.get(key.value, key.value): value for key, value in node.value}
    yield from (file.replace(own[name], value) for name, value in changes.items() if name in own)
    if added := {name: value for name, value in changes.items() if name not in own}:
        yield file.add_entries(node, added)


def _of_examples(file: _File, examples: Sequence[Mapping[str, Any]]) -> Iterator[_Edit]:
    if not examples:
        return
    node = file.value(EXAMPLES)
    if node is None:
        yield file.add_key(EXAMPLES, list(examples))
    elif isinstance(node, yaml.SequenceNode):
        yield file.add_items(node, examples)
    else:
        raise NotEditable(f"line {node.start_mark.line + 1}: {EXAMPLES} are no list")


class _File:
    """A text and its nodes. Edits are written with plain line feeds."""

    def __init__(self, text: str) -> None:
        plain, _ = without_old_breaks(text)  # as long as it was
        root = yaml.compose(plain, Loader=yaml.SafeLoader)  # written in Python: its marks count characters
        if not isinstance(root, yaml.MappingNode) or not root.value:
            raise NotEditable("the file has no keys and values")
        self._text, self._root = text, root

    def value(self, key: str) -> yaml.Node | None:
        """The value of a key of the file."""
        return next((value for name, value in self._root.value if name.value == key), None)

    def replace(self, node: yaml.Node, value: Any) -> _Edit:
        """Another value where one stands, on one line: of several lines some may be comments."""
        start, end = node.start_mark.index, node.end_mark.index
        is_block = isinstance(node, yaml.CollectionNode) and not node.flow_style
        if is_block or "\n" in self._text[start:end]:
            raise NotEditable(f"line {node.start_mark.line + 1}: the value is written on several lines")
        return _Edit(start, end, f"{' ' * (start == end)}{_flow(value)}")

    def add_key(self, key: str, value: Any) -> _Edit:
        """A key that the file does not have."""
        before = self.value(_BEFORE[key])
        if before is None:
            raise NotEditable(f"there is no {_BEFORE[key]!r}, behind which {key} would stand")
        if self._root.flow_style:
            return _Edit(before.end_mark.index, before.end_mark.index, f", {_flow_entries(self._root, {key: value})}")
        return self._lines_behind(before, prompt_text({key: value}), _column(self._root))

    def add_entries(self, node: yaml.MappingNode, entries: Mapping[str, Any]) -> _Edit:
        """More keys and values behind those of a mapping."""
        if node.flow_style:
            return self._in_brackets(node, _flow_entries(node, entries))
        return self._lines_behind(node, prompt_text(entries), _column(node))

    def add_items(self, node: yaml.SequenceNode, items: Sequence[Any]) -> _Edit:
        """More items behind those of a list."""
        if node.flow_style:
            return self._in_brackets(node, ", ".join(map(_flow, items)))
        if self._text[node.start_mark.index] != "-":
            raise NotEditable(f"line {node.start_mark.line + 1}: {EXAMPLES} have an anchor")
        _, _, lines = prompt_text({EXAMPLES: list(items)}).partition("\n")
        plain = "\n".join(line.removeprefix("  ") for line in lines.split("\n"))
        return self._lines_behind(node, plain, node.start_mark.column)

    def _in_brackets(self, node: yaml.CollectionNode, text: str) -> _Edit:
        if node.value:
            last = node.value[-1]
            end = (last[1] if isinstance(node, yaml.MappingNode) else last).end_mark.index
            return _Edit(end, end, f", {text}")
        start = min(place for sign in "[{" if (place := self._text.find(sign, node.start_mark.index)) >= 0) + 1
        return _Edit(start, start, text)

    def _lines_behind(self, node: yaml.Node, lines: str, column: int) -> _Edit:
        """Whole lines, behind the line that a node ends in."""
        at = self._next_line(node)
        text = "\n".join(line and " " * column + line for line in lines.split("\n"))
        return _Edit(at, at, text if self._text[:at].endswith("\n") else f"\n{text}")

    def _next_line(self, node: yaml.Node) -> int:
        """Where the line behind a node begins: of a text in lines, that of those which are empty and no part of it."""
        last = _last(node)
        start, end = last.start_mark.index, last.end_mark.index
        if isinstance(last, yaml.ScalarNode) and last.style in ("|", ">"):
            header, written = self._text[start:end].partition("\n")[0], self._text[:end]
            return end if "+" in header or not written.endswith("\n") else self._next_line_of(len(written.rstrip()))
        return self._next_line_of(end)

    def _next_line_of(self, place: int) -> int:
        found = self._text.find("\n", place)
        return len(self._text) if found < 0 else found + 1


def _last(node: yaml.Node) -> yaml.Node:
    """What a node ends with: of a block the parser's own mark lies behind the comments that follow it."""
    while isinstance(node, yaml.CollectionNode) and not node.flow_style and node.value:
        key, node = node.value[-1] if isinstance(node, yaml.MappingNode) else (None, node.value[-1])
        if key is not None and node.end_mark.index < key.end_mark.index:
            raise NotEditable(f"line {key.start_mark.line + 1}: {key.value} is an alias")
    return node


def _column(node: yaml.MappingNode) -> int:
    return int(node.value[0][0].start_mark.column)


def _flow_entries(node: yaml.MappingNode, entries: Mapping[str, Any]) -> str:
    """Keys and values for within braces, quoted as the others there are."""
    quoted = bool(node.value) and node.value[0][0].style == '"'
    return ", ".join(f"{_flow(key) if quoted else _key(key)}: {_flow(value)}" for key, value in entries.items())


def _key(key: str) -> str:
    return key if _WORD.fullmatch(key) else _flow(key)


def _flow(value: Any) -> str:
    """A value on one line: JSON, which YAML reads as the same but for some characters."""
    return _ESCAPED.sub(lambda found: f"\\u{ord(found[0]):04x}", json.dumps(value, ensure_ascii=False))

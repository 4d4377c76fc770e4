"""Handlebars and Mustache as a tree: tags, expressions, blocks, and the white space that tags take with them.

https://handlebarsjs.com/guide/ and the grammar behind it: escapes (`\\{{`), comments, `~`, lines that hold only a block
tag. Mustache shares the syntax but for `{{^name}}` as a block of its own, which Handlebars reads as well.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from prompts.errors import BadFile, Fault

MAX_TAGS = 20_000
MAX_NESTING = 64


def _refused(line: int, message: str) -> BadFile:
    """The fault of a template that is none; `line` counts from 1 within it."""
    return BadFile([Fault("template", line, message, "mend the template, or write it as Jinja2")])


@dataclass(frozen=True, slots=True)
class Path:
    """`a.b`, `this`, `../a`, `@index`: `up` contexts outwards, then `parts`; `data` for those with `@`."""

    parts: tuple[str, ...]
    up: int = 0
    data: bool = False
    this: bool = False


@dataclass(frozen=True, slots=True)
class Literal:
    """A string, a number, true, false or null."""

    value: Any


@dataclass(frozen=True, slots=True)
class Call:
    """A helper with arguments: `helper a b key=value`, or in parentheses as an argument itself."""

    name: str
    args: tuple[Expression, ...]
    named: tuple[tuple[str, Expression], ...] = ()


Expression = Path | Literal | Call


@dataclass(frozen=True, slots=True)
class Text:
    """What stands between tags."""

    text: str


@dataclass(frozen=True, slots=True)
class Output:
    """`{{expression}}`."""

    value: Expression
    line: int


@dataclass(frozen=True, slots=True)
class Block:
    """`{{#name …}}body{{else}}otherwise{{/name}}`; `inverted` for `{{^name}}`."""

    call: Call
    names: tuple[str, ...]
    body: tuple[Node, ...]
    otherwise: tuple[Node, ...]
    line: int
    inverted: bool = False


@dataclass(frozen=True, slots=True)
class Include:
    """`{{> name context key=value}}`."""

    call: Call
    line: int


Node = Text | Output | Block | Include


@dataclass(frozen=True, slots=True)
class _Tag:
    kind: str  # one of: output # ^ / > ! else
    body: str
    line: int
    trims_before: bool
    trims_after: bool

    @property
    def may_stand_alone(self) -> bool:
        return self.kind != "output"


_END = _Tag("end", "", 0, trims_before=False, trims_after=False)
_TAG = re.compile(
    r"\{\{(?P<comment>~?!--.*?--~?)\}\}"
    r"|\{\{(?P<remark>~?!(?!--).*?)\}\}"
    r"|\{\{(?P<before>~?)(?:\{(?P<raw>[^{}]*)\}|(?P<body>(?:[^{}'\"]|\"[^\"]*\"|'[^']*')*?))(?P<after>~?)\}\}",
    re.S,
)
_WORD = re.compile(
    r"\s*(?:(?P<string>\"[^\"]*\"|'[^']*')|(?P<number>-?\d+(?:\.\d+)?)(?=[\s)]|$)|(?P<sign>[()=|])"
    r"|(?P<path>@?(?:\.\./|\./|\[[^\]]*\]|[^\s()=|\"'\[\]])+))"
)
_CONSTANTS = {"true": True, "false": False, "null": None, "undefined": None}


def parse(source: str) -> tuple[Node, ...]:
    """The tree of a template; raises BadFile, its line within the template, where it is none."""
    texts, tags = _split(source)
    nodes, _, end = _Tree(_trimmed(_without_lone_lines(texts, tags), tags), tags).nodes(0, None, 0)
    if end is not _END:
        raise _refused(end.line, f"{{{{{_shown(end)}}}}} closes nothing that is open")
    return nodes


def _shown(tag: _Tag) -> str:
    return ("" if tag.kind in ("output", "else") else tag.kind) + tag.body


# ---------------------------------------------------------------------------- tags


def _split(source: str) -> tuple[list[str], list[_Tag]]:
    """The tags of a template, and the texts around them: always one more than tags."""
    texts, tags = [""], list[_Tag]()
    position, start = 0, 0
    while (at := source.find("{{", position)) >= 0:
        slashes = len(source[start:at]) - len(source[start:at].rstrip("\\"))
        texts[-1] += source[start : at - 1] if slashes else source[start:at]  # one backslash is the escape
        if slashes == 1:
            start, position = at, _next_open(source, at + 2)
            texts[-1] += source[start:position]
            start = position
            continue
        tag, position = _tag(source, at, source.count("\n", 0, at) + 1)
        start = position
        tags.append(tag)
        texts.append("")
        if len(tags) > MAX_TAGS:
            raise _refused(tag.line, f"the template has more than {MAX_TAGS:,} tags")
    texts[-1] += source[start:]
    return texts, tags


def _next_open(source: str, position: int) -> int:
    """Where the next tag or escape begins: what follows an escaped `{{` is text up to there."""
    at = source.find("{{", position)
    if at < 0:
        return len(source)
    return at - 1 if source[at - 1] == "\\" else at


def _tag(source: str, at: int, line: int) -> tuple[_Tag, int]:
    if source.startswith("{{{{", at):
        raise _refused(line, "raw blocks ({{{{…}}}}) are not read")
    found = _TAG.match(source, at)
    if not found:
        raise _refused(line, f"{source[at : at + 30]!r} has no end: write }}}}")
    text = found["comment"] or found["remark"]
    if text is not None:
        return _Tag("!", "", line, text.startswith("~"), text.endswith("~")), found.end()
    before, after = bool(found["before"]), bool(found["after"])
    if found["raw"] is not None:
        return _Tag("output", found["raw"].strip(), line, before, after), found.end()
    kind, body = _kind(found["body"].strip(), line)
    return _Tag(kind, body, line, before, after), found.end()


def _kind(body: str, line: int) -> tuple[str, str]:
    if body.startswith(("#*", "#>", "=")):
        raise _refused(line, f"{{{{{body[:20]}}}}} is not read: decorators, partial blocks and new delimiters")
    if body[:1] in ("#", "^", "/", ">", "!") and body != "^":
        return body[0], body[1:].strip()
    if body == "^" or re.match(r"else\b", body):
        return "else", body.removeprefix("else").removeprefix("^").strip()
    return "output", body.removeprefix("&").strip()


# ---------------------------------------------------------------------------- white space

_LINE_BEFORE = re.compile(r"(?:\A|\n)[ \t]*\Z")
_LINE_AFTER = re.compile(r"\A[ \t]*(?:\r?\n|\Z)")


def _without_lone_lines(texts: list[str], tags: list[_Tag]) -> list[str]:
    """Block tags, comments and partials alone on a line take the line with them, as Handlebars has it."""
    result = list(texts)
    for index, tag in enumerate(tags):
        before, after = texts[index], texts[index + 1]
        starts = bool(_LINE_BEFORE.search(before)) and (index == 0 or "\n" in before)
        ends = bool(_LINE_AFTER.match(after)) and (index == len(tags) - 1 or "\n" in after)
        if tag.may_stand_alone and starts and ends:
            result[index] = result[index].rstrip(" \t")
            result[index + 1] = _LINE_AFTER.sub("", result[index + 1], count=1)
    return result


def _trimmed(texts: list[str], tags: list[_Tag]) -> list[str]:
    result = list(texts)
    for index, tag in enumerate(tags):
        if tag.trims_before:
            result[index] = result[index].rstrip()
        if tag.trims_after:
            result[index + 1] = result[index + 1].lstrip()
    return result


# ---------------------------------------------------------------------------- blocks

_Ended = tuple[tuple[Node, ...], int, _Tag]


class _Tree:
    """Reads texts and tags as nested nodes; a position is that of a tag, whose text stands before it."""

    def __init__(self, texts: Sequence[str], tags: Sequence[_Tag]) -> None:
        self._texts = texts
        self._tags = tags

    def nodes(self, at: int, opened: _Tag | None, depth: int) -> _Ended:
        """Nodes up to the tag that ends them, its position and itself: an `else`, a `/`, or the end of the template."""
        if depth > MAX_NESTING:
            raise _refused(opened.line if opened else 1, f"blocks nest deeper than {MAX_NESTING}")
        found: list[Node] = []
        while True:
            if self._texts[at]:
                found.append(Text(self._texts[at]))
            tag = self._tags[at] if at < len(self._tags) else _END
            if tag is _END and opened:
                raise _refused(opened.line, f"{{{{#{opened.body[:40]}}}}} is never closed")
            if tag.kind in ("/", "else", "end"):
                return tuple(found), at, tag
            if tag.kind in ("#", "^"):
                block, at = self._block(tag, at, depth)
                found.append(block)
            elif tag.kind != "!":
                found.append(_simple(tag))
            at += 1

    def _block(self, opened: _Tag, at: int, depth: int) -> tuple[Block, int]:
        call, names = _call(opened.body, opened.line)
        body, at, end = self.nodes(at + 1, opened, depth + 1)
        otherwise: tuple[Node, ...] = ()
        if end.kind == "else":
            otherwise, at, end = self._otherwise(end, at, opened, depth)
        if end.kind != "/" or end.body != call.name:
            wanted = f"{{{{/{call.name}}}}} should close line {opened.line}"
            raise _refused(end.line, f"{{{{{_shown(end)}}}}} where {wanted}")
        return Block(call, names, body, otherwise, opened.line, inverted=opened.kind == "^"), at

    def _otherwise(self, chained: _Tag, at: int, opened: _Tag, depth: int) -> _Ended:
        """What follows an `else`; `else if …` is a block of its own that ends where the outer one does."""
        if not chained.body:
            return self.nodes(at + 1, opened, depth + 1)
        call, names = _call(chained.body, chained.line)
        body, at, end = self.nodes(at + 1, opened, depth + 1)
        rest: tuple[Node, ...] = ()
        if end.kind == "else":
            rest, at, end = self._otherwise(end, at, opened, depth + 1)
        return (Block(call, names, body, rest, chained.line),), at, end


def _simple(tag: _Tag) -> Node:
    call, _ = _call(tag.body, tag.line)
    if tag.kind == ">":
        return Include(call, tag.line)
    if call.args or call.named:
        return Output(call, tag.line)
    return Output(_single(tag.body, tag.line), tag.line)


def _single(body: str, line: int) -> Expression:
    words = _words(body, line)
    value, rest = _expression(words, 0, line)
    if rest != len(words):
        raise _refused(line, f"{{{{{body[:40]}}}}} is not read")
    return value


# ---------------------------------------------------------------------------- expressions


def _words(body: str, line: int) -> list[str]:
    words, position = [], 0
    text = body.strip()
    while position < len(text):
        found = _WORD.match(text, position)
        if not found:
            raise _refused(line, f"{{{{{body[:40]}}}}} is not read")
        words.append(found[0].strip())
        position = found.end()
    return words


def _call(body: str, line: int) -> tuple[Call, tuple[str, ...]]:
    """A tag's words as a helper with its arguments, and the names after `as |…|`."""
    words = _words(body, line)
    names: tuple[str, ...] = ()
    if "|" in words:
        start = words.index("|")
        names = tuple(words[start + 1 : -1])
        words = words[: max(0, start - 1)]
    if not words:
        raise _refused(line, "a tag without a name: {{}}")
    args, named = _arguments(words[1:], line)
    return Call(words[0].strip("\"'"), args, named), names


def _arguments(words: list[str], line: int) -> tuple[tuple[Expression, ...], tuple[tuple[str, Expression], ...]]:
    args: list[Expression] = []
    named: list[tuple[str, Expression]] = []
    position = 0
    while position < len(words):
        if words[position + 1 : position + 2] == ["="]:
            value, end = _expression(words, position + 2, line)
            named.append((words[position], value))
        else:
            value, end = _expression(words, position, line)
            args.append(value)
        position = end
    return tuple(args), tuple(named)


def _expression(words: list[str], position: int, line: int) -> tuple[Expression, int]:
    if position >= len(words) or words[position] in (")", "=", "|"):
        raise _refused(line, "an expression is missing")
    word = words[position]
    if word == "(":
        depth, end = 1, position + 1
        while end < len(words) and depth:
            depth += {"(": 1, ")": -1}.get(words[end], 0)
            end += 1
        if depth or end - position < 3:
            raise _refused(line, "a parenthesis is never closed")
        args, named = _arguments(words[position + 2 : end - 1], line)
        return Call(words[position + 1], args, named), end
    return _atom(word, line), position + 1


def _atom(word: str, line: int) -> Expression:
    if word[0] in "\"'":
        return Literal(word[1:-1])
    if re.fullmatch(r"-?\d+", word):
        return Literal(int(word))
    if re.fullmatch(r"-?\d+\.\d+", word):
        return Literal(float(word))
    if word in _CONSTANTS:
        return Literal(_CONSTANTS[word])
    return _path(word, line)


def _path(word: str, line: int) -> Path:
    data = word.startswith("@")
    text, up = word.removeprefix("@"), 0
    while text == ".." or text.startswith(("../", "./")):
        up += text.startswith("..")
        text = text.removeprefix("../") if text.startswith("../") else text.removeprefix("./") if text != ".." else ""
    parts = [part[1:-1] if part.startswith("[") else part for part in re.findall(r"\[[^\]]*\]|[^./\[\]]+", text)]
    this = not data and (word == "." or parts[:1] == ["this"] or not parts)
    path = Path(tuple(parts[1:] if parts[:1] == ["this"] and not data else parts), up, data, this or up > 0)
    if not path.parts and not path.this:
        raise _refused(line, f"{word[:40]!r} names nothing")
    return path


def with_lines_from(nodes: tuple[Node, ...], first: int) -> tuple[Node, ...]:
    """The same nodes with lines counted from `first`, the line where the template begins in its file."""
    return tuple(_moved(node, first - 1) for node in nodes)


def _moved(node: Node, by: int) -> Node:
    if isinstance(node, Text):
        return node
    if isinstance(node, Block):
        body, otherwise = with_lines_from(node.body, by + 1), with_lines_from(node.otherwise, by + 1)
        return replace(node, line=node.line + by, body=body, otherwise=otherwise)
    return replace(node, line=node.line + by)

"""Assertions on XML and HTML: the whole answer (`is-…`) or some part of it (`contains-…`).

Answers are hostile text: XML is read by expat with no entity but its own five and nothing fetched, HTML by one pass
that never looks at a character twice.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from xml.parsers import expat

from suites.assertions.spec import (
    Assertion,
    AssertionErrored,
    AssertionSpec,
    Family,
    Outcome,
    Output,
    outcome,
    refuse,
    shorten,
)
from suites.assertions.text import no_threshold

MAX_ELEMENTS = 200_000  # read of one answer, over all attempts to find XML in it
MAX_READ_BYTES = 50_000_000  # the same: attempts that fail only at the end of the answer read it again and again
MAX_DEPTH = 1_000
_CHUNK_BYTES = 4096  # read at a time: most attempts to find XML fail within the first
_ATTEMPT = 4  # elements that an attempt counts for

# ------------------------------------------------------------------------------------ XML


@dataclass(slots=True)
class _Element:
    """One element and those within it, by name and in order."""

    name: str
    children: list[_Element] = field(default_factory=list)


class _NotXml(Exception):
    """Why a text is no XML document."""


class _Ended(Exception):
    """The root element was closed: what follows is not looked at."""


@dataclass(slots=True)
class _Budget:
    """What may still be read for one answer."""

    elements: int = MAX_ELEMENTS
    size: int = MAX_READ_BYTES

    def spend(self, elements: int, size: int = 0) -> None:
        self.elements -= elements
        self.size -= size
        if self.elements < 0 or self.size < 0:
            raise AssertionErrored(f"the answer has more than {MAX_ELEMENTS:,} tags to look through for XML")


class _XmlReader:
    """Reads one document into elements, within a budget."""

    def __init__(self, budget: _Budget, *, stop_at_end: bool) -> None:
        self.root: _Element | None = None
        self.end = 0
        self._budget = budget
        self._stop_at_end = stop_at_end
        self._open: list[_Element] = []
        self._parser = expat.ParserCreate()
        self._parser.StartElementHandler = self._start
        self._parser.EndElementHandler = self._close
        self._parser.StartDoctypeDeclHandler = self._doctype

    def read(self, content: memoryview) -> _Element:
        """The root of `content`, which is UTF-8; raises _NotXml."""
        try:
            for start in range(0, len(content), _CHUNK_BYTES):
                self._parser.Parse(content[start : start + _CHUNK_BYTES], False)
            self._parser.Parse(b"", True)
        except _Ended:
            self.end = self._parser.CurrentByteIndex
        except expat.ExpatError as error:
            self._budget.spend(_ATTEMPT, len(content) if error.code in _RAN_OUT else self._parser.ErrorByteIndex)
            raise _NotXml(str(error)) from error
        if self.root is None:
            raise _NotXml("no element found")
        return self.root

    def _start(self, name: str, _attributes: dict[str, str]) -> None:
        self._budget.spend(1)
        if len(self._open) >= MAX_DEPTH:
            raise AssertionErrored(f"XML of more than {MAX_DEPTH:,} levels is not read")
        element = _Element(name)
        if self._open:
            self._open[-1].children.append(element)
        else:
            self.root = element
        self._open.append(element)

    def _close(self, _name: str) -> None:
        self._open.pop()
        if self._stop_at_end and not self._open:
            raise _Ended

    def _doctype(self, _name: str, _system: str | None, _public: str | None, has_internal_subset: int) -> None:
        if has_internal_subset:
            raise _NotXml("a DTD within the document is not read: it could declare entities without end")


def _is_xml(output: Output, spec: AssertionSpec) -> Outcome:
    try:
        root = _XmlReader(_Budget(), stop_at_end=False).read(_encoded(output.text.strip()))
        problem = _missing(root, spec)
    except _NotXml as error:
        problem = str(error)
    return outcome(not problem, _expected("XML", spec, problem), output.text)


def _contains_xml(output: Output, spec: AssertionSpec) -> Outcome:
    problem = "no element in it is closed"
    for root in _fragments(_encoded(output.text)):
        problem = _missing(root, spec)
        if not problem:
            break
    return outcome(not problem, _expected("XML within", spec, problem), output.text)


def _fragments(content: memoryview) -> Iterator[_Element]:
    """Elements within `content` that are closed, outermost first."""
    budget, position = _Budget(), 0
    while opening := _OPENING.search(content, position):
        reader = _XmlReader(budget, stop_at_end=True)
        try:
            yield reader.read(content[opening.start() :])
            position = opening.start() + reader.end + 1
        except _NotXml:
            position = opening.end()


def _encoded(text: str) -> memoryview:
    """As UTF-8, which a declaration may contradict: the text has been decoded, so what it says of bytes is void."""
    return memoryview(_DECLARED.sub(rb"\1", text.encode("utf-8", "replace"), count=1))


_RAN_OUT = (3, 5, 20)  # expat's codes for a text that ends too early: no element, an open token, an open CDATA
_OPENING = re.compile(rb"<[a-zA-Z_:\x80-\xff]")
_DECLARED = re.compile(rb"\A(<\?xml[^>]{0,80}?)\s+encoding\s*=\s*(?:\"[^\"]{0,40}\"|'[^']{0,40}')")


def _expected(kind: str, spec: AssertionSpec, problem: str) -> str:
    required = _required(spec.value)
    text = f"{kind} with {shorten(required)}" if required else kind
    return f"{text} ({problem})" if problem else text


def _missing(root: _Element, spec: AssertionSpec) -> str:
    missing = [path for path in _required(spec.value) if not _has(root, path.split("."))]
    return f"without {', '.join(missing)}" if missing else ""


def _has(root: _Element, path: list[str]) -> bool:
    """Whether the elements of `path`, from the root down, are there; a number picks one of equal siblings."""
    found = [root] if root.name == path[0] else []
    for step in path[1:]:
        if step.isdecimal():
            found = found[int(step) : int(step) + 1]
        else:
            found = [child for element in found for child in element.children if child.name == step]
    return bool(found)


def _required(value: Any) -> list[str]:
    given = value.get("requiredElements") if isinstance(value, dict) else value
    paths = given.split(",") if isinstance(given, str) else given or []
    return [path.strip() for path in paths]


def _check_xml(spec: AssertionSpec) -> None:
    no_threshold(spec)
    value = spec.value
    fix = "write `value: {requiredElements: [root.child]}`, or leave `value` out"
    if isinstance(value, dict) and set(value) != {"requiredElements"}:
        refuse(f"`{spec.type}` takes requiredElements alone", fix)
    given = value["requiredElements"] if isinstance(value, dict) else value
    if given is not None and not isinstance(given, str | list):
        refuse(f"`{spec.type}` takes paths of elements", fix)
    if isinstance(given, list) and not all(isinstance(path, str) for path in given):
        refuse(f"every path of `{spec.type}` is text", fix)
    if given is not None and not all(_PATH.fullmatch(path) for path in _required(value) or [""]):
        refuse(f"`{spec.type}`: {shorten(given)} are not paths of elements", fix)


_PATH = re.compile(r"[^\s.,<>]+(?:\.[^\s.,<>]+)*")

# ------------------------------------------------------------------------------------ HTML

_TAG = re.compile(r"<(?P<close>/?)(?P<name>[a-zA-Z][^\s/>]*+)(?P<rest>(?:[^\"'>]++|\"[^\"]*+\"|'[^']*+')*+)>")
_SKIPPED = (("<!--", "-->"), ("<!", ">"))  # comments and declarations: where they begin and end
_VOID = frozenset(
    ["area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "param", "source", "track", "wbr"]
)
_RAW = frozenset(
    ["script", "style", "textarea", "title", "xmp", "iframe", "noembed", "noframes"]
)  # nothing within them is a tag
_END_OPTIONAL = frozenset(
    [
        "html",
        "head",
        "body",
        "p",
        "li",
        "dt",
        "dd",
        "option",
        "optgroup",
        "tr",
        "td",
        "th",
        "thead",
        "tbody",
        "tfoot",
        "colgroup",
        "caption",
        "rp",
        "rt",
    ]
)
_KNOWN = (
    _VOID
    | _RAW
    | _END_OPTIONAL
    | frozenset(
        [
            "a",
            "abbr",
            "acronym",
            "address",
            "article",
            "aside",
            "audio",
            "b",
            "bdi",
            "bdo",
            "big",
            "blockquote",
            "button",
            "canvas",
            "center",
            "cite",
            "code",
            "data",
            "datalist",
            "del",
            "details",
            "dfn",
            "dialog",
            "div",
            "dl",
            "em",
            "fieldset",
            "figcaption",
            "figure",
            "font",
            "footer",
            "form",
            "h1",
            "h2",
            "h3",
            "h4",
            "h5",
            "h6",
            "header",
            "hgroup",
            "i",
            "ins",
            "kbd",
            "label",
            "legend",
            "main",
            "map",
            "mark",
            "math",
            "menu",
            "meter",
            "nav",
            "noscript",
            "object",
            "ol",
            "output",
            "picture",
            "pre",
            "progress",
            "q",
            "ruby",
            "s",
            "samp",
            "search",
            "section",
            "select",
            "slot",
            "small",
            "span",
            "strike",
            "strong",
            "sub",
            "summary",
            "sup",
            "svg",
            "table",
            "template",
            "time",
            "tt",
            "u",
            "ul",
            "var",
            "video",
        ]
    )
)
_ENTITY = re.compile(r"&(?:[a-zA-Z]{2,31}|#[0-9]{1,7}|#[xX][0-9a-fA-F]{1,6});")


@dataclass(slots=True)
class _Page:
    """What one pass over an answer saw of HTML; `problem` is the first thing that is wrong with it."""

    known: int = 0  # elements that HTML has, or that are custom (with a hyphen)
    closed: int = 0
    signs: int = 0  # comments, doctypes, entities
    outside: str = ""  # the first text that is in no element
    problem: str = ""


def _is_html(output: Output, _spec: AssertionSpec) -> Outcome:
    page = _read_html(output.text)
    problem = page.problem or (f"text outside of any element: {shorten(page.outside, 40)}" if page.outside else "")
    if not problem and not page.known:
        problem = "no HTML element in it"
    return outcome(not problem, f"HTML ({problem})" if problem else "HTML", output.text)


def _contains_html(output: Output, _spec: AssertionSpec) -> Outcome:
    page = _read_html(output.text)
    return outcome(bool(page.known) or page.signs + page.closed > 1, "HTML within", output.text)


def _read_html(text: str) -> _Page:
    """One pass over tags, as a browser's tokenizer goes: what is opened and not closed ends the text."""
    page, open_tags, position = _Page(), list[str](), 0
    while True:
        start = text.find("<", position)
        _note_text(page, text[position : start if start >= 0 else len(text)], bool(open_tags))
        if start < 0:
            break
        position = _read_tag(page, open_tags, text, start)
    unclosed = [name for name in open_tags if name not in _END_OPTIONAL]
    if unclosed and not page.problem:
        page.problem = f"<{unclosed[0][:40]}> is not closed"
    return page


def _note_text(page: _Page, text: str, inside: bool) -> None:
    if not inside and not page.outside:
        page.outside = text.strip()[:80]
    page.signs += _ENTITY.search(text) is not None


def _read_tag(page: _Page, open_tags: list[str], text: str, start: int) -> int:
    """Note what begins at `start`, and say where to go on."""
    tag = _TAG.match(text, start)
    if tag is None:
        return _skip(page, bool(open_tags), text, start)
    name = tag["name"].lower()
    if tag["close"]:
        _close_tag(page, open_tags, name)
        return tag.end()
    page.known += name in _KNOWN or ("-" in name and name.isascii())
    if name in _VOID or tag["rest"].endswith("/"):
        return tag.end()
    if name in _RAW:
        return _after_raw(page, text, name, tag.end())
    open_tags.append(name)
    return tag.end()


def _skip(page: _Page, inside: bool, text: str, start: int) -> int:
    """Past a comment, a declaration, or a `<` that opens nothing."""
    for opening, closing in _SKIPPED:
        if text.startswith(opening, start):
            end = text.find(closing, start + len(opening))
            page.signs += 1 + (text[start : start + 14].lower() == "<!doctype html")
            page.problem = page.problem or ("" if end >= 0 else f"{opening} is not closed")
            return end + len(closing) if end >= 0 else len(text)
    if text[start + 1 : start + 2] == "?":
        page.problem = page.problem or "a processing instruction: it is XML"
    elif text[start + 1 : start + 2].isalpha() or text[start + 1 : start + 2] == "/":
        page.problem = page.problem or "a tag is not closed"
        return len(text)  # no later tag can be read either: this one swallows the rest
    _note_text(page, "<", inside)
    return start + 1


def _close_tag(page: _Page, open_tags: list[str], name: str) -> None:
    """Close the innermost `name`, and with it those within whose end may be left out."""
    while open_tags and open_tags[-1] != name and open_tags[-1] in _END_OPTIONAL:
        open_tags.pop()
    if open_tags and open_tags[-1] == name:
        open_tags.pop()
        page.closed += 1
    elif name not in _END_OPTIONAL:
        page.problem = page.problem or f"</{name[:40]}> closes nothing"


def _after_raw(page: _Page, text: str, name: str, start: int) -> int:
    end = re.compile(rf"</{name}[\s/>]", re.IGNORECASE).search(text, start)
    closed = text.find(">", end.start()) if end else -1
    if closed < 0:
        page.problem = page.problem or f"<{name}> is not closed"
        return len(text)
    page.closed += 1
    return closed + 1


def _check_no_value(spec: AssertionSpec) -> None:
    no_threshold(spec)
    if spec.value is not None:
        refuse(f"`{spec.type}` has no value", "remove `value:`")


FAMILY: Family = {
    "is-xml": Assertion(_is_xml, _check_xml),
    "contains-xml": Assertion(_contains_xml, _check_xml),
    "is-html": Assertion(_is_html, _check_no_value),
    "contains-html": Assertion(_contains_html, _check_no_value),
}

"""A prompt file as text that an author would have written: keys in the order of the format, long texts as blocks.

YAML's own writers quote what another reader might take for something else and fold long lines; this one writes the plain
data of our files, and `yaml_source` reads back exactly what was given.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

ORDER = (
    "name", "description", "notes", "tags", "labels", "model", "modelParameters", "variables", "placeholders", "messages",
    "examples", "tools", "toolChoice", "responseFormat", "jsonSchema", "repair", "cacheSeconds", "testData", "evaluators",
)  # fmt: skip
_PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9_./-]*(?: [A-Za-z0-9_./(-][A-Za-z0-9_./(),;'’%+-]*)*")
_PLAIN_IN_FLOW = re.compile(r"[A-Za-z][A-Za-z0-9_./-]*(?: [A-Za-z0-9_./-]+)*")
_MOST_FLOW = 72  # characters of a mapping or list on one line
_WORDS = frozenset({"null", "true", "false", "yes", "no", "on", "off", "y", "n"})
_UNSAFE = re.compile("[\0-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\ufeff\ud800-\udfff\ufffe\uffff]")
_STEP = "  "


def prompt_text(keys: Mapping[str, Any]) -> str:
    """The YAML of a prompt file."""
    ordered = {key: keys[key] for key in ORDER if key in keys} | dict(keys)
    return "".join(f"{line}\n" for line in _mapping(ordered, ""))


def suite_text(keys: Mapping[str, Any]) -> str:
    """The YAML of a suite file, its keys as they are given."""
    return "".join(f"{line}\n" for line in _mapping(keys, ""))


def _mapping(data: Mapping[str, Any], indent: str) -> Iterator[str]:
    for key, value in data.items():
        yield from _entry(f"{indent}{_scalar(str(key))}:", value, indent)


def _entry(head: str, value: Any, indent: str) -> Iterator[str]:
    """`head` with its value on the same line where it fits, else below it."""
    flow = _flow(value)
    if isinstance(value, str) and _is_block(value):
        yield from _block(head, value, indent + _STEP)
    elif flow is not None and len(flow) <= _MOST_FLOW:
        yield f"{head} {flow}"
    elif isinstance(value, Mapping):
        yield head
        yield from _mapping(value, indent + _STEP)
    elif isinstance(value, list | tuple):
        yield head
        yield from _items(value, indent + _STEP)
    else:
        yield f"{head} {_scalar(value)}"


def _flow(value: Any) -> str | None:
    """A list or mapping of short plain values on one line; None for anything else."""
    if isinstance(value, Mapping) and all(map(_is_short, value.values())):
        inner = ", ".join(
            f"{_scalar(str(key), _PLAIN_IN_FLOW)}: {_scalar(item, _PLAIN_IN_FLOW)}" for key, item in value.items()
        )
        return "{" + inner + "}"
    if isinstance(value, list | tuple) and all(map(_is_short, value)):
        return "[" + ", ".join(_scalar(item, _PLAIN_IN_FLOW) for item in value) + "]"
    return None


def _items(values: list[Any] | tuple[Any, ...], indent: str) -> Iterator[str]:
    for value in values:
        if isinstance(value, Mapping) and value:
            lines = _mapping(value, indent + _STEP)
            yield f"{indent}- {next(lines).removeprefix(indent + _STEP)}"
            yield from lines
        else:
            yield from _entry(f"{indent}-", value, indent)


def _is_short(value: Any) -> bool:
    return not isinstance(value, Mapping | list | tuple) and len(str(value)) <= 30 and "\n" not in str(value)


def _is_block(text: str) -> bool:
    return "\n" in text and bool(text.strip()) and not _UNSAFE.search(text)


def _block(head: str, text: str, indent: str) -> Iterator[str]:
    """A literal block; its indicator says how the text begins and what becomes of its last line ends."""
    body = text.rstrip("\n")
    ends = len(text) - len(body)
    starts = str(len(_STEP)) if body[:1] in (" ", "\n", "\t") else ""
    yield f"{head} |{starts}{'-' if ends == 0 else '' if ends == 1 else '+'}"
    for line in body.split("\n"):
        yield f"{indent}{line}" if line else ""
    for _ in range(ends - 1):
        yield ""


def _scalar(value: Any, plain: re.Pattern[str] = _PLAIN) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, int | float):
        return repr(value)
    text = str(value)
    return text if plain.fullmatch(text) and text.lower() not in _WORDS else _quoted(text)


def _quoted(text: str) -> str:
    """A double-quoted scalar; only what YAML would not keep is escaped."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\t", "\\t")
    return '"' + _UNSAFE.sub(lambda found: f"\\u{ord(found[0]):04x}", escaped) + '"'

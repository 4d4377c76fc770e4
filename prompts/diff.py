"""What changed between two contents of a prompt: messages word by word, everything else key by key."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from prompts.errors import RenderError
from prompts.messages import NOTHING
from prompts.prompt import PromptContent, compile_prompt
from prompts.variables import refuse_unknown

MAX_WORD_PAIRS = 4_000_000  # a block of lines with more (words before × words after) is told apart line by line alone
_EMPTY: dict[str, Any] = {"placeholders": {}, "examples": [], "tools": []}  # what a content without these dumps as
_WORD = re.compile(r"\w+|\s+|[^\w\s]")


@dataclass(frozen=True, slots=True)
class Shown:
    """A message as people compare it: a slot has the role `placeholder`, a part stands behind a line that names it."""

    role: str
    text: str

    @property
    def lines(self) -> list[str]:
        return self.text.split("\n")


def diff(before: PromptContent, after: PromptContent) -> dict[str, Any]:
    """All differences, as JSON.

    `messages` holds unified diff lines, `fields` every other field that differs as `[before, after]`. In detail:
    `message_changes` (see `message_changes`), and `changes`, a list of `{path, kind, before, after}` with a JSON
    Pointer to each key of the other fields that was added, removed or changed. Tools are told apart by their names.
    """
    old, new = (content.model_dump(mode="json") for content in (before, after))
    names = [name for name in PromptContent.model_fields if name != "messages"]
    pairs = {name: [_field(old, name), _field(new, name)] for name in names}
    fields = {name: pair for name, pair in pairs.items() if _json(pair[0]) != _json(pair[1])}
    keyed = {name: [_by_name(side) if name == "tools" else side for side in pair] for name, pair in fields.items()}
    return {
        **_messages_diff(old["messages"], new["messages"]),
        "fields": fields,
        "changes": [change for name, pair in keyed.items() for change in _changes(f"/{name}", *pair)],
        "same": before.digest == after.digest,
    }


def diff_rendered(
    before: PromptContent, after: PromptContent, variables: Mapping[str, Any], placeholders: Mapping[str, Any] = NOTHING
) -> dict[str, Any]:
    """What changed in the messages that both give for the same variables and placeholders: `{a, b, messages, …}`.

    Each is given those that it declares. Raises what rendering raises, and UnexpectedVariable for what neither declares.
    """
    refuse_unknown("variable", {**before.variables, **after.variables}, variables)
    refuse_unknown("placeholder", {**before.placeholders, **after.placeholders}, placeholders)
    old, new = (_rendered(content, which, variables, placeholders) for content, which in ((before, "a"), (after, "b")))
    return {"a": old, "b": new, **_messages_diff(old, new), "same": old == new}


def _rendered(
    content: PromptContent, which: str, variables: Mapping[str, Any], placeholders: Mapping[str, Any]
) -> list[dict[str, Any]]:
    values = {name: value for name, value in variables.items() if name in content.variables}
    lists = {name: value for name, value in placeholders.items() if name in content.placeholders}
    try:
        return [message.as_dict() for message in compile_prompt(content).render(values, (), lists)]
    except RenderError as error:
        raise type(error)(f"version {which}: {error}", param=error.param) from error


def _messages_diff(old: Sequence[Mapping[str, Any]], new: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    before, after = ([shown(message) for message in side] for side in (old, new))
    lines = difflib.unified_diff(_lines(before), _lines(after), "before", "after", lineterm="", n=3)
    return {"messages": list(lines), "message_changes": message_changes(before, after)}


def _lines(messages: Sequence[Shown]) -> list[str]:
    return [f"[{message.role}] {line}" for message in messages for line in message.lines]


def shown(message: Mapping[str, Any]) -> Shown:
    """A message of a template, or a rendered one, as it is compared."""
    if "placeholder" in message:
        return Shown("placeholder", message["placeholder"])
    content, extra = message["content"], {k: v for k, v in message.items() if k not in ("role", "content")}
    parts = [content] if isinstance(content, str) else [_part(part) for part in content or ()]
    return Shown(message["role"], "\n".join([*parts, *([_json(extra)] if extra else [])]))


def _part(part: Mapping[str, Any]) -> str:
    if part.get("type") == "text" and isinstance(part.get("text"), str):
        return f"(text)\n{part['text']}"
    return f"({part.get('type')}) {_json({key: value for key, value in part.items() if key != 'type'})}"


def message_changes(before: Sequence[Shown], after: Sequence[Shown]) -> list[dict[str, Any]]:
    """Every message that was added, removed or changed, or whose role changed, with its words.

    An entry is `{kind, before, after, words}`: a side is `{index, role}` or None; `words` is a list of
    `{kind: same|removed|added, text}` whose texts without the added ones are the message before, without the removed
    ones the message after.
    """
    changes = []
    for i, j in _aligned(before, after, (lambda m: m, lambda m: m.text, lambda m: m.role)):
        old, new = (before[i] if i is not None else None), (after[j] if j is not None else None)
        if old == new:
            continue
        kind = "added" if old is None else "removed" if new is None else "role" if old.role != new.role else "changed"
        sides = {"before": _side(i, old), "after": _side(j, new)}
        changes.append({"kind": kind, **sides, "words": words(old.text if old else "", new.text if new else "")})
    return changes


def _side(index: int | None, message: Shown | None) -> dict[str, Any] | None:
    return {"index": index, "role": message.role} if message is not None else None


def _aligned(
    before: Sequence[Any], after: Sequence[Any], keys: Sequence[Callable[[Any], Any]], i: int = 0, j: int = 0
) -> Iterator[tuple[int | None, int | None]]:
    """Pairs of indexes that belong together: equal by the first key, then between those by the next, and so on."""
    first, *rest = keys
    matcher = difflib.SequenceMatcher(None, [first(m) for m in before], [first(m) for m in after], autojunk=False)
    for kind, i1, i2, j1, j2 in matcher.get_opcodes():
        if kind == "equal":
            yield from zip(range(i + i1, i + i2), range(j + j1, j + j2), strict=True)
        elif rest:
            yield from _aligned(before[i1:i2], after[j1:j2], rest, i + i1, j + j1)
        else:
            yield from ((index, None) for index in range(i + i1, i + i2))
            yield from ((None, index) for index in range(j + j1, j + j2))


def words(before: str, after: str) -> list[dict[str, str]]:
    """Spans of `{kind: same|removed|added, text}`: line by line first, then word by word within lines that changed."""
    spans: list[dict[str, str]] = []
    for kind, old, new in _blocks(before.splitlines(keepends=True), after.splitlines(keepends=True)):
        tokens = _WORD.findall("".join(old)), _WORD.findall("".join(new))
        if kind == "replace" and len(tokens[0]) * len(tokens[1]) <= MAX_WORD_PAIRS:
            for inner, removed, added in _blocks(*tokens):
                _add_spans(spans, inner, "".join(removed), "".join(added))
        else:
            _add_spans(spans, kind, "".join(old), "".join(new))
    return spans


def _blocks(before: Sequence[str], after: Sequence[str]) -> Iterator[tuple[str, Sequence[str], Sequence[str]]]:
    for kind, i1, i2, j1, j2 in difflib.SequenceMatcher(None, before, after).get_opcodes():
        yield kind, before[i1:i2], after[j1:j2]


def _add_spans(spans: list[dict[str, str]], kind: str, removed: str, added: str) -> None:
    pieces = (("same", removed),) if kind == "equal" else (("removed", removed), ("added", added))
    for name, text in pieces:
        if text and spans and spans[-1]["kind"] == name:
            spans[-1] = {"kind": name, "text": spans[-1]["text"] + text}
        elif text:
            spans.append({"kind": name, "text": text})


def _field(content: Mapping[str, Any], name: str) -> Any:
    return content.get(name, _EMPTY.get(name))


def _by_name(tools: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | Sequence[Mapping[str, Any]]:
    """Tools by their names, where each has one of its own."""
    functions = [tool.get("function") for tool in tools]
    names = [function.get("name") if isinstance(function, Mapping) else None for function in functions]
    by_name = {name: tool for name, tool in zip(names, tools, strict=True) if isinstance(name, str)}
    return by_name if len(by_name) == len(tools) else tools


def _changes(path: str, before: Any, after: Any) -> Iterator[dict[str, Any]]:
    """Each key below `path` that was added, removed or changed, as deep as both sides have keys."""
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        for key in dict.fromkeys([*before, *after]):
            place = f"{path}/{str(key).replace('~', '~0').replace('/', '~1')}"
            yield from _pair(place, before.get(key, _ABSENT), after.get(key, _ABSENT))
    elif isinstance(before, list) and isinstance(after, list):
        for i, j in _aligned(before, after, (_json, lambda _: 0)):
            place = f"{path}/{j if j is not None else i}"
            yield from _pair(place, _ABSENT if i is None else before[i], _ABSENT if j is None else after[j])
    elif _json(before) != _json(after):  # 1 and true are equal to Python alone
        kind = "added" if before is None else "removed" if after is None else "changed"
        yield {"path": path, "kind": kind, "before": before, "after": after}


_ABSENT = object()


def _pair(path: str, before: Any, after: Any) -> Iterator[dict[str, Any]]:
    if before is _ABSENT:
        yield {"path": path, "kind": "added", "before": None, "after": after}
    elif after is _ABSENT:
        yield {"path": path, "kind": "removed", "before": before, "after": None}
    else:
        yield from _changes(path, before, after)


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True)

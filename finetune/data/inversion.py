"""A prompt read backwards: from the messages that it rendered to the variables that it was given.

Only text and plain `{{ name }}` of string variables can be read so. Where two readings of a message are possible, it
has none: a wrong split would teach wrong variables.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from prompts.errors import BadInput
from prompts.messages import Message
from prompts.prompt import CompiledPrompt, PlaceholderSlot
from prompts.segments import Segment, segments
from prompts.template import Template
from prompts.variables import is_plain_string

SYSTEM_ROLES = ("system", "developer")
INSTEAD = 'give the examples as {"vars": {…}, "expected": "…"} instead'


class NotInvertibleError(Exception):
    """Messages that are no rendering of the prompt, or of which more than one reading is possible."""


@dataclass(frozen=True, slots=True)
class _Form:
    """One message of the prompt as text and variables; a fixed one is a few-shot example's or a placeholder's."""

    role: str
    segments: tuple[Segment, ...]
    is_fixed: bool = False


class Inversion:
    """The variables of messages that one prompt rendered.

    Raises BadInput on construction where the prompt cannot be read backwards, with the reason.
    """

    def __init__(self, prompt: CompiledPrompt, *, ignore_system: bool = False) -> None:
        self._prompt = prompt
        self._ignore_system = ignore_system
        forms = [form for piece in prompt.pieces for form in _forms(prompt, piece)]
        self._forms = [form for form in forms if not (ignore_system and form.role in SYSTEM_ROLES)]
        _refuse_missing(prompt, self._forms, ignore_system)

    def variables(self, messages: Sequence[tuple[str, str]]) -> dict[str, str]:
        """The variables of `messages`, pairs of role and content; white space around a message does not count.

        The prompt's few-shot examples may be left out of them. Raises NotInvertibleError, saying why.
        """
        given = [pair for pair in messages if not (self._ignore_system and pair[0] in SYSTEM_ROLES)]
        forms = self._forms
        if len(given) != len(forms):
            forms = [form for form in forms if not form.is_fixed]
        roles = [form.role for form in forms]
        if [role for role, _ in given] != roles:
            raise NotInvertibleError(self._other_roles([role for role, _ in given], roles))
        found: dict[str, str] = {}
        for number, (form, (_, content)) in enumerate(zip(forms, given, strict=True)):
            found |= _read(form, content, found, f"messages[{number}]")
        return found

    def _other_roles(self, given: Sequence[str], wanted: Sequence[str]) -> str:
        has, needs = (" → ".join(roles) or "nothing" for roles in (given, wanted))
        lead = any(role in SYSTEM_ROLES for role in given) != any(role in SYSTEM_ROLES for role in wanted)
        hint = "; --ignore-system leaves system messages out of the comparison" if lead else ""
        return f"before the answer stand {has}, the prompt has {needs}{hint}"


def _forms(prompt: CompiledPrompt, piece: Any) -> list[_Form]:
    if isinstance(piece, PlaceholderSlot):
        default = prompt.content.placeholders[piece.placeholder].default
        if default is None:
            reason = f"the placeholder {piece.placeholder!r} has no default, and an example cannot hold its messages"
            raise BadInput(f"{reason}: declare `default: []` for it")
        return [_fixed(message["role"], message.get("content")) for message in default]
    if isinstance(piece, Message):
        return [_fixed(piece.role, piece.content)]
    template = getattr(piece, "template", None)
    found = segments(template) if isinstance(template, Template) else None
    if found is None:
        reason = "has parts, loops, conditions or filters, which cannot be read backwards"
        raise BadInput(f"the prompt's {piece.role} message {reason}: {INSTEAD}")
    _refuse_adjacent(piece.role, found)
    return [_Form(piece.role, tuple(found))]


def _fixed(role: str, content: Any) -> _Form:
    if not isinstance(content, str):
        raise BadInput(
            f"the prompt has a fixed {role} message that is not text, which files cannot be compared with: {INSTEAD}"
        )
    return _Form(role, ({"text": content},), is_fixed=True)


def _refuse_adjacent(role: str, found: Sequence[Segment]) -> None:
    kept = [segment for segment in found if segment.get("text") != ""]
    for one, other in pairwise(kept):
        if "variable" in one and "variable" in other:
            names = f"{one['variable']!r} and {other['variable']!r}"
            raise BadInput(
                f"in the prompt's {role} message {names} stand side by side, with no text to part them: {INSTEAD}"
            )


def _refuse_missing(prompt: CompiledPrompt, forms: Sequence[_Form], ignore_system: bool) -> None:
    """Raise BadInput for a variable that no message tells, or that is more than text."""
    told = {segment["variable"] for form in forms for segment in form.segments if "variable" in segment}
    for name, schema in prompt.content.variables.items():
        if name in told and not is_plain_string(schema):
            raise BadInput(
                f"the variable {name!r} is not plain text, and its value cannot be told from the messages: {INSTEAD}"
            )
        if name not in told and "default" not in schema:
            where = "no message but the system's" if ignore_system else "no message"
            raise BadInput(f"the variable {name!r} stands in {where} and has no default: {INSTEAD}")


def _read(form: _Form, content: str, known: Mapping[str, str], place: str) -> dict[str, str]:
    """The variables of one message; exactly first, then without the white space around it."""
    parts = [known.get(segment["variable"], segment) if "variable" in segment else segment["text"]
             for segment in form.segments]  # fmt: skip
    merged = _merged(parts)
    for trim in (False, True):
        text, wanted = (content.strip(), _trimmed(merged)) if trim else (content, merged)
        first, last = _split(text, wanted, leftmost=True), _split(text, wanted, leftmost=False)
        if first is not None:
            return _agreed(first, last, form, place)
    if all("text" in segment for segment in form.segments):
        raise NotInvertibleError(_differs(form, place))
    raise NotInvertibleError(f"{place}: the {form.role} message is not what the prompt's template renders")


def _differs(form: _Form, place: str) -> str:
    hint = (
        ": make them the same, or leave system messages out with --ignore-system" if form.role in SYSTEM_ROLES else ""
    )
    return f"{place}: the {form.role} message differs from the prompt's{hint}"


def _merged(parts: Sequence[Any]) -> list[Any]:
    """Texts that stand side by side as one; a variable is a mapping. Text first and last, if only an empty one."""
    merged: list[Any] = [""]
    for part in parts:
        if isinstance(part, str) and isinstance(merged[-1], str):
            merged[-1] += part
        else:
            merged.append(part)
    return merged if isinstance(merged[-1], str) else [*merged, ""]


def _trimmed(parts: list[Any]) -> list[Any]:
    return [parts[0].strip()] if len(parts) == 1 else [parts[0].lstrip(), *parts[1:-1], parts[-1].rstrip()]


def _split(text: str, parts: Sequence[Any], *, leftmost: bool) -> list[tuple[str, str]] | None:
    """Values of the variables in `parts`, with each text between them as early (or as late) as it can stand."""
    if len(parts) == 1:
        return [] if text == parts[0] else None
    begin, end = len(parts[0]), len(text) - len(parts[-1])
    if begin > end or not text.startswith(parts[0]) or not text.endswith(parts[-1]):
        return None
    names = [part["variable"] for part in parts[1::2]]
    cuts = _cuts(text, parts[2:-1:2], begin, end, leftmost)
    if cuts is None:
        return None
    starts, ends = [begin, *(cut[1] for cut in cuts)], [*(cut[0] for cut in cuts), end]
    return [(name, text[start:stop]) for name, start, stop in zip(names, starts, ends, strict=True)]


def _cuts(text: str, between: Sequence[str], begin: int, end: int, leftmost: bool) -> list[tuple[int, int]] | None:
    """Where each of the texts `between` variables stands, none overlapping; None where they do not fit."""
    found: list[tuple[int, int]] = []
    for part in between if leftmost else reversed(between):
        at = text.find(part, begin, end) if leftmost else text.rfind(part, begin, end)
        if at < 0:
            return None
        found.append((at, at + len(part)))
        begin, end = (at + len(part), end) if leftmost else (begin, at)
    return found if leftmost else found[::-1]


def _agreed(
    first: list[tuple[str, str]], last: list[tuple[str, str]] | None, form: _Form, place: str
) -> dict[str, str]:
    """The values, where the earliest and the latest way to part them are one and the same."""
    values = dict(first)
    if first != last or any(values[name] != value for name, value in first):
        reason = f"{place}: the {form.role} message can be split into variables in more than one way, or in none"
        raise NotInvertibleError(f"{reason}: {INSTEAD}")
    return values

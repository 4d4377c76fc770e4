"""What is wrong with a value and how to mend it, in the words of whoever wrote the file.

Pydantic tells its errors by a type and by names of classes; an author knows texts, lists, keys and values.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import filterfalse
from types import UnionType
from typing import Annotated, Any, Literal, NoReturn, TypeVar, Union, get_args, get_origin

import pydantic
from pydantic.fields import FieldInfo
from pydantic_core import PydanticCustomError

from prompts.errors import BadInput
from prompts.names import check_label
from prompts.redaction import without_secrets

T = TypeVar("T")

_READ_CHARACTERS = 4096  # of a long text, to be cut to a few
HIDDEN = ""  # as `found` of `refuse`: the value is not repeated


def refuse(message: str, fix: str, *, found: str | None = None) -> NoReturn:
    """Raise a fault from within a validator, to be told with its line and its fix.

    `found` is what is told in place of the value; HIDDEN tells nothing of it.
    """
    context = {"reason": message, "fix": fix} | ({} if found is None else {"found": found})
    raise PydanticCustomError("refused", "{reason}", context)


def held_to(check: Callable[[str], T], fix: str) -> Callable[[str], T]:
    """`check` as a validator, which tells what it refuses with `fix`."""

    def validate(value: str) -> T:
        try:
            return check(value)
        except (BadInput, ValueError) as error:
            refuse(str(error), fix)

    return validate


def shorten(value: Any, limit: int = 60) -> str:
    """`value` as a message shows it: without what looks like a secret, and only then cut to `limit` characters."""
    if value is None:
        return "nothing"
    if isinstance(value, str):
        text = repr(without_secrets(value[:_READ_CHARACTERS]))
    else:
        text = without_secrets(repr(value)[:_READ_CHARACTERS])
    return text if len(text) <= limit else text[: limit - 1] + "…"


_ALSO_CALLED = {"gpu": "cuda", "metal": "mps"}  # what likeness of letters would miss, or take for another word


def suggest(word: str, known: Iterable[str], otherwise: str = "") -> str:
    """A fix for an unknown `word`: the nearest known one, else `otherwise`, by default the list of them."""
    known = sorted(known)
    also = _ALSO_CALLED.get(word.casefold())
    near = [also] if also in known else difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    return f"did you mean {near[0]!r}?" if near else otherwise or "known here: " + ", ".join(known)


as_label = held_to(check_label, "write lower-case letters, digits, _, . and -, first a letter; `latest` is left out")


# ------------------------------------------------------------------------------------ what was expected, and the fix


@dataclass(frozen=True, slots=True)
class Told:
    """Why a value is refused, what stands there, and what to write; `found` is "" where the reason says it all."""

    reason: str
    found: str
    fix: str

    def __str__(self) -> str:
        return f"{self.reason}, found {self.found}" if self.found else self.reason


def is_of_kind(detail: Any) -> bool:
    """Whether an error says of what kind a value must be: of a union there is one for each."""
    return detail["type"] in _EXPECTED or detail["type"] in _BOUNDS or detail["type"] in _OTHERS


def told(details: Sequence[Any], place: Place) -> Told:
    """What pydantic says of the value at one place; several errors of it are the kinds of which it could be one."""
    ways = list(dict.fromkeys((_reason(detail), _fix(detail, place)) for detail in details))
    reason = " or ".join([ways[0][0], *(way.removeprefix("expected ") for way, _ in ways[1:])])
    fix = ", or ".join(dict.fromkeys(fix for _, fix in ways))
    return Told(reason, _found(details[0], reason), fix)


def _found(detail: Any, reason: str) -> str:
    """The value as it is told: not again where the reason has it, and no record whose parts do not go together."""
    found, value = detail.get("ctx", {}).get("found"), detail.get("input")
    if found is not None:
        return str(found)
    if isinstance(value, Mapping) and detail["type"] not in _EXPECTED:
        return ""
    shown = shorten(value)
    return "" if isinstance(value, str) and shown in reason else shown


_RECORD = "keys and values"
_EXPECTED = {
    "string_type": "a text", "string_unicode": "a text", "path_type": "a path",
    "dict_type": _RECORD, "mapping_type": _RECORD, "model_type": _RECORD, "model_attributes_type": _RECORD,
    "list_type": "a list", "tuple_type": "a list", "set_type": "a list", "frozen_set_type": "a list",
    "int_type": "a whole number", "int_parsing": "a whole number", "int_from_float": "a whole number",
    "int_parsing_size": "a whole number", "float_type": "a number", "float_parsing": "a number",
    "finite_number": "a number", "bool_type": "true or false", "bool_parsing": "true or false",
}  # fmt: skip
_BOUNDS = {  # pydantic's type: the key of the bound, and how it is told
    "greater_than": ("gt", "more than {}"), "greater_than_equal": ("ge", "{} or more"),
    "less_than": ("lt", "less than {}"), "less_than_equal": ("le", "{} or less"),
}  # fmt: skip
_OTHERS = {"literal_error", "string_too_short", "too_short", "string_too_long", "too_long", "string_pattern_mismatch"}
ANY_FIX = "docs/reference.md says what may stand here"


def _reason(detail: Any) -> str:
    kind, context = detail["type"], detail.get("ctx", {})
    if kind in _EXPECTED:
        return f"expected {_EXPECTED[kind]}"
    if kind == "literal_error":
        choices = _choices(context)
        return f"expected {_listed(choices)}" if len(choices) == 1 else f"expected one of {_listed(choices)}"
    if kind in _BOUNDS:
        return f"expected {_bound(kind, context)}"
    if kind == "string_too_short":
        return "a text is needed" if context["min_length"] == 1 else f"expected {many(context['min_length'], 'letter')}"
    if kind == "too_short":
        return f"expected at least {many(context['min_length'], 'item')}"
    if kind in ("string_too_long", "too_long"):
        return f"expected at most {many(context['max_length'], 'letter' if kind[0] == 's' else 'item')}"
    if kind == "string_pattern_mismatch":
        return "has characters that may not stand here"
    text = str(detail["msg"]).removeprefix("Value error, ")
    return text[:1].lower() + text[1:]


def _fix(detail: Any, place: Place) -> str:
    """How to mend a value, by what is wrong with it."""
    kind, context, value = detail["type"], detail.get("ctx", {}), detail.get("input", ...)
    if context.get("fix"):
        return str(context["fix"])
    if value is None:
        return "write its value after the colon"
    if kind == "literal_error":
        choices = _choices(context)
        return suggest(str(value), choices, otherwise=f"write {_listed(choices)}")
    if kind in _BOUNDS:
        return f"write {_bound(kind, context)}"
    if kind == "too_short" and place.is_needed:
        return _items_to_write(place)
    if kind in ("too_short", "string_too_short"):
        return "fill it in" if place.is_needed else "fill it in, or leave the key out"
    if kind in ("too_long", "string_too_long"):
        return "shorten it"
    return _fix_of_kind(_EXPECTED.get(kind, ""), value, place)


def _fix_of_kind(expected: str, value: Any, place: Place) -> str:
    if expected in ("a text", "a path"):
        return _text_to_write(value, place)
    if expected == "a list":
        is_word = isinstance(value, str) and re.fullmatch(r"[\w./@-]{1,40}", value)
        may_stand = is_word and place.fix_of([value]) is None
        return f"write [{value}], in brackets" if may_stand else _items_to_write(place)
    if expected == _RECORD:
        return _keys_to_write(value, place.records)
    if expected == "a whole number":
        return "write digits alone, without quotes"
    if expected == "a number":
        return "write a number, without quotes, such as 0.5"
    return "write true or false, without quotes" if expected == "true or false" else ANY_FIX


def _text_to_write(value: Any, place: Place) -> str:
    """A number in quotes, where that is a text that may stand there; else how such a text would be mended."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return "write one text, in quotes"
    fix = place.fix_of(str(value))
    return f'write "{value}", in quotes' if fix is None else fix or "write one text, in quotes"


def _items_to_write(place: Place) -> str:
    """How a list is written; where its items are records that need keys, with one of them."""
    needed = next(map(_needed, place.items), [])
    item = ", ".join(f"{key}: …" for key in needed)
    return (
        f"write its items on lines after `- `: {{{item}}}" if item else "write its items in [ ], or on lines after `- `"
    )


def _keys_to_write(value: Any, known: Sequence[type[pydantic.BaseModel]]) -> str:
    """Where the value is one that a key of the record takes, that key; else those that there are."""
    for model in known:
        for name, info in model.model_fields.items():
            if isinstance(value, str) and value in _literals(info.annotation):
                return f"write {{{info.alias or name}: {value}}}"
    keys = ", ".join(keys_of(known)) if len(known) == 1 else _needed_of_each(known)
    return f"write keys and values: {keys}" if keys else "write `key: value` lines, or {key: value}"


def _needed_of_each(known: Sequence[type[pydantic.BaseModel]]) -> str:
    """The keys that records of every kind need; where they share none, those of each kind."""
    needed = list(map(_needed, known))
    shared = [key for key in needed[0] if all(key in others for others in needed)] if needed else []
    return ", ".join(shared) or ", or ".join(filter(None, map(", ".join, needed)))


def _needed(record: type[pydantic.BaseModel]) -> list[str]:
    """The keys that a record must have."""
    return [info.alias or name for name, info in record.model_fields.items() if info.is_required()]


def _choices(context: Mapping[str, Any]) -> list[str]:
    """What may be written, of pydantic's `'a', 'b' or 'c'`."""
    return [a or b for a, b in re.findall(r"'([^']*)'|([^\s,']+)(?=,|$| or )", str(context["expected"]))]


def _listed(choices: Sequence[str]) -> str:
    return " or ".join([", ".join(choices[:-1]), choices[-1]] if len(choices) > 1 else choices)


def _bound(kind: str, context: Mapping[str, Any]) -> str:
    key, form = _BOUNDS[kind]
    return form.format(f"{context[key]:g}" if isinstance(context[key], float) else context[key])


def many(count: int, what: str) -> str:
    """A number with what is counted: `1 case`, `2,000 cases`."""
    return f"{count:,} {what}{'' if count == 1 else 's'}"


# ------------------------------------------------------------------------------------ what may stand at a place


@dataclass(frozen=True, slots=True)
class Place:
    """Where a value stands in what is read as a `model_class`: pydantic's location of it, which names the kinds of unions
    besides the keys, up to the last key that an author wrote.
    """

    model_class: type[pydantic.BaseModel]
    location: tuple[str | int, ...]

    @property
    def records(self) -> list[type[pydantic.BaseModel]]:
        """The records that may stand there."""
        return records_at(self.model_class, self.location)

    @property
    def items(self) -> list[type[pydantic.BaseModel]]:
        """The records that may be items of a list there."""
        return records_at(self.model_class, (*self.location, 0))

    @property
    def is_needed(self) -> bool:
        """Whether its key may not be left out."""
        *above, key = self.location
        fields = (_field(record, key) for record in records_at(self.model_class, above))
        return any(info is not None and info.is_required() for info in fields)

    def fix_of(self, value: Any) -> str | None:
        """None where `value` may stand there; else how it is mended, as what refuses it says: "" where that is not said.

        Asked is the nearest record around, with that one key: that it misses others is not told.
        """
        depth = next(n for n in reversed(range(len(self.location))) if records_at(self.model_class, self.location[:n]))
        key, *below = filterfalse(is_pydantics, self.location[depth:])
        for inner in reversed(below):
            value = [value] if isinstance(inner, int) else {inner: value}
        around = records_at(self.model_class, self.location[:depth])
        refused = min((_refused(record, key, value) for record in around), key=len)
        fixes = (str(detail.get("ctx", {}).get("fix", "")) for detail in refused)
        return next(filter(None, fixes), "") if refused else None


def _refused(record: type[pydantic.BaseModel], key: str | int, value: Any) -> Sequence[Any]:
    """What is wrong with the value of one key of a record."""
    try:
        record.model_validate({key: value})
    except pydantic.ValidationError as error:
        return [detail for detail in error.errors(include_url=False) if detail["loc"][:1] == (key,)]
    return ()


def is_pydantics(key: str | int) -> bool:
    """Whether a part of a location was written by no author: it names the kind of a union, or a check."""
    return isinstance(key, str) and key.startswith(("[", "function-"))


def records_at(model_class: type[pydantic.BaseModel], location: Sequence[str | int]) -> list[type[pydantic.BaseModel]]:
    """The records that may stand at a location of pydantic's."""
    found: list[Any] = [model_class]
    for key in filterfalse(is_pydantics, location):
        found = [below for each in found for below in _below(each, key)]
    return [each for each in found if _is_record(each)]


def _field(record: type[pydantic.BaseModel], key: str | int) -> FieldInfo | None:
    """The field that a key of a file is read as."""
    return next((info for name, info in record.model_fields.items() if key in (name, info.alias)), None)


def _below(annotation: Any, key: str | int) -> list[Any]:
    """What may stand below `key` of one that may stand above it; itself where `key` is the tag by which it is told."""
    if _is_record(annotation):
        if key in {word for info in annotation.model_fields.values() for word in _literals(info.annotation)}:
            return [annotation]
        info = _field(annotation, key)
        return _parts(info.annotation) if info else []
    origin, arguments = get_origin(annotation), get_args(annotation)
    if isinstance(origin, type) and issubclass(origin, Mapping) and len(arguments) == 2:
        return _parts(arguments[1])
    is_list = isinstance(origin, type) and issubclass(origin, list | tuple) and arguments
    return _parts(arguments[0]) if is_list and isinstance(key, int) else []


def _parts(annotation: Any) -> list[Any]:
    """The kinds of which a value is one, without what holds them to more."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _parts(arguments[0])
    return [part for each in arguments for part in _parts(each)] if origin in (Union, UnionType) else [annotation]


def _literals(annotation: Any) -> set[Any]:
    return {word for part in _parts(annotation) if get_origin(part) is Literal for word in get_args(part)}


def _is_record(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, pydantic.BaseModel)


def keys_of(records: Iterable[type[pydantic.BaseModel]]) -> list[str]:
    """The keys that may be written in one of these records; some fields are known from elsewhere."""
    fields = (pair for record in records for pair in record.model_fields.items())
    return list(dict.fromkeys(info.alias or name for name, info in fields if not info.exclude))

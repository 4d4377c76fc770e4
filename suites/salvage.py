"""What can still be read of a record with faults, so that one fault does not hide the next.

A file is refused with all its faults or taken whole; what is salvaged here is only looked at for more faults.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError

from prompts.errors import BadFile, Fault
from prompts.yaml_source import Document, parse_model
from suites.values import Keys

ModelT = TypeVar("ModelT", bound=BaseModel)
T = TypeVar("T")


class Damaged(dict[str, Any]):
    """A record that its file's reader could not read in full, and said so: what is missing from it is no fault of its own."""


MOST_TRIES = 5  # taking one fault away may bring another: a type that needs a threshold, without it


def read_record(
    model_class: type[ModelT],
    document: Document,
    at: Keys,
    found: list[Fault],
    *,
    needed: Iterable[str] = (),
    instead: Mapping[str, Any] | None = None,
) -> tuple[ModelT | None, bool]:
    """The record at `at`, and whether it is whole; its faults are added to `found`.

    Of one with faults it is what is left without them: without the key or the item that each names, or
    with its value in `instead`. None where nothing is left that makes sense: one of the `needed` keys is faulty.
    """
    try:
        made = parse_model(model_class, document, at)
    except BadFile as error:
        found.extend(error.faults)
    else:
        return made, not isinstance(raw_of(document, at), Damaged)
    data = raw_of(document, at)
    return (_rest(model_class, data, frozenset(needed), instead or {}) if isinstance(data, dict) else None), False


def raw_of(document: Document, at: Keys) -> Any:
    """What stands at `at`, as it was read."""
    data = document.data
    for key in at:
        data = data[key]
    return data


def _rest(
    model_class: type[ModelT], data: dict[str, Any], needed: frozenset[str], instead: Mapping[str, Any]
) -> ModelT | None:
    for _ in range(MOST_TRIES):
        try:
            return model_class.model_validate(data)
        except ValidationError as error:
            locations = [each["loc"] for each in error.errors(include_url=False, include_input=False)]
        given = {name for name in instead if any(loc[:1] == (name,) for loc in locations)}
        gone = {_faulty(data, loc) for loc in locations if loc[:1] not in {(name,) for name in given}}
        if () in gone or any(keys[0] in needed for keys in gone):
            return None
        data = {**_without(data, gone), **{name: instead[name] for name in given}}
    return None


def _faulty(data: Any, location: tuple[Any, ...]) -> Keys:
    """The keys of what has to go for the error at `location`: pydantic's own words in it lead nowhere."""
    keys: list[Any] = []
    for key in location:
        within = key in data if isinstance(data, dict) else _is_index(data, key)
        if within:
            keys.append(key)
            data = data[key]
    return tuple(keys)


def _is_index(data: Any, key: Any) -> bool:
    return isinstance(data, list | tuple) and isinstance(key, int) and key < len(data)


def _without(value: Any, gone: set[Keys], at: Keys = ()) -> Any:
    if isinstance(value, dict):
        return {key: _without(item, gone, (*at, key)) for key, item in value.items() if (*at, key) not in gone}
    if isinstance(value, list):
        return [_without(item, gone, (*at, i)) for i, item in enumerate(value) if (*at, i) not in gone]
    return value


# ------------------------------------------------------------------------------------ several errors at once


def error_at(error: PydanticCustomError, found: Any, *location: str | int) -> InitErrorDetails:
    """An error of one's own as pydantic tells its own: at a place, of a value."""
    return InitErrorDetails(type=error, loc=location, input=found)


def with_errors(handler: Callable[[Any], T], data: Any, own: list[InitErrorDetails]) -> T:
    """What `handler` makes of `data`; raises ValidationError with its errors and one's `own` together."""
    try:
        made = handler(data)
    except ValidationError as error:
        own = [*map(_as_given, error.errors(include_url=False)), *own]
        raise ValidationError.from_exception_data("record", own) from error
    if own:
        raise ValidationError.from_exception_data("record", own)
    return made


def _as_given(detail: Any) -> InitErrorDetails:
    """An error that was told, to be told again: with its type, its words and its fix."""
    context = {**detail.get("ctx", {}), "told": detail["msg"]}
    return error_at(PydanticCustomError(detail["type"], "{told}", context), detail["input"], *detail["loc"])

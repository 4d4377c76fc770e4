"""Assertions as a suite's file has them: each is checked while it is read, down to patterns and schemas."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

from pydantic import (
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
)
from pydantic_core import InitErrorDetails, PydanticCustomError

from suites import assertions
from suites.assertions.python import PYTHON
from suites.assertions.spec import AssertionSpec, refuse, shorten
from suites.salvage import error_at, with_errors
from suites.values import Keys, names_in, no_slot_in

_LITERAL = frozenset({"javascript", PYTHON, "regex", "is-json", "contains-json"})  # whose values are code or patterns


def _checked(given: Any, handler: ValidatorFunctionWrapHandler) -> AssertionSpec:
    """Check a spec while it is read; the value of one that refers to variables only once these are known."""
    try:
        spec: AssertionSpec = handler(given)
    except ValidationError:
        again: AssertionSpec = with_errors(handler, given, list(_unknown_types(given, ())))
        return again
    own = list(_spec_errors(spec, ()))
    if own:
        raise ValidationError.from_exception_data("assertion", own)
    return spec


def _spec_errors(spec: AssertionSpec, at: Keys) -> Iterator[InitErrorDetails]:
    """What is wrong with an assertion and, in an `assert-set`, with all within it."""
    found = [*_slot_errors(spec), *assertions.problems(spec, is_filled=not names_in(spec.value))]
    if found:
        written = spec.model_dump(by_alias=True, exclude_defaults=True)
        yield from (error_at(each, written, *at) for each in found)
    for index, part in enumerate(spec.asserts):
        yield from _spec_errors(part, (*at, "assert", index))


def _unknown_types(given: Any, at: Keys) -> Iterator[InitErrorDetails]:
    """The unknown types in what could not be read as an assertion: told beside what keeps it from being read."""
    if not isinstance(given, dict):
        return
    if isinstance(given.get("type"), str):
        try:
            assertions.known_type(given["type"])
        except PydanticCustomError as error:
            yield error_at(error, given, *at)
    members = given.get("assert")
    for index, part in enumerate(members if isinstance(members, list) else ()):
        yield from _unknown_types(part, (*at, "assert", index))


def _slot_errors(spec: AssertionSpec) -> Iterator[PydanticCustomError]:
    try:
        _check_slots(spec)
    except PydanticCustomError as error:
        yield error


def _check_slots(spec: AssertionSpec) -> None:
    """Refuse what looks like a template and would be taken letter by letter; code, patterns and schemas may hold it."""
    piece = "" if spec.type.removeprefix(assertions.NOT) in _LITERAL else no_slot_in(spec.value)
    if piece:
        fix = "write `{{ name }}` of a variable alone, and give the case a variable that holds what is meant"
        refuse(f"`{spec.type}`: {shorten(piece, 60)} is not filled in: values are no templates", fix)


CheckedSpec = Annotated[AssertionSpec, WrapValidator(_checked)]

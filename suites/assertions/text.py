"""Assertions on the text of an answer. Case-blind ones compare case-folded text."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from suites.assertions.patterns import check_pattern, search
from suites.assertions.spec import Assertion, AssertionSpec, Family, Outcome, Output, outcome, refuse, shorten


def as_text(value: Any) -> str:
    """A scalar of YAML or JSON as promptfoo writes it: true, null, 1 for 1.0."""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _equals(output: Output, spec: AssertionSpec) -> Outcome:
    if isinstance(spec.value, dict | list):
        return _equals_json(output, spec.value)
    expected = as_text(spec.value)
    return outcome(output.text == expected, f"equal to {shorten(expected)}", output.text)


def _equals_json(output: Output, expected: Any) -> Outcome:
    try:
        passed = same_json(json.loads(output.text), expected)
    except (ValueError, RecursionError):
        passed = False
    return outcome(passed, f"JSON equal to {shorten(expected)}", output.text)


def same_json(left: Any, right: Any) -> bool:
    """JSON equality: 1 is 1.0, but true is not 1."""
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(same_json(left[key], right[key]) for key in left)
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(same_json, left, right))
    return bool(left == right)


def _iequals(output: Output, spec: AssertionSpec) -> Outcome:
    expected = as_text(spec.value)
    passed = output.text.casefold() == expected.casefold()
    return outcome(passed, f"equal, whatever the case, to {shorten(expected)}", output.text)


def _one(
    found: Callable[[str, str], bool], words: str, fold: bool = False
) -> Callable[[Output, AssertionSpec], Outcome]:
    """An evaluator that looks for one text in the answer."""

    def evaluate(output: Output, spec: AssertionSpec) -> Outcome:
        expected = as_text(spec.value)
        passed = found(_folded(output.text, fold), _folded(expected, fold))
        return outcome(passed, f"{words} {shorten(expected)}", output.text)

    return evaluate


def _many(
    decide: Callable[[list[bool]], bool], words: str, fold: bool = False
) -> Callable[[Output, AssertionSpec], Outcome]:
    """An evaluator that looks for each of several texts; its reason names those that are missing."""

    def evaluate(output: Output, spec: AssertionSpec) -> Outcome:
        expected = [as_text(value) for value in spec.value]
        text = _folded(output.text, fold)
        found = [_folded(value, fold) in text for value in expected]
        missing = [value for value, there in zip(expected, found, strict=True) if not there]
        note = f" (without {shorten(missing)})" if missing else ""
        return outcome(decide(found), f"{words} {shorten(expected)}{note}", output.text)

    return evaluate


def _folded(text: str, fold: bool) -> str:
    return text.casefold() if fold else text


def _regex(output: Output, spec: AssertionSpec) -> Outcome:
    passed = search(str(spec.value), output.text)
    return outcome(passed, f"a match of {shorten(spec.value)}", output.text)


def no_threshold(spec: AssertionSpec) -> None:
    if spec.threshold is not None:
        refuse(f"`{spec.type}` has no threshold", "remove it; `latency` and `cost` have one, and a case as a whole")


def _check_any_value(spec: AssertionSpec) -> None:
    no_threshold(spec)
    if spec.value is None:
        refuse(f"`{spec.type}` needs a value", "add `value:`")


def _check_text(spec: AssertionSpec) -> None:
    _check_any_value(spec)
    if isinstance(spec.value, dict | list):
        refuse(f"`{spec.type}` needs one text", f"write `value: text`, or use `{spec.type}-any` or `-all` for a list")
    if as_text(spec.value) == "":
        refuse(f"`{spec.type}` of an empty text always holds", "write the text that is meant")


def _check_scalar(spec: AssertionSpec) -> None:
    _check_any_value(spec)
    if isinstance(spec.value, dict | list):
        refuse(f"`{spec.type}` needs one text", "write `value: text`, or use `equals` for JSON")


def _check_list(spec: AssertionSpec) -> None:
    no_threshold(spec)
    value = spec.value
    if not isinstance(value, list) or not value:
        refuse(f"`{spec.type}` needs a list of texts", "write `value: [one, another]`")
    if any(isinstance(item, dict | list) or item in (None, "") for item in value):
        refuse(f"every item of `{spec.type}` is a text that is not empty", "write `value: [one, another]`")


def _check_regex(spec: AssertionSpec) -> None:
    no_threshold(spec)
    if not isinstance(spec.value, str):
        refuse("`regex` needs a pattern as text", "write `value: 'pattern'` in quotes")
    check_pattern(spec.value)


def _contains(text: str, part: str) -> bool:
    return part in text


FAMILY: Family = {
    "equals": Assertion(_equals, _check_any_value),
    "iequals": Assertion(_iequals, _check_scalar),
    "contains": Assertion(_one(_contains, "containing"), _check_text),
    "icontains": Assertion(_one(_contains, "containing, whatever the case,", fold=True), _check_text),
    "contains-any": Assertion(_many(any, "containing any of"), _check_list),
    "contains-all": Assertion(_many(all, "containing all of"), _check_list),
    "icontains-any": Assertion(_many(any, "containing, whatever the case, any of", fold=True), _check_list),
    "icontains-all": Assertion(_many(all, "containing, whatever the case, all of", fold=True), _check_list),
    "starts-with": Assertion(_one(str.startswith, "starting with"), _check_text),
    "ends-with": Assertion(_one(str.endswith, "ending with"), _check_text),
    "regex": Assertion(_regex, _check_regex),
}

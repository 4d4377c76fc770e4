"""JSON that means one thing to every reader: no key twice, no NaN, no number that becomes an infinity."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from typing import Any, Literal, NoReturn

HALF = re.compile("[\ud800-\udfff]")  # of a pair, alone: JSON can spell it, UTF-8 and tokenizers cannot
Ambiguity = Literal["repeated", "constant", "range"]  # a key that stands twice, NaN or an infinity, too large a number
_SAID: dict[Ambiguity, str] = {
    "repeated": "duplicate key {!r}",
    "constant": "{} is not JSON",
    "range": "{:.40} is a number out of range",
}


def hooks(refuse: Callable[[Ambiguity, str], NoReturn]) -> dict[str, Any]:
    """Arguments of `json.JSONDecoder`; `refuse` is called with what is ambiguous, as it stands there, and raises."""

    def unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)  # of two equal keys the last
        if len(found) < len(pairs):
            seen: set[str] = set()
            for key, _ in pairs:
                if key in seen:
                    refuse("repeated", key)
                seen.add(key)
        return found

    def finite(digits: str) -> float:
        number = float(digits)
        if math.isinf(number):  # and would be written as one
            refuse("range", digits)
        return number

    def no_constant(word: str) -> NoReturn:
        refuse("constant", word)

    return {"object_pairs_hook": unique_keys, "parse_constant": no_constant, "parse_float": finite}


def _refuse(what: Ambiguity, value: str) -> NoReturn:
    raise ValueError(_SAID[what].format(value))


HOOKS = hooks(_refuse)  # which raise ValueError
STRICT = json.JSONDecoder(**HOOKS)

"""Held-out inputs that stand whole in a longer example, and are too short for passages of 13 words.

All values of the held-out input must stand in the example, and the longest of them must have 5 words or 25 characters.
Only letters and digits count, so neither punctuation nor spaces hide one; under 25 characters it must begin and end
where words of the example do. What more than a tenth of the different inputs on both sides hold, and at least ten of
each, is boilerplate as in `overlap`, and no leak.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from finetune.data.overlap import Key, least_of_boilerplate

LEAST_WORDS = 5
LEAST_CHARACTERS = 25  # letters and digits

_WORD = re.compile(r"\w+")
_ANCHOR = 5  # characters by which a held-out input is looked for: five words have as many


@dataclass(frozen=True, slots=True)
class _Case:
    longest: str
    values: tuple[str, ...]


class Within:
    """Which held-out inputs stand whole in an example. Inputs are folded values, as `input_key` gives them."""

    def __init__(self, heldout: Sequence[Key], examples: Sequence[Key]) -> None:
        self._numbers: dict[_Case, int] = {}
        self._by_anchor: dict[str, list[_Case]] = defaultdict(list)
        for number, key in enumerate(heldout):
            case = _case_of(key)
            if case is not None and case not in self._numbers:
                self._numbers[case] = number
                self._by_anchor[case.longest[:_ANCHOR]].append(case)
        self._held = {key: self._all_of(key) for key in {*heldout, *examples}} if self._numbers else {}
        self._boilerplate = self._frequent(heldout) & self._frequent(examples)

    def first(self, key: Key) -> int | None:
        """The earliest held-out input that stands whole in `key`, one of the inputs given; None where none does."""
        found = self._held.get(key, frozenset()) - self._boilerplate
        return min((self._numbers[case] for case in found), default=None)

    def _all_of(self, key: Key) -> frozenset[_Case]:
        words = _WORD.findall(" ".join(key))
        text = "".join(words)
        borders = {0, *accumulate(map(len, words))}
        found = set()
        for at in range(len(text) - _ANCHOR + 1):
            for case in self._by_anchor.get(text[at : at + _ANCHOR], ()):
                if text.startswith(case.longest, at) and _is_whole(case.longest, at, borders):
                    found.add(case)
        return frozenset(case for case in found if all(value in text for value in case.values))

    def _frequent(self, keys: Sequence[Key]) -> frozenset[_Case]:
        different = set(keys)
        counts = Counter(case for key in different for case in self._held.get(key, ()))
        return frozenset(case for case, count in counts.items() if count >= least_of_boilerplate(len(different)))


def _is_whole(text: str, at: int, borders: set[int]) -> bool:
    return len(text) >= LEAST_CHARACTERS or (at in borders and at + len(text) in borders)


def _case_of(key: Key) -> _Case | None:
    """A held-out input that is long enough to be looked for; None for another."""
    values = [_WORD.findall(value) for value in key]
    longest = max(values, key=lambda words: len("".join(words)), default=[])
    text = "".join(longest)
    if len(longest) < LEAST_WORDS and len(text) < LEAST_CHARACTERS:
        return None
    return _Case(text, tuple("".join(words) for words in values))

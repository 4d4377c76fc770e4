"""Passages that an example shares with a held-out case: any 13 words in a row, but for what is boilerplate.

The rule is GPT-3's (Brown et al. 2020, appendix C): two texts that share 13 words in a row share what they say. Their
exception, too, in a stricter form: a passage is boilerplate (a signature, a form's headings) only where more than a
tenth of the different held-out inputs and more than a tenth of the different training inputs hold it, and at least ten
of each. So what stands in few held-out cases is never taken for boilerplate, however often training examples repeat it.
A passage of which boilerplate covers more than half is no leak by itself: one word before a signature is shared by
chance. Because boilerplate parts what belongs together, and makes inputs look less alike as well as more, inputs are
compared once more without it, by all rules.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence, Set

from finetune.data.likeness import Index, read_all

PASSAGE_WORDS = 13
OWN_WORDS = 7  # of a passage, at least, that no boilerplate covers
BOILERPLATE_SHARE = 0.1
BOILERPLATE_INPUTS = 10  # at least so many held-out inputs, and so many training inputs: GPT-3's number

_WORD = re.compile(r"\w+")
Key = tuple[str, ...]


def least_of_boilerplate(inputs: int) -> int:
    """How many of so many different inputs must hold what is boilerplate on their side."""
    return max(BOILERPLATE_INPUTS, int(BOILERPLATE_SHARE * inputs) + 1)


class Passages:
    """Which held-out input an example shares a passage with. Inputs are folded values, as `input_key` gives them."""

    def __init__(self, heldout: Sequence[Key], examples: Sequence[Key]) -> None:
        self._first: dict[str, int] = {}
        for at, key in enumerate(heldout):
            for passage in _passages(_words(key)):
                self._first.setdefault(passage, at)
        self._boilerplate = self._frequent(heldout) & self._frequent(examples)
        self._rest = _Rest(heldout, examples, self._boilerplate) if self._boilerplate else None

    def shared(self, key: Key) -> int | None:
        """The index of the earliest held-out input with 13 words in a row of `key`; None where there is none."""
        words = _words(key)
        covered = _covered(words, self._boilerplate)
        found = [
            self._first[one]
            for at, one in enumerate(_passages(words))
            if one in self._first and _own_words(covered, at) >= OWN_WORDS
        ]
        if self._rest and (other := self._rest.shared(key)) is not None:
            found.append(other)
        return min(found, default=None)

    def alike_without_boilerplate(self, key: Key) -> int | None:
        """The earliest held-out input that `key` equals, else resembles, once boilerplate is taken out of both."""
        return self._rest.alike(key) if self._rest else None

    def _frequent(self, keys: Sequence[Key]) -> set[str]:
        """Passages of held-out inputs that so many of the different `keys` hold that they may be boilerplate."""
        different = set(keys)
        least = least_of_boilerplate(len(different))
        if len(different) < least:
            return set()
        counts = Counter(one for key in different for one in set(_passages(_words(key))) if one in self._first)
        return {one for one, count in counts.items() if count >= least}


class _Rest:
    """What inputs say beside boilerplate, and which held-out one an example is like in that."""

    def __init__(self, heldout: Sequence[Key], examples: Sequence[Key], boilerplate: Set[str]) -> None:
        rests = {key: rest for key in dict.fromkeys([*heldout, *examples]) if (rest := _without(key, boilerplate))}
        self._places = {key: at for at, key in enumerate(rests)}
        self._rests = [" ".join(rest) for rest in rests.values()]
        self._index = Index(read_all([(rest,) for rest in self._rests]))
        self._number: dict[int, int] = {}  # place → held-out case
        self._first: dict[str, int] = {}  # a rest, or a passage of one → held-out case
        for number, key in enumerate(heldout):
            at = self._places.get(key)
            if at is not None and at not in self._number:
                self._add(at, number)

    def _add(self, at: int, number: int) -> None:
        self._number[at] = number
        self._index.add(at)
        for one in (self._rests[at], *_passages(self._rests[at].split())):
            self._first.setdefault(one, number)

    def shared(self, key: Key) -> int | None:
        at = self._places.get(key)
        passages = () if at is None else _passages(self._rests[at].split())
        return min((self._first[one] for one in passages if one in self._first), default=None)

    def alike(self, key: Key) -> int | None:
        at = self._places.get(key)
        if at is None:
            return None
        equal = self._first.get(self._rests[at])
        near = (self._number[other] for other in self._index.matches(at))
        return equal if equal is not None else min(near, default=None)


def _words(key: Key) -> list[str]:
    return _WORD.findall(" ".join(key))


def _passages(words: Sequence[str]) -> Iterator[str]:
    return (" ".join(words[at : at + PASSAGE_WORDS]) for at in range(len(words) - PASSAGE_WORDS + 1))


def _covered(words: Sequence[str], boilerplate: Set[str]) -> frozenset[int]:
    """Places of the words that some boilerplate covers."""
    if not boilerplate:
        return frozenset()
    starts = (at for at, one in enumerate(_passages(words)) if one in boilerplate)
    return frozenset(at + offset for at in starts for offset in range(PASSAGE_WORDS))


def _own_words(covered: Set[int], at: int) -> int:
    return (
        PASSAGE_WORDS - sum(place in covered for place in range(at, at + PASSAGE_WORDS)) if covered else PASSAGE_WORDS
    )


def _without(key: Key, boilerplate: Set[str]) -> list[str]:
    """The words of `key` that no boilerplate covers."""
    words = _words(key)
    covered = _covered(words, boilerplate)
    return [word for at, word in enumerate(words) if at not in covered]

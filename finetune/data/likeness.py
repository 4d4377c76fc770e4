"""Which inputs are the same, or nearly: by the values of their variables, never by the template around them.

Near duplicates are found by shingles (Broder 1997) with exact Jaccard similarities, and in less than quadratic time by
prefix filtering (Bayardo, Ma and Srikant 2007): two sets of similarity t must share one of the rarest (1 - t) of
their members. Nothing is estimated, as MinHash would: every pair at or above the threshold is found, and no other.
"""

from __future__ import annotations

import json
import math
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from finetune.data.confusables import as_read

SHORT_WORDS = 50  # below it texts are compared by characters, from it on by words
SHINGLE = 5  # characters or words
SHORT_SIMILARITY = 0.6  # Jaccard of character shingles
LONG_SIMILARITY = 0.8  # Jaccard of word shingles

_WORD = re.compile(r"\w+")
_AT_DEFAULT = "\x1f"  # white space that no folded value holds: it is no word, and no letter of what is compared


def folded(text: str) -> str:
    """`text` without what does not make it another text to a reader.

    That is Unicode's compatibility forms, case, accents, unseen characters, letters that look like Latin ones, and runs
    of white space and underscores.
    """
    return " ".join(unicodedata.normalize("NFKC", as_read(text)).replace("_", " ").split())


def input_key(variables: Mapping[str, Any], defaults: Mapping[str, Any] | None = None) -> tuple[str, ...]:
    """The folded values of variables, by name: equal for equal inputs. Values that are not text count as JSON.

    A variable of `defaults` may be left out, which is the same input as one that gives its default.
    """
    usual = {name: folded(_as_text(value)) for name, value in (defaults or {}).items()}
    given = {**usual, **{name: folded(_as_text(value)) for name, value in variables.items()}}
    return tuple(_AT_DEFAULT if value == usual.get(name) else value for name, value in sorted(given.items()))


def unspaced(key: tuple[str, ...]) -> tuple[str, ...]:
    """A key without spaces: what is left of a text whose spaces were taken out, or put in."""
    return tuple(value.replace(" ", "") for value in key)


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True, ensure_ascii=False, default=str)


@dataclass(frozen=True, slots=True)
class HeldOut:
    """A held-out case: its variables, and the suite and the id by which a report names it."""

    vars: Mapping[str, Any]
    suite: str
    case: str

    def __str__(self) -> str:
        return f"{self.suite} case {self.case}"


@dataclass(frozen=True, slots=True)
class Input:
    """One input in the shapes in which it is compared. What no comparison can need is left empty."""

    words: int
    tokens: frozenset[str]
    characters: frozenset[str]
    phrases: frozenset[str]

    @property
    def short(self) -> bool:
        return self.words < SHORT_WORDS


def _read(key: tuple[str, ...]) -> Input:
    text = " ".join(value for value in key if value != _AT_DEFAULT)  # a default says nothing, however long it is
    words = text.split()
    return Input(
        words=len(words),
        tokens=frozenset(_WORD.findall(text)) if len(words) < SHORT_WORDS else frozenset(),
        characters=frozenset(text[at : at + SHINGLE] for at in range(max(1, len(text) - SHINGLE + 1))),
        phrases=frozenset(" ".join(words[at : at + SHINGLE]) for at in range(len(words) - SHINGLE + 1)),
    )


def read_all(keys: Sequence[tuple[str, ...]]) -> list[Input]:
    """Inputs in order; those too long to resemble any short one by characters do not hold theirs."""
    inputs = [_read(key) if len(" ".join(key).split()) < SHORT_WORDS else None for key in keys]
    longest = max((len(one.characters) for one in inputs if one), default=0) / SHORT_SIMILARITY
    return [one or _without(_read(key), longest) for one, key in zip(inputs, keys, strict=True)]


def _without(one: Input, longest: float) -> Input:
    return one if len(one.characters) <= longest else replace(one, characters=frozenset())


def similar(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two inputs are near duplicates.

    Where either has under 50 words: character 5-shingles of Jaccard similarity 0.6 or more, or the same set of words.
    Else word 5-shingles of 0.8 or more.
    """
    return _similar(_read(input_key(one)), _read(input_key(other)))


def _similar(one: Input, other: Input) -> bool:
    if not one.short and not other.short:
        return _share(one.phrases, other.phrases, LONG_SIMILARITY)
    same_words = bool(one.tokens) and one.tokens == other.tokens
    return same_words or _share(one.characters, other.characters, SHORT_SIMILARITY)


def _share(one: frozenset[str], other: frozenset[str], least: float) -> bool:
    """Whether the Jaccard similarity of two sets is `least` or more; sets of too different sizes are not compared."""
    sizes = len(one), len(other)
    if min(sizes) < least * max(sizes) - 1e-9:
        return False
    shared = len(one & other)
    return shared / (sum(sizes) - shared) >= least


class Index:
    """Finds the inputs that one resembles, among those added before."""

    def __init__(self, inputs: Sequence[Input]) -> None:
        self._inputs = inputs
        self._parts = (
            _Postings([one.characters for one in inputs], SHORT_SIMILARITY),
            _Postings([frozenset() if one.short else one.phrases for one in inputs], LONG_SIMILARITY),
        )
        self._tokens: dict[frozenset[str], list[int]] = defaultdict(list)

    def add(self, at: int) -> None:
        for part in self._parts:
            part.add(at)
        if self._inputs[at].tokens:
            self._tokens[self._inputs[at].tokens].append(at)

    def matches(self, at: int, since: int = 0) -> list[int]:
        """All added inputs from `since` on that resemble the one `at`, ascending."""
        one = self._inputs[at]
        near = set(self._tokens.get(one.tokens, ())).union(*(part.candidates(at) for part in self._parts))
        return sorted(other for other in near if other >= since and _similar(one, self._inputs[other]))


class _Postings:
    """Sets by the rarest of their members: those of which similar sets share at least one.

    A set is a candidate only where what follows the first member that both share could still make them similar
    (positional filtering, Xiao et al. 2008): most pairs first share a frequent member, late.
    """

    def __init__(self, sets: Sequence[frozenset[str]], similarity: float) -> None:
        self._sets = sets
        self._similarity = similarity
        self._share = similarity / (1 + similarity)  # of the sizes together: what similar sets have in common
        counts = Counter(member for one in sets for member in one)
        self._rank = {member: rank for rank, (_, member) in enumerate(sorted((n, m) for m, n in counts.items()))}
        self._places: dict[int, list[tuple[int, int]]] = defaultdict(list)  # rank → set, members that follow there
        self._chosen: dict[int, list[int]] = {}

    def add(self, at: int) -> None:
        size = len(self._sets[at])
        for place, rank in enumerate(self._rarest(at)):
            self._places[rank].append((at, size - place))

    def candidates(self, at: int) -> list[int]:
        """Added sets that may be similar to the one `at`."""
        size = len(self._sets[at])
        first: dict[int, int] = {}  # set → members that both may share
        for place, rank in enumerate(self._rarest(at)):
            left = size - place
            for other, follow in self._places.get(rank, ()):
                if other not in first:
                    first[other] = min(left, follow)
        sets, share = self._sets, self._share
        return [other for other, most in first.items() if most >= share * (size + len(sets[other])) - 1e-9]

    def _rarest(self, at: int) -> list[int]:
        """All but `similarity` of the members, by rank; kept, as an input is looked for before it is added."""
        if at not in self._chosen:
            ranks = sorted(map(self._rank.__getitem__, self._sets[at]))
            spare = len(ranks) - math.ceil(self._similarity * len(ranks) - 1e-9) + 1
            self._chosen[at] = ranks[:spare] if ranks else []
        return self._chosen[at]

"""Examples for the prompt itself, chosen from the training examples without any model.

Texts are compared as bags of words and of character n-grams of 3 to 4 letters within words, weighed by TF-IDF (Salton and
Buckley 1988, with sublinear counts), by their cosine.
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from heapq import nsmallest
from itertools import islice

_WORD = re.compile(r"\w+")
_GRAMS = (3, 4)
_COMMON = 0.5  # of the texts: what stands in more of them tells none from another
_FEW = 8  # texts, of which none is common
_DIGITS = 9  # of a sum: texts that are alike in the same way must not differ by its last bits


class Likeness:
    """The similarities of some texts to each other, from 0 to 1."""

    def __init__(self, texts: Sequence[str]) -> None:
        counts = [Counter(_terms(text)) for text in texts]
        seen = Counter(term for one in counts for term in one)
        most = len(texts) if len(texts) <= _FEW else _COMMON * len(texts)
        weights = {term: math.log((1 + len(texts)) / (1 + n)) + 1 for term, n in seen.items() if 1 < n <= most}
        self._vectors = [_unit({t: (1 + math.log(n)) * weights[t] for t, n in one.items() if t in weights})
                         for one in counts]  # fmt: skip
        self._places: defaultdict[str, list[tuple[int, float]]] = defaultdict(list)
        for at, vector in enumerate(self._vectors):
            for term, weight in vector.items():
                self._places[term].append((at, weight))

    def to(self, at: int) -> dict[int, float]:
        """The similarity of the text `at` to every other that shares anything with it."""
        found: defaultdict[int, float] = defaultdict(float)
        for term, weight in self._vectors[at].items():
            for other, its in self._places[term]:
                found[other] += weight * its
        found.pop(at, None)
        return found

    def centralities(self, among: Sequence[int]) -> dict[int, float]:
        """Of each of these texts the sum of its similarities to the others: its cosine with the sum of their vectors.

        That takes each term once, where a comparison of all pairs takes fourfold the time for twice the texts.
        """
        total: defaultdict[str, float] = defaultdict(float)
        for at in among:
            for term, weight in self._vectors[at].items():
                total[term] += weight
        own = {at: self._vectors[at] for at in among}
        return {at: math.fsum(w * (total[term] - w) for term, w in vector.items()) for at, vector in own.items()}


def _terms(text: str) -> Iterator[str]:
    for word in _WORD.findall(text.casefold()):
        yield word
        framed = f"<{word}>"
        yield from (
            framed[at : at + size] for size in _GRAMS for at in range(len(framed) - size + 1) if len(word) >= size
        )


def _unit(vector: dict[str, float]) -> dict[str, float]:
    length = math.sqrt(math.fsum(value * value for value in vector.values()))
    return {term: value / length for term, value in vector.items()} if length else {}


def most_similar(likeness: Likeness, at: int, allowed: frozenset[int], count: int) -> tuple[int, ...]:
    """The `count` texts of `allowed` that are most like the one `at`, the most similar last, next to the question."""
    found = likeness.to(at)
    ranked = nsmallest(count, allowed - {at}, key=lambda other: (-found.get(other, 0.0), other))
    return tuple(reversed(ranked))


def covering(likeness: Likeness, answers: Sequence[str], allowed: frozenset[int], count: int) -> tuple[int, ...]:
    """`count` texts of `allowed` that stand for all of them, in the order in which they were chosen.

    Answers are dealt out, the commonest first, one of each before a second of any; of an answer's texts first the one
    most like its others, then whichever is least like those that were chosen (the k-center heuristic of Gonzalez 1985).
    Fewer texts are the first of more: what is chosen does not depend on how many are still to come.
    """
    members: defaultdict[str, list[int]] = defaultdict(list)
    times = Counter(answers[at].strip() for at in allowed)
    are_labels = 2 * sum(n for n in times.values() if n > 1) >= len(allowed)
    for at in sorted(allowed):
        members[answers[at].strip() if are_labels else ""].append(at)
    order = sorted(members, key=lambda answer: (-len(members[answer]), answer))
    chosen: dict[int, None] = {}  # in order
    nearest: dict[int, float] = {}  # of each text, to those that were chosen
    for answer in _dealt(order, members, min(count, len(allowed))):
        left = [at for at in members[answer] if at not in chosen]
        is_first = len(left) == len(members[answer])
        one = _most_central(likeness, left) if is_first else min(left, key=lambda at: (nearest.get(at, 0.0), at))
        chosen[one] = None
        for other, value in likeness.to(one).items():
            nearest[other] = max(value, nearest.get(other, 0.0))
    return tuple(chosen)


def _dealt(order: Sequence[str], members: Mapping[str, Sequence[int]], count: int) -> Iterator[str]:
    """The answers whose turn it is, round after round, none more often than it has texts."""
    turns = ((turn, answer) for turn in range(count) for answer in order if turn < len(members[answer]))
    yield from (answer for _, answer in islice(turns, count))


def _most_central(likeness: Likeness, texts: Sequence[int]) -> int:
    found = likeness.centralities(texts)
    return max(texts, key=lambda at: (round(found[at], _DIGITS), -at))

"""Training examples: read, cleaned, kept apart from the held-out cases, and split.

Two inputs are the same when the values of their variables are; the template around them never counts. Near
duplicates are found by shingles (Broder 1997) with exact Jaccard similarities, and in less than quadratic time by
prefix filtering (Bayardo, Ma and Srikant 2007): two sets of similarity t must share one of the rarest (1 - t) of
their members.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from prompts.errors import BadFile, BadInput, Fault

SHORT_WORDS = 50  # below it texts are compared by characters, from it on by words
SHINGLE = 5  # characters or words
SHORT_SIMILARITY = 0.6  # Jaccard of character shingles
LONG_SIMILARITY = 0.8  # Jaccard of word shingles
DEV_AT_LEAST = 8
DEV_AT_MOST = 100

_WORD = re.compile(r"\w+")
_FORM = '{"vars": {"name": "value"}, "expected": "answer"}'

Reason = Literal["duplicate", "near-duplicate", "held-out", "held-out-near"]


@dataclass(frozen=True, slots=True)
class Example:
    """One training example: the prompt's variables and the answer that the model should learn to give."""

    vars: Mapping[str, Any]
    expected: str


@dataclass(frozen=True, slots=True)
class Drop:
    """One example left out.

    `index` counts from 0 in the examples given; `matched` is the index of what it repeats, in the held-out cases for
    the reasons `held-out…`, else in the examples.
    """

    index: int
    reason: Reason
    matched: int


@dataclass(frozen=True, slots=True)
class Conflict:
    """Examples of one and the same input that disagree on the answer; none of them is kept."""

    indexes: tuple[int, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class CleanReport:
    """What may be trained on, and what was left out and why. Every example is in exactly one of the three."""

    kept: tuple[Example, ...]
    drops: tuple[Drop, ...]
    conflicts: tuple[Conflict, ...]


# ------------------------------------------------------------------------------------------------ reading


def parse_examples(lines: Iterable[str], path: str) -> list[Example]:
    """Examples of a JSONL file, one object a line; blank lines are skipped. `path` names the file in errors.

    Raises BadFile with the faults of all lines, also where the file holds no example.
    """
    examples: list[Example] = []
    faults: list[Fault] = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        found = _parse_line(line, path, number)
        if isinstance(found, Example):
            examples.append(found)
        else:
            faults += found
    if not examples and not faults:
        faults = [Fault(path, 0, "no examples", f"add one a line: {_FORM}")]
    if faults:
        raise BadFile(faults)
    return examples


def _parse_line(line: str, path: str, number: int) -> Example | list[Fault]:
    try:
        value = json.loads(line)
    except ValueError as error:
        return [Fault(path, number, f"not JSON: {error}", f"one object a line: {_FORM}")]
    except RecursionError:
        return [Fault(path, number, "JSON nested too deeply", f"one object a line: {_FORM}")]
    faults = [Fault(path, number, message, fix) for message, fix in _faults_of(value)]
    return faults or Example(vars=value["vars"], expected=value["expected"])


def _faults_of(value: Any) -> Iterator[tuple[str, str]]:
    if not isinstance(value, dict):
        yield f"an example is an object, not {_type(value)}", f"write {_FORM}"
        return
    for key in sorted(value.keys() - {"vars", "expected"}):
        yield f"unknown key {key!r}", "an example has `vars` and `expected` only"
    for key in ("vars", "expected"):
        if key not in value:
            yield f"missing key {key!r}", f"write {_FORM}"
    if not isinstance(value.get("vars", {}), dict):
        yield f"`vars` is an object, not {_type(value['vars'])}", 'name the variables: {"ticket": "…"}'
    if not isinstance(value.get("expected", ""), str):
        yield f"`expected` is a text, not {_type(value['expected'])}", "put the answer in quotes"
    elif not value.get("expected", "-").strip():
        yield "`expected` is empty", "give the answer that the model should learn, or delete the line"


def _type(value: Any) -> str:
    if value is None:
        return "null"
    names = {bool: "a boolean", int: "a number", float: "a number", str: "a text", list: "a list", dict: "an object"}
    return names.get(type(value), type(value).__name__)


def digest(examples: Sequence[Example]) -> str:
    """`sha256:…` of the examples and their order; independent of how their file spells them."""
    rows = [[dict(example.vars), example.expected] for example in examples]
    text = json.dumps(rows, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return "sha256:" + hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


# ------------------------------------------------------------------------------------------------ likeness


def folded(text: str) -> str:
    """`text` without what does not make it another text: Unicode NFKC, case and runs of white space."""
    once = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(unicodedata.normalize("NFKC", once).split())


def input_key(variables: Mapping[str, Any]) -> tuple[str, ...]:
    """The folded values of variables, by name: equal for equal inputs. Values that are not text count as JSON."""
    return tuple(folded(_as_text(variables[name])) for name in sorted(variables))


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True, ensure_ascii=False, default=str)


@dataclass(frozen=True, slots=True)
class _Input:
    """One input in the shapes in which it is compared. What no comparison can need is left empty."""

    words: int
    tokens: frozenset[str]
    characters: frozenset[str]
    phrases: frozenset[str]

    @property
    def short(self) -> bool:
        return self.words < SHORT_WORDS


def _read(key: tuple[str, ...]) -> _Input:
    text = " ".join(key)
    words = text.split()
    return _Input(
        words=len(words),
        tokens=frozenset(_WORD.findall(text)) if len(words) < SHORT_WORDS else frozenset(),
        characters=frozenset(text[at : at + SHINGLE] for at in range(max(1, len(text) - SHINGLE + 1))),
        phrases=frozenset(" ".join(words[at : at + SHINGLE]) for at in range(len(words) - SHINGLE + 1)),
    )


def _read_all(keys: Sequence[tuple[str, ...]]) -> list[_Input]:
    """Inputs in order; those too long to resemble any short one by characters do not hold theirs."""
    inputs = [_read(key) if len(" ".join(key).split()) < SHORT_WORDS else None for key in keys]
    longest = max((len(one.characters) for one in inputs if one), default=0) / SHORT_SIMILARITY
    return [one or _without(_read(key), longest) for one, key in zip(inputs, keys, strict=True)]


def _without(one: _Input, longest: float) -> _Input:
    return one if len(one.characters) <= longest else replace(one, characters=frozenset())


def similar(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two inputs are near duplicates.

    Where either has under 50 words: character 5-shingles of Jaccard similarity 0.6 or more, or the same set of words.
    Else word 5-shingles of 0.8 or more.
    """
    return _similar(_read(input_key(one)), _read(input_key(other)))


def _similar(one: _Input, other: _Input) -> bool:
    if not one.short and not other.short:
        return _jaccard(one.phrases, other.phrases) >= LONG_SIMILARITY
    same_words = bool(one.tokens) and one.tokens == other.tokens
    return same_words or _jaccard(one.characters, other.characters) >= SHORT_SIMILARITY


def _jaccard(one: frozenset[str], other: frozenset[str]) -> float:
    shared = len(one & other)
    return shared / (len(one) + len(other) - shared)


class _Index:
    """Finds the earliest input that one resembles, among those added before."""

    def __init__(self, inputs: Sequence[_Input]) -> None:
        self._inputs = inputs
        self._rarest = [_rarest(inputs, part, share) for part, share in _PARTS]
        self._postings: list[dict[str, list[int]]] = [defaultdict(list) for _ in _PARTS]
        self._tokens: dict[frozenset[str], list[int]] = defaultdict(list)

    def add(self, at: int) -> None:
        one = self._inputs[at]
        for postings, rarest in zip(self._postings, self._rarest, strict=True):
            for shingle in rarest(one):
                postings[shingle].append(at)
        if one.tokens:
            self._tokens[one.tokens].append(at)

    def matches(self, at: int) -> list[int]:
        """All added inputs that resemble the one `at`, ascending."""
        one = self._inputs[at]
        near = set(self._tokens.get(one.tokens, ()))
        for postings, rarest in zip(self._postings, self._rarest, strict=True):
            for shingle in rarest(one):
                near.update(postings.get(shingle, ()))
        return sorted(other for other in near if _similar(one, self._inputs[other]))


def _characters(one: _Input) -> frozenset[str]:
    return one.characters


def _phrases(one: _Input) -> frozenset[str]:
    return frozenset() if one.short else one.phrases


_Part = Callable[[_Input], frozenset[str]]
_PARTS: tuple[tuple[_Part, float], ...] = ((_characters, SHORT_SIMILARITY), (_phrases, LONG_SIMILARITY))


def _rarest(inputs: Sequence[_Input], part: _Part, similarity: float) -> Callable[[_Input], list[str]]:
    """The shingles of which similar inputs share at least one: all but `similarity` of them, rarest first."""
    counts = Counter(shingle for one in inputs for shingle in part(one))

    def choose(one: _Input) -> list[str]:
        shingles = part(one)
        spare = len(shingles) - math.ceil(similarity * len(shingles) - 1e-9) + 1
        return sorted(shingles, key=lambda shingle: (counts[shingle], shingle))[:spare] if shingles else []

    return choose


# ------------------------------------------------------------------------------------------------ cleaning


def clean(examples: Sequence[Example], heldout: Sequence[Mapping[str, Any]]) -> CleanReport:
    """Leave out what repeats a held-out case or an earlier example, and inputs with contradicting answers.

    `heldout` are the variables of the held-out cases. An example that resembles one is dropped whatever it says;
    among examples the earliest stays.
    """
    keys = [input_key(variables) for variables in heldout] + [input_key(example.vars) for example in examples]
    conflicts = _conflicts(examples, keys[len(heldout) :])
    contradicting = {index for conflict in conflicts for index in conflict.indexes}
    seen = _Seen(keys)
    for at in range(len(heldout)):
        seen.add(at)
    kept: list[Example] = []
    drops: list[Drop] = []
    for number, example in enumerate(examples):
        at = len(heldout) + number
        if number in contradicting:
            continue
        matched, exact = seen.match(at)
        if matched is None:
            seen.add(at)
            kept.append(example)
        else:
            drops.append(_drop(number, matched, exact, len(heldout)))
    return CleanReport(tuple(kept), tuple(drops), tuple(conflicts))


class _Seen:
    """The inputs met so far, and which of them a new one repeats."""

    def __init__(self, keys: Sequence[tuple[str, ...]]) -> None:
        self._keys = keys
        self._index = _Index(_read_all(keys))
        self._first: dict[tuple[str, ...], int] = {}

    def add(self, at: int) -> None:
        self._first.setdefault(self._keys[at], at)
        self._index.add(at)

    def match(self, at: int) -> tuple[int | None, bool]:
        """The earliest input that the one `at` equals, else resembles; and whether it equals it."""
        if self._keys[at] in self._first:
            return self._first[self._keys[at]], True
        return next(iter(self._index.matches(at)), None), False


def _drop(index: int, matched: int, exact: bool, heldout_count: int) -> Drop:
    if matched < heldout_count:
        return Drop(index, "held-out" if exact else "held-out-near", matched)
    return Drop(index, "duplicate" if exact else "near-duplicate", matched - heldout_count)


def _conflicts(examples: Sequence[Example], keys: Sequence[tuple[str, ...]]) -> list[Conflict]:
    same_input: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for index, key in enumerate(keys):
        same_input[key].append(index)
    found = []
    for indexes in same_input.values():
        outputs = tuple(dict.fromkeys(examples[index].expected.strip() for index in indexes))
        if len(outputs) > 1:
            found.append(Conflict(tuple(indexes), outputs))
    return found


# ------------------------------------------------------------------------------------------------ splitting


def split(
    examples: Sequence[Example], dev_share: float = 0.15, *, seed: int
) -> tuple[tuple[Example, ...], tuple[Example, ...]]:
    """Carve a dev set off: `(train, dev)`, each in the order given.

    Dev has `dev_share` of the examples, at least 8 and at most 100, but never more than half; each answer has its
    share of it. Near duplicates stay on one side, so dev can miss its size by part of a cluster. The choice depends
    on the seed and on what the examples say, not on their order.

    Raises BadInput for a share outside 0 … 1 or fewer than two examples.
    """
    if not 0 < dev_share < 1:
        raise BadInput(f"dev_share is {dev_share}: it must lie between 0 and 1", param="dev_share")
    if len(examples) < 2:
        raise BadInput(f"{len(examples)} examples cannot be split in two: give at least 2", param="examples")
    wanted = min(max(DEV_AT_LEAST, round(dev_share * len(examples))), DEV_AT_MOST, len(examples) // 2)
    clusters = sorted(_clusters(examples), key=lambda cluster: _lot(examples, cluster, seed))
    dev = _choose(_strata(examples, clusters), wanted, len(examples))
    train = tuple(example for at, example in enumerate(examples) if at not in dev)
    return train, tuple(example for at, example in enumerate(examples) if at in dev)


def _clusters(examples: Sequence[Example]) -> list[list[int]]:
    """Indexes of examples that resemble each other, directly or through others."""
    inputs = _read_all([input_key(example.vars) for example in examples])
    index = _Index(inputs)
    head = list(range(len(examples)))

    def root(at: int) -> int:
        while head[at] != at:
            head[at] = at = head[head[at]]
        return at

    for at in range(len(examples)):
        for other in index.matches(at):
            head[root(at)] = root(other)
        index.add(at)
    members: dict[int, list[int]] = defaultdict(list)
    for at in range(len(examples)):
        members[root(at)].append(at)
    return list(members.values())


def _lot(examples: Sequence[Example], cluster: Sequence[int], seed: int) -> str:
    return min(hashlib.sha256(f"{seed}:{digest([examples[at]])}".encode()).hexdigest() for at in cluster)


def _strata(examples: Sequence[Example], clusters: Sequence[list[int]]) -> list[list[list[int]]]:
    """Clusters by their answer; answers that occur once share a stratum."""
    times = Counter(example.expected.strip() for example in examples)
    strata: dict[str, list[list[int]]] = defaultdict(list)
    for cluster in clusters:
        answer = examples[min(cluster)].expected.strip()
        strata[f"={answer}" if times[answer] > 1 else ""].append(cluster)
    return [strata[answer] for answer in sorted(strata)]


def _choose(strata: Sequence[list[list[int]]], wanted: int, total: int) -> set[int]:
    quotas = _quotas([sum(map(len, clusters)) for clusters in strata], wanted, total)
    dev: set[int] = set()
    for clusters, quota in zip(strata, quotas, strict=True):
        room = quota
        for cluster in clusters:
            if len(cluster) <= room:
                dev.update(cluster)
                room -= len(cluster)
    for cluster in (cluster for clusters in strata for cluster in clusters):  # what clusters too large left open
        if len(cluster) <= wanted - len(dev) and cluster[0] not in dev:
            dev.update(cluster)
    return dev


def _quotas(sizes: Sequence[int], wanted: int, total: int) -> list[int]:
    """`wanted` in proportion to `sizes`, by largest remainder; ties go to the earlier."""
    quotas = [wanted * size // total for size in sizes]
    remainders = sorted(range(len(sizes)), key=lambda at: (-(wanted * sizes[at] % total), at))
    for at in remainders[: wanted - sum(quotas)]:
        quotas[at] += 1
    return quotas

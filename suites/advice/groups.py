"""Failures grouped by what they have in common, each group with how surely it is one.

A group is a property of examples (not of answers, confusions aside). Its p-value is Fisher's exact test, one-sided:
the chance of so many failures within it were failures dealt out blindly. All groups that are tested are adjusted
together by Holm's method.
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from suites.advice.answers import Asked
from suites.advice.forms import MENDS, form_of
from suites.statistics import holm

Kind = Literal["label", "confusion", "variable", "length", "word", "form"]
ALPHA = 0.05
MOST_VALUES = 20  # different ones of a variable, beyond which it is no enumeration
FEWEST = 3  # examples of a group, below which nothing can be shown
MOST_GROUPS = 12
SHOWN = 3
_SHOWN_CHARACTERS = 160
_WORD = re.compile(r"[^\W\d_]{2,}|\d+")


@dataclass(frozen=True, slots=True)
class Group:
    """Failures that share something.

    `failures` of the group's `count` examples failed, which is `share` of all failures; `lift` is its failure rate over
    that of all examples. `p` is adjusted for all groups tested; None for forms, which are a count and no comparison.
    """

    kind: Kind
    name: str
    count: int
    failures: int
    share: float
    lift: float
    p: float | None
    examples: tuple[dict[str, Any], ...]
    mend: str = ""


def group_failures(asked: Sequence[Asked], labels: Sequence[str] = ()) -> tuple[Group, ...]:
    """Forms first, by their size; then the groups whose failures are too many for chance, the surest first.

    Of words that stand in the same examples the longest is kept. Errored questions are left out: they say nothing about
    the prompt.
    """
    answered = [one for one in asked if not one.error]
    failed = frozenset(one.row for one in answered if not one.is_right)
    if not failed:
        return ()
    tested = [_group(*found, answered, failed) for found in _candidates(answered, labels)]
    tested += list(_confusions(answered, labels, len(failed)))
    adjusted = holm([one.p or 0.0 for one in tested])
    shown = [replace(one, p=p) for one, p in zip(tested, adjusted, strict=True) if p <= ALPHA and one.lift > 1]
    shown.sort(key=lambda one: (one.p or 0.0, -one.failures, one.kind, one.name))
    return (*_forms(answered, labels, len(failed)), *_distinct(shown)[:MOST_GROUPS])


def fisher_p(failures: int, count: int, all_failures: int, total: int) -> float:
    """P(at least so many `failures` among `count` of `total` examples, of which `all_failures` failed), by the
    hypergeometric distribution (Fisher 1935)."""
    most = min(count, all_failures)
    ways = [_ways(all_failures, hits) + _ways(total - all_failures, count - hits) for hits in range(failures, most + 1)
            if count - hits <= total - all_failures]  # fmt: skip
    return min(1.0, math.fsum(math.exp(one - _ways(total, count)) for one in ways))


def _ways(total: int, chosen: int) -> float:
    """The logarithm of the ways to choose."""
    return math.lgamma(total + 1) - math.lgamma(chosen + 1) - math.lgamma(total - chosen + 1)


# ------------------------------------------------------------------------------------------------ candidates

Candidate = tuple[Kind, str, frozenset[int]]


def _candidates(asked: Sequence[Asked], labels: Sequence[str]) -> Iterator[Candidate]:
    if labels:
        yield from _split(asked, "label", lambda one: [one.expected.strip()])
    for name in sorted({name for one in asked for name in one.vars}):
        yield from _of_variable(asked, name)
    yield from _lengths(asked)
    yield from _split(asked, "word", lambda one: set(_WORD.findall(one.input.casefold())))


def _split(asked: Sequence[Asked], kind: Kind, keys: Callable[[Asked], Iterable[str]]) -> Iterator[Candidate]:
    """The examples of each key, where there are enough of them, and enough others."""
    rows: defaultdict[str, set[int]] = defaultdict(set)
    for one in asked:
        for key in keys(one):
            rows[key].add(one.row)
    for key in sorted(rows):
        if FEWEST <= len(rows[key]) <= len(asked) - FEWEST:
            yield kind, key, frozenset(rows[key])


def _of_variable(asked: Sequence[Asked], name: str) -> Iterator[Candidate]:
    """A variable of few different values, most of which come again."""
    values = Counter(str(one.vars.get(name)) for one in asked)
    if 1 < len(values) <= min(MOST_VALUES, len(asked) // 2):
        yield from _split(asked, "variable", lambda one: [f"{name} = {one.vars.get(name)}"])


def _lengths(asked: Sequence[Asked]) -> Iterator[Candidate]:
    """The shortest and the longest quarter of the inputs, by characters."""
    if len(asked) < 4 * FEWEST:
        return
    order = sorted(asked, key=lambda one: (len(one.input), one.row))
    quarter = len(order) // 4
    parts = {"shortest": order[:quarter], "longest": order[-quarter:]}
    if len(parts["shortest"][-1].input) >= len(parts["longest"][0].input):
        return  # all are of about one length
    for name, part in parts.items():
        ends = len(part[0].input), len(part[-1].input)
        yield (
            "length",
            f"{name} quarter of inputs ({ends[0]} to {ends[1]} characters)",
            frozenset(o.row for o in part),
        )


# ------------------------------------------------------------------------------------------------ groups


def _group(kind: Kind, name: str, rows: frozenset[int], asked: Sequence[Asked], failed: frozenset[int]) -> Group:
    within = [one for one in asked if one.row in rows]
    hits = [one for one in within if one.row in failed]
    lift = (len(hits) / len(within)) / (len(failed) / len(asked))
    p = fisher_p(len(hits), len(within), len(failed), len(asked))
    return Group(kind, name, len(within), len(hits), len(hits) / len(failed), lift, p, examples_of(hits))


def _confusions(asked: Sequence[Asked], labels: Sequence[str], failures: int) -> Iterator[Group]:
    """One label answered for another: tested against how often that answer is given wrongly for all the others."""
    known = set(labels)
    pairs: defaultdict[tuple[str, str], list[Asked]] = defaultdict(list)
    for one in asked:
        if not one.is_right and one.answer.strip() in known:
            pairs[one.expected.strip(), one.answer.strip()].append(one)
    wrongly = Counter(answer for (_, answer), ones in pairs.items() for _ in ones)
    wanted = Counter(one.expected.strip() for one in asked)
    for (expected, answer), ones in sorted(pairs.items()):
        count, others = wanted[expected], len(asked) - wanted[answer]  # who wants that answer cannot get it wrongly
        if len(ones) < 2:
            continue
        p = fisher_p(len(ones), count, wrongly[answer], others)
        lift = (len(ones) / count) / (wrongly[answer] / others)
        name = f"{expected} → {answer}"
        yield Group("confusion", name, count, len(ones), len(ones) / failures, lift, p, examples_of(ones))


def _forms(asked: Sequence[Asked], labels: Sequence[str], failures: int) -> list[Group]:
    found: defaultdict[Any, list[Asked]] = defaultdict(list)
    for one in asked:
        if form := form_of(one, labels):
            found[form].append(one)
    groups = [
        Group("form", form, len(ones), len(ones), len(ones) / failures, len(asked) / failures, None,
              examples_of(ones), MENDS[form])
        for form, ones in found.items()
    ]  # fmt: skip
    return sorted(groups, key=lambda one: (-one.failures, one.name))


def _distinct(groups: Sequence[Group]) -> list[Group]:
    """Without words whose failures another group has all shown: the first of them is the surest."""
    kept: dict[tuple[Any, ...], Group] = {}
    for one in groups:
        key = (one.kind, one.count, one.failures, tuple(example["row"] for example in one.examples))
        held = kept.get(key)
        if one.kind != "word" or held is None or len(one.name) > len(held.name):
            kept[key if one.kind == "word" else (*key, one.name)] = one
    return list(kept.values())


def examples_of(asked: Sequence[Asked]) -> tuple[dict[str, Any], ...]:
    """The first three, each text cut."""
    return tuple(
        {"row": one.row, "input": _cut(one.input), "expected": _cut(one.expected), "answered": _cut(one.answer)}
        for one in asked[:SHOWN]
    )


def _cut(text: str) -> str:
    return text if len(text) <= _SHOWN_CHARACTERS else text[: _SHOWN_CHARACTERS - 1] + "…"


def forms_in(groups: Iterable[Group]) -> Mapping[str, int]:
    """How many answers have each wrong form."""
    return {one.name: one.failures for one in groups if one.kind == "form"}

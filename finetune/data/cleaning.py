"""What may be trained on: no held-out case, nothing that stands in the prompt, no repetition, no contradiction."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any, Literal

from finetune.data.examples import Example
from finetune.data.likeness import HeldOut, Index, input_key, read_all, unspaced
from finetune.data.overlap import Passages
from finetune.data.shown import Repeated, Shown
from finetune.data.within import Within

Reason = Literal[
    "duplicate",
    "near-duplicate",
    "held-out",
    "held-out-near",
    "held-out-13-gram",
    "held-out-within",
    "in-prompt",
    "in-prompt-near",
]


@dataclass(frozen=True, slots=True)
class Drop:
    """One example left out.

    `index` counts from 0 in the examples given; `matched` is the index of what it repeats, in the held-out cases for
    the reasons `held-out…`, in the prompt's examples for `in-prompt…`, else in the examples; `repeats` says the same in
    words, by suite and case.
    """

    index: int
    reason: Reason
    matched: int
    repeats: str = ""


@dataclass(frozen=True, slots=True)
class Conflict:
    """Examples of one and the same input that disagree on the answer; none of them is kept."""

    indexes: tuple[int, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class NearConflict:
    """Examples that nearly repeat each other and disagree on the answer; the first is kept, the others are drops."""

    indexes: tuple[int, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class CleanReport:
    """What may be trained on, and what was left out and why.

    Every example is in exactly one of `kept`, `drops` and `conflicts`; `near_conflicts` are among the first two.
    """

    kept: tuple[Example, ...]
    drops: tuple[Drop, ...]
    conflicts: tuple[Conflict, ...]
    near_conflicts: tuple[NearConflict, ...] = ()


NOTHING_SHOWN = Shown()


def clean(
    examples: Sequence[Example],
    heldout: Sequence[Mapping[str, Any] | HeldOut],
    shown: Shown = NOTHING_SHOWN,
    defaults: Mapping[str, Any] | None = None,
) -> CleanReport:
    """Leave out what repeats a held-out case, the prompt or an earlier example, and inputs with contradicting answers.

    `heldout` are the held-out cases, or their variables alone, `shown` the examples in the prompt, `defaults` the values
    of the variables that it lets people leave out: what spells one out asks the same. An example that
    resembles one of these is dropped whatever it says; among examples that resemble each other the earliest stays, and
    disagreement is reported.
    """
    return _Cleaning(examples, heldout, shown, defaults).report()


class _Cleaning:
    """One pass over examples: every held-out input is known before the first, every example kept before the next."""

    def __init__(
        self,
        examples: Sequence[Example],
        heldout: Sequence[Mapping[str, Any] | HeldOut],
        shown: Shown,
        defaults: Mapping[str, Any] | None,
    ) -> None:
        self._examples, self._heldout = examples, heldout
        self._shown = Repeated(shown, examples)
        cases = [input_key(case.vars if isinstance(case, HeldOut) else case, defaults) for case in heldout]
        own = [input_key(example.vars, defaults) for example in examples]
        self._keys = cases + own
        self._passages = Passages(cases, own)
        self._within = Within(cases, own)
        self._index = Index(read_all(self._keys))
        self._heldout_unspaced: dict[tuple[str, ...], int] = {}
        self._first: dict[tuple[str, ...], int] = {}
        self._rivals: dict[int, list[int]] = defaultdict(list)  # kept → near duplicates with other answers
        for at, case in enumerate(cases):
            self._add(at)
            self._heldout_unspaced.setdefault(unspaced(case), at)

    def report(self) -> CleanReport:
        drops: list[Drop] = []
        kept: list[int] = []
        numbers = range(len(self._examples))
        leaks = {drop.index: drop for number in numbers if (drop := self._leak(number) or self._in_prompt(number))}
        conflicts = _conflicts(self._examples, self._keys[len(self._heldout) :], leaks.keys())
        contradicting = {index for conflict in conflicts for index in conflict.indexes}
        for number in range(len(self._examples)):
            if number in contradicting:
                continue
            drop = leaks.get(number) or self._repetition(number)
            if drop is None:
                kept.append(number)
                self._add(len(self._heldout) + number)
            else:
                drops.append(drop)
        return CleanReport(
            tuple(self._examples[number] for number in kept), tuple(drops), tuple(conflicts), self._near_conflicts()
        )

    def _add(self, at: int) -> None:
        self._first.setdefault(self._keys[at], at)
        self._index.add(at)

    def _leak(self, number: int) -> Drop | None:
        """Why the example may not be trained on beside the held-out cases, which alone are known by now."""
        at = len(self._heldout) + number
        key = self._keys[at]
        same = self._first.get(key, self._heldout_unspaced.get(unspaced(key)))
        if same is not None:
            return self._leaked(number, "held-out", same)
        near = next(iter(self._index.matches(at)), None)
        if near is not None:
            return self._leaked(number, "held-out-near", near)
        shared = self._passages.shared(key)
        if shared is not None:
            return self._leaked(number, "held-out-13-gram", shared)
        alike = self._passages.alike_without_boilerplate(key)
        if alike is not None:
            return self._leaked(number, "held-out-near", alike)
        within = self._within.first(key)
        return None if within is None else self._leaked(number, "held-out-within", within)

    def _in_prompt(self, number: int) -> Drop | None:
        """Which of the prompt's examples shows the model the answer to this one, if any."""
        found = self._shown.by(number)
        return None if found is None else Drop(number, *found, f"the prompt's example {found[1]}")

    def _leaked(self, number: int, reason: Reason, matched: int) -> Drop:
        case = self._heldout[matched]
        name = str(case) if isinstance(case, HeldOut) else f"held-out case {matched}"
        return Drop(number, reason, matched, name)

    def _repetition(self, number: int) -> Drop | None:
        """Which example kept before this one repeats, if any."""
        before = len(self._heldout)
        first = self._first.get(self._keys[before + number])
        if first is not None:
            return Drop(number, "duplicate", first - before, f"example {first - before}")
        near = [at - before for at in self._index.matches(before + number, since=before)]
        if not near:
            return None
        for other in near:
            if _answer(self._examples[other]) != _answer(self._examples[number]):
                self._rivals[other].append(number)
                break
        return Drop(number, "near-duplicate", near[0], f"example {near[0]}")

    def _near_conflicts(self) -> tuple[NearConflict, ...]:
        groups = [(kept, *others) for kept, others in sorted(self._rivals.items())]
        return tuple(NearConflict(group, _outputs(self._examples, group)) for group in groups)


def _conflicts(examples: Sequence[Example], keys: Sequence[tuple[str, ...]], leaks: Set[int]) -> list[Conflict]:
    same_input: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for index, key in enumerate(keys):
        if index not in leaks:
            same_input[key].append(index)
    found = [Conflict(tuple(indexes), _outputs(examples, indexes)) for indexes in same_input.values()]
    return [conflict for conflict in found if len(conflict.outputs) > 1]


def _outputs(examples: Sequence[Example], indexes: Sequence[int]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(_answer(examples[index]) for index in indexes))


def _answer(example: Example) -> str:
    return example.expected.strip()

"""Which examples stand in the prompt before each row: chosen once, for the most that may be tried; fewer are part of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property

from finetune.data import input_key
from service.advising.asking import Questions
from service.advising.folds import Folds
from suites.advice.shots import Likeness, covering, most_similar

Shots = Mapping[int, tuple[int, ...]]  # by row that is asked, or by fold: the rows in the prompt


class Choosing:
    """The examples for each fold, for each row that is asked, and for the prompt that is shipped.

    `most` is the highest number of examples that is tried. `check` raises where the job is to end: no question is asked
    while examples are compared, which takes seconds where there are thousands.
    """

    def __init__(self, questions: Questions, folds: Folds, most: int, check: Callable[[], None]) -> None:
        self._questions, self._folds, self._most, self._check = questions, folds, most, check

    def of_folds(self, count: int) -> Shots:
        """For each fold the examples of the others that cover them."""
        return {fold: rows[:count] for fold, rows in self._of_folds.items()}

    def covering(self, count: int) -> Shots:
        """For each row that is asked the examples that cover the folds it is not in."""
        of_fold = self.of_folds(count)
        return {row: of_fold[self._folds.of[row]] for row in self._folds.asked}

    def similar(self, count: int) -> Shots:
        """For each row that is asked those of the other folds that are most like it, the most similar last."""
        return {row: rows[-count:] for row, rows in self._ranked.items()}

    def of_all(self, count: int) -> tuple[int, ...]:
        """Those that cover all examples: what a prompt would be shipped with."""
        return self._of_all[:count]

    @cached_property
    def _likeness(self) -> Likeness:
        return Likeness([" ".join(input_key(one.vars)) for one in self._questions.rows])

    @cached_property
    def _of_folds(self) -> Shots:
        return {fold: self._cover(self._folds.train(fold)) for fold in range(self._folds.count)}

    @cached_property
    def _of_all(self) -> tuple[int, ...]:
        return self._cover(tuple(range(len(self._questions.rows))))

    def _cover(self, rows: tuple[int, ...]) -> tuple[int, ...]:
        self._check()
        answers = [one.expected for one in self._questions.rows]
        return covering(self._likeness, answers, frozenset(rows), self._most)

    @cached_property
    def _ranked(self) -> Shots:
        allowed = [frozenset(self._folds.train(fold)) for fold in range(self._folds.count)]
        found: dict[int, tuple[int, ...]] = {}
        for row in self._folds.asked:
            self._check()
            found[row] = most_similar(self._likeness, row, allowed[self._folds.of[row]], self._most)
        return found

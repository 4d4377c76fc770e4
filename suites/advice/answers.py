"""One training example as it was asked, and how its answer was scored."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

RIGHT, WRONG, ERRORED, BLANK = "1", "0", "e", " "


@dataclass(frozen=True, slots=True)
class Asked:
    """An example's variables, the answer that is wanted, and the one that came.

    `finish` is OpenAI's reason for the end of the answer. Where the question failed `error` says how, and `answer` is "".
    """

    row: int  # of the examples that are kept, from 0
    vars: Mapping[str, Any]
    expected: str
    answer: str
    finish: str = "stop"
    error: str = ""

    @property
    def is_right(self) -> bool:
        """Equal but for the space around both, as a fine-tune scores dev."""
        return not self.error and self.answer.strip() == self.expected.strip()

    @property
    def letter(self) -> str:
        return ERRORED if self.error else RIGHT if self.is_right else WRONG

    @property
    def input(self) -> str:
        """The variables in one text, those that are no text as Python shows them."""
        return " ".join(value if isinstance(value, str) else repr(value) for value in self.vars.values())


def outcomes(asked: Iterable[Asked], count: int) -> str:
    """A letter for each of `count` examples: 1 right, 0 wrong, e errored, and a blank for one that was not asked."""
    letters = [BLANK] * count
    for one in asked:
        letters[one.row] = one.letter
    return "".join(letters)


def paired(before: str, after: str) -> tuple[int, int, int, int]:
    """Of the rows that both letters cover (blanks aside): both right, broken, mended, neither."""
    pairs = [
        (one == RIGHT, other == RIGHT) for one, other in zip(before, after, strict=True) if BLANK not in one + other
    ]
    kinds = ((True, True), (True, False), (False, True), (False, False))
    both, broken, mended, neither = (pairs.count(kind) for kind in kinds)
    return both, broken, mended, neither


def ceiling(answers_by_input: Iterable[Sequence[str]]) -> float:
    """The highest share that any model can answer right: for each set of equal inputs only its commonest answer can be.

    `answers_by_input` has the answers that are wanted for each input, without the space around them.
    """
    right = total = 0
    for answers in answers_by_input:
        total += len(answers)
        right += max(map(answers.count, set(answers)), default=0)
    return right / total if total else 1.0

"""Which version last changed each line of a prompt's messages."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from prompts.diff import Shown, shown
from prompts.prompt import PromptContent


@dataclass(frozen=True, slots=True)
class BlamedLine:
    """One line of a message. `index` counts messages from 0, `changed_by` the contents that `blame` was given."""

    index: int
    role: str
    text: str
    changed_by: int


def blame(contents: Sequence[PromptContent]) -> list[BlamedLine]:
    """The lines of the last of `contents` (oldest first), each with the content that last changed it.

    A line that moves to another role is a changed one; one that is taken away and comes back belongs to the content
    that brought it back. Includes are resolved, so a line may have changed in the file that was included.
    """
    lines: list[tuple[str, str]] = []
    changed_by: list[int] = []
    for number, content in enumerate(contents):
        new = [(message.role, line) for message in _messages(content) for line in message.lines]
        changed_by = _carried(lines, new, changed_by, number)
        lines = new
    indexes = (
        [index for index, message in enumerate(_messages(contents[-1])) for _ in message.lines] if contents else []
    )
    rows = zip(indexes, lines, changed_by, strict=True)
    return [BlamedLine(index, role, text, number) for index, (role, text), number in rows]


def _messages(content: PromptContent) -> Iterator[Shown]:
    return (shown(message) for message in content.model_dump(mode="json")["messages"])


def _carried(
    old: Sequence[tuple[str, str]], new: Sequence[tuple[str, str]], known: Sequence[int], number: int
) -> list[int]:
    """Who changed each line of `new`: as `known` for lines that `old` had, `number` for the rest."""
    shortest = min(len(old), len(new))
    start = next((i for i in range(shortest) if old[i] != new[i]), shortest)
    end = next((i for i in range(shortest - start) if old[-1 - i] != new[-1 - i]), shortest - start)
    middle = old[start : len(old) - end], new[start : len(new) - end]
    changed = [number] * len(middle[1])
    for block in difflib.SequenceMatcher(None, *middle).get_matching_blocks():
        first = start + block.a
        changed[block.b : block.b + block.size] = known[first : first + block.size]
    return [*known[:start], *changed, *known[len(old) - end :]]

"""Some of a suite's cases: by tag, by id or text, the first of them, or a sample. Such a run is no evidence for a gate."""

from __future__ import annotations

import random
from array import array
from collections.abc import Iterable, Sequence
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from prompts.errors import BadInput
from suites.case import Case
from suites.values import walk_texts

Count = Annotated[int, Field(ge=1)]


class Filter(BaseModel):
    """Which cases to run; nothing given means all.

    `tags`: a case has one of them, and none of those written with `!` before. `cases`: its id is one of them, or one
    stands in its description or variables. Of what is left the `first` so many, or a `sample` drawn by `seed`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    tags: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    cases: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    first: Count | None = None
    sample: Count | None = None
    seed: int = 0

    def __bool__(self) -> bool:
        return bool(self.tags or self.cases or self.first or self.sample)

    def as_data(self) -> dict[str, Any]:
        """Plain data, what was not given left out."""
        return self.model_dump(mode="json", exclude_defaults=True)

    def choose(self, cases: Iterable[Case]) -> Sequence[int]:
        """Positions of the chosen cases, in order. Raises BadInput where there is none, naming the tags there are."""
        found = array("Q")
        known: set[str] = set()
        for position, case in enumerate(cases):
            known.update(case.tags)
            if self._fits(case):
                found.append(position)
        if not found:
            told = "--case is an id or a text of a case; " if self.cases else ""
            tags = f"the suite's tags are {', '.join(sorted(known)) or 'none'}"
            raise BadInput(f"no case fits {self._in_words()}: {told}{tags}", param="filter")
        if self.sample is not None and self.sample < len(found):
            found = array("Q", sorted(random.Random(self.seed).sample(found, self.sample)))  # noqa: S311 - no secret
        return found[: self.first]

    def _in_words(self) -> str:
        """As it is asked for on the command line."""
        given = [f"--tag {tag}" for tag in self.tags] + [f"--case {text!r}" for text in self.cases]
        return " ".join(given)

    def _fits(self, case: Case) -> bool:
        wanted = {tag for tag in self.tags if not tag.startswith("!")}
        unwanted = {tag[1:] for tag in self.tags if tag.startswith("!")}
        if unwanted & set(case.tags) or (wanted and not wanted & set(case.tags)):
            return False
        return not self.cases or any(_is_named(case, text) for text in self.cases)


def _is_named(case: Case, text: str) -> bool:
    return text == case.id or text in case.description or any(text in value for _, value in walk_texts(case.vars))

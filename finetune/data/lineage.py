"""Where the examples of a dataset came from, and which examples exactly it is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import pydantic

from finetune.data.examples import Example, digest
from prompts.wording import many


class Source(pydantic.BaseModel, frozen=True, extra="forbid"):
    """One place that examples were taken from.

    `name` is the suite's, the file's or the prompt's; `version` the suite's number or the file's `sha256:…`, empty for
    reviewed completions, whose ids are in `ids`; `examples` is how many it gave.
    """

    kind: Literal["suite", "file", "reviewed"]
    name: str
    version: str = ""
    ids: tuple[str, ...] = ()
    examples: int = pydantic.Field(ge=0)

    def __str__(self) -> str:
        version = f" {self.version}" if self.kind == "file" else f"@{self.version}" if self.version else ""
        return f"{self.kind}:{self.name}{version} ({many(self.examples, 'example')})"


class Dataset(pydantic.BaseModel, frozen=True, extra="forbid"):
    """What a fine-tune is given, before anything is left out: the same digest is the same examples in the same order.

    The examples of the first source come first, then those of the second.
    """

    name: str
    digest: str
    examples: int = pydantic.Field(ge=0)
    sources: tuple[Source, ...]

    def place(self, index: int) -> str:
        """Where example `index` stands: its source and its number there, from 0. Raises IndexError beyond the last."""
        first = 0
        for source in self.sources:
            if index < first + source.examples:
                return f"{source.kind}:{source.name} example {index - first}"
            first += source.examples
        raise IndexError(f"example {index}: the dataset {self.name!r} has {self.examples}, counted from 0")


def make_dataset(name: str, parts: Sequence[tuple[Source, Sequence[Example]]]) -> tuple[Dataset, list[Example]]:
    """The dataset that is all `parts` together, and its examples in order.

    A source's `examples` are set to what it gave here.
    """
    examples = [example for _, given in parts for example in given]
    sources = tuple(source.model_copy(update={"examples": len(given)}) for source, given in parts)
    return Dataset(name=name, digest=digest(examples), examples=len(examples), sources=sources), examples

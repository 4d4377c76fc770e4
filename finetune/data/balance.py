"""Whether the answers are labels, and how evenly they are spread."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Literal

import pydantic

from finetune.data.examples import Example
from finetune.data.personal import quotable

LABEL_SHARE = 0.5  # of examples whose answer another has, too: from here on answers are labels
SHOWN_ANSWERS = 100
SHOWN_CHARACTERS = 80


class Balance(pydantic.BaseModel, frozen=True):
    """The answers of some examples.

    They are `labels` where at least half of the examples share their answer with another, else `free text`.
    `counts` are the most frequent answers with the examples that have them, at most 100, largest first, each cut to 80
    characters and without personal data; free text has none. `entropy_bits` is Shannon's: log2(`distinct`) where all
    are equally frequent.
    """

    kind: Literal["labels", "free text"]
    distinct: int
    counts: tuple[tuple[str, int], ...]
    largest_share: float
    entropy_bits: float


def balance_of(examples: Sequence[Example]) -> Balance:
    """The balance of the examples' answers, white space around them aside; of no examples, free text of none."""
    counts = Counter(example.expected.strip() for example in examples)
    total = len(examples)
    shared = sum(count for count in counts.values() if count > 1)
    is_label = total > 0 and shared >= LABEL_SHARE * total
    largest_first = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return Balance(
        kind="labels" if is_label else "free text",
        distinct=len(counts),
        counts=tuple((quotable(answer, SHOWN_CHARACTERS), n) for answer, n in largest_first[:SHOWN_ANSWERS])
        if is_label
        else (),
        largest_share=largest_first[0][1] / total if total else 0.0,
        entropy_bits=sum(n / total * math.log2(total / n) for n in counts.values()),
    )

"""What a dry run says would be asked and trained: each figure with what it is."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from service.advising.asking import TIMED
from service.advising.cheaper import Pass
from service.advising.folds import SECONDS_A_MINUTE, Planned

_SLACK = 1.1  # whoever asks again measures steps of his own
_INDENT = 11  # as wide as the titles of the report on the examples, which stands above


def question_lines(passes: Sequence[Pass], rows: int, timed: int, variants: int) -> Iterator[str]:
    """The passes over `rows` examples, then the `timed` requests of each of so many `variants`."""
    most = sum(one.times for one in passes) * rows
    yield f"questions  up to {most:,}, fewer where more examples in the prompt do no better than fewer"
    for one in passes:
        told = f"not tried: {one.how}: {one.why}" if one.why else f"{one.times * rows:,} {one.how}"
        yield " " * _INDENT + told
    each = min(TIMED, timed) + 1  # the first is asked once before
    yield f"timing     {each} questions more to each of up to {variants} variants, one at a time, after the trainings"


def training_lines(planned: Planned, minutes: float, shots: int, factor: float) -> Iterator[str]:
    """The trainings that fit into the minutes, by what they are for.

    `shots` examples stand before the rows of some of them, which makes these take `factor` times as long.
    """
    count, of_lora = len(planned.splits), planned.of("lora")
    whole = sum(split.name.startswith("full") for split in of_lora)
    taken = planned.seconds / SECONDS_A_MINUTE
    yield f"trainings  {count}, about {taken:.1f} of {minutes:g} minutes (--minutes), by some steps that were measured here"
    yield f"{' ' * _INDENT}{whole} of the LoRA, each asked about the examples that it did not see"
    if parts := len(of_lora) - whole:
        yield f"{' ' * _INDENT}{parts} on halves and quarters of their examples, for the learning curve"
    if behind := len(planned.of("few-shot+lora")):
        yield f"{' ' * _INDENT}{behind} behind {shots} examples in the prompt, reckoned at {factor:.1f} times the minutes"
    if planned.left_out:
        yield f"{' ' * _INDENT}{planned.left_out} more would make it surer: {all_of_them(planned)}"


def too_short(planned: Planned, minutes: float) -> str:
    """Why not even the first training fits, and what would do."""
    first = planned.first_s / SECONDS_A_MINUTE
    why = f"one training takes about {first:.1f} minutes here, and {minutes:g} are allowed"
    return f"{why}: --minutes {_enough(planned.first_s)} allows one, {all_of_them(planned)}"


def all_of_them(planned: Planned) -> str:
    """The minutes that no training is left out of."""
    return f"--minutes {_enough(planned.all_s)} allows all {len(planned.splits) + planned.left_out}"


def _enough(seconds: float) -> int:
    return math.ceil(_SLACK * seconds / SECONDS_A_MINUTE)

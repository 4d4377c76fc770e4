"""What a conversion gives: prompts with the suites that test them, and everything that they could not hold."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from prompts.formats.imported import LeftOut


@dataclass(frozen=True, slots=True)
class ForeignSuite:
    """One prompt and the suite of its name, as the keys of their files.

    `models` are the aliases that are to be asked. `order` holds for each test, in the order in which the other tool asks
    them, the position of its case: tests that ask and expect the same are one case.
    """

    name: str
    prompt: Mapping[str, Any]
    suite: Mapping[str, Any]
    models: tuple[str, ...]
    order: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Converted:
    """All that one file of another tool came to.

    `missing` are the models that no alias is known for, `unasked` counts prompts and lists of tests that are not asked at all.
    """

    suites: tuple[ForeignSuite, ...]
    left_out: tuple[LeftOut, ...] = ()
    missing: tuple[str, ...] = ()
    unasked: int = 0


@dataclass(frozen=True, slots=True)
class KnownModel:
    """What of a model of turnout.yaml tells whether another tool means it."""

    model: str
    base_url: str = ""
    has_price: bool = False
    is_echo: bool = False


def _no_script(_: str) -> str:
    raise ValueError(
        "no Python is run here: an admin lists its folder in turnout.yaml, `assertions: {python_dirs: [checks]}`"
    )


@dataclass(frozen=True, slots=True)
class Wanted:
    """How a conversion is to be done.

    `known` are the models by alias, `given` aliases by what the other tool calls a model (`none` sets its cases aside).
    `environment` is what `env` stands for. `apart` gives each model a suite of its own. `find_script` gives for a reference
    to a Python file the one by which it is run here; it raises ValueError, saying why, where it is not.
    """

    known: Mapping[str, KnownModel] = field(default_factory=dict)
    given: Mapping[str, str] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    apart: bool = False
    find_script: Callable[[str], str] = _no_script


def counted(left_out: Sequence[LeftOut]) -> list[str]:
    """`3 × what (why)` for what was left out for the same reason, the most frequent first, each with its first place."""
    counts = Counter((each.what, each.why) for each in left_out)
    places: dict[tuple[str, str], str] = {}
    for each in left_out:
        places.setdefault((each.what, each.why), each.place)
    return [f"{n} × {what} ({why}): {places[what, why]}" for (what, why), n in counts.most_common()]

"""Patterns of authors and strangers: bounded when they are compiled, and stopped when they run away."""

from __future__ import annotations

import functools
import math
import re
from typing import Any

from suites.assertions.spec import AssertionErrored, refuse, shorten

REGEX_TIMEOUT_S = 1.0
SHORT_CHARACTERS = 10_000
MAX_PATTERN_CHARACTERS = 10_000
MAX_UNROLLED_CHARACTERS = 2_000_000  # `regex` writes out counted repeats: "((a{1000}){1000}){1000}" takes all memory
_COUNTED = re.compile(r"\{\s*([0-9]+)")


def search(pattern: str, text: str) -> bool:
    """Whether `pattern` is found in `text`; raises AssertionErrored after `REGEX_TIMEOUT_S`.

    `regex` and not `re`: an author's pattern may take exponential time, and only `regex` can be stopped.
    """
    try:
        # for a short text, letting other threads run meanwhile takes longer than the search
        concurrent = len(text) > SHORT_CHARACTERS
        return _compiled(pattern).search(text, timeout=REGEX_TIMEOUT_S, concurrent=concurrent) is not None
    except TimeoutError as error:
        message = f"the pattern {shorten(pattern)} took more than {REGEX_TIMEOUT_S:g} s"
        raise AssertionErrored(message) from error


@functools.lru_cache(maxsize=256)  # `regex` has a cache of its own, whose look-up takes longer than most searches
def _compiled(pattern: str) -> Any:
    import regex  # type: ignore[import-untyped, unused-ignore]  # its stubs come with the extra `dev`

    return regex.compile(pattern)


def check_pattern(pattern: str) -> None:
    """Refuse a pattern that does not compile, or that would take much memory to."""
    import regex  # type: ignore[import-untyped, unused-ignore]  # its stubs come with the extra `dev`

    if len(pattern) > MAX_PATTERN_CHARACTERS:
        refuse(f"the pattern has {len(pattern):,} characters", f"keep it below {MAX_PATTERN_CHARACTERS:,}")
    if len(pattern) * math.prod(int(count[:9]) or 1 for count in _COUNTED.findall(pattern)) > MAX_UNROLLED_CHARACTERS:
        refuse(f"{shorten(pattern)} unrolls too far", "repeat less often, or use + or * in place of a count")
    try:
        regex.compile(pattern)
    except (regex.error, ValueError, OverflowError, RecursionError) as error:
        refuse(
            f"{shorten(pattern)} is no regular expression: {error}",
            "mend the pattern, or use `contains` for plain text",
        )

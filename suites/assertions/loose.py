"""Assertions that hold whatever is answered: they are no fault, but say nothing, and `check` warns of them."""

from __future__ import annotations

import re
from typing import Any

from suites.assertions.judged import NEED_CONTEXT
from suites.assertions.similarity import DEFAULT_EDITS
from suites.assertions.spec import AssertionSpec, shorten
from suites.assertions.text import as_text

# types whose score from 0 to 1 alone decides, against `threshold`
_SHARES = frozenset({"bleu", "gleu", "rouge-n", "f-score", "meteor", "tool-call-f1", "perplexity-score", "human"})
_JUDGED = NEED_CONTEXT | {"g-eval", "classifier", "answer-relevance"}
_COUNTS = frozenset({"word-count", "character-count"})
_ESCAPED = re.compile(r"\\[^\w]")
_CLASS_START = re.compile(r"\[\^")
_BOUND = re.compile(r"[\^$]|\\[AZzbBGKmM0-9]|\(\?<?[=!]|\(\?(?:P=|&|[0-9(R])|\(\*")  # holds in some places alone


def why_loose(spec: AssertionSpec, *, is_scored: bool = False) -> str:
    """Why every answer, or next to every one, passes by `spec`; "" where nothing says so. Its weight is not looked at.

    `is_scored` where a threshold around it makes its score count, too: what has degrees then decides by them.
    """
    if spec.type.removeprefix("not-") in _SHARES | _JUDGED:
        return "" if is_scored else _of_share(spec)
    if spec.type == "levenshtein":
        return _of_edits(spec)
    if spec.type == "regex" and _is_everywhere(spec.value):
        return f"{shorten(spec.value)} matches the empty text, so it is found in every answer"
    if spec.type in _COUNTS and spec.value in ({"min": 0}, {"min": "0"}):
        return "every answer counts at least 0"
    return ""


def _of_share(spec: AssertionSpec) -> str:
    if spec.threshold == 0 and not spec.type.startswith("not-"):
        return "every score reaches the threshold 0"
    if spec.threshold is not None and spec.threshold >= 1 and spec.type.startswith("not-"):
        return "only an answer with the full score of 1 misses it"
    return ""


def _of_edits(spec: AssertionSpec) -> str:
    """As many edits as the text has characters make any short answer equal to it; not said of one that is filled in later."""
    expected, most = as_text(spec.value), int(DEFAULT_EDITS if spec.threshold is None else spec.threshold)
    if "{{" in expected or most < len(expected):
        return ""
    return f"{most:,} edits make any answer of up to {most:,} characters equal to {shorten(expected)}"


def _is_everywhere(pattern: Any) -> bool:
    """Whether a pattern is found in every text: it matches the empty one, and nothing in it asks where it stands."""
    import regex  # type: ignore[import-untyped, unused-ignore]  # its stubs come with the extra `dev`

    bare = _CLASS_START.sub("[", _ESCAPED.sub("", str(pattern)))
    inner = bare.removeprefix("^") if "|" not in bare else bare
    if _BOUND.search(inner) and _BOUND.search(bare.removesuffix("$") if "|" not in bare else bare):
        return False
    return regex.search(str(pattern), "") is not None

"""promptfoo's short form of an assertion, as a cell of a table holds it: `contains:Paris`, `similar(0.8):Hello`."""

from __future__ import annotations

import csv
import difflib
import json
import re
from typing import Any

from suites.assertions import ASSERTIONS, NOT, NOT_HERE, near_types
from suites.values import FILE


class BadCell(ValueError):
    """A cell that does not say what it should; `args` are the message and its fix."""


_TYPED = re.compile(
    r"(?s)(?P<type>(?:not-)?(?:similar:(?:cosine|dot|euclidean)|[a-z][a-z0-9-]*))(?:\((?P<bound>[^()]*)\))?(?::(?P<value>.*))?"
)
_SAME = {"fn": "javascript", "eval": "javascript", "grade": "llm-rubric"}  # promptfoo's older words
_FILES = {".js": "javascript", ".cjs": "javascript", ".mjs": "javascript", ".py": "python"}
_NO_SCRIPT = (".ts", ".cts", ".mts", ".rb", ".sh")
_SCRIPT = re.compile(r"file://.*?(\.[a-z]+)(?::[A-Za-z_$][\w$]*)?")
_LISTS = ("contains-any", "contains-all", "icontains-any", "icontains-all")
_JSON = ("is-json", "contains-json", "is-sql", "contains-sql", "is-valid-openai-tools-call",
         "is-valid-openai-function-call", "is-valid-function-call", "max-score")  # fmt: skip
_COUNTS = ("word-count", "character-count")
_BARE = (*_JSON, "latency", "cost", "is-xml", "contains-xml", "is-html", "contains-html", "is-refusal", "perplexity",
         "perplexity-score", "answer-relevance", "context-faithfulness", "context-relevance")  # fmt: skip
_THRESHOLDS = {"similar": 0.8, "answer-relevance": 0.75, "context-recall": 0.75, "context-relevance": 0.75,
               "context-faithfulness": 0.75}  # of promptfoo's tables, where they are not those of its configurations # fmt: skip
_LIKE = 0.8  # how near a word before a colon is to a type that was meant


def assertion_from_text(text: str) -> dict[str, Any]:
    """`type:value`, `type(threshold):value`, a type that needs no value, `file://` of a script, or a text to equal.

    Raises BadCell for what promptfoo reads and nothing here is called, and for a type that is likely misspelt.
    """
    text = text.strip()
    if text.startswith(FILE):
        return {"type": _type_of_file(text), "value": text}
    match = _TYPED.fullmatch(text)
    written = match["type"] if match else ""
    base = _SAME.get(written.removeprefix(NOT), written.removeprefix(NOT))
    if not match or (match["value"] is None and match["bound"] is None and base not in _BARE):
        return {"type": "equals", "value": text}
    if base not in ASSERTIONS:
        _refuse_unknown(written, base, is_typed=match["value"] is not None)
        return {"type": "equals", "value": text}
    kind = NOT + base if written.startswith(NOT) else base
    spec: dict[str, Any] = {"type": kind}
    bound = _threshold(kind, match["bound"]) if match["bound"] is not None else _THRESHOLDS.get(base)
    if bound is not None:
        spec["threshold"] = bound
    if match["value"]:
        spec["value"] = _value(base, match["value"].strip())
    return spec


def _type_of_file(text: str) -> str:
    """The type of assertion that a file alone stands for: a script by its ending, else a text to equal."""
    ending = (found[1] if (found := _SCRIPT.fullmatch(text)) else "").lower()
    if ending in _NO_SCRIPT:
        raise BadCell(
            f"{text[:80]!r}: files {ending} are not run", "write the check as JavaScript (.js) or Python (.py)"
        )
    return _FILES.get(ending, "equals")


def _refuse_unknown(written: str, base: str, *, is_typed: bool) -> None:
    """Refuse a word that stands like a type and is none: taking it for a plain text would test something else."""
    message = f"unknown assertion type {written!r}"
    if base in NOT_HERE and is_typed:
        raise BadCell(message, NOT_HERE[base])
    if is_typed and difflib.get_close_matches(base, ASSERTIONS, n=1, cutoff=_LIKE):
        raise BadCell(message, f"{near_types(written)} A text that is meant as it stands: write equals:{written}:…")


def _threshold(kind: str, text: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise BadCell(f"{kind}({text[:40]}): the threshold is no number", f"write {kind}(0.8):…, say") from error


def _value(kind: str, text: str) -> Any:
    if kind in _LISTS and not text.startswith(FILE):
        return [item.strip() for item in next(csv.reader([text], skipinitialspace=True), [])]
    if text.startswith(FILE) or (kind not in _JSON and not (kind in _COUNTS and text.startswith("{"))):
        return text
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadCell(
            f"the value of `{kind}` is not valid JSON: {error}", f'write {kind}:{{"type": "object"}}, say'
        ) from error

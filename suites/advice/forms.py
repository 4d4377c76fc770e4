"""Answers of the wrong form: what a model knew, and only wrote otherwise. A cheaper mend than any training."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Collection, Mapping
from typing import Any, Literal

from suites.advice.answers import Asked

Form = Literal["cut", "refusal", "empty", "invalid JSON", "same JSON", "spelling", "names the answer", "no label"]

MENDS: Mapping[Form, str] = {
    "cut": "raise max_tokens, or ask for a shorter answer",
    "refusal": "say in the system message what the task is for, or take another model",
    "empty": "check stop and max_tokens: the model says nothing",
    "invalid JSON": "set responseFormat to json_schema, which checks the answer and asks again",
    "same JSON": "compare as JSON (assert is-json or a transform): only the layout differs",
    "spelling": "right but for case, space, quotes or punctuation: name the exact spelling, stop at the line's end, "
    "or put a transform before the assertion",
    "names the answer": "the right label stands among other words: ask for the label alone, set a low max_tokens or "
    "stop, or let the server choose among the labels",
    "no label": "the answer is none of the labels: name them in the prompt, or let the server choose among them",
}
_REFUSES = re.compile(
    r"^\W*(i['’]?m (really |very )?sorry|sorry,|i (can['’]?t|cannot|am unable|am not able|won['’]?t)|"
    r"as an ai\b|i apologi[sz]e|unfortunately,? i)",
    re.IGNORECASE,
)


def form_of(one: Asked, labels: Collection[str] = ()) -> Form | None:
    """What is wrong with the form of an answer; None for a right one, an errored one, and one that is plainly another.

    `labels` are the answers that there are, empty where answers are free text.
    """
    if one.error or one.is_right:
        return None
    answer, expected = one.answer.strip(), one.expected.strip()
    if expected.startswith(("{", "[")) and (found := _form_of_json(answer, expected)):
        return "cut" if one.finish == "length" else found
    if plain(answer) == plain(expected) and plain(answer):
        return "spelling"
    if _named(answer, labels) == expected:
        return "names the answer"
    if not answer:
        return "empty"
    if one.finish == "length":
        return "cut"
    if _REFUSES.match(answer):
        return "refusal"
    return "no label" if labels and answer not in labels and _named(answer, labels) is None else None


MENDED: frozenset[Form] = frozenset({"same JSON", "spelling", "names the answer"})


def is_right_read_kindly(one: Asked, labels: Collection[str] = ()) -> bool:
    """Whether the answer is right, or was but for its form."""
    return one.is_right or form_of(one, labels) in MENDED


def plain(text: str) -> str:
    """`text` without case, and without all that is neither letter nor digit."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return "".join(letter for letter in folded if letter.isalnum())


def _form_of_json(answer: str, expected: str) -> Form | None:
    wanted, found = _json(expected), _json(answer)
    if wanted is None:
        return None
    if found is None:
        return "invalid JSON"
    return "same JSON" if found == wanted else None


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None


def _named(answer: str, labels: Collection[str]) -> str | None:
    """The only label that an answer names as words of its own; None where it names none or several."""
    text = answer.casefold()
    found = [label for label in labels if label.strip() and _stands_in(label.casefold(), text)]
    longest = [label for label in found if not any(label != other and label in other for other in found)]
    return longest[0] if len(longest) == 1 else None


def _stands_in(label: str, text: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(label)}(?!\w)", text) is not None

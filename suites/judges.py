"""What judges say and how far to trust it: reading their answers, counting their votes, agreement with people.

A judge is a model that is asked about an answer. A verdict is only ever read from where the judge states it: the last
JSON object of what it wrote, or its last line. An object before it decides nothing, and where it says something else
neither does the last. Nor does a verdict that stands in the answer under test as well.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from suites.statistics import wilson_interval

_THOUGHT = re.compile(r"\A\s*<think>.*?</think>", re.DOTALL)
_LINE = re.compile(r"[\s*_#>-]*(?:final\s+)?verdict\s*[:=]\s*[*_]*\s*\(?([A-Za-z]+)\)?[\s*_.]*", re.IGNORECASE)
_WORD = re.compile(r"[\s*_(]*([A-Za-z]{1,4})[\s*_.)]*")
_LIKE_JSON = re.compile(r"\{\s*[\"'}]")
_FENCE = re.compile(r"```[ \t]*(?:json)?", re.IGNORECASE)
_AFTER_OBJECT = " \t\r\n`*."
_YES = {"pass": True, "passed": True, "yes": True, "y": True, "true": True}
_NO = {"fail": False, "failed": False, "no": False, "n": False, "false": False}
_Z95 = 1.959963984540054
CATEGORIES = "ABCDE"
MAX_REASON = 500  # characters of a judge's reason that are kept
MAX_KEY = 40  # characters of a key that are shown


class Unreadable(Exception):
    """A judge's answer holds no verdict of the form that was asked for; the message says what is missing."""


@dataclass(frozen=True, slots=True)
class Vote:
    """One answer of a judge: whether it holds, a score in [0, 1], and the reason it gave."""

    passed: bool
    score: float
    reason: str


# ------------------------------------------------------------------------------------ reading


def read_object(answer: str, *needed: str) -> dict[str, Any]:
    """The last JSON object of an answer, as `last_object` reads it.

    Raises Unreadable where there is none, or it lacks one of `needed`.
    """
    found = last_object(answer)
    if found is None:
        raise Unreadable("it holds no JSON object")
    missing = [name for name in needed if name not in found]
    if missing:
        raise Unreadable(f"its JSON lacks {', '.join(map(repr, missing))}")
    return found


def last_object(answer: str) -> dict[str, Any] | None:
    """The JSON object that an answer ends with; None where it holds none at all.

    Raises Unreadable where something follows it, where an object before it is broken, since what looks like the last one
    may then be a quotation within another, and where an object before it says otherwise: either may be the verdict.
    """
    text = _THOUGHT.sub("", answer)
    objects = list(_objects(text))
    if not objects:
        return None
    found, end = objects[-1]
    if text[end:].strip(_AFTER_OBJECT):
        raise Unreadable("its JSON object is not the end of it")
    for other, _ in objects[:-1]:
        _refuse_other(other, found)
    return found


def _refuse_other(other: Mapping[str, Any], found: Mapping[str, Any]) -> None:
    """Refuse an object that has a key of another with another value, whatever the reasons they give."""
    for name in found.keys() & other.keys() - {"reason"}:
        if other[name] != found[name] or type(other[name]) is not type(found[name]):
            raise Unreadable(f"its JSON objects disagree on `{name[:MAX_KEY]}`")


def check_own(answer: str, judged: Iterable[str]) -> None:
    """Refuse a verdict that stands, but for spaces, in one of the texts that are `judged`: it may be a quotation.

    A verdict is the last object, or a last line `VERDICT: …`; raises Unreadable for one that is not the judge's own.
    """
    verdict = _squeezed(_verdict_text(answer))
    if verdict and any(verdict in _squeezed(text) for text in judged):
        raise Unreadable("its verdict stands word for word in the answer under test; give a reason in your own words")


def is_alone(answer: str) -> bool:
    """Whether an answer that holds an object is nothing but that, fenced or not."""
    text = _THOUGHT.sub("", answer)
    spans = list(_spans(text))
    return not spans or not _FENCE.sub("", text[: spans[-1][1]]).strip()


def _verdict_text(answer: str) -> str:
    """The last object as it is written, else a last line that names itself a verdict; "" where there is neither."""
    text = _THOUGHT.sub("", answer)
    spans = list(_spans(text))
    if spans:
        return text[spans[-1][1] : spans[-1][2]]
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1] if lines and _LINE.fullmatch(lines[-1]) else ""


def _squeezed(text: str) -> str:
    return "".join(text.split())


def _objects(text: str) -> Iterator[tuple[dict[str, Any], int]]:
    """The objects that are not within another, and where each ends."""
    return ((found, end) for found, _, end in _spans(text))


def _spans(text: str) -> Iterator[tuple[dict[str, Any], int, int]]:
    """The same with where each begins."""
    decoder = json.JSONDecoder(parse_constant=_no_constant, object_pairs_hook=_once_each)
    position = text.find("{")
    while position >= 0:
        try:
            value, end = decoder.raw_decode(text, position)
        except (ValueError, RecursionError) as error:
            if _LIKE_JSON.match(text, position):
                raise Unreadable("its JSON is broken") from error
            end = position + 1
        else:
            yield value, position, end
        position = text.find("{", end)


def _once_each(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """An object whose keys are all there once: of two values either may be the one that is meant (RFC 8259, section 4)."""
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise Unreadable(f"its JSON has `{name[:MAX_KEY]}` twice")
        found[name] = value
    return found


def _no_constant(word: str) -> None:
    raise ValueError(f"{word} is not JSON")


def read_rubric(answer: str) -> Vote:
    """`{"pass": true, "score": 0.8, "reason": "…"}`; the score may be left out, and a last line `VERDICT: PASS` will do."""
    found = last_object(answer)
    if found is None:
        passed = _read_yes_or_no(answer)
        return Vote(passed, float(passed), "")
    holds = found.get("pass")
    if not isinstance(holds, bool):
        raise Unreadable("its `pass` must be true or false")
    return Vote(holds, _share(found.get("score", float(holds)), 1), reason_in(found))


def read_yes_or_no(answer: str) -> Vote:
    """`{"verdict": "Y", "reason": "…"}`, or a last line that is `VERDICT: Y`, or `Y` alone."""
    found = last_object(answer)
    word = found.get("verdict", found.get("pass")) if found is not None else None
    passed = _read_yes_or_no(answer) if found is None else _yes_or_no(word)
    return Vote(passed, float(passed), reason_in(found or {}))


def _read_yes_or_no(answer: str) -> bool:
    return _yes_or_no(_last_word(answer))


def _yes_or_no(word: Any) -> bool:
    if isinstance(word, bool):
        return word
    known = _YES | _NO
    if not isinstance(word, str) or word.strip().lower() not in known:
        raise Unreadable("its verdict must be Y or N")
    return known[word.strip().lower()]


def _last_word(answer: str) -> str:
    """What the last line says: after `VERDICT:`, or as its only word."""
    lines = [line for line in _THOUGHT.sub("", answer).splitlines() if line.strip()]
    found = (_LINE.fullmatch(lines[-1]) or _WORD.fullmatch(lines[-1])) if lines else None
    if found is None:
        raise Unreadable("it holds neither a JSON object nor a last line `VERDICT: …`")
    return found[1]


def read_category(answer: str) -> tuple[str, str]:
    """The category A to E of a comparison with the facts, and its reason."""
    found = last_object(answer)
    category = _last_word(answer) if found is None else found.get("category")
    if not isinstance(category, str) or category.strip().upper() not in tuple(CATEGORIES):
        raise Unreadable("its `category` must be one of A, B, C, D, E")
    return category.strip().upper(), reason_in(found or {})


def read_score(answer: str, most: int) -> tuple[float, str]:
    """`{"score": 7, "reason": "…"}` out of `most`, as a share of it."""
    found = read_object(answer, "score")
    return _share(found["score"], most), reason_in(found)


def read_texts(answer: str, name: str) -> list[str]:
    """A list of texts under `name`; empty ones are left out."""
    found = read_object(answer, name)[name]
    if not isinstance(found, list) or not all(isinstance(item, str) for item in found):
        raise Unreadable(f"its `{name}` must be a list of texts")
    return [item.strip() for item in found if item.strip()]


def read_flags(answer: str, name: str, count: int) -> list[bool]:
    """A list of `count` times true or false under `name`."""
    found = read_object(answer, name)[name]
    if not isinstance(found, list) or not all(isinstance(item, bool) for item in found):
        raise Unreadable(f"its `{name}` must be a list of true and false")
    if len(found) != count:
        raise Unreadable(f"its `{name}` has {len(found)} entries for {count}")
    return found


def read_numbers(answer: str, name: str, most: int) -> list[int]:
    """A list of whole numbers from 1 to `most` under `name`, each once and in order."""
    found = read_object(answer, name)[name]
    if not isinstance(found, list) or not all(_is_whole(item, most) for item in found):
        raise Unreadable(f"its `{name}` must be a list of numbers from 1 to {most}")
    return sorted(set(found))


def read_number(answer: str, name: str, most: int) -> tuple[int, str]:
    """A whole number from 1 to `most` under `name`, and its reason."""
    found = read_object(answer, name)
    if not _is_whole(found[name], most):
        raise Unreadable(f"its `{name}` must be a number from 1 to {most}")
    return int(found[name]), reason_in(found)


def read_label(answer: str, labels: Iterable[str]) -> tuple[str, str]:
    """One of `labels`, whatever its case, and its reason."""
    found = read_object(answer, "label")
    known = {label.casefold(): label for label in labels}
    label = found["label"]
    if not isinstance(label, str) or label.strip().casefold() not in known:
        raise Unreadable(f"its `label` must be one of {', '.join(known.values())}")
    return known[label.strip().casefold()], reason_in(found)


def reason_in(found: Mapping[str, Any]) -> str:
    """The reason that a judge gave, cut to what is kept of it."""
    reason = found.get("reason")
    return reason.strip()[:MAX_REASON] if isinstance(reason, str) else ""


def _share(value: Any, most: int) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= most:
        raise Unreadable(f"its `score` must be a number from 0 to {most}")
    return float(value) / most


def _is_whole(value: Any, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= most


# ------------------------------------------------------------------------------------ votes


def majority(votes: Sequence[Vote]) -> Vote:
    """What an odd number of votes come to: the majority of passes, the mean of scores, the reason of a vote that won.

    Where they disagree the reason says so.
    """
    yes = sum(vote.passed for vote in votes)
    passed = 2 * yes > len(votes)
    score = math.fsum(vote.score for vote in votes) / len(votes)
    reason = next(vote.reason for vote in votes if vote.passed == passed)
    if 0 < yes < len(votes):
        told = f"the votes disagree: {yes} of {len(votes)} pass"
        reason = f"{told}; {reason}" if reason else told
    return Vote(passed, score, reason)


# ------------------------------------------------------------------------------------ agreement


@dataclass(frozen=True, slots=True)
class Agreement:
    """A judge's outcomes against people's, case by case.

    The first word of a count is the judge's: `pass_fail` counts what it passed and people failed.
    """

    pass_pass: int = 0
    pass_fail: int = 0
    fail_pass: int = 0
    fail_fail: int = 0

    @classmethod
    def of(cls, pairs: Iterable[tuple[bool, bool]]) -> Agreement:
        """From (judge, person) pairs."""
        counts = [0, 0, 0, 0]
        for judge, person in pairs:
            counts[2 * (not judge) + (not person)] += 1
        return cls(*counts)

    @property
    def n(self) -> int:
        return self.pass_pass + self.pass_fail + self.fail_pass + self.fail_fail

    @property
    def accuracy(self) -> float | None:
        """The share of cases on which both say the same; None without any."""
        return (self.pass_pass + self.fail_fail) / self.n if self.n else None

    @property
    def accuracy_ci95(self) -> tuple[float, float] | None:
        """Wilson's interval of the accuracy."""
        return wilson_interval(self.pass_pass + self.fail_fail, self.n) if self.n else None

    @property
    def kappa(self) -> float | None:
        """Cohen's κ (1960): agreement beyond what both would reach by chance.

        None where chance alone agrees always: both said one and the same of every case.
        """
        if not self.n or self._by_chance == 1:
            return None
        return ((self.pass_pass + self.fail_fail) / self.n - self._by_chance) / (1 - self._by_chance)

    @property
    def kappa_ci95(self) -> tuple[float, float] | None:
        """κ ± 1.96 large-sample standard errors (Fleiss, Cohen and Everitt 1969, eq. 13), within [-1, 1].

        None where κ is, and where both agree on every case: the standard error is 0 then, however few they are.
        """
        kappa, variance = self.kappa, self._kappa_variance
        if kappa is None or not variance or self.pass_fail + self.fail_pass == 0:
            return None
        half = _Z95 * math.sqrt(variance)
        return max(-1.0, kappa - half), min(1.0, kappa + half)

    @property
    def _by_chance(self) -> float:
        (judge, other_judge), (person, other_person) = self._margins
        return judge * person + other_judge * other_person

    @property
    def _margins(self) -> tuple[tuple[float, float], tuple[float, float]]:
        """The shares of passes and fails: the judge's, then people's."""
        judge, person = (self.pass_pass + self.pass_fail) / self.n, (self.pass_pass + self.fail_pass) / self.n
        return (judge, 1 - judge), (person, 1 - person)

    @property
    def _kappa_variance(self) -> float | None:
        kappa = self.kappa
        if kappa is None:
            return None
        judge, person = self._margins
        cells = ((self.pass_pass / self.n, self.pass_fail / self.n), (self.fail_pass / self.n, self.fail_fail / self.n))
        same = sum(cells[i][i] * (1 - (judge[i] + person[i]) * (1 - kappa)) ** 2 for i in (0, 1))
        other = (1 - kappa) ** 2 * sum(cells[i][1 - i] * (person[i] + judge[1 - i]) ** 2 for i in (0, 1))
        rest = (kappa - self._by_chance * (1 - kappa)) ** 2
        return max(0.0, same + other - rest) / (self.n * (1 - self._by_chance) ** 2)

    def as_dict(self) -> dict[str, Any]:
        """Plain data: the figures and the confusion table they follow from."""
        return {
            "n": self.n,
            "accuracy": self.accuracy,
            "accuracy_ci95": _listed(self.accuracy_ci95),
            "kappa": self.kappa,
            "kappa_ci95": _listed(self.kappa_ci95),
            "confusion": asdict(self),
        }


def _listed(interval: tuple[float, float] | None) -> list[float] | None:
    return list(interval) if interval else None

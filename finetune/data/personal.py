"""Secrets and personal data in examples: found by their form and their check digits, flagged, never repeated.

Secrets are those of `prompts.redaction`. Personal data are e-mail addresses, phone numbers, IBANs (mod 97, ISO 13616),
payment cards (an issuer's range and Luhn's check digit, ISO/IEC 7812), US social security numbers (the ranges that are
issued), and public IP addresses. Names and postal addresses are not looked for: no form tells them. What is reserved
for documentation (`example.com`, 192.0.2.0/24) is nobody's.
"""

from __future__ import annotations

import ipaddress
import json
import re
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pydantic

from finetune.data.examples import Example
from prompts.redaction import secrets_in

SHOWN_CHARACTERS = 2
Group = Literal["secret", "personal"]


class Flag(pydantic.BaseModel, frozen=True):
    """One secret or piece of personal data: where it stands and what it looks like.

    `place` is `vars.NAME` or `expected`; `shown` its first two characters and its length, never more of it.
    """

    index: int
    place: str
    group: Group
    kind: str
    shown: str


@dataclass(frozen=True, slots=True, order=True)
class Found:
    """A span of a text, from `start` to `end`."""

    start: int
    end: int
    group: Group
    kind: str


def flags_of(examples: Sequence[Example]) -> list[Flag]:
    """All flags in the order of the examples."""
    return [
        Flag(index=index, place=place, group=found.group, kind=found.kind, shown=_shown(text[found.start : found.end]))
        for index, example in enumerate(examples)
        for place, text in _texts(example)
        for found in findings(text)
    ]


def findings(text: str) -> list[Found]:
    """What looks like a secret or personal data in a text, in order, without overlaps; the surest kind wins."""
    taken: list[Found] = []  # in order, so that only the two neighbours of a span can overlap it
    for found in _candidates(text):
        at = bisect_left(taken, found)
        is_free_before = at == 0 or taken[at - 1].end <= found.start
        if is_free_before and (at == len(taken) or found.end <= taken[at].start):
            taken.insert(at, found)
    return taken


def quotable(text: str, characters: int) -> str:
    """The beginning of `text` as a report may quote it: `[kind]` stands for everything that `findings` sees."""
    parts, end = [], 0
    for found in findings(text):
        parts += [text[end : found.start], f"[{found.kind}]"]
        end = found.end
    shown = "".join([*parts, text[end:]])
    shown = shown if len(shown) <= characters else shown[: characters - 1] + "…"
    return shown.encode("utf-8", "replace").decode()  # half a surrogate pair cannot be stored


def _shown(value: str) -> str:
    return f"{value[:SHOWN_CHARACTERS]}… ({len(value)} characters)"


def _texts(example: Example) -> Iterator[tuple[str, str]]:
    for name, value in example.vars.items():
        yield f"vars.{name}", _as_text(value)
    yield "expected", example.expected


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _candidates(text: str) -> Iterator[Found]:
    for start, kind, length, _level in sorted(secrets_in(text)):
        end = start + length if kind != "private key" else _end_of_key(text, start)
        yield Found(start, end, "secret", kind)
    for kind, pattern, measure in _KINDS:
        for match in pattern.finditer(text):
            length = measure(match)
            if length:
                yield Found(match.start(), match.start() + length, "personal", kind)


def _end_of_key(text: str, start: int) -> int:
    """Where a private key ends: after its last line, or with a text that lacks it."""
    last = _KEY_END.search(text, start)
    return last.end() if last else len(text)


_KEY_END = re.compile(r"-----END [A-Z0-9 ]{0,40}PRIVATE KEY[A-Z ]{0,10}-----")
_Measure = Callable[[re.Match[str]], int]  # how many characters of a match are what it looks like; 0 for none


def _email(match: re.Match[str]) -> int:
    host = match["host"].lower()
    is_reserved = re.search(r"(?:^|\.)(?:example(?:\.com|\.org|\.net)?|invalid|test|localhost)$", host)  # RFC 2606
    return 0 if is_reserved else len(match[0])


def _iban(match: re.Match[str]) -> int:
    """The longest beginning, by groups, whose remainder by 97 is 1: capitals that follow may look like a group."""
    groups = match[0].split(" ")
    while groups and len("".join(groups)) >= 15:
        if _mod_97("".join(groups)) == 1:
            return len(" ".join(groups))
        groups.pop()
    return 0


def _mod_97(iban: str) -> int:
    return int("".join(str(int(character, 36)) for character in iban[4:] + iban[:4])) % 97


def _card(match: re.Match[str]) -> int:
    digits = re.sub(r"\D", "", match[0])
    return len(match[0]) if _ISSUED.fullmatch(digits) and _luhn(digits) else 0


_ISSUED = re.compile(
    r"4(?:\d{12}|\d{15}|\d{18})"  # Visa
    r"|(?:5[1-5]\d{2}|222[1-9]|22[3-9]\d|2[3-6]\d{2}|27[01]\d|2720)\d{12}"  # Mastercard
    r"|3[47]\d{13}"  # American Express
    r"|3(?:0[0-5]|[689]\d)\d{11,16}"  # Diners Club
    r"|(?:6011|64[4-9]\d|65\d{2})\d{12,15}"  # Discover
    r"|35(?:2[89]|[3-8]\d)\d{12,15}|(?:2131|1800)\d{11}"  # JCB
    r"|62\d{14,17}"  # UnionPay
    r"|(?:50|5[6-8]|6\d)\d{10,17}"  # Maestro
)


def _luhn(digits: str) -> bool:
    doubled = (sum(divmod(2 * int(digit), 10)) for digit in digits[-2::-2])
    return (sum(int(digit) for digit in digits[::-2]) + sum(doubled)) % 10 == 0


def _public_ip(match: re.Match[str]) -> int:
    try:
        return len(match[0]) if ipaddress.ip_address(match[0]).is_global else 0
    except ValueError:
        return 0


def _whole(match: re.Match[str]) -> int:
    return len(match[0])


def _phone(match: re.Match[str]) -> int:
    """Numbers that are written as phone numbers are, or that follow a word such as `call`."""
    written = match[0]
    digits = re.sub(r"\D", "", written)
    if not 7 <= len(digits) <= 15 or len(set(digits)) < 3 or _DATE.fullmatch(written):
        return 0
    is_long_enough = written.startswith("0") and len(digits) >= 9 and not _DECIMAL.fullmatch(written)
    is_known = written.startswith("+") or is_long_enough or _DIALLED.fullmatch(written)
    before = match.string[max(0, match.start() - _NEAR_CHARACTERS) : match.start()]
    return len(written) if is_known or _SAID.search(before) else 0


_NEAR_CHARACTERS = 24
_DATE = re.compile(r"\d{1,4}([-/.])\d{1,2}\1\d{1,4}(?: \d{1,2})?")
_DECIMAL = re.compile(r"\d+\.\d+")
_DIALLED = re.compile(
    r"(?:1[-. ])?\d{3}([-. ])\d{3}\1\d{4}|(?:1[-. ]?)?\(\d{2,5}\)[-. ]?\d{2,5}[-. ]?\d{3,5}(?:[-. ]\d{2,4})?"
)
_SAID = re.compile(r"(?i)\b(?:tele)?phones?\b|\bcall(?:ed|ing|s)?\b|\b(?:tel|mobile|cell|fax|dial|whatsapp|ring)\b")

_KINDS: tuple[tuple[str, re.Pattern[str], _Measure], ...] = (
    ("e-mail address", re.compile(r"(?<![\w.+-])[\w.+%'-]{1,64}@(?P<host>(?:[\w-]{1,63}\.)+[^\W\d_]{2,24})\b"), _email),
    ("IBAN", re.compile(r"\b[A-Z]{2}\d{2}(?:[A-Z0-9]{11,30}|(?: [A-Z0-9]{4}){2,7}(?: [A-Z0-9]{1,3})?)\b"), _iban),
    ("payment card", re.compile(r"(?<![\w.+-])\d(?:[ -]?\d){11,18}(?![\w-]|\.\d)"), _card),
    ("US social security number",
     re.compile(r"(?<![\w.+-])(?!000|666|9)\d{3}([- ])(?!00)\d{2}\1(?!0000)\d{4}(?![\w-]|\.\d)"), _whole),
    ("IP address", re.compile(r"(?<![\w.])(?:\d{1,3}\.){3}\d{1,3}(?![\w-]|\.\d)"), _public_ip),
    ("IP address", re.compile(r"(?<![\w:.])(?:[0-9A-Fa-f]{0,4}:){2,7}[0-9A-Fa-f]{0,4}(?![\w:])"), _public_ip),
    ("phone number", re.compile(r"(?<![\w.$€£+/-])(?<!\d,)(?:\+|\()?\d[\d() ./-]{5,20}\d(?![\w%€]|[-.,/]\d)"), _phone),
)  # fmt: skip

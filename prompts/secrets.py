"""Secrets in authors' files: the forms of well-known keys, found by their looks and never repeated.

A form is here because its prefix or its shape is its issuer's own: what matches is a key, or was made to look like one.
What only a name gives away (`api_key: …`) is a warning. Examples of documentation, and what is spelt out with x's,
stars or dots, are no secrets.
"""

from __future__ import annotations

import functools
import math
import re
from collections import Counter
from collections.abc import Iterator

from prompts.errors import Fault, Level

ALLOW = re.compile(r"#\s*turnout:\s*allow\s+secret\b")
RULE = "secret"
REDACTION = "[secret: "  # begins what `redacted` puts in place of a secret
SHOWN_CHARACTERS = 4
MIN_ENTROPY_BITS = 3.5  # of a character: 40 random hexadecimal digits have about 3.7, words with hyphens less
MIN_DISTINCT = 8  # characters of a random key; an example of documentation has fewer

# kind, how it begins, how it goes on: plain letters are looked for first, and most texts hold none of these
_FORMS = (
    ("Anthropic key", "sk-ant-", r"[a-z]+[0-9]{2}-[A-Za-z0-9_-]{24,}"),
    ("OpenAI key", "sk-", r"(?:(?:proj|svcacct|admin)-[A-Za-z0-9_-]{32,}|[A-Za-z0-9]{32,})"),
    ("AWS key id", "AKIA", r"[A-Z0-9]{16}"),
    ("AWS key id", "ASIA", r"[A-Z0-9]{16}"),
    ("GitHub token", "gh", r"[pousr]_[A-Za-z0-9]{36,}"),
    ("GitHub token", "github_pat_", r"[A-Za-z0-9]{20,}_[A-Za-z0-9]{40,}"),
    ("GitLab token", "glpat-", r"[A-Za-z0-9_-]{20,}"),
    ("Slack token", "xox", r"[abeprs]-[0-9]+-[A-Za-z0-9-]{16,}"),
    ("Slack token", "xapp-", r"[0-9]-[A-Za-z0-9-]{24,}"),
    ("Google API key", "AIza", r"[A-Za-z0-9_-]{35}"),
    ("Stripe key", "sk_live_", r"[A-Za-z0-9]{16,}"),
    ("Stripe key", "rk_live_", r"[A-Za-z0-9]{16,}"),
    ("Hugging Face token", "hf_", r"[A-Za-z0-9]{34,}"),
    ("JSON Web Token", "eyJ", r"[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{16,}"),
)
_LETTER = "[A-Za-z0-9_-]"
_NAMED = {
    "AWS secret key": (r"(?i:aws.{0,20}?secret.{0,20}?)[\"']?\s*[:=]\s*[\"']?([A-Za-z0-9/+]{40})(?![A-Za-z0-9/+=])", "error"),
    "value that looks like a key": (
        r"(?i:\b(?:api|access|auth|secret|private|client)[ _-]?(?:key|token|secret)|\bpassword|\bpasswd)"
        r"[\"']?\s*[:=]\s*[\"']?([A-Za-z0-9_/+=.-]{24,200})", "warning",
    ),
}  # fmt: skip
_PRIVATE_KEY = re.compile(r"-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY(?: BLOCK)?-----")
_CLUES = ("key", "token", "secret", "passw")  # every name of a secret holds one; most texts hold none
_KEY_END = re.compile(r"-----END (?:[A-Z0-9]+ )*PRIVATE KEY(?: BLOCK)?-----")
_NAMED_FORMS: dict[str, tuple[re.Pattern[str], Level]] = {
    kind: (re.compile(pattern), "error" if level == "error" else "warning") for kind, (pattern, level) in _NAMED.items()
}
_STAND_IN = re.compile(
    r"(?i)x{4}|\*{3}|\.{3}|example|sample|dummy|placeholder|changeme|your|redacted|0{6}|123456|abcdef"
)
_HEADER = re.compile(r"[|>][-+0-9]*(?:\s+#.*)?$")  # of a block of text: `key: |`


def secret_faults(text: str, path: str) -> Iterator[Fault]:
    """A fault for each secret in the text of one file.

    None on lines with the YAML comment `# turnout: allow secret`, nor within a block of text whose first line has it.
    """
    found = sorted(set(secrets_in(text)))
    lines = text.split("\n") if found else []  # most have none, and a text may be the cases of a large suite
    for start, kind, length, level in found:
        index = text.count("\n", 0, start)
        if not _is_allowed(lines, index):
            shown = f"{text[start : start + SHOWN_CHARACTERS]}… ({length} characters)"
            yield Fault(path, index + 1, f"this looks like a secret: {kind} {shown}", _FIX, level, RULE)


_FIX = "take it out, make it invalid and get a new one; what is no secret gets the comment `# turnout: allow secret`"


def redacted(text: str) -> str:
    """`text` with `[secret: KIND]` in place of all that looks like a secret, whatever comments stand beside it.

    A private key goes up to its last line, or to the end of a text that lacks it.
    """
    parts, end = [], 0
    for start, kind, length, _ in sorted(set(secrets_in(text))):
        if start < end:
            continue
        last = _KEY_END.search(text, start) if kind == "private key" else None
        parts += [text[end:start], f"{REDACTION}{kind}]"]
        end = start + length if kind != "private key" else last.end() if last else len(text)
    return "".join([*parts, text[end:]])


def is_secret(value: str) -> bool:
    """Whether a value without a name beside it looks like a key: by its issuer's form, or a word of it as random as one."""
    words = (f"api_key: {word}" for word in re.split("[_-]", value))
    return any(next(secrets_in(text), None) for text in (value, *words))


def secrets_in(text: str) -> Iterator[tuple[int, str, int, Level]]:
    """Place, kind, length and level of what looks like a secret, in no order; no comment allows one here."""
    taken: set[int] = set()
    folded = text.casefold()
    for kind, begin, rest in _FORMS:
        for match in _form(begin, rest).finditer(text) if begin in text else ():
            if _looks_random(match[0]) and match.start() not in taken:
                taken.add(match.start())
                yield match.start(), kind, len(match[0]), "error"
    for match in _PRIVATE_KEY.finditer(text):
        yield match.start(), "private key", len(match[0]), "error"
    if not any(clue in folded for clue in _CLUES):
        return
    for kind, (pattern, level) in _NAMED_FORMS.items():
        for match in pattern.finditer(text):
            if match.start(1) not in taken and _looks_random(match[1]) and _is_dense(match[1]):
                taken.add(match.start(1))
                yield match.start(1), kind, len(match[1]), level


@functools.cache
def _form(begin: str, rest: str) -> re.Pattern[str]:
    """The look back stands behind the beginning, so that the search for that stays plain: ten times as fast."""
    return re.compile(f"{begin}(?<!{_LETTER}{begin}){rest}(?!{_LETTER})")


def _looks_random(value: str) -> bool:
    """Not a stand-in: no `xxxx`, no `example`, and more than a few different characters."""
    return _STAND_IN.search(value) is None and len(set(value)) >= MIN_DISTINCT


def _is_dense(value: str) -> bool:
    """Letters and digits mixed as chance would: a name of something is not."""
    digits = sum(character.isdigit() for character in value)
    return 3 <= digits < len(value) and entropy_bits(value) >= MIN_ENTROPY_BITS


def entropy_bits(value: str) -> float:
    """Shannon's entropy of the characters of `value`, in bits a character."""
    return -sum(n / len(value) * math.log2(n / len(value)) for n in Counter(value).values())


def _is_allowed(lines: list[str], index: int) -> bool:
    """Whether the line has the comment, or the header of the block of text that it stands in."""
    if ALLOW.search(lines[index]):
        return True
    indent = _indent(lines[index])
    for line in reversed(lines[:index]):
        if line.strip() and _indent(line) < indent:
            if _HEADER.search(line.rstrip()):
                return ALLOW.search(line) is not None
            indent = _indent(line)
    return False


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip(" "))

"""What keys and passwords look like, and texts without them: what messages, logs and stored bodies are held to.

A form is here because its prefix or its shape is its issuer's own: what matches is a key, or was made to look like one.
Examples of documentation, and what is spelt out with x's, stars or dots, are no secrets.

A stored text must lose no word of its own, so `redacted` takes out only what looks like a key. A message can do without
a word, and may hold a value that was cut short: `without_secrets` takes out logins, passwords and parts of keys, too.
"""

from __future__ import annotations

import functools
import math
import re
from collections import Counter
from collections.abc import Iterator

REDACTION = "[secret: "  # begins what stands in place of a secret
MIN_ENTROPY_BITS = 3.5  # of a character: 40 random hexadecimal digits have about 3.7, words with hyphens less
MIN_DISTINCT = 8  # characters of a random key; an example of documentation has fewer
MIN_KEY_CHARACTERS = 16  # of a key that nothing but its looks gives away
MIN_WORD_LETTERS = 3  # on average, in a name: runs of a random text have about two

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
    ("Turnout key", "turnout_", r"(?:app|author|ci|admin)_[A-Za-z0-9_-]{43}"),
    ("JSON Web Token", "eyJ", r"[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{16,}"),
)
_BEGINNINGS = tuple(begin for _, begin, _ in _FORMS)
_LETTER = "[A-Za-z0-9_-]"
_NAMED_FORMS = (  # kind, pattern, whether it is certain: of the second only the name before it gives it away
    ("AWS secret key", re.compile(
        r"(?i:aws.{0,20}?secret.{0,20}?)[\"']?\s*[:=]\s*[\"']?([A-Za-z0-9/+]{40})(?![A-Za-z0-9/+=])"), True),
    ("value that looks like a key", re.compile(
        r"(?i:\b(?:api|access|auth|secret|private|client)[ _-]?(?:key|token|secret)|\bpassword|\bpasswd)"
        r"[\"']?\s*[:=]\s*[\"']?([A-Za-z0-9_/+=.-]{24,200})"), False),
)  # fmt: skip
_CLUES = ("key", "token", "secret", "passw")  # every name of a secret holds one; most texts hold none
_PRIVATE_KEY = re.compile(r"-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY(?: BLOCK)?-----")
_KEY_END = re.compile(r"-----END (?:[A-Z0-9]+ )*PRIVATE KEY(?: BLOCK)?-----")
_STAND_IN = re.compile(
    r"(?i)x{4}|\*{3}|\.{3}|example|sample|dummy|placeholder|changeme|your|redacted|0{6}|123456|abcdef"
)


# ------------------------------------------------------------------------------------ what looks like a key


def secrets_in(text: str) -> Iterator[tuple[int, str, int, bool]]:
    """Place, kind, length and certainty of what looks like a secret, in no order; no comment allows one here."""
    taken: set[int] = set()
    for kind, begin, rest in _FORMS:
        for match in _form(begin, rest).finditer(text) if begin in text else ():
            if _looks_random(match[0]) and match.start() not in taken:
                taken.add(match.start())
                yield match.start(), kind, len(match[0]), True
    for match in _PRIVATE_KEY.finditer(text):
        yield match.start(), "private key", len(match[0]), True
    if not _names_a_secret(text):
        return
    for kind, pattern, is_certain in _NAMED_FORMS:
        for match in pattern.finditer(text):
            if match.start(1) not in taken and _looks_random(match[1]) and _is_dense(match[1]):
                taken.add(match.start(1))
                yield match.start(1), kind, len(match[1]), is_certain


def is_secret(value: str) -> bool:
    """Whether a value that should be a name looks like a key: by its issuer's form, or by a word as random as one."""
    words = re.split("[_-]", value)
    return any(map(_is_random_word, words)) or next(secrets_in(value), None) is not None


@functools.cache
def _form(begin: str, rest: str) -> re.Pattern[str]:
    """The look back stands behind the beginning, so that the search for that stays plain: ten times as fast."""
    return re.compile(f"{begin}(?<!{_LETTER}{begin}){rest}(?!{_LETTER})")


def _names_a_secret(text: str) -> bool:
    folded = text.casefold()
    return any(clue in folded for clue in _CLUES)


def _looks_random(value: str) -> bool:
    """Not a stand-in: no `xxxx`, no `example`, and more than a few different characters."""
    return _STAND_IN.search(value) is None and len(set(value)) >= MIN_DISTINCT


def _is_dense(value: str) -> bool:
    """Letters and digits mixed as chance would: a name of something is not."""
    digits = sum(character.isdigit() for character in value)
    return 3 <= digits < len(value) and (entropy_bits(value) >= MIN_ENTROPY_BITS or _is_jumbled(value))


def _is_random_word(word: str) -> bool:
    return len(word) >= MIN_KEY_CHARACTERS and _looks_random(word) and _is_jumbled(word)


_RUN = re.compile("[A-Z]?[a-z]+|[A-Z]+(?![a-z])|[0-9]+")
_DIGIT_WITHIN = re.compile("[0-9](?=[A-Za-z])")


def _is_jumbled(text: str) -> bool:
    """Capitals, letters and digits in no order: a name has words, digits mostly end it, and hexadecimals say nothing by entropy."""
    return len(text) < MIN_WORD_LETTERS * len(_RUN.findall(text)) or len(_DIGIT_WITHIN.findall(text)) >= 2


def entropy_bits(value: str) -> float:
    """Shannon's entropy of the characters of `value`, in bits a character."""
    return -sum(n / len(value) * math.log2(n / len(value)) for n in Counter(value).values())


# ------------------------------------------------------------------------------------ texts without them


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


def without_secrets(message: str) -> str:
    """What a message may repeat of a value: `redacted`, without logins of addresses, passwords and parts of keys.

    It costs a few microseconds where nothing in the message hints at a secret. Of its own answer it gives the same.
    """
    has_beginning = any(begin in message for begin in _BEGINNINGS)
    if has_beginning or _names_a_secret(message):
        message = redacted(message)
    if has_beginning:
        message = _BEGUN_KEY.sub(_without_key, message)
    if "://" in message or "@" in message:
        message = _without_logins(message)
    if "=" in message or "':" in message:
        message = _PASSWORD.sub(rf"\1{REDACTION}password]", message)
    return message


_BEGUN_KEY = re.compile(rf"(?<!{_LETTER})(?:{'|'.join(_BEGINNINGS)}){_LETTER}{{12,}}(?:\.{_LETTER}+)*")
_PASSWORD = re.compile(  # of a query, of a data source's settings, and of a dict as Python writes it
    r"""(?i)((?:[?&;][\w.-]*(?:key|token|secret|signature|sig)|\b(?:password|passwd|passphrase|pwd))=['"]?"""
    rf"""|'[\w-]*(?:password|passwd|secret|token|api[_-]?key)':\ ')(?!{re.escape(REDACTION)})[^\s&;'"]+"""
)


def _without_key(match: re.Match[str]) -> str:
    is_key = _looks_random(match[0]) and _is_jumbled(match[0])
    return f"{REDACTION}part of a key]" if is_key else match[0]


# `scheme://user:…`, to be told from `http://host:8000`, `http://host[:port]`, `http://{{ host }}:{{ port }}`, `file://a.py:f`
_ADDRESS_WITH_LOGIN = re.compile(r"\s*(?!file:)[A-Za-z][\w+.-]*://[^\s:/?#\[\]]*:(?!\d*(?!\w)|(?i:port)\b)")
_NO_USERS = frozenset({"file", "git", "hf", "mailto", "path", "pypi", "run", "sha256"})  # before a colon


def _without_logins(text: str) -> str:
    """A text that is one address has one login, whatever characters its password has; in others it ends with its word."""
    if "@" in text and _ADDRESS_WITH_LOGIN.match(text):
        return _without_login(text)
    return re.sub(r"\S+", lambda match: _without_login(match[0]), text)


def _without_login(word: str) -> str:
    """One word without the user and the password of the address that it holds, whole or cut before its `@`."""
    before, slashes, rest = word.partition("://")
    if not slashes:
        return _without_plain_login(word) if "@" in word else word
    scheme, authority = re.split(r"[^\w+.-]", before)[-1] or "http", re.split("[/?#]", rest, maxsplit=1)[0]
    at = rest.rfind("@")
    if at >= 0 and (":" in authority or "@" in authority):
        return f"{before}://{REDACTION}login]{rest[at:]}"
    if at < 0 and _ADDRESS_WITH_LOGIN.match(f"{scheme}://{authority}"):
        return f"{before}://{REDACTION}login]{rest[len(rest.rstrip(_AROUND)) :]}"
    return word


_AROUND = "'\"`()[]{},.:;…"  # what may stand around a value in a message


_PLAIN_LOGIN = re.compile(r"([^/:]+):.+@(?=[\w\[])")


def _without_plain_login(word: str) -> str:
    """The same of an address without its scheme, `user:…@host`."""
    begin = 1 + max(word.rfind(mark, 0, max(word.find(":"), 0)) for mark in "'\"`([{,=")
    match = _PLAIN_LOGIN.match(word, begin)
    if match is None or match[1].casefold() in _NO_USERS:
        return word
    return f"{word[:begin]}{REDACTION}login]{word[match.end() - 1 :]}"

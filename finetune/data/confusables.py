"""Text as it looks and reads: without what is not seen, and with letters that look like Latin ones as those.

The letters are a short list of Unicode's confusables (UTS 39, https://www.unicode.org/Public/security/latest/confusables.txt):
those of Cyrillic, Greek, Armenian and Latin that stand for a Latin one in running text, after case folding. A letter
whose capital and small form look like different letters has the small form's.
"""

from __future__ import annotations

import unicodedata

_LOOKS = {
    "a": "аαɑ", "b": "вβ", "c": "сϲ", "d": "ԁ", "e": "еεҽ", "g": "ɡ", "h": "нһհ", "i": "іιıɩ", "j": "јϳ", "k": "кκ",
    "l": "ӏǀ", "m": "мμ", "n": "ηո", "o": "оοօ", "p": "рρ", "q": "ԛզ", "r": "г", "s": "ѕ", "t": "тτ", "u": "υս",
    "v": "νѵ", "w": "ԝ", "x": "хχ", "y": "уγү", "z": "ζ",
}  # fmt: skip
_AS_LATIN = {ord(letter): latin for latin, letters in _LOOKS.items() for letter in letters}
# Seen as nothing, though of no category that says so: fillers, the blank of Braille, marks that join or vary others.
_BLANK = frozenset("\u115f\u1160\u3164\uffa0\u2800\u034f\u17b4\u17b5\u180b\u180c\u180d\u180f")
_VARIATIONS = ((0xFE00, 0xFE0F), (0xE0100, 0xE01EF))
_UNSEEN = {"Cf", "Me"}  # formatting (zero widths, directions, tags, the soft hyphen) and enclosing marks


def as_read(text: str) -> str:
    """`text` in NFKD and case-folded, without unseen characters and accents, with look-alikes as Latin letters.

    Marks that make another syllable (of Indic scripts, Thai and Japanese) stay: they are no accents.
    """
    folded = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", text).casefold())
    return "".join(one for one in folded if not _is_unseen(one)).translate(_AS_LATIN)


def _is_unseen(one: str) -> bool:
    if one < "\u00ad":
        return False
    if one in _BLANK or unicodedata.category(one) in _UNSEEN:
        return True
    return _is_accent(one) or any(first <= ord(one) <= last for first, last in _VARIATIONS)


def _is_accent(one: str) -> bool:
    """Marks above, below and through letters, and the vowel points of Hebrew and Arabic, by their combining class."""
    combining = unicodedata.combining(one)
    return combining == 1 or 10 <= combining <= 36 or combining >= 200

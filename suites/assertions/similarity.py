"""Assertions on how near an answer is to a text that is known to be right.

Each has degrees: it holds where its score reaches `threshold`, and of several texts the nearest counts. Words are
compared without regard to case. `levenshtein` alone counts edits, and its threshold is the most of them.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from suites.assertions.extras import need
from suites.assertions.spec import (
    Assertion,
    AssertionErrored,
    AssertionSpec,
    Family,
    Outcome,
    Output,
    outcome,
    refuse,
    shorten,
)
from suites.assertions.text import as_text

MAX_WORDS = 100_000  # of an answer; n-grams of so many are counted within a second
MAX_METEOR_PAIRS = 1_000_000  # METEOR compares every word with every word
MAX_EDIT_CELLS = 2_000_000_000  # of the table behind an edit distance, of which 64 are filled at a time
DEFAULT_EDITS = 5
_WORD = re.compile(r"\w+")

Score = Callable[[str, Sequence[str], AssertionSpec], float]


def _graded(score: Score, default: float, limit: int = MAX_WORDS) -> Callable[[Output, AssertionSpec], Outcome]:
    """An evaluator that holds where `score` reaches the threshold; longer answers than `limit` words are not measured."""

    def evaluate(output: Output, spec: AssertionSpec) -> Outcome:
        words = len(output.text.split())
        if words > limit:
            raise AssertionErrored(f"an answer of {words:,} words is not measured: the most are {limit:,}")
        reached = score(output.text, _references(spec), spec)
        least = default if spec.threshold is None else spec.threshold
        name = spec.type.removeprefix("not-")
        verb = "as expected" if (passed := reached >= least - 1e-9) else "expected"
        reason = f"{verb}: a {name} of at least {least:g} with {shorten(spec.value)}; got {reached:.4f}"
        return Outcome(passed, reached, reason)

    return evaluate


def _references(spec: AssertionSpec) -> list[str]:
    return [as_text(value) for value in (spec.value if isinstance(spec.value, list) else [spec.value])]


def _levenshtein(output: Output, spec: AssertionSpec) -> Outcome:
    from rapidfuzz.distance import Levenshtein

    expected, most = as_text(spec.value), int(DEFAULT_EDITS if spec.threshold is None else spec.threshold)
    if len(output.text) * min(len(expected), 2 * most + 1) > MAX_EDIT_CELLS:
        raise AssertionErrored(f"texts of {len(output.text):,} and {len(expected):,} characters are not compared")
    edits = Levenshtein.distance(output.text, expected, score_cutoff=most)
    found = f"{edits} from" if edits <= most else f"more than {most} from"
    return outcome(edits <= most, f"at most {most} edits from {shorten(expected)} ({found} it)", output.text)


def _bleu(text: str, references: Sequence[str], _spec: AssertionSpec) -> float:
    """BLEU-4 of one sentence (Papineni et al. 2002); orders that a short text has no n-grams of are left out."""
    from sacrebleu.metrics.bleu import BLEU

    measure = BLEU(lowercase=True, tokenize="none", smooth_method="floor", smooth_value=1e-7, effective_order=True)
    return min(1.0, float(measure.sentence_score(text, list(references)).score) / 100)


def _gleu(text: str, references: Sequence[str], _spec: AssertionSpec) -> float:
    """The lesser of precision and recall over all n-grams of one to four words (Wu et al. 2016)."""
    found = _all_grams(text)
    return max(_gleu_with(found, _all_grams(reference)) for reference in references)


def _gleu_with(found: Counter[tuple[str, ...]], wanted: Counter[tuple[str, ...]]) -> float:
    most = max(found.total(), wanted.total())
    return (found & wanted).total() / most if most else 0.0


def _all_grams(text: str) -> Counter[tuple[str, ...]]:
    words = [word.rstrip(".") for word in text.lower().split()]
    return sum((_grams(words, size) for size in range(1, 5)), Counter())


def _grams(words: Sequence[str], size: int) -> Counter[tuple[str, ...]]:
    return Counter(zip(*(words[start:] for start in range(size)), strict=False))


def _rouge_n(text: str, references: Sequence[str], spec: AssertionSpec) -> float:
    """How much of the reference's n-grams the answer has (Lin 2004); `config: {n: 2}` for pairs of words."""
    size = int((spec.config or {}).get("n", 1))
    found = _grams(_words(text), size)
    wanted = [_grams(_words(reference), size) for reference in references]
    return max((found & grams).total() / grams.total() if grams else 0.0 for grams in wanted)


def _words(text: str) -> list[str]:
    return _WORD.findall(text.lower())


def _f_score(text: str, references: Sequence[str], _spec: AssertionSpec) -> float:
    """The harmonic mean of precision and recall over words, as SQuAD has it (Rajpurkar et al. 2016)."""
    found = Counter(_words(text))
    return max(_f1(found, Counter(_words(reference))) for reference in references)


def _f1(found: Counter[str], wanted: Counter[str]) -> float:
    total = found.total() + wanted.total()
    return 2 * (found & wanted).total() / total if total else 0.0


def _meteor(text: str, references: Sequence[str], spec: AssertionSpec) -> float:
    """METEOR (Banerjee and Lavie 2005) by words and their stems.

    Not by synonyms: they would need a dictionary that is fetched, and the score would depend on whether it was.
    """
    from nltk.stem.porter import PorterStemmer
    from nltk.translate.meteor_score import single_meteor_score

    weights = {"alpha": 0.9, "beta": 3.0, "gamma": 0.5} | (spec.config or {})
    found = _bare_words(text)
    best = 0.0
    for reference in map(_bare_words, references):
        if len(found) * len(reference) > MAX_METEOR_PAIRS:
            raise AssertionErrored(f"texts of {len(found):,} and {len(reference):,} words are not compared by METEOR")
        if found and reference:
            score = single_meteor_score(reference, found, stemmer=PorterStemmer(), wordnet=_NoSynonyms(), **weights)
            best = max(best, float(score))
    return best


def _bare_words(text: str) -> list[str]:
    return [word.rstrip(".") for word in text.split()]


class _NoSynonyms:
    """What METEOR asks for synonyms: it knows of none."""

    def synsets(self, _word: str) -> list[Any]:
        return []


def _check_references(spec: AssertionSpec) -> None:
    values = spec.value if isinstance(spec.value, list) else [spec.value]
    if not values or any(isinstance(value, dict | list) or value is None for value in values):
        refuse(
            f"`{spec.type}` needs the text that is right",
            "write `value: text`, or a list of texts of which one may fit",
        )
    if not all(as_text(value).strip() for value in values):
        refuse(f"`{spec.type}` with an empty text is always 0", "write the text that is right")
    check_share(spec)


def share_of(threshold: float) -> str:
    """What a threshold above 1 was likely meant as: 80 and 8 are 0.8."""
    return f"{threshold / (10 if threshold <= 10 else 100):g}" if threshold <= 100 else "0.8"


def check_share(spec: AssertionSpec) -> None:
    """Refuse a threshold that no score can reach."""
    if spec.threshold is not None and spec.threshold > 1:
        refuse(
            f"`{spec.type}` has scores from 0 to 1, its threshold is {spec.threshold:g}",
            f"write it as a share, such as {share_of(spec.threshold)}",
        )


def _check_levenshtein(spec: AssertionSpec) -> None:
    need(spec, "metrics", "rapidfuzz")
    if spec.value is None or isinstance(spec.value, dict | list):
        refuse(f"`{spec.type}` needs one text", "write `value: text`")
    if spec.threshold is not None and spec.threshold != int(spec.threshold):
        refuse(f"`{spec.type}` counts edits, its threshold is {spec.threshold:g}", "write a whole number")


def _check_bleu(spec: AssertionSpec) -> None:
    need(spec, "metrics", "sacrebleu")
    _check_references(spec)


def _check_rouge(spec: AssertionSpec) -> None:
    _check_references(spec)
    size = _only(spec, "n").get("n", 1)
    if isinstance(size, bool) or size not in range(1, 10):
        refuse(f"`{spec.type}` counts n-grams of {shorten(size)} words", "write `config: {n: 2}`, from 1 to 9")


def _check_meteor(spec: AssertionSpec) -> None:
    need(spec, "metrics", "nltk")
    _check_references(spec)
    for name, value in _only(spec, "alpha", "beta", "gamma").items():
        if (
            isinstance(value, bool)
            or not isinstance(value, int | float)
            or not 0 <= value <= (100 if name == "beta" else 1)
        ):
            refuse(
                f"`{spec.type}`: {name} cannot be {shorten(value)}",
                "alpha and gamma are from 0 to 1, beta from 0 to 100",
            )


def _only(spec: AssertionSpec, *known: str) -> dict[str, Any]:
    config = spec.config or {}
    for name in config:
        if name not in known:
            refuse(f"`{spec.type}` has no setting {name[:40]!r}", f"known here: {', '.join(known)}")
    return config


_WITH_CONFIG = frozenset({"transform", "config"})
FAMILY: Family = {
    "levenshtein": Assertion(_levenshtein, _check_levenshtein),
    "bleu": Assertion(_graded(_bleu, 0.5), _check_bleu),
    "gleu": Assertion(_graded(_gleu, 0.5), _check_references),
    "rouge-n": Assertion(_graded(_rouge_n, 0.75), _check_rouge, takes=_WITH_CONFIG),
    "f-score": Assertion(_graded(_f_score, 0.5), _check_references),
    "meteor": Assertion(_graded(_meteor, 0.5), _check_meteor, takes=_WITH_CONFIG),
}

"""Rows whose answer is probably wrong, judged by runs that did not see them."""

from __future__ import annotations

import math
import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

from finetune.plan.search import Judged

_FAR_OUT = 3.0  # interquartile ranges above the third quartile: Tukey's outer fence
_FEWEST = 4  # losses without which quartiles say nothing


def are_labels(answers: Sequence[str]) -> bool:
    """Whether at least half of the rows share their answer with another."""
    times = Counter(answer.strip() for answer in answers)
    return 2 * sum(count for count in times.values() if count > 1) >= len(answers)


def find_mislabelled(judged: Iterable[Judged], answers: Sequence[str]) -> tuple[Judged, ...]:
    """The rows to look at, the likeliest mistake first; `answers` are those of all training rows.

    Labels, by confident learning (Northcutt, Jiang and Chuang, 2021): a row's own label is less likely than it is on
    average where it is given, while the label answered in its place is at least as likely as that one is on average
    where it is given. Of all other labels only the answered one is asked, which greedy decoding finds likeliest.
    Free text: the answer was another one, and the loss lies above the third quartile by three interquartile ranges.
    """
    found = tuple(judged)
    return _labels(found, answers) if are_labels(answers) else _free_text(found, answers)


def _labels(judged: Sequence[Judged], answers: Sequence[str]) -> tuple[Judged, ...]:
    likelihoods: defaultdict[str, list[float]] = defaultdict(list)
    for one in judged:
        likelihoods[answers[one.row].strip()].append(math.exp(one.log_likelihood))
    usual = {answer: statistics.fmean(values) for answer, values in likelihoods.items()}

    def is_suspect(one: Judged) -> bool:
        own, other = answers[one.row].strip(), one.answered.strip()
        if other == own or other not in usual or one.other_log_likelihood is None:
            return False
        return math.exp(one.log_likelihood) < usual[own] and math.exp(one.other_log_likelihood) >= usual[other]

    return tuple(sorted(filter(is_suspect, judged), key=lambda one: (_margin(one), one.row)))


def _margin(one: Judged) -> float:
    return one.log_likelihood - (one.other_log_likelihood or 0.0)


def _free_text(judged: Sequence[Judged], answers: Sequence[str]) -> tuple[Judged, ...]:
    if len(judged) < _FEWEST:
        return ()
    first, _, third = statistics.quantiles((one.loss for one in judged), n=4, method="inclusive")
    fence = third + _FAR_OUT * (third - first)
    wrong = [one for one in judged if one.answered.strip() != answers[one.row].strip() and one.loss > fence]
    return tuple(sorted(wrong, key=lambda one: (-one.loss, one.row)))

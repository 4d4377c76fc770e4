"""Comparing the answers to one case, once all of them are in: which of them is the best, and what its cases come to then."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from suites.assertions import ASSERT_SET, AssertionErrored, AssertionSpec, AssertionWaits, Outcome, Output, Scene, walk
from suites.assertions.compared import COMPARED, Choice, Scoring, choose
from suites.assertions.judged import SELECT_BEST
from suites.assertions.spec import Aids, Spending
from suites.case import Case
from suites.judge import Judged, concluded, errored, reported, set_of, waiting
from suites.results import CaseResult

CLOSE = 1e-9  # scores nearer than this are equal: sums of tenths differ by less

Rule = Literal["repeats", "variants", "gate", "itself"]
"""What is compared, and who passes where several are the best.

`repeats` of one variant, and the two variants of a `gate`: all of the best pass, so that no place among them counts.
Several `variants` of a run: exactly one passes, of equals the first, as in promptfoo. A variant with `itself`: it passes.
"""


@dataclass(frozen=True, slots=True)
class Answer:
    """One of the answers to a case: who gave it, in words, and what it has come to so far."""

    by: str
    result: CaseResult


@dataclass(frozen=True, slots=True)
class _Errored:
    """Why one of several answers could not be compared."""

    reason: str


async def compare(case: Case, answers: Sequence[Answer], aids: Aids | None, rule: Rule) -> list[CaseResult]:
    """What each of these answers comes to by all of the case's assertions, those that compare among them.

    One that never came stays as it is; of the others two or more are needed. What judges took counts with the first of
    them. `aids` ask the judges; None where none is to be asked.
    """
    found = [answer.result for answer in answers]
    here = [number for number, result in enumerate(found) if result.output is not None]
    if not here:
        return found
    specs = tuple(case.filled_asserts())
    scene = Scene(Output(""), case.known, case.id, found[here[0]].repeat, aids)
    compared = [answers[number] for number in here]
    columns = [await _judged(scene, spec, compared, rule) for spec in _comparing(specs)]
    for place, number in enumerate(here):
        found[number] = _settled(case, specs, found[number], [column[place] for column in columns])
    found[here[0]] = _with_spending(found[here[0]], aids)
    return found


def _comparing(specs: Sequence[AssertionSpec]) -> list[AssertionSpec]:
    return [spec for whole in specs for spec in walk(whole) if spec.type in COMPARED]


async def _judged(scene: Scene, spec: AssertionSpec, answers: Sequence[Answer], rule: Rule) -> list[Judged]:
    """What one assertion says of each answer."""
    try:
        found = await _assessed(scene, spec, answers, rule)
    except AssertionErrored as error:
        return [errored(spec, str(error))] * len(answers)
    except AssertionWaits as error:
        return [waiting(spec, str(error))] * len(answers)
    return [errored(spec, one.reason) if isinstance(one, _Errored) else reported(spec, one) for one in found]


async def _assessed(
    scene: Scene, spec: AssertionSpec, answers: Sequence[Answer], rule: Rule
) -> Sequence[Outcome | _Errored]:
    """As `assess` for one answer: whatever goes wrong inside is an assertion that errored, and no end of the run."""
    try:
        return await _outcomes(scene, spec, answers, rule)
    except (AssertionErrored, AssertionWaits):
        raise
    except Exception as error:
        raise AssertionErrored(f"`{spec.type}` crashed: {type(error).__name__}: {error}") from error


async def _outcomes(
    scene: Scene, spec: AssertionSpec, answers: Sequence[Answer], rule: Rule
) -> Sequence[Outcome | _Errored]:
    if rule == "itself":
        return [Outcome(True, 1.0, "the only variant: it is compared with itself")] * len(answers)
    if len(answers) < 2:
        raise AssertionErrored(_too_few(spec))
    if spec.type == SELECT_BEST:
        return await _select_best(scene, spec, answers, rule)
    return _max_score(spec, answers, rule)


def _too_few(spec: AssertionSpec) -> str:
    return f"`{spec.type}` compares several answers to a case, and there was only one"


def _first_alone(passed: Sequence[bool], rule: Rule) -> list[bool]:
    """The first of those that pass, alone, where the rule has exactly one pass."""
    return [is_best and not (rule == "variants" and any(passed[:number])) for number, is_best in enumerate(passed)]


# ------------------------------------------------------------------------------------ by a judge


async def _select_best(
    scene: Scene, spec: AssertionSpec, answers: Sequence[Answer], rule: Rule
) -> Sequence[Outcome | _Errored]:
    """Equal answers are one for the judge."""
    given = [answer.result.output or "" for answer in answers]
    texts = list(dict.fromkeys(given))
    if len(texts) == 1:
        same = f"all {len(answers)} answers are the same"
        first = _first_alone([True] * len(answers), rule)
        return [Outcome(ok, float(ok), same if ok else f"{same}, and the first counts") for ok in first]
    choice = await choose(scene, spec, texts, turned=rule != "repeats")
    numbers = [texts.index(text) for text in given]
    chosen = _first_alone([number == choice.best for number in numbers], rule)
    return [_chosen(choice, number, ok, len(texts)) for number, ok in zip(numbers, chosen, strict=True)]


def _chosen(choice: Choice, number: int, passed: bool, count: int) -> Outcome:
    """What a judge's choice says of the text of this number."""
    if number == choice.best and not passed:
        return Outcome(False, 0.0, f"the same as the best of {count} answers, which an earlier variant gave")
    told = f"{'the best' if passed else 'not the best'} of {count} answers"
    reason = f"{told}: {choice.reason}" if choice.reason else told
    parts = tuple(Outcome(best == number, float(best == number), why) for best, why in choice.votes)
    shown = parts if len(parts) > 1 else ()
    return Outcome(passed, choice.share(number), f"{reason} ({choice.signature})", parts=shown)


# ------------------------------------------------------------------------------------ by scores


def _max_score(spec: AssertionSpec, answers: Sequence[Answer], rule: Rule) -> Sequence[Outcome | _Errored]:
    """Whose other assertions score highest; one of whose scores is missing has no part in it."""
    scoring = Scoring.of(spec)
    totals = [_total(scoring, answer.result) for answer in answers]
    known = [total for total in totals if total is not None]
    if len(known) < 2:
        raise AssertionErrored(f"{_too_few(spec)} whose other assertions could all be judged")
    best = max(known)
    reaches = scoring.threshold is None or best >= scoring.threshold - CLOSE
    highest = [reaches and total is not None and total >= best - CLOSE for total in totals]
    by = next(answer.by for answer, total in zip(answers, totals, strict=True) if total == best)
    passed = _first_alone(highest, rule)
    return [
        _Errored("another assertion of this answer could not be judged, so its score is unknown")
        if total is None
        else Outcome(ok, float(ok), _score_in_words(total, best, ok, by, scoring.threshold if not reaches else None))
        for total, ok in zip(totals, passed, strict=True)
    ]


def _score_in_words(total: float, best: float, passed: bool, by: str, missed: float | None) -> str:
    if missed is not None:
        return f"none is chosen: a score of {total:.4g}, and the highest, {best:.4g}, is below {missed:g}"
    if passed:
        return f"the highest score, {total:.4g}"
    if total >= best - CLOSE:
        return f"as high a score, {total:.4g}, as that of {by}, which comes first"
    return f"a score of {total:.4g}; the highest is {best:.4g}, of {by}"


def _total(scoring: Scoring, result: CaseResult) -> float | None:
    """The score of an answer by its case's other assertions; None where one of them errored.

    A set counts as one, by its own score. Raises AssertionWaits where people have yet to judge one of them.
    """
    others = [whole for whole in result.outcomes if not any(part.type in COMPARED for part in whole.walk())]
    if any(other.status == "skipped" for other in others):
        raise AssertionWaits("the scores are compared when people have rated these answers")
    if any(other.score is None for other in others):
        return None
    return scoring.total([(other.type, other.score or 0.0) for other in others])


# ------------------------------------------------------------------------------------ what follows


def _settled(case: Case, specs: Sequence[AssertionSpec], result: CaseResult, found: Sequence[Judged]) -> CaseResult:
    """The result with what its comparisons found, in the order in which they stand in the case."""
    left = iter(found)
    outcomes = tuple(_with(spec, judged, left) for spec, judged in zip(specs, result.outcomes, strict=True))
    judgement = concluded(outcomes, case.threshold)
    return replace(
        result,
        status=judgement.status,
        score=judgement.score,
        outcomes=judgement.outcomes,
        error=judgement.error,
    )


def _with(spec: AssertionSpec, judged: Judged, found: Iterator[Judged]) -> Judged:
    """An outcome whose comparisons, itself or among its members, are those that `found` gives next."""
    if spec.type in COMPARED:
        return next(found)
    if spec.type != ASSERT_SET or not _comparing([spec]):
        return judged
    if not judged.parts:  # it could not be judged at all
        for _ in _comparing([spec]):
            next(found)
        return judged
    return set_of(spec, tuple(_with(part, one, found) for part, one in zip(spec.asserts, judged.parts, strict=True)))


def _with_spending(result: CaseResult, aids: Aids | None) -> CaseResult:
    """The result with what its comparisons' judges took beside what judges took before."""
    spent = aids.spent if aids is not None else None
    if spent is None:
        return result
    both = Spending()
    both.add(spent.usage, spent.cost_usd)
    if result.judge_usage is not None:
        both.add(result.judge_usage, result.judge_cost_usd)
    total = both.total
    assert total is not None  # noqa: S101 - something was added
    return replace(result, judge_usage=total.usage, judge_cost_usd=total.cost_usd)

"""The rungs below training: other parameters, a choice among the labels, and examples in the prompt."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from finetune.data import answer_limit, asking_variables
from prompts.errors import RenderError
from service.advising.asking import Answers, Questions, Way
from service.advising.choosing import Choosing, Shots
from service.advising.folds import Folds
from service.advising.spec import Work
from service.pool import price_of
from service.settings import FakeSpec
from service.tokens import TokenCounter
from suites.advice.answers import RIGHT, Asked, outcomes
from suites.advice.report import Rung, Skipped, Variant, scored

MOST_CHOICES = 200
_LONGEST_LOOKED_AT = 5  # prompts, by their letters, whose tokens are counted


@dataclass(frozen=True)
class Rungs:
    """What the cheaper rungs are tried on. `labels` are the answers there are, empty for free text."""

    work: Work
    questions: Questions
    folds: Folds
    labels: tuple[str, ...]

    @property
    def rows(self) -> tuple[int, ...]:
        """Those that are asked."""
        return self.folds.asked


@dataclass(frozen=True)
class Tried:
    """A variant and how it was asked, so that it can be timed."""

    variant: Variant
    way: Way
    asked: tuple[Asked, ...] = ()


def ask_prompt(rungs: Rungs, model: str, key: str, rung: Rung, title: str) -> Tried:
    """The prompt alone, of `model`."""
    way = Way(model)
    return _tried(key, rung, title, way, rungs, rungs.questions.ask(way, rungs.rows))


def parameters(rungs: Rungs, before: Sequence[Asked]) -> Iterator[Tried | Skipped]:
    """Parameters that could mend what was seen, and a choice among the labels."""
    changes = parameter_changes(rungs.work, before, is_free_text=not rungs.labels)
    if changes:
        way = Way(rungs.work.model, changes=changes)
        title = "parameters " + ", ".join(f"{name} {value}" for name, value in changes.items())
        yield _tried(
            "parameters", "parameters", title, way, rungs, rungs.questions.ask(way, rungs.rows), changes=changes
        )
    yield _choice(rungs)


def parameter_changes(work: Work, before: Sequence[Asked], *, is_free_text: bool) -> dict[str, Any]:
    """Temperature 0 where the prompt asks with another, and twice the tokens where free text was cut."""
    changes: dict[str, Any] = {}
    if work.parameters.get("temperature") != 0:
        changes["temperature"] = 0
    if is_free_text and any(one.finish == "length" and not one.is_right for one in before):
        name = "max_completion_tokens" if "max_completion_tokens" in work.parameters else "max_tokens"
        changes[name] = 2 * answer_limit(work.material.prompt)
    return changes


def _no_choice(rungs: Rungs) -> str:
    """Why a choice among the labels cannot be tried at all."""
    model = rungs.work.model
    if not 1 < len(rungs.labels) <= MOST_CHOICES:
        return "the answers are no small set of labels"
    if isinstance(rungs.work.claim.settings.model(model), FakeSpec):
        return f"{model} is a fake model, which takes every parameter and heeds none"
    return ""


def _choice(rungs: Rungs) -> Tried | Skipped:
    what, model = "a choice among the labels", rungs.work.model
    if why := _no_choice(rungs):
        return Skipped(what=what, why=why)
    changes = {"structured_outputs": {"choice": list(rungs.labels)}}
    way = Way(model, changes=changes)
    refused = rungs.questions.ask(way, rungs.rows[:1]).asked[0].error
    if refused:
        return Skipped(what=what, why=f"{model} does not take structured_outputs: {refused[:200]}")
    answers = rungs.questions.ask(way, rungs.rows)
    if all(one.answer.strip() not in rungs.labels for one in answers.asked):
        return Skipped(what=what, why=f"{model} took structured_outputs and heeded it not: no answer is a label")
    return _tried("choice", "parameters", "a choice among the labels", way, rungs, answers, changes=changes)


# ------------------------------------------------------------------------------------------------ examples


def few_shot(rungs: Rungs, choosing: Choosing) -> Iterator[Tried | Skipped]:
    """Examples that cover, then those most similar to each input, each in rising number as long as more is better."""
    for rung, how, choose in _ways_to_choose(choosing):
        best = -1
        for count, shots, obstacle in _fitting(rungs, choose):
            named = f"{count} examples, {how}"
            if obstacle:
                yield Skipped(what=named, why=obstacle)
                break
            found = _with_shots(rungs, rung, named, count, shots)
            yield found
            if found.variant.right <= best:
                yield Skipped(what=f"more than {named}", why=f"{count} did no better than fewer")
                break
            best = found.variant.right


def _ways_to_choose(choosing: Choosing) -> tuple[tuple[Rung, str, Callable[[int], Shots]], ...]:
    return (
        ("few-shot", "chosen to cover", choosing.covering),
        ("similar", "the most similar ones", choosing.similar),
    )


def _fitting(rungs: Rungs, choose: Callable[[int], Shots]) -> Iterator[tuple[int, Shots, str]]:
    """The numbers of examples to try, rising, each with its examples; the last may have an obstacle, and no more come."""
    for count in sorted(set(rungs.work.spec.shots)):
        rungs.work.claim.check()
        obstacle = _obstacle(rungs, count)
        shots = {} if obstacle else choose(count)
        obstacle = obstacle or _too_long(rungs, shots)
        yield count, shots, obstacle
        if obstacle:
            return


def _with_shots(rungs: Rungs, rung: Rung, title: str, count: int, shots: Shots) -> Tried:
    way = Way(rungs.work.model, shots=shots)
    note = (
        "needs retrieval when a request comes: what it would give, not what can be shipped" if rung == "similar" else ""
    )
    answers = rungs.questions.ask(way, rungs.rows)
    return _tried(f"{rung}-{count}", rung, title, way, rungs, answers, ships=rung == "few-shot", shots=count, note=note)


def _obstacle(rungs: Rungs, count: int) -> str:
    """Why so many examples cannot be tried at all."""
    if not asking_variables(rungs.work.material.prompt):
        return "the prompt's last user message has no variables that examples could fill"
    fewest = min(len(rungs.folds.train(fold)) for fold in range(rungs.folds.count))
    return f"the other folds have {fewest} examples, fewer than twice as many" if fewest < 2 * count else ""


def _too_long(rungs: Rungs, shots: Shots) -> str:
    """Why these do not fit into the model's context, or into what the suite lets a request cost; empty where they do."""
    questions, model = rungs.questions, rungs.work.model
    counter = TokenCounter(rungs.work.claim.settings.model(model))
    try:
        letters = {row: sum(len(str(one.content)) for one in questions.messages(row, shots[row])) for row in rungs.rows}
    except RenderError as error:
        return f"they do not fit the prompt: {error}"
    longest = sorted(rungs.rows, key=lambda row: -letters[row])[:_LONGEST_LOOKED_AT]
    asked = [counter.count([one.as_dict() for one in questions.messages(row, shots[row])]).count for row in longest]
    most = max(asked) + answer_limit(rungs.work.material.prompt)
    if counter.context is not None and most > counter.context:
        return f"{most:,} tokens with the answer, and {model} takes {counter.context:,}"
    return _too_dear(rungs, max(asked))


def _too_dear(rungs: Rungs, prompt_tokens: int) -> str:
    """By the longest prompt: what the suite allows is a mean, so only what is far beyond is left out."""
    bound = rungs.work.material.suite.thresholds.cost_per_1k_usd
    price = price_of(rungs.work.claim.settings, rungs.work.model)
    if bound is None or price is None:
        return ""
    cost = prompt_tokens * price.input_per_mtok / 1000
    return f"${cost:.4g} of prompt for 1,000 requests, and the suite allows ${bound:g}" if cost > 2 * bound else ""


# ------------------------------------------------------------------------------------------------ announced


@dataclass(frozen=True)
class Pass:
    """Rows that may be asked about in one way, `times` over, and how; `why` says what is not tried."""

    how: str
    times: int = 1
    why: str = ""


def passes(rungs: Rungs, choosing: Choosing) -> Iterator[Pass]:
    """Every pass over the rows that may be made, at most; nothing is asked for it."""
    model, against = rungs.work.model, rungs.work.spec.against
    yield Pass(f"by {model} with the prompt alone")
    if parameter_changes(rungs.work, (), is_free_text=False):
        yield Pass("at temperature 0")
    elif not rungs.labels:
        yield Pass("with room for longer answers, where answers are cut")
    no_choice = _no_choice(rungs)
    yield Pass("with a choice among the labels, where the server takes one", int(not no_choice), no_choice)
    for _, how, choose in _ways_to_choose(choosing):
        tried = [(count, obstacle) for count, _, obstacle in _fitting(rungs, choose)]
        counts = [str(count) for count, obstacle in tried if not obstacle]
        if counts:
            named = " or ".join(filter(None, (", ".join(counts[:-1]), counts[-1])))
            yield Pass(f"with {named} examples in the prompt, {how}", len(counts))
        yield from (Pass(f"{count} examples, {how}", 0, obstacle) for count, obstacle in tried if obstacle)
    if against is not None:
        yield Pass(f"by {against} with the prompt alone")


def most_shots(rungs: Rungs, choosing: Choosing) -> int:
    """The most examples in the prompt that may be tried, 0 where none can be."""
    return max((count for count, _, obstacle in _fitting(rungs, choosing.covering) if not obstacle), default=0)


def best_shots(tried: Sequence[Tried]) -> Tried | None:
    """The covering examples with the most right answers; of equals the fewest."""
    found = [one for one in tried if one.variant.rung == "few-shot"]
    return min(found, key=lambda one: (-one.variant.outcomes.count(RIGHT), one.variant.shots), default=None)


def _tried(key: str, rung: Rung, title: str, way: Way, rungs: Rungs, answers: Answers, **known: Any) -> Tried:
    variant = scored(
        key, rung, title, way.model, outcomes(answers.asked, len(rungs.questions.rows)), spend=answers.spend, **known
    )
    return Tried(variant, way, answers.asked)

"""The rungs below training: other parameters, a choice among the labels, and examples in the prompt."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from finetune.data import answer_limit
from prompts.errors import RenderError
from service.advising.asking import Answers, Questions, Way, asking_variables
from service.advising.folds import Folds
from service.advising.spec import Work
from service.pool import price_of
from service.settings import FakeSpec
from service.tokens import TokenCounter
from suites.advice.answers import RIGHT, Asked, outcomes
from suites.advice.report import Rung, Skipped, Variant, scored
from suites.advice.shots import Likeness, covering, most_similar

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


def _choice(rungs: Rungs) -> Tried | Skipped:
    what, model = "a choice among the labels", rungs.work.model
    if not 1 < len(rungs.labels) <= MOST_CHOICES:
        return Skipped(what=what, why="the answers are no small set of labels")
    if isinstance(rungs.work.claim.settings.model(model), FakeSpec):
        return Skipped(what=what, why=f"{model} is a fake model, which takes every parameter and heeds none")
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


def few_shot(rungs: Rungs, likeness: Likeness) -> Iterator[Tried | Skipped]:
    """Examples that cover, then those most similar to each input, each in rising number as long as more is better."""
    for rung, choose in (("few-shot", _covering), ("similar", _similar)):
        best = -1
        for count in sorted(set(rungs.work.spec.shots)):
            named = f"{count} examples, {'chosen to cover' if rung == 'few-shot' else 'the most similar ones'}"
            obstacle = _obstacle(rungs, count) or (_too_long(rungs, choose(rungs, likeness, count)))
            if obstacle:
                yield Skipped(what=named, why=obstacle)
                break
            found = _with_shots(rungs, "few-shot" if rung == "few-shot" else "similar", named, count,
                                choose(rungs, likeness, count))  # fmt: skip
            yield found
            if found.variant.right <= best:
                yield Skipped(what=f"more than {named}", why=f"{count} did no better than fewer")
                break
            best = found.variant.right


def _with_shots(rungs: Rungs, rung: Rung, title: str, count: int, shots: Mapping[int, tuple[int, ...]]) -> Tried:
    way = Way(rungs.work.model, shots=shots)
    note = (
        "needs retrieval when a request comes: what it would give, not what can be shipped" if rung == "similar" else ""
    )
    answers = rungs.questions.ask(way, rungs.rows)
    return _tried(f"{rung}-{count}", rung, title, way, rungs, answers, ships=rung == "few-shot", shots=count, note=note)


def _covering(rungs: Rungs, likeness: Likeness, count: int) -> dict[int, tuple[int, ...]]:
    """For each row the examples that cover the folds it is not in."""
    of_fold = shots_of_folds(rungs, likeness, count)
    return {row: of_fold[rungs.folds.of[row]] for row in rungs.rows}


def shots_of_folds(rungs: Rungs, likeness: Likeness, count: int) -> dict[int, tuple[int, ...]]:
    """For each fold the examples of the others that cover them."""
    answers = [one.expected for one in rungs.questions.rows]
    return {
        fold: covering(likeness, answers, frozenset(rungs.folds.train(fold)), count)
        for fold in range(rungs.folds.count)
    }


def _similar(rungs: Rungs, likeness: Likeness, count: int) -> dict[int, tuple[int, ...]]:
    allowed = [frozenset(rungs.folds.train(fold)) for fold in range(rungs.folds.count)]
    return {row: most_similar(likeness, row, allowed[rungs.folds.of[row]], count) for row in rungs.rows}


def _obstacle(rungs: Rungs, count: int) -> str:
    """Why so many examples cannot be tried at all."""
    if not asking_variables(rungs.work.material.prompt):
        return "the prompt's last user message has no variables that examples could fill"
    fewest = min(len(rungs.folds.train(fold)) for fold in range(rungs.folds.count))
    return f"the other folds have {fewest} examples, fewer than twice as many" if fewest < 2 * count else ""


def _too_long(rungs: Rungs, shots: Mapping[int, tuple[int, ...]]) -> str:
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


def best_shots(tried: Sequence[Tried]) -> Tried | None:
    """The covering examples with the most right answers; of equals the fewest."""
    found = [one for one in tried if one.variant.rung == "few-shot"]
    return min(found, key=lambda one: (-one.variant.outcomes.count(RIGHT), one.variant.shots), default=None)


def _tried(key: str, rung: Rung, title: str, way: Way, rungs: Rungs, answers: Answers, **known: Any) -> Tried:
    variant = scored(
        key, rung, title, way.model, outcomes(answers.asked, len(rungs.questions.rows)), spend=answers.spend, **known
    )
    return Tried(variant, way, answers.asked)

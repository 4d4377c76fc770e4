"""Assertions that a model decides: a judge is asked about the answer, by a rubric, as often as the suite says.

What promptfoo calls `llm-rubric`, `factuality`, `model-graded-closedqa`, `g-eval`, `classifier`, `context-recall`,
`context-relevance`, `context-faithfulness` and `answer-relevance`. A judge that cannot be reached, or gives no verdict
when asked again, makes the case errored: it neither passes nor fails by that. `select-best`, which a judge decides, too,
looks at several answers: see `compared`.
"""

from __future__ import annotations

import asyncio
import json
import math
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from prompts.errors import ModelError
from prompts.messages import Message
from suites import judges
from suites.assertions.embedded import cosine
from suites.assertions.rubric import check_rubric, mark_of, rendered, rubric_of, short_digest
from suites.assertions.similarity import check_share
from suites.assertions.spec import (
    Aids,
    AssertionErrored,
    AssertionSpec,
    Family,
    Outcome,
    Rubric,
    Scene,
    SceneAssertion,
    refuse,
    shorten,
)
from suites.assertions.text import as_text
from suites.judges import Unreadable, Vote

G_EVAL_POINTS = 10
QUESTIONS = 3  # that `answer-relevance` has written for an answer
MOST_CRITERIA = 20
VARIED = 0.7  # the temperature where one question is asked several times: at 0 all votes would be one
FACTUAL = {"subset": 1.0, "superset": 1.0, "agree": 1.0, "disagree": 0.0, "differButFactual": 1.0}  # A to E
SELECT_BEST = "select-best"
RELEVANCE = "answer-relevance"
_AGAIN = (
    "That could not be read: {why}. Give your verdict again, in exactly the form that was asked for and nothing else."
)
_SENTENCE = re.compile(r"(?<=[.!?。！？])\s+")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Bench:
    """A judge and what lies before it. `rubrics` collects those that it was asked by."""

    scene: Scene
    spec: AssertionSpec
    aids: Aids
    alias: str
    question: str
    rubrics: dict[str, Rubric] = field(default_factory=dict)

    async def ask(
        self, values: Mapping[str, str], read: Callable[[str], T], vote: int, slot: str = "", *, varied: bool = False
    ) -> T:
        """What `read` finds in the judge's answer, which is asked once more where it finds nothing.

        Raises AssertionErrored where there is no answer, or no verdict in it.
        """
        rubric = self.rubrics[slot] = await rubric_of(self.spec, slot, self.aids)
        given = {**self._common(), **values}
        messages = rendered(rubric, {**given, "mark": mark_of(*given.values())}, self.scene.variables)
        several = varied or self.aids.votes > 1
        sampling: dict[str, Any] = {"temperature": VARIED, "seed": vote} if several else {"temperature": 0}
        parameters = {**sampling, **rubric.prompt.content.request_parameters()}
        said = await self._said(messages, parameters, vote)
        try:
            judges.check_own(said, self._judged(given))
            if _is_json_asked(parameters) and not judges.is_alone(said):
                raise Unreadable("there is text before its JSON object")
            return read(said)
        except Unreadable as why:
            again = Message("user", _AGAIN.format(why=why))
            said = await self._said((*messages, Message("assistant", said), again), parameters, vote)
        try:
            judges.check_own(said, self._judged(given))
            return read(said)
        except Unreadable as why:
            raise AssertionErrored(
                f"the judge {self.alias} gave no verdict, asked twice: {why}; it said {shorten(said)}"
            ) from why

    async def _said(self, messages: Sequence[Message], parameters: Mapping[str, Any], vote: int) -> str:
        try:
            return (await self.aids.ask(self.alias, messages, parameters, vote)).text
        except ModelError as error:
            raise AssertionErrored(f"the judge {self.alias} did not answer: {error}") from error

    def _judged(self, given: Mapping[str, str]) -> tuple[str, ...]:
        """The texts that models under test wrote, and that the judge may quote."""
        return (self.scene.output.text, given.get("outputs", ""))

    def _common(self) -> dict[str, str]:
        """What every rubric may use, by our names and by promptfoo's."""
        output, value = self.scene.output.text, as_text(self.spec.value) if self.spec.value is not None else ""
        found = dict.fromkeys(("output", "answer", "completion"), output)
        found |= dict.fromkeys(("question", "query", "input"), self.question)
        return found | dict.fromkeys(("value", "rubric", "criteria", "ideal", "groundTruth"), value)

    @property
    def signature(self) -> str:
        """Who judged, and by what: part of every reason."""
        votes = f", {self.aids.votes} votes" if self.aids.votes > 1 else ""
        rubrics = ", ".join(f"{rubric.name} {short_digest(rubric.prompt)}" for rubric in self.rubrics.values())
        return f"judge {self.alias}{votes}; rubric {rubrics}"


def _is_json_asked(parameters: Mapping[str, Any]) -> bool:
    """Whether the upstream is asked for JSON and nothing else."""
    form = parameters.get("response_format")
    return isinstance(form, Mapping) and str(form.get("type", "")).startswith("json")


async def bench_of(scene: Scene, spec: AssertionSpec) -> Bench:
    """The judge of `spec` for an answer; raises AssertionErrored where none can be asked."""
    if scene.aids is None:
        raise AssertionErrored(f"`{spec.type}` needs a model to judge, and none can be asked here")
    alias = spec.provider or scene.aids.judge
    if alias is None:
        raise AssertionErrored(f"`{spec.type}` names no judge: add `provider:`, or `judge: {{model: …}}` to the suite")
    return Bench(scene, spec, scene.aids, alias, await _question(scene, scene.aids))


async def _question(scene: Scene, aids: Aids) -> str:
    """The case's `query`, or what the model under test was asked."""
    query = scene.variables.get("query")
    if isinstance(query, str):
        return query
    messages = await aids.question(scene.case_id)
    texts = [_text_of(message) for message in messages]
    return texts[0] if len(texts) == 1 else "\n\n".join(f"{m.role}: {t}" for m, t in zip(messages, texts, strict=True))


def _text_of(message: Message) -> str:
    if isinstance(message.content, str):
        return message.content
    return "\n".join(str(part["text"]) for part in message.content or () if "text" in part)


_Judge = Callable[[Bench, int], Awaitable[Vote]]


def _by_votes(judge: _Judge) -> Callable[[Scene, AssertionSpec], Awaitable[Outcome]]:
    """An evaluator that asks for every vote at once and takes the majority; each vote stays visible."""

    async def evaluate(scene: Scene, spec: AssertionSpec) -> Outcome:
        bench = await bench_of(scene, spec)
        found = await asyncio.gather(*(judge(bench, vote) for vote in range(bench.aids.votes)), return_exceptions=True)
        for vote in found:
            if isinstance(vote, BaseException):
                raise vote
        votes = [vote for vote in found if isinstance(vote, Vote)]
        whole = judges.majority(votes)
        parts = tuple(Outcome(*_fields(vote)) for vote in votes) if len(votes) > 1 else ()
        reason = whole.reason or ("it holds" if whole.passed else "it does not hold")
        return Outcome(whole.passed, whole.score, f"{reason} ({bench.signature})", parts=parts)

    return evaluate


def _fields(vote: Vote) -> tuple[bool, float, str]:
    return vote.passed, vote.score, vote.reason


def _scored(spec: AssertionSpec, score: float, default: float, reason: str) -> Vote:
    """A vote by its score alone."""
    least = default if spec.threshold is None else spec.threshold
    told = f"{score:.2f} of at least {least:g}"
    return Vote(score >= least - 1e-9, score, f"{told}: {reason}" if reason else told)


# ------------------------------------------------------------------------------------ by a verdict


async def _rubric(bench: Bench, vote: int) -> Vote:
    found = await bench.ask({}, judges.read_rubric, vote)
    least = bench.spec.threshold
    return Vote(found.passed and (least is None or found.score >= least - 1e-9), found.score, found.reason)


async def _closed_qa(bench: Bench, vote: int) -> Vote:
    return await bench.ask({}, judges.read_yes_or_no, vote)


async def _factuality(bench: Bench, vote: int) -> Vote:
    category, reason = await bench.ask({}, judges.read_category, vote)
    names = list(FACTUAL)
    name = names[judges.CATEGORIES.index(category)]
    score = float({**FACTUAL, **(bench.spec.config or {})}[name])
    passed = score > 0 and (bench.spec.threshold is None or score >= bench.spec.threshold - 1e-9)
    return Vote(passed, score, f"category {category} ({name})" + (f": {reason}" if reason else ""))


async def _classifier(bench: Bench, vote: int) -> Vote:
    labels = _labels(bench.spec)
    shown = "\n".join(f"{label}: {meaning}" if meaning else label for label, meaning in labels.items())
    label, reason = await bench.ask({"labels": shown}, lambda said: judges.read_label(said, labels), vote)
    passed = label == bench.spec.value
    return Vote(passed, float(passed), f"labelled {label}" + (f": {reason}" if reason else ""))


async def _classified(scene: Scene, spec: AssertionSpec) -> Outcome:
    """The share of votes for the label is the score, which a threshold bounds; without one the majority decides."""
    found = await _by_votes(_classifier)(scene, spec)
    if spec.threshold is None:
        return found
    return found._replace(passed=found.score >= spec.threshold - 1e-9)


def _labels(spec: AssertionSpec) -> dict[str, str]:
    """The labels to choose from, with what they mean where the author says it."""
    given = (spec.config or {}).get("labels")
    return dict(given) if isinstance(given, dict) else dict.fromkeys(given or (), "")


# ------------------------------------------------------------------------------------ by a score


async def _g_eval(bench: Bench, vote: int) -> Vote:
    """The mean over the criteria; all votes follow the same steps, which are written once for a criterion."""
    criteria = bench.spec.value if isinstance(bench.spec.value, list) else [bench.spec.value]
    found = [await _by_steps(bench, as_text(criterion), vote) for criterion in criteria]
    score = math.fsum(score for score, _ in found) / len(found)
    return _scored(bench.spec, score, 0.7, "; ".join(reason for _, reason in found if reason))


async def _by_steps(bench: Bench, criterion: str, vote: int) -> tuple[float, str]:
    without = {"question": "", "query": "", "input": "", "output": "", "answer": "", "completion": ""}
    steps = await bench.ask({**without, "criteria": criterion, "value": criterion}, _read_steps, 0, "steps")
    values = {"criteria": criterion, "value": criterion, "steps": _numbered(steps), "maxScore": str(G_EVAL_POINTS)}
    return await bench.ask(values, lambda said: judges.read_score(said, G_EVAL_POINTS), vote, "evaluate")


def _read_steps(said: str) -> list[str]:
    steps = judges.read_texts(said, "steps")
    if not steps:
        raise Unreadable("its `steps` are empty")
    return steps


async def _context_recall(bench: Bench, vote: int) -> Vote:
    found = await bench.ask({"context": _context(bench.scene)}, _read_supported, vote)
    return _scored(bench.spec, sum(found) / len(found), 0.5, _of(found, "statements are in the context"))


def _read_supported(said: str) -> list[bool]:
    statements = judges.read_texts(said, "statements")
    if not statements:
        raise Unreadable("its `statements` are empty")
    return judges.read_flags(said, "supported", len(statements))


async def _context_relevance(bench: Bench, vote: int) -> Vote:
    context = _context(bench.scene)
    units = units_of(bench.scene.variables["context"])
    values = {"context": context, "units": _numbered(units)}
    found = await bench.ask(values, lambda said: judges.read_numbers(said, "relevant", len(units)), vote)
    reason = f"{len(found)} of {len(units)} parts of the context are relevant"
    return _scored(bench.spec, len(found) / len(units), 0.5, reason)


async def _context_faithfulness(bench: Bench, vote: int) -> Vote:
    statements = await bench.ask({}, lambda said: judges.read_texts(said, "statements"), vote, "statements")
    if not statements:
        raise AssertionErrored("the answer makes no statement: there is nothing to be faithful to a context")
    values = {"context": _context(bench.scene), "statements": _numbered(statements)}
    found = await bench.ask(
        values, lambda said: judges.read_flags(said, "supported", len(statements)), vote, "verdicts"
    )
    return _scored(bench.spec, sum(found) / len(found), 0.5, _of(found, "statements follow from the context"))


async def _answer_relevance(bench: Bench, vote: int) -> Vote:
    """How near the questions that the answer would answer are to the one that was asked."""
    read = _read_question if bench.spec.rubric_prompt is None else _read_plain_question
    asked = [await bench.ask({}, read, vote * QUESTIONS + number, varied=True) for number in range(QUESTIONS)]
    alias = (bench.spec.config or {}).get("embeddings")
    try:
        question, *others = await bench.aids.embed(alias, [bench.question, *asked])
    except ModelError as error:
        raise AssertionErrored(f"no embeddings: {error}") from error
    score = math.fsum(cosine(question, other) for other in others) / len(others)
    return _scored(bench.spec, min(1.0, max(0.0, score)), 0.7, f"the answer answers {shorten(asked[0])}")


def _read_plain_question(said: str) -> str:
    """The same for an author's own rubric, which may have the question written as plain text."""
    return said.strip() if judges.last_object(said) is None and said.strip() else _read_question(said)


def _read_question(said: str) -> str:
    question = judges.read_object(said, "question")["question"]
    if not isinstance(question, str) or not question.strip():
        raise Unreadable("it holds no `question`")
    return question.strip()


def _context(scene: Scene) -> str:
    context = scene.variables.get("context")
    texts: list[Any] = context if isinstance(context, list) else [context]
    if not texts or not all(isinstance(text, str) and text.strip() for text in texts):
        raise AssertionErrored("the case has no variable `context` with the text that was looked up")
    return "\n\n".join(texts)


def units_of(context: str | Sequence[str]) -> list[str]:
    """The parts of a context: its items where it is a list, else its lines, or the sentences of a single one."""
    if not isinstance(context, str):
        return [str(text).strip() for text in context]
    lines = [line.strip() for line in context.splitlines() if line.strip()]
    return lines if len(lines) > 1 else [part for part in _SENTENCE.split(context.strip()) if part]


def _numbered(texts: Sequence[str]) -> str:
    return "\n".join(f"{number}. {text}" for number, text in enumerate(texts, 1))


def _of(found: Sequence[bool], what: str) -> str:
    return f"{sum(found)} of {len(found)} {what}"


# ------------------------------------------------------------------------------------ check


def check_text(spec: AssertionSpec) -> None:
    """Refuse a type that needs a text to judge by, and has none."""
    if spec.value is None or isinstance(spec.value, dict | list) or not as_text(spec.value).strip():
        refuse(f"`{spec.type}` needs a text to judge by", "write `value: what the answer is held against`")
    _check_common(spec)


def _check_rubric_value(spec: AssertionSpec) -> None:
    if spec.value in (None, "", [], {}) and spec.rubric_prompt is None:
        refuse(f"`{spec.type}` needs what the answer must be like", "write `value: Is polite and names the refund`")
    _check_common(spec)


def _check_factuality(spec: AssertionSpec) -> None:
    for name, score in _config(spec, *FACTUAL).items():
        if isinstance(score, bool) or not isinstance(score, int | float) or not 0 <= score <= 1:
            refuse(f"`{spec.type}`: the score of {name} cannot be {shorten(score)}", "write a number from 0 to 1")
    check_text(spec)


def _check_g_eval(spec: AssertionSpec) -> None:
    criteria = spec.value if isinstance(spec.value, list) else [spec.value]
    if not criteria or not all(isinstance(text, str) and text.strip() for text in criteria):
        refuse(f"`{spec.type}` needs a criterion, or a list of them", "write `value: Is coherent`")
    if len(criteria) > MOST_CRITERIA:
        refuse(
            f"`{spec.type}` has {len(criteria)} criteria", f"keep it to {MOST_CRITERIA}, or write several assertions"
        )
    _check_common(spec)


def _check_classifier(spec: AssertionSpec) -> None:
    given = _config(spec, "labels").get("labels")
    labels: list[Any] = list(given) if isinstance(given, list | dict) else []
    if (
        len(labels) < 2
        or len(set(labels)) < len(labels)
        or not all(isinstance(label, str) and label for label in labels)
    ):
        refuse(
            f"`{spec.type}` needs the labels to choose from", "write `config: {labels: [polite, rude]}`, two or more"
        )
    if spec.value not in labels:
        known = ", ".join(map(str, labels))
        refuse(f"`{spec.type}`: {shorten(spec.value)} is none of its labels", f"write one of {known}")
    _check_common(spec)


def _check_relevance(spec: AssertionSpec) -> None:
    alias = _config(spec, "embeddings").get("embeddings", "")
    if not isinstance(alias, str):
        refuse(f"`{spec.type}`: embeddings cannot be {shorten(alias)}", "write `config: {embeddings: ALIAS}`")
    _check_no_value(spec)


def _check_no_value(spec: AssertionSpec) -> None:
    if spec.value is not None:
        refuse(f"`{spec.type}` has no value", "remove `value:`; it looks at the answer and the case's variables")
    _check_common(spec)


def _check_common(spec: AssertionSpec) -> None:
    check_share(spec)
    check_rubric(spec)


def _config(spec: AssertionSpec, *known: str) -> dict[str, Any]:
    config = spec.config or {}
    for name in config:
        if name not in known:
            refuse(f"`{spec.type}` has no setting {name[:40]!r}", f"known here: {', '.join(known)}")
    return config


# ------------------------------------------------------------------------------------ what judged


def grader_key(spec: AssertionSpec) -> str:
    """The same for assertions that are judged alike: by the same model and rubrics, under the same metric.

    What their values say may differ: agreement with people is a matter of who judges, and by what.
    """
    return json.dumps([spec.type, spec.metric, spec.provider, spec.rubric_prompt], sort_keys=True)


_TAKES = frozenset({"transform", "provider", "rubric_prompt"})
_WITH_CONFIG = _TAKES | {"config"}
FAMILY: Family = {
    "llm-rubric": SceneAssertion(_by_votes(_rubric), _check_rubric_value, takes=_TAKES, version=2),
    "model-graded-closedqa": SceneAssertion(_by_votes(_closed_qa), check_text, takes=_TAKES, version=2),
    "factuality": SceneAssertion(_by_votes(_factuality), _check_factuality, takes=_WITH_CONFIG, version=2),
    "classifier": SceneAssertion(_classified, _check_classifier, takes=_WITH_CONFIG, version=2),
    "g-eval": SceneAssertion(_by_votes(_g_eval), _check_g_eval, takes=_TAKES, version=2),
    "context-recall": SceneAssertion(_by_votes(_context_recall), check_text, takes=_TAKES, version=2),
    "context-relevance": SceneAssertion(_by_votes(_context_relevance), _check_no_value, takes=_TAKES, version=2),
    "context-faithfulness": SceneAssertion(_by_votes(_context_faithfulness), _check_no_value, takes=_TAKES, version=2),
    RELEVANCE: SceneAssertion(_by_votes(_answer_relevance), _check_relevance, takes=_WITH_CONFIG, version=2),
}
CALIBRATED = frozenset(FAMILY)  # that judge one answer, as people can
JUDGED = CALIBRATED | {SELECT_BEST}
NEED_CONTEXT = frozenset({"context-recall", "context-relevance", "context-faithfulness"})

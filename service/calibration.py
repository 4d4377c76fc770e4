"""Calibration: the judges of a suite against what people said of the same answers. No model under test is asked."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pydantic

from prompts.errors import BadFile, BadInput, Fault
from prompts.names import LATEST, PRODUCTION, Selector, parse_selector
from prompts.prompt import CompiledPrompt, PromptContent, compile_prompt, digest_of
from service.aids import RATED, Desk
from service.errors import CannotRun, NotFound
from service.graders import Grader, grader_of, pinned_rubrics
from service.identity import Principal
from service.ids import now
from service.pool import Models
from service.questions import rubrics_by_name
from service.recording import Fresh
from service.registry import Registry
from service.settings import Settings
from service.store import calibrations, requests, runs
from service.store.database import Database
from suites.assertions import AssertionErrored, Output, Scene, assess, transformed, walk
from suites.assertions.judged import CALIBRATED
from suites.assertions.people import HUMAN
from suites.assertions.rubric import kind_of
from suites.assertions.spec import AssertionSpec, Spending
from suites.case import Case, Label, Suite
from suites.judges import Agreement
from suites.judging import Needs
from suites.standing import below_floor
from suites.verdicts import Measured

MOST_LISTED = 5  # labels, or errors, that a message names
Told = Callable[[int, int], None]  # how many labels are done, of how many


class CalibrationRequest(pydantic.BaseModel, frozen=True, extra="forbid"):
    """What `POST /api/calibrations` and `turnout judge calibrate` ask for.

    `prompt` is a selector of the version whose question judges are shown, by default the one in production, else the
    newest. Without `labels` those of the suite's `judge.calibration` are taken, and without these the ratings of its cases.
    `rubrics` are versions (`NAME@N`) for the names by which the suite calls its judges' rubrics.
    """

    suite: str
    prompt: str | None = None
    labels: tuple[Label, ...] | None = None
    rubrics: tuple[str, ...] = ()
    concurrency: int = pydantic.Field(16, ge=1, le=1024)
    no_cache: bool = False


@dataclass(frozen=True, slots=True)
class _Question:
    """One label for one assertion, whose values are filled in."""

    row: int
    label: Label
    case: Case
    spec: AssertionSpec
    grader: Grader


@dataclass(frozen=True, slots=True)
class _Answer:
    """What the judge said; `passed` is None where it could not be had, and `error` says why."""

    question: _Question
    passed: bool | None
    error: str = ""


class Calibrations:
    """Measures judges, and keeps what was measured."""

    def __init__(self, database: Database, settings: Settings, models: Models, registry: Registry) -> None:
        self._database = database
        self._settings = settings
        self._models = models
        self._registry = registry

    def pinned(self, request: CalibrationRequest) -> CalibrationRequest:
        """The request with its suite's version and its labels; raises all that can be known to be wrong."""
        record, suite = self._suite(request.suite)
        labels = tuple(self._labels(record["name"], suite, request.labels))
        self._questions(suite, labels, rubrics_by_name(request.rubrics))
        self._prompt(suite.prompt, request.prompt)
        return request.model_copy(update={"suite": f"{record['name']}@{record['number']}", "labels": labels})

    async def run(
        self, request: CalibrationRequest, calibration_id: str, actor: Principal, told: Told | None = None
    ) -> dict[str, Any]:
        """Ask the judges about every labelled answer and keep how far they agree with people.

        Raises BadInput where there are no labels, BadFile for labels that none of the assertions is about, CannotRun
        where more of the judges' answers are missing than the suite's gate tolerates: nothing is kept then.
        """
        record, suite = await asyncio.to_thread(self._suite, request.suite)
        labels = await asyncio.to_thread(self._labels, record["name"], suite, request.labels)
        needs = await asyncio.to_thread(Needs.of_suite, suite)
        given = rubrics_by_name(request.rubrics)
        rubrics = await asyncio.to_thread(pinned_rubrics, self._database, needs.rubrics, given)
        questions = await asyncio.to_thread(self._questions, suite, labels, rubrics)
        desk = await asyncio.to_thread(self._desk, suite, request, needs, rubrics)
        work = _Work(desk, told, len(questions))
        with contextlib.closing(desk):
            answers = await work.ask_all(questions, request.concurrency)
        _refuse_too_many_errors(answers, suite.gate.max_error_share)
        rows = [_row(calibration_id, index, found) for index, found in enumerate(_by_grader(answers).items())]
        about = {"suite": record["name"], "suite_version": record["number"], "suite_digest": record["digest"]}
        about |= {"labels_digest": digest_of([label.model_dump() for label in labels]), "actor": actor.id, "at": now()}
        await asyncio.to_thread(self._keep, [{**row, **about} for row in rows], work.fresh)
        return _report(calibration_id, record, suite, rows, answers, work.spending, len(labels))

    def _suite(self, text: str) -> tuple[dict[str, Any], Suite]:
        record = self._registry.suite_head(text)
        return record, self._registry.read_suite(record)

    def _labels(self, name: str, suite: Suite, given: Sequence[Label] | None) -> list[Label]:
        found = list(given if given is not None else suite.judge.calibration) or self._ratings(suite)
        if not found:
            raise BadInput(
                f"suite {name}: nobody has labelled anything yet: give --labels FILE, set `judge.calibration`, or rate"
                " answers with `turnout judge rate`",
                param="labels",
            )
        return found

    def _ratings(self, suite: Suite) -> list[Label]:
        """What people said of answers that runs of this suite's cases got: the last word of each on each."""
        cases = {case.id: case for case in suite.tests}
        found: dict[tuple[str, str, str], Label] = {}
        with self._database.read() as session:
            for row in requests.feedback_on(session, f"{RATED}:"):
                _, case_id, run_id, repeat = row["completion_id"].split(":")
                result = runs.case(session, run_id, case_id, int(repeat)) if case_id in cases else None
                if result is not None and row["value"] is not None:
                    metric = None if row["metric"] == HUMAN else row["metric"]
                    label = {"vars": cases[case_id].vars, "output": result["output"], "label": row["value"]}
                    key = (row["key_id"], row["completion_id"], row["metric"])
                    found[key] = Label.model_validate({**label, "metric": metric})
        return list(found.values())

    def _questions(self, suite: Suite, labels: Sequence[Label], rubrics: Mapping[str, str]) -> list[_Question]:
        """Each label with each assertion that it is about. Raises BadFile for those that are about none."""
        graders: dict[str, Grader] = {}
        found: list[_Question] = []
        about_none: dict[str | None, list[int]] = {}
        for row, (label, case) in enumerate(zip(labels, _cases_of(suite, labels), strict=True), 1):
            specs = [spec for spec in _judged(case) if label.metric in (None, spec.metric)]
            if not specs:
                about_none.setdefault(label.metric, []).append(row)
            for spec in specs:
                key = repr((spec.type, spec.metric, spec.provider, spec.rubric_prompt))
                if key not in graders:
                    graders[key] = grader_of(self._database, self._settings, suite, spec, rubrics)
                found.append(_Question(row, label, case, spec, graders[key]))
        if about_none:
            raise BadFile([_about_none(metric, rows) for metric, rows in about_none.items()])
        return found

    def _desk(self, suite: Suite, request: CalibrationRequest, needs: Needs, rubrics: Mapping[str, str]) -> Desk:
        use_cache = not request.no_cache
        prompt = self._prompt(suite.prompt, request.prompt)
        desk = Desk(self._database, self._settings, self._models, suite, prompt, use_cache=use_cache, rubrics=rubrics)
        desk.prepare(sorted(needs.aliases))
        return desk

    def _prompt(self, name: str, given: str | None) -> CompiledPrompt:
        """What is asked of the model under test. Raises BadInput for a version of another prompt."""
        selector = parse_selector(given) if given else Selector(name, label=PRODUCTION)
        if selector.name != name:
            raise BadInput(f"the suite tests {name!r}, not {selector.name!r}", param="prompt")
        try:
            record = self._registry.version(selector)
        except NotFound:
            if given:
                raise
            record = self._registry.version(Selector(name, label=LATEST))
        return compile_prompt(PromptContent.model_validate(record.content), record.digest)

    def _keep(self, rows: Sequence[dict[str, Any]], fresh: Sequence[Fresh]) -> None:
        with self._database.write() as session:
            calibrations.add(session, rows)
            runs.remember(session, fresh, now())


class _Work:
    """Asks judges about labelled answers, a few at once."""

    def __init__(self, desk: Desk, told: Told | None, total: int) -> None:
        self.fresh: list[Fresh] = []
        self.spending = Spending()
        self._desk = desk
        self._told = told
        self._total = total
        self._done = 0

    async def ask_all(self, questions: Sequence[_Question], concurrency: int) -> list[_Answer]:
        room = asyncio.Semaphore(concurrency)

        async def one(question: _Question) -> _Answer:
            async with room:
                return await self._ask(question)

        return await asyncio.gather(*map(one, questions))

    async def _ask(self, question: _Question) -> _Answer:
        case, text = question.case, question.label.output
        aids = self._desk.about(case, question.row, text)
        scene = Scene(Output(text), case.known, case.id, question.row, aids)
        try:
            if case.options.transform is not None:
                scene = await transformed(scene, case.options.transform)
            found = await assess(scene, question.spec)
            answer = _Answer(question, found.passed)
            self.fresh += self._desk.fresh.get((case.id, question.row), {}).items()
        except AssertionErrored as error:
            answer = _Answer(question, None, str(error))
        if aids.spent is not None:
            self.spending.add(aids.spent.usage, aids.spent.cost_usd)
        self._done += 1
        if self._told is not None:
            self._told(self._done, self._total)
        return answer


def _cases_of(suite: Suite, labels: Sequence[Label]) -> list[Case]:
    """For each label the case with its variables, else one that has only the assertions that all cases share."""
    wanted = {_canonical(label.vars) for label in labels}
    found: dict[str, Case] = {}
    shared: dict[str, AssertionSpec] | None = None
    for case in suite.tests:
        key = _canonical(case.vars)
        if key in wanted:
            found.setdefault(key, case)
        own = {spec.model_dump_json(): spec for spec in case.asserts}
        shared = own if shared is None else {name: spec for name, spec in shared.items() if name in own}
    asserts = tuple((shared or {}).values())
    return [
        found.get(_canonical(label.vars)) or Case.model_construct(vars=label.vars, asserts=asserts) for label in labels
    ]


def _canonical(variables: dict[str, Any]) -> str:
    return json.dumps(variables, sort_keys=True)


def _judged(case: Case) -> Iterable[AssertionSpec]:
    """Assertions of a case that a model decides, those within sets too."""
    return [spec for whole in case.filled_asserts() for spec in walk(whole) if kind_of(spec) in CALIBRATED]


def _about_none(metric: str | None, rows: Sequence[int]) -> Fault:
    """The fault of labels that no assertion is about, told once for all of one metric."""
    of = f" under the metric {metric!r}" if metric else ""
    more = f", nor those of {len(rows) - 1} more labels ({_listed(rows[1:])})" if len(rows) > 1 else ""
    fix = "give it the variables of one of the suite's cases, and a metric that it has"
    return Fault("labels", rows[0], f"no assertion of the suite judges this answer{of}{more}", fix)


def _listed(rows: Sequence[int]) -> str:
    return ", ".join(map(str, rows[:MOST_LISTED])) + (", …" if len(rows) > MOST_LISTED else "")


def errors_in_words(errors: Iterable[str]) -> list[str]:
    """Each error once, the most frequent first, with how many judgements it cost."""
    return [f"{count} × {error}" if count > 1 else error for error, count in Counter(errors).most_common()]


def _refuse_too_many_errors(answers: Sequence[_Answer], allowed: float) -> None:
    missing = [answer for answer in answers if answer.passed is None]
    errors = [answer.error for answer in missing]
    if len(errors) > allowed * len(answers):
        share = f"{len(errors)} of {len(answers)} judgements are missing ({len(errors) / len(answers):.1%})"
        told = errors_in_words(errors)
        more = f"; and {len(told) - MOST_LISTED} other errors" if len(told) > MOST_LISTED else ""
        of = f"at labels {_listed(sorted({answer.question.row for answer in missing}))}"
        fix = "mend the judge or the labels, or raise the suite's gate.max_error_share"
        raise CannotRun(
            f"{share}, more than the {allowed:.1%} allowed: {'; '.join(told[:MOST_LISTED])}{more}; {of}; {fix}"
        )


def _by_grader(answers: Sequence[_Answer]) -> dict[Grader, list[_Answer]]:
    found: dict[Grader, list[_Answer]] = {}
    for answer in answers:
        found.setdefault(answer.question.grader, []).append(answer)
    return found


def _row(calibration_id: str, index: int, found: tuple[Grader, list[_Answer]]) -> dict[str, Any]:
    grader, answers = found
    pairs = [(a.passed, a.question.label.passed) for a in answers if a.passed is not None]
    figures = {**Agreement.of(pairs).as_dict(), "errored": len(answers) - len(pairs)}
    return {"id": f"{calibration_id}_{index}", "key": grader.key, "grader": grader.as_data(), "figures": figures}


def _report(
    calibration_id: str,
    record: dict[str, Any],
    suite: Suite,
    rows: Sequence[dict[str, Any]],
    answers: Sequence[_Answer],
    spending: Spending,
    labels: int,
) -> dict[str, Any]:
    """The JSON of a calibration; `below_floor` is "" for a grader that reaches the floor, or where there is none."""
    floor, spent = suite.judge.floor, spending.total
    graders = []
    for row in rows:
        figures = {name: row["figures"][name] for name in ("n", "accuracy", "kappa")}
        measured = Measured(**row["grader"], calibration_id=row["id"], **figures)
        below = below_floor(floor, measured) if floor else ""
        graders.append({"id": row["id"], **row["grader"], **row["figures"], "below_floor": below})
    tokens = spent.usage if spent else None
    return {
        "calibration_id": calibration_id,
        "suite": f"{record['name']}@{record['number']}",
        "votes": suite.judge.votes,
        "floor": floor.given() if floor else None,
        "labels": labels,
        "graders": graders,
        "disagreements": [_shown(answer) for answer in answers if answer.passed is not None and _differs(answer)],
        "errors": [{"row": answer.question.row, "error": answer.error} for answer in answers if answer.passed is None],
        "judges": {
            "prompt": tokens.prompt_tokens if tokens else 0,
            "completion": tokens.completion_tokens if tokens else 0,
            "cost_usd": spent.cost_usd if spent else None,
        },
    }


def _differs(answer: _Answer) -> bool:
    return answer.passed != answer.question.label.passed


def _shown(answer: _Answer) -> dict[str, Any]:
    """A label that the judge sees otherwise."""
    spec = answer.question.spec
    said = "pass" if answer.passed else "fail"
    return {"row": answer.question.row, "type": spec.type, "metric": spec.metric, "judge": said}

"""The advice, from the examples to the one thing recommended. Read `advise` from top to bottom."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

from finetune.data import Example
from finetune.plan import JobSpec, Measured, find_mislabelled, make_plan, read_shape
from prompts.errors import BadInput, ModelError
from prompts.prompt import digest_of
from service.advising import announcing, cheaper, looking, training
from service.advising.asking import TIMED, Questions, Way, timed_spend
from service.advising.cheaper import Rungs, Tried
from service.advising.choosing import Choosing
from service.advising.costs import priced
from service.advising.folds import Folds, Planned, fit_into, make_folds
from service.advising.notebook import Notebook
from service.advising.report import data_of, line_of
from service.advising.spec import AdviceSpec, Work, open_work
from service.advising.training import Trainings
from service.errors import CannotRun
from service.tuning.claim import Claim
from service.tuning.examples import Examples, gather
from suites.advice.answers import ERRORED, RIGHT, WRONG, Asked, outcomes
from suites.advice.curve import Curve, learn_curve
from suites.advice.deciding import Facts, break_even, recommend
from suites.advice.forms import MENDED, is_right_read_kindly
from suites.advice.groups import Group, group_failures
from suites.advice.report import Advice, Data, Recommendation, Skipped, Trained, Variant, compared, scored
from suites.advice.report import Example as Shown

_ENOUGH_FOR_FOLDS = 2


def advise(claim: Claim) -> dict[str, Any]:
    """One advice: the job's result. Raises CannotRun where the model does not answer, Cancelled, BadSetting."""
    began_s = time.monotonic()
    desk = _Desk(open_work(claim))
    if not desk.found.report.refusals:
        if desk.work.spec.dry_run:
            return desk.plan()
        desk.ask_the_prompt()
        desk.try_what_is_cheaper()
        desk.train()
        desk.set_beside()
        desk.time_all()
    return desk.result(began_s)


class _Desk:
    """One advice under way: what was tried so far, and what was left out."""

    def __init__(self, work: Work) -> None:
        self.work, self.notes = work, Notebook(work.claim)
        self.found: Examples = gather(work.claim, work.material)
        kept: tuple[Example, ...] = tuple(self.found.cleaned.kept)
        self.data: Data = data_of(self.found, self.work.material.prompt.content.defaults)
        if not work.spec.dry_run:  # whose whole answer is what would be told here
            self.notes.tell("data", "\n".join(self.data.lines))
        self.questions = Questions(work, kept)
        self.folds: Folds = make_folds(kept) if len(kept) >= _ENOUGH_FOR_FOLDS else Folds((0,) * len(kept))
        is_labels = self.found.report.answers.kind == "labels"
        labels = tuple(sorted({one.expected.strip() for one in kept})) if is_labels else ()
        self.rungs = Rungs(work, self.questions, self.folds, labels)
        self.commonest = Counter(one.expected.strip() for one in kept).most_common(1)[0][0] if labels else ""
        self.choosing = Choosing(self.questions, self.folds, max(work.spec.shots, default=0), work.claim.check)
        self.tried: list[Tried] = []
        self.skipped: list[Skipped] = []
        self.groups: tuple[Group, ...] = ()
        self.curve: Curve | None = None
        self.trained: Trained | None = None
        self.untrained = work.spec.untunable

    @property
    def best_shots(self) -> Tried | None:
        return cheaper.best_shots(self.tried)

    # -------------------------------------------------------------------------------- the steps

    def ask_the_prompt(self) -> None:
        """The prompt alone, its failures in groups, and what it had known but for the form."""
        model = self.work.model
        first = cheaper.ask_prompt(self.rungs, model, "prompt", "prompt", "the prompt alone")
        _require_answers(first, self.work.material.suite.gate.max_error_share)
        self._add(first)
        if not_asked := len(self.questions.rows) - len(self.folds.asked):
            why = f"{len(self.folds.asked)} are asked, drawn by lot; trainings see all that are not left out"
            self.skipped.append(Skipped(what=f"{not_asked:,} more examples", why=why))
        self.groups = group_failures(first.asked, self.rungs.labels)
        read = [_read_kindly(one, self.rungs.labels) for one in first.asked]
        kindly = outcomes(read, len(self.questions.rows))
        if kindly != first.variant.outcomes:
            note = "the same answers read without regard to case, space, punctuation, layout and words around the label"
            known: dict[str, Any] = {"spend": first.variant.spend, "note": note}
            self._add(Tried(scored("form", "form", "the prompt, its form mended", model, kindly, **known), first.way))

    def try_what_is_cheaper(self) -> None:
        """Parameters, then examples in the prompt."""
        for found in cheaper.parameters(self.rungs, self.tried[0].asked):
            self._take(found)
        for found in cheaper.few_shot(self.rungs, self.choosing):
            self._take(found)

    def train(self) -> None:
        """LoRA, and LoRA behind the best examples, as far as the minutes go; then the curve."""
        try:
            if not self.untrained:
                self._train()
        except (BadInput, CannotRun) as error:  # what was measured before holds without it
            self.untrained = str(error)
        if self.untrained:
            self.skipped.append(Skipped(what="LoRA", why=self.untrained))

    def _train(self) -> None:
        """Raises BadInput where the base cannot be tuned, CannotRun where nothing fits or the training cannot go on."""
        draft, measured, planned, _ = self._planned(self.best_shots.variant.shots if self.best_shots else 0)
        self._tell_left_out(planned)
        count, rows = len(self.questions.rows), training.plain_rows(self.questions)
        alone = training.run_job(self.work, "lora", draft, rows, planned.of("lora"), count)
        self.curve = learn_curve(alone.points, (count, 2 * count, 4 * count), self.work.bar)
        self._add_trained("lora", "LoRA", alone, forecast=self.curve.forecasts[0].accuracy)
        self._tell_mislabelled(alone)
        both = [alone]
        try:
            both += self._train_with_shots(draft, planned)
        except CannotRun as error:
            self.skipped.append(Skipped(what="LoRA behind examples", why=str(error)))
        self.trained = training.cost_of(self.work, both, draft, measured.device, count)

    def set_beside(self) -> None:
        """Another model, the prompt alone."""
        if self.work.spec.against is not None:
            title = f"the prompt alone, {self.work.spec.against}"
            self._add(cheaper.ask_prompt(self.rungs, self.work.spec.against, "against", "against", title))

    def time_all(self) -> None:
        """Latencies with one request in flight, of rows that the first training did not see."""
        rows = self._rows_to_time()
        for at, one in enumerate(self.tried):
            if one.variant.rung == "form":
                continue
            try:
                times = self._timed(one, rows)
            except ModelError as error:  # what it answered before holds without it
                self.skipped.append(Skipped(what=f"timing {one.variant.title}", why=str(error)))
                continue
            self.tried[at] = replace(one, variant=self._with_spend(one.variant, times))
        known = {one.variant.key: one.variant.spend for one in self.tried}
        self.tried = [
            replace(one, variant=one.variant.model_copy(update={"spend": known["prompt"]}))
            if one.variant.rung == "form" else one
            for one in self.tried
        ]  # fmt: skip

    # -------------------------------------------------------------------------------- training

    def _planned(self, shots: int) -> tuple[JobSpec, Measured, Planned, float]:
        """The spec that trainings share, what a step takes here, the trainings that fit, and how many times longer one takes
        behind `shots` examples in the prompt, where any are. Raises BadInput, CannotRun."""
        if self.folds.count < _ENOUGH_FOR_FOLDS:
            raise BadInput("the examples all resemble each other: nothing could be left out and asked about")
        draft = training.draft_spec(self.work, self.questions, self.folds)
        kept = self.notes.once("measured", lambda: training.try_steps(self.work, draft).model_dump(mode="json"))
        measured = Measured.model_validate(kept)
        if not measured.fits:
            raise CannotRun(measured.reason)
        draft = draft.model_copy(update=measured.ways())
        with_shots = shots > 0 and self.work.spec.base == self.work.model  # else they were chosen for another one
        factor = self._shots_factor(draft, shots) if with_shots else 1.0
        minutes = self.work.spec.minutes
        planned = fit_into(self.folds, draft, measured, minutes, with_shots=with_shots, shots_factor=factor)
        if not planned.of("lora"):
            raise CannotRun(announcing.too_short(planned, minutes))
        return draft, measured, planned, factor

    def _shots_factor(self, draft: JobSpec, shots: int) -> float:
        """How many times the tokens of a batch the examples in the prompt make of it."""
        rows = training.rows_with_shots(self.questions, {0: self.choosing.of_folds(shots)[0]})
        shape = read_shape(draft.base_folder)
        tokens = [make_plan(shape, draft.recipe, part).pack_tokens for part in (rows, draft.train)]
        return max(1.0, tokens[0] / tokens[1])

    def _train_with_shots(self, draft: JobSpec, planned: Planned) -> list[Trainings]:
        splits, best = planned.of("few-shot+lora"), self.best_shots
        if best is None or not splits:
            return []
        of_folds = self.choosing.of_folds(best.variant.shots)
        count = len(self.questions.rows)
        numbers = [int(split.name.rpartition("-")[2]) for split in splits]
        shots = {fold: of_folds[fold] for fold in numbers}
        rows = training.rows_with_shots(self.questions, shots)
        shifted = [training.with_shots(split, fold, shots, count) for split, fold in zip(splits, numbers, strict=True)]
        found = training.run_job(self.work, "few-shot+lora", draft, rows, shifted, count)
        known: dict[str, Any] = {"shots": best.variant.shots}
        self._add_trained("few-shot+lora", f"LoRA behind {best.variant.shots} examples", found, best, **known)
        return [found]

    def _add_trained(self, key: Any, title: str, found: Trainings, behind: Tried | None = None, **known: Any) -> None:
        base = self.work.spec.base or ""
        variant = scored(key, key, title, base, found.letters, trained_on=found.trained_on, **known)
        shots = behind.way.shots if behind else {}
        self._add(Tried(variant, Way(base, training.adapter_name(self.work, key), shots=shots)))

    def _tell_left_out(self, planned: Planned) -> None:
        self.notes.tell("trainings", f"{len(planned.splits)} trainings, about {planned.seconds / 60:.1f} minutes")
        if planned.left_out:
            why = f"--minutes is {self.work.spec.minutes:g}; {announcing.all_of_them(planned)}"
            self.skipped.append(Skipped(what=f"{planned.left_out} more trainings", why=why))

    def _tell_mislabelled(self, found: Trainings) -> None:
        if not found.know_the_task:
            return
        answers = [one.expected for one in self.questions.rows]
        places = self._places()
        rows = [
            {"row": places[one.row], "expected": answers[one.row], "answered": one.answered}
            for one in find_mislabelled(found.judged, answers)
        ]
        self.data = self.data.model_copy(update={"mislabelled": tuple(rows)})

    # -------------------------------------------------------------------------------- what a request takes

    def _rows_to_time(self) -> tuple[int, ...]:
        return (self.folds.asked_of(0) if self.folds.count > 1 else self.folds.asked)[:TIMED]

    def _timed(self, one: Tried, rows: tuple[int, ...]) -> list[tuple[int, str, float]]:
        def ask() -> dict[str, Any]:
            return {"times": self.questions.time(one.way, rows)}

        def with_adapter() -> dict[str, Any]:
            return training.with_adapter(self.work, one.variant.key, ask)  # type: ignore[arg-type]  # the job's name

        work: Callable[[], dict[str, Any]] = with_adapter if one.way.adapter else ask
        return [tuple(each) for each in self.notes.once(f"timed {one.variant.key}", work)["times"]]

    def _with_spend(self, variant: Variant, times: list[tuple[int, str, float]]) -> Variant:
        spend = variant.spend
        if variant.trained_on is not None:  # its tokens are those of the prompt that it was trained behind
            same = next(
                o for o in self.tried if o.variant.key == (f"few-shot-{variant.shots}" if variant.shots else "prompt")
            )
            answer = sum(len(one.expected) for one in self.questions.rows) / len(self.questions.rows)
            spend = same.variant.spend.model_copy(update={"answer_tokens": self._answer_tokens(answer)})
        spend = timed_spend(spend, times)
        return variant.model_copy(update={"spend": priced(self.work, variant.model, spend, [ms for *_, ms in times])})

    def _answer_tokens(self, otherwise: float) -> float:
        """The mean tokens of the answers that are wanted: what a trained model says."""
        lengths = self.found.report.lengths
        return lengths.answer.total / max(1, self.found.report.kept) if lengths else otherwise / 4

    # -------------------------------------------------------------------------------- the end

    def plan(self) -> dict[str, Any]:
        """A dry run: what would be asked and trained."""
        passes = list(cheaper.passes(self.rungs, self.choosing))
        lines, shots = [], cheaper.most_shots(self.rungs, self.choosing)
        try:
            if not self.untrained:
                *_, planned, factor = self._planned(shots)
                lines = list(announcing.training_lines(planned, self.work.spec.minutes, shots, factor))
        except (BadInput, CannotRun) as error:
            self.untrained = str(error)
        trained = 0 if self.untrained else len({job for job, _ in planned.splits})
        variants = sum(one.times for one in passes) + trained
        lines[:0] = announcing.question_lines(passes, len(self.folds.asked), len(self._rows_to_time()), variants)
        known = {"advice_id": self.work.advice_id, "data": self.data.model_dump(mode="json"), "plan": lines}
        return {**known, "verdict": "planned", "untrained": self.untrained or None}

    def result(self, began_s: float) -> dict[str, Any]:
        variants = compared(tuple(one.variant for one in self.tried))
        facts = self._facts(variants)
        recommendation = recommend(facts)
        shots = self._rows_of(recommendation, variants)
        price = self.trained.one_price_usd if self.trained else None
        advice = Advice(
            advice_id=self.work.advice_id,
            suite=f"{self.work.spec.suite}@{self.work.spec.suite_version}",
            prompt=f"{self.work.material.before.prompt}@{self.work.material.before.version}",
            base=self.work.spec.base,
            bar=self.work.bar,
            data=self.data,
            rows=tuple(self._places()),
            folds=self.folds.count if self.questions.rows else 0,
            groups=tuple(asdict(group) for group in self.groups),
            variants=variants,
            skipped=tuple(self.skipped),
            curve=asdict(self.curve) if self.curve else None,
            trained=self.trained,
            break_even=break_even(variants, price, facts.margin),
            shots=tuple(Shown(vars=one.vars, expected=one.answer) for one in map(self.questions.shot, shots)),
            recommendation=recommendation,
            look=looking.look(self.work, self.questions, recommendation, variants, shots),
            seconds=round(time.monotonic() - began_s, 3),
        )
        stored = advice.model_dump(mode="json")
        shown = {"verdict": recommendation.kind, "reasons": [recommendation.title, *recommendation.reasons]}
        return {**stored, "digest": digest_of(stored), **shown}

    def _facts(self, variants: tuple[Variant, ...]) -> Facts:
        suite, report, spec = self.work.material.suite, self.found.report, self.work.spec
        return Facts(
            called=spec.called or spec.suite,
            given=report.given,
            kept=report.kept,
            contradicting=report.contradicting,
            ceiling=self.data.ceiling,
            refusals=report.refusals,
            variants=variants,
            curve=self.curve,
            bar=self.work.bar,
            alpha=suite.gate.alpha,
            margin=suite.gate.margin,
            p95_ms=suite.thresholds.p95_latency_ms,
            cost_per_1k_usd=suite.thresholds.cost_per_1k_usd,
            forms=[f"{one.failures} answers, {one.name}: {one.mend}" for one in self.groups if one.name in MENDED],
            untrained=self.untrained,
            commonest=self.commonest,
            always="".join(RIGHT if one.expected.strip() == self.commonest else WRONG for one in self.questions.rows),
            options=_options(spec),
            local=" --local" if spec.local else "",
            advice_id=self.work.advice_id,
        )

    def _rows_of(self, recommendation: Recommendation, variants: tuple[Variant, ...]) -> tuple[int, ...]:
        """The rows that the recommended variant has in the prompt, chosen from all examples; none of any other, which nobody
        measured together with it."""
        count = next((one.shots for one in variants if one.key == recommendation.variant), 0)
        return self.choosing.of_all(count) if count else ()

    def _places(self) -> list[int]:
        """The number of each kept example in those given, which is how people find it."""
        at = {id(example): number for number, example in enumerate(self.found.given)}
        return [at[id(example)] for example in self.questions.rows]

    def _take(self, found: Tried | Skipped) -> None:
        if isinstance(found, Skipped):
            self.skipped.append(found)
        else:
            self._add(found)

    def _add(self, one: Tried) -> None:
        self.tried.append(one)
        self.notes.tell(f"scored {one.variant.key}", line_of(one.variant))


def _options(spec: AdviceSpec) -> str:
    """What a fine-tune must be told to be the one that was measured."""
    base = f" --base {spec.base}" if spec.base not in (None, spec.model) else ""
    return base + (f" --dataset {spec.dataset}" if spec.dataset else "")


def _read_kindly(one: Asked, labels: tuple[str, ...]) -> Asked:
    return replace(one, answer=one.expected) if is_right_read_kindly(one, labels) else one


def _require_answers(first: Tried, most_share: float) -> None:
    """Raise CannotRun where more questions failed than the suite's gate would bear."""
    errored = first.variant.outcomes.count(ERRORED)
    if errored > most_share * first.variant.total:
        error = next(one.error for one in first.asked if one.error)
        raise CannotRun(f"{errored} of {first.variant.total} questions to {first.variant.model} failed: {error}")

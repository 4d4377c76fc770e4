"""The cases of a gate as people read them: by their place in the suite, with what was expected and what came."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from suites.detail import shortened, title_of

if TYPE_CHECKING:
    from suites.assertions import AssertionSpec
    from suites.case import Case
    from suites.report.views import AnswerView, CaseRow, CaseView, Change
    from suites.results import CaseResult
    from suites.verdicts import GateDecision

BAD = ("failed", "errored")
CasesOf = Callable[[str], "Sequence[Case]"]  # of a suite by its name, in their order


@dataclass(frozen=True)
class Changes:
    """One suite of a gate: the results of both sides, and its cases.

    `stopped` says why the candidate's run ended early, `of_some` whether only some of the cases were to be asked.
    `outcomes` are what the candidate's cases came to over all their repeats, by id: with `pass_k` a case passes though
    some of its repeats do not.
    """

    after: Sequence[CaseResult]
    before: Sequence[CaseResult] = ()
    cases: Sequence[Case] = ()
    stopped: str = ""
    of_some: bool = False
    outcomes: Mapping[str, str] = field(default_factory=dict)

    def places(self) -> dict[str, int]:
        """The number in the suite of each case that was asked, from 1."""
        return {result.case_id: result.index + 1 for result in self.after}

    def candidates(self) -> list[CaseResult]:
        """The candidate's result of every case; nothing is stored of those that were not asked: they are skipped."""
        from suites.results import CaseResult

        places = self.places()
        left = [
            CaseResult(case.id, index, 0, "skipped", error=case.skip or self.stopped or "not asked")
            for index, case in enumerate(() if self.of_some else self.cases)
            if case.id not in places
        ]
        return sorted([*self.after, *left], key=lambda result: (result.index, result.repeat))

    def bad(self) -> list[str]:
        """The cases that did not pass, in the order of the suite."""
        return list(dict.fromkeys(each.case_id for each in self.candidates() if self._came_to(each) in BAD))

    def excused(self) -> set[str]:
        """The cases that passed though some of their repeats did not."""
        return {each.case_id for each in self.after if each.status in BAD and self._came_to(each) == "passed"}

    def _came_to(self, result: CaseResult) -> str:
        return self.outcomes.get(result.case_id, result.status)

    def titles(self) -> dict[str, str]:
        """How reports call each case."""
        return {result.case_id: self._title(result) for result in self.candidates()}

    def views(self, case_ids: Sequence[str]) -> dict[str, CaseView]:
        """Both sides of these cases; of several repeats the first that did not pass on the side that is worse."""
        from suites.report.views import CaseView

        wanted = set(case_ids)
        after, before = (_worst_of(side, wanted) for side in (self.after, self.before))
        views = {}
        for case_id, result in after.items():
            was = before.get(case_id)
            bad = was if was is not None and result.status == "passed" else result
            views[case_id] = CaseView(
                title=self._title(result),
                candidate=result.output,
                baseline=was.output if was else None,
                reason=_why(bad),
                expected=self._expected(bad),
            )
        return views

    def rows(self, broken: Sequence[str] = (), mended: Sequence[str] = ()) -> list[CaseRow]:
        """Every case and repeat of the candidate with the baseline's of the same repeat, in the order of the suite."""
        from suites.report.views import CaseRow

        changes: dict[str, Change] = dict.fromkeys(mended, "mended")
        changes |= dict.fromkeys(broken, "broken")
        before = {(result.case_id, result.repeat): result for result in self.before}
        return [
            CaseRow(
                case_id=result.case_id,
                number=result.index + 1,
                repeat=result.repeat,
                title=self._title(result),
                expected=self._asked(result),
                candidate=answer_of(result),
                baseline=answer_of(was) if (was := before.get((result.case_id, result.repeat))) else None,
                change=changes.get(result.case_id, ""),
                tags=result.tags,
                must_pass=result.must_pass,
            )
            for result in self.candidates()
        ]

    def _asked(self, result: CaseResult) -> str:
        """What all assertions of a case ask, a line each."""
        case = self._case(result)
        return "\n".join(map(_spelt, case.filled_asserts())) if case is not None else ""

    def _case(self, result: CaseResult) -> Case | None:
        found = self.cases[result.index] if result.index < len(self.cases) else None
        return found if found is not None and found.id == result.case_id else None

    def _title(self, result: CaseResult) -> str:
        case = self._case(result)
        about = title_of(case) if case is not None else ""
        return shortened(f"case {result.index + 1}" + (f": {about}" if about else ""))

    def _expected(self, result: CaseResult) -> str | None:
        """What the first assertion asks that did not hold."""
        case = self._case(result)
        if case is None:
            return None
        asked = zip(case.filled_asserts(), result.outcomes, strict=False)  # an errored case has no outcomes
        spec = next((spec for spec, outcome in asked if outcome.status != "passed"), None)
        return None if spec is None else _spelt(spec)


def answer_of(result: CaseResult) -> AnswerView:
    """One result as reports show it."""
    from suites.report.views import AnswerView

    return AnswerView(
        status=result.status,
        output=result.output,
        reason=_why(result),
        score=result.score,
        latency_ms=result.latency_ms,
        cost_usd=result.cost_usd,
        metrics=result.metrics,
    )


def outcomes_of(statuses: Mapping[str, str], results: Sequence[CaseResult]) -> dict[str, str]:
    """What the cases of a run came to by their ids, from what is stored of it."""
    from suites.outcomes import status_at

    found = ((result.case_id, status_at(statuses, result.index, result.case_id)) for result in results)
    return {case_id: status for case_id, status in found if status is not None}


def in_order(decision: GateDecision, places: Mapping[str, int]) -> GateDecision:
    """The decision with its cases in the order of the suite; those that it does not know come last."""

    def ordered(case_ids: Sequence[str]) -> tuple[str, ...]:
        return tuple(sorted(case_ids, key=lambda case_id: places.get(case_id, len(places) + 1)))

    changed = {name: ordered(getattr(decision, name)) for name in ("newly_broken", "newly_mended")}
    return decision.model_copy(update=changed)


def _worst_of(results: Sequence[CaseResult], wanted: set[str]) -> dict[str, CaseResult]:
    """For each wanted case the first repeat that did not pass, else its first."""
    found: dict[str, CaseResult] = {}
    for result in results:
        known = found.get(result.case_id)
        if result.case_id in wanted and (known is None or (known.status == "passed" != result.status)):
            found[result.case_id] = result
    return found


def _why(result: CaseResult) -> str:
    return result.error or "; ".join(outcome.reason for outcome in result.outcomes if outcome.status != "passed")


def about_case(cases: Sequence[Case], row: Mapping[str, Any]) -> str:
    """What the case of a result asks, after a colon; nothing where the suite has another case there by now."""
    case = cases[row["index"]] if row["index"] < len(cases) else None
    return f": {title_of(case)}" if case is not None and case.id == row["case_id"] else ""


def _spelt(spec: AssertionSpec) -> str:
    return spec.type if spec.value in (None, "") else f"{spec.type}: {_shown(spec.value)}"


def _shown(value: Any) -> str:
    import json

    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)

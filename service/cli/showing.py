"""A gate's answer on the terminal: what was decided, and the cases that changed with both answers beside each other.

Where no case broke and the gate does not pass, the cases that did not pass stand there: without a baseline they say why.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from service.cli.changes import BAD, CasesOf, Changes, about_case

if TYPE_CHECKING:
    from service.cli.work import Work
    from suites.results import CaseResult
    from suites.verdicts import GateDecision

MOST_SHOWN = 10  # cases of a kind and suite
_CASE = re.compile(r"\bcase ([0-9a-f]{16})\b")


def decisions_of(answer: dict[str, Any]) -> list[GateDecision]:
    """The decisions of a gate's answer."""
    from suites.verdicts import GateDecision

    known = GateDecision.model_fields.keys()
    return [
        GateDecision.model_validate({name: value for name, value in entry.items() if name in known})
        for entry in answer["suites"]
    ]


def show_gate(work: Work, answer: dict[str, Any], cases_of: CasesOf) -> None:
    """Tables on stdout, cases by their numbers in the suite and what they ask."""
    from service.cli.output import err, out
    from suites.report.terminal import print_gate

    for note in answer.get("notes", ()):
        err().print(note, markup=False)
    looks = [_look(work, entry, cases_of) for entry in answer["suites"]]
    decisions = [named(decision, look.numbers) for decision, look in zip(decisions_of(answer), looks, strict=True)]
    print_gate(out(), decisions)
    for entry, look in zip(answer["suites"], looks, strict=True):
        out().print(f"{entry['suite']}: {_sides_in_words(entry)}", markup=False)
        _show_changes(entry, look)
        out().print(f"evidence {entry['evidence_id']}", markup=False)
        started = entry.get("fallback")
        if started and started["job_id"]:
            out().print(f"fallback started: turnout job {started['job_id']} --watch", markup=False)
        elif started:
            out().print(f"no fallback: {started['reason']}", markup=False)


def _sides_in_words(entry: dict[str, Any]) -> str:
    """Both variants, a draft with where it comes from."""
    said = ((role, entry[role], entry["origins"].get(role)) for role in ("candidate", "baseline") if entry[role])
    return ", ".join(f"{role} {variant}" + (f" ({origin})" if origin else "") for role, variant, origin in said)


@dataclass(frozen=True)
class _Look:
    """What the terminal needs of one suite's runs: the results of cases that are shown, and how cases are called.

    `numbers` are the places in the suite, from 1, with what they ask, of the cases that changed or did not pass; `bad`
    are the cases that did not pass, where these are shown.
    """

    changes: Changes
    numbers: Mapping[str, str]
    bad: Sequence[str] = ()

    def first(self, case_ids: Sequence[str]) -> list[str]:
        """These cases in the order of the suite."""
        places = {case_id: place for place, case_id in enumerate(self.numbers)}
        return sorted(case_ids, key=lambda case_id: places.get(case_id, len(places)))


def _look(work: Work, entry: dict[str, Any], cases_of: CasesOf) -> _Look:
    """Nothing is read where there is no case to tell of. Of long runs only what is shown is kept."""
    shown = {*entry["newly_broken"], *entry["newly_mended"]}
    tells_bad = _tells_bad(entry)
    if not shown and not tells_bad and not any(_CASE.search(reason) for reason in entry["reasons"]):
        return _Look(Changes(()), {})
    given = work.evidence(entry["evidence_id"])["content"]["given"]
    cases = cases_of(entry["suite"])
    came_to = given["candidate"].get("outcomes", {}) if tells_bad else {}
    bad = [case_id for case_id, status in came_to.items() if status in BAD]
    left = {*bad}
    after, numbers = [], {}
    for row in work.cases(given["candidate"]["run_id"]) if given["candidate"]["run_id"] else ():
        if row["status"] != "passed" or row["case_id"] in shown:
            numbers[row["case_id"]] = f"{row['index'] + 1}{about_case(cases, row)}"
        if row["case_id"] in left and len(bad) - len(left) < MOST_SHOWN:
            left.remove(row["case_id"])
            shown.add(row["case_id"])
        if row["case_id"] in shown:
            after.append(row)
    before_id = given["baseline"]["run_id"] if given["baseline"] else None
    before = [row for row in work.cases(before_id) if row["case_id"] in shown] if before_id else []
    return _Look(Changes(_results(after), _results(before), cases), numbers, bad)


def _tells_bad(entry: dict[str, Any]) -> bool:
    """Whether what did not pass is shown: as in a comment, where nothing broke and the gate does not pass."""
    return entry["verdict"] != "pass" and not entry["newly_broken"] and entry["pass_rate"] not in (None, 1.0)


def _results(rows: Sequence[dict[str, Any]]) -> list[CaseResult]:
    from suites.results import CaseResult

    return [CaseResult.from_dict(row) for row in rows]


def _show_changes(entry: dict[str, Any], look: _Look) -> None:
    from service.cli.output import out
    from suites.report.terminal import print_changes

    kinds = {"newly broken": entry["newly_broken"], "newly mended": entry["newly_mended"], "did not pass": look.bad}
    for kind, found in kinds.items():
        case_ids = look.first(found)
        views = look.changes.views(case_ids[:MOST_SHOWN])
        shown = [views[case_id] for case_id in case_ids[:MOST_SHOWN] if case_id in views]
        title = f"{entry['suite']}: {kind}: {len(case_ids)}"
        print_changes(out(), title, shown, len(case_ids) - len(shown))


def named(decision: GateDecision, numbers: Mapping[str, int] | Mapping[str, str]) -> GateDecision:
    """The decision with the numbers of cases beside their ids in its reasons."""
    reasons = tuple(_CASE.sub(lambda found: _name(found[1], numbers), reason) for reason in decision.reasons)
    return decision.model_copy(update={"reasons": reasons})


def _name(case_id: str, numbers: Mapping[str, int] | Mapping[str, str]) -> str:
    return f"case {numbers[case_id]} ({case_id})" if case_id in numbers else f"case {case_id}"

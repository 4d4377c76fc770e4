"""What a gate needs of a run beyond one outcome a case: repeats that disagree, scores, metrics, tags and clusters.

Read from the stored results only where the suite asks for it, so that most runs are judged from their summary alone.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from suites.case import Case, Suite
from suites.results import CaseResult
from suites.verdicts import RULES, GateInput, Repeats, Side

MAX_TITLE_CHARACTERS = 80


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is asked of each side. `metrics` are those with a threshold, with the ids of the cases that have them."""

    repeats: bool
    scores: bool
    metrics: Mapping[str, frozenset[str]]

    def __bool__(self) -> bool:
        return self.repeats or self.scores or bool(self.metrics)

    @classmethod
    def of_suite(cls, suite: Suite) -> Wanted:
        having: dict[str, set[str]] = {name: set() for name in suite.thresholds.metrics}
        for case in suite.tests if having else ():
            for name in having.keys() & case.shared.metrics:
                having[name].add(case.id)
        metrics = {name: frozenset(case_ids) for name, case_ids in having.items()}
        return cls(repeats=suite.repeat > 1, scores=suite.gate.on == "score", metrics=metrics)


def with_detail(side: Side, results: Iterable[CaseResult], wanted: Wanted) -> Side:
    """The side with what is wanted of its run's results, each of which is read once."""
    kept = _Kept(wanted)
    for result in results:
        if result.status != "skipped":
            kept.add(result)
    metrics = {
        name: {case_id: _mean_of_judged(kept.metrics.get((name, case_id), [])) for case_id in sorted(case_ids)}
        for name, case_ids in wanted.metrics.items()
    }
    scores = {case_id: math.fsum(found) / len(found) for case_id, found in sorted(kept.scores.items())}
    repeats = {case_id: _repeats(counts) for case_id, counts in sorted(kept.repeats.items())}
    return side.model_copy(update={"repeats": repeats, "scores": scores, "metrics": metrics})


def gate_input(
    name: str, suite: Suite, candidate: Side, baseline: Side | None = None, *, needs_must_pass: bool = True
) -> GateInput:
    """What the verdict on one suite rests on; its cases are read once, or not at all where nothing is wanted of them.

    Without `needs_must_pass` the cases that must pass are like all others.
    """
    marks = _Marks(suite, baseline)
    for case in suite.tests if needs_must_pass or marks.any_wanted else ():
        marks.add(case)
    return GateInput(
        suite=name,
        candidate=candidate,
        baseline=baseline,
        thresholds=suite.thresholds,
        settings=suite.gate,
        must_pass=tuple(marks.must_pass) if needs_must_pass else (),
        repeat=suite.repeat,
        passes_needed=suite.passes_needed,
        tags={tag: tuple(case_ids) for tag, case_ids in marks.tags.items()},
        clusters=clusters_of(marks.clusters),
        titles=marks.titles,
        rules=RULES,
    )


def clusters_of(names: Mapping[str, str]) -> dict[str, str]:
    """Of the cluster of each case by its id, those of cases that do not stand alone."""
    sizes = Counter(names.values())
    return {case_id: name for case_id, name in names.items() if sizes[name] > 1}


def cluster_of(case: Case) -> str:
    """The cluster that a case names; cases that name none and ask the same, whatever they expect of it, are one.

    They are judged by one answer, so they are one observation.
    """
    if case.cluster:
        return f"named {case.cluster}"
    text = json.dumps([case.vars, case.placeholders], sort_keys=True)
    return "same question " + hashlib.sha256(text.encode()).hexdigest()[:16]


def title_of(case: Case) -> str:
    """How reports call a case: its description, else its variables, shortened."""
    return shortened(case.description or ", ".join(map(_shown, case.vars.values())))


def shortened(text: str) -> str:
    """`text` on one line, cut at `MAX_TITLE_CHARACTERS`."""
    line = " ".join(text.split())
    return line if len(line) <= MAX_TITLE_CHARACTERS else line[: MAX_TITLE_CHARACTERS - 1] + "…"


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


class _Marks:
    """What a verdict needs of the cases themselves."""

    def __init__(self, suite: Suite, baseline: Side | None) -> None:
        self.must_pass: list[str] = []
        self.tags: dict[str, list[str]] = {tag: [] for tag in suite.thresholds.tags}
        self.clusters: dict[str, str] = {}
        self.titles: dict[str, str] = {}
        self._in_clusters = suite.gate.on == "score" and baseline is not None
        self._repeats = baseline.repeats if baseline else {}

    @property
    def any_wanted(self) -> bool:
        """Whether anything but `must_pass` is wanted of cases."""
        return bool(self.tags or self._in_clusters or self._repeats)

    def add(self, case: Case) -> None:
        if case.must_pass:
            self.must_pass.append(case.id)
        for tag in self.tags.keys() & case.tags:
            self.tags[tag].append(case.id)
        if self._in_clusters:
            self.clusters[case.id] = cluster_of(case)
        if self._repeats.get(case.id, Repeats()).disagree:
            self.titles[case.id] = title_of(case)


class _Kept:
    """A few numbers of each result, by case."""

    def __init__(self, wanted: Wanted) -> None:
        self.repeats: dict[str, Counter[str]] = {}
        self.scores: dict[str, list[float]] = {}
        self.metrics: dict[tuple[str, str], list[float | None]] = {}
        self._wanted = wanted

    def add(self, result: CaseResult) -> None:
        case_id = result.case_id
        if self._wanted.repeats:
            self.repeats.setdefault(case_id, Counter())[result.status] += 1
        if self._wanted.scores:
            self.scores.setdefault(case_id, []).append(result.score or 0.0)  # what errored is worth nothing
        found = result.metrics if self._wanted.metrics else {}
        for name, case_ids in self._wanted.metrics.items():
            if case_id in case_ids:
                self.metrics.setdefault((name, case_id), []).append(found.get(name))


def _repeats(counts: Mapping[str, int]) -> Repeats:
    return Repeats(*(counts.get(status, 0) for status in ("passed", "failed", "errored")))


def _mean_of_judged(scores: Sequence[float | None]) -> float | None:
    """The mean over all repeats, errored ones as 0; None where all of them errored, or none was asked."""
    if all(score is None for score in scores):
        return None
    return math.fsum(score or 0.0 for score in scores) / len(scores)

"""What became of a suite between two of its versions, as far as it can make a gate easier or harder."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from suites.case import Suite
from suites.case_record import Case, canonical
from suites.policy import PLAIN_BOUNDS

_LOOSER_WHEN_HIGHER = frozenset({"margin", "max_error_share"})
_LOOSER_WHEN_LOWER = frozenset({"alpha", "min_cases"})  # a loss must be surer, fewer cases will do


def suite_changes(before: Suite, after: Suite) -> list[str]:
    """Cases removed, added and changed, `must_pass` that was dropped, bounds and settings that moved; in words.

    A case is the same where it asks and expects the same (its id); changed, where it asks the same and expects another.
    Empty where nothing of this kind is another.
    """
    return [*_of_cases(_Cases.of(before), _Cases.of(after)), *_of_bounds(before, after), *_of_settings(before, after)]


@dataclass
class _Cases:
    """What is compared of the cases: how often each id stands there, what it asks, and which must pass."""

    ids: Counter[str] = field(default_factory=Counter)
    questions: dict[str, bytes] = field(default_factory=dict)
    must_pass: Counter[bytes] = field(default_factory=Counter)

    @classmethod
    def of(cls, suite: Suite) -> _Cases:
        found = cls()
        for case in suite.tests:
            found.ids[case.id] += 1
            found.questions[case.id] = _question(case)
            found.must_pass[found.questions[case.id]] += case.must_pass
        return found

    def asked(self, ids: Counter[str]) -> Counter[bytes]:
        """How often these cases ask each question."""
        counts: Counter[bytes] = Counter()
        for case_id, count in ids.items():
            counts[self.questions[case_id]] += count
        return counts


def _question(case: Case) -> bytes:
    return canonical([case.vars, case.placeholders])


def _of_cases(before: _Cases, after: _Cases) -> Iterator[str]:
    gone, new = before.asked(before.ids - after.ids), after.asked(after.ids - before.ids)
    counts = {
        "removed": (gone - new).total(),
        "added": (new - gone).total(),
        "changed in what is expected": (gone & new).total(),
        "no longer `must_pass`": (before.must_pass - after.must_pass).total(),
    }
    yield from (f"{count} {'case' if count == 1 else 'cases'} {what}" for what, count in counts.items() if count)


def _of_bounds(before: Suite, after: Suite) -> Iterator[str]:
    """Thresholds that moved: looser ones are said to be."""
    was, now = before.thresholds.given(), after.thresholds.given()
    for name in dict.fromkeys((*was, *now)):
        if name not in now:
            yield f"threshold {name} {was[name]:g} dropped"
        elif name not in was:
            yield f"threshold {name} {now[name]:g} new"
        elif was[name] != now[name]:
            is_upper = name in PLAIN_BOUNDS and name != "pass_rate"
            looser = (now[name] > was[name]) == is_upper
            yield f"threshold {name} {was[name]:g} → {now[name]:g}, {'looser' if looser else 'stricter'}"


def _of_settings(before: Suite, after: Suite) -> Iterator[str]:
    was, now = (_settings(suite) for suite in (before, after))
    for name in was:
        if was[name] != now[name]:
            yield f"{name} {was[name]} → {now[name]}{_direction(name, was[name], now[name])}"


def _settings(suite: Suite) -> Mapping[str, float | str]:
    gate: dict[str, float | str] = {f"gate.{name}": value for name, value in suite.gate.model_dump().items()}
    return {**gate, "repeat": suite.repeat, "pass_k": suite.passes_needed}


def _direction(name: str, was: float | str, now: float | str) -> str:
    short = name.removeprefix("gate.")
    if isinstance(was, str) or isinstance(now, str) or short not in _LOOSER_WHEN_HIGHER | _LOOSER_WHEN_LOWER:
        return ""
    return ", looser" if (now > was) == (short in _LOOSER_WHEN_HIGHER) else ", stricter"

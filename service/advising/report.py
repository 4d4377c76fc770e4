"""The report on the examples as an advice shows it, and a variant in a line."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from finetune.data import input_key, report_lines
from service.tuning.examples import Examples
from suites.advice.answers import ceiling
from suites.advice.report import Data, Variant


def data_of(found: Examples, defaults: Mapping[str, Any]) -> Data:
    """What is known of the examples before anything is asked; `defaults` are those of the prompt's variables."""
    report = found.report
    of_input: defaultdict[tuple[str, ...], list[str]] = defaultdict(list)
    for one in found.given:
        of_input[input_key(one.vars, defaults)].append(one.expected.strip())
    return Data(
        given=report.given,
        kept=report.kept,
        contradicting=report.contradicting,
        ceiling=ceiling(of_input.values()),
        contradictions=tuple(
            {"rows": list(one.indexes), "answers": list(one.outputs)} for one in report.conflicts.shown
        ),
        mislabelled=(),
        refusals=report.refusals,
        warnings=report.warnings,
        lines=tuple(report_lines(report)),
    )


def line_of(one: Variant) -> str:
    """What was scored, for whoever watches."""
    low, high = one.ci95
    return f"{one.title}: {one.right} of {one.total} right, {one.accuracy:.1%} ({low:.1%} to {high:.1%})"

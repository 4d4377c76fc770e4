"""A gate as a pull-request comment: verdict, interval, thresholds, and the cases that changed, side by side.

What a model or an author wrote is data: it is written so that no Markdown, HTML, mention, issue number or emoji
comes to life in it, and so that no cell can break its table.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from suites.policy import PLAIN_BOUNDS
from suites.verdicts import GateDecision, ThresholdRow, Verdict, worst

MARKER = "<!-- turnout:gate -->"  # by it the comment is found again and updated
MAX_CHARACTERS = 60_000  # GitHub takes 65,536
MAX_CASES = 10  # of a kind and suite
MAX_OUTPUT_CHARACTERS = 300
MAX_COMMAND_CHARACTERS = 500
ZERO_WIDTH = "&#8203;"

_SIGNS: dict[Verdict, str] = {"pass": "✅", "fail": "❌", "inconclusive": "⚠️", "could_not_run": "⛔"}
_WORDS: dict[Verdict, str] = {
    "pass": "passed",
    "fail": "failed",
    "inconclusive": "is inconclusive",
    "could_not_run": "could not run",
}


@dataclass(frozen=True, slots=True)
class CaseView:
    """What a reader sees of a case that changed; outputs are None where no answer came, `expected` where nobody knows."""

    title: str
    candidate: str | None
    baseline: str | None
    reason: str = ""
    expected: str | None = None


@dataclass(frozen=True, slots=True)
class Footing:
    """What a verdict on a suite rests on, and how its author calls the suite on the command line."""

    evidence_id: str
    suite: str
    options: str = ""  # that every command of this project takes, as ` --local`
    origins: Mapping[str, str] = field(default_factory=dict)  # of `candidate` and `baseline`, where they are drafts


Views = Mapping[tuple[str, str], CaseView]  # by suite and case id: suites may share a case
Footings = Mapping[str, Footing]  # by suite


def render_markdown(
    decisions: Sequence[GateDecision],
    views: Views | None = None,
    notes: Sequence[str] = (),
    footings: Footings | None = None,
) -> str:
    """The comment. Cases without a view are shown by their id alone; `notes` are said first.

    Cases stand in the order in which their decisions name them. Of `footings` comes where the evidence is found, and the
    command that goes on from each verdict.
    """
    verdict = worst(decision.verdict for decision in decisions)
    parts = [MARKER, f"## {_SIGNS[verdict]} Turnout gate {_WORDS[verdict]}", ""]
    head = [*parts, *(f"- {escape(note)}" for note in notes[:MAX_CASES]), *([""] if notes else [])]
    parts = list(head)
    footings = footings or {}
    for decision in decisions:
        parts += _suite(decision, views or {}, footings)
    text = "\n".join(parts).rstrip() + "\n"
    if len(text) <= MAX_CHARACTERS:
        return text
    return _cut("\n".join(head + [line for decision in decisions for line in _suite(decision, None, footings)]))


def _cut(text: str) -> str:
    if len(text) <= MAX_CHARACTERS:
        return text + "\n_The cases are left out: the comment would be too long._\n"
    return text[:MAX_CHARACTERS].rpartition("\n")[0] + "\n\n_Cut: the comment would be too long._\n"


def _suite(decision: GateDecision, views: Views | None, footings: Footings) -> list[str]:
    lines = [f"### {_SIGNS[decision.verdict]} {code(decision.suite)}", ""]
    lines += [f"- {escape(reason)}" for reason in decision.reasons]
    lines += ["", *_comparison(decision, footings[decision.suite].origins if decision.suite in footings else {}), ""]
    if decision.thresholds:
        lines += ["| threshold | bound | value | |", "|---|---:|---:|---|"]
        lines += [_threshold(row) for row in decision.thresholds]
        lines.append("")
    lines += _quarantined(decision, views)
    if views is not None:
        lines += _cases("Newly broken", decision.suite, decision.newly_broken, views)
        lines += _cases("Newly mended", decision.suite, decision.newly_mended, views)
    if decision.suite in footings:
        lines += _footing(decision, footings[decision.suite])
    return lines


def _footing(decision: GateDecision, footing: Footing) -> list[str]:
    command = code(next_command(decision, footing), MAX_COMMAND_CHARACTERS).replace(ZERO_WIDTH, "")  # to be copied
    return [f"Evidence {code(footing.evidence_id)}. Next: {command}", ""]


def next_command(decision: GateDecision, footing: Footing) -> str:
    """The command that goes on from a verdict: look at what broke, ask again what errored, see how many cases decide."""
    suite = shlex.quote(footing.suite)
    loss = len(decision.newly_broken) - len(decision.newly_mended)
    if decision.verdict == "could_not_run":
        return f"turnout gate {suite} --rerun-failed{footing.options}"
    if decision.verdict == "fail":
        case = f" --case {decision.newly_broken[0]}" if decision.newly_broken else ""
        return f"turnout run {suite}{case}{footing.options}"
    if decision.verdict == "inconclusive" and loss > 0:
        return f"turnout power --gain {loss / decision.paired:.3g} --cases {decision.paired}"
    return f"turnout evidence {footing.evidence_id} --verify{footing.options}"


def _comparison(decision: GateDecision, origins: Mapping[str, str]) -> list[str]:
    lines = ["| | variant | pass rate | 95% interval |", "|---|---|---:|---|"]
    interval = f"{decision.ci95[0]:.1%} – {decision.ci95[1]:.1%}" if decision.ci95 else "–"
    from_where = {role: f" ({escape(origin)})" for role, origin in origins.items()}
    candidate, baseline = (from_where.get(role, "") for role in ("candidate", "baseline"))
    lines.append(f"| candidate | {code(decision.candidate)}{candidate} | {_percent(decision.pass_rate)} | {interval} |")
    if decision.baseline is not None:
        lines.append(f"| baseline | {code(decision.baseline)}{baseline} | {_percent(decision.baseline_pass_rate)} | |")
    if decision.scores is not None:
        lines += ["", _scores(decision)]
    if decision.p_value is not None:
        broken, mended = len(decision.newly_broken), len(decision.newly_mended)
        counts = f"{broken} newly broken, {mended} newly mended of {decision.paired} paired cases"
        lines += ["", f"{counts}, p = {decision.p_value:.2g}"]
    return lines


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{share:.1%}"


def _threshold(row: ThresholdRow) -> str:
    name = row.name if row.name in PLAIN_BOUNDS else code(row.name)  # metrics and tags are called as authors like
    return f"| {name} | {row.bound:g} | {row.shown} | {'met' if row.met else '**missed**'} |"


def _scores(decision: GateDecision) -> str:
    scores = decision.scores
    if scores is None:
        return ""
    means = f"mean score {scores.candidate:.3f} against {scores.baseline:.3f}"
    interval = f"difference {scores.difference:+.3f}, 95% {scores.ci95[0]:+.3f} to {scores.ci95[1]:+.3f}"
    return f"{means}, {interval} (bootstrap over {scores.clusters} clusters)"


def _quarantined(decision: GateDecision, views: Views | None) -> list[str]:
    """The cases that were left out of the comparison; their number alone where the comment would be too long."""
    cases = decision.quarantined
    if not cases:
        return []
    title = f"Flaky on the baseline, left out of the comparison: {len(cases)}"
    if views is None:
        return [title, ""]
    lines = [
        f"<details><summary>{title}</summary>",
        "",
        "| case | baseline passed | candidate passed |",
        "|---|---:|---:|",
    ]
    lines += [
        f"| {code(case.title or case.case_id)} | {case.baseline.shown} | {case.candidate.shown} |"
        for case in cases[:MAX_CASES]
    ]
    if len(cases) > MAX_CASES:
        lines += ["", f"… and {len(cases) - MAX_CASES} more"]
    return [*lines, "", "</details>", ""]


def _cases(title: str, suite: str, case_ids: Sequence[str], views: Views) -> list[str]:
    if not case_ids:
        return []
    lines = [f"<details><summary>{title}: {len(case_ids)}</summary>", ""]
    lines += ["| case | expected | baseline | candidate | why |", "|---|---|---|---|---|"]
    for case_id in case_ids[:MAX_CASES]:
        view = views.get((suite, case_id), CaseView(case_id, None, None))
        cells = (view.title or case_id, view.expected, view.baseline, view.candidate, view.reason)
        lines.append("| " + " | ".join(code(cell) for cell in cells) + " |")
    if len(case_ids) > MAX_CASES:
        lines += ["", f"… and {len(case_ids) - MAX_CASES} more"]
    return [*lines, "", "</details>", ""]


def code(text: str | None, limit: int = MAX_OUTPUT_CHARACTERS) -> str:
    """`text` as inline code that says exactly itself; a dash where there is none.

    `<code>` and not backticks, which a text may hold; within it forges look for no mentions and no issue numbers.
    """
    if not text:
        return "–"
    cut = text if len(text) <= limit else text[: limit - 1] + "…"
    return f"<code>{escape(cut)}</code>"


def escape(text: str) -> str:
    """`text` on one line, with every character that Markdown, HTML or a forge reads as more than itself spelt out.

    A character reference is never Markdown's syntax. A zero-width space after `@` and `#` keeps mentions and issue
    numbers from forming where a forge looks for them in the rendered text.
    """
    return "".join(map(_escaped, text)).replace("www.", "www&#46;")


_SYNTAX = frozenset("`*_[]<>&|~:\\$^")


def _escaped(character: str) -> str:
    if character == "\n":
        return "<br>"
    if character in "@#":
        return f"&#{ord(character)};{ZERO_WIDTH}"
    if character in _SYNTAX:
        return f"&#{ord(character)};"
    if character.isprintable():
        return character
    return " " if character.isspace() else "�"

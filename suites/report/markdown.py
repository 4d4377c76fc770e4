"""A gate as a pull-request comment: verdict, interval, thresholds, and the cases that changed, side by side.

What a model or an author wrote is data: it is written so that no Markdown, HTML, mention, issue number or emoji
comes to life in it, and so that no cell can break its table.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from prompts.wording import many
from suites.policy import PLAIN_BOUNDS
from suites.report.views import SIGNS, WORDS, CaseView, Footing, Footings, Views, next_command
from suites.verdicts import GateDecision, ThresholdRow, worst

MARKER = "<!-- turnout:gate -->"  # by it the comment is found again and updated
MAX_CHARACTERS = 60_000  # GitHub takes 65,536
MAX_OUTPUT_CHARACTERS = 300
MAX_COMMAND_CHARACTERS = 2_000
MAX_NOTES = 10
ZERO_WIDTH = "&#8203;"


@dataclass(frozen=True, slots=True)
class _Limits:
    """How much is shown: cases of a kind and suite, and characters of what they say."""

    cases: int
    characters: int


_LIMITS = (_Limits(10, MAX_OUTPUT_CHARACTERS), _Limits(5, 160), _Limits(3, 80), _Limits(0, 0))


@dataclass(frozen=True, slots=True)
class Told:
    """What a comment says beside the decisions: cases without a view are shown by their id alone.

    `notes` are said first. Of `footings` comes where the evidence is found, and the command that goes on from a verdict.
    `failed` are, by suite, the cases that did not pass, shown where nothing is compared. `reproduce` is the command that
    decides the same again, `what` came to the verdict. `left_out` is what of another tool's file was not taken over.
    """

    views: Views = field(default_factory=dict)
    notes: Sequence[str] = ()
    footings: Footings = field(default_factory=dict)
    failed: Mapping[str, Sequence[str]] = field(default_factory=dict)
    reproduce: str = ""
    what: str = "gate"
    left_out: Sequence[str] = ()


def render_markdown(decisions: Sequence[GateDecision], told: Told | None = None) -> str:
    """The comment, below GitHub's limit: what does not fit is left out, worst suites last, and that is said.

    Cases stand in the order in which their decisions name them.
    """
    told = told or Told()
    head, foot = _head(decisions, told), _foot(told)
    for limits in _LIMITS:
        sections = [_suite(decision, told, limits) for decision in decisions]
        text = _joined([head, *sections, _left_out(limits), foot])
        if len(text) <= MAX_CHARACTERS:
            return text
    return _cut(decisions, told, head, foot)


def _joined(parts: Sequence[Sequence[str]]) -> str:
    return "\n".join(line for part in parts for line in part).rstrip() + "\n"


def _left_out(limits: _Limits) -> list[str]:
    if limits == _LIMITS[0]:
        return []
    if limits.cases == 0:
        return ["_The cases are left out: the comment would be too long. `--html` and `--csv` have all of them._", ""]
    told = f"at most {limits.cases} cases of a kind and {limits.characters} characters of an answer are shown"
    return [f"_Shortened: {told}. `--html` and `--csv` have all of them._", ""]


def _cut(decisions: Sequence[GateDecision], told: Told, head: list[str], foot: list[str]) -> str:
    """As many suites as fit, without their cases: those first that stopped the gate."""
    order = ("could_not_run", "fail", "inconclusive", "pass")
    kept: list[list[str]] = []
    room = MAX_CHARACTERS - len(_joined([head, foot])) - 300  # for saying what is left out
    for decision in sorted(decisions, key=lambda each: order.index(each.verdict)):
        section = _suite(decision, told, _LIMITS[-1])
        room -= len(_joined([section])) + 1
        if room < 0:
            break
        kept.append(section)
    names = f"{len(decisions) - len(kept)} of {len(decisions)} suites, and all cases, are left out"
    return _joined([head, *kept, [f"_Cut: {names}: the comment would be too long. `--html` has all of it._", ""], foot])


def _head(decisions: Sequence[GateDecision], told: Told) -> list[str]:
    verdict = worst(decision.verdict for decision in decisions)
    lines = [MARKER, f"## {SIGNS[verdict]} Turnout {told.what} {WORDS[verdict]}", ""]
    lines += [f"- {escape(note)}" for note in told.notes[:MAX_NOTES]]
    if len(told.notes) > MAX_NOTES:
        lines.append(f"- … and {len(told.notes) - MAX_NOTES} more notes, in the JSON")
    return [*lines, *([""] if told.notes else []), *_not_taken(told.left_out)]


def _not_taken(left_out: Sequence[str]) -> list[str]:
    """What no verdict below speaks of, folded."""
    if not left_out:
        return []
    reasons = many(len(left_out), "reason")
    lines = [f"<details><summary>Left out of the imported file, for {reasons}</summary>", ""]
    lines += [f"- {escape(line[:MAX_OUTPUT_CHARACTERS])}" for line in left_out[:MAX_NOTES]]
    if len(left_out) > MAX_NOTES:
        lines.append(f"- … and {len(left_out) - MAX_NOTES} more reasons, in the JSON")
    return [*lines, "", "</details>", ""]


def _foot(told: Told) -> list[str]:
    return [f"Reproduce: {_command(told.reproduce)}"] if told.reproduce else []


def _command(text: str) -> str:
    return code(text, MAX_COMMAND_CHARACTERS).replace(ZERO_WIDTH, "")  # to be copied


def _suite(decision: GateDecision, told: Told, limits: _Limits) -> list[str]:
    footing = told.footings.get(decision.suite)
    lines = [f"### {SIGNS[decision.verdict]} {code(decision.suite)}", ""]
    lines += [f"- {escape(reason)}" for reason in decision.reasons]
    lines += ["", *_comparison(decision, footing.origins if footing else {}), ""]
    if decision.thresholds:
        lines += ["| threshold | bound | value | |", "|---|---:|---:|---|"]
        lines += [_threshold(row) for row in decision.thresholds]
        lines.append("")
    lines += _quarantined(decision, limits)
    lines += _cases("Newly broken", decision, decision.newly_broken, told, limits)
    lines += _cases("Newly mended", decision, decision.newly_mended, told, limits)
    if not decision.newly_broken and decision.verdict != "pass":
        lines += _cases("Did not pass", decision, told.failed.get(decision.suite, ()), told, limits)
    return lines + (_footing(decision, footing) if footing else [])


def _footing(decision: GateDecision, footing: Footing) -> list[str]:
    evidence = f"Evidence {code(footing.evidence_id)}. " if footing.evidence_id else ""
    command = next_command(decision, footing)
    return [f"{evidence}Next: {_command(command)}" if command else evidence.rstrip(), ""]


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


def _quarantined(decision: GateDecision, limits: _Limits) -> list[str]:
    """The cases that were left out of the comparison; their number alone where the comment would be too long."""
    cases = decision.quarantined
    if not cases:
        return []
    title = f"Flaky on the baseline, left out of the comparison: {len(cases)}"
    if not limits.cases:
        return [title, ""]
    lines = [
        f"<details><summary>{title}</summary>",
        "",
        "| case | baseline passed | candidate passed |",
        "|---|---:|---:|",
    ]
    lines += [
        f"| {code(case.title or case.case_id, limits.characters)} | {case.baseline.shown} | {case.candidate.shown} |"
        for case in cases[: limits.cases]
    ]
    return [*lines, *_more(len(cases), limits), "", "</details>", ""]


def _cases(title: str, decision: GateDecision, case_ids: Sequence[str], told: Told, limits: _Limits) -> list[str]:
    """Cases side by side, those that broke unfolded: they are what a reviewer came for."""
    if not case_ids:
        return []
    if not limits.cases:
        return [f"{title}: {len(case_ids)}", ""]
    lines = [f"<details{'' if title == 'Newly mended' else ' open'}><summary>{title}: {len(case_ids)}</summary>", ""]
    sides = ("baseline", "candidate") if decision.baseline else ("candidate",)
    lines += [f"| case | expected | {' | '.join(sides)} | why |", "|---|---|" + "---|" * (len(sides) + 1)]
    for case_id in case_ids[: limits.cases]:
        view = told.views.get((decision.suite, case_id), CaseView(case_id, None, None))
        answers = tuple(getattr(view, side) for side in sides)
        cells = (view.title or case_id, view.expected, *answers, view.reason)
        lines.append("| " + " | ".join(code(cell, limits.characters) for cell in cells) + " |")
    return [*lines, *_more(len(case_ids), limits), "", "</details>", ""]


def _more(count: int, limits: _Limits) -> list[str]:
    return ["", f"… and {count - limits.cases} more"] if count > limits.cases else []


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

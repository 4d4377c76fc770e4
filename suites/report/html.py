"""A gate, or a run, as one HTML page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from suites.report.case_blocks import case_blocks
from suites.report.page import esc, mark, page, table
from suites.report.views import WORDS, CaseRow, Footing, Footings, next_command
from suites.verdicts import GateDecision, Verdict, worst

_KINDS: Mapping[Verdict, str] = {"pass": "good", "fail": "bad", "inconclusive": "doubt", "could_not_run": "bad"}


@dataclass(frozen=True, slots=True)
class Shown:
    """What a page shows beside the decisions, by suite: the cases of both sides, and what the verdicts rest on.

    `left_out` is what of another tool's file was not taken over.
    """

    rows: Mapping[str, Sequence[CaseRow]] = field(default_factory=dict)
    footings: Footings = field(default_factory=dict)
    notes: Sequence[str] = ()
    reproduce: str = ""
    what: str = "gate"
    left_out: Sequence[str] = ()


def render_html(decisions: Sequence[GateDecision], shown: Shown | None = None) -> str:
    """The page; suites that stopped the gate come first as they stand in `decisions`, with all their cases."""
    shown = shown or Shown()
    verdict = worst(decision.verdict for decision in decisions)
    title = f"Turnout {shown.what} {WORDS[verdict]}"
    body = [f"<h1>{esc(title)}</h1>"]
    body += [_list(shown.notes)] if shown.notes else []
    if shown.left_out:
        body += ["<details open><summary>Left out of the imported file</summary>", _list(shown.left_out), "</details>"]
    body += [_overview(decisions)] if len(decisions) > 1 else []
    for decision in decisions:
        body += _suite(decision, shown)
    body += [f"<footer>Reproduce: <code>{esc(shown.reproduce)}</code></footer>"] if shown.reproduce else []
    return page(title, body)


def nothing_page(verdict: Verdict, notes: Sequence[str]) -> str:
    """The page of a gate that had no suite to decide on, with the reasons."""
    told = "".join(f"<li>{esc(note)}</li>" for note in notes)
    return page("Turnout: nothing to gate", [f"<h1>{verdict_mark(verdict)} Nothing to gate</h1>", f"<ul>{told}</ul>"])


def _list(lines: Sequence[str]) -> str:
    return f"<ul>{''.join(f'<li>{esc(line)}</li>' for line in lines)}</ul>"


def _overview(decisions: Sequence[GateDecision]) -> str:
    heads = ("suite", "verdict", "pass rate", "broken", "mended", "paired", "p")
    rows = [
        (
            esc(each.suite),
            verdict_mark(each.verdict),
            percent(each.pass_rate),
            str(len(each.newly_broken)),
            str(len(each.newly_mended)),
            str(each.paired),
            figure(each.p_value),
        )
        for each in decisions
    ]
    return table(heads, rows, range(2, 7))


def _suite(decision: GateDecision, shown: Shown) -> list[str]:
    footing = shown.footings.get(decision.suite)
    lines = ["<section>", f"<h2>{verdict_mark(decision.verdict)} {esc(decision.suite)}</h2>"]
    lines.append(_list(decision.reasons))
    lines += _sides(decision, footing)
    if decision.thresholds:
        rows = [
            (esc(row.name), f"{row.bound:g}", esc(row.shown), mark("met", "good") if row.met else mark("missed", "bad"))
            for row in decision.thresholds
        ]
        lines.append(table(("threshold", "bound", "value", ""), rows, (1, 2)))
    lines += _quarantined(decision)
    lines += case_blocks(shown.rows.get(decision.suite, ()))
    if footing:
        evidence = f"Evidence <code>{esc(footing.evidence_id)}</code>. " if footing.evidence_id else ""
        command = next_command(decision, footing)
        told = evidence + (f"Next: <code>{esc(command)}</code>" if command else "")
        lines += [f"<p>{told}</p>"] if told else []
    return [*lines, "</section>"]


def _sides(decision: GateDecision, footing: Footing | None) -> list[str]:
    interval = f"{percent(decision.ci95[0])} – {percent(decision.ci95[1])}" if decision.ci95 else "–"
    rows = [("candidate", _variant(decision.candidate, "candidate", footing), percent(decision.pass_rate), interval)]
    if decision.baseline is not None:
        rate = percent(decision.baseline_pass_rate)
        rows.append(("baseline", _variant(decision.baseline, "baseline", footing), rate, ""))
    lines = [table(("", "variant", "pass rate", "95% interval"), rows, (2, 3))]
    if decision.scores is not None:
        scores = decision.scores
        means = f"mean score {scores.candidate:.3f} against {scores.baseline:.3f}"
        interval = f"difference {scores.difference:+.3f}, 95% {scores.ci95[0]:+.3f} to {scores.ci95[1]:+.3f}"
        lines.append(f"<p>{means}, {interval} (bootstrap over {scores.clusters} clusters)</p>")
    if decision.p_value is not None:
        counts = f"{len(decision.newly_broken)} newly broken, {len(decision.newly_mended)} newly mended"
        lines.append(f"<p>{counts} of {decision.paired} paired cases, p = {figure(decision.p_value)}</p>")
    return lines


def _variant(variant: str, role: str, footing: Footing | None) -> str:
    origin = footing.origins.get(role) if footing else None
    return f"<code>{esc(variant)}</code>" + (f" ({esc(origin)})" if origin else "")


def _quarantined(decision: GateDecision) -> list[str]:
    if not decision.quarantined:
        return []
    rows = [
        (esc(case.title or case.case_id), case.baseline.shown, case.candidate.shown) for case in decision.quarantined
    ]
    head = f"Flaky on the baseline, left out of the comparison: {len(rows)}"
    shown = table(("case", "baseline passed", "candidate passed"), rows, (1, 2))
    return [f"<details><summary>{head}</summary>{shown}</details>"]


def verdict_mark(verdict: Verdict) -> str:
    """The verdict as a coloured word."""
    return mark(verdict.replace("_", " "), _KINDS[verdict])


def percent(share: float | None) -> str:
    return "–" if share is None else f"{share:.1%}"


def figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.2g}"

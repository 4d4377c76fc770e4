"""A fine-tune as people watch it: a line for each thing that happened, and a bar for what takes long."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from service.cli.output import Advance, err, out


class Narrator:
    """Shows a job's events one after another; keeps of the plan which rates are tried."""

    def __init__(self, advance: Advance) -> None:
        self._advance = advance
        self.rates: list[float] = []
        self.tell: Callable[[str], None] = _tell

    def narrate(self, event: dict[str, Any]) -> None:
        """Show one event."""
        kind, data = event["type"], event["data"]
        if kind == "cases":
            self._advance(data["done"], data["total"], data.get("phase", "cases"))
        elif kind == "training":
            self._training(data["event"])
        else:
            if kind == "planned" and "search" in data:
                self.rates = data["search"]["lr_grid"] or [data["recipe"]["lr"]]
            text = _line(kind, data)
            if text:
                self.tell(text)

    def _training(self, event: dict[str, Any]) -> None:
        name = event["name"] if event["type"] == "trial" else event.get("run")
        where = run_in_words(name or "", self.rates)
        if event["type"] == "step":
            shown = f"{where}, " if where else ""
            self._advance(event["step"], event["of"], f"training, {shown}loss {event['loss']:.3f}")
            return
        text = _training_line(event["type"], event)
        if text:
            self.tell(f"  {where}: {text}" if where else f"  {text}")


def _tell(text: str) -> None:
    err().print(text, markup=False)


def run_in_words(name: str, rates: Sequence[float]) -> str:
    """Which training a run's name means: `seed-1`, `trial-C-F` for a candidate and a fold, both from 0, `trial-C` for all folds.

    A candidate beyond the `rates` is the best of them with more dropout and weight decay.
    """
    kind, _, rest = name.partition("-")
    if kind == "seed":
        return f"seed {rest}"
    if kind != "trial":
        return name
    candidate, _, fold = rest.partition("-")
    tried = f"rate {rates[int(candidate)]:g}" if int(candidate) < len(rates) else "the best rate with dropout"
    return f"{tried}, fold {int(fold) + 1}" if fold else tried


def _training_line(kind: str, event: dict[str, Any]) -> str | None:
    """What the training process did or decided, in a line."""
    if kind == "evaluated":
        best = ", the best so far" if event.get("best") else ""
        return f"step {event['step']}: dev {event['dev_exact']:.0%} exact, loss {event['dev_loss']:.3f}{best}"
    if kind == "decision":
        return f"{event['what']}: {event['because']}"
    if kind == "trial":
        return str(event.get("diverged") or f"ended at {event['dev_exact']:.0%} exact")
    if kind == "mislabelled" and event["rows"]:
        shown = "; ".join(
            f"example {row['example']}: {row['expected']!r}, the model says {row['answered']!r}"
            for row in event["rows"][:5]
        )
        return f"{len(event['rows'])} examples may be labelled wrongly: {shown}"
    if kind == "out_of_memory":
        return f"out of memory: packs of {event['now']} tokens from here on, {event['pack_tokens']} before"
    return None


def _line(kind: str, data: dict[str, Any]) -> str | None:
    if kind == "planned":
        return "\n".join(plan_lines(data))
    if kind == "advised":
        return str(data["text"]) or None
    if kind == "adapter":
        return f"adapter {data['name']}"
    if kind == "dev":
        return f"dev: {data['before']} of {data['total']} right before, {data['after']} after"
    if kind == "run":
        return f"held-out, {data['phase']}: {data['passed']} of {data['total']} passed  {data['variant']}"
    if kind in ("decided", "refused"):
        return f"{data.get('verdict', kind)}: {'; '.join(data['reasons'])}"
    if kind == "diagnosis":
        return f"attempt {data['attempt']}, {data['kind']}: {data['because']}; {data['next']}"
    if kind in ("checkpoint", "model"):
        return f"served as {data['name']}"
    if kind == "validated":
        both = f", {data['in_both']} of the validation file's among them" if data.get("in_both") else ""
        return f"{data['examples']} examples{both}"
    if kind == "fault":
        return str(data["message"])
    if kind == "routed":
        shares = ", ".join(f"{item['percent']:g}% {item['variant']}" for item in data["variants"])
        return f"route revision {data['revision']}: {shares}"
    if kind == "restarted":
        return f"the training process died (exit {data['exit']}) and goes on from its newest checkpoint"
    return None


def plan_lines(planned: dict[str, Any]) -> list[str]:
    """A fine-tune's plan as people read it: the examples, then device, memory and time, then each decision."""
    lines = list(planned.get("report_lines", ()))
    if "measured" not in planned:
        return lines
    measured, recipe, search = planned["measured"], planned["recipe"], planned["search"]
    heldout = f", {planned['heldout']} held-out cases" if planned["heldout"] else ""
    lines.append(f"plan: {planned['train']} train, {planned['dev']} dev examples{heldout}")
    several = f"{measured['devices']} devices as " if measured.get("devices", 1) > 1 else ""
    lines.append(
        f"  {several}{measured['device']}, {measured['precision']}: {gigabytes(measured['peak_bytes'])} of "
        f"{gigabytes(measured['free_bytes'])} memory, {measured['step_s']:.2g} s a step"
    )
    lines.append(
        f"  recipe: r {recipe['rank']}, alpha {recipe['alpha']:g}, lr {recipe['lr']:g}, {recipe['epochs']:g} epochs, "
        f"batches of {recipe['batch_size']}, {planned['plan']['steps']} steps"
    )
    runs = len(search["seeds"]) or 1
    trials = (
        f", {search['folds']}-fold cross-validation of {len(search['lr_grid']) or 1} rates" if search["folds"] else ""
    )
    lines.append(
        f"  {runs} seed{'s' if runs > 1 else ''}{trials}; training takes about {duration(planned['training_s'])}"
    )
    return [*lines, *(f"  {decision}" for decision in planned["decisions"])]


def gigabytes(size_bytes: float) -> str:
    """A size as people read it."""
    return f"{size_bytes / 1e9:.1f} GB"


def duration(seconds: float) -> str:
    """Seconds as people read them."""
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.1f} min"


def show_job(job: dict[str, Any]) -> None:
    """A job's state, and a table of before and after where it has one."""
    from rich.table import Column, Table

    result = job["result"] or {}
    verdict = f", {result['verdict']}" if result.get("verdict") else ""
    error = f": {job['error']}" if job["error"] else ""
    out().print(f"{job['job_id']} {job['kind']} {job['status']}{verdict}{error}", markup=False)
    if result.get("fine_tuned_model"):
        out().print(f"served as {result['fine_tuned_model']}", markup=False)
    if result.get("before") and result.get("after"):
        shown = Table("", Column("variant", overflow="fold"), "passed", "pass rate", "95%", "p50 ms")
        for name in ("before", "after"):
            row = result[name]
            low, high = row["ci95"]
            cells = (row["variant"], f"{row['passed']}/{row['total']}", f"{row['pass_rate']:.1%}")
            shown.add_row(name, *cells, f"{low:.1%} … {high:.1%}", f"{row['p50_ms']:.0f}")
        out().print(shown)
    for number, attempt in enumerate((result.get("attempts") or [])[:-1], start=1):
        found = attempt.get("diagnosis") or {}
        said = f"attempt {number}, {attempt['verdict']}: {'; '.join(attempt['reasons'])}; {found.get('because', '')}"
        out().print(f"{said}; {found.get('next', '')}", markup=False)
    for reason in result.get("reasons") or []:
        out().print(f"{result.get('verdict')}: {reason}", markup=False)
    if result.get("attempts") and result.get("route") is None:
        last = result["attempts"][-1].get("diagnosis") or {}
        why = f" {last['because']}; {last['next']}." if last else ""
        out().print(f"it did not help: the traffic stays where it was.{why}", markup=False)
    if result.get("evidence_id"):
        out().print(f"evidence {result['evidence_id']}", markup=False)

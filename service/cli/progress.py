"""A fine-tune as people watch it: a line for each thing that happened, and a bar for what takes long."""

from __future__ import annotations

from typing import Any

from service.cli.output import Advance, err, out


def narrate(event: dict[str, Any], advance: Advance) -> None:
    """Show one event of a job."""
    kind, data = event["type"], event["data"]
    if kind == "cases":
        advance(data["done"], data["total"], data.get("phase", "cases"))
        return
    if kind == "training":
        _training(data["event"], advance)
        return
    text = _line(kind, data)
    if text:
        err().print(text, markup=False)


def _training(event: dict[str, Any], advance: Advance) -> None:
    if event["type"] == "step":
        advance(event["step"], event["of"], f"training, loss {event['loss']:.3f}")
    elif event["type"] == "eval":
        best = ", the best so far" if event.get("best") else ""
        text = f"  step {event['step']}: dev {event['dev_exact']:.0%} exact, loss {event['dev_loss']:.3f}{best}"
        err().print(text, markup=False)


def _line(kind: str, data: dict[str, Any]) -> str | None:
    if kind == "planned":
        dropped = sum(data["examples"]["dropped"].values())
        return (
            f"plan: {data['train']} train, {data['dev']} dev examples, {dropped} dropped; {data['plan']['steps']} steps"
        )
    if kind == "adapter":
        return f"adapter {data['name']}"
    if kind == "dev":
        return f"dev: {data['before']} of {data['total']} right before, {data['after']} after"
    if kind == "run":
        return f"held-out, {data['phase']}: {data['passed']} of {data['total']} passed  {data['variant']}"
    if kind in ("decided", "refused"):
        return f"{data.get('verdict', kind)}: {'; '.join(data['reasons'])}"
    if kind == "routed":
        shares = ", ".join(f"{item['percent']:g}% {item['variant']}" for item in data["variants"])
        return f"route revision {data['revision']}: {shares}"
    if kind == "restarted":
        return f"the training process died (exit {data['exit']}) and goes on from its newest checkpoint"
    return None


def show_job(job: dict[str, Any]) -> None:
    """A job's state, and a table of before and after where it has one."""
    from rich.table import Column, Table

    out().print(
        f"{job['job_id']} {job['kind']} {job['status']}" + (f": {job['error']}" if job["error"] else ""), markup=False
    )
    result = job["result"] or {}
    if result.get("before") and result.get("after"):
        shown = Table("", Column("variant", overflow="fold"), "passed", "pass rate", "95%", "p50 ms")
        for name in ("before", "after"):
            row = result[name]
            low, high = row["ci95"]
            cells = (row["variant"], f"{row['passed']}/{row['total']}", f"{row['pass_rate']:.1%}")
            shown.add_row(name, *cells, f"{low:.1%} … {high:.1%}", f"{row['p50_ms']:.0f}")
        out().print(shown)
    for reason in result.get("reasons") or []:
        out().print(f"{result.get('verdict')}: {reason}", markup=False)
    if result.get("evidence_id"):
        out().print(f"evidence {result['evidence_id']}", markup=False)

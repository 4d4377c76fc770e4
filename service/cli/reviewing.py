"""Commands on the review queue: which completions become training examples."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

import typer

from service.cli.calling import call
from service.cli.options import Json, Local
from service.cli.selecting import id_in_path

review = typer.Typer(
    help="Corrected and approved completions: which of them become training examples.", no_args_is_help=True
)
Prompt = Annotated[str, typer.Argument(help="The prompt's name.")]
Ids = Annotated[list[str], typer.Argument(metavar="ID...", help="Ids, as `review list` shows them.")]
SHOWN_CHARACTERS = 80
KEYS = "a accept, e edit, r reject, s skip, q quit"


@review.command("collect")
def collect(
    prompt: Prompt,
    metric: Annotated[str, typer.Option("--metric", help="What completions were rated by.")] = "rating",
    at_least: Annotated[
        float | None, typer.Option("--at-least", help="The least rating that approves; by default the value true.")
    ] = None,
    since: Annotated[str | None, typer.Option("--since", help="An age (7d, 12h, 30m), or a time (2026-01-31).")] = None,
    variant: Annotated[str | None, typer.Option("--variant", help="Only completions of this variant.")] = None,
    corrections: Annotated[bool, typer.Option("--corrections", help="Leave out what was approved.")] = False,
    as_json: Json = False,
    local: Local = False,
) -> int:
    """Put a prompt's corrected and approved completions into the queue; each is collected once."""
    from service.cli.output import out, print_json

    body = {"prompt": prompt, "metric": metric, "at_least": at_least, "since": since, "variant": variant}
    found = call(local, "POST", "/api/examples/collect", body={**body, "corrections": corrections})
    if as_json:
        print_json(found)
        return 0
    told = f"{found['collected']:,} collected, {found['known']:,} known before"
    told += f", {found['renewed']:,} corrected anew" if found["renewed"] else ""
    told += f", {found['withdrawn']:,} approvals withdrawn" if found["withdrawn"] else ""
    for line in (told, *found["notes"]):
        out().print(line, markup=False, soft_wrap=True)
    return 0


@review.command("list")
def list_examples(
    prompt: Prompt,
    status: Annotated[str, typer.Option("--status", help="waiting, accepted or rejected")] = "waiting",
    limit: Annotated[int, typer.Option("--limit", min=1, max=1_000, help="At most so many, the oldest.")] = 50,
    as_json: Json = False,
    local: Local = False,
) -> int:
    """Candidates of a prompt: what was asked, what would be learnt, and why."""
    from service.cli.output import print_json, table

    found = call(local, "GET", "/api/examples", params={"prompt": prompt, "status": status, "limit": limit})
    if as_json:
        print_json(found)
    else:
        table([_row(each) for each in found], ("id", "input", "expected", "source", "rating", "flags"))
    return 0


@review.command("accept")
def accept(
    ids: Ids,
    expected: Annotated[
        str | None, typer.Option("--expected", help="Another answer to learn; for one example.")
    ] = None,
    as_json: Json = False,
    local: Local = False,
) -> int:
    """Take candidates as training examples."""
    from prompts.errors import BadInput

    if expected is not None and len(ids) > 1:
        raise BadInput(f"--expected is for one example, and {len(ids)} are named: accept them one by one", param="ids")
    return _decide(ids, "accept", {} if expected is None else {"expected": expected}, as_json, local=local)


@review.command("reject")
def reject(
    ids: Ids,
    reason: Annotated[str | None, typer.Option("--reason", "-m", help="Why; kept with it.")] = None,
    as_json: Json = False,
    local: Local = False,
) -> int:
    """Keep candidates out of every dataset."""
    return _decide(ids, "reject", {"reason": reason}, as_json, local=local)


@review.command("walk")
def walk(prompt: Prompt, as_json: Json = False, local: Local = False) -> int:
    """Go through what waits, one key for each: a accept, e edit, r reject, s skip, q quit."""
    import sys

    from prompts.errors import BadInput
    from service.cli.output import out, print_json

    if not sys.stdin.isatty():
        raise BadInput("`review walk` asks at a terminal: use `review list`, `accept` and `reject` here")
    counts = {"accepted": 0, "rejected": 0, "skipped": 0}
    for each in _waiting(prompt, local=local):
        done = _ask(each, local=local)
        if done == "quit":
            break
        counts[done] += 1
    if as_json:
        print_json(counts)
    else:
        out().print(", ".join(f"{count:,} {name}" for name, count in counts.items()), markup=False)
    return 0


def _waiting(prompt: str, *, local: bool) -> Iterator[dict[str, Any]]:
    """What waits, page by page. What was decided since is still behind its id."""
    after: dict[str, str] = {}
    while batch := call(local, "GET", "/api/examples", params={"prompt": prompt, "status": "waiting", **after}):
        yield from batch
        after = {"after": batch[-1]["id"]}


def _ask(each: dict[str, Any], *, local: bool) -> str:
    """Show one candidate and do what the key says; returns what became of it, or `quit`."""
    from service.cli.output import err

    _show(each)
    while True:
        err().print(f"  {KEYS}: ", end="")
        key = typer.getchar().lower()
        err().print(key)
        if key in ("q", "\x03", "\x04"):
            return "quit"
        if key == "s":
            return "skipped"
        if key in ("a", "e"):
            body = {"expected": typer.prompt("  expected", default=each["expected"], err=True)} if key == "e" else {}
            call(local, "POST", f"/api/examples/{each['id']}/accept", body=body)
            return "accepted"
        if key == "r":
            call(local, "POST", f"/api/examples/{each['id']}/reject", body={})
            return "rejected"


def _show(each: dict[str, Any]) -> None:
    from service.cli.output import err

    said = f", {each['metric']} {each['value']}" if each["value"] is not None else ""
    flags = f" [{', '.join(each['flags'])}]" if each["flags"] else ""
    err().print(f"\n{each['id']} {each['source']} of {each['variant']}{said}{flags}", markup=False)
    for name, value in each["vars"].items():
        err().print(f"  {name}: {value}", markup=False)
    if each["output"] != each["expected"]:
        err().print(f"  answered: {each['output']}", markup=False)
    err().print(f"  expected: {each['expected']}", markup=False)
    if each["comment"]:
        err().print(f"  comment: {each['comment']}", markup=False)


def _decide(ids: list[str], verb: str, body: dict[str, Any], as_json: bool, *, local: bool) -> int:
    from service.cli.output import out, print_json

    found = []
    for each in [id_in_path("example", each) for each in ids]:
        found.append(call(local, "POST", f"/api/examples/{each}/{verb}", body=body))
        if not as_json:
            out().print(f"{each} {found[-1]['status']}", markup=False)
    if as_json:
        print_json(found)
    return 0


def _row(each: dict[str, Any]) -> dict[str, Any]:
    """A candidate as a line: its input and its answer shortened."""
    asked = ", ".join(f"{name}: {value}" for name, value in each["vars"].items())
    rated = f"{each['metric']} {each['value']}" if each["value"] is not None else ""
    shown = {"input": _shortened(asked), "expected": _shortened(each["expected"]), "rating": rated}
    return {**each, **shown, "flags": ", ".join(each["flags"])}


def _shortened(text: str) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= SHOWN_CHARACTERS else flat[: SHOWN_CHARACTERS - 1] + "…"

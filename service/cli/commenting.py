"""`turnout comment`: a gate's Markdown as one comment of a pull or merge request, updated with each push.

It is also what tells that a verdict is absent: a gate that did not run is no gate that passed.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from service.cli.options import Json

if TYPE_CHECKING:
    from service.cli.forges import Change

ABSENT = "absent"  # no gate said anything
MOST_LINES = 20  # of the log of a gate that did not run
MOST_CHARACTERS = 500  # of a line of it
MOST_OF_LOG = 30_000  # as a comment spells it: GitHub takes 65,536 characters in all
SHA_SHOWN = 7
FORK = (
    "This change comes from a fork, and jobs of forks get no secrets: a model whose `api_key_env` names one cannot be asked."
    " A skipped gate counts as failed. A maintainer who has read the change pushes its branch to this repository, where"
    " the gate runs with the keys."
)


@dataclass(frozen=True)
class Told:
    """What a gate left behind: its verdict (`absent` where there is none), its evidence, and the comment's text."""

    verdict: str
    evidence_ids: tuple[str, ...]
    text: str


def comment(
    file: Annotated[Path, typer.Argument(help="What `gate --markdown` wrote.", metavar="FILE")],
    json_file: Annotated[
        Path | None, typer.Option("--json-file", help="What `gate --json-file` wrote: the verdict of the outputs.")
    ] = None,
    log: Annotated[
        list[Path] | None, typer.Option("--log", help="What was told instead, where there is no verdict; several.")
    ] = None,
    name: Annotated[
        str, typer.Option("--name", help="Tells apart the comments of several gates on one change.")
    ] = "gate",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Write summary and outputs; send nothing.")] = False,
    as_json: Json = False,
) -> int:
    """Put a gate's Markdown as one comment on the CI job's pull or merge request, or update the one that is there.

    In GitHub Actions it also writes the job's summary, and the outputs `verdict` and `evidence-id`.
    """
    from prompts.errors import BadInput
    from service.cli.exits import COULD_NOT_RUN, PASSED
    from service.cli.forges import change_of

    change = change_of()
    if change is None:
        raise BadInput("comment: this is no job of GitHub Actions or GitLab CI: there is no pull request to comment on")
    told = read_told(file, json_file, log or (), change)
    body = with_name(told.text, name)
    url, reason = (None, "--dry-run") if dry_run else _send(change, body)
    _write_outputs(told, reason if change.kind == "pull_request" else "")
    _show(told, url, reason, as_json=as_json)
    return COULD_NOT_RUN if reason.startswith("refused") and not change.is_fork else PASSED


def with_name(text: str, name: str) -> str:
    """The text with the hidden marker by which its comment is found again."""
    from suites.report.markdown import MARKER

    return f"{marker(name)}\n{text.removeprefix(MARKER).lstrip()}"


def marker(name: str) -> str:
    """A hidden line. Raises BadInput for a name that could end it."""
    import re

    from prompts.errors import BadInput

    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", name):
        raise BadInput(f"--name {name}: write letters, digits, dots, _ and -, at most 64", param="name")
    return f"<!-- turnout:{name} -->"


# ------------------------------------------------------------------ what a gate left behind


def read_told(file: Path, json_file: Path | None, logs: tuple[Path, ...] | list[Path], change: Change) -> Told:
    """The verdict and the text of the comment, also where the gate left neither."""
    answer = _read_json(json_file)
    verdict = str(answer.get("verdict") or ABSENT)
    ids = tuple(str(entry["evidence_id"]) for entry in answer.get("suites", ()) if entry.get("evidence_id"))
    text = _read(file)
    if json_file is None and text:
        verdict = ""  # nobody asked for it
    parts = [text.rstrip() if text and verdict != ABSENT else _absent(logs)]
    if change.is_fork and verdict not in ("pass", "fail", "inconclusive", ""):
        parts += ["", f"> {FORK}"]
    parts += ["", *_foot(change)]
    return Told(verdict, ids, "\n".join(parts) + "\n")


def _absent(logs: tuple[Path, ...] | list[Path]) -> str:
    from suites.report.markdown import MARKER, escape

    lines = [MARKER, "## ⛔ Turnout gate: no verdict", ""]
    lines += ["The gate ended before it could say anything. An absent verdict counts as failed.", ""]
    said = [line for path in logs for line in _read(path).splitlines() if line.strip()]
    shown: list[str] = []
    for line in reversed(said[-MOST_LINES:]):
        text = escape(line if len(line) <= MOST_CHARACTERS else f"{line[: MOST_CHARACTERS - 1]}…")
        if sum(map(len, shown)) + len(text) > MOST_OF_LOG:
            break
        shown.insert(0, text)
    if shown:
        lines += ["<pre>", *shown, "</pre>", ""]
    return "\n".join(lines).rstrip()


def _foot(change: Change) -> Iterator[str]:
    """Of which commit this is, and where the job is."""
    link = f" · [job]({change.run_url})" if change.run_url.startswith(("https://", "http://")) else ""
    if change.head or link:
        yield f"<sub>Turnout at {change.head[:SHA_SHOWN] or 'this commit'}{link}</sub>"


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8", errors="replace")  # a log holds what every program wrote
    except FileNotFoundError:
        return ""


def _read_json(path: Path | None) -> Mapping[str, Any]:
    """A gate's answer; empty where there is none, or no whole one: a gate was killed while it wrote."""
    try:
        found = json.loads(_read(path)) if path is not None else {}
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


# ------------------------------------------------------------------ sending and telling


def _send(change: Change, body: str) -> tuple[str | None, str]:
    """The address of the comment, else why there is none; `refused …` where the forge took none."""
    from service.cli.forge_notes import NotAllowed, notes_of

    if change.number is None:
        what = "this event" if change.kind == "other" else f"a {change.kind.replace('_', ' ')}"
        return None, f"{what} has no pull request to comment on"
    try:
        notes = notes_of(change, os.environ)
        return notes.put(body), ""
    except NotAllowed as error:
        return None, f"refused: {error}"


def _write_outputs(told: Told, reason: str) -> None:
    """GitHub's summary of the job and the outputs of the step, where there are such."""
    summary, outputs = (os.environ.get(f"GITHUB_{name}") for name in ("STEP_SUMMARY", "OUTPUT"))
    if summary:
        from suites.report.markdown import escape

        uncommented = f"\n> No comment was written: {escape(reason)}\n" if reason else ""
        with Path(summary).open("a", encoding="utf-8") as file:
            file.write(told.text + uncommented)
    if outputs:
        ids = " ".join("".join(c for c in each if c.isalnum() or c in "_-") for each in told.evidence_ids)
        with Path(outputs).open("a", encoding="utf-8") as file:
            file.write(f"verdict={told.verdict if told.verdict.isidentifier() else ABSENT}\nevidence-id={ids}\n")


def _show(told: Told, url: str | None, reason: str, *, as_json: bool) -> None:
    from service.cli.output import err, out, print_json

    if as_json:
        print_json({"verdict": told.verdict, "evidence_ids": list(told.evidence_ids), "comment": url, "reason": reason})
    else:
        out().print(f"verdict: {told.verdict or 'not asked for'}", markup=False)
        out().print(f"comment: {url}" if url else f"no comment: {reason}", markup=False)
    if told.verdict == ABSENT:
        err().print("no verdict: the gate ended before it could say anything, which counts as failed", markup=False)
    if FORK in told.text:
        err().print(FORK, markup=False)

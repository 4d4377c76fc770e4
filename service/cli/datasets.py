"""Commands on datasets: make one, list, show and export them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from service.cli.calling import call
from service.cli.options import Json, Local
from service.cli.selecting import id_in_path

dataset = typer.Typer(help="Training examples, kept by the digest of their content.", no_args_is_help=True)
Digest = Annotated[str, typer.Argument(help="A dataset's digest, or the first six digits of it or more.")]


@dataset.command("create")
def create(
    prompt: Annotated[str, typer.Argument(help="The prompt that the examples are of: NAME or NAME@SEL.")],
    suite: Annotated[
        str | None, typer.Option("--suite", help="The training examples of a suite: its file or its name.")
    ] = None,
    file: Annotated[
        list[Path] | None, typer.Option("--file", help="JSONL of vars and expected, or OpenAI's chat messages; repeat.")
    ] = None,
    reviewed: Annotated[bool, typer.Option("--reviewed", help="The prompt's accepted completions.")] = False,
    ignore_system: Annotated[
        bool, typer.Option("--ignore-system", help="Read chat messages whatever their system message says.")
    ] = False,
    message: Annotated[str | None, typer.Option("--message", "-m", help="What it is; kept with it.")] = None,
    as_json: Json = False,
    local: Local = False,
) -> int:
    """Make a dataset of a suite's training, files and reviewed completions, and report on it."""
    from service.cli.output import print_json
    from service.cli.project import read_text

    files = [{"name": path.name, "text": read_text(path, str(path))} for path in file or []]
    body: dict[str, Any] = {"prompt": prompt, "reviewed": reviewed, "files": files, "message": message}
    body["ignore_system"] = ignore_system
    if suite is not None:
        body |= _of_suite(suite, prompt, local=local)
    made = call(local, "POST", "/api/datasets", body=body)
    found = {**call(local, "GET", f"/api/datasets/{made['digest']}"), "created": made["created"]}
    if as_json:
        print_json(found)
    else:
        _show(found)
    return 0


def _of_suite(suite: str, prompt: str, *, local: bool) -> dict[str, str]:
    """The suite's version, and its prompt's where both are of the working tree."""
    from service.cli.testing import prepare

    _, _, [plan], versions = prepare([suite], (), local=local)
    body = {"suite": versions.get(("suite", plan.suite), plan.suite)}
    if prompt == plan.prompt:
        body["prompt"] = versions.get(("prompt", plan.prompt), prompt)
    return body


@dataset.command("list")
def list_datasets(
    prompt: Annotated[str | None, typer.Argument(help="Only those of this prompt.")] = None,
    as_json: Json = False,
    local: Local = False,
) -> int:
    """Datasets, newest first, with where their examples came from."""
    from service.cli.output import print_json, short, table

    found = call(local, "GET", "/api/datasets", params={"prompt": prompt} if prompt else {})
    if as_json:
        print_json(found)
    else:
        rows = [{**each, "digest": short(each["digest"]), "sources": _sources(each)} for each in found]
        table(rows, ("digest", "prompt", "count", "sources", "message", "created_at"))
    return 0


@dataset.command("show")
def show(digest: Digest, as_json: Json = False, local: Local = False) -> int:
    """A dataset: where its examples came from, and the report on them."""
    from service.cli.output import print_json

    found = call(local, "GET", f"/api/datasets/{id_in_path('dataset', digest)}")
    if as_json:
        print_json(found)
    else:
        _show(found)
    return 0


@dataset.command("export")
def export(digest: Digest, as_json: Json = False, local: Local = False) -> int:
    """Print a dataset's examples as JSON lines, as `training` and `--file` take them."""
    import json

    from service.cli.output import print_json, print_json_lines

    lines = call(local, "GET", f"/api/datasets/{id_in_path('dataset', digest)}/examples")
    rows = [json.loads(line) for line in lines.split("\n") if line]
    if as_json:
        print_json(rows)
    else:
        print_json_lines(rows)
    return 0


def _show(found: dict[str, Any]) -> None:
    from finetune.data import DataReport, report_lines
    from service.cli.output import out

    known = "" if found.get("created", True) else " (known before)"
    out().print(f"dataset {found['digest']}{known}", markup=False, soft_wrap=True)
    out().print(f"of {found['prompt']}, by {found['created_by']} at {found['created_at']}", markup=False)
    out().print(f"sources    {_sources(found)}", markup=False)
    for line in report_lines(DataReport.model_validate(found["report"])):
        out().print(line, markup=False, soft_wrap=True)


def _sources(found: dict[str, Any]) -> str:
    from finetune.data import Source

    return "; ".join(str(Source.model_validate(source)) for source in found["sources"])

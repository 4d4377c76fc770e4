"""Command `import`, and what `export` does for a prompt: from other tools' files, and into them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from service.cli.options import Json, Providers, Strict

if TYPE_CHECKING:
    from service.cli.foreign_files import Plan

MOST_LISTED = 30  # things left out that are listed one by one; more are counted by their reasons
FormatName = Literal[
    "auto", "github", "prompty", "dotprompt", "promptfoo", "mlflow", "langfuse", "openai", "openai-evals"
]


def import_prompts(
    format_name: Annotated[FormatName, typer.Argument(metavar="FORMAT", help="By suffix and content with auto.")],
    paths: Annotated[list[Path], typer.Argument(help="Files, or folders with all files of that format below them.")],
    into: Annotated[Path | None, typer.Option(help="Where the prompts go; by default the project's prompts/.")] = None,
    model: Annotated[
        str | None, typer.Option(help="A model alias for prompts that name none, or one that turnout.yaml has not.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be written, and write nothing.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Write over prompts that are there already.")] = False,
    skip_broken: Annotated[
        bool, typer.Option("--skip-broken", help="Write the prompts of the files without faults; by default none.")
    ] = False,
    provider: Providers = None,
    strict: Strict = False,
    as_json: Json = False,
) -> int:
    """Prompts of other tools, and their suites, as files, all or none; what cannot be carried over is listed, never dropped."""
    from service.cli.exits import BAD_USAGE
    from service.cli.foreign_files import Import, without_broken, write
    from service.cli.output import print_json
    from service.cli.project import Project
    from service.settings import load_settings

    project = Project(load_settings())
    asked = Import(project, format_name, into or project.root / "prompts", model, force, tuple(provider or ()))
    plan = asked.plan(paths)
    wanted = without_broken(plan) if skip_broken else plan
    is_refused = (bool(plan.faults) and not (skip_broken and wanted.files)) or (strict and bool(plan.left_out))
    if not (is_refused or dry_run):
        write(wanted)
    written = [] if is_refused else [{"name": each.name, "path": project.shown(each.path), "from": each.source,
                                      "state": each.state} for each in wanted.files]  # fmt: skip
    if as_json:
        print_json({"written": written, "dry_run": dry_run, "left_out": _left_out(plan), "faults": _faults(plan)})
    else:
        _show(plan, written, dry_run)
    return BAD_USAGE if is_refused else 0


def _left_out(plan: Plan) -> list[dict[str, str]]:
    return [{"place": each.place, "what": each.what, "why": each.why} for each in plan.left_out]


def _faults(plan: Plan) -> list[dict[str, Any]]:
    return [{"path": each.path, "line": each.line, "message": each.message, "fix": each.fix} for each in plan.faults]


def _show(plan: Plan, written: list[dict[str, Any]], dry_run: bool) -> None:
    from prompts.wording import many
    from service.cli.output import err, table
    from suites.foreign.converted import counted

    if written:
        table(written, ("name", "path", "state", "from"))
    if plan.left_out:
        err().print(f"{len(plan.left_out)} left out or changed:")
    for line in counted(plan.left_out) if len(plan.left_out) > MOST_LISTED else map(str, plan.left_out):
        err().print(f"  {line}", markup=False, soft_wrap=True)
    for fault in plan.faults:
        err().print(str(fault), markup=False)
    if plan.faults and not written:
        fix = "mend them, or go on without these files by --skip-broken"
        err().print(f"{many(len(plan.faults), 'fault')}; nothing was written: {fix}")
    elif plan.faults:
        err().print(f"{many(len(plan.faults), 'fault')}; the files that have faults were passed over")
    if dry_run and written:
        err().print("nothing was written: --dry-run")


def export_prompt(
    name: str,
    to: str,
    variables: list[str] | None,
    placeholders: list[str] | None,
    output: Path | None,
    as_json: bool,
    local: bool,
) -> int:
    """A prompt as GitHub's .prompt.yml, as rendered messages, or as a request of OpenAI's API."""
    import json
    import sys

    from prompts.formats.writing import prompt_text
    from service.cli.output import err
    from service.cli.reports import write_text

    left_out: tuple[str, ...] = ()
    if to == "github":
        keys, left_out = _github(name, local)
        text = json.dumps(keys, indent=2, ensure_ascii=False) + "\n" if as_json else prompt_text(keys)
    else:
        text = json.dumps(_rendered(name, to, variables, placeholders, local), indent=2, ensure_ascii=False) + "\n"
    if output is not None:
        write_text(output, text)
        err().print(f"wrote {output}", markup=False)
    else:
        sys.stdout.write(text)
    for line in left_out:
        err().print(f"left out: {line}", markup=False)
    return 0


def _github(selector: str, local: bool) -> tuple[dict[str, Any], tuple[str, ...]]:
    from prompts.formats.export import github
    from prompts.prompt import PromptContent
    from service.cli.rendering import in_working_tree, resolved_source
    from service.cli.selecting import fetch_version
    from service.settings import load_settings

    tree_name = in_working_tree(selector, local)
    if tree_name is not None:
        source, content = resolved_source(load_settings(), tree_name)
        exported = github(content, source.title, source.description)
        own = {"testData": list(source.test_data), "evaluators": list(source.evaluators)}
        return {**exported.keys, **{key: value for key, value in own.items() if value}}, exported.left_out
    version = fetch_version(selector, local)
    held = {key: version[key] for key in PromptContent.model_fields if key in version}
    exported = github(PromptContent.model_validate(held), version.get("title"), version.get("description"))
    keys, left_out = _suite_keys(version["name"], local)
    return {**exported.keys, **keys}, (*exported.left_out, *left_out)


def _suite_keys(name: str, local: bool) -> tuple[dict[str, Any], tuple[str, ...]]:
    """`testData` and `evaluators` of the suite of the prompt's name; a key that may not read suites is told so."""
    from service.cli.calling import call
    from service.errors import Forbidden, NotFound
    from suites.case import Suite
    from suites.github import github_keys

    try:
        suite = Suite.from_data(call(local, "GET", f"/api/suites/{name}")["content"])
    except NotFound:
        return {}, ()
    except Forbidden:
        return {}, ("testData: this key may not read suites; an author's may",)
    if suite.prompt != name:
        return {}, ()
    made = github_keys(suite)
    return made.keys, made.left_out


def _rendered(
    selector: str, to: str, variables: list[str] | None, placeholders: list[str] | None, local: bool
) -> list[dict[str, Any]] | dict[str, Any]:
    from prompts.formats.export import openai_request
    from service.cli.rendering import rendered_prompt
    from service.settings import load_settings

    shown = rendered_prompt(selector, variables, placeholders, local)
    if to == "messages":
        messages: list[dict[str, Any]] = shown["messages"]
        return messages
    spec = load_settings().models.get(shown["model"])
    return openai_request(shown, getattr(spec, "model", None) or shown["model"])

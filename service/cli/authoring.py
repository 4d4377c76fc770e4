"""Commands of prompt authors: init, check, push."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from service.cli.options import Json, Local, Paths

if TYPE_CHECKING:
    from collections.abc import Mapping

    from prompts.formats.prompt_yml import PromptSource
    from service.cli.examining import Checked
    from service.cli.scaffold import Engine

_ABOUT_MODELS = frozenset({"unknown-model", "context-length"})  # what cannot be said without turnout.yaml


def init(
    folder: Annotated[Path, typer.Argument(help="Where the project is to be.")] = Path(),
    model: Annotated[
        str | None,
        typer.Option("--model", help="local, openai or fake; by default what works here, in this order."),
    ] = None,
    as_json: Json = False,
) -> int:
    """Scaffold a project: a prompt, its suite, turnout.yaml, editor schemas, a CI workflow. Files that are there stay."""
    from service.cli.output import err, print_json
    from service.cli.scaffold import IGNORE, IGNORED, files_of, write_files
    from service.settings import FILE_NAME

    engine, reason = _engine(model)
    written = write_files(folder, files_of(engine))
    is_ours = (folder / FILE_NAME, True) in written
    if as_json:
        paths = {word: [str(path) for path, new in written if new is is_new] for word, is_new in _WRITTEN.items()}
        print_json({"model": engine if is_ours else None, **paths})
        return 0
    for path, is_new in written:
        err().print(f"{'wrote' if is_new else 'kept '} {path}", markup=False)
    if (folder / IGNORE, False) in written:
        err().print(f"see that {IGNORE} has: {' '.join(IGNORED)}", markup=False)
    about = f"its model is {engine}: {reason}" if is_ours else f"its models stay those of {folder / FILE_NAME}"
    err().print(about, markup=False)
    err().print("next: turnout check, then turnout run --local")
    return 0


_WRITTEN = {"wrote": True, "kept": False}


def _engine(given: str | None) -> tuple[Engine, str]:
    import os

    from prompts.errors import BadInput
    from service.child import missing_local_packages
    from service.cli.scaffold import Engine, choose_engine

    if given is None:
        return choose_engine(has_local=not missing_local_packages(), has_key=bool(os.environ.get("OPENAI_API_KEY")))
    if given not in set(Engine):
        raise BadInput(f"--model {given}: write one of {', '.join(Engine)}", param="model")
    return Engine(given), "as asked"


def check(
    paths: Paths = None,
    strict: Annotated[bool, typer.Option("--strict", help="Warnings fail, too.")] = False,
    sarif: Annotated[Path | None, typer.Option("--sarif", help="Write SARIF here, for code scanning.")] = None,
    as_json: Json = False,
) -> int:
    """Every fault of every file, with line and fix, and what is likely wrong; calls no model and no server."""
    from service.cli.exits import BAD_USAGE, of_several
    from service.cli.output import err, print_json

    found = _examine(paths or [])
    nothing = _nothing_to_check(found, paths or [])
    refused = bool(found.faults if strict else found.errors) or bool(nothing)
    if as_json:
        print_json({**found.data, "ok": not refused})
    else:
        _show_faults(found)
    if nothing:
        err().print(nothing, markup=False)
    return of_several([BAD_USAGE if refused else 0, *(_written(sarif, found) if sarif else ())])


def _written(path: Path, found: Checked) -> list[int]:
    """Write the faults; the exit code where the file cannot be written, which hides none of them."""
    from service.cli.exits import COULD_NOT_RUN
    from service.cli.findings import write_sarif
    from service.cli.output import show_error
    from service.errors import CannotRun

    try:
        write_sarif(path, found.faults)
    except CannotRun as error:
        show_error(str(error))
        return [COULD_NOT_RUN]
    return []


def _examine(paths: list[Path]) -> Checked:
    """Faults of turnout.yaml do not hide those of prompts and suites."""
    from prompts.errors import BadFile, shown_faults
    from service.cli.project import Project
    from service.settings import default_settings, load_settings, project_of

    folder = project_of(paths)
    try:
        return Project(load_settings(start=folder)).examine(paths)
    except BadFile as error:
        found = Project(default_settings(folder)).examine(paths)
        kept = (fault for fault in found.faults if fault.rule not in _ABOUT_MODELS)
        return dataclasses.replace(found, faults=shown_faults((*error.faults, *kept)))


def _nothing_to_check(found: Checked, paths: list[Path]) -> str:
    """Why there is nothing to check, with the fix; "" where there is. turnout.yaml alone is something, where it is named."""
    from service.settings import FILE_NAME

    if found.prompts or found.suites or found.errors or any(path.name == FILE_NAME for path in paths):
        return ""
    where = ", ".join(map(str, paths)) or str(Path.cwd())
    told = f"nothing to check in {where}: no *.prompt.yml below prompts/, no *.suite.yml below suites/"
    return f"{told}: name the files, or go to the folder of {FILE_NAME}"


def _show_faults(found: Checked) -> None:
    from prompts.wording import many
    from service.cli.output import err, out

    for fault in found.faults:
        err().print(str(fault), markup=False)
    errors, warnings = len(found.errors), len(found.faults) - len(found.errors)
    if errors or warnings:
        err().print(f"{many(errors, 'fault')}, {many(warnings, 'warning')}")
    if not errors and (found.prompts or found.suites):
        out().print(f"{many(len(found.prompts), 'prompt')} and {many(len(found.suites), 'suite')} are fine")


def push(
    paths: Paths = None,
    message: Annotated[str | None, typer.Option("--message", "-m", help="What this version is for.")] = None,
    as_json: Json = False,
    local: Local = False,
) -> int:
    """Make versions of the files whose content is new, all or none; labels move as committed on the default branch."""
    from service.cli.output import print_json
    from service.cli.project import Project, git_origin
    from service.cli.work import connect_work
    from service.settings import load_settings, project_of

    settings = load_settings(start=project_of(paths or []))
    project = Project(settings)
    sources, suites = project.check(paths or [])
    prompts = {name: source.document.data for name, source in sources.items()}
    resolved = {suite.name: suite.suite for suite in suites}
    work = connect_work(settings, local=local)
    origin = git_origin(project.root)
    if origin:
        origin["git_dirty"] = sorted({*origin["git_dirty"], *_changed_elsewhere(project.root, sources)})
    written = work.push(prompts, resolved, {"message": message} | origin)
    if as_json:
        print_json(written)
    else:
        _show_pushed(written)
    return 0


def _changed_elsewhere(root: Path, sources: Mapping[str, PromptSource]) -> list[str]:
    """The prompts whose files lie outside `prompts/` and are not as they are committed."""
    from service.cli.revisions import git

    folder = (root / "prompts").resolve()
    files = {name: Path(source.document.path).resolve() for name, source in sources.items()}
    elsewhere = {name: str(file) for name, file in files.items() if not file.is_relative_to(folder)}
    return [
        name
        for name, file in elsewhere.items()
        if git(root, "ls-files", "--error-unmatch", "--", file, check=False) is None
        or git(root, "diff", "--quiet", "HEAD", "--", file, check=False) is None
    ]


def _show_pushed(written: list[dict[str, Any]]) -> None:
    """What is new, how much is not, and which labels moved."""
    from service.cli.output import out, short, table

    new = [entry for entry in written if entry["created"]]
    if new:
        table([{**entry, "digest": short(entry["digest"])} for entry in new], ("kind", "name", "version", "digest"))
    out().print(f"{len(new)} new, {len(written) - len(new)} unchanged")
    for entry in written:
        for label in entry.get("labels", ()):
            out().print(f"{entry['name']}@{label} → {entry['version']}", markup=False)
        for label, reason in entry.get("labels_kept", {}).items():
            out().print(f"{entry['name']}@{label} not moved: {reason}", markup=False)

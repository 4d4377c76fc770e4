"""Commands of prompt authors: init, check, push, log, show, diff, label, render."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from service.cli.calling import call
from service.cli.options import Json, Local, Paths, Reason

Variables = Annotated[list[str] | None, typer.Option("-v", "--var", help="key=value, once for each variable.")]


def init(folder: Annotated[Path, typer.Argument(help="Where the project is to be.")] = Path()) -> int:
    """Scaffold a project: a prompt, its suite, turnout.yaml and a CI workflow. Files that are there stay."""
    from service.cli.output import err
    from service.cli.scaffold import FILES, write_files

    for path, written in write_files(folder, FILES):
        err().print(f"{'wrote' if written else 'kept '} {path}", markup=False)
    err().print("next: turnout check, then turnout run --local")
    return 0


def check(paths: Paths = None, as_json: Json = False) -> int:
    """Every fault of every file, with line and fix; calls no model and no server."""
    from prompts.errors import BadFile
    from service.cli.exits import BAD_USAGE
    from service.cli.output import err, out, print_json
    from service.cli.project import Project
    from service.settings import load_settings

    project = Project(load_settings())
    try:
        sources, suites = project.check(paths or [])
        faults: tuple[Any, ...] = ()
        if not sources and not suites:
            err().print(f"nothing to check below {project.root}", markup=False)
    except BadFile as error:
        sources, suites, faults = {}, [], error.faults
    if as_json:
        shown = [{"path": f.path, "line": f.line, "message": f.message, "fix": f.fix} for f in faults]
        print_json({"ok": not faults, "prompts": len(sources), "suites": len(suites), "faults": shown})
    elif faults:
        for fault in faults:
            err().print(str(fault), markup=False)
        err().print(f"{len(faults)} faults")
    else:
        out().print(f"{len(sources)} prompts and {len(suites)} suites are fine")
    return BAD_USAGE if faults else 0


def push(
    paths: Paths = None,
    message: Annotated[str | None, typer.Option("--message", "-m", help="What this version is for.")] = None,
    as_json: Json = False,
    local: Local = False,
) -> int:
    """Make versions of the files whose content is new, all or none; labels move from the default branch only."""
    from service.cli.output import print_json, table
    from service.cli.project import Project, git_origin
    from service.cli.work import connect_work
    from service.settings import load_settings

    settings = load_settings()
    project = Project(settings)
    sources, suites = project.check(paths or [])
    prompts = {name: source.document.data for name, source in sources.items()}
    resolved = {suite.name: suite.suite.as_data() for suite in suites}
    work = connect_work(settings, local=local)
    written = work.push(prompts, resolved, {"message": message, **git_origin(project.root)})
    if as_json:
        print_json(written)
    else:
        table(written, ("kind", "name", "version", "created", "digest"))
    return 0


def log(name: str, as_json: Json = False, local: Local = False) -> int:
    """The versions of a prompt, newest first, and its labels."""
    from prompts.names import check_name
    from service.cli.output import out, print_json, table

    check_name(name)
    history = call(local, "GET", f"/api/prompts/{name}/versions")
    if as_json:
        print_json(history)
        return 0
    labels = ", ".join(f"{label} → {number}" for label, number in history["labels"].items())
    out().print(f"{name}: {labels}", markup=False)
    table(history["versions"], ("version", "created_at", "author", "git_sha", "message", "digest"))
    return 0


def show(selector: str, as_json: Json = False, local: Local = False) -> int:
    """One version: NAME (production), NAME@LABEL or NAME@N."""
    import json

    from service.cli.output import out, print_json

    version = _version(selector, local)
    if as_json:
        print_json(version)
        return 0
    out().print(f"{version['name']}@{version['version']}  {version['digest']}  model {version['model']}", markup=False)
    for message in version["messages"]:
        out().print(f"--- {message['role']}\n{message['content']}", markup=False)
    for name in ("variables", "parameters"):
        out().print(f"--- {name}: {json.dumps(version[name])}", markup=False)
    return 0


def diff(name: str, a: str, b: str, as_json: Json = False, local: Local = False) -> int:
    """What changed from version or label A to B."""
    from prompts.names import check_name
    from service.cli.output import out, print_json

    check_name(name)
    found = call(local, "GET", f"/api/prompts/{name}/diff", params={"a": a, "b": b})
    if as_json:
        print_json(found)
        return 0
    for line in found["messages"]:
        out().print(line, markup=False, style={"+": "green", "-": "red"}.get(line[:1]))
    for field, (before, after) in found["fields"].items():
        out().print(f"{field}: {before} → {after}", markup=False)
    if found["same"]:
        out().print("the same content")
    return 0


def label(
    name: str, label: str, version: int, reason: Reason = None, as_json: Json = False, local: Local = False
) -> int:
    """Point a label of a prompt to a version; a protected one needs a passing gate, or an admin's reason."""
    from prompts.names import check_name
    from service.cli.output import out, print_json

    body = {"version": version, "reason": reason}
    check_name(name)
    moved = call(local, "PUT", f"/api/prompts/{name}/labels/{label}", body=body)
    if as_json:
        print_json(moved)
    else:
        out().print(f"{name}@{label} → {moved['version']}", markup=False)
    return 0


def render(selector: str, variables: Variables = None, as_json: Json = False, local: Local = False) -> int:
    """The exact messages of NAME[@SEL]; with --local inside a project from the working tree."""
    from prompts.names import parse_selector
    from service.cli.output import out, print_json
    from service.cli.project import Project
    from service.settings import find_project_file, load_settings

    chosen = parse_selector(selector)
    given = _pairs(variables or [])
    bare = chosen.version is None and chosen.label is None
    if local and bare and find_project_file(Path.cwd().resolve()) is not None:
        shown = _render_working_tree(Project(load_settings()), chosen.name, given)
    else:
        shown = _render_registered(selector, given, local)
    if as_json:
        print_json(shown)
        return 0
    for message in shown["messages"]:
        out().print(f"--- {message['role']}\n{message['content']}", markup=False)
    return 0


def _render_working_tree(project: Any, name: str, given: dict[str, str]) -> dict[str, Any]:
    from prompts.errors import BadInput
    from prompts.prompt import compile_prompt
    from prompts.registry import nothing_registered, resolve
    from service.registry import rendered

    if name not in project.prompts:
        raise BadInput(f"prompts/{name.replace('.', '/')}.prompt.yml is not there")
    content = resolve(project.prompts[name], project.prompts, nothing_registered)
    return rendered(name, None, compile_prompt(content), _typed(given, content.variables), [])


def _render_registered(selector: str, given: dict[str, str], local: bool) -> dict[str, Any]:
    version = _version(selector, local)
    variables = _typed(given, version["variables"])
    path, params = f"/api/prompts/{version['name']}/render", {"version": version["version"]}
    shown: dict[str, Any] = call(local, "POST", path, body={"variables": variables}, params=params)
    return shown


def _pairs(given: list[str]) -> dict[str, str]:
    from prompts.errors import BadInput

    pairs = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals:
            raise BadInput(f"-v {text}: write key=value", param="-v")
        pairs[name] = value
    return pairs


def _typed(given: dict[str, str], schemas: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Values of variables that are no strings are read as JSON."""
    import json

    from prompts.errors import BadInput

    values: dict[str, Any] = {}
    for name, text in given.items():
        if schemas.get(name, {}).get("type", "string") == "string":
            values[name] = text
            continue
        try:
            values[name] = json.loads(text)
        except ValueError as error:
            raise BadInput(f"-v {name}={text}: not JSON, and {name!r} is no string: {error}", param=name) from error
    return values


def _version(selector: str, local: bool) -> dict[str, Any]:
    from prompts.names import parse_selector

    chosen = parse_selector(selector)
    params = {"version": chosen.version, "label": chosen.label}
    found: dict[str, Any] = call(
        local, "GET", f"/api/prompts/{chosen.name}", params={key: value for key, value in params.items() if value}
    )
    return found

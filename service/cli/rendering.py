"""The command `render`: the exact messages of a prompt, and how many tokens they are."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from service.cli.calling import call
from service.cli.options import Json, Local
from service.cli.selecting import fetch_version, pairs, typed

if TYPE_CHECKING:
    from prompts.errors import Fault
    from prompts.formats.prompt_yml import PromptSource
    from prompts.prompt import PromptContent
    from service.cli.examining import Tree
    from service.cli.project import Project
    from service.settings import Settings

FROM_FILE = "@"
Variables = Annotated[
    list[str] | None,
    typer.Option(
        "-v", "--var", help="key=value, or key=@FILE for a file's text (@@ for an @); once for each variable."
    ),
]
Placeholders = Annotated[
    list[str] | None,
    typer.Option("-p", "--placeholder", help="name=@FILE or name=JSON: a list of messages; once for each placeholder."),
]


def render(
    selector: str,
    variables: Variables = None,
    placeholders: Placeholders = None,
    as_json: Json = False,
    local: Local = False,
) -> int:
    """The exact messages of NAME[@SEL] and their tokens; with --local inside a project from the working tree."""
    from service.cli.output import out, print_json
    from service.settings import load_settings
    from service.tokens import TokenCounter

    settings = load_settings()
    shown = rendered_prompt(selector, variables, placeholders, local)
    counter = TokenCounter(settings.models.get(shown["model"]))
    tokens = counter.count(shown["messages"], shown["parameters"].get("tools", ()))
    if as_json:
        print_json({**shown, "tokens": {"count": tokens.count, "exact": tokens.exact}})
    else:
        _show(shown["messages"])
        of = f" of {counter.context:,}" if counter.context else ""
        out().print(f"--- tokens: {tokens}{of}", markup=False)
    return 0


def rendered_prompt(
    selector: str, variables: list[str] | None, placeholders: list[str] | None, local: bool
) -> dict[str, Any]:
    """What a render of NAME[@SEL] answers, for values as they are given with -v and -p."""
    from service.settings import load_settings

    given = {name: text_of(name, value) for name, value in pairs(variables or []).items()}
    lists = {name: messages_of(name, value) for name, value in pairs(placeholders or [], "-p").items()}
    tree_name = in_working_tree(selector, local)
    if tree_name is not None:
        return _from_working_tree(load_settings(), tree_name, given, lists)
    return _from_registry(selector, given, lists, local)


def in_working_tree(selector: str, local: bool) -> str | None:
    """The prompt's name where the working tree is meant: a bare name with --local, inside a project."""
    from prompts.names import parse_selector
    from service.settings import find_project_file

    chosen = parse_selector(selector)
    bare = chosen.version is None and chosen.label is None
    return chosen.name if local and bare and find_project_file(Path.cwd().resolve()) is not None else None


def text_of(name: str, value: str) -> str:
    """What `key=value` means: the text, or with @ the text of a file. Raises BadInput where there is no such file."""
    from prompts.errors import BadInput

    if not value.startswith(FROM_FILE):
        return value
    if value.startswith(2 * FROM_FILE):
        return value[1:]
    path = Path(value[1:])
    try:
        return path.read_text("utf-8").removesuffix("\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        fix = f"for the text {value!r} itself write {name}=@{value}"
        raise BadInput(f"{name}={value}: {path} cannot be read: {reason}; {fix}", param=name) from error


def messages_of(name: str, value: str) -> Any:
    """What `name=value` means for a placeholder: JSON, or with @ that of a file. Raises BadInput where it is none."""
    import json

    from prompts.errors import BadInput

    try:
        return json.loads(text_of(name, value))
    except ValueError as error:
        form = '[{"role": "user", "content": "…"}]'
        raise BadInput(f"-p {name}: not JSON ({error}); write a list of messages: {form}", param=name) from error


def _from_working_tree(
    settings: Settings, name: str, given: dict[str, str], lists: Mapping[str, Any]
) -> dict[str, Any]:
    from prompts.prompt import compile_prompt
    from service.registry import rendered

    _, content = resolved_source(settings, name)
    _refuse_missing(content.variables, given, "variable", "-v")
    _refuse_missing(
        {n: p.model_dump(exclude_none=True) for n, p in content.placeholders.items()}, lists, "placeholder", "-p"
    )
    return rendered(name, None, compile_prompt(content), typed(given, content.variables), [], lists)


def resolved_source(settings: Settings, name: str) -> tuple[PromptSource, PromptContent]:
    """A prompt of the working tree and its content with includes; raises BadFile or BadInput where it has none."""
    from prompts.errors import BadFile, BadInput
    from prompts.registry import nothing_registered, resolve
    from service.cli.project import Project

    project = Project(settings)
    tree = project.tree
    broken = tree.broken & _reached(tree, name)
    if broken:
        raise BadFile(_faults_of(project, broken))
    if name not in tree.sources:
        raise BadInput(f"prompts/{name.replace('.', '/')}.prompt.yml is not there")
    source = tree.sources[name]
    return source, resolve(source, tree.sources, nothing_registered)


def _reached(tree: Tree, name: str) -> set[str]:
    """The names of a prompt and of all that it includes, and they include."""
    found: set[str] = set()
    waiting = [name]
    while waiting:
        current = waiting.pop()
        if current not in found:
            found.add(current)
            waiting += tree.sources[current].includes if current in tree.sources else ()
    return found


def _faults_of(project: Project, names: Collection[str]) -> list[Fault]:
    """The faults of the files of these prompts; what is wrong with others is `check`'s to tell."""
    from prompts.errors import BadFile, BadInput

    files = set()
    for file in project.prompt_files():
        with contextlib.suppress(BadFile, BadInput):
            if project.prompt_name(file) in names:
                files.add(project.shown(file))
    return [fault for fault in project.tree.faults if fault.path in files]


def _from_registry(selector: str, given: dict[str, str], lists: dict[str, Any], local: bool) -> dict[str, Any]:
    version = fetch_version(selector, local)
    _refuse_missing(version["variables"], given, "variable", "-v")
    body: dict[str, Any] = {"variables": typed(given, version["variables"])}
    if lists:
        body["placeholders"] = lists
    path, params = f"/api/prompts/{version['name']}/render", {"version": version["version"]}
    shown: dict[str, Any] = call(local, "POST", path, body=body, params=params)
    return shown


def _refuse_missing(declared: Mapping[str, Any], given: Mapping[str, Any], kind: str, option: str) -> None:
    """Name all that are missing, and all that are unknown, at once."""
    from prompts.errors import MissingVariable, UnexpectedVariable

    extra = sorted(given.keys() - declared.keys())
    if extra:
        known = ", ".join(sorted(declared)) or "none"
        raise UnexpectedVariable(f"unexpected {_counted(kind, extra)} {', '.join(map(repr, extra))}: the prompt declares {known}",
                                 param=f"{kind}s.{extra[0]}")  # fmt: skip
    missing = [name for name, about in declared.items() if "default" not in about and name not in given]
    if missing:
        wanted = " ".join(f"{option} {name}=…" for name in missing)
        raise MissingVariable(f"missing {_counted(kind, missing)} {', '.join(map(repr, missing))}: give {wanted}",
                              param=f"{kind}s.{missing[0]}")  # fmt: skip


def _counted(kind: str, names: list[str]) -> str:
    return kind if len(names) == 1 else f"{kind}s"


def _show(messages: list[dict[str, Any]]) -> None:
    import json

    from service.cli.output import out

    for message in messages:
        content = message["content"]
        text = content if isinstance(content, str) else json.dumps(content, indent=2, ensure_ascii=False)
        out().print(f"--- {message['role']}\n{text}", markup=False, soft_wrap=True)

"""Commands that find prompts, look at their versions and move their labels: list, log, show, diff, blame, label."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from service.cli.calling import call
from service.cli.options import Json, Local, Reason
from service.cli.rendering import Placeholders, Variables, messages_of, text_of
from service.cli.selecting import fetch_version, pairs, typed

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

PAGE = 1000  # prompts asked for at once: the most that one answer holds
SHA_SHOWN = 9  # characters of a commit: what git shows of one in a large repository
CONTEXT_LINES = 3  # around a change
_STYLES = {"same": "", "removed": "red strike", "added": "bold green"}
_PLAIN = {"same": "{}", "removed": "[-{}-]", "added": "{{+{}+}}"}  # as `git diff --word-diff` writes them


def list_prompts(
    query: Annotated[
        str | None, typer.Argument(help="Words that all occur in a name, title, description, notes or message.")
    ] = None,
    tag: Annotated[str | None, typer.Option("--tag", help="Only prompts with this tag.")] = None,
    model: Annotated[str | None, typer.Option("--model", help="Only prompts of this model alias.")] = None,
    label: Annotated[str | None, typer.Option("--label", help="Only prompts with this label.")] = None,
    as_json: Json = False,
    local: Local = False,
) -> int:
    """Prompts by name, or those that a search finds: their newest version, labels, tags and model."""
    from service.cli.output import out, print_json, table

    params = {"q": query, "tag": tag, "model": model, "label": label}
    found = _all_pages({key: value for key, value in params.items() if value is not None}, local)
    if as_json:
        print_json(found)
    elif found:
        columns = ("name", "latest", "labels", "tags", "model", "description")
        table([{**row, "labels": _pointers(row["labels"]), "tags": ", ".join(row["tags"])} for row in found], columns)
    else:
        out().print("no prompt is like that" if any(params.values()) else "no prompts yet: turnout push makes them")
    return 0


def _all_pages(params: dict[str, Any], local: bool) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    while True:
        more = {"after": found[-1]["name"]} if found else {}
        batch = call(local, "GET", "/api/prompts", params={**params, **more, "limit": PAGE})
        found += batch
        if len(batch) < PAGE:
            return found


def _pointers(labels: dict[str, int]) -> str:
    return ", ".join(f"{label} → {number}" for label, number in labels.items())


def log(
    name: str,
    limit: Annotated[int | None, typer.Option("-n", "--limit", min=1, max=10_000, help="Only the newest N.")] = None,
    as_json: Json = False,
    local: Local = False,
) -> int:
    """The versions of a prompt, newest first: labels, author, commit, message, and how their newest runs did."""
    from prompts.names import check_name
    from service.cli.output import out, print_json, table

    check_name(name)
    params = {} if limit is None else {"limit": limit}
    history = call(local, "GET", f"/api/prompts/{name}/versions", params=params)
    if as_json:
        print_json(history)
        return 0
    out().print(f"{name}: {_pointers(history['labels'])}", markup=False)
    columns = ("version", "labels", "created_at", "author", "commit", "message", "pass rate")
    table([_logged(version, history["labels"]) for version in history["versions"]], columns)
    return 0


def _logged(version: dict[str, Any], labels: dict[str, int]) -> dict[str, Any]:
    from service.prompt_page import rate

    pointing = [label for label, number in labels.items() if number == version["version"]]
    runs = [f"{run['suite']} with {run['variant'].partition('+')[2]}: {rate(run)}" for run in version["runs"]]
    return {
        "version": version["version"],
        "labels": ", ".join([*pointing, *(["(draft)"] if version["draft"] else [])]),
        "created_at": version["created_at"][:16].replace("T", " "),
        "author": version["git_author"] or version["author"],
        "commit": _commit(version),
        "message": version["message"],
        "pass rate": "\n".join(runs),
    }


def _commit(version: dict[str, Any]) -> str:
    """The commit of a version, with a `+` where its file was not as that commit has it."""
    return (version["git_sha"] or "")[:SHA_SHOWN] + ("+" if version["git_dirty"] else "")


def show(
    selector: str,
    markdown: Annotated[
        bool, typer.Option("--markdown", help="Its page: what it does, variables, versions, known limits.")
    ] = False,
    as_json: Json = False,
    local: Local = False,
) -> int:
    """One version: NAME (production), NAME@LABEL or NAME@N."""
    from service.cli.output import print_json, print_text

    if markdown:
        text = _page(selector, local)
        if as_json:
            print_json({"markdown": text})
        else:
            print_text(text)
        return 0
    version = fetch_version(selector, local)
    if as_json:
        print_json(version)
    else:
        _show(version)
    return 0


def _page(selector: str, local: bool) -> str:
    chosen, params = _selected(selector)
    text: str = call(local, "GET", f"/api/prompts/{chosen}/page", params=params)
    return text


def _selected(selector: str) -> tuple[str, dict[str, Any]]:
    """A selector's name, and the parameters that mean the rest of it."""
    from prompts.names import parse_selector

    chosen = parse_selector(selector)
    params = {"version": chosen.version, "label": chosen.label}
    return chosen.name, {key: value for key, value in params.items() if value}


def _show(version: dict[str, Any]) -> None:
    import json

    from prompts.diff import shown
    from service.cli.output import out

    out().print(f"{version['name']}@{version['version']}  {version['digest']}  model {version['model']}", markup=False)
    out().print(_origin(version), markup=False, style="dim")
    for said in (version["title"], version["description"], ", ".join(version["tags"]), version["notes"]):
        if said:
            out().print(said, markup=False, style="dim")
    for message in version["messages"]:
        entry = shown(message)
        out().print(f"--- {entry.role}\n{entry.text}", markup=False)
    for name in (
        "variables", "placeholders", "examples", "parameters", "tools", "tool_choice", "output_schema", "repair", "cache_s",
    ):  # fmt: skip
        if version.get(name) or name in ("variables", "parameters"):
            out().print(f"--- {name}: {json.dumps(version[name], ensure_ascii=False)}", markup=False)


def _origin(version: dict[str, Any]) -> str:
    """Who made a version, when, from which commit and what for."""
    author = version["git_author"] or version["author"]
    at = version["created_at"][:16].replace("T", " ")
    commit = f"commit {_commit(version)}" if version["git_sha"] else ""
    branch = f"branch {version['git_branch']}" if version["git_branch"] else ""
    return "  ".join(part for part in (f"by {author}", at, commit, branch, version["message"] or "") if part)


def diff(
    name: str,
    a: str,
    b: str,
    variables: Variables = None,
    placeholders: Placeholders = None,
    as_json: Json = False,
    local: Local = False,
) -> int:
    """What changed from version or label A to B; with -v or -p also in the messages that both then give."""
    from prompts.names import check_name
    from service.cli.output import out, print_json

    check_name(name)
    path, params = f"/api/prompts/{name}/diff", {"a": a, "b": b}
    if variables or placeholders:
        body = _example(name, (a, b), variables or [], placeholders or [], local)
        found = call(local, "POST", path, params=params, body=body)
    else:
        found = call(local, "GET", path, params=params)
    if as_json:
        print_json(found)
        return 0
    console = out()
    _show_messages(console, found["message_changes"])
    for change in found["changes"]:
        _show_change(console, change)
    if found["same"]:
        console.print("the same content")
    if "rendered" in found:
        console.print("\nrendered:" if not found["rendered"]["same"] else "\nrendered: the same messages", style="bold")
        _show_messages(console, found["rendered"]["message_changes"])
    return 0


def _example(
    name: str, which: tuple[str, str], variables: list[str], placeholders: list[str], local: bool
) -> dict[str, Any]:
    """What to render both versions with; a variable has the type that the later version gives it."""
    schemas: dict[str, dict[str, Any]] = {}
    for one in which:
        schemas |= fetch_version(f"{name}@{one}", local)["variables"]
    given = {key: text_of(key, value) for key, value in pairs(variables).items()}
    lists = {key: messages_of(key, value) for key, value in pairs(placeholders, "-p").items()}
    return {"variables": typed(given, schemas), "placeholders": lists}


def _show_messages(console: Console, changes: list[dict[str, Any]]) -> None:
    for change in changes:
        before, after = change["before"], change["after"]
        roles = [side["role"] for side in (before, after) if side]
        number = (after or before)["index"] + 1
        said = {"role": f"now {roles[-1]}, was {roles[0]}"}.get(change["kind"], change["kind"])
        console.print(f"--- message {number} [{roles[-1]}] {said}", markup=False, style="bold")
        console.print(_marked(change["words"], plain=console.no_color or not console.is_terminal))


def _marked(words: list[dict[str, str]], *, plain: bool) -> Text:
    """Spans as a text whose changes are coloured, or without colours in brackets; long stretches that stay are cut."""
    from rich.text import Text

    from service.printable import printable

    text = Text()
    for index, span in enumerate(words):
        shown = printable(span["text"])
        if span["kind"] == "same":
            shown = _near(shown, is_first=index == 0, is_last=index == len(words) - 1)
        text.append(
            _PLAIN[span["kind"]].format(shown) if plain else shown, style="" if plain else _STYLES[span["kind"]]
        )
    return text


def _near(text: str, *, is_first: bool, is_last: bool) -> str:
    """The lines of `text` that are near a change."""
    lines = text.splitlines(keepends=True)
    head = [] if is_first else lines[: CONTEXT_LINES + 1]
    tail = [] if is_last else lines[-CONTEXT_LINES - 1 :]
    left_out = len(lines) - len(head) - len(tail)
    return "".join([*head, f"… {left_out} lines …\n", *tail]) if left_out > 1 else text


def _show_change(console: Console, change: dict[str, Any]) -> None:
    import json

    path = change["path"].removeprefix("/").replace("/", ".")
    before, after = (json.dumps(change[side], ensure_ascii=False) for side in ("before", "after"))
    shown, style = {"added": (f"+ {path}: {after}", "green"), "removed": (f"- {path}: {before}", "red")}.get(
        change["kind"], (f"{path}: {before} → {after}", None)
    )
    console.print(shown, markup=False, style=style)


def blame(selector: str, as_json: Json = False, local: Local = False) -> int:
    """Each line of the messages of NAME[@SEL] with the version that last changed it; drafts are passed over."""
    from service.cli.output import out, print_json

    name, params = _selected(selector)
    found = call(local, "GET", f"/api/prompts/{name}/blame", params=params)
    if as_json:
        print_json(found)
        return 0
    by_number = {version["version"]: version for version in found["versions"]}
    heads = [_blamed(by_number[line["version"]]) for line in found["lines"]]
    width = max((len(head) for head in heads), default=0)
    for head, line in zip(heads, found["lines"], strict=True):
        out().print(f"{head:<{width}}  [{line['role']}] {line['text']}", markup=False, soft_wrap=True)
    return 0


def _blamed(version: dict[str, Any]) -> str:
    author = (version["git_author"] or version["author"]).partition(" <")[0]
    parts = (
        f"@{version['version']}",
        _commit(version),
        author,
        version["created_at"][:10],
        (version["message"] or "")[:40],
    )
    return "  ".join(part for part in parts if part)


def label(
    name: str,
    label: str,
    version: Annotated[int | None, typer.Argument(help="Where it is to point; without one it is shown.")] = None,
    undo: Annotated[bool, typer.Option("--undo", help="Take back its last move.")] = False,
    remove: Annotated[bool, typer.Option("--remove", help="Take it away.")] = False,
    history: Annotated[bool, typer.Option("--history", help="Every move: who, when, why, on what evidence.")] = False,
    if_revision: Annotated[
        int | None, typer.Option("--if-revision", min=0, help="Only where it is at this revision (0: not there yet).")
    ] = None,
    reason: Reason = None,
    as_json: Json = False,
    local: Local = False,
) -> int:
    """Point a label of a prompt to a version; a protected one needs a passing gate, or an admin's reason."""
    from prompts.errors import BadInput
    from prompts.names import check_label, check_name
    from service.cli.output import print_json

    if sum((version is not None, undo, remove, history)) > 1:
        raise BadInput("give one of VERSION, --undo, --remove and --history", param="version")
    path = f"/api/prompts/{check_name(name)}/labels/{check_label(label)}"
    headers = {"if-none-match": "*"} if if_revision == 0 else {"if-match": f'"{if_revision}"'}
    sent: dict[str, Any] = {"headers": headers} if if_revision is not None else {}
    if history:
        found = call(local, "GET", f"{path}/history")
    elif undo:
        found = call(local, "POST", f"{path}/undo", body={"reason": reason}, **sent)
    elif remove:
        call(local, "DELETE", path, params={} if reason is None else {"reason": reason}, **sent)
        found = {"name": name, "label": label, "version": None}
    elif version is not None:
        found = call(local, "PUT", path, body={"version": version, "reason": reason}, **sent)
    else:
        found = call(local, "GET", path)
    if as_json:
        print_json(found)
    else:
        _show_label(f"{name}@{label}", found)
    return 0


def _show_label(which: str, found: Any) -> None:
    from service.cli.output import out, table

    if isinstance(found, list):
        table(found, ("revision", "at", "from_version", "to_version", "actor", "reason", "evidence_id", "undoes"))
    elif found["version"] is None:
        out().print(f"{which} is gone", markup=False)
    else:
        out().print(f"{which} → {found['version']} (revision {found['revision']})", markup=False)

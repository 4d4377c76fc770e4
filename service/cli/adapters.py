"""Commands on adapters: list, show, remove, prune."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from service.cli.calling import call
from service.cli.options import Json, Local

adapters = typer.Typer(help="Trained adapters: what each is, rests on, and may be deleted.", rich_markup_mode=None)
Name = Annotated[str, typer.Argument(help="An adapter's name, as `adapters list` shows it.")]
Prompt = Annotated[str | None, typer.Option("--prompt", help="Only those of this prompt.")]
MEGABYTE = 1_000_000


@adapters.callback(invoke_without_command=True)
def default(context: typer.Context, as_json: Json = False, local: Local = False) -> None:
    """Adapters, newest first."""
    if context.invoked_subcommand is None:
        _list(None, as_json, local)


@adapters.command("list")
def list_adapters(prompt: Prompt = None, as_json: Json = False, local: Local = False) -> int:
    """Adapters, newest first: of which prompt and model, how large, and how many routes, jobs or names hold them."""
    _list(prompt, as_json, local)
    return 0


def _list(prompt: str | None, as_json: bool, local: bool) -> None:
    from service.cli.output import print_json, short, table

    found = call(local, "GET", "/api/adapters", params={"prompt": prompt} if prompt else {})
    if as_json:
        print_json(found)
        return
    rows = [{**one, "digest": short(one["digest"]), "size": _size(one), "named": len(one["named_by"])} for one in found]
    table(rows, ("name", "prompt", "base_model", "digest", "size", "named", "created_at"))


def _size(one: dict[str, Any]) -> str:
    return f"{one['size_bytes'] / MEGABYTE:,.1f} MB" if one["is_here"] else "not here"


@adapters.command("show")
def show(
    name: Name,
    card: Annotated[bool, typer.Option("--card", help="Its card, in the form of the Hub's model cards.")] = False,
    as_json: Json = False,
    local: Local = False,
) -> int:
    """One adapter: base and digests, data, recipe, scores with their evidence, size, and who names it."""
    from service.cli.output import print_json, print_text

    if card:
        print_text(call(local, "GET", f"/api/adapters/{path_of(name)}/card"))
        return 0
    found = call(local, "GET", f"/api/adapters/{path_of(name)}")
    if as_json:
        print_json(found)
    else:
        _show(found)
    return 0


def path_of(name: str) -> str:
    """A name in a URL; one with a slash is none, and says so here."""
    from urllib.parse import quote

    from finetune.adapter import check_name

    return quote(check_name(name), safe="")


def _show(found: dict[str, Any]) -> None:
    import json

    from service.cli.output import out

    base, data, dev, held = found["base"], found["data"], found["dev"], found["heldout"]
    lines = {
        "adapter": f"{found['name']} {found['digest']}",
        "prompt": f"{found['prompt']}@{found['version']}" if found["prompt"] else "none: a model of its own name",
        "base": " ".join(filter(None, (found["base_model"], base["digest"], base.get("source"), base.get("revision")))),
        "licence": base.get("licence") or "unknown",
        "tokenizer": base.get("tokenizer"),
        "template": base.get("chat_template"),
        "dataset": f"{data['digest'] or 'unknown'}, {data.get('train') or '?'} rows for training",
        "recipe": json.dumps(found["recipe"], sort_keys=True),
        "code": found["code_version"],
        "dev": f"{dev['before']} of {dev['total']} before, {dev['after']} after" if dev else None,
        "held-out": _heldout(held) if held else None,
        "size": _size(found),
        "job": found["job_id"],
        "named by": "; ".join(found["named_by"]) or "nobody: retention may delete it",
    }
    for name, value in lines.items():
        if value:
            out().print(f"{name:<10} {value}", markup=False, soft_wrap=True)


def _heldout(held: dict[str, Any]) -> str:
    before, after = (held[key] for key in ("baseline_pass_rate", "pass_rate"))
    rates = f"{before:.1%} before, {after:.1%} after" if before is not None and after is not None else "no rates"
    return f"{rates}: {held['verdict']}, evidence {held['evidence_id']}"


@adapters.command("rm")
def remove(name: Name, as_json: Json = False, local: Local = False) -> int:
    """Delete an adapter that no route, evidence, job or engine names; its row and its files."""
    from service.cli.output import err, print_json

    gone = call(local, "DELETE", f"/api/adapters/{path_of(name)}")
    if as_json:
        print_json(gone)
    else:
        err().print(f"deleted {gone['name']}", markup=False)
    return 0


@adapters.command("prune")
def prune(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would go, and delete nothing.")] = False,
    as_json: Json = False,
    local: Local = False,
) -> int:
    """Delete what retention.adapter_days and retention.adapters_kept let go, now; the service does so every hour."""
    from service.cli.output import err, print_json, table

    gone = call(local, "POST", "/api/adapters/prune", body={"dry_run": dry_run})
    if as_json:
        print_json({"dry_run": dry_run, "adapters": gone})
        return 0
    if gone:
        table(gone, ("name", "prompt", "created_at"))
    err().print(f"{len(gone)} {'would be ' if dry_run else ''}deleted", markup=False)
    return 0

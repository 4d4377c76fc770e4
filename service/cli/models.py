"""`turnout models`: what the aliases of turnout.yaml stand for, their weights fetched and removed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from service.cli.options import Json

if TYPE_CHECKING:
    from service.engine.weights import Source
    from service.settings import Settings

_COLUMNS = ("alias", "state", "size", "params", "context", "licence", "digest", "source")
_WIDTH = 100
_DIGITS = 12  # of a digest

models = typer.Typer(help="Model aliases: list, pull, add, rm, prune.", no_args_is_help=False, rich_markup_mode=None)


@models.callback(invoke_without_command=True)
def list_models(
    context: typer.Context,
    check: Annotated[bool, typer.Option("--check", help="Ask remote servers whether they are there.")] = False,
    as_json: Json = False,
) -> None:
    """Model aliases of turnout.yaml: state, size, licence, digest, what they are."""
    if context.invoked_subcommand is not None:
        return
    from service.cli.output import print_json
    from service.models.listing import listed
    from service.settings import load_settings

    rows = listed(load_settings(), check=check)
    if as_json:
        print_json(rows)
    else:
        _show(rows)


@models.command("pull")
def pull_models(
    aliases: Annotated[list[str] | None, typer.Argument(help="By default all local ones.")] = None,
    as_json: Json = False,
) -> int:
    """Fetch local models' weights, check them, and convert them once; one that broke off is gone on with."""
    from service.cli.output import bar, err, print_json
    from service.engine import weights
    from service.engine.about import about
    from service.settings import load_settings

    settings = load_settings()
    pulled = []
    for alias in aliases or _local(settings):
        source = _source(settings, alias)
        with bar(f"pull {alias}") as advance:
            folder = weights.pull(
                source,
                weights.default_cache_dir(),
                lambda note, share, tell=advance: tell(round(share * 100), 100, note),  # type: ignore[misc]
                again=True,
            )
        about(folder)  # raises where files of weights are cut short, as a folder of one's own may be
        pulled.append({"alias": alias, "source": str(source), "folder": str(folder)})
        err().print(f"{alias} is in {folder}", markup=False)
    if as_json:
        print_json(pulled)
    return 0


@models.command("rm")
def remove_model(
    alias: Annotated[str, typer.Argument(help="A local model; its entry in turnout.yaml stays.")], as_json: Json = False
) -> int:
    """Remove a local model's weights from the cache; a folder of one's own is never touched."""
    from service.engine import weights
    from service.settings import load_settings

    freed = weights.remove(_source(load_settings(), alias), weights.default_cache_dir())
    return _tell_freed(alias, freed, as_json)


@models.command("prune")
def prune_models(as_json: Json = False) -> int:
    """Remove all of the cache that turnout.yaml does not name, and what broken pulls left."""
    from service.engine import weights
    from service.settings import load_settings

    settings = load_settings()
    kept = [_source(settings, alias) for alias in _local(settings)]
    return _tell_freed("the cache", weights.prune(kept, weights.default_cache_dir()), as_json)


@models.command("add")
def add_model(
    name: Annotated[
        str | None, typer.Argument(help="One of the small models known here; without it they are shown.")
    ] = None,
    as_json: Json = False,
) -> int:
    """Add a small model to turnout.yaml, or show which there are; all are free to use."""
    from service.cli.adding import add_preset
    from service.cli.output import err, print_json, table
    from service.engine.presets import PRESETS
    from service.settings import FILE_NAME, find_project_file

    if name is None:
        rows = [{**_fields(preset), "parameters": f"{preset.billions:g}B"} for preset in PRESETS]
        print_json(rows) if as_json else table(rows, ("alias", "parameters", "licence", "says", "source"))
        return 0
    file = find_project_file(Path.cwd()) or Path(FILE_NAME)
    preset = add_preset(file, name)
    err().print(f"{file} has {preset.alias} ({preset.licence}); next: turnout models pull {preset.alias}", markup=False)
    if as_json:
        print_json({**_fields(preset), "file": str(file)})
    return 0


# ------------------------------------------------------------------------------------------------ what they share


def _fields(preset: Any) -> dict[str, Any]:
    return {name: getattr(preset, name) for name in ("alias", "source", "licence", "billions", "says")}


def _local(settings: Settings) -> list[str]:
    from service.settings import LocalSpec

    return [alias for alias, spec in sorted(settings.models.items()) if isinstance(spec, LocalSpec)]


def _source(settings: Settings, alias: str) -> Source:
    from prompts.errors import BadInput
    from service.engine.weights import Source
    from service.settings import LocalSpec

    spec = settings.model(alias)
    if not isinstance(spec, LocalSpec):
        raise BadInput(f"{alias!r} is served by {spec.engine}: it has no weights on this machine")
    try:
        return Source.parse(spec.source, spec.chat_template)
    except BadInput as error:
        raise BadInput(f"models.{alias}: {error}", param="source") from error


def _tell_freed(what: str, freed: int, as_json: bool) -> int:
    from service.cli.output import err, print_json

    err().print(f"{what}: {_bytes(freed)} freed", markup=False)
    if as_json:
        print_json({"freed_bytes": freed})
    return 0


def _show(rows: list[dict[str, Any]]) -> None:
    from rich.table import Column, Table
    from rich.text import Text

    from service.cli.output import out
    from service.printable import printable

    shown = Table(*(Column(name, overflow="fold") for name in _COLUMNS), box=None, pad_edge=False)
    for row in rows:
        shown.add_row(*(Text(printable(text)) for text in _texts(row)))
    out().print(shown, width=min(_WIDTH, out().width))


def _texts(row: dict[str, Any]) -> list[str]:
    """A row as the table has it: one text a column."""
    found = {
        **row,
        "size": _bytes(row["size_bytes"]) if row.get("size_bytes") else "",
        "params": _count(row["parameters"]) if row.get("parameters") else "",
        "context": f"{row['context_tokens']:,}" if row.get("context_tokens") else "",
        "digest": (row.get("digest") or "").removeprefix("sha256:")[:_DIGITS],
        "source": row.get("source") or row.get("base_url") or row["engine"],
    }
    return [str(found.get(name) or "") for name in _COLUMNS]


def _bytes(size: int) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"


def _count(parameters: int) -> str:
    return f"{parameters / 1e9:.1f}B" if parameters >= 1e9 else f"{parameters / 1e6:.0f}M"

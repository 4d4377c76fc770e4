"""Commands of those who run the service: demo, serve, worker, doctor, models, audit."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from service.cli.calling import call
from service.cli.options import Json, Local


def demo(
    json_file: Annotated[Path | None, typer.Option("--json-file", help="Write the figures here.")] = None,
    as_json: Json = False,
) -> int:
    """The whole loop on an example and a real small model, in a few minutes: exit 0 if the route moved on evidence."""
    from service.cli.demo import run_demo

    return run_demo(json_file, as_json)


def serve(
    host: Annotated[str | None, typer.Option("--host", help="Default 127.0.0.1.")] = None,
    port: Annotated[
        int | None, typer.Option("--port", min=0, max=65535, help="Default 8600; 0 takes a free one.")
    ] = None,
) -> int:
    """Start the service, and the worker that does its jobs."""
    from service.serving import serve as serve_now
    from service.settings import load_settings

    settings = load_settings()
    given = {name: value for name, value in (("host", host), ("port", port)) if value is not None}
    return serve_now(settings.model_copy(update={"server": settings.server.model_copy(update=given)}))


def worker() -> int:
    """Do jobs from the queue until interrupted; any number may run, on any machine that reaches the database."""
    from service.worker import main

    return main([])


def doctor(as_json: Json = False) -> int:
    """Look at everything that a service needs and say what is missing, and how to mend it."""
    from service.cli.doctor import examine
    from service.cli.exits import COULD_NOT_RUN
    from service.cli.output import out, print_json
    from service.settings import load_settings

    findings = examine(load_settings())
    if as_json:
        print_json(findings)
    else:
        for finding in findings:
            sign = {"ok": "ok  ", "note": "note", "bad": "BAD "}[finding["state"]]
            out().print(f"{sign} {finding['what']}: {finding['detail']}", markup=False)
    return COULD_NOT_RUN if any(finding["state"] == "bad" for finding in findings) else 0


models = typer.Typer(help="Model aliases: list, pull.", no_args_is_help=False, rich_markup_mode=None)


@models.callback(invoke_without_command=True)
def list_models(context: typer.Context, as_json: Json = False) -> None:
    """Model aliases of turnout.yaml, and whether their weights are here."""
    if context.invoked_subcommand is not None:
        return
    from service.cli.output import print_json, table
    from service.engine import weights
    from service.settings import LocalSpec, load_settings

    rows = []
    for alias, spec in sorted(load_settings().models.items()):
        row: dict[str, Any] = {"alias": alias, "engine": spec.engine, "tunable": spec.is_tunable, "state": "remote"}
        if isinstance(spec, LocalSpec):
            found = weights.find(weights.Source.parse(spec.source), weights.default_cache_dir())
            row |= {"source": spec.source, "state": "here" if found else "not pulled"}
        rows.append(row)
    if as_json:
        print_json(rows)
    else:
        table(rows, ("alias", "engine", "tunable", "state", "source"))


@models.command("pull")
def pull_model(
    alias: Annotated[str | None, typer.Argument(help="By default all local ones.")] = None, as_json: Json = False
) -> int:
    """Fetch a local model's weights, check them, and convert them once."""
    from prompts.errors import BadInput
    from service.cli.output import bar, err, print_json
    from service.engine import weights
    from service.settings import LocalSpec, load_settings

    settings = load_settings()
    specs = {alias: settings.model(alias)} if alias else settings.models
    pulled = []
    for name, spec in specs.items():
        if not isinstance(spec, LocalSpec):
            if alias:
                raise BadInput(f"{name!r} is served by {spec.engine}: there is nothing to pull")
            continue
        with bar(f"pull {name}") as advance:
            folder = weights.pull(
                weights.Source.parse(spec.source),
                weights.default_cache_dir(),
                lambda note, share: advance(round(share * 100), 100, note),
            )
        pulled.append({"alias": name, "source": spec.source, "folder": str(folder)})
        err().print(f"{name} is in {folder}", markup=False)
    if as_json:
        print_json(pulled)
    return 0


def audit(as_json: Json = False, local: Local = False) -> int:
    """Keys made and revoked, routes and protected labels moved: who, when, why; newest first."""
    from service.cli.output import print_json, table

    found = call(local, "GET", "/api/audit")
    if as_json:
        print_json(found)
    else:
        table(found, ("at", "actor", "action", "subject", "detail"))
    return 0

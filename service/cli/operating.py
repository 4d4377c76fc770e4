"""Commands of those who run the service: demo, serve, worker, doctor, audit."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

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


def audit(as_json: Json = False, local: Local = False) -> int:
    """Keys made and revoked, routes and protected labels moved: who, when, why; newest first."""
    from service.cli.output import print_json, table

    found = call(local, "GET", "/api/audit")
    if as_json:
        print_json(found)
    else:
        table(found, ("at", "actor", "action", "subject", "detail"))
    return 0

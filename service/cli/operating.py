"""Commands of those who run the service: demo, serve, worker, doctor, audit."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from service.cli.calling import call
from service.cli.options import Json, Local

if TYPE_CHECKING:
    from service.settings import Settings


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
    as_json: Json = False,
) -> int:
    """Start the service, and the worker that does its jobs."""
    from service.identity import KEY_FILE
    from service.serving import serve as serve_now
    from service.settings import load_settings

    settings = load_settings()
    given = {name: value for name, value in (("host", host), ("port", port)) if value is not None}
    settings = settings.model_copy(update={"server": settings.server.model_copy(update=given)})
    known = {"workers": settings.server.workers, "admin_key_file": str(settings.home / KEY_FILE)}
    return serve_now(settings, (lambda url: _print_up(settings, url=url, **known)) if as_json else None)


def worker(as_json: Json = False) -> int:
    """Do jobs from the queue until interrupted; any number may run, on any machine that reaches the database."""
    from service.logs import configure_log
    from service.settings import load_settings
    from service.worker import work

    configure_log()
    settings = load_settings()
    work(settings, when_up=(lambda name: _print_up(settings, worker=name)) if as_json else None)
    return 0


def _print_up(settings: Settings, **known: Any) -> None:
    """The one document of a command that stays: what is up, at once for whoever reads the pipe, if anyone still does."""
    from service.cli.output import print_json
    from service.release import release

    here = {"version": release(), "home": str(settings.home), "project": str(settings.project), "pid": os.getpid()}
    try:
        print_json(known | here)
        sys.stdout.flush()
    except BrokenPipeError:
        with Path(os.devnull).open("wb") as nowhere:  # else Python writes to the pipe once more at its end
            os.dup2(nowhere.fileno(), sys.stdout.fileno())


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

"""Every command of `turnout`, and the command line that reads their arguments."""

from __future__ import annotations

import importlib
from typing import Annotated, Any

import typer

USAGE_ERROR: Any = typer.BadParameter.__mro__[2]  # ClickException: typer has a click of its own, and no name for it
COMMANDS = {  # the function of each, in a module of service.cli that only it needs
    "init": "authoring.init", "demo": "operating.demo", "serve": "operating.serve", "worker": "operating.worker",
    "doctor": "operating.doctor", "check": "authoring.check", "push": "authoring.push", "log": "versions.log",
    "show": "versions.show", "diff": "versions.diff", "blame": "versions.blame", "label": "versions.label",
    "render": "rendering.render", "schema": "schemas.schema", "watch": "watching.watch", "run": "running.run",
    "gate": "testing.gate", "power": "power.power", "evidence": "evidence.evidence",
    "comment": "commenting.comment", "compare": "comparing.compare", "trend": "comparing.trend", "advise": "advising.advise",
    "finetune": "training.finetune",
    "jobs": "training.jobs", "job": "training.job", "route": "routes.route", "audit": "operating.audit",
    "reload": "keys.reload", "requests": "requests.requests", "import": "importing.import_prompts",
    "export": "exporting.export", "list": "versions.list_prompts",
}  # fmt: skip
_GROUPS = {
    "models": "models.models",
    "adapters": "adapters.adapters",
    "key": "keys.key",
    "judge": "judging.judge",
    "dataset": "datasets.dataset",
    "review": "reviewing.review",
}


def command_line(only: str | None = None) -> typer.Typer:
    """Every command; with `only` that one alone, read from its function's signature: all take a thirtieth of a second."""
    made = typer.Typer(
        name="turnout",
        help="Versioned prompts with regression suites, a gate for CI, and a fine-tune that takes traffic on evidence.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    made.callback()(_of_turnout)  # without one a command alone would be called without its name
    for name, command in COMMANDS.items():
        if only in (None, name):
            made.command(name)(_found(command))
    for name, group in _GROUPS.items():
        if only is None:
            made.add_typer(_found(group), name=name)
    return made


def _found(path: str) -> Any:
    """What stands in a module of the command line, which is imported for it."""
    module, _, name = path.partition(".")
    return getattr(importlib.import_module(f"service.cli.{module}"), name)


def _show_version(is_asked: bool) -> None:
    if is_asked:
        from service.release import release

        typer.echo(f"turnout {release()}")
        raise typer.Exit


def _of_turnout(
    _: Annotated[
        bool,
        typer.Option("--version", "-V", callback=_show_version, is_eager=True, help="Show which release this is."),
    ] = False,
) -> None:
    """What `turnout` itself takes; its help stands above."""

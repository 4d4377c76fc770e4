"""`turnout`: every command, and what an error becomes."""

from __future__ import annotations

import gc
import importlib
import os
import sys
from typing import Any

import typer

COLLECT_AFTER = (
    20_000,
    20,
    20,
)  # objects: imports and a run's cases make next to no cycles, so Python's 700 waste a tenth
_USAGE_ERROR: Any = typer.BadParameter.__mro__[2]  # ClickException: typer has a click of its own, and no name for it
_COMMANDS = {  # the function of each, in a module of service.cli that only it needs
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
    if only is not None:
        made.callback()(_no_options)  # a command alone would be called without its name
    for name, command in _COMMANDS.items():
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


def _no_options() -> None:
    """`turnout` itself takes none."""


def __getattr__(name: str) -> Any:
    """`app`, every command in one, is made for whoever asks for it."""
    if name == "app":
        return command_line()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def main() -> None:
    """Run the command line; the exit code is CONTRACT's, whatever goes wrong."""
    gc.set_threshold(*COLLECT_AFTER)
    if sys.argv[1:2] in (["run"], ["gate"]):
        gc.disable()  # until `testing.prepare` has loaded what they need, none of which is garbage
        os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")  # which it looks for in every package there is
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """One command; returns its exit code."""
    from prompts.errors import TurnoutError
    from service.cli import exits
    from service.cli.interrupts import coming_to_light
    from service.cli.output import documents, show_error

    as_json = "--json" in arguments
    documents.printed = 0
    try:
        named = arguments[0] if arguments and arguments[0] in _COMMANDS else None
        with coming_to_light():
            code = command_line(named)(arguments, standalone_mode=False)
        if code == exits.INTERRUPTED:  # what typer makes of a KeyboardInterrupt
            raise KeyboardInterrupt
    except typer.Exit as exit_:
        code = exit_.exit_code
    except _USAGE_ERROR as error:
        error.show()
        return _failed(error.format_message(), exits.BAD_USAGE, as_json)
    except (KeyboardInterrupt, typer.Abort):
        show_error("interrupted")
        return _failed("interrupted", exits.INTERRUPTED, as_json)
    except TurnoutError as error:
        show_error(str(error))
        return _failed(str(error), exits.of_error(error), as_json)
    except OSError as error:
        message = f"{error.filename or 'the system'}: {error.strerror or error}"
        show_error(message)
        return _failed(message, exits.COULD_NOT_RUN, as_json)
    except Exception as error:
        message = f"a fault of Turnout itself: {type(error).__name__}: {error}"
        show_error(message)
        if os.environ.get("TURNOUT_DEBUG"):
            raise
        return _failed(message, exits.COULD_NOT_RUN, as_json)
    return code if isinstance(code, int) else exits.PASSED


def _failed(message: str, exit_code: int, as_json: bool) -> int:
    """`exit_code`, with `--json` after the one document that a command ends with which has not given its own."""
    from service.cli.output import documents, print_json

    if as_json and not documents.printed:
        print_json({"error": {"message": message, "exit_code": exit_code}})
    return exit_code


if __name__ == "__main__":
    main()

"""`turnout`: every command, and what an error becomes."""

from __future__ import annotations

import os
import sys
from typing import Any

import typer

from service.cli import (
    authoring,
    evidence,
    importing,
    judging,
    operating,
    power,
    rendering,
    running,
    schemas,
    testing,
    training,
    versions,
    watching,
)

_USAGE_ERROR: Any = typer.BadParameter.__mro__[2]  # ClickException: typer has a click of its own, and no name for it
app = typer.Typer(
    name="turnout",
    help="Versioned prompts with regression suites, a gate for CI, and a fine-tune that takes traffic on evidence.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (
    authoring.init, operating.demo, operating.serve, operating.worker, operating.doctor, authoring.check,
    authoring.push, versions.log, versions.show, versions.diff, versions.blame, versions.label, rendering.render,
    schemas.schema, watching.watch, running.run, testing.gate, power.power, evidence.evidence,
    training.finetune, training.jobs, training.job, training.route, operating.audit,
):  # fmt: skip
    app.command()(command)
app.command("import")(importing.import_prompts)
app.command()(importing.export)
app.command("list")(versions.list_prompts)
app.add_typer(operating.models, name="models")
app.add_typer(operating.key, name="key")
app.add_typer(judging.judge, name="judge")


def main() -> None:
    """Run the command line; the exit code is CONTRACT's, whatever goes wrong."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """One command; returns its exit code."""
    from prompts.errors import TurnoutError
    from service.cli import exits
    from service.cli.output import show_error

    as_json = "--json" in arguments
    try:
        code = app(arguments, standalone_mode=False)
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
    if code == exits.INTERRUPTED:
        show_error("interrupted")
    return code if isinstance(code, int) else exits.PASSED


def _failed(message: str, exit_code: int, as_json: bool) -> int:
    """`exit_code`, with `--json` after the one document that a command ends with which raised before it gave its own."""
    if as_json:
        from service.cli.output import print_json

        print_json({"error": {"message": message, "exit_code": exit_code}})
    return exit_code


if __name__ == "__main__":
    main()

"""`turnout`: every command, and what an error becomes."""

from __future__ import annotations

import os
import sys
from typing import Any

import typer

from service.cli import authoring, importing, operating, rendering, schemas, testing, training, versions, watching

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
    schemas.schema, watching.watch, testing.run, testing.gate, testing.evidence,
    training.finetune, training.jobs, training.job, training.route, operating.audit,
):  # fmt: skip
    app.command()(command)
app.command("import")(importing.import_prompts)
app.command()(importing.export)
app.command("list")(versions.list_prompts)
app.add_typer(operating.models, name="models")
app.add_typer(operating.key, name="key")


def main() -> None:
    """Run the command line; the exit code is CONTRACT's, whatever goes wrong."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """One command; returns its exit code."""
    from prompts.errors import TurnoutError
    from service.cli import exits
    from service.cli.output import show_error

    try:
        code = app(arguments, standalone_mode=False)
    except typer.Exit as exit_:
        code = exit_.exit_code
    except _USAGE_ERROR as error:
        error.show()
        return exits.BAD_USAGE
    except (KeyboardInterrupt, typer.Abort):
        code = exits.INTERRUPTED
    except TurnoutError as error:
        show_error(str(error))
        return exits.of_error(error)
    except OSError as error:
        show_error(f"{error.filename or 'the system'}: {error.strerror or error}")
        return exits.COULD_NOT_RUN
    except Exception as error:
        show_error(f"a fault of Turnout itself: {type(error).__name__}: {error}")
        if os.environ.get("TURNOUT_DEBUG"):
            raise
        return exits.COULD_NOT_RUN
    if code == exits.INTERRUPTED:
        show_error("interrupted")
    return code if isinstance(code, int) else exits.PASSED


if __name__ == "__main__":
    main()

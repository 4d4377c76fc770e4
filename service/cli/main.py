"""`turnout`: how a command begins and ends, and what an error becomes.

Next to nothing is imported before an interrupt has an end of ours: what loads takes a tenth of a second and more.
"""

from __future__ import annotations

import gc
import os
import sys

TYPE_CHECKING = False  # as type checkers read it: `typing` takes longer to import than all that is here
if TYPE_CHECKING:
    import signal
    from collections.abc import Callable
    from typing import Any
else:
    import _signal as signal  # all of `signal` that is needed, without the enums that take it a hundredth of a second

COLLECT_AFTER = (
    20_000,
    20,
    20,
)  # objects: imports and a run's cases make next to no cycles, so Python's 700 waste a tenth
_INTERRUPTED = 130


def __getattr__(name: str) -> Any:
    """`app`, every command in one, is made for whoever asks for it."""
    if name == "app":
        from service.cli.commands import command_line

        return command_line()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def main() -> None:
    """Run the command line; the exit code is CONTRACT's, whatever goes wrong."""
    _heed_interrupts(_end_loading, instead_of=signal.default_int_handler)
    gc.set_threshold(*COLLECT_AFTER)
    if sys.argv[1:2] in (["run"], ["gate"]):
        gc.disable()  # until `testing.prepare` has loaded what they need, none of which is garbage
        os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")  # which it looks for in every package there is
    try:
        code = run(sys.argv[1:])
        _heed_interrupts(_end, instead_of=signal.default_int_handler)
    except KeyboardInterrupt:  # another one, while the first was told
        code = _INTERRUPTED
    sys.exit(code)


def _heed_interrupts(handler: Callable[..., object], *, instead_of: Callable[..., object]) -> None:
    """Have SIGINT call `handler` where it called the other: whoever started us ignoring it, or caught it, goes on so."""
    if signal.getsignal(signal.SIGINT) is instead_of:
        signal.signal(signal.SIGINT, handler)


def _end_loading(*_: object) -> None:
    """End at once, while nothing is begun: an exception would come up in the middle of an import, which may swallow it."""
    try:
        os.write(2, b"error: interrupted\n")
        if "--json" in sys.argv:
            os.write(1, b'{"error": {"message": "interrupted", "exit_code": %d}}\n' % _INTERRUPTED)
    finally:
        os._exit(_INTERRUPTED)


def _end(*_: object) -> None:
    """End at once, where all is done and told and Python puts itself away."""
    os._exit(_INTERRUPTED)


def run(arguments: list[str]) -> int:
    """One command; returns its exit code."""
    import typer

    from prompts.errors import TurnoutError
    from service.cli import exits
    from service.cli.commands import COMMANDS, USAGE_ERROR, command_line
    from service.cli.interrupts import coming_to_light
    from service.cli.output import documents, show_error

    as_json = "--json" in arguments
    documents.printed = 0
    try:
        named = arguments[0] if arguments and arguments[0] in COMMANDS else None
        with coming_to_light():
            command = command_line(named)
            _heed_interrupts(signal.default_int_handler, instead_of=_end_loading)
            code = command(arguments, standalone_mode=False)
        if code == exits.INTERRUPTED:  # what typer makes of a KeyboardInterrupt
            raise KeyboardInterrupt
    except typer.Exit as exit_:
        code = exit_.exit_code
    except USAGE_ERROR as error:
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
        not_text = _not_utf8(arguments) if isinstance(error, UnicodeEncodeError) else ""
        message = not_text or f"a fault of Turnout itself: {type(error).__name__}: {error}"
        show_error(message)
        if os.environ.get("TURNOUT_DEBUG"):
            raise
        return _failed(message, exits.BAD_USAGE if not_text else exits.COULD_NOT_RUN, as_json)
    return code if isinstance(code, int) else exits.PASSED


def _not_utf8(arguments: list[str]) -> str:
    """What to say of arguments that are no text, such as a message in Latin-1; "" where all are. A path may be none."""
    from service.cli.selecting import is_text

    bad = [repr(argument) for argument in arguments if not is_text(argument)]
    return f"{', '.join(bad)}: not UTF-8: give it as UTF-8 text" if bad else ""


def _failed(message: str, exit_code: int, as_json: bool) -> int:
    """`exit_code`, with `--json` after the one document that a command ends with which has not given its own."""
    from service.cli.output import documents, print_json

    if as_json and not documents.printed:
        print_json({"error": {"message": message, "exit_code": exit_code}})
    return exit_code


if __name__ == "__main__":
    main()

"""What ends a command from outside: SIGTERM, as CI systems send it, ends it as a Ctrl-C does, and tells how to go on."""

from __future__ import annotations

import contextlib
import functools
import shlex
import signal
import sys
import threading
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, TypeVar

T = TypeVar("T")
Command = TypeVar("Command", bound=Callable[..., int])


def ended_by_sigterm(command: Command) -> Command:
    """The command, which a SIGTERM interrupts: it exits 130, whatever it was doing."""

    @functools.wraps(command)
    def heeding(*arguments: Any, **options: Any) -> int:
        with _at_sigterm(_interrupt):
            return command(*arguments, **options)

    return heeding  # type: ignore[return-value]  # what it wraps has the same signature


def run_to_end(work: Coroutine[Any, Any, T]) -> T:
    """`asyncio.run`, which a SIGTERM ends in good order, too: what was begun is put away first.

    Raises KeyboardInterrupt then, also where SIGINT is ignored, as it is in children of a shell's background.
    """

    import asyncio  # not before a command needs it: `--help` does not

    async def heeding() -> T:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        with _at_sigterm(lambda: loop.call_soon_threadsafe(task.cancel) if task else None):
            return await work

    try:
        return asyncio.run(heeding())
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None


@contextlib.contextmanager
def coming_to_light() -> Iterator[None]:
    """Raises KeyboardInterrupt for what fails within because of one: an import turns it into an error, so may an orderly end.

    Python 3.11 gives a RuntimeError for whatever comes up while a class is made, as dataclasses are while modules load.
    """
    try:
        yield
    except Exception as error:
        cause: BaseException | None = error
        while cause is not None:
            if isinstance(cause, KeyboardInterrupt):
                raise cause from error
            cause = cause.__cause__ or cause.__context__
        raise


def tell_how_to_go_on(kept: str, option: str = "--resume") -> None:
    """Say on stderr what is kept, and the command that goes on from there."""
    from service.cli.output import err

    given = sys.argv[1:]
    command = shlex.join(["turnout", *given, *([] if option in given else [option])])
    err().print(f"{kept}; go on with: {command}", markup=False)


def _interrupt() -> None:
    raise KeyboardInterrupt


@contextlib.contextmanager
def _at_sigterm(end: Callable[[], object]) -> Iterator[None]:
    """Within, SIGTERM calls `end`; what it did before comes back after. Signals reach the main thread alone."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda *_: end())
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)

"""The service's log: to standard error, and never with the values of variables, among which keys and bodies are."""

from __future__ import annotations

import contextlib
import sys

import structlog


class _StandardError:
    """Standard error, whatever that is by then. A line that it does not take is lost, and the work that told of it goes on.

    What stands behind it may be a full disk, or a pipe whose reader has ended: a warning must not end what it warns of.
    """

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError, ValueError):  # ValueError: it is closed
            if sys.stderr is not None:
                sys.stderr.write(text)
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            if sys.stderr is not None:
                sys.stderr.flush()


def configure_log() -> None:
    """Plain tracebacks: structlog's default shows the local variables of every frame."""
    standard_error = _StandardError()
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="%Y-%m-%d %H:%M:%S", utc=True),
            structlog.dev.ConsoleRenderer(
                colors=sys.stderr is not None and sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
            ),
        ],
        logger_factory=lambda *_: structlog.PrintLogger(standard_error),  # type: ignore[arg-type]  # all that it asks of a file
    )

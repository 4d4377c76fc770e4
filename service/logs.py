"""The service's log: to standard error, and never with the values of variables, among which keys and bodies are."""

from __future__ import annotations

import sys

import structlog


def configure_log() -> None:
    """Plain tracebacks: structlog's default shows the local variables of every frame."""
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="%Y-%m-%d %H:%M:%S", utc=True),
            structlog.dev.ConsoleRenderer(
                colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
            ),
        ],
        logger_factory=lambda *_: structlog.PrintLogger(sys.stderr),  # whatever that is by then
    )

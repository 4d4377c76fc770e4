"""The service's log on a standard error that takes nothing."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from service.logs import configure_log


class Refusing:
    """What stands behind standard error is a full disk, or a pipe that nobody reads any more."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def write(self, _: str) -> int:
        raise self._error

    flush = isatty = lambda self: False


@pytest.fixture(autouse=True)
def configuration() -> Iterator[None]:
    before: dict[str, Any] = structlog.get_config()
    yield
    structlog.configure(**before)


@pytest.mark.parametrize(
    "standard_error",
    [
        Refusing(OSError(28, "No space left on device")),
        Refusing(BrokenPipeError()),
        Refusing(ValueError("I/O operation on closed file")),
        None,  # as Python has it where the process was started without one
    ],
)
def test_a_warning_that_nobody_can_be_told_ends_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], standard_error: Refusing | None
):
    monkeypatch.setattr(sys, "stderr", standard_error)
    configure_log()

    structlog.get_logger().warning("the database is away")

    assert capsys.readouterr().out == ""  # documents of commands go there, and nothing else


def test_lines_go_to_standard_error_as_soon_as_it_takes_them(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    with monkeypatch.context() as patched:
        patched.setattr(sys, "stderr", Refusing(OSError(28, "No space left on device")))
        configure_log()
        structlog.get_logger().warning("the disk is full")
    structlog.get_logger().warning("there is room again")

    assert "there is room again" in capsys.readouterr().err

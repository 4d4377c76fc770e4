"""Children that can be interrupted, whatever the shell that started the tests does with interrupts."""

from __future__ import annotations

import signal


def heed_interrupts() -> None:
    """For `preexec_fn`: a shell that starts the tests in the background has them, and their children, ignore SIGINT."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)

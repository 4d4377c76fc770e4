"""Ends a job when it is asked to, or when the process that started it is gone, or one that helps it.

A thread of its own waits for the signal, so that a backward pass of seconds does not delay the end. It waits for the
moments in which the job's state changes, and no longer.
"""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Callable

CANCELLED, LOST = 130, 5
_LATEST_S = 1.5  # whoever asked waits for two seconds at most
_OWN_END_S = 3.0  # beyond it, a job whose helper died is not about to end by itself
_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Guard:
    """`changing` is held by whoever changes the job's state; `on_stop` saves that state and must not raise."""

    def __init__(self) -> None:
        self.changing = threading.RLock()
        self.on_stop: Callable[[], None] = _nothing
        self.lost, self.over = threading.Event(), threading.Event()  # a helper died; the job ends, its helpers with it

    def watch(self) -> None:
        """Start watching signals and standard input. Call before any other thread starts: threads inherit the mask."""
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        threading.Thread(target=self._await_signal, name="signals", daemon=True).start()
        if _has_parent_pipe():
            threading.Thread(target=self._await_end_of_input, name="parent", daemon=True).start()

    def mind(self, helper: subprocess.Popen[bytes]) -> None:
        """End this process with the exit code 5 when a helper dies before the job is `over`: the rest is of no use alone.

        What it kept holds, and whoever started it starts it again. A helper ends with this process: it watches the pipe
        that is its standard input.
        """
        threading.Thread(target=self._await_end_of, args=(helper,), name="helper", daemon=True).start()

    def _await_end_of(self, helper: subprocess.Popen[bytes]) -> None:
        if helper.wait() == 0:
            return
        self.lost.set()
        if not self.over.wait(_OWN_END_S):
            with self.changing:
                os._exit(LOST)

    def _await_signal(self) -> None:
        signal.sigwait(_SIGNALS)
        self.stop()

    def _await_end_of_input(self) -> None:
        while os.read(0, 4096):
            pass
        self.stop()

    def stop(self) -> None:
        """Save and end the process at once with the exit code 130.

        Where that would take too long the process ends all the same: what was half written has no manifest, and the
        checkpoint before it holds.
        """
        late = threading.Timer(_LATEST_S, os._exit, (CANCELLED,))
        late.daemon = True
        late.start()
        with self.changing:
            self.on_stop()
            sys.stderr.flush()
            os._exit(CANCELLED)


def _nothing() -> None:
    """Before training begins there is nothing to save."""


def _has_parent_pipe() -> bool:
    """A terminal, a file or /dev/null on standard input says nothing about a parent; a pipe or a socket does."""
    try:
        mode = os.fstat(0).st_mode
    except OSError:
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)

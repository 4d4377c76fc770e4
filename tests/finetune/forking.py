"""Jobs forked from one process that has imported torch, transformers and peft: a start of its own takes seconds.

What is forked runs `finetune.__main__.main`, as the command does, with the standard streams that a worker gives it.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import NoReturn

ROOT = Path(__file__).parents[2]
_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(["tests.finetune.preloaded"])


class Job:
    """A process of training, with the part of `subprocess.Popen`'s interface that tests use."""

    def __init__(self, folder: Path, arguments: list[str], before: Callable[[], None] | None = None) -> None:
        theirs, self.stdin = _FORKS.Pipe(duplex=False)
        self._process = _FORKS.Process(target=_run, args=(theirs, folder, arguments, before))
        self._process.start()
        theirs.close()
        self.pid = self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise TimeoutError(f"the job runs still after {timeout} s")
        return self._process.exitcode

    def kill(self) -> None:
        self._process.kill()

    def terminate(self) -> None:
        self._process.terminate()

    def send_signal(self, number: signal.Signals) -> None:
        if self.pid is not None and self.poll() is None:
            os.kill(self.pid, number)

    def __enter__(self) -> Job:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stdin.close()
        self._process.join()


def _run(stdin: Connection, folder: Path, arguments: list[str], before: Callable[[], None] | None) -> NoReturn:
    os.dup2(stdin.fileno(), 0)
    stdin.close()
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 1)
    os.dup2(nothing, 2)
    os.chdir(folder)
    os.environ["PYTHONPATH"] = str(ROOT)
    if before is not None:
        before()
    from finetune.__main__ import main

    sys.exit(main(arguments))

"""Child processes that run authors' scripts: one line of JSON in, one out, and a kill where none comes.

A script may loop for ever, take all memory or bring its interpreter down; none of it may happen in a process of ours.
Children are kept warm and are given no environment, a scratch folder, and limits that they set on themselves.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from suites.assertions.python_child import descendants, end_all

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

MOST_AT_ONCE = 4  # scripts that run at the same time
MOST_IDLE = 8
START_S = 30.0
MAX_REPLY_BYTES = 8 * 1024 * 1024
_FOLDER = Path(__file__).parent


class ScriptTimedOut(Exception):
    """No answer within the time allowed; the child was killed."""


class ScriptDied(Exception):
    """The child ended before it answered: out of memory, a crash, or a call to exit."""


class Child:
    """One warm child. Used by one thread at a time."""

    def __init__(self, script: str, *arguments: str) -> None:
        self.was_used = False
        self._ended = False
        self._scratch = tempfile.TemporaryDirectory(prefix="turnout-script-")
        command = [sys.executable, "-P", "-I", "-X", "utf8", str(_FOLDER / script), *arguments]
        try:
            self._process = subprocess.Popen(  # noqa: S603 - our own interpreter and script
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                cwd=self._scratch.name, env={"TMPDIR": self._scratch.name}, start_new_session=True, bufsize=0,
            )  # fmt: skip
        except OSError as error:
            self._scratch.cleanup()
            raise ScriptDied(f"no process could be started: {error}") from error
        try:
            self._read(time.monotonic() + START_S)
        except BaseException:
            self.kill()
            raise

    def ask(self, request: Mapping[str, Any], timeout_s: float) -> dict[str, Any]:
        """What the child answers; raises ScriptTimedOut or ScriptDied, and is then of no more use."""
        deadline = time.monotonic() + timeout_s
        try:
            self._write(json.dumps(request).encode() + b"\n")
            return self._read(deadline)
        finally:
            self.was_used = True

    def _started(self) -> set[int]:
        """What runs because of this child, but not the child."""
        return {*descendants(self._process.pid), *_marked(self._scratch.name)} - {self._process.pid}

    def kill(self) -> None:
        """End it and whatever it started. Safe to call twice."""
        if self._ended:
            return  # its number may be another process's by now
        self._ended = True
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGSTOP)  # it starts no more while those that left its group are ended
        end_all(self._started, looks=5)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        self._process.wait()
        with contextlib.suppress(OSError):
            self._scratch.cleanup()

    def _write(self, line: bytes) -> None:
        assert self._process.stdin is not None  # noqa: S101 - it was opened as a pipe
        rest = memoryview(line)
        try:
            while rest:
                rest = rest[self._process.stdin.write(rest) :]
        except OSError as error:
            raise ScriptDied("it ended before it was asked") from error

    def _read(self, deadline: float) -> dict[str, Any]:
        """One line, which a child that is about to be killed may leave unfinished."""
        assert self._process.stdout is not None  # noqa: S101 - it was opened as a pipe
        waiting, line = select.poll(), bytearray()
        waiting.register(self._process.stdout, select.POLLIN | select.POLLHUP)
        while not line.endswith(b"\n"):
            left_ms = (deadline - time.monotonic()) * 1000
            if left_ms <= 0 or not waiting.poll(left_ms):
                raise ScriptTimedOut
            piece = os.read(self._process.stdout.fileno(), 1 << 16)
            line += piece
            if not piece or len(line) > MAX_REPLY_BYTES:
                raise ScriptDied("it ended without an answer" if not piece else "its answer is too long")
        return dict(json.loads(line))


def _marked(scratch: str) -> set[int]:
    """Processes whose environment names this scratch folder: those of a child that is gone already. Empty without /proc."""
    found = set()
    for file in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):  # another user's, or it has just ended
            if f"TMPDIR={scratch}".encode() in file.read_bytes().split(b"\0"):
                found.add(int(file.parent.name))
    return found


class Children:
    """Warm children by what they run. One instance serves a process."""

    def __init__(self) -> None:
        self._idle: list[tuple[tuple[str, ...], Child]] = []
        self._lock = threading.Lock()

    @cached_property
    def _threads(self) -> ThreadPoolExecutor:
        """Threads that wait for children: not the event loop's own, which other work waits for."""
        from concurrent.futures import ThreadPoolExecutor  # not for those who only check

        return ThreadPoolExecutor(MOST_AT_ONCE, "scripts")

    async def ask(self, command: tuple[str, ...], request: Mapping[str, Any], timeout_s: float) -> dict[str, Any]:
        """`ask_now` beside the event loop."""
        import asyncio  # not for those who only check

        return await asyncio.get_running_loop().run_in_executor(
            self._threads, self.ask_now, command, request, timeout_s
        )

    def ask_now(self, command: tuple[str, ...], request: Mapping[str, Any], timeout_s: float) -> dict[str, Any]:
        """Ask a child that runs `command`; a warm one that turns out to be dead is replaced, once.

        Raises ScriptTimedOut or ScriptDied.
        """
        while True:
            child = self._take(command)
            was_used = child.was_used
            try:
                reply = child.ask(request, timeout_s)
            except ScriptDied:
                child.kill()
                if not was_used:
                    raise
                continue  # it had been idle for too long, or its last script left it broken
            except BaseException:
                child.kill()
                raise
            self._give_back(command, child, keep=not reply.get("last"))
            return reply

    def close(self) -> None:
        """End every idle child; others end with what they run."""
        with self._lock:
            idle, self._idle = self._idle, []
        for _, child in idle:
            child.kill()

    def _take(self, command: tuple[str, ...]) -> Child:
        with self._lock:
            for index, (found, child) in enumerate(self._idle):
                if found == command:
                    del self._idle[index]
                    return child
        return Child(*command)

    def _give_back(self, command: tuple[str, ...], child: Child, *, keep: bool) -> None:
        surplus = [child]
        if keep:
            with self._lock:
                self._idle.append((command, child))
                surplus = [old for _, old in self._idle[:-MOST_IDLE]]
                del self._idle[:-MOST_IDLE]
        for old in surplus:
            old.kill()


CHILDREN = Children()
atexit.register(CHILDREN.close)

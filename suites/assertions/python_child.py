"""Runs one author's Python file for `suites.assertions.python`, as a child process: imports nothing of ours."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import json
import os
import resource
import select
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

IDLE_S = 120.0
MEMORY_BYTES = 2 * 1024 * 1024 * 1024
FILE_BYTES = 64 * 1024 * 1024
_SET_CHILD_SUBREAPER = 36  # of prctl(2)
CPU_S = 90  # for one call; the parent stops it earlier, unless it has itself been killed


def _serve(file: Path) -> None:
    _write({"ready": True})
    module: Any = None
    for line in iter(_line, b""):
        request = json.loads(line)
        _allow_cpu()
        try:
            module = module or _loaded(file)
            reply = {"value": _plain(getattr(module, request["function"])(request["output"], request["context"]))}
        except BaseException as error:  # noqa: BLE001 - whatever a script raises, an exit too, is its answer
            reply = {"error": f"{type(error).__name__}: {error}"[:2000]}
        end_all(lambda: descendants(os.getpid()))
        _write(reply)


def end_all(find: Callable[[], set[int]], looks: int = 1) -> None:
    """Kill what `find` finds until it finds nothing `looks` times in a row, for a second at most: what is killed may have
    started more, and one that is just being started may not be seen for a moment.
    """
    unseen = 0
    for _ in range(100):
        found = find()
        unseen = 0 if found else unseen + 1
        if unseen == looks:
            return
        for number in found:
            with contextlib.suppress(OSError):
                os.kill(number, signal.SIGKILL)
        time.sleep(0.01)


def descendants(number: int) -> set[int]:
    """The living processes that `number` started, and those that they started. Empty where the system has no /proc."""
    started: dict[int, list[int]] = {}
    for file in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has just ended
            state, parent = file.read_text(errors="replace").rpartition(")")[2].split()[:2]
            if state not in "ZX":
                started.setdefault(int(parent), []).append(int(file.parent.name))
    found, waiting = set(), [number]
    while waiting:
        children = started.get(waiting.pop(), [])
        found.update(children)
        waiting += children
    return found


def _adopt_orphans() -> None:
    """Become the parent of those whose parent ends, so that none is out of sight; only Linux can."""
    with contextlib.suppress(ImportError, OSError, AttributeError):
        import ctypes

        ctypes.CDLL(None).prctl(_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _line() -> bytes:
    """The next request; nothing where the parent is gone or has asked nothing for long."""
    ready, _, _ = select.select([sys.stdin.buffer], [], [], IDLE_S)
    return sys.stdin.buffer.readline() if ready else b""


def _loaded(file: Path) -> Any:
    """The file as a module; those beside it can be imported."""
    sys.path.append(str(file.parent))
    spec = importlib.util.spec_from_file_location(file.stem, file)
    if spec is None or spec.loader is None:
        raise ImportError(f"{file.name} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[file.stem] = module
    spec.loader.exec_module(module)
    return module


def _plain(value: Any) -> Any:
    return dataclasses.asdict(value) if dataclasses.is_dataclass(value) and not isinstance(value, type) else value


def _write(reply: dict[str, Any]) -> None:
    try:
        line = json.dumps(reply, allow_nan=False)
    except (TypeError, ValueError) as error:
        line = json.dumps({"error": f"its answer is no JSON: {error}"[:2000]})
    left = memoryview(line.encode() + b"\n")
    while left:
        left = left[os.write(_OUT, left) :]


def _allow_cpu() -> None:
    used = resource.getrusage(resource.RUSAGE_SELF)
    _limit(resource.RLIMIT_CPU, int(used.ru_utime + used.ru_stime) + CPU_S, resource.RLIM_INFINITY)


def _limit(kind: int, soft: int, hard: int) -> None:
    with contextlib.suppress(OSError, ValueError):  # a system may know no such limit, or have set a lower one
        resource.setrlimit(kind, (soft, hard))


if __name__ == "__main__":
    _OUT = os.dup(1)
    os.dup2(2, 1)  # what a script prints must not be read as its answer
    _adopt_orphans()
    _limit(resource.RLIMIT_CORE, 0, 0)
    _limit(resource.RLIMIT_AS, MEMORY_BYTES, MEMORY_BYTES)
    _limit(resource.RLIMIT_FSIZE, FILE_BYTES, FILE_BYTES)
    _limit(resource.RLIMIT_NPROC, 0, 0)  # no process of its own; root is not held by it
    _serve(Path(sys.argv[1]))

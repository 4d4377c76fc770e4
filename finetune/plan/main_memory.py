"""How much main memory a process may still take. No torch here: the embedded engine asks, too."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

_MEMINFO = Path("/proc/meminfo")
_LIMITS = (  # of the control group that a container or a unit of systemd runs in: version 2, then 1
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
)


def free_bytes() -> int:
    """Beside what the process holds: the least of the machine's and the control group's."""
    machine = proc_bytes(_MEMINFO, "MemAvailable") or os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    return min([machine, *_group_bytes()])


def _group_bytes() -> list[int]:
    free = []
    for limit, used in _LIMITS:
        with contextlib.suppress(OSError, ValueError):  # not there, or "max": no limit
            free.append(max(0, int(Path(limit).read_text()) - int(Path(used).read_text())))
    return free


def proc_bytes(file: Path, name: str) -> int:
    """The kilobytes of one line of a file of proc(5), in bytes; 0 where there is none."""
    with contextlib.suppress(OSError):
        for line in file.read_text().splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1]) * 1024
    return 0

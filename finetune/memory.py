"""How much memory this process holds, has held at most, and may still take."""

from __future__ import annotations

import contextlib
import resource
import sys
from pathlib import Path

import torch

from finetune.plan import main_memory

_STATUS, _REFS = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def device_count(device: torch.device) -> int:
    """How many devices of this kind the process may use: CUDA_VISIBLE_DEVICES says so, and a CPU is one."""
    return torch.cuda.device_count() if device.type == "cuda" else 1


def held_bytes(device: torch.device) -> int:
    """What the process holds now: torch's tensors on CUDA, else all that is resident."""
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device)
    return main_memory.proc_bytes(_STATUS, "VmRSS") or _highest_bytes()


def forget_peak(device: torch.device) -> None:
    """Let `peak_bytes` begin anew. Where the system keeps one peak for all of a process's life, it stays that one."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    else:
        with contextlib.suppress(OSError):  # no Linux, or a container that forbids it
            _REFS.write_text("5")  # proc(5): resets VmHWM


def peak_bytes(device: torch.device) -> int:
    """The most that the process held since `forget_peak`."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return main_memory.proc_bytes(_STATUS, "VmHWM") or _highest_bytes()


def free_bytes(device: torch.device) -> int:
    """What the process may still take beside what it holds: the least of the machine's and the control group's."""
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + unused
    return main_memory.free_bytes()


def _highest_bytes() -> int:
    highest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return highest if sys.platform == "darwin" else highest * 1024

"""What trainings draw: the device's own figure where it tells one, else CPU seconds times an assumption."""

from __future__ import annotations

import shutil
import subprocess
import threading
from statistics import fmean
from types import TracebackType
from typing import Self

EVERY_S = 1.0
_ASK = ("--query-gpu=power.draw", "--format=csv,noheader,nounits")
_LONGEST_S = 5.0


class PowerMeter:
    """The power of all NVIDIA devices together, asked every second while it is open. Silent where there is none."""

    def __init__(self, every_s: float = EVERY_S) -> None:
        self._tool = shutil.which("nvidia-smi")
        self._every_s = every_s
        self._watts: list[float] = []
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        if self._tool is not None:
            self._thread = threading.Thread(target=self._watch, daemon=True)
            self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._ended.set()
        if self._thread is not None:
            self._thread.join(_LONGEST_S)

    @property
    def mean_watts(self) -> float | None:
        """None where nothing was read."""
        return fmean(self._watts) if self._watts else None

    def _watch(self) -> None:
        while True:
            found = self._read()
            if found is not None:
                self._watts.append(found)
            if self._ended.wait(self._every_s):
                return

    def _read(self) -> float | None:
        try:
            done = subprocess.run(  # noqa: S603 - the tool that the system's PATH names, with fixed words
                [str(self._tool), *_ASK], capture_output=True, text=True, timeout=_LONGEST_S, check=False
            )
            return sum(float(line) for line in done.stdout.split())
        except (OSError, ValueError, subprocess.TimeoutExpired):
            return None  # a device that does not tell its power: `mean_watts` says so


def energy(seconds: float, cpu_seconds: float, device_watts: float | None, core_watts: float) -> tuple[float, str]:
    """Watt-hours of a training, and what they were computed from."""
    if device_watts is not None:
        return device_watts * seconds / 3600, f"{device_watts:.0f} W as nvidia-smi tells it, for {seconds:.0f} s"
    return (
        core_watts * cpu_seconds / 3600,
        f"an assumed {core_watts:g} W a busy core, for {cpu_seconds:.0f} CPU seconds",
    )

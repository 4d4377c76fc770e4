"""`turnout demo` with an empty home and an empty cache: pass rates with intervals, and the seconds of each phase."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any


def measure() -> dict[str, Any]:
    """The demo's own JSON, without its ids, and its wall time."""
    with tempfile.TemporaryDirectory() as home:
        file = Path(home) / "demo.json"
        command = [sys.executable, "-P", "-m", "service.cli.main", "demo", "--json-file", str(file)]
        started = time.perf_counter()
        empty = {"TURNOUT_HOME": str(Path(home) / "t"), "TURNOUT_CACHE": str(Path(home) / "cache")}
        done = subprocess.run(command, env={**os.environ, **empty}, check=False)
        wall_s = time.perf_counter() - started
        report = json.loads(file.read_text())
    kept = {name: report[name] for name in ("before", "after", "verdict", "reasons", "seconds")}
    return {"exit": done.returncode, "wall_s": round(wall_s, 1), **kept, "goals": {"wall_s": 360}}

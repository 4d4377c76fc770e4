"""`make bench`: every figure in one go, into `benchmarks/results/NAME.json`. `--only NAME` for one of them."""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

from benchmarks import (
    advice,
    authoring,
    ci,
    cli,
    client,
    demo,
    engine,
    export,
    finetune,
    gateway,
    render,
    rollouts,
    statistics,
    suites,
)

RESULTS = Path(__file__).parent / "results"
BENCHMARKS = {
    "ci": ci.measure,
    "cli": cli.measure,
    "authoring": authoring.measure,
    "client": client.measure,
    "render": render.measure,
    "gateway": gateway.measure,
    "suites": suites.measure,
    "engine": engine.measure,
    "export": export.measure,
    "finetune": finetune.measure,
    "advice": advice.measure,
    "statistics": statistics.measure,
    "rollouts": rollouts.measure,
    "demo": demo.measure,
}


def conditions() -> dict[str, object]:
    """What the figures depend on beside the code."""
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    with Path("/proc/cpuinfo").open() as file:
        cpu = next((line.split(":")[1].strip() for line in file if line.startswith("model name")), platform.machine())
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit.stdout.strip(),
        "cpu": cpu,
        "cores": os.cpu_count(),
        "load_before": os.getloadavg()[0],
        "python": platform.python_version(),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=sorted(BENCHMARKS), action="append")
    chosen = parser.parse_args().only or list(BENCHMARKS)
    RESULTS.mkdir(exist_ok=True)
    for name in chosen:
        before = conditions()
        figures = BENCHMARKS[name]()
        (RESULTS / f"{name}.json").write_text(json.dumps({"conditions": before, **figures}, indent=2) + "\n")
        print(f"\n{name}\n" + json.dumps(figures, indent=2), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())

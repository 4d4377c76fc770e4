"""What a serving process starts with is set apart from the garbage collector; in a process of its own, for that is for good."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = (
    "import gc; from service.collector import settle; settle(); print(gc.get_threshold(), gc.get_freeze_count() > 1000)"
)


def test_settling_freezes_what_is_there_and_makes_collections_rare() -> None:
    run = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)

    assert run.stdout.strip() == "(10000, 20, 50) True"

"""Faults of files as a file that code scanning reads."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from prompts.errors import Fault


def write_sarif(path: Path, faults: Sequence[Fault]) -> None:
    """Write the faults with their paths from the repository's root on. Raises CannotRun where that cannot be."""
    from service.cli.reports import write_text
    from service.release import release
    from suites.report.sarif import render_sarif

    write_text(path, render_sarif([_in_repository(fault) for fault in faults], release()))


def _in_repository(fault: Fault) -> Fault:
    from service.cli.project import below_repository

    file = Path(fault.path)
    return dataclasses.replace(fault, path=below_repository(file) or str(file.resolve()))

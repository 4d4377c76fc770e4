"""The order of tests that several processes share."""

from __future__ import annotations

import pytest


@pytest.hookimpl(trylast=True)  # once only those are left that are to run
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Begin with the long ones: begun last, one of them is waited for while all other processes have nothing to do.

    `--dist worksteal` gives each process a part of the list at first, all of the same size: to each its long ones.
    """
    processes = getattr(config, "workerinput", {}).get("workercount", 1)
    long = [item for item in items if item.get_closest_marker("long")]
    others = [item for item in items if not item.get_closest_marker("long")]
    count, items[:] = len(items), []
    for process in range(processes):
        items += long[process::processes]
        filled = count * (process + 1) // processes - len(items)
        items += others[: max(0, filled)]
        others = others[max(0, filled) :]
    items += others

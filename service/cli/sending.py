"""What is sent to a service of a suite, and what its jobs say of going on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from prompts.wording import many
from suites.case import Suite
from suites.files import LINES

MAX_LISTED_CASES = 1_000  # of a suite that is sent as a list


def sent_suite(suite: Suite) -> dict[str, Any]:
    """A suite as it is sent: many cases as lines in one text, which a service reads one by one."""
    if len(suite.tests) <= MAX_LISTED_CASES:
        return suite.as_data()
    lines = (json.dumps(case.as_data(), ensure_ascii=False) for case in suite.tests)
    return {**suite.head_data(), LINES: "\n".join(lines)}


def largest(suites: dict[str, Any], sent: dict[str, Any]) -> str:
    """The suite of a push that takes the most room, in words."""
    sizes = {name: len(json.dumps(data, ensure_ascii=False).encode()) for name, data in sent.items()}
    if not sizes:
        return "the prompts"
    name = max(sizes, key=lambda each: sizes[each])
    count = f"{many(len(suites[name].tests), 'case')}, " if isinstance(suites[name], Suite) else ""
    return f"suite {name} ({count}{sizes[name]:,} bytes)"


def suites_of(spec: Mapping[str, Any]) -> set[str]:
    """The names of the suites that a job runs."""
    runs = spec.get("candidates") or spec.get("runs") or [spec]
    return {str(run.get("suite", "")).partition("@")[0] for run in runs}


def go_on(job: Mapping[str, Any] | None) -> str:
    """The one command that goes on with a job."""
    if job is None:
        return "none is of these suites: run the same command without --resume"
    if job["status"] == "succeeded":
        return f"the newest of these suites, {job['job_id']}, has ended: run the same command without --resume"
    again = " --resume" if job["status"] in ("failed", "cancelled") else ""
    return f"the newest of these suites ({job['status']}) goes on with: turnout job {job['job_id']}{again} --watch"

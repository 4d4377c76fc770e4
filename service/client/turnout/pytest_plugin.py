"""The pytest plug-in: `def test_triage(turnout_gate): turnout_gate("suites/support.suite.yml")`.

Each call is one `turnout gate` in a process of its own. A test passes on the verdict `pass` alone: `inconclusive`, a gate
that could not run and a bad file fail it, with their reasons.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

Gate = Callable[..., dict[str, Any]]
COMMAND = (sys.executable, "-P", "-m", "service.cli.main", "gate")
MOST_CASES = 10  # that are newly broken, of a suite


def pytest_addoption(parser: pytest.Parser) -> None:
    """The options of every test that gates."""
    group = parser.getgroup("turnout", "gates of prompts")
    group.addoption("--turnout-local", action="store_true", help="gate in process, with no server (`gate --local`)")
    group.addoption(
        "--turnout-against", metavar="REF", help="a git revision: the baseline is the merge base with it (origin/main)"
    )


@pytest.fixture
def turnout_gate(request: pytest.FixtureRequest) -> Gate:
    """Gate a suite, a file or a name, and fail the test unless it passes; returns the gate's answer as JSON.

    Files are relative to pytest's root folder. `local` and `against` go before the options of the command line;
    `options` are more of `turnout gate`, such as `["--model", "gpt-4o-mini"]`.
    """
    config = request.config

    def gate(
        suite: str | os.PathLike[str],
        *,
        local: bool | None = None,
        against: str | None = None,
        options: tuple[str, ...] | list[str] = (),
    ) -> dict[str, Any]:
        __tracebackhide__ = True
        is_local = config.getoption("--turnout-local") if local is None else local
        ref = against if against is not None else config.getoption("--turnout-against")
        flags = [*(("--local",) if is_local else ()), *(("--against", ref) if ref else ()), *options]
        answer, said, code = _run([*COMMAND, "--json", *flags, "--", os.fspath(suite)], config.rootpath)
        if code != 0 or answer.get("verdict") != "pass":
            pytest.fail(in_words(str(suite), answer, said, code), pytrace=False)
        return answer

    return gate


def _run(command: list[str], folder: Path) -> tuple[dict[str, Any], str, int]:
    """The gate's JSON (empty where it wrote none), what it said on stderr, and its exit code."""
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)  # noqa: S603 - our own
    try:
        answer = json.loads(done.stdout)
    except ValueError:
        answer = {}
    return (answer if isinstance(answer, dict) else {}), done.stderr.strip(), done.returncode


def in_words(suite: str, answer: Mapping[str, Any], said: str, code: int) -> str:
    """Why a gate did not pass: the reasons of each suite, what is newly broken, and where the evidence is."""
    lines = [f"{suite}: {answer.get('verdict', 'no verdict')} (exit code {code})"]
    if "error" in answer or not answer:
        lines.append(str(answer.get("error", {}).get("message") or said or "the gate said nothing"))
    lines += [f"  {reason}" for reason in answer.get("reasons", ())]
    for entry in answer.get("suites", ()):
        broken = entry.get("newly_broken", ())
        more = f" … and {len(broken) - MOST_CASES} more" if len(broken) > MOST_CASES else ""
        if broken:
            lines.append(f"  {entry['suite']}: newly broken: {', '.join(broken[:MOST_CASES])}{more}")
        if entry.get("evidence_id"):
            lines.append(f"  {entry['suite']}: evidence {entry['evidence_id']}")
    return "\n".join(lines)

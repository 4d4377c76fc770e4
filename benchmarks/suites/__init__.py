"""Suites beside the peers: 1,000 cases with three assertions each against one local endpoint, and a bare aiohttp loop.

`TURNOUT_BENCH_PEERS` names a folder in which the peers are kept from one run to the next.
"""

from __future__ import annotations

import compileall
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.suites.peers import install

CASES = 1_000
MANY = 100_000
IN_FLIGHT = 64
ROUNDS = 3
KILLED_AT = 400  # completions asked for when the run is killed
ROOT = Path(__file__).parents[2]
GOALS = {"cases_per_s_50ms": 640, "cpu_over_loop": 2, "peak_mb": 90, "start_s": 0.8, "asked_again": 0}
Commands = Callable[[str, int], tuple[list[str], Path, dict[str, str]]]  # of a base URL and a number of cases


@dataclass(frozen=True)
class Taken:
    """One child: its wall and CPU time (its own and its children's), and its peak memory."""

    wall_s: float
    cpu_s: float
    peak_mb: float


def measure() -> dict[str, Any]:
    """Medians of `ROUNDS`, the runners taking turns, so that a busy moment hits none alone."""
    _compile_ours()
    with tempfile.TemporaryDirectory() as scratch:
        peers = install(Path(os.environ.get("TURNOUT_BENCH_PEERS", scratch)))
        runners: dict[str, Commands] = {"aiohttp_loop": _loop, "turnout": _turnout}
        runners |= {peer.name: lambda url, n, peer=peer: (peer.command(url, n, IN_FLIGHT), peer.folder, peer.environment)
                    for peer in peers}  # fmt: skip
        figures: dict[str, Any] = {name: {} for name in runners}
        for delay_ms in (0, 50):
            for name, taken in _in_turn(runners, delay_ms, CASES).items():
                figures[name][f"{delay_ms}_ms"] = _summary(taken, CASES)
        for name, taken in _in_turn(runners, 0, 1).items():
            _tell_start_apart(figures[name], taken)
        figures["turnout"]["many"] = _many()
        figures["turnout"]["killed"] = _killed()
    versions = {peer.name: peer.version for peer in peers}
    return {
        "cases": CASES, "assertions": 3, "in_flight": IN_FLIGHT, "rounds": ROUNDS, "versions": versions,
        "load_after": os.getloadavg()[0], "figures": figures, "over_loop": _over_loop(figures), "goals": GOALS,
    }  # fmt: skip


def _compile_ours() -> None:
    """Write the bytecode of our packages, as installing does: where Python may write none, each run would compile them."""
    for package in ("prompts", "suites", "service", "benchmarks"):
        if not compileall.compile_dir(ROOT / package, quiet=1):
            raise RuntimeError(f"{package}/ does not compile: see the error above")


def _in_turn(runners: dict[str, Commands], delay_ms: float, cases: int) -> dict[str, list[Taken]]:
    found: dict[str, list[Taken]] = {name: [] for name in runners}
    for _ in range(ROUNDS):
        for name, commands in runners.items():
            found[name].append(_whole_run(name, commands, delay_ms, cases))
    return found


def _whole_run(name: str, commands: Commands, delay_ms: float, cases: int) -> Taken:
    """One run that asked every question. A peer that crashes is given a second go: promptfoo does, now and then."""
    for last in (name == "turnout", True):
        with _endpoint(delay_ms) as url:
            try:
                taken = _run(*commands(url, cases))
            except RuntimeError:
                if last:
                    raise
                continue
            asked = _counts(url)["asked"]
            if asked != cases:
                raise RuntimeError(f"{name} asked {asked} of {cases} questions")
            return taken
    raise AssertionError("the last go returns or raises")


def _tell_start_apart(figures: dict[str, Any], one_case: list[Taken]) -> None:
    """What a run of one case takes is start-up; the rest of 1,000 cases' is what the cases take."""
    figures["start_s"], start_cpu_s = (_median(getattr(one, name) for one in one_case) for name in ("wall_s", "cpu_s"))
    figures["start_cpu_s"] = start_cpu_s
    for delay in (figures["0_ms"], figures["50_ms"]):
        delay["cases_per_s_after_start"] = _rate(CASES, delay["wall_s"] - figures["start_s"])
        delay["cpu_ms_per_case_after_start"] = round(delay["cpu_ms_per_case"] - 1000 * start_cpu_s / CASES, 3)


def _loop(url: str, cases: int) -> tuple[list[str], Path, dict[str, str]]:
    command = [sys.executable, "-m", "benchmarks.suites.loop", url, str(cases), str(IN_FLIGHT)]
    return command, ROOT, dict(os.environ)


def _turnout(url: str, cases: int, *options: str) -> tuple[list[str], Path, dict[str, str]]:
    """The command line on a project and a home of their own, so that no cache helps."""
    folder = Path(tempfile.mkdtemp())
    (folder / "prompts").mkdir()
    (folder / "suites").mkdir()
    (folder / "turnout.yaml").write_text(f"models: {{bench: {{engine: openai, base_url: '{url}'}}}}\n")
    (folder / "prompts" / "triage.prompt.yml").write_text(
        "model: bench\nmodelParameters: {temperature: 0}\nvariables: {ticket: {type: string}}\n"
        "messages: [{role: user, content: 'Which queue is ticket {{ ticket }} for?'}]\n"
    )
    (folder / "suites" / "triage.suite.yml").write_text(
        "prompt: triage\ntests: file://cases.jsonl\ndefaultTest: {assert: [{type: contains, value: billing},"
        " {type: not-contains, value: sorry}, {type: regex, value: '^The queue'}]}\n"
    )
    with (folder / "suites" / "cases.jsonl").open("w") as file:
        file.writelines(json.dumps({"vars": {"ticket": str(number)}}) + "\n" for number in range(cases))
    return _command(*options), folder, {**os.environ, "TURNOUT_HOME": str(folder / "home"), "PYTHONPATH": str(ROOT)}


def _command(*options: str) -> list[str]:
    run = [sys.executable, "-P", "-m", "service.cli.main", "run", "suites/triage.suite.yml", "--local", "--json"]
    return [*run, "--concurrency", str(IN_FLIGHT), *options]


def _many() -> dict[str, float | None]:
    """The memory of a hundred times as many cases."""
    with _endpoint(0) as url:
        return {"cases": MANY, **_summary([_run(*_turnout(url, MANY))], MANY)}


def _killed() -> dict[str, int]:
    """Completions asked for twice when a run is killed with SIGKILL and resumed.

    `finished_again` are those of cases whose result was stored; the others were on their way.
    """
    with _endpoint(50) as url:
        command, folder, environment = _turnout(url, CASES, "--resume", "--no-cache")
        with subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.DEVNULL) as child:
            while _counts(url)["asked"] < KILLED_AT:
                time.sleep(0.01)
            child.send_signal(signal.SIGKILL)
        stored = _stored(folder / "home" / "turnout.db")
        asked = _counts(url)["asked"]
        _run(command, folder, environment)
        counts = _counts(url)
    left = CASES - stored  # what a resumed run must ask
    return {"asked_when_killed": asked, "stored": stored, "finished_again": counts["asked"] - asked - left,
            "on_their_way_again": counts["again"]}  # fmt: skip


def _stored(database: Path) -> int:
    import sqlite3

    with sqlite3.connect(database) as connection:
        found: int = connection.execute("SELECT count(*) FROM case_result").fetchone()[0]
    connection.close()
    return found


@contextmanager
def _endpoint(delay_ms: float) -> Iterator[str]:
    command = [sys.executable, "-m", "benchmarks.suites.endpoint", str(delay_ms)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            yield f"http://127.0.0.1:{int(server.stdout.readline())}/v1"
        finally:
            server.terminate()


def _counts(url: str) -> dict[str, int]:
    with urllib.request.urlopen(f"{url}/asked", timeout=10) as answer:  # noqa: S310 - our own endpoint
        counts: dict[str, int] = json.load(answer)
    return counts


def _run(command: list[str], folder: Path, environment: dict[str, str]) -> Taken:
    """Run to the end; what it prints goes to a file, which is shown where it fails."""
    with tempfile.TemporaryFile() as said:
        started = time.perf_counter()
        child = subprocess.Popen(command, cwd=folder, env=environment, stdout=said, stderr=said)
        peak_mb = _peak_mb(child.pid)
        _, status, used = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        wall_s = time.perf_counter() - started
        if child.returncode != 0:
            said.seek(0)
            raise RuntimeError(f"{command[:4]} exited {child.returncode}: {said.read()[-2000:].decode()}")
    return Taken(wall_s, used.ru_utime + used.ru_stime, peak_mb)


def _peak_mb(pid: int) -> float:
    """The most memory that a child has had when it ends; `ru_maxrss` would count what was ours before it began."""
    peak_kb = 0
    while os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is None:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                peak_kb = int(line.split()[1])
        time.sleep(0.02)
    return peak_kb / 1024


def _summary(taken: list[Taken], cases: int) -> dict[str, float | None]:
    """Whole processes: start-up counts."""
    wall_s = _median(one.wall_s for one in taken)
    return {
        "wall_s": wall_s,
        "cases_per_s": _rate(cases, wall_s),
        "cpu_ms_per_case": round(1000 * _median(one.cpu_s for one in taken) / cases, 3),
        "peak_mb": _median(one.peak_mb for one in taken),
    }


def _rate(cases: int, seconds: float) -> float | None:
    return round(cases / seconds, 1) if seconds > 0 else None


def _median(values: Iterator[float]) -> float:
    return round(statistics.median(values), 3)


def _over_loop(figures: dict[str, Any]) -> dict[str, dict[str, float]]:
    """CPU and wall time as multiples of the bare loop's."""
    floor = figures["aiohttp_loop"]
    return {
        name: {
            f"{key}_{delay}": round(found[delay][key] / floor[delay][key], 2)
            for delay in ("0_ms", "50_ms")
            for key in ("cpu_ms_per_case", "wall_s")
        }
        for name, found in figures.items()
    }

"""A home with a tiny model and a suite that it can be taught to pass, and the real processes that work on it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from service.identity import LOCAL_ADMIN
from service.jobs import Jobs
from service.registry import Origin, Push, Registry
from service.settings import Settings, load_settings
from service.store import jobs
from service.store.database import Database
from tests.tiny_model import make_tiny_model

WORDS = (
    "amber",
    "birch",
    "cedar",
    "delta",
    "ember",
    "flint",
    "grove",
    "hazel",
    "indigo",
    "juniper",
    "kelp",
    "lotus",
    "maple",
    "nettle",
    "onyx",
    "pine",
    "quartz",
)
PROMPT = "loop.echo"


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("model") / "tiny")


def ticket(number: int) -> str:
    """Texts that are no near duplicates of one another."""
    first, second = WORDS[number % len(WORDS)], WORDS[(number * 7 + 3) % len(WORDS)]
    return f"{first} {number * 7919 % 10007} {second}"


@dataclass
class Home:
    """One TURNOUT_HOME and its project, and the children started on it."""

    settings: Settings
    database: Database
    children: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def environment(self) -> dict[str, str]:
        url = self.settings.storage.url
        storage = {"TURNOUT_STORAGE_URL": url} if url else {}
        return {**os.environ, "TURNOUT_HOME": str(self.settings.home), "OMP_NUM_THREADS": "1", **storage}

    def log(self) -> str:
        """What its children said, the end of it."""
        return (self.settings.home / "child.log").read_text()[-3000:]

    def start(self, *command: str) -> subprocess.Popen[bytes]:
        """A child of ours in its own process group, its output in `child.log`."""
        with (self.settings.home / "child.log").open("ab") as log:
            child = subprocess.Popen(
                [sys.executable, "-P", "-m", *command],
                cwd=self.settings.project,
                env=self.environment,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
            )
        self.children.append(child)
        return child

    def worker(self) -> subprocess.Popen[bytes]:
        return self.start("service.worker", "--with-parent")

    def job(self, job_id: str) -> dict[str, Any]:
        return Jobs(self.database).show(job_id)

    def events(self, job_id: str) -> list[dict[str, Any]]:
        with self.database.read() as session:
            return jobs.events(session, job_id)

    def submit(self) -> str:
        spec = {"suite": PROMPT, "suite_version": 1, "prompt_version": 1, "base": "tiny"}
        return str(Jobs(self.database).submit("finetune", spec, LOCAL_ADMIN, "job_loop")["job_id"])

    def end(self) -> None:
        for child in self.children:
            with contextlib.suppress(OSError):
                child.stdin and child.stdin.close()
            child.kill()
            child.wait()
        for pid in processes_of(self.settings.home):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def processes_of(home: Path, module: str = "") -> list[int]:
    """Children of ours that name this home on their command line (engines, training processes)."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError):
                line = (folder / "cmdline").read_bytes().decode("utf-8", "replace")
                if str(home) in line and module in line:
                    found.append(int(folder.name))
    return found


@pytest.fixture
def make_home(tiny_model: Path, tmp_path: Path) -> Iterator[Any]:
    made: list[Home] = []

    def make(name: str = "home", url: str | None = None) -> Home:
        folder = tmp_path / name
        project = folder / "project"
        project.mkdir(parents=True)
        (project / "turnout.yaml").write_text(
            f'models: {{tiny: {{engine: local, source: "path:{tiny_model}", device: cpu, threads: 1}}}}\n'
        )
        environment = {"TURNOUT_HOME": str(folder / "t")} | ({"TURNOUT_STORAGE_URL": url} if url else {})
        settings = load_settings(environment, project)
        settings.home.mkdir(parents=True, exist_ok=True, mode=0o700)
        database = Database(settings.database_url)
        database.migrate()
        _push(Registry(database, settings))
        made.append(Home(settings, database))
        return made[-1]

    yield make
    for home in made:
        home.end()
        home.database.close()


def _push(registry: Registry) -> None:
    prompt = {
        "model": "tiny",
        "modelParameters": {"temperature": 0, "max_tokens": 4},
        "variables": {"word": {"type": "string"}},
        "messages": [{"role": "system", "content": "Say ok."}, {"role": "user", "content": "{{ word }}"}],
    }
    suite = {
        "prompt": PROMPT,
        "thresholds": {"pass_rate": 0.9},
        "tests": [
            {"vars": {"word": ticket(n)}, "assert": [{"type": "equals", "value": "ok"}]} for n in range(100, 148)
        ],
        "training": {"examples": [{"vars": {"word": ticket(n)}, "expected": "ok"} for n in range(24)]},
        "fallback": {
            "rollout": [100],
            "budget": {
                "attempts": 1,
                "minutes": 0.01,
            },  # one run, no search: what a search does is tried in tests/finetune
            "recipe": {
                "lr": 1e-2,
                "rank": 4,
                "alpha": 8,
                "epochs": 50,
                "min_steps": 1,
                "patience": 0,
                "evals_per_epoch": 1,
            },
        },
    }
    registry.push(Push({PROMPT: prompt}, {PROMPT: suite}, Origin()), LOCAL_ADMIN)
    registry.move_label(PROMPT, "production", 1, LOCAL_ADMIN, reason="the start of the test")

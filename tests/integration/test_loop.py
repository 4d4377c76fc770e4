"""The whole loop as its users drive it: a real service, its worker and engine, the command line and OpenAI's client."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from openai import NotFoundError, OpenAI

from tests.integration.conftest import PROMPT, Home, processes_of, ticket

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]


@dataclass
class Service:
    """A running `turnout serve`, and the command line that talks to it."""

    home: Home
    url: str

    @property
    def key(self) -> str:
        return (self.home.settings.home / "admin.key").read_text().strip()

    def turnout(self, *arguments: str) -> tuple[int, Any]:
        """Exit code and JSON of one command."""
        done = subprocess.run(
            [sys.executable, "-P", "-m", "service.cli.main", *arguments, "--json"],
            cwd=self.home.settings.project,
            env={**self.home.environment, "TURNOUT_URL": self.url},
            capture_output=True,
            text=True,
            timeout=400,
        )
        return done.returncode, json.loads(done.stdout) if done.stdout else done.stderr

    def ask(self, model: str, word: str) -> Any:
        client = OpenAI(base_url=f"{self.url}/v1", api_key=self.key, max_retries=0)
        variables = {"variables": {"word": word}}
        with client:
            return client.chat.completions.create(model=model, messages=[], extra_body=variables, user="u-1")

    def get(self, path: str) -> Any:
        return httpx.get(self.url + path, headers={"authorization": f"Bearer {self.key}"}, timeout=30).json()


@pytest.fixture
def service(make_home: Callable[..., Home]) -> Service:
    home = make_home()
    home.start("service.cli.main", "serve", "--port", "0")
    log = home.settings.home / "child.log"
    deadline = time.monotonic() + 60
    while "url=" not in log.read_text() and time.monotonic() < deadline:
        time.sleep(0.05)
    url = next(word for word in log.read_text().split() if word.startswith("url=")).removeprefix("url=")
    while time.monotonic() < deadline:
        try:
            if httpx.get(f"{url}/health/ready", timeout=1).status_code == 200:
                break
        except httpx.HTTPError:
            time.sleep(0.05)
    return Service(home, url)


@pytest.mark.long
def test_a_failing_suite_trains_an_adapter_that_takes_the_traffic_and_undo_gives_it_back(service: Service):
    before = service.ask(PROMPT, ticket(300))
    assert before.choices[0].message.content != "ok"
    assert before.turnout["variant"] == f"{PROMPT}@1+tiny"

    code, gate = service.turnout("gate", PROMPT, "--fallback")
    assert (code, gate["verdict"]) == (1, "fail")
    job_id = gate["suites"][0]["fallback"]["job_id"]
    code, job = service.turnout("job", job_id, "--watch")
    assert (code, job["status"], job["verdict"]) == (0, "succeeded", "pass")
    assert job["before"]["passed"] == 0
    assert job["after"]["passed"] == job["after"]["total"] == 48
    assert job["after"]["variant"] == f"{PROMPT}@1+tiny+{job['adapter']}"

    time.sleep(1.0)  # every replica serves a new revision within a second
    after = service.ask(PROMPT, ticket(300))
    assert after.choices[0].message.content == "ok"
    assert after.turnout["variant"] == job["after"]["variant"]
    assert after.turnout["route_revision"] == 2
    assert service.ask(f"{PROMPT}@production", ticket(300)).turnout["variant"] == f"{PROMPT}@1+tiny"
    code, evidence = service.turnout("evidence", job["evidence_id"])
    assert (code, evidence["kind"], evidence["recomputed_equal"]) == (0, "promotion", True)

    code, shown = service.turnout("adapters", "show", job["adapter"])
    assert (code, shown["heldout"]["evidence_id"]) == (0, job["evidence_id"])
    shelf = service.home.settings.adapters_dir / job["adapter"]
    assert job["evidence_id"] in (shelf / "README.md").read_text()
    out = service.home.settings.home / "exported"
    code, exported = service.turnout("export", job["adapter"], "--to", str(out), "--base-name", "org/tiny")
    assert (code, exported["adapter"]["digest"]) == (0, shown["digest"])
    assert (out / "adapter_model.safetensors").read_bytes() == (shelf / "adapter_model.safetensors").read_bytes()
    code, refused = service.turnout("adapters", "rm", job["adapter"])
    assert (code, "route" in str(refused)) == (2, True)

    code, route = service.turnout("route", PROMPT, "undo")
    assert (code, route["revision"], route["variants"]) == (0, 3, [{"variant": f"{PROMPT}@1+tiny", "percent": 100.0}])
    assert service.ask(PROMPT, ticket(300)).turnout["variant"] == f"{PROMPT}@1+tiny"

    feedback = {"completion_id": after.id, "metric": "right", "value": True, "correction": "ok"}
    headers = {"authorization": f"Bearer {service.key}"}
    assert httpx.post(f"{service.url}/api/feedback", json=feedback, headers=headers).status_code == 201
    with pytest.raises(NotFoundError):
        service.ask(f"{PROMPT}@9", "x")


@pytest.mark.long
def test_a_cancelled_fine_tune_leaves_no_training_process_and_can_be_resumed(service: Service):
    code, job = service.turnout("finetune", PROMPT)
    assert (code, job["status"] in ("queued", "running")) == (0, True)
    deadline = time.monotonic() + 60
    while not processes_of(service.home.settings.home, "finetune") and time.monotonic() < deadline:
        time.sleep(0.02)
    service.turnout("job", job["job_id"], "--cancel")
    while service.get(f"/api/jobs/{job['job_id']}")["status"] == "running" and time.monotonic() < deadline:
        time.sleep(0.05)
    assert service.get(f"/api/jobs/{job['job_id']}")["status"] == "cancelled"
    assert processes_of(service.home.settings.home, "finetune") == []

    service.turnout("job", job["job_id"], "--resume")
    code, ended = service.turnout("job", job["job_id"], "--watch")
    assert (code, ended["status"], ended["verdict"]) == (0, "succeeded", "pass")


def test_serving_goes_on_while_the_worker_is_dead_and_the_worker_comes_back(service: Service):
    os.kill(_worker_of(service.home.children[0].pid), signal.SIGKILL)
    assert service.ask(PROMPT, "while it is dead").choices
    code, result = service.turnout("run", PROMPT)
    assert (code, result["failed"], result["total"]) == (1, 48, 48)


def test_a_worker_and_its_engine_end_with_a_service_that_was_killed(service: Service):
    worker = _worker_of(service.home.children[0].pid)
    assert service.ask(PROMPT, "an engine starts").choices
    service.home.children[0].kill()
    service.home.children[0].wait()
    deadline = time.monotonic() + 40
    while time.monotonic() < deadline and (
        Path(f"/proc/{worker}").exists() or processes_of(service.home.settings.home, "service.engine")
    ):
        time.sleep(0.1)
    assert not Path(f"/proc/{worker}").exists()
    assert processes_of(service.home.settings.home, "service.engine") == []


def test_a_dry_run_plans_and_trains_nothing(service: Service):
    code, job = service.turnout("finetune", PROMPT, "--dry-run")
    assert (code, job["verdict"], job["adapter"]) == (0, "planned", None)
    assert job["result"]["planned"]["train"] + job["result"]["planned"]["dev"] == 24
    assert not (service.home.settings.home / "jobs" / job["job_id"] / "training").exists()


@pytest.mark.long
def test_an_attempt_that_learnt_too_little_is_followed_by_one_that_the_diagnosis_changes(service: Service):
    given = ("lr=0.0005", "epochs=6", "min_steps=1", "seed=0")
    options = [option for one in given for option in ("--recipe", one)]
    code, job = service.turnout("finetune", PROMPT, *options, "--attempts", "2", "--minutes", "2", "--watch")
    assert job["status"] == "succeeded", job["error"]
    first, second = job["result"]["attempts"]
    assert first["verdict"] == "no_gain"
    assert first["diagnosis"]["kind"] in ("underfit", "capacity")
    assert first["diagnosis"]["again"]
    assert second["recipe"] == {**first["recipe"], **first["diagnosis"]["changes"]}
    assert second["adapter"] == f"{first['adapter']}-2"
    told = [event["attempt"] for event in _data(service, job, "diagnosis")]
    assert told == ([1] if job["verdict"] == "pass" else [1, 2])
    assert (code, job["verdict"]) in ((0, "pass"), (1, "no_gain"), (1, "fail"), (3, "inconclusive"))


def _data(service: Service, job: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    events = service.get(f"/api/jobs/{job['job_id']}/events")
    return [event["data"] for event in events if event["type"] == kind]


def test_examples_that_are_held_out_cases_are_dropped_and_too_few_are_refused(service: Service, tmp_path: Path):
    leaked = tmp_path / "leaked.jsonl"
    rows = [{"vars": {"word": ticket(n).upper()}, "expected": "ok"} for n in range(100, 112)]
    leaked.write_text("".join(json.dumps(row) + "\n" for row in rows))
    code, job = service.turnout("finetune", PROMPT, "--examples", str(leaked), "--watch")
    assert (code, job["verdict"]) == (1, "refused")
    assert job["result"]["planned"]["examples"] == {"given": 12, "kept": 0, "dropped": {"held-out": 12}}


def _worker_of(service: int) -> int:
    """The worker child of a `serve` process, once it has started."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        for folder in Path("/proc").iterdir():
            if folder.name.isdigit() and _parent_and_command(folder) == (service, True):
                return int(folder.name)
        time.sleep(0.05)
    raise TimeoutError("no worker was started")


def _parent_and_command(folder: Path) -> tuple[int, bool]:
    try:
        parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
        return parent, b"service.worker" in (folder / "cmdline").read_bytes()
    except OSError:  # it ended meanwhile
        return 0, False

"""An advice with its trainings, killed on the way: what was done is not done twice, and it says what training gives."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from service.identity import LOCAL_ADMIN
from service.jobs import Jobs
from service.registry import Origin, Push, Registry
from tests.integration.conftest import PROMPT, Home, ticket

pytestmark = [pytest.mark.integration, pytest.mark.timeout(280)]
SUITE = {
    "prompt": PROMPT,
    "thresholds": {"pass_rate": 0.9},
    "tests": [{"vars": {"word": ticket(n)}, "assert": [{"type": "equals", "value": "ok"}]} for n in range(100, 104)],
    "training": {"examples": [{"vars": {"word": ticket(n)}, "expected": "ok"} for n in range(24)]},
    "fallback": {"recipe": {"lr": 1e-2, "rank": 4, "alpha": 8, "epochs": 20, "min_steps": 1}},
}


def wait_for(home: Home, job_id: str, is_there: Callable[[list[dict[str, Any]]], bool], seconds: float = 250) -> None:
    deadline = time.monotonic() + seconds
    while not is_there(home.events(job_id)):
        assert time.monotonic() < deadline, home.log()
        time.sleep(0.05)


def trials(events: list[dict[str, Any]]) -> list[str]:
    found = [event["data"]["event"] for event in events if event["type"] == "training"]
    return [one["name"] for one in found if one["type"] == "trial"]


@pytest.mark.long
def test_a_killed_advice_goes_on_and_says_what_training_gives(make_home: Callable[..., Home]):
    home = make_home()
    Registry(home.database, home.settings).push(Push({}, {PROMPT: SUITE}, Origin()), LOCAL_ADMIN)
    spec = {"suite": PROMPT, "suite_version": 2, "prompt_version": 1, "model": "tiny", "base": "tiny", "shots": [16],
            "minutes": 5, "price_per_hour": 3.6}  # fmt: skip
    job_id = str(Jobs(home.database).submit("advice", spec, LOCAL_ADMIN, "job_advice")["job_id"])

    worker = home.worker()
    wait_for(home, job_id, lambda events: len(trials(events)) >= 1)
    worker.kill()
    worker.wait()
    home.worker()
    wait_for(home, job_id, lambda _: home.job(job_id)["status"] not in ("queued", "running"))

    job = home.job(job_id)
    assert job["status"] == "succeeded", (job["error"], home.log())
    events = home.events(job_id)
    steps = [event["data"]["step"] for event in events if event["type"] == "advised"]
    assert len(steps) == len(set(steps))
    assert len(trials(events)) == len(set(trials(events))) >= 3
    found = {one["key"]: one for one in job["result"]["variants"]}
    assert (found["prompt"]["right"], found["lora"]["right"], found["lora"]["total"]) == (0, 24, 24)
    assert found["lora"]["trained_on"] == 16
    assert found["lora"]["spend"]["timed"] == 8
    assert found["lora"]["spend"]["cost_from"] == "$3.6 an hour, one request after another"
    assert job["result"]["verdict"] == "fine-tune"
    assert [one["examples"] for one in job["result"]["curve"]["points"]] == [4, 8, 16]
    assert job["result"]["trained"]["one_price_usd"] > 0
    assert list((home.settings.home / "adapters").glob("advice-*")) == []  # its adapters serve nobody


def test_the_command_line_advises_on_the_working_tree_without_a_service(tmp_path: Path):
    files = {
        "turnout.yaml": {"models": {"fake": {"engine": "fake", "answers": {"yes": "Yes."}, "default": "no"}}},
        "prompts/say.prompt.yml": {"model": "fake", "variables": {"word": {"type": "string"}},
                                   "messages": [{"role": "user", "content": "{{ word }}"}]},
        "suites/say.suite.yml": {
            "prompt": "say",
            "thresholds": {"pass_rate": 0.9},
            "tests": [{"vars": {"word": "held out"}, "assert": [{"type": "equals", "value": "no"}]}],
            "training": {"examples": [{"vars": {"word": f"{ticket(n)} {['yes', 'no'][n % 2]}"}, "expected": ["yes", "no"][n % 2]}
                                      for n in range(24)]},
        },
    }  # fmt: skip
    for name, content in files.items():
        path = tmp_path / "project" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content), "utf-8")
    done = subprocess.run(
        [sys.executable, "-P", "-m", "service.cli.main", "advise", "suites/say.suite.yml", "--local", "--json", "--shots", "2"],
        cwd=tmp_path / "project", env={**os.environ, "TURNOUT_HOME": str(tmp_path / "home")}, capture_output=True, text=True,
        timeout=200, check=False,
    )  # fmt: skip
    found = json.loads(done.stdout)
    assert (done.returncode, found["verdict"]) == (0, "mend the form"), done.stderr
    assert found["recommendation"]["next"] == ["turnout run suites/say.suite.yml --local"]
    assert "the prompt alone: 12 of 24 right" in done.stderr

"""Large folders: `turnout check`, a first `turnout push --local` into an empty home, and a push again with nothing new.

200 prompts is the folder that `check` is to read in under a second, plain ones and ones that have all that a file may
have; 1,000 with suites shows how it grows. Peak memory and
seconds of CPU are the child's, as the system counts them; a busy machine changes the latter less than seconds. The floor is
reading the same files with the YAML parser alone.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROUNDS = 3
Taken = tuple[float, float, float]
CONFIG = "models:\n  model-a: {engine: fake, default: billing}\n"
PROMPT = """\
name: Ticket triage {number}
description: Sends a ticket of team {number} to a queue
tags: [support, team-{number}]
model: model-a
modelParameters: {{temperature: 0, max_tokens: 12, seed: {number}}}
variables:
  ticket: {{type: string, minLength: 1, maxLength: 4000}}
  tone: {{type: string, enum: [kind, brief], default: kind}}
messages:
  - role: system
    content: |
      You route the tickets of team {number}. Answer with the name of one queue, nothing else.
      {{% if tone == 'kind' %}}Be kind.{{% else %}}Be brief.{{% endif %}}
      The queues are billing, account, shipping and other.
  - {{role: user, content: "Ticket: {{{{ ticket }}}}"}}
"""
# what `RICH` adds to `PROMPT`, whose last key is `messages`
RICH = """\
  - {{placeholder: history}}
placeholders:
  history: {{default: [], maxMessages: 20}}
examples:
  - {{vars: {{ticket: "I was charged twice"}}, expected: '{{"queue": "billing", "urgency": 3}}'}}
  - {{vars: {{ticket: "Where is my parcel?"}}, expected: '{{"queue": "shipping", "urgency": 2}}'}}
tools:
  - type: function
    function:
      name: find_order
      description: Finds an order of team {number}
      parameters:
        type: object
        properties:
          order_id: {{type: string, pattern: "^[A-Z]+[0-9]+$"}}
          limit: {{type: integer, minimum: 1, maximum: 20}}
        required: [order_id]
        additionalProperties: false
responseFormat: json_schema
jsonSchema:
  name: routed
  strict: true
  schema:
    type: object
    properties:
      queue: {{type: string, enum: [billing, account, shipping, other]}}
      urgency: {{type: integer, minimum: 0, maximum: 5}}
    required: [queue, urgency]
    additionalProperties: false
"""
SUITE = """\
prompt: team-{number}.triage
thresholds: {{pass_rate: 0.9}}
tests:
"""
CASE = '  - {{vars: {{ticket: "I was charged twice, {number}"}}, assert: [{{type: equals, value: billing}}]}}\n'
PARSE = (
    "import sys, pathlib, yaml\n"
    "for file in pathlib.Path(sys.argv[1]).rglob('*.yml'): yaml.load(file.read_text(), Loader=yaml.CSafeLoader)\n"
)


def measure() -> dict[str, Any]:
    """Seconds and seconds of CPU (medians of `ROUNDS`), and peak MiB of each command, on both folders."""
    return {
        "prompts_200": _folder(prompts=200, suites=0),
        "rich_prompts_200": _folder(prompts=200, suites=0, form=PROMPT + RICH),
        "prompts_1000_suites_200": _folder(prompts=1000, suites=200),
        "goals": {"check_of_200_s": 1.0},
    }


def _folder(prompts: int, suites: int, form: str = PROMPT) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _write_project(folder, prompts, suites, form)
        pushes = [_pushes(folder, folder / f"home-{number}") for number in range(ROUNDS)]
        return {
            "parse_yaml_alone": _median([_child([sys.executable, "-c", PARSE, name], folder) for _ in range(ROUNDS)]),
            "check": _median([_child(_turnout("check"), folder) for _ in range(ROUNDS)]),
            "push": _median([first for first, _ in pushes]),
            "push_again": _median([again for _, again in pushes]),
        }


def _write_project(folder: Path, prompts: int, suites: int, form: str) -> None:
    (folder / "turnout.yaml").write_text(CONFIG)
    for number in range(prompts):
        _write(folder / f"prompts/team-{number}/triage.prompt.yml", form.format(number=number))
    for number in range(suites):
        cases = "".join(CASE.format(number=case) for case in range(20))
        _write(folder / f"suites/team-{number}/triage.suite.yml", SUITE.format(number=number) + cases)


def _write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True)
    file.write_text(text)


def _pushes(folder: Path, home: Path) -> tuple[Taken, Taken]:
    """A push into an empty home, and the same again."""
    command = _turnout("push", "--local", "--json")
    return _child(command, folder, home), _child(command, folder, home)


def _turnout(*arguments: str) -> list[str]:
    return [sys.executable, "-P", "-m", "service.cli.main", *arguments]


def _child(command: list[str], folder: Path, home: Path | None = None) -> Taken:
    """Seconds, seconds of CPU and peak MiB of one command."""
    environment = {**os.environ, "TURNOUT_HOME": str(home or folder / "home")}
    started = time.perf_counter()
    process = subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, command
    peak = usage.ru_maxrss / (1024 * 1024 if sys.platform == "darwin" else 1024)
    return seconds, usage.ru_utime + usage.ru_stime, peak


def _median(taken: list[Taken]) -> dict[str, float]:
    seconds, cpu, peaks = zip(*taken, strict=True)
    medians = {"seconds": statistics.median(seconds), "cpu_seconds": statistics.median(cpu)}
    return {name: round(value, 3) for name, value in medians.items()} | {"peak_mib": round(max(peaks), 1)}

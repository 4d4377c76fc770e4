"""A project in a folder, and commands run on it in this process: as `main` runs them, without a new interpreter each."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from service.cli.main import run

CONFIG = """\
models:
  model-a: {engine: fake, answers: {charged: billing, password: account}, default: other}
"""
PROMPT = """\
model: model-a
variables:
  ticket: {type: string, minLength: 1, maxLength: 400}
messages:
  - {role: system, content: "Route the ticket."}
  - {role: user, content: "{{ ticket }}"}
"""
SUITE = """\
prompt: support.triage
thresholds: {pass_rate: 0.60}
tests:
  - {vars: {ticket: "I was charged twice"}, assert: [{type: equals, value: billing}]}
  - {vars: {ticket: "I forgot my password"}, assert: [{type: equals, value: account}]}
"""


class Project:
    """A folder with turnout.yaml; `run` gives the exit code, standard output and standard error of a command."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder = folder
        self._capsys = capsys

    def write(self, name: str, text: str) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
        return path

    def write_all(self) -> None:
        self.write("turnout.yaml", CONFIG)
        self.write("prompts/support/triage.prompt.yml", PROMPT)
        self.write("suites/support/triage.suite.yml", SUITE)

    def run(self, *arguments: str) -> tuple[int, str, str]:
        self._capsys.readouterr()
        code = run(list(arguments))
        out, err = self._capsys.readouterr()
        return code, out, err

    def json(self, *arguments: str, exit_code: int = 0) -> Any:
        code, out, err = self.run(*arguments, "--json")
        assert code == exit_code, err
        return json.loads(out)

"""A composite action's own shell: each `run` of action.yml with its environment, as a runner of GitHub would.

Steps that use other actions are passed over, with the outputs that they are said to give.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

_EXPRESSION = re.compile(r"\$\{\{(.*?)\}\}")
_PART = re.compile(r"^(?P<negated>!?)(?P<left>[\w.()-]+)(?:\s*(?P<operator>==|!=)\s*(?P<right>'[^']*'|true|false))?$")


@dataclass
class Step:
    """What became of a step."""

    outcome: str = "skipped"
    outputs: dict[str, str] = field(default_factory=dict)
    said: str = ""
    exit_code: int = 0


@dataclass
class Runner:
    """Runs an action's steps; `contexts` are what expressions see beside `inputs` and `steps`."""

    action: Mapping[str, Any]
    workspace: Path
    environment: Mapping[str, str]
    contexts: Mapping[str, Any]
    folder: Path
    used: Mapping[str, dict[str, str]] = field(default_factory=dict)  # outputs of other actions, by step id
    steps: dict[str, Step] = field(default_factory=dict)

    @classmethod
    def of_file(cls, path: Path, **more: Any) -> Runner:
        return cls(yaml.safe_load(path.read_text("utf-8")), **more)

    def run(self, **inputs: str) -> int:
        """Run all steps; returns the exit code of the first that failed, 0 where none did."""
        defaults = {name: str(self._filled(given["default"])) for name, given in self.action["inputs"].items()}
        self._inputs = defaults | {name.replace("_", "-"): value for name, value in inputs.items()}
        self._failed = 0
        for step in self.action["runs"]["steps"]:
            self.steps[step.get("id") or step.get("name") or step["uses"]] = self._step(step)
        return self._failed

    def output(self, name: str) -> str:
        return self._filled(self.action["outputs"][name]["value"])

    def _step(self, step: Mapping[str, Any]) -> Step:
        if not self._is_asked(str(step.get("if", "success()"))):
            return Step()
        if "uses" in step:
            return Step("success", self.used.get(step.get("id", ""), {}))
        done = self._shell(step)
        if done.exit_code and not self._failed:
            self._failed = done.exit_code
        return done

    def _shell(self, step: Mapping[str, Any]) -> Step:
        """As GitHub runs `shell: bash`: errors and broken pipes end it."""
        assert step["shell"] == "bash"
        files = {name: self.folder / f"{name}-{len(self.steps)}" for name in ("GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY")}
        for file in files.values():
            file.touch()
        own = {name: self._filled(str(value)) for name, value in step.get("env", {}).items()}
        script = self.folder / f"step-{len(self.steps)}.sh"
        script.write_text(step["run"])
        done = subprocess.run(
            ["bash", "--noprofile", "--norc", "-e", "-o", "pipefail", str(script)],
            cwd=self.workspace / self._filled(step.get("working-directory", ".")),
            env={**self.environment, **own, **{name: str(file) for name, file in files.items()}},
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, timeout=120,
        )  # fmt: skip
        with (self.folder / "summary.md").open("a") as summary:
            summary.write(files["GITHUB_STEP_SUMMARY"].read_text())
        outputs = dict(line.split("=", 1) for line in files["GITHUB_OUTPUT"].read_text().splitlines())
        return Step("failure" if done.returncode else "success", outputs, done.stdout, done.returncode)

    # -------------------------------------------------------------- expressions

    def _filled(self, text: str) -> str:
        return _EXPRESSION.sub(lambda found: str(self._value(found[1].strip())), text)

    def _is_asked(self, condition: str) -> bool:
        bare = condition.removeprefix("${{").removesuffix("}}").strip()
        needs_success = not re.search(r"\b(always|cancelled|failure|success)\(\)", bare)
        return not (needs_success and self._failed) and all(self._holds(part.strip()) for part in bare.split("&&"))

    def _holds(self, part: str) -> bool:
        found = _PART.match(part)
        assert found is not None, f"this runner does not know {part!r}"
        value = self._value(found["left"])
        if found["operator"]:
            right = found["right"].strip("'")
            is_equal = str(value).lower() == right if right in ("true", "false") else str(value) == right
            return is_equal == (found["operator"] == "==")
        return bool(value) != bool(found["negated"])

    def _value(self, name: str) -> Any:
        if name in ("success()", "cancelled()", "always()"):
            return {"success()": not self._failed, "cancelled()": False, "always()": True}[name]
        head, _, rest = name.partition(".")
        if head == "inputs":
            return self._inputs[rest]
        if head == "steps":
            step_id, what, *key = rest.split(".")
            step = self.steps.get(step_id, Step())
            return step.outcome if what == "outcome" else step.outputs.get(key[0], "")
        value: Any = self.contexts
        for key in name.split("."):
            value = value.get(key, "") if isinstance(value, Mapping) else ""
        return value


def bare_environment() -> dict[str, str]:
    """What a runner starts with, without what the one of these tests brings."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("GITHUB_", "TURNOUT_", "CI"))}

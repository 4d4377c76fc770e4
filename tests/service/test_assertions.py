"""What assertions get from the service: scripts of listed folders, the prompt's tools, log-probabilities."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from prompts.errors import BadFile
from prompts.messages import Completion, CompletionRequest
from prompts.names import parse_variant
from service.evaluation import Evaluator, Finished, RunSpec
from service.registry import Push, Registry
from service.settings import Settings
from service.store.database import Database
from suites.case import Suite
from tests.service.conftest import ADMIN, make_settings, triage

CALL = {"id": "c", "type": "function", "function": {"name": "route", "arguments": '{"queue": "billing"}'}}
TOOL = {"type": "function", "function": {"name": "route", "parameters": {"required": ["queue"]}}}


class Upstream:
    """A model that calls a tool, and gives log-probabilities where they are asked for; also the pool that holds it."""

    def __init__(self) -> None:
        self.asked: list[CompletionRequest] = []

    def get(self, _alias: str) -> Upstream:
        return self

    async def complete(self, request: CompletionRequest) -> Completion:
        self.asked.append(request)
        details = {"logprobs": [-0.5]} if request.parameters.get("logprobs") else {}
        message = {"role": "assistant", "content": "billing", "tool_calls": [CALL]}
        return Completion("billing", message=message, details=details)

    async def aclose(self) -> None:
        """Nothing to give back."""


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    (tmp_path / "home" / "checks").mkdir(parents=True)
    (tmp_path / "home" / "checks" / "queue.py").write_text(
        "def get_assert(output, context):\n    return output == 'billing'\n"
    )
    return make_settings(tmp_path / "home", assertions={"python_dirs": ["checks"]})


def cases(*asserts: dict[str, Any]) -> dict[str, Any]:
    tests = [{"vars": {"ticket": str(number)}, "assert": [spec]} for number, spec in enumerate(asserts)]
    return {"prompt": "support.triage", "tests": tests}


def run(settings: Settings, upstream: Upstream, *asserts: dict[str, Any]) -> Finished:
    database = Database(settings.database_url)
    database.migrate()
    try:
        registry = Registry(database, settings)
        data = cases(*asserts)
        registry.push(Push({"support.triage": triage(tools=[TOOL])}, {"triage": data}), ADMIN)
        spec = RunSpec("run_1", "triage", 1, parse_variant("support.triage@1+model-a"))
        return asyncio.run(Evaluator(database, settings, upstream).run(spec, Suite.from_data(data)))
    finally:
        database.close()


def test_scripts_of_listed_folders_are_run_and_the_prompts_tools_are_known(settings: Settings) -> None:
    found = run(
        settings,
        Upstream(),
        {"type": "python", "value": "checks/queue.py"},
        {"type": "is-valid-openai-tools-call"},
        {"type": "javascript", "value": "context.vars.ticket === '2'"},
    )
    assert (found.summary.total, found.summary.passed) == (3, 3)


def test_log_probabilities_are_asked_for_by_the_cases_that_need_them_alone(settings: Settings) -> None:
    upstream = Upstream()
    members = [{"type": "not-perplexity-score", "threshold": 0.9}]
    found = run(
        settings,
        upstream,
        {"type": "equals", "value": "billing"},
        {"type": "perplexity", "threshold": 2},
        {"type": "assert-set", "assert": members},
    )
    assert found.summary.passed == 3
    asked = {request.messages[-1].content: request.parameters.get("logprobs") for request in upstream.asked}
    assert asked == {"0": None, "1": True, "2": True}


def test_a_push_of_a_script_that_may_not_be_run_is_refused(settings: Settings) -> None:
    none_listed = make_settings(settings.home)
    with pytest.raises(BadFile, match="`python`: no Python is run here"):
        run(none_listed, Upstream(), {"type": "python", "value": "checks/queue.py"})
    with pytest.raises(BadFile, match="is not in the folders that may be run"):
        run(settings, Upstream(), {"type": "python", "value": "checks/none.py"})

"""The examples that fine-tunes and advices work on: none of those that their prompt shows already."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from finetune.data import report_lines
from service.identity import LOCAL_ADMIN
from service.tuning.claim import Claim
from service.tuning.examples import Examples, gather
from service.tuning.material import FinetuneSpec, material_of
from service.tuning.planning import _parts
from tests.service.advising.conftest import cases, examples
from tests.service.conftest import Service, make_settings, suite, triage


@pytest.fixture
def given(tmp_path: Path) -> Examples:
    """What a fine-tune of a prompt with two examples in it gathers, which stand among the forty to train on."""
    shown: list[dict[str, Any]] = [
        examples()[1],
        {"vars": {"ticket": examples()[6]["vars"]["ticket"] + " !"}, "expected": "tech"},
    ]
    with Service(make_settings(tmp_path / "home")).running() as service:
        return gathered(service, triage(examples=shown), suite(*cases(), training={"examples": examples()}))


def gathered(service: Service, prompt: dict[str, Any], content: dict[str, Any]) -> Examples:
    service.push(data=prompt)
    assert service.call("PUT", "/api/suites/support.triage", json=content).status_code == 201
    spec = FinetuneSpec(suite="support.triage", suite_version=1, prompt_version=1, base="model-a")
    database = service.context.database
    claim = Claim("job_1", 1, LOCAL_ADMIN, database, service.settings, threading.Event())
    return gather(claim, material_of(database, spec, "1"))


def test_what_the_prompt_shows_is_neither_trained_on_nor_scored_as_dev(given: Examples):
    train, dev = _parts(given)
    inputs = {example.vars["ticket"] for example in (*train, *dev)}
    assert len(inputs) == 38
    assert not inputs & {examples()[row]["vars"]["ticket"] for row in (1, 6)}


def test_the_report_counts_it(given: Examples):
    assert (given.report.given, given.report.kept) == (40, 38)
    assert given.report.dropped == {"in-prompt": 1, "in-prompt-near": 1}
    assert "  left out 1: stands in the prompt as one of its examples" in report_lines(given.report)


def test_a_held_out_case_that_spells_out_a_default_is_not_trained_on_without_it(tmp_path: Path):
    tone = {"type": "string", "default": "as polite as our colleagues of the front desk are"}
    prompt = triage(variables={"ticket": {"type": "string"}, "tone": tone})
    prompt["messages"] = [{"role": "user", "content": "{{ tone }}: {{ ticket }}"}]
    asked = examples()[3]["vars"]
    case = {**cases()[0], "vars": {**asked, "tone": tone["default"]}}
    with Service(make_settings(tmp_path / "home")).running() as service:
        found = gathered(service, prompt, suite(case, training={"examples": examples()}))
    assert found.report.dropped == {"held-out": 1}
    assert asked not in [dict(example.vars) for example in found.cleaned.kept]

"""How the service reads what a training process tells, and what it takes for one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from finetune.events import Events
from service.api.evaluation import FinetuneRequest
from service.training import _ended, _EventLog


def test_an_event_with_any_separator_of_unicode_is_one_line(tmp_path: Path) -> None:
    text = "a\u2028b\u2029c\x85d\x0be\x0cf\x1cg\r\nh"
    path = tmp_path / "events.jsonl"
    with Events(path) as events:
        events.tell("mislabelled", expected=text)
        events.tell("finished")
    with path.open("ab") as file:
        file.write('{"type": "ste\u2028'.encode()[:-1])  # half written, in the middle of a character
    log = _EventLog(path, 0)
    assert [event["type"] for event in log.lines()] == ["mislabelled", "finished"]
    told: list[dict[str, Any]] = []
    log.pass_on(lambda _, **details: told.append(details))
    assert told[0] == {"line": 1, "event": {"type": "mislabelled", "expected": text}}


def test_a_request_for_more_than_a_week_is_refused() -> None:
    assert FinetuneRequest(suite="triage", minutes=10_080).minutes == 10_080
    with pytest.raises(ValidationError, match="less than or equal to 10080"):
        FinetuneRequest(suite="triage", minutes=1e12)


def test_a_training_that_lost_one_of_its_processes_is_started_again():
    assert _ended(5, {"type": "step", "step": 3}) is None
    assert _ended(-9, {"type": "step", "step": 3}) is None

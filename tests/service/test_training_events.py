"""How the service reads what a training process tells, and what it takes for one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from finetune.events import Events
from service import training
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


def numbers_told(log: _EventLog) -> list[tuple[int, int]]:
    """The lines that a look passes on, and the steps that they tell."""
    told: list[tuple[int, int]] = []
    log.pass_on(lambda _, **details: told.append((details["line"], details["event"]["at"])), everything=True)
    return told


def lines(*steps: int) -> str:
    return "".join(json.dumps({"type": "evaluated", "at": step}) + "\n" for step in steps)


def test_each_line_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, log = tmp_path / "events.jsonl", _EventLog(tmp_path / "events.jsonl", 0)
    assert numbers_told(log) == []
    path.write_text(lines(1, 2))
    assert numbers_told(log) == [(1, 1), (2, 2)]
    parsed: list[bytes] = []
    monkeypatch.setattr(training.json, "loads", lambda line: parsed.append(line) or {"type": "evaluated", "at": 3})
    with path.open("a") as file:
        file.write(lines(3))
        file.write('{"type": "eval')
    assert numbers_told(log) == [(3, 3)]
    assert numbers_told(log) == []
    assert len(parsed) == 1


def test_a_log_that_was_cut_and_grew_again_tells_only_the_lines_beyond_those_told(tmp_path: Path) -> None:
    path, log = tmp_path / "events.jsonl", _EventLog(tmp_path / "events.jsonl", 0)
    path.write_text(lines(1, 2, 3))
    numbers_told(log)
    path.write_text(lines(1, 2))  # the training process goes on from a checkpoint
    assert numbers_told(log) == []
    path.write_text(lines(1, 2, 30, 40))
    assert numbers_told(log) == [(4, 40)]
    path.write_text(lines(1, 200, 300, 400, 500))  # between two looks
    assert numbers_told(log) == [(5, 500)]

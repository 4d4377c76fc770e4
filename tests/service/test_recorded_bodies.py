"""What is recorded of completions: nothing unless it is asked for, and then without secrets."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from service import bodies
from service.bodies import Body
from service.ids import ago
from service.request_log import RequestLog
from service.settings import load_settings
from service.store import requests
from service.store.database import Database
from service.store.request_query import Question, newest
from service.store.tables import REQUEST_BODY
from tests.service.conftest import BOTH, Service, make_settings
from tests.service.test_request_log import outcome

Open = Callable[[], Database]
KEY = "sk-proj-" + "aB3dE5gH7jK9mN1pQ2rS4tU6vW8xY0zA1b"
PRIVATE = "-----BEGIN RSA PRIVATE KEY-----\nMIIB\n-----END RSA PRIVATE KEY-----"


def body(output: str = "billing", **more: Any) -> Body:
    values: dict[str, Any] = {"variables": {"ticket": "charged"}, "messages": None, "placeholders": None, **more}
    return Body("support.triage", "support.triage@1+model-a", output=output, **values)


def recorded(database: Database, *ids: str) -> dict[str, dict[str, Any]]:
    with database.read() as session:
        return requests.bodies(session, ids)


def complete(service: Service, **more: Any) -> str:
    """The id of one completion of the example prompt."""
    asked = {"model": "support.triage", "variables": {"ticket": "I was charged twice"}, **more}
    answer = service.call("POST", "/v1/chat/completions", "app", json=asked)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["id"])


def test_nothing_is_recorded_unless_it_is_asked_for(service: Service) -> None:
    service.produce(service.push())
    made = complete(service)
    service.wait(service.context.request_log.flush())

    assert recorded(service.context.database, made) == {}


def test_the_settings_are_read_from_the_file_and_from_the_environment(tmp_path: Path) -> None:
    (tmp_path / "turnout.yaml").write_text("recording: {body_days: 7}\n")
    found = load_settings({"TURNOUT_HOME": str(tmp_path), "TURNOUT_RECORDING_BODIES": "true"}, tmp_path)

    assert (found.recording.bodies, found.recording.body_days) == (True, 7)


def test_a_completion_of_a_prompt_is_recorded_and_one_of_a_plain_model_is_not(tmp_path: Path) -> None:
    with Service(make_settings(tmp_path / "home", recording={"bodies": True})).running() as service:
        service.produce(service.push())
        made = complete(service, messages=[{"role": "user", "content": "charged, quickly"}])
        plain = complete(service, model="model-b", variables=None, messages=[{"role": "user", "content": "charged"}])
        service.wait(service.context.request_log.flush())
        found = recorded(service.context.database, made, plain)

    assert list(found) == [made]
    assert {name: found[made][name] for name in ("prompt", "variant", "variables", "messages", "output")} == {
        "prompt": "support.triage",
        "variant": "support.triage@1+model-a",
        "variables": {"ticket": "I was charged twice"},
        "messages": [{"role": "user", "content": "charged, quickly"}],
        "output": "billing",
    }


def test_a_streamed_answer_is_recorded_whole(tmp_path: Path) -> None:
    models = {"model-a": {"engine": "fake", "default": "it goes to billing"}}
    with Service(make_settings(tmp_path / "home", recording={"bodies": True}, models=models)).running() as service:
        service.produce(service.push())
        asked = {"model": "support.triage", "variables": {"ticket": "charged"}, "stream": True}
        answer = service.call("POST", "/v1/chat/completions", "app", json=asked)
        made = answer.headers["x-turnout-completion-id"]
        service.wait(service.context.request_log.flush())
        found = recorded(service.context.database, made)

    assert answer.text.count("data: {") > 3
    assert found[made]["output"] == "it goes to billing"


@BOTH
def test_secrets_are_taken_out_before_anything_is_stored(kind: str, database: Database) -> None:
    log = RequestLog(database)
    given = body(f"use {KEY}", variables={"a": {KEY: [PRIVATE + " end", 3]}}, messages=[{"content": f"my {KEY}"}])
    log.add(outcome(1), given)
    asyncio.run(log.flush())

    found = recorded(database, "chatcmpl-1")["chatcmpl-1"]
    assert KEY not in repr(found)
    assert "MIIB" not in repr(found)
    assert found["output"] == "use [secret: OpenAI key]"
    assert found["variables"] == {"a": {"[secret: OpenAI key]": ["[secret: private key] end", 3]}}


@BOTH
def test_what_a_database_refuses_does_not_hold_up_the_log(kind: str, database: Database) -> None:
    log = RequestLog(database)
    log.add(outcome(1), body("half \ud800 and \0", variables={"ticket": "\0"}))
    log.add(outcome(2))
    asyncio.run(log.flush())

    assert recorded(database, "chatcmpl-1")["chatcmpl-1"]["output"] == "half ? and \\0"
    assert log.waiting == 0


@BOTH
def test_bodies_are_forgotten_by_their_age(kind: str, database: Database) -> None:
    log = RequestLog(database)
    log.add(outcome(1, at=ago(8 * 86_400)), body())
    log.add(outcome(2, at=ago(6 * 86_400)), body())
    asyncio.run(log.flush())
    with database.write() as session:
        assert requests.forget_bodies_before(session, ago(7 * 86_400)) == 1

    assert list(recorded(database, "chatcmpl-1", "chatcmpl-2")) == ["chatcmpl-2"]


def test_the_service_forgets_bodies_after_body_days(tmp_path: Path) -> None:
    settings = make_settings(tmp_path / "home", recording={"body_days": 7})
    database = Database(settings.database_url)
    database.migrate()
    old = {"id": "old", "at": ago(8 * 86_400), "prompt": "a", "variant": "a@1+m", "variables": {}, "output": "x"}
    with database.write() as session:
        REQUEST_BODY.add(session, [old])
    with Service(settings).running() as service:
        service.wait(asyncio.sleep(0.5))

    assert recorded(database, "old") == {}
    database.close()


def test_bodies_beyond_their_bounds_are_dropped_and_counted_and_the_rows_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = Database(f"sqlite:///{tmp_path / 'turnout.db'}")
    database.migrate()
    monkeypatch.setattr(bodies, "LONGEST_CHARACTERS", 100)
    monkeypatch.setattr(bodies, "MOST_CHARACTERS", 150)
    log = RequestLog(database)
    for number, length in enumerate((200, 80, 80)):
        log.add(outcome(number), body("x" * length))
    asyncio.run(log.flush())
    log.add(outcome(3), body("x" * 80))  # there is room again
    asyncio.run(log.flush())

    assert log.bodies.dropped == 2
    assert list(recorded(database, *(f"chatcmpl-{number}" for number in range(4)))) == ["chatcmpl-1", "chatcmpl-3"]
    with database.read() as session:
        assert len(newest(session, Question(), 10)) == 4
    database.close()

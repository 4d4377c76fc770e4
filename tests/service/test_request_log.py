from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any
from unittest.mock import ANY

import pytest

from service import request_log
from service.errors import StorageFailed
from service.identity import Principal
from service.ids import ago, now
from service.outcome import Outcome
from service.pending import Caller
from service.request_log import RequestLog
from service.settings import Settings
from service.store import requests
from service.store.database import Database
from service.store.request_query import Question, newest
from tests.service.conftest import Service


def outcome(number: int, **more: Any) -> Outcome:
    about = {"id": f"chatcmpl-{number}", "at": now(), "key_id": "k", "prompt": "a", "variant": "a@1+m", "status": "ok"}
    return Outcome(
        **{**about, "latency_ms": 1.0, "upstream_ms": 0.5, "prompt_tokens": 1, "completion_tokens": 1, **more}
    )


def row(number: int, **more: Any) -> dict[str, Any]:
    """The same as plain data."""
    return asdict(outcome(number, **more))


@pytest.fixture
def database(settings: Settings) -> Iterator[Database]:
    database = Database(settings.database_url)
    database.migrate()
    yield database
    database.close()


def ids_of(database: Database) -> list[str]:
    with database.read() as session:
        return sorted(row["id"] for row in newest(session, Question(), 10_000))


def test_rows_wait_until_they_are_flushed(database: Database) -> None:
    log = RequestLog(database)
    log.add(outcome(1))
    assert (log.waiting, ids_of(database)) == (1, [])

    asyncio.run(log.flush())

    assert (log.waiting, ids_of(database)) == (0, ["chatcmpl-1"])


def test_a_row_is_found_before_it_is_written(database: Database) -> None:
    log = RequestLog(database)
    log.add(outcome(1))

    assert log.find("chatcmpl-1") == outcome(1, at=ANY)
    assert log.find("chatcmpl-2") is None


def test_more_rows_than_one_batch_are_all_written(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request_log, "BATCH", 10)
    log = RequestLog(database)
    for number in range(35):
        log.add(outcome(number))

    asyncio.run(log.flush())

    assert len(ids_of(database)) == 35


def test_where_too_many_wait_the_oldest_are_dropped_and_counted(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(request_log, "MOST_WAITING", 3)
    log = RequestLog(database)
    for number in range(5):
        log.add(outcome(number))

    asyncio.run(log.flush())

    assert log.dropped == 2
    assert ids_of(database) == ["chatcmpl-2", "chatcmpl-3", "chatcmpl-4"]


def test_rows_that_the_database_refused_are_written_later_and_once(settings: Settings) -> None:
    database = Database(settings.database_url)  # not migrated: there is no table yet
    log = RequestLog(database)
    log.add(outcome(1))
    with pytest.raises(StorageFailed):
        asyncio.run(log.flush())
    assert log.waiting == 1

    database.migrate()
    asyncio.run(log.flush())

    assert (log.waiting, ids_of(database)) == (0, ["chatcmpl-1"])
    database.close()


def test_rows_dropped_while_a_batch_is_written_take_no_other_with_them(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The queue is full and requests go on while its first batch is on its way to the database."""
    monkeypatch.setattr(request_log, "MOST_WAITING", 4)
    monkeypatch.setattr(request_log, "BATCH", 4)
    log = RequestLog(database)
    for number in range(4):
        log.add(outcome(number))

    async def flush_while_requests_go_on() -> None:
        flushing = asyncio.create_task(log.flush())
        await asyncio.sleep(0)  # the batch has been taken
        for number in (4, 5):
            log.add(outcome(number))
        await flushing

    asyncio.run(flush_while_requests_go_on())

    assert ids_of(database) == [f"chatcmpl-{number}" for number in range(6)]
    assert log.waiting == 0


def test_a_flush_that_was_cancelled_loses_no_row_and_writes_none_twice(database: Database) -> None:
    log = RequestLog(database)
    for number in range(4):
        log.add(outcome(number))

    async def cancel_and_flush() -> None:
        flushing = asyncio.create_task(log.flush())
        await asyncio.sleep(0.02)
        flushing.cancel()
        await asyncio.gather(flushing, return_exceptions=True)
        await log.flush()

    asyncio.run(cancel_and_flush())

    assert len(ids_of(database)) == 4
    assert log.waiting == 0


def test_two_flushes_at_once_write_each_row_once(database: Database) -> None:
    log = RequestLog(database)
    for number in range(20):
        log.add(outcome(number))

    async def twice() -> None:
        await asyncio.gather(log.flush(), log.flush())

    asyncio.run(twice())

    assert len(ids_of(database)) == 20


def test_the_log_is_flushed_by_itself_and_at_the_end(settings: Settings) -> None:
    with Service(settings).running() as service:
        body = {"model": "model-a", "messages": [{"role": "user", "content": "charged"}]}
        done = [service.call("POST", "/v1/chat/completions", "app", json=body).json()["id"] for _ in range(3)]
    database = Database(settings.database_url)

    assert ids_of(database) == sorted(done)
    database.close()


def test_rows_are_forgotten_after_their_retention(settings: Settings, database: Database) -> None:
    with database.write() as session:
        requests.add_outcomes(session, [outcome(1, at=ago(31 * 86_400)), outcome(2, at=ago(29 * 86_400))])

    with Service(settings).running() as service:
        service.wait(asyncio.sleep(0.5))

    assert ids_of(database) == ["chatcmpl-2"]


def test_metrics_count_what_waits_and_what_was_dropped(settings: Settings) -> None:
    with Service(settings).running() as service:
        text = service.call("GET", "/metrics", "ci").text

    assert 'turnout_request_log_dropped_total{reason="memory"} 0.0' in text
    assert "turnout_snapshot_stale 0.0" in text
    assert "turnout_request_log_waiting" in text


def test_more_old_rows_than_a_transaction_takes_are_all_forgotten(
    settings: Settings, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(requests.forget_before, "__defaults__", (10,))
    with database.write() as session:
        requests.add_outcomes(
            session, [outcome(number, at=ago((31 if number < 35 else 1) * 86_400)) for number in range(40)]
        )

    with Service(settings).running() as service:
        service.wait(asyncio.sleep(0.5))

    assert len(ids_of(database)) == 5


def test_ids_grow_with_time_and_keep_48_bits_of_chance() -> None:
    caller = Caller(Principal("k", "app"), 0.0)
    first = caller.new_id()
    later = [caller.new_id() for _ in range(200)]

    assert [len(each) for each in (first, *later)] == [len("chatcmpl-") + 24] * 201
    assert all(each[:-12] >= first[:-12] for each in later)
    assert len({each[-12:] for each in later}) == 200

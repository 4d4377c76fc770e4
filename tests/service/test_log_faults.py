"""The request log while the database is away, hangs or refuses a row, and while the disk is full."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from service import request_log
from service.bodies import Body
from service.errors import StorageFailed
from service.request_log import RequestLog
from service.spool import Entry, Spool
from service.store import requests, rollouts
from service.store.database import Database
from service.store.session import Session
from tests.service.conftest import BOTH, Service, make_settings
from tests.service.test_request_log import outcome

LARGE = 100_000_000
Open = Callable[[], Database]


class Failing(Database):
    """A database that can be away, or hang until it is let go."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.is_away = False
        self.goes_on = threading.Event()
        self.goes_on.set()
        self.writes = 0

    @contextmanager
    def write(self) -> Iterator[Session]:
        self.goes_on.wait(30)
        if self.is_away:
            raise StorageFailed("the database is away")
        self.writes += 1
        with super().write() as session:
            yield session


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Failing]:
    database = Failing(f"sqlite:///{tmp_path / 'turnout.db'}")
    database.migrate()
    yield database
    database.close()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WAIT_S", "AGAIN_S"):
        monkeypatch.setattr(request_log, name, 0.02)


def ids_of(database: Database) -> list[str]:
    """In the order in which they were written."""
    with database.read() as session:
        return [row.id for row in rollouts.outcomes(session, "a", 1, 0, 100_000)]


def ids(*numbers: int) -> list[str]:
    return [f"chatcmpl-{number}" for number in numbers]


def lines_of(folder: Path) -> list[str]:
    """What lies in the spool below a folder."""
    return [line for path in sorted(folder.rglob("*.jsonl")) for line in path.read_text().splitlines()]


def add(log: RequestLog, *numbers: int, **more: Any) -> Any:
    kept = [log.add(outcome(number, route_revision=1), **more) for number in numbers]
    return kept[-1]


@asynccontextmanager
async def running(log: RequestLog) -> AsyncIterator[None]:
    task = asyncio.create_task(log.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await log.aclose()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - what is waited for is a plain figure
            await asyncio.sleep(0.01)


def run(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(work)


# ---------------------------------------------------------------------------- away and back


def test_rows_go_to_the_disk_while_the_database_is_away_and_to_it_in_order_when_it_is_back(
    database: Failing, tmp_path: Path
) -> None:
    log = RequestLog(database, Spool(tmp_path / "spool", LARGE))

    async def scene() -> None:
        async with running(log):
            add(log, 1)
            await until(lambda: log.standing().written == 1)
            database.is_away = True
            for number in range(2, 12):
                add(log, number)
                await asyncio.sleep(0.01)
            await until(lambda: log.waiting == 0)
            assert (log.is_behind, log.standing().is_away, log.standing().spooled_rows) == (True, True, 10)
            database.is_away = False
            await until(lambda: not log.is_behind)
            add(log, 12)

    run(scene())

    assert ids_of(database) == ids(*range(1, 13))
    assert (log.dropped, log.standing().written, log.standing().spooled_bytes) == (0, 12, 0)


def test_what_comes_while_the_disk_is_emptied_stays_behind_it(database: Failing, tmp_path: Path) -> None:
    log = RequestLog(database, Spool(tmp_path / "spool", LARGE))
    database.is_away = True

    async def scene() -> None:
        async with running(log):
            for number in range(300):
                database.is_away = number < 150
                add(log, number)
                await asyncio.sleep(0.001)

    run(scene())

    assert ids_of(database) == ids(*range(300))


def test_what_is_on_the_disk_at_the_end_is_written_by_the_next_process(database: Failing, tmp_path: Path) -> None:
    async def again() -> None:
        log = RequestLog(database, Spool(tmp_path / "spool", LARGE))
        async with running(log):
            await until(lambda: log.standing().written == 2)

    async def scene() -> None:
        log = RequestLog(database, Spool(tmp_path / "spool", LARGE))
        add(log, 1, 2)
        await log.aclose()

    database.is_away = True
    run(scene())
    database.is_away = False
    assert ids_of(database) == []
    run(again())

    assert ids_of(database) == ids(1, 2)


def test_what_lies_on_the_disk_and_cannot_be_read_is_told_and_written_once_it_can(
    database: Failing, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    left = Spool(tmp_path / "spool", LARGE)
    left.append([Entry(outcome(1, route_revision=1))])
    left.close()
    (segment,) = (tmp_path / "spool").rglob("*.jsonl")
    aside = segment.rename(tmp_path / "aside")
    segment.mkdir()  # what cannot be read, whoever the service runs as
    log = RequestLog(database, Spool(tmp_path / "spool", LARGE))

    async def scene() -> None:
        async with running(log):
            await until(lambda: log.standing().is_away)
            segment.rmdir()
            aside.rename(segment)
            await until(lambda: not log.standing().is_away)

    run(scene())

    assert ids_of(database) == ids(1)
    told = capsys.readouterr()
    assert (told.out + told.err).count("the request log waits") == 1


def test_bodies_are_on_the_disk_without_secrets_and_come_back(database: Failing, tmp_path: Path) -> None:
    key = "sk-proj-" + "aB3dE5gH7jK9mN1pQ2rS4tU6vW8xY0zA1b"
    log = RequestLog(database, Spool(tmp_path / "spool", LARGE))
    database.is_away = True

    async def scene() -> None:
        add(log, 1, body=Body("a", "a@1+m", {"t": key}, None, None, f"use {key}"))
        with pytest.raises(StorageFailed):
            await log.flush()
        [line] = lines_of(tmp_path)
        assert key not in line
        assert "[secret: OpenAI key]" in line
        database.is_away = False
        await log.flush()

    run(scene())

    with database.read() as session:
        assert requests.bodies(session, ids(1))["chatcmpl-1"]["output"] == "use [secret: OpenAI key]"


def test_a_database_that_hangs_holds_up_neither_the_rows_nor_the_loop(database: Failing, tmp_path: Path) -> None:
    log = RequestLog(database, Spool(tmp_path / "spool", LARGE))

    async def scene() -> None:
        async with running(log):
            database.goes_on.clear()
            add(log, 1, 2)
            await until(lambda: log.standing().spooled_rows == 2)
            add(log, 3)
            await until(lambda: log.standing().spooled_rows == 3)
            database.goes_on.set()  # what hung is written now, and again from the disk
            await until(lambda: not log.is_behind)

    run(scene())

    assert ids_of(database) == ids(1, 2, 3)
    assert log.standing().written == 3


# ---------------------------------------------------------------------------- full


def test_a_database_that_is_slower_than_requests_come_loses_none(
    database: Failing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each write ends in time, and yet more comes than is written: what piles up goes to the disk before memory is full."""
    monkeypatch.setattr(request_log, "MOST_WAITING", 400)
    monkeypatch.setattr(request_log, "BATCH", 10)
    write = request_log.log_writing.write

    def slowly(database: Database, entries: Any) -> Any:
        time.sleep(0.05)
        return write(database, entries)

    monkeypatch.setattr(request_log.log_writing, "write", slowly)

    async def work() -> None:
        log = RequestLog(database, Spool(tmp_path / "spool", LARGE))
        async with running(log):
            for number in range(1000):
                add(log, number)
                if number % 10 == 9:
                    await asyncio.sleep(0.005)
            assert log.standing().spooled_rows > 0
            monkeypatch.setattr(request_log.log_writing, "write", write)
            await until(lambda: log.waiting == 0 and not log.is_behind)
        assert log.dropped == 0

    run(work())
    assert ids_of(database) == ids(*range(1000))


def test_where_the_disk_is_full_serving_goes_on_and_what_is_lost_is_counted_and_told_once(
    database: Failing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(request_log, "MOST_WAITING", 5)
    log = RequestLog(database, Spool(tmp_path / "spool", 10))
    database.is_away = True

    async def scene() -> None:
        async with running(log):
            for number in range(20):
                add(log, number)
                await asyncio.sleep(0.005)
            assert log.waiting <= 10
            database.is_away = False
            await until(lambda: log.waiting == 0)

    run(scene())

    written = ids_of(database)
    assert written[-1] == "chatcmpl-19"
    assert log.standing().dropped == {"memory": 20 - len(written), "refused": 0, "unreadable": 0}
    assert 0 < log.dropped < 20
    told = capsys.readouterr()
    assert (told.out + told.err).count("drops rows") == 1


def test_whether_anything_takes_rows_is_known(database: Failing, tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool", 10)
    log = RequestLog(database, spool)

    async def scene() -> None:
        async with running(log):
            database.is_away = True
            add(log, 1)
            await until(lambda: log.is_stuck)
            spool._most_bytes = LARGE
            await until(lambda: log.standing().spooled_rows == 1)
            assert (log.is_stuck, log.standing().is_away) == (False, True)
            spool._most_bytes = 10
            add(log, 2)
            await until(lambda: log.is_stuck)
            database.is_away = False
            await until(lambda: log.standing().written == 2 and not log.is_stuck)

    run(scene())


def test_a_spool_that_cannot_be_used_is_told_once_and_no_database_that_is_away(
    database: Failing, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(request_log, "LOOKS_A_TURN", 1)
    (tmp_path / "spool").mkdir()
    for number in range(64):
        (tmp_path / "spool" / str(number)).touch()  # where its folders would be
    spool = Spool(tmp_path / "spool", LARGE)
    looks = []
    monkeypatch.setattr(spool, "open", lambda look=spool.open: (looks.append(log.standing().is_away), look()))
    log = RequestLog(database, spool)

    async def scene() -> None:
        async with running(log):
            for number in (1, 2, 3):
                add(log, number)
                await until(lambda least=2 * number: not log.waiting and len(looks) > least)

    run(scene())

    assert ids_of(database) == ids(1, 2, 3)
    assert not any(looks)
    told = capsys.readouterr()
    assert (told.out + told.err).count("[warning") == 1


def test_what_a_log_cannot_write_at_its_end_is_written_by_the_one_that_takes_its_place(database: Failing) -> None:
    body = Body("a", "a@1+m", {"x": "y"}, None, None, "said")
    first = RequestLog(database)
    second = RequestLog(database, before=first)
    third = RequestLog(database, before=second)
    first.heir, second.heir = second, third

    async def scene() -> None:
        add(first, 1)
        await first.flush()
        database.is_away = True
        add(first, 2, body=body)
        add(third, 3)
        await first.aclose()
        assert (first.waiting, second.waiting, third.waiting) == (0, 0, 2)
        database.is_away = False
        await third.flush()

    run(scene())

    assert ids_of(database) == ids(1, 2, 3)
    assert third.standing().written == 3  # a counter never goes down
    with database.read() as session:
        assert session.value("SELECT output FROM request_body WHERE id = 'chatcmpl-2'") == "said"


def test_without_a_spool_rows_wait_in_memory(database: Failing) -> None:
    log = RequestLog(database)
    database.is_away = True

    async def scene() -> None:
        async with running(log):
            add(log, 1, 2)
            await asyncio.sleep(0.1)
            assert log.waiting == 2
            database.is_away = False
            await until(lambda: log.waiting == 0)

    run(scene())

    assert ids_of(database) == ids(1, 2)


# ---------------------------------------------------------------------------- a row that is refused


@BOTH
def test_a_row_that_the_database_refuses_is_lost_alone_and_counted(kind: str, open_database: Open) -> None:
    database = open_database()
    log = RequestLog(database)

    async def scene() -> None:
        for number in range(9):
            bad = {"error": "half \ud800"} if number == 3 else {"prompt_tokens": 2**70} if number == 7 else {}
            log.add(outcome(number, route_revision=1, **bad))
        await log.flush()

    run(scene())

    assert ids_of(database) == ids(0, 1, 2, 4, 5, 6, 8)
    assert log.standing().dropped == {"memory": 0, "refused": 2, "unreadable": 0}


def test_a_body_that_the_database_refuses_costs_itself_alone(database: Failing) -> None:
    log = RequestLog(database)

    async def scene() -> None:
        add(log, 1)
        add(log, 2, body=Body("a", "a@1+m", {"n": object()}, None, None, "x"))
        await log.flush()

    run(scene())

    assert ids_of(database) == ids(1, 2)
    with database.read() as session:
        assert requests.bodies(session, ids(2)) == {}


# ---------------------------------------------------------------------------- durable


def test_a_durable_row_is_in_the_database_when_it_was_awaited(database: Failing) -> None:
    log = RequestLog(database, is_durable=True)

    async def scene() -> None:
        async with running(log):
            await add(log, 1)
            assert ids_of(database) == ids(1)

    run(scene())


def test_many_that_wait_share_a_transaction(database: Failing) -> None:
    log = RequestLog(database, is_durable=True)

    async def scene() -> None:
        async with running(log):
            database.goes_on.clear()
            first = asyncio.ensure_future(add(log, 0))
            await asyncio.sleep(0.05)
            others = [asyncio.ensure_future(add(log, number)) for number in range(1, 100)]
            await asyncio.sleep(0.05)
            others[5].cancel()  # one that leaves takes nobody along
            database.goes_on.set()
            await asyncio.gather(first, *others, return_exceptions=True)

    run(scene())

    assert sorted(ids_of(database)) == sorted(ids(*range(100)))
    assert database.writes == 2


def test_a_durable_row_is_on_the_disk_where_the_database_is_away_or_hangs(database: Failing, tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool", LARGE)
    log = RequestLog(database, spool, is_durable=True)

    async def scene() -> None:
        async with running(log):
            database.is_away = True
            await add(log, 1)
            assert len(lines_of(tmp_path)) == 1
            database.is_away = False
            await until(lambda: not log.is_behind)
            database.goes_on.clear()
            await add(log, 2)
            assert len(lines_of(tmp_path)) == 1
            database.goes_on.set()

    run(scene())

    assert ids_of(database) == ids(1, 2)


def test_a_durable_row_that_nothing_takes_is_told_to_whoever_waits(database: Failing, tmp_path: Path) -> None:
    log = RequestLog(database, Spool(tmp_path / "spool", 10), is_durable=True)
    database.is_away = True

    async def scene() -> None:
        async with running(log):
            with pytest.raises(StorageFailed):
                await add(log, 1)
            database.is_away = False
            await until(lambda: log.waiting == 0)

    run(scene())

    assert ids_of(database) == ids(1)


def test_rows_are_not_waited_for_unless_that_is_asked_for(database: Failing) -> None:
    assert RequestLog(database).add(outcome(1)) is None


# ---------------------------------------------------------------------------- the service


def test_feedback_on_what_is_on_the_disk_is_put_off_not_refused(tmp_path: Path) -> None:
    settings = make_settings(tmp_path / "home")
    with Service(settings).running() as service:
        spool: Spool = service.context.request_log._spool  # type: ignore[assignment]
        spool.append([Entry(outcome(1))])
        body = {"completion_id": "chatcmpl-1", "value": 1}
        answer = service.call("POST", "/api/feedback", "author", json=body)
        while answer.status_code == 503:
            answer = service.call("POST", "/api/feedback", "author", json=body)

        assert answer.status_code == 201
        assert service.call("POST", "/api/feedback", "author", json={**body, "completion_id": "x"}).status_code == 404

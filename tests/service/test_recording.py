"""What a run writes and looks up beside the loop that asks."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from prompts.messages import Completion, Usage
from service.recording import MOST_WAITING, CompletionCache, Recorder, completion_data
from service.store import runs
from service.store.database import Database
from suites.results import CaseResult

AT = "2026-01-01T00:00:00.000000+00:00"


@pytest.fixture
def database(tmp_path: Path) -> Database:
    database = Database(f"sqlite:///{tmp_path / 'turnout.db'}")
    database.migrate()
    run = {"id": "run_1", "suite": "s", "suite_version": 1, "variant": "a@1+m", "status": "running", "started_at": AT}
    with database.write() as session:
        runs.start(session, run)
    return database


def test_every_result_is_written_but_those_that_were_skipped(database: Database) -> None:
    async def main() -> None:
        async with Recorder(database, "run_1") as recorder:
            for number in range(700):
                status: Any = "skipped" if number % 7 == 0 else "passed"
                waiting = recorder.add(CaseResult(f"c{number}", number, 0, status, error="\ud800"), [])
                if waiting is not None:
                    await waiting

    asyncio.run(main())
    with database.read() as session:
        kept = [row["index"] for row in runs.cases(session, "run_1")]
    assert kept == [number for number in range(700) if number % 7]


def test_results_that_come_close_together_are_written_in_one_transaction(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[int] = []
    add_cases = runs.add_cases

    def noted(session: Any, run_id: str, results: Any) -> None:
        written.append(len(results))
        add_cases(session, run_id, results)

    monkeypatch.setattr(runs, "add_cases", noted)

    async def main() -> None:
        async with Recorder(database, "run_1") as recorder:
            for number in range(20):
                recorder.add(CaseResult(f"c{number}", number, 0, "passed"), [])
                await asyncio.sleep(0)
            await asyncio.sleep(0.5)
            assert written == [20]
            recorder.add(CaseResult("last", 20, 0, "passed"), [])

    asyncio.run(main())
    assert written == [20, 1]


def test_a_run_waits_for_a_database_that_falls_behind(database: Database) -> None:
    async def main() -> None:
        async with Recorder(database, "run_1") as recorder:
            told = [recorder.add(CaseResult(f"c{number}", number, 0, "passed"), []) for number in range(MOST_WAITING)]
            assert [waiting is not None for waiting in told] == [False] * (MOST_WAITING - 1) + [True]
            assert told[-1] is not None
            await told[-1]

    asyncio.run(main())


def test_what_the_database_refuses_ends_the_run(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError("no space")

    monkeypatch.setattr(runs, "add_cases", full)

    async def main() -> None:
        async with Recorder(database, "run_1") as recorder:
            for number in range(1000):
                recorder.add(CaseResult(f"c{number}", number, 0, "passed"), [])
                await asyncio.sleep(0.001)

    with pytest.raises(Exception, match="no space"):
        asyncio.run(main())


def test_questions_that_wait_together_are_looked_up_together(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = Completion("yes", "stop", Usage(1, 2), 0.5, {"role": "assistant", "content": "yes"}, {"more": 1})
    with database.write() as session:
        runs.remember(session, [("k1", completion_data(known))], AT)
    reads = []
    real = runs.cached
    monkeypatch.setattr(runs, "cached", lambda session, keys: (reads.append(len(keys)), real(session, keys))[1])

    async def main() -> list[Completion | None]:
        cache = CompletionCache(database)
        assert cache.holds_any()
        return await asyncio.gather(*(cache.get(f"k{number}") for number in range(50)), cache.get("k1"))

    found = asyncio.run(main())
    assert [each for each in found if each] == [known, known]
    assert (len(found), sum(reads)) == (51, 50)
    assert len(reads) <= 2


def test_a_cache_that_cannot_be_read_tells_every_one_that_asks(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> dict[str, str]:
        raise OSError("gone")

    monkeypatch.setattr(runs, "cached", broken)

    async def main() -> list[Any]:
        cache = CompletionCache(database)
        return await asyncio.gather(*(cache.get(f"k{number}") for number in range(3)), return_exceptions=True)

    assert ["gone" in str(error) for error in asyncio.run(main())] == [True, True, True]

"""Comparisons over the runs of a matrix, decided when all of them have answered.

What a case came to is written in one transaction for all runs, with the votes it rests on. So a process that comes after
a kill compares only what is not compared yet, and asks no judge twice about what was written.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from service.ids import now
from service.recording import Fresh
from service.store import runs
from service.store.database import Database
from suites.assertions.compared import COMPARED
from suites.case import Case, Suite
from suites.comparison import Answer, Rule, compare
from suites.results import CaseResult, RunSummary, Tally, set_aside

if TYPE_CHECKING:
    from service.aids import Desk

CASES_AT_ONCE = 128  # at least: read, compared and written before the next are read


@dataclass(frozen=True, slots=True)
class Entrant:
    """One run of a matrix, and the variant that gave its answers."""

    run_id: str
    variant: str

    def as_data(self) -> dict[str, str]:
        return {"run_id": self.run_id, "variant": self.variant}


@dataclass(frozen=True, slots=True)
class _Row:
    run_id: str
    answer: Answer


class Comparisons:
    """The comparisons of one matrix; `stopped` says why they ended early, "" where they did not."""

    def __init__(
        self,
        database: Database,
        suite: Suite,
        entrants: Sequence[Entrant],
        rule: Rule,
        desk: Desk | None,
        concurrency: int,
    ) -> None:
        self.stopped = ""
        self._database = database
        self._suite = suite
        self._entrants = entrants
        self._rule = rule
        self._desk = desk
        self._at_once = max(CASES_AT_ONCE, 2 * concurrency)
        self._room = asyncio.Semaphore(max(1, concurrency))
        self._unwritten: list[tuple[list[tuple[str, CaseResult]], Sequence[Fresh]]] = []
        self._writing = asyncio.Lock()

    async def decide(self, chosen: Collection[int]) -> None:
        """Compare the answers to the cases at these positions, as far as they are not compared."""
        cases = self._comparing(chosen)
        while batch := list(islice(cases, self._at_once)):
            groups = await asyncio.to_thread(self._read, batch)
            try:
                async with asyncio.TaskGroup() as group:
                    for case, rows in groups:
                        group.create_task(self._decide(case, rows))
            except BaseExceptionGroup as errors:
                raise errors.exceptions[0] from None
            finally:  # a matrix that is ended early writes first what was decided
                await self._write_waiting()

    def _comparing(self, chosen: Collection[int]) -> Iterator[Case]:
        wanted = chosen if isinstance(chosen, range) else frozenset(chosen)
        for position, case in enumerate(self._suite.tests):
            if position in wanted and case.shared.types & COMPARED:
                yield case

    def _read(self, cases: Sequence[Case]) -> list[tuple[Case, list[_Row]]]:
        """What is to be compared with each other: the runs' answers of a repeat or, of one run alone, a case's repeats."""
        found: dict[tuple[str, int], list[_Row]] = {}
        with self._database.read() as session:
            for entrant in self._entrants:
                for data in runs.results_of(session, entrant.run_id, [case.id for case in cases]):
                    result = CaseResult.from_dict(data)
                    alone = self._rule == "repeats"
                    by = f"repeat {result.repeat + 1}" if alone else entrant.variant
                    key = (result.case_id, 0 if alone else result.repeat)
                    found.setdefault(key, []).append(_Row(entrant.run_id, Answer(by, result)))
        repeats = range(self._suite.repeat)
        groups = ((case, found.get((case.id, repeat), [])) for case in cases for repeat in repeats)
        return [(case, rows) for case, rows in groups if any(row.answer.result.is_to_compare for row in rows)]

    async def _decide(self, case: Case, rows: Sequence[_Row]) -> None:
        async with self._room:
            if self.stopped:
                return
            before = [row.answer.result for row in rows]
            aids = self._desk.about(case, before[0].repeat, "") if self._desk else None
            after = await compare(case, [row.answer for row in rows], aids, self._rule)
            self.stopped = self.stopped or (self._desk.hopeless() if self._desk else "")
        changed = [(row.run_id, new) for row, old, new in zip(rows, before, after, strict=True) if new is not old]
        fresh = self._desk.take_fresh(after[0]) if self._desk else []
        self._unwritten.append((changed, fresh))
        await self._write_waiting()

    async def _write_waiting(self) -> None:
        """Whoever comes first writes, and whoever comes next all that has come up meanwhile."""
        async with self._writing:
            batch, self._unwritten = self._unwritten, []
            if batch:
                await asyncio.to_thread(self._write, batch)

    def _write(self, batch: Sequence[tuple[list[tuple[str, CaseResult]], Sequence[Fresh]]]) -> None:
        with self._database.write() as session:
            for entrant in self._entrants:
                results = [one for changed, _ in batch for run_id, one in changed if run_id == entrant.run_id]
                runs.settle_cases(session, entrant.run_id, [result.as_dict() for result in results])
            runs.remember(session, [one for _, fresh in batch for one in fresh], now())


def summary_of(
    results: Iterator[CaseResult], suite: Suite, chosen: Collection[int], seconds: float, stopped: str
) -> RunSummary:
    """The summary of a run from its stored results; what has none was not asked."""
    tally = Tally(suite.repeat, suite.pass_k)
    asked: set[int] = set()  # hashes: some bytes for each
    for result in results:
        asked.add(hash((result.case_id, result.repeat)))
        tally.add(result)
    if len(asked) < len(chosen) * suite.repeat:
        for skipped in _not_asked(suite, chosen, asked, stopped):
            tally.add(skipped)
    return tally.summary(seconds, stopped)


def _not_asked(suite: Suite, chosen: Collection[int], asked: set[int], why: str) -> Iterator[CaseResult]:
    wanted = chosen if isinstance(chosen, range) else frozenset(chosen)
    for index, case in enumerate(suite.tests):
        for repeat in range(suite.repeat) if index in wanted else ():
            if hash((case.id, repeat)) not in asked:
                told = set_aside(case.skip) or why
                yield CaseResult(
                    case.id, index, repeat, "skipped", error=told, tags=case.tags, must_pass=case.must_pass
                )

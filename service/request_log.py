"""The request log: outcomes are taken without waiting and written in batches, to a spool on disk while the database is away."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any

import structlog

from service import log_writing
from service.bodies import Bodies, Body, record
from service.errors import StorageFailed
from service.lane import Lane
from service.outcome import Outcome
from service.spool import Entry, Spool
from service.store.database import Database

WAIT_S = 0.2
AGAIN_S = 1.0  # until the database is tried again
LOOKS_A_TURN = 30  # tries between looking for what processes left that have ended
SLOW_S = 2.0  # a write that takes longer goes on, and its rows go to the spool as well
MOST_WAITING = 50_000  # rows in memory, each of about a kilobyte
BATCH = 2_000
log = structlog.get_logger()


@dataclass(frozen=True)
class Standing:
    """How the log stands: rows that wait in memory, bytes that wait on disk, rows written, and rows lost by reason."""

    waiting: int
    spooled_bytes: int
    spooled_rows: int
    written: int
    dropped: dict[str, int]
    is_away: bool


@dataclass(frozen=True, slots=True)
class _Stored:
    """Waits for a row that shares its transaction with others: whoever leaves cancels nobody else's waiting."""

    group: asyncio.Future[None]

    def __await__(self) -> Generator[Any, None, None]:
        return asyncio.shield(self.group).__await__()


class _Counts:
    """Rows since the start of the process: `written`, `spooled`, and those lost by reason; may be added to from any thread."""

    def __init__(self) -> None:
        self.of: Counter[str] = Counter()
        self._lock = threading.Lock()

    def add(self, **more: int) -> None:
        with self._lock:
            self.of.update(more)


class RequestLog:
    """Takes outcomes from the loop's thread, in memory and on disk without ever growing beyond bounds.

    The order is kept: as long as the spool holds anything, new rows go behind it. It is also where rows go that come faster
    than the database takes them, before memory is full. Rows are lost for one of these reasons, and
    counted: `memory` (neither the database nor the spool takes rows, and the newest `MOST_WAITING` are kept), `refused`
    (the database refuses what is in a row) and `unreadable` (a line of the spool is torn or spoilt).

    Of the log `before`, where one is replaced, the counters go on. That one's `heir` takes what it could not write at its end.
    """

    def __init__(
        self,
        database: Database,
        spool: Spool | None = None,
        *,
        is_durable: bool = False,
        before: RequestLog | None = None,
    ) -> None:
        self._database = database
        self._spool = spool
        self._is_durable = is_durable
        self._waiting: dict[str, Outcome] = {}
        self._writing: dict[str, Outcome] = {}  # on its way to the database; stays until that, or the spool, has it
        self._group: asyncio.Future[None] | None = None  # whoever answers only once its row is stored
        self._wake = asyncio.Event()
        self._turn = asyncio.Lock()
        self._database_lane, self._spool_lane = Lane("request-log"), Lane("request-spool")
        self._is_away = False
        self._is_full = False
        self._has_no_spool = False
        self.is_stuck = False  # neither the database nor the spool takes rows: they wait in memory
        self.heir: RequestLog | None = None
        self._counts: _Counts = before._counts if before else _Counts()
        self._watchers: tuple[Callable[[Outcome], None], ...] = ()
        self.bodies = Bodies()
        if before is not None:
            self.bodies.dropped = before.bodies.dropped
            if spool is not None and before._spool is not None:
                spool.unreadable = before._spool.unreadable

    # ---------------------------------------------------------------------------- taking

    def add(self, outcome: Outcome, body: Body | None = None) -> Awaitable[None] | None:
        """Take what a request came to, and what was asked and answered where that is recorded.

        None, or, with `recording.durable`, what must be awaited before the request is answered: the row is then in the
        database or on the disk, or StorageFailed is raised.
        """
        if len(self._waiting) >= MOST_WAITING:
            self._drop_oldest()
        self._waiting[outcome.id] = outcome
        if body is not None:
            self.bodies.add(outcome.id, body)
        for watch in self._watchers:
            watch(outcome)
        if not self._is_durable:
            return None
        if self._group is None:
            self._group = asyncio.get_running_loop().create_future()
            self._wake.set()
        return _Stored(self._group)

    def watch(self, watcher: Callable[[Outcome], None]) -> None:
        """Call `watcher` with every outcome, on the request path: it must take microseconds."""
        self._watchers = (*self._watchers, watcher)

    def find(self, completion_id: str) -> Outcome | None:
        """What is in memory and not in the database yet; may be called from any thread."""
        found = self._waiting.get(completion_id)  # first: rows go from here to `_writing` while others look
        return found or self._writing.get(completion_id)

    @property
    def is_behind(self) -> bool:
        """Whether rows lie on the disk that the database does not have yet."""
        return self._spool is not None and not self._spool.is_empty

    @property
    def waiting(self) -> int:
        return len(self._writing) + len(self._waiting)

    @property
    def dropped(self) -> int:
        """Rows that were lost, for whatever reason."""
        return sum(self.standing().dropped.values())

    def standing(self) -> Standing:
        unreadable = self._spool.unreadable if self._spool else 0
        spooled_bytes = self._spool.bytes if self._spool else 0
        counts = self._counts
        lost = {reason: counts.of[reason] for reason in ("memory", "refused")} | {"unreadable": unreadable}
        return Standing(self.waiting, spooled_bytes, counts.of["spooled"], counts.of["written"], lost, self._is_away)

    def _drop_oldest(self) -> None:
        oldest = next(iter(self._waiting))
        del self._waiting[oldest]
        self.bodies.discard(oldest)
        self._counts.add(memory=1)
        if not self._is_full:
            self._is_full = True
            log.error("the request log drops rows: neither the database nor the spool takes any", waiting=MOST_WAITING)

    def inherit(self, ended: RequestLog) -> None:
        """Take over what a log has in memory that has ended, as older than what came here."""
        if self.heir is not None:  # this one has been replaced since
            self.heir.inherit(ended)
            return
        rows, ended._waiting = ended._waiting, {}
        for completion_id in rows:
            body = ended.bodies.get(completion_id)
            if body is not None:
                self.bodies.add(completion_id, body)
        self._waiting = {**rows, **self._waiting}
        while len(self._waiting) > MOST_WAITING:
            self._drop_oldest()
        self._wake.set()

    # ---------------------------------------------------------------------------- writing

    async def run(self) -> None:
        """Write what comes, until cancelled; what an earlier process left on the disk comes first."""
        replaying = asyncio.create_task(self._replay_on())
        try:
            await self._collect_on()
        finally:
            replaying.cancel()

    async def flush(self) -> None:
        """Write all that waits, what lies on the disk first.

        Raises StorageFailed where the database is away: everything is on the disk then, or with `spool_mb: 0` still in memory.
        """
        await self._collect()
        if self._spool is not None:
            await self._replay(self._spool)

    async def aclose(self) -> None:
        """The last flush, for some seconds at most; what it could not write goes to the heir, or is told."""
        try:
            await asyncio.wait_for(self.flush(), SLOW_S * 2)
        except (TimeoutError, StorageFailed) as error:
            if self.heir is not None:
                self.heir.inherit(self)
            else:
                log.warning("the database does not have the whole request log", lost=self.waiting,
                            on_disk_bytes=self.standing().spooled_bytes, reason=str(error))  # fmt: skip
        finally:
            self._database_lane.close()
            self._spool_lane.close()
            if self._spool is not None:
                self._spool.close()

    async def _collect_on(self) -> None:
        while True:
            await self._wake.wait() if self._is_durable else await asyncio.sleep(WAIT_S)
            self._wake.clear()
            try:
                await self._collect()
            except StorageFailed as error:
                self._tell_away(error)
                await asyncio.sleep(AGAIN_S)
                self._wake.set()

    async def _collect(self) -> None:
        """Everything out of memory. Raises StorageFailed where neither the database nor the spool takes it."""
        async with self._turn:
            while self._waiting:
                group = self._take()
                try:
                    await self._store([self._entry(outcome) for outcome in self._writing.values()])
                    self.is_stuck = False
                except BaseException as error:
                    self.is_stuck = isinstance(error, StorageFailed)
                    self._put_back()
                    if group is not None:
                        _settle(group, error if isinstance(error, StorageFailed) else StorageFailed("the service ends"))
                    raise
                self._let_go()
                if group is not None:
                    _settle(group)

    def _take(self) -> asyncio.Future[None] | None:
        """Move rows from `_waiting` to `_writing`; returns those who wait for them, who are never parted."""
        if self._is_durable or len(self._waiting) <= BATCH:
            self._writing, self._waiting = self._waiting, {}
        else:
            self._writing = dict(itertools.islice(self._waiting.items(), BATCH))
            for completion_id in self._writing:
                del self._waiting[completion_id]
        group, self._group = self._group, None
        return group

    def _put_back(self) -> None:
        self._writing, self._waiting = {}, {**self._writing, **self._waiting}

    def _let_go(self) -> None:
        for completion_id in self._writing:
            self.bodies.discard(completion_id)
        self._writing = {}
        if self._is_full and not self._waiting:
            self._is_full = False
            log.info("the request log takes every row again", lost=self._counts.of["memory"])

    def _entry(self, outcome: Outcome) -> tuple[Outcome, Body | None]:
        return outcome, self.bodies.get(outcome.id)

    async def _store(self, rows: Sequence[tuple[Outcome, Body | None]]) -> None:
        if self._spool is None:
            await self._write(rows)
            return
        if (
            self._spool.is_empty and len(self._waiting) < MOST_WAITING // 2
        ):  # beyond, more comes than the database takes
            try:
                await self._write(rows)
                return
            except StorageFailed as error:
                self._tell_away(error)
        await self._spool_lane.start(lambda: self._append(rows))
        self._counts.add(spooled=len(rows))

    async def _write(self, rows: Sequence[tuple[Outcome, Body | None]]) -> None:
        """Into the database. A write that hangs is left behind: should it come through, doing it again changes nothing."""
        work = self._database_lane.start(lambda: self._count(_entries(rows)))
        done, _ = await asyncio.wait({work}, timeout=SLOW_S)
        if not done:
            work.add_done_callback(_forget)
            raise StorageFailed(f"the database has not answered for {SLOW_S:g} s")
        work.result()
        if self._is_away:
            self._is_away = False
            log.info("the database takes the request log again")

    def _append(self, rows: Sequence[tuple[Outcome, Body | None]]) -> None:
        assert self._spool is not None  # noqa: S101 - for the type checker
        self._spool.append(_entries(rows))

    def _count(self, entries: Sequence[Entry]) -> None:
        """In the database's thread: write, and count."""
        written = log_writing.write(self._database, entries)
        self._counts.add(refused=written.refused, written=written.rows)

    # ---------------------------------------------------------------------------- the spool, when the database is back

    async def _replay_on(self) -> None:
        looks = itertools.count()
        while self._spool is not None:
            try:
                if next(looks) % LOOKS_A_TURN == 0:
                    await self._open(self._spool)
                await self._replay(self._spool)
            except StorageFailed as error:  # the database is away, or a file of the spool cannot be read
                self._tell_away(error)
            await asyncio.sleep(AGAIN_S)

    async def _open(self, spool: Spool) -> None:
        """Look for what ended processes left; where the folder cannot be used, that is told once, and the database is not away."""
        try:
            await self._spool_lane.start(spool.open)
        except StorageFailed as error:
            if not self._has_no_spool:
                log.warning("the request log cannot wait on the disk", reason=str(error))
            self._has_no_spool = True
        else:
            self._has_no_spool = False

    async def _replay(self, spool: Spool) -> None:
        """Everything from the disk into the database. Raises StorageFailed where that is still away."""
        replayed = 0
        while not spool.is_empty:
            replayed += await self._database_lane.start(lambda: spool.replay(self._count))
        if replayed:
            self._is_away = False
            log.info("the request log is in the database again", rows=replayed)

    def _tell_away(self, error: StorageFailed) -> None:
        """Once for each time that the database goes away."""
        if not self._is_away:
            log.warning("the request log waits for the database", reason=str(error), waiting=self.waiting)
        self._is_away = True


def _entries(rows: Sequence[tuple[Outcome, Body | None]]) -> list[Entry]:
    """Rows as they are stored: secrets are looked for here, in a thread."""
    return [Entry(outcome, None if body is None else record(outcome.id, outcome.at, body)) for outcome, body in rows]


def _settle(group: asyncio.Future[None], error: BaseException | None = None) -> None:
    if group.done():
        return
    if error is None:
        group.set_result(None)
    else:
        group.set_exception(error)
        group.exception()  # nobody may be waiting any more


def _forget(work: asyncio.Future[Any]) -> None:
    if not work.cancelled():
        work.exception()

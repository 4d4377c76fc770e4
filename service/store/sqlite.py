"""SQLite by Python's own module: connections that are kept, and transactions on them."""

from __future__ import annotations

import contextlib
import functools
import os
import sqlite3
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from prompts.errors import TurnoutError
from service.errors import StorageFailed
from service.store.session import Cursor, Row, Session, refused

BUSY_TIMEOUT_MS = 20_000
PREFIX = "sqlite:///"
CACHE_KB = 2000  # SQLite's own default
SMALL_CACHE_KB = 400  # for one run, which adds rows and hardly reads any
_IN_MEMORY = ("", ":memory:")  # what SQLite takes for no file
_MOST_IDLE = 8  # connections
_ROWS_A_STATEMENT = (32, 8, 1)  # of 25 columns: fewer values than the 999 that any SQLite takes
_BEGINNING = threading.Lock()  # closing a file lets go of every lock that the process has on it, SQLite's too
_File = tuple[int, int]  # device and inode


class SQLite:
    """One database file. Each connection keeps up to `cache_kb` of it in memory.

    Only `create` makes the file. A connection is used while the file that it was opened on is the one at the path: what is
    written into a file that was removed would be lost when the last connection to it is closed.
    """

    def __init__(self, url: str, cache_kb: int = CACHE_KB) -> None:
        self.place = url.removeprefix(PREFIX)
        self._cache_kb = cache_kb
        self._idle: list[tuple[sqlite3.Connection, _File]] = []  # append and pop are atomic
        with self.errors():
            Path(self.place).parent.mkdir(parents=True, exist_ok=True, mode=0o700)

    @contextlib.contextmanager
    def transaction(self, *, write: bool) -> Iterator[Session]:
        """Committed as one when the block of a write ends. Writers queue at its start, so that no two interleave."""
        connection, file = self._take()
        try:
            connection.execute("BEGIN IMMEDIATE" if write else "BEGIN")
            yield _SQLiteSession(connection)
            connection.execute("COMMIT" if write else "ROLLBACK")
        except BaseException:
            with contextlib.suppress(sqlite3.Error):  # what was raised first is the cause; `_give_back` closes it then
                connection.rollback()
            raise
        finally:
            self._give_back(connection, file)

    @contextlib.contextmanager
    def errors(self) -> Iterator[None]:
        """SQLite's own errors as ours: what refused, and what to do. What was written being at fault is none of them."""
        try:
            yield
        except (TurnoutError, sqlite3.IntegrityError, sqlite3.DataError):
            raise
        except (sqlite3.Error, OSError) as error:
            raise refused(self.place, error) from error

    def revision(self) -> str | None:
        """The migration that the tables stand at; None where there are none."""
        if self._file() is None:
            return None
        with self.transaction(write=False) as session:
            known = session.value("SELECT 1 FROM sqlite_master WHERE name = 'alembic_version'")
            found: str | None = session.value("SELECT version_num FROM alembic_version") if known else None
            return found

    def create(self, schema: str, revision: str) -> bool:
        """Make the tables of an empty database as `schema` has them, and its file; False where it is not empty."""
        self._begin()
        with self.transaction(write=True) as session:
            if session.value("SELECT count(*) FROM sqlite_master"):
                return False
            for statement in schema.rstrip().removesuffix(";").split(";\n"):
                session.run(statement)
            session.run("INSERT INTO revision (id, value) VALUES (1, 1)")
            session.run("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL PRIMARY KEY)")
            session.run("INSERT INTO alembic_version VALUES (:revision)", revision=revision)
            return True

    def close(self) -> None:
        """Close the connections that nobody uses."""
        with contextlib.suppress(IndexError):  # that was the last one
            while True:
                self._idle.pop()[0].close()

    def _take(self) -> tuple[sqlite3.Connection, _File]:
        file = self._file()
        if file is None:
            self.close()  # lets go of the file that was removed
            fix = "restore it, or mount its folder again"
            told = f"{self.place}: the database file is missing or empty; nothing was written; {fix}"
            raise StorageFailed(told)
        with contextlib.suppress(IndexError):
            while True:
                connection, opened_on = self._idle.pop()
                if opened_on == file:
                    return connection, file
                connection.close()
        return self._open(), file  # replaced since: whoever takes it next sees another file there

    def _give_back(self, connection: sqlite3.Connection, file: _File) -> None:
        if connection.in_transaction or len(self._idle) >= _MOST_IDLE:
            connection.close()
        else:
            self._idle.append((connection, file))

    def _file(self) -> _File | None:
        """Which file is at the path now; None where there is none, or an empty one."""
        if self.place in _IN_MEMORY:
            return 0, 0
        try:
            found = Path(self.place).stat()
        except FileNotFoundError:
            return None
        return (found.st_dev, found.st_ino) if found.st_size else None

    def _begin(self) -> None:
        """Make the file, where there is none, with its first page; SQLite gives those beside it the same mode."""
        if self.place in _IN_MEMORY:
            return
        with _BEGINNING, contextlib.suppress(FileExistsError):
            os.close(os.open(self.place, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))  # its owner's alone
        self._open().close()  # in WAL mode it is empty no more

    def _open(self) -> sqlite3.Connection:
        # No isolation level: transactions are begun here. Each is used by one thread at a time, not always the same one.
        wait_s = BUSY_TIMEOUT_MS / 1000
        is_file = self.place not in _IN_MEMORY
        place = f"{Path(self.place).absolute().as_uri()}?mode=rw" if is_file else self.place
        connection = sqlite3.connect(place, timeout=wait_s, isolation_level=None, check_same_thread=False, uri=is_file)
        try:
            kept = f"cache_size=-{self._cache_kb}"  # negative: in KiB
            for pragma in (f"busy_timeout={BUSY_TIMEOUT_MS}", kept, "synchronous=FULL", "foreign_keys=ON"):
                connection.execute(f"PRAGMA {pragma}")
            _use_wal(connection)
        except BaseException:
            connection.close()
            raise
        return connection


class _SQLiteSession(Session):
    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def execute(self, sql: str, values: Mapping[str, Any], *, stream: bool = False) -> Cursor:  # noqa: ARG002 - its rows always come as they are read
        return self._connection.execute(sql, values)

    def run_many(self, sql: str, rows: Sequence[Mapping[str, Any]]) -> None:
        self._connection.executemany(sql, rows)

    def insert_many(self, table: str, columns: Sequence[str], rows: Sequence[Row]) -> int:
        """Several rows a statement: Python's lock is let go and taken again for each, which others wait for."""
        written, start = 0, 0
        for size in _ROWS_A_STATEMENT:
            sql = _insert(table, tuple(columns), size)
            while len(rows) - start >= size:
                values = [value for row in rows[start : start + size] for value in row]
                written += self._connection.execute(sql, values).rowcount
                start += size
        return written


@functools.cache
def _insert(table: str, columns: tuple[str, ...], rows: int) -> str:
    """One statement for `rows` rows; the same text each time, so that SQLite compiles it once a connection."""
    row = f"({', '.join('?' * len(columns))})"
    return f"INSERT INTO {table} ({', '.join(columns)}) VALUES {', '.join([row] * rows)} ON CONFLICT DO NOTHING"


def _use_wal(connection: sqlite3.Connection) -> None:
    """Switch to WAL mode; SQLite does not wait for another process that does so at this moment, it refuses."""
    ends = time.monotonic() + BUSY_TIMEOUT_MS / 1000
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > ends:
                raise
            time.sleep(0.01)
        else:
            return

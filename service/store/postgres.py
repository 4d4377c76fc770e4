"""PostgreSQL: SQLAlchemy's pool of connections and psycopg. Loaded where storage.url names it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import msgspec
from sqlalchemy import Connection, create_engine, event, inspect, make_url
from sqlalchemy import exc as sa_exc

from prompts.errors import TurnoutError
from service.errors import CannotRun
from service.store.session import Cursor, Row, Session, refused

_CONNECT_S = 5  # a host that says nothing would else hold a thread for minutes
_NAMED = re.compile(r"(?<![:\w]):(\w+)")


class Postgres:
    """One database by its URL."""

    place = "the PostgreSQL database"

    def __init__(self, url: str) -> None:
        try:
            self._engine = create_engine(
                url, pool_pre_ping=True, pool_size=5, max_overflow=15, connect_args=_within(url)
            )
        except ModuleNotFoundError as error:
            raise CannotRun("PostgreSQL needs the extra `postgres`: pip install 'turnout[postgres]'") from error
        event.listen(self._engine, "connect", _read_json_as_text)

    @contextmanager
    def transaction(self, *, write: bool) -> Iterator[Session]:
        """Committed as one when the block of a write ends, and rolled back when it raises."""
        with self._engine.connect() as connection:
            yield _PostgresSession(connection)
            if write:
                connection.commit()

    @contextmanager
    def errors(self) -> Iterator[None]:
        """The database's own errors as ours: what refused, and what to do."""
        try:
            yield
        except (TurnoutError, sa_exc.IntegrityError, sa_exc.DataError):
            raise  # what was written is at fault, not the storage
        except (sa_exc.DBAPIError, sa_exc.TimeoutError, OSError) as error:
            cause = getattr(error, "orig", None) or error
            raise refused(self.place, cause) from error

    def revision(self) -> str | None:
        """The migration that the tables stand at; None where there are none."""
        with self._engine.connect() as connection:
            if not inspect(connection).has_table("alembic_version"):
                return None
            found: str | None = connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar()
            return found

    def close(self) -> None:
        """Close the connections: those that are in use once they are given back."""
        event.listen(self._engine.pool, "checkin", _close)
        self._engine.dispose()


class _PostgresSession(Session):
    for_update = " FOR UPDATE"
    skip_locked = " FOR UPDATE SKIP LOCKED"

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def execute(self, sql: str, values: Mapping[str, Any], *, stream: bool = False) -> Cursor:
        options = {"stream_results": True, "max_row_buffer": 500} if stream else {}
        return self._connection.exec_driver_sql(_pyformat(sql), dict(values), execution_options=options)

    def in_turn(self, turn: int) -> None:
        self._connection.exec_driver_sql("SELECT pg_advisory_xact_lock(%(turn)s)", {"turn": turn})

    def run_many(self, sql: str, rows: Sequence[Mapping[str, Any]]) -> None:
        if rows:
            self._connection.exec_driver_sql(_pyformat(sql), [dict(row) for row in rows])

    def insert_many(self, table: str, columns: Sequence[str], rows: Sequence[Row]) -> int:
        """One statement with one value, which costs us a tenth of the CPU of a value for each column of each row."""
        if not rows:
            return 0
        names = ", ".join(columns)
        sql = (
            f"INSERT INTO {table} ({names}) SELECT {names} FROM json_populate_recordset(NULL::{table}, %(rows)s)"
            " ON CONFLICT DO NOTHING"
        )
        data = msgspec.json.encode([dict(zip(columns, row, strict=True)) for row in rows]).decode()
        return self._connection.exec_driver_sql(sql, {"rows": data}).rowcount


def _within(url: str) -> dict[str, Any]:
    """How long a connection may take to be made, unless the URL says so itself (`?connect_timeout=20`)."""
    return {} if "connect_timeout" in make_url(url).query else {"connect_timeout": _CONNECT_S}


@lru_cache(maxsize=256)
def _pyformat(sql: str) -> str:
    """`:name` as psycopg writes it."""
    return _NAMED.sub(r"%(\1)s", sql.replace("%", "%%"))


def _read_json_as_text(connection: Any, _: Any) -> None:
    """Columns of JSON come as text, as from SQLite: `Table.record` reads both."""
    from psycopg.types.json import set_json_loads

    set_json_loads(lambda text: text if isinstance(text, str) else bytes(text).decode(), connection)


def _close(_: Any, record: Any) -> None:
    record.invalidate()

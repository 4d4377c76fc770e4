"""Sessions on SQLite or PostgreSQL, and the migrations that make their tables."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, event, insert, inspect, update
from sqlalchemy import exc as sa_exc
from sqlmodel import Session, SQLModel, create_engine

from prompts.errors import TurnoutError
from service.errors import BadSetting, CannotRun, StorageFailed
from service.store.tables import Revision

BUSY_TIMEOUT_MS = 20_000
_MIGRATIONS = Path(__file__).with_name("migrations")


class Database:
    """One database. `read()` and `write()` give sessions; a write commits when its block ends, or not at all."""

    def __init__(self, url: str) -> None:
        self.url = url.replace("postgresql://", "postgresql+psycopg://", 1)
        self.is_sqlite = self.url.startswith("sqlite")
        with _storage_errors(self.url):
            self._engine = _sqlite_engine(self.url) if self.is_sqlite else _postgres_engine(self.url)
        self._writing = self._engine.execution_options(turnout_write=True)

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A session that only reads; sees one consistent state on SQLite."""
        with _storage_errors(self.url), Session(self._engine) as session:
            yield session

    @contextmanager
    def write(self) -> Iterator[Session]:
        """A session whose work is committed as one when the block ends, and rolled back when it raises.

        On SQLite writers queue at the start of the block (BEGIN IMMEDIATE), so that no two interleave.
        """
        opened = Session(self._writing, expire_on_commit=False)
        with _storage_errors(self.url), opened as session, session.begin():
            yield session

    def migrate(self) -> None:
        """Bring the tables to this version of the software; safe when several processes start at once.

        Alembic, a quarter of a second to import, is only asked where tables must change: a database that is up to date
        is left alone, and an empty SQLite file gets its tables as they are described.
        """
        with _storage_errors(self.url):
            if self._revision() != newest_revision() and not (self.is_sqlite and self._create()):
                self.upgrade()

    def _revision(self) -> str | None:
        """The migration that this database stands at; None where it has no tables."""
        with self._engine.connect() as connection:
            if not inspect(connection).has_table("alembic_version"):
                return None
            found: str | None = connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar()
            return found

    def _create(self) -> bool:
        """Make every table of an empty database; False where it is not empty. A test compares this with the migrations."""
        with self._writing.begin() as connection:
            if inspect(connection).get_table_names():
                return False
            SQLModel.metadata.create_all(connection)
            connection.execute(insert(Revision).values(id=1, value=1))
            connection.exec_driver_sql("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL PRIMARY KEY)")
            connection.exec_driver_sql("INSERT INTO alembic_version VALUES (?)", (newest_revision(),))
            return True

    def upgrade(self) -> None:
        """Apply every migration that this database lacks."""
        from alembic import command
        from alembic.config import Config

        with _storage_errors(self.url):
            config = Config()
            config.set_main_option("script_location", str(_MIGRATIONS))
            with self._writing.begin() as connection:
                if not self.is_sqlite:
                    connection.exec_driver_sql("SELECT pg_advisory_xact_lock(8600)")
                config.attributes["connection"] = connection
                command.upgrade(config, "head")

    def close(self) -> None:
        self._engine.dispose()


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


def newest_revision() -> str:
    """The migration that this version of the software ends at: their files are numbered."""
    return max(file.name for file in (_MIGRATIONS / "versions").glob("[0-9]*.py")).partition("_")[0]


def bump_revision(session: Session) -> None:
    """Tell every serving snapshot that something it holds has changed, as part of this transaction."""
    session.execute(update(Revision).where(Revision.id == 1).values(value=Revision.value + 1))  # type: ignore[arg-type]  # SQLModel types columns as their values


def insert_once(session: Session, table: type[SQLModel], rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert rows, passing over those whose key is there already: the same write again changes nothing."""
    if rows:
        dialect = import_module(f"sqlalchemy.dialects.{session.get_bind().dialect.name}")
        session.execute(dialect.insert(table).on_conflict_do_nothing(), rows)


def _sqlite_engine(url: str) -> Engine:
    path = url.removeprefix("sqlite:///")
    Path(path).parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    engine = create_engine(url, connect_args={"timeout": BUSY_TIMEOUT_MS / 1000, "check_same_thread": False})

    @event.listens_for(engine, "connect")
    def _configure(connection: sqlite3.Connection, _: Any) -> None:
        connection.isolation_level = None  # we begin transactions ourselves, see _begin
        for pragma in (f"busy_timeout={BUSY_TIMEOUT_MS}", "synchronous=FULL", "foreign_keys=ON"):
            connection.execute(f"PRAGMA {pragma}")
        _use_wal(connection)

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        immediate = connection.get_execution_options().get("turnout_write")
        connection.exec_driver_sql("BEGIN IMMEDIATE" if immediate else "BEGIN")

    return engine


def _postgres_engine(url: str) -> Engine:
    if not url.startswith("postgresql"):
        raise BadSetting("storage.url must begin with sqlite:/// or postgresql://", param="storage.url")
    try:
        return create_engine(url, pool_pre_ping=True, pool_size=5, max_overflow=15)
    except ModuleNotFoundError as error:
        raise CannotRun("PostgreSQL needs the extra `postgres`: pip install 'turnout[postgres]'") from error


@contextmanager
def _storage_errors(url: str) -> Iterator[None]:
    """The database's own errors as ours: what refused, and what to do."""
    try:
        yield
    except TurnoutError:
        raise
    except (sa_exc.IntegrityError, sa_exc.DataError):
        raise  # what was written is at fault, not the storage
    except (sa_exc.DBAPIError, sa_exc.TimeoutError, sqlite3.Error, OSError) as error:
        place = url.removeprefix("sqlite:///") if url.startswith("sqlite") else "the PostgreSQL database"
        cause = str(getattr(error, "orig", None) or error).splitlines()[0]
        hint = "free some space" if "full" in cause or "No space" in cause else "check that it is there and writable"
        raise StorageFailed(f"{place}: {cause}; nothing was written; {hint}") from error

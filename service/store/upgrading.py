"""Alembic over a database: with the models over half a second to import, asked only where tables must change."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, Engine, NullPool, create_engine, event
from sqlalchemy.exc import DBAPIError

from service.store.sqlite import BUSY_TIMEOUT_MS

_ONE_AT_A_TIME = "SELECT pg_advisory_xact_lock(8600)"


def upgrade(url: str, migrations: Path) -> None:
    """Apply every migration that the database lacks, as one transaction that no other process interleaves.

    Raises SQLite's own errors on SQLite, and SQLAlchemy's on PostgreSQL, as the rest of the store does.
    """
    engine = create_engine(url, poolclass=NullPool)
    is_sqlite = engine.dialect.name == "sqlite"
    if is_sqlite:
        _begin_at_once(engine)
    try:
        with engine.begin() as connection:
            if not is_sqlite:
                connection.exec_driver_sql(_ONE_AT_A_TIME)
            command.upgrade(configured(connection, migrations), "head")
    except DBAPIError as error:
        if is_sqlite and error.orig is not None:
            raise error.orig from error
        raise


def configured(connection: Connection, migrations: Path) -> Config:
    """Alembic's settings for one connection, whose transaction is the caller's."""
    config = Config()
    config.set_main_option("script_location", str(migrations))
    config.attributes["connection"] = connection
    return config


def _begin_at_once(engine: Engine) -> None:
    """Let a transaction begin as one that writes: `BEGIN IMMEDIATE`, in place of what Python's module begins by itself."""

    @event.listens_for(engine, "connect")
    def _configure(connection: Any, _: Any) -> None:
        connection.isolation_level = None
        for pragma in (f"busy_timeout={BUSY_TIMEOUT_MS}", "synchronous=FULL", "foreign_keys=ON"):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

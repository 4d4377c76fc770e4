"""SQLite or PostgreSQL behind one class: transactions, and the migrations that make the tables."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from service.errors import BadSetting, CannotRun
from service.store import sqlite
from service.store.session import Session

if TYPE_CHECKING:
    from service.store.postgres import Postgres

    Store = sqlite.SQLite | Postgres

MIGRATIONS = Path(__file__).with_name("migrations")
_SCHEMA = Path(__file__).with_name("schema.sql")


class Database:
    """One database. `read()` and `write()` give sessions; a write commits when its block ends, or not at all.

    Raises StorageFailed for what the database itself refuses. `cache_kb` bounds what each connection to SQLite keeps in memory.
    """

    def __init__(self, url: str, cache_kb: int = sqlite.CACHE_KB) -> None:
        self.url = url.replace("postgresql://", "postgresql+psycopg://", 1)
        self.is_sqlite = self.url.startswith(sqlite.PREFIX)
        if not self.is_sqlite and not self.url.startswith("postgresql"):
            raise BadSetting("storage.url must begin with sqlite:/// or postgresql://", param="storage.url")
        self._store: Store = sqlite.SQLite(self.url, cache_kb) if self.is_sqlite else _postgres(self.url)

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A session that only reads; sees one consistent state on SQLite."""
        with self._store.errors(), self._store.transaction(write=False) as session:
            yield session

    @contextmanager
    def write(self) -> Iterator[Session]:
        """A session whose work is committed as one when the block ends, and rolled back when it raises.

        On SQLite writers queue at the start of the block (BEGIN IMMEDIATE), so that no two interleave.
        """
        with self._store.errors(), self._store.transaction(write=True) as session:
            yield session

    @property
    def place(self) -> str:
        """What messages call it; a URL may hold a password."""
        return self._store.place

    def is_empty(self) -> bool:
        """Whether it has no tables of ours, or no file; nothing is made by asking."""
        with self._store.errors():
            return self._store.revision() is None

    def migrate(self) -> None:
        """Bring the tables to this version of the software; safe when several processes start at once.

        Alembic and the models, over half a second to import, are only asked where tables must change: a database that is up to date
        is left alone, and an empty SQLite file gets its tables as `schema.sql` describes them. Raises CannotRun for a database
        of a newer version: it is there, and who goes on without it might write into it what that version cannot read.
        """
        with self._store.errors():
            newest, found = newest_revision(), self._store.revision()
            if found is not None and found > newest:
                fix = "start that version again, or restore a copy from before the upgrade"
                told = f"its tables are those of a newer Turnout ({found}; this one knows {newest})"
                raise CannotRun(f"{self.place}: {told}; nothing was written; {fix}")
            if found != newest and not self._created(newest):
                self.upgrade()

    def _created(self, revision: str) -> bool:
        """Whether this was an empty SQLite file, which has its tables now."""
        return isinstance(self._store, sqlite.SQLite) and self._store.create(_SCHEMA.read_text(), revision)

    def upgrade(self) -> None:
        """Apply every migration that this database lacks."""
        from service.store.upgrading import upgrade

        with self._store.errors():
            upgrade(self.url, MIGRATIONS)

    def close(self) -> None:
        """Close the connections that nobody uses."""
        self._store.close()


def _postgres(url: str) -> Store:
    from service.store.postgres import Postgres  # SQLAlchemy, a fifth of a second and 15 MB, for those who use it

    return Postgres(url)


def newest_revision() -> str:
    """The migration that this version of the software ends at: their files are numbered."""
    return max(file.name for file in (MIGRATIONS / "versions").glob("[0-9]*.py")).partition("_")[0]


def bump_revision(session: Session) -> None:
    """Tell every serving snapshot that something it holds has changed, as part of this transaction."""
    session.run("UPDATE revision SET value = value + 1 WHERE id = 1")

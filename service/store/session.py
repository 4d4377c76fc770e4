"""One transaction on either database, spoken to in plain SQL.

Statements are written once, in the SQL that SQLite and PostgreSQL share, with values by name (`:name`). Importing this
costs nothing: a run on SQLite loads no SQL toolkit, which would be half of its start.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from typing import Any, Protocol

from service.errors import StorageFailed

Row = tuple[Any, ...]
_ROWS_AT_ONCE = 500


class Cursor(Protocol):
    """What a statement gives, as the DB-API has it (PEP 249)."""

    @property
    def rowcount(self) -> int: ...

    def fetchone(self) -> Any: ...

    def fetchall(self) -> Any: ...

    def fetchmany(self, size: int = ...) -> Any: ...

    def close(self) -> None: ...


class Session(ABC):
    """An open transaction. `Database.read` and `Database.write` make it, and end it.

    `for_update` and `skip_locked` end a SELECT whose rows no other transaction may write; they are empty on SQLite, where
    writers queue as a whole.
    """

    for_update = ""
    skip_locked = ""

    @abstractmethod
    def execute(self, sql: str, values: Mapping[str, Any], *, stream: bool = False) -> Cursor:
        """One statement; with `stream` its rows are to be read a few at a time."""

    def in_turn(self, turn: int) -> None:  # noqa: B027 - SQLite has nothing to do
        """From here on, transactions that ask for the same turn commit one after the other; SQLite's do so anyway."""

    @abstractmethod
    def run_many(self, sql: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """One statement for each of `rows`."""

    @abstractmethod
    def insert_many(self, table: str, columns: Sequence[str], rows: Sequence[Row]) -> int:
        """Write rows in the order of `columns`, passing over those whose key is there already; returns how many were written."""

    def rows(self, sql: str, **values: Any) -> list[Row]:
        """Every row that a SELECT finds."""
        found: list[Row] = self.execute(sql, values).fetchall()
        return found

    def row(self, sql: str, **values: Any) -> Row | None:
        """The first row that a SELECT finds."""
        found: Row | None = self.execute(sql, values).fetchone()
        return found

    def value(self, sql: str, **values: Any) -> Any:
        """The first column of the first row; None where there is none."""
        found = self.row(sql, **values)
        return None if found is None else found[0]

    def stream(self, sql: str, **values: Any) -> Iterator[Row]:
        """The rows that a SELECT finds, never all in memory."""
        with closing(self.execute(sql, values, stream=True)) as cursor:
            while found := cursor.fetchmany(_ROWS_AT_ONCE):
                yield from found

    def run(self, sql: str, **values: Any) -> int:
        """A statement that writes; returns how many rows it wrote."""
        return self.execute(sql, values).rowcount


def listed(name: str, items: Sequence[Any]) -> tuple[str, dict[str, Any]]:
    """What stands behind IN for these items, and its values, which are called after `name`; at least one item."""
    values = {f"{name}{number}": item for number, item in enumerate(items)}
    return f"({', '.join(':' + each for each in values)})", values


def like(text: str) -> str:
    """`text` as it stands in a pattern of `LIKE … ESCAPE '/'`."""
    return text.replace("/", "//").replace("%", "/%").replace("_", "/_")


def refused(place: str, error: object) -> StorageFailed:
    """The error of a database that could not do what it was asked: what it said, and what to do."""
    cause = str(error).splitlines()[0]
    hint = "free some space" if "full" in cause or "No space" in cause else "check that it is there and writable"
    return StorageFailed(f"{place}: {cause}; nothing was written; {hint}")

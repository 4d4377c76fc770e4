"""Rows as plain data: what a table's columns, JSON and flags become, and the statements that every table has.

Nothing of this leaves `service.store`: the rest of the service speaks records.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from service.store.session import Row, Session, listed

IDS_A_QUERY = 500  # SQLite bounds the variables of a statement


@dataclass(frozen=True)
class Table:
    """One table; `tables.py` has them all.

    `key` is what its rows are got by; `defaults` are what a record may leave out, beside None.

    `numbered` is the column that the database gives each row a number in, "" where there is none.
    """

    name: str
    columns: tuple[str, ...]
    key: tuple[str, ...]
    json: frozenset[str] = frozenset()
    flags: frozenset[str] = frozenset()
    defaults: Mapping[str, Any] = field(default_factory=dict)
    numbered: str = ""

    @property
    def select(self) -> str:
        """All columns of all rows, to be gone on with by WHERE."""
        return f"SELECT {', '.join(self.columns)} FROM {self.name}"

    @property
    def insert(self) -> str:
        """A row of `values`."""
        columns = [name for name in self.columns if name != self.numbered]
        places = ", ".join(f":{name}" for name in columns)
        return f"INSERT INTO {self.name} ({', '.join(columns)}) VALUES ({places})"

    def record(self, row: Row) -> dict[str, Any]:
        """A row of `select` as plain data."""
        found = dict(zip(self.columns, row, strict=True))
        for name in self.json:
            found[name] = read_json(found[name])
        for name in self.flags:
            found[name] = None if found[name] is None else bool(found[name])
        return found

    def values(self, record: Mapping[str, Any]) -> dict[str, Any]:
        """A record as a statement takes it."""
        found = {name: record.get(name, self.defaults.get(name)) for name in self.columns}
        return {name: json.dumps(value) if name in self.json else value for name, value in found.items()}

    def get(self, session: Session, *key: Any, lock: bool = False) -> dict[str, Any] | None:
        """The record behind a key; with `lock`, no other transaction changes it before this one ends."""
        return self.first(session, f"WHERE {self._is_key}{session.for_update if lock else ''}", **self._named(key))

    def one(self, session: Session, *key: Any) -> dict[str, Any]:
        """The record behind a key; raises LookupError where there is none, which no caller expects."""
        found = self.get(session, *key)
        if found is None:
            raise LookupError(f"{self.name}: no row {key!r}")
        return found

    def first(self, session: Session, where: str, **values: Any) -> dict[str, Any] | None:
        """The first record that `where`, and what follows it, finds."""
        row = session.row(f"{self.select} {where}", **values)
        return None if row is None else self.record(row)

    def all(self, session: Session, where: str = "", **values: Any) -> list[dict[str, Any]]:
        """Every record that `where`, and what follows it, finds."""
        return [self.record(row) for row in session.rows(f"{self.select} {where}", **values)]

    def among(self, session: Session, ids: Sequence[str]) -> dict[str, dict[str, Any]]:
        """The records behind these ids, by id, of a table whose key is `id`; those that are not there are left out."""
        found: dict[str, dict[str, Any]] = {}
        for start in range(0, len(ids), IDS_A_QUERY):
            part, values = listed("id", ids[start : start + IDS_A_QUERY])
            found |= {record["id"]: record for record in self.all(session, f"WHERE id IN {part}", **values)}
        return found

    def add(self, session: Session, records: Sequence[Mapping[str, Any]], *, once: bool = False) -> None:
        """Write records; with `once`, those whose key is there already are passed over."""
        if records:
            sql = f"{self.insert} ON CONFLICT DO NOTHING" if once else self.insert
            session.run_many(sql, [self.values(record) for record in records])

    def set(self, session: Session, *key: Any, **columns: Any) -> int:
        """Change columns of the row behind a key; returns how many rows there were."""
        changes = ", ".join(f"{name} = :{name}" for name in columns)
        values = {name: json.dumps(value) if name in self.json else value for name, value in columns.items()}
        return session.run(f"UPDATE {self.name} SET {changes} WHERE {self._is_key}", **values, **self._named(key))

    def remove(self, session: Session, *key: Any) -> None:
        """Delete the row behind a key."""
        session.run(f"DELETE FROM {self.name} WHERE {self._is_key}", **self._named(key))

    @property
    def _is_key(self) -> str:
        return " AND ".join(f"{name} = :key_{name}" for name in self.key)

    def _named(self, key: Sequence[Any]) -> dict[str, Any]:
        return {f"key_{name}": value for name, value in zip(self.key, key, strict=True)}


def read_json(value: Any) -> Any:
    """What a JSON column holds. SQLite makes a number of text that is one."""
    return json.loads(value) if isinstance(value, str) else value


def without(record: Mapping[str, Any], *names: str) -> dict[str, Any]:
    """A record without some of its columns."""
    return {name: value for name, value in record.items() if name not in names}

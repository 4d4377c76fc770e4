"""The tables as statements need them: their columns, and which of these hold JSON, or true and false.

`schema.sql` describes them to SQLite and the migrations make them; a test compares all three. Nothing of this leaves
`service.store`: the rest of the service speaks records and plain data. Times are ISO 8601 in UTC with microseconds, made
by the logic layer. JSON columns hold what the API shows.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from service.store.session import Row, Session


@dataclass(frozen=True)
class Table:
    """One table. `key` is what its rows are got by; `defaults` are what a record may leave out, beside None.

    Where `numbered`, the database gives each row its `id`.
    """

    name: str
    columns: tuple[str, ...]
    key: tuple[str, ...]
    json: frozenset[str] = frozenset()
    flags: frozenset[str] = frozenset()
    defaults: Mapping[str, Any] = field(default_factory=dict)
    numbered: bool = False

    @property
    def select(self) -> str:
        """All columns of all rows, to be gone on with by WHERE."""
        return f"SELECT {', '.join(self.columns)} FROM {self.name}"

    @property
    def insert(self) -> str:
        """A row of `values`."""
        columns = [name for name in self.columns if not (self.numbered and name == "id")]
        places = ", ".join(f":{name}" for name in columns)
        return f"INSERT INTO {self.name} ({', '.join(columns)}) VALUES ({places})"

    def record(self, row: Row) -> dict[str, Any]:
        """A row of `select` as plain data."""
        found = dict(zip(self.columns, row, strict=True))
        for name in self.json:
            found[name] = read_json(found[name])
        for name in self.flags:
            found[name] = bool(found[name])
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


PROMPT = Table(
    "prompt",
    ("name", "created_at"),
    ("name",),
)
PROMPT_VERSION = Table(
    "prompt_version",
    ("id", "name", "number", "digest", "content", "about", "author", "message", "created_at", "draft"),
    ("name", "number"),
    json=frozenset({"about", "content"}),
    flags=frozenset({"draft"}),
    defaults={"draft": False},
    numbered=True,
)
PROMPT_SUMMARY = Table(
    "prompt_summary",
    ("name", "number", "title", "description", "model", "tags", "search_text"),
    ("name",),
    json=frozenset({"tags"}),
)
PROMPT_TAG = Table(
    "prompt_tag",
    ("name", "tag"),
    ("name", "tag"),
)
LABEL = Table(
    "label",
    ("name", "label", "version", "revision", "updated_at"),
    ("name", "label"),
)
LABEL_MOVE = Table(
    "label_move",
    ("id", "name", "label", "from_version", "to_version", "revision", "actor", "reason", "evidence_id", "undoes", "at"),
    ("id",),
    numbered=True,
)
SUITE_VERSION = Table(
    "suite_version",
    ("id", "name", "number", "digest", "prompt", "content", "author", "message", "created_at", "pushed_at"),
    ("name", "number"),
    json=frozenset({"content"}),
    numbered=True,
)
SUITE_CASES = Table(
    "suite_cases",
    ("digest", "number", "cases"),
    ("digest", "number"),
)
RUN = Table(
    "run",
    ("id", "suite", "suite_version", "variant", "status", "summary", "started_at", "finished_at"),
    ("id",),
    json=frozenset({"summary"}),
)
CASE_RESULT = Table(
    "case_result",
    ("run_id", "case_id", "repeat", "position", "status", "result"),
    ("run_id", "case_id", "repeat"),
    json=frozenset({"result"}),
)
CACHED_COMPLETION = Table(
    "cached_completion",
    ("key", "completion", "at"),
    ("key",),
    json=frozenset({"completion"}),
)
EVIDENCE = Table(
    "evidence",
    ("id", "kind", "prompt", "verdict", "candidate", "content", "digest", "actor", "created_at"),
    ("id",),
    json=frozenset({"content"}),
)
LOOK = Table(
    "look",
    ("job_id", "prompt", "base_model", "heldout_digest", "number", "at"),
    ("job_id",),
)
ADAPTER = Table(
    "adapter",
    ("name", "prompt", "version", "base_model", "job_id", "digest", "manifest", "created_at"),
    ("name",),
    json=frozenset({"manifest"}),
)
ROUTE = Table(
    "route",
    ("prompt", "revision", "salt"),
    ("prompt",),
)
ROUTE_REVISION = Table(
    "route_revision",
    ("prompt", "revision", "state", "action", "actor", "reason", "evidence_id", "at"),
    ("prompt", "revision"),
    json=frozenset({"state"}),
)
API_KEY = Table(
    "api_key",
    ("id", "role", "digest", "note", "created_at", "revoked_at"),
    ("id",),
)
JOB = Table(
    "job",
    (
        "id",
        "kind",
        "spec",
        "status",
        "attempt",
        "created_by",
        "created_at",
        "started_at",
        "finished_at",
        "worker",
        "token",
        "heartbeat_at",
        "cancel_requested",
        "result",
        "error",
    ),
    ("id",),
    json=frozenset({"spec", "result"}),
    flags=frozenset({"cancel_requested"}),
    defaults={"attempt": 1, "token": 0, "cancel_requested": False},
)
JOB_EVENT = Table(
    "job_event",
    ("job_id", "number", "at", "type", "data"),
    ("job_id", "number"),
    json=frozenset({"data"}),
)
IDEMPOTENCY = Table(
    "idempotency",
    ("principal", "key", "body_digest", "answer", "at"),
    ("principal", "key"),
    json=frozenset({"answer"}),
)
REQUEST = Table(
    "request",
    (
        "id",
        "at",
        "key_id",
        "prompt",
        "variant",
        "route_revision",
        "status",
        "latency_ms",
        "upstream_ms",
        "prompt_tokens",
        "completion_tokens",
        "cost_usd",
        "error",
    ),
    ("id",),
    defaults={"prompt_tokens": 0, "completion_tokens": 0},
)
FEEDBACK = Table(
    "feedback",
    ("id", "completion_id", "metric", "value", "comment", "correction", "key_id", "at"),
    ("id",),
    json=frozenset({"value"}),
)
JUDGE_CALIBRATION = Table(
    "judge_calibration",
    ("id", "suite", "key", "suite_version", "suite_digest", "grader", "figures", "labels_digest", "actor", "at"),
    ("id",),
    json=frozenset({"figures", "grader"}),
)
AUDIT = Table(
    "audit",
    ("id", "at", "actor", "action", "subject", "detail"),
    ("id",),
    json=frozenset({"detail"}),
    numbered=True,
)

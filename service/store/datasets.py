"""Datasets by the digest of their content: written once, never changed."""

from __future__ import annotations

from typing import Any

from service.store.records import without
from service.store.session import Session, like
from service.store.tables import DATASET

_CONTENT = "content"


def add(session: Session, record: dict[str, Any]) -> None:
    """Keep a dataset; the same content again changes nothing."""
    DATASET.add(session, [record], once=True)


def get(session: Session, digest: str) -> dict[str, Any] | None:
    """What is known of a dataset, without its content."""
    found = _about(session, "WHERE digest = :digest", digest=digest)
    return found[0] if found else None


def content(session: Session, digest: str) -> bytes | None:
    found = session.value("SELECT content FROM dataset WHERE digest = :digest", digest=digest)
    return None if found is None else bytes(found)


def matching(session: Session, prefix: str, limit: int) -> list[str]:
    """Digests that begin so, in their order, at most `limit`."""
    sql = "SELECT digest FROM dataset WHERE digest LIKE :prefix ESCAPE '/' ORDER BY digest LIMIT :limit"
    return [row[0] for row in session.rows(sql, prefix=like(prefix) + "%", limit=limit)]


def listing(session: Session, prompt: str | None, limit: int) -> list[dict[str, Any]]:
    """Datasets without their content, newest first."""
    where, values = ("", {}) if prompt is None else ("WHERE prompt = :prompt ", {"prompt": prompt})
    return _about(session, f"{where}ORDER BY created_at DESC, digest LIMIT :limit", limit=limit, **values)


def _about(session: Session, where: str, **values: Any) -> list[dict[str, Any]]:
    """Datasets without their content, which may be large and is not read here."""
    columns = [name if name != _CONTENT else f"NULL AS {name}" for name in DATASET.columns]
    rows = session.rows(f"SELECT {', '.join(columns)} FROM dataset {where}", **values)
    return [without(DATASET.record(row), _CONTENT) for row in rows]

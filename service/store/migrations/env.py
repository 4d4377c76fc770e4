"""Alembic's entry: migrates over the connection that it is handed, and compares it with what models.py defines."""

from typing import Any, Literal

import sqlalchemy as sa
from alembic import context
from sqlmodel import SQLModel
from sqlmodel.sql.sqltypes import AutoString

import service.store.models  # noqa: F401 - the import is what fills the metadata


def render_item(kind: str, found: Any, _: Any) -> str | Literal[False]:
    """SQLModel's own type of text as SQLAlchemy's, so that migrations need no SQLModel; the rest as Alembic writes it."""
    return f"sa.{sa.String(found.length)!r}" if kind == "type" and isinstance(found, AutoString) else False


context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=SQLModel.metadata,
    render_item=render_item,
    render_as_batch=True,
    transactional_ddl=True,
)
context.run_migrations()

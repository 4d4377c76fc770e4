"""Alembic's entry: migrates over the connection that `Database.migrate` hands in."""

from alembic import context
from sqlmodel import SQLModel

import service.store.tables  # noqa: F401 - the import is what fills the metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=SQLModel.metadata,
    render_as_batch=True,
    transactional_ddl=True,
)
context.run_migrations()

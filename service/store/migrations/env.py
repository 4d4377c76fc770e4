"""Alembic's entry: migrates over the connection that `upgrading.upgrade` hands in."""

from alembic import context

context.configure(connection=context.config.attributes["connection"], render_as_batch=True, transactional_ddl=True)
context.run_migrations()

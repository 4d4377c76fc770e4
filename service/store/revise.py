"""`python -m service.store.revise "what changes"`: writes the migration from the newest one to what models.py defines.

What Alembic cannot see (rows to be filled in, a column that got another name) is added to the file by hand.
"""

from __future__ import annotations

import sys
from pathlib import Path

from alembic import command
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine

from service.store.database import MIGRATIONS
from service.store.upgrading import configured


def revise(message: str, migrations: Path) -> None:
    """Write the next migration below `migrations`, numbered and named, as the difference to an SQLite made by those before."""
    engine = create_engine("sqlite://")
    with engine.begin() as connection:
        config = configured(connection, migrations)
        newest = ScriptDirectory.from_config(config).get_current_head()
        command.upgrade(config, "head")
        command.revision(config, message, autogenerate=True, rev_id=f"{int(newest or 0) + 1:04}")
    engine.dispose()


def main(arguments: list[str]) -> int:
    """Returns 2 where the one argument is missing."""
    if len(arguments) != 1 or arguments[0].startswith("-"):
        print('usage: python -m service.store.revise "what changes"', file=sys.stderr)  # noqa: T201 - a developer's command
        return 2
    revise(arguments[0], MIGRATIONS)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

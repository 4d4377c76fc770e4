"""What comes before the first use of a database: its tables, unless that would begin anew what this home has served."""

from __future__ import annotations

from service import snapshot_file
from service.errors import StorageFailed
from service.settings import Settings
from service.store.database import Database


def prepare(database: Database, settings: Settings) -> None:
    """Bring the tables to this version of the software; an empty database gets them at a first start alone.

    Raises StorageFailed where the home keeps a snapshot of a database that now holds nothing: it was removed, or its disk is
    not mounted. Tables and an admin key made then would have every key refused, and would be the next snapshot.
    """
    if database.is_empty() and snapshot_file.holds_something(settings.home, database.url):
        kept = settings.home / snapshot_file.FILE_NAME
        fix = f"restore it; to begin anew, stop the service and remove {kept}"
        raise StorageFailed(f"{database.place}: the database is missing or empty, and there is a snapshot of it; {fix}")
    database.migrate()

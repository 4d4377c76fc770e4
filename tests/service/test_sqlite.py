"""The database as a file: what becomes of it when the file does not stay where it is."""

from __future__ import annotations

import contextlib
import sqlite3
import stat
from pathlib import Path

import pytest

from service.errors import StorageFailed
from service.store import prompts
from service.store.database import Database

AT = "2026-01-01T00:00:00"


@pytest.fixture
def kind() -> str:
    return "sqlite"


def test_the_files_are_their_owners_alone_in_a_folder_that_all_may_read(tmp_path: Path, database: Database) -> None:
    tmp_path.chmod(0o755)
    with database.write() as session:
        prompts.lock(session, "a", AT)

    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.glob("turnout.db*")}
    assert modes == {"turnout.db": 0o600, "turnout.db-wal": 0o600, "turnout.db-shm": 0o600}


def test_a_file_that_is_there_keeps_its_mode(tmp_path: Path) -> None:
    (tmp_path / "turnout.db").touch()
    (tmp_path / "turnout.db").chmod(0o640)
    database = Database(f"sqlite:///{tmp_path / 'turnout.db'}")
    database.migrate()
    database.close()

    assert stat.S_IMODE((tmp_path / "turnout.db").stat().st_mode) == 0o640


@pytest.mark.parametrize("is_emptied", [False, True])
def test_a_file_that_was_removed_takes_no_writes_and_is_not_made_anew(
    database: Database, tmp_path: Path, is_emptied: bool
) -> None:
    with database.write() as session:
        prompts.lock(session, "a", AT)
    for file in tmp_path.glob("turnout.db*"):
        file.rename(tmp_path / f"kept-{file.name}")
    if is_emptied:
        (tmp_path / "turnout.db").touch()

    for open_session in (database.read, database.write):
        with pytest.raises(StorageFailed, match=r"turnout\.db: the database file is missing or empty"), open_session():
            pytest.fail("it was used")
    left = {path.name: path.stat().st_size for path in tmp_path.glob("turnout.db*")}
    for file in tmp_path.glob("kept-*"):
        file.replace(tmp_path / file.name.removeprefix("kept-"))

    assert left == ({"turnout.db": 0} if is_emptied else {})
    with database.read() as session:
        assert prompts.exists(session, "a")


def test_a_file_that_was_replaced_is_the_one_that_is_used(database: Database, tmp_path: Path) -> None:
    other = Database(f"sqlite:///{tmp_path / 'copy.db'}")
    other.migrate()
    with other.write() as session:
        prompts.lock(session, "copied", AT)
    other.close()
    with database.write() as session:
        prompts.lock(session, "before", AT)

    for file in tmp_path.glob("turnout.db*"):
        file.unlink()
    (tmp_path / "copy.db").rename(tmp_path / "turnout.db")
    with database.write() as session:
        prompts.lock(session, "after", AT)

    with contextlib.closing(sqlite3.connect(tmp_path / "turnout.db")) as connection:
        assert sorted(connection.execute("SELECT name FROM prompt")) == [("after",), ("copied",)]

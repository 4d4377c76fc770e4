"""What is PostgreSQL's alone: how it is connected to. `test_store.py` has what both databases do."""

from __future__ import annotations

import pytest

from service.store.database import Database


class Asked(Exception):
    """A connection was asked for, with these seconds."""


@pytest.mark.parametrize(("more", "timeout_s"), [("", 5), ("?connect_timeout=20", 20)])
def test_a_connection_is_given_five_seconds_or_what_the_url_says(
    monkeypatch: pytest.MonkeyPatch, more: str, timeout_s: int
) -> None:
    def connect(*_: object, connect_timeout: int | str, **__: object) -> None:
        raise Asked(int(connect_timeout))

    monkeypatch.setattr("psycopg.connect", connect)
    with pytest.raises(Asked) as asked, Database(f"postgresql://user@db/turnout{more}").read():
        pass

    assert asked.value.args == (timeout_s,)


@pytest.fixture
def kind() -> str:
    return "postgresql"


@pytest.mark.integration
def test_a_connection_that_is_in_use_at_the_close_is_closed_when_it_comes_back(database: Database) -> None:
    with database.read() as session:
        connection = session._connection.connection.driver_connection  # type: ignore[attr-defined]  # psycopg's own
        database.close()
        assert not connection.closed

    assert connection.closed

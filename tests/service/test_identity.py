from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from prompts.errors import BadInput
from service.errors import Forbidden, NotFound
from service.identity import (
    LOCAL_ADMIN,
    ROLES,
    Principal,
    create_key,
    digest_key,
    ensure_admin_key,
    find_key,
    revoke_key,
)
from service.settings import Settings
from service.store import keys
from service.store.database import Database


@pytest.fixture
def database(settings: Settings) -> Iterator[Database]:
    database = Database(settings.database_url)
    database.migrate()
    yield database
    database.close()


def test_the_first_start_writes_an_admin_key_that_its_owner_alone_can_read(
    database: Database, settings: Settings
) -> None:
    path = ensure_admin_key(database, settings)

    assert path == settings.home / "admin.key"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(settings.home.stat().st_mode) == 0o700
    key = path.read_text().strip()
    assert key.startswith("turnout_admin_")
    with database.read() as session:
        assert [role for _, role, *_ in keys.valid(session).values()] == ["admin"]
        assert digest_key(key) in keys.valid(session)


def test_a_file_that_was_readable_to_all_is_so_no_more(database: Database, settings: Settings) -> None:
    path = settings.home / "admin.key"
    path.write_text("an older key, and longer than the new one will be " * 4)
    path.chmod(0o644)

    ensure_admin_key(database, settings)

    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.read_text().startswith("turnout_admin_")
    assert path.read_text().count("\n") == 1


def test_a_later_start_makes_no_key(database: Database, settings: Settings) -> None:
    ensure_admin_key(database, settings)
    before = (settings.home / "admin.key").read_text()

    assert ensure_admin_key(database, settings) is None
    assert (settings.home / "admin.key").read_text() == before


def test_where_keys_exist_none_is_made(database: Database, settings: Settings) -> None:
    create_key(database, "admin", actor=LOCAL_ADMIN)

    assert ensure_admin_key(database, settings) is None
    assert not (settings.home / "admin.key").exists()


def test_a_key_is_kept_by_its_digest_alone(database: Database, settings: Settings) -> None:
    key = create_key(database, "app", actor=LOCAL_ADMIN)["key"]
    database.close()

    stored = b"".join(file.read_bytes() for file in settings.home.glob("turnout.db*"))
    assert key.encode() not in stored
    assert digest_key(key).encode() in stored


def test_keys_are_long_and_never_alike(database: Database) -> None:
    made = {create_key(database, "app", actor=LOCAL_ADMIN)["key"] for _ in range(20)}

    assert len(made) == 20
    assert {len(key) for key in made} == {len("turnout_app_") + 43}  # 256 bits


def test_an_unknown_role_or_key_is_refused(database: Database) -> None:
    with pytest.raises(BadInput, match="choose one of app, author, ci, admin"):
        create_key(database, "root", actor=LOCAL_ADMIN)
    with pytest.raises(NotFound):
        revoke_key(database, "key_none", actor=LOCAL_ADMIN)


@pytest.mark.parametrize("role", ROLES)
def test_a_role_may_do_what_those_before_it_may(role: str) -> None:
    principal = Principal("key_1", role)

    assert [other for other in ROLES if principal.may(other)] == list(ROLES[: ROLES.index(role) + 1])


def test_what_a_role_may_not_do_is_told_with_the_role_that_may() -> None:
    with pytest.raises(Forbidden, match="'app' may not set a route: it needs role 'admin'"):
        Principal("key_1", "app").require("admin", "set a route")


def test_the_command_line_uses_its_variable_before_the_file_of_its_home(settings: Settings) -> None:
    assert find_key(settings, {}) == ("", "")
    settings.home.mkdir()
    Path(settings.home / "admin.key").write_text("from the file\n")

    assert find_key(settings, {}) == ("from the file", str(settings.home / "admin.key"))
    given = {"TURNOUT_API_KEY": "from the environment"}
    assert find_key(settings, given) == ("from the environment", "TURNOUT_API_KEY")

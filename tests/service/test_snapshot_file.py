"""A service that is started while its database is away serves from the snapshot on disk, and says so."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sqlite3
import stat
import threading
import time
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from service import snapshot_file
from service.app import _sweep, controllers, running, with_door
from service.cli.client import InProcess
from service.context import Context, build_context
from service.errors import StorageFailed
from service.identity import KEY_FILE
from service.opening import prepare
from service.settings import Settings
from service.snapshot import Snapshot
from service.snapshot_file import FILE_NAME, Saved
from service.store.database import Database
from tests.service.conftest import Service

SAVED = Saved("2026-01-01T00:00:00Z", 7, {"d": ["key_1", "app"]}, {"a": {"production": 1}}, {"a": 1}, {}, [])
URL = "postgresql://user:password@db/turnout"


def test_what_was_written_is_read_by_a_service_of_the_same_database_alone(tmp_path: Path) -> None:
    snapshot_file.write(tmp_path, URL, SAVED)
    assert snapshot_file.read(tmp_path, URL) == SAVED
    assert snapshot_file.read(tmp_path, "postgresql://user:password@other/turnout") is None
    assert [path.name for path in tmp_path.iterdir()] == [FILE_NAME]


def test_the_file_is_its_owners_alone_and_holds_no_password(tmp_path: Path) -> None:
    snapshot_file.write(tmp_path, URL, SAVED)
    assert stat.S_IMODE((tmp_path / FILE_NAME).stat().st_mode) == 0o600
    assert "password" not in (tmp_path / FILE_NAME).read_text()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": 1}', '{"format": 99}', "\x00\x01"])
def test_a_torn_or_foreign_file_is_no_snapshot(tmp_path: Path, text: str) -> None:
    (tmp_path / FILE_NAME).write_text(text)
    assert snapshot_file.read(tmp_path, URL) is None


def test_all_that_a_version_may_hold_comes_back(tmp_path: Path) -> None:
    content = {
        "text": 'ü 🚂 \u2028 \x00 "',
        "maximum": 10**30,
        "share": 0.1,
        "small": 1e-300,
        "none": None,
        "list": [[], {}, True],
    }
    saved = replace(SAVED, versions=[{"name": "a", "number": 1, "digest": "d", "content": content}])
    snapshot_file.write(tmp_path, URL, saved)
    assert snapshot_file.read(tmp_path, URL) == saved


def test_what_a_killed_writer_left_is_swept_and_a_write_under_way_is_not(service: Service) -> None:
    home = service.settings.home
    left, under_way, other = (home / name for name in (f".{FILE_NAME}.abc", f".{FILE_NAME}.def", "other.abc"))
    for file in (left, under_way, other):
        file.write_text("{")
    for file in (left, other):
        os.utime(file, (0, 0))

    _sweep(service.context)
    assert [file.exists() for file in (left, under_way, other)] == [False, True, True]


def test_a_write_that_fails_leaves_the_one_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    snapshot_file.write(tmp_path, URL, SAVED)

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        snapshot_file.write(tmp_path, URL, Saved(**{**_fields(SAVED), "revision": 8}))
    assert snapshot_file.read(tmp_path, URL) == SAVED
    assert [path.name for path in tmp_path.iterdir()] == [FILE_NAME]


def test_a_second_process_serves_from_disk_until_the_database_is_back(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    service.produce(service.push())
    service.context.snapshot.save()
    other = build_context(service.context.settings)

    def away(_: Database) -> None:
        raise StorageFailed("the database is away")

    with monkeypatch.context() as patch:
        patch.setattr(Database, "migrate", away)
        patch.setattr("service.snapshot.WATCH_S", 0.02)
        asyncio.run(_serve_from_disk(other, patch))


async def _serve_from_disk(other: Context, patch: pytest.MonkeyPatch) -> None:
    async with running(other):
        snapshot = other.snapshot
        assert snapshot.is_stale
        assert snapshot.is_from_disk
        assert snapshot.view.labels["support.triage"]["production"] == 1
        assert snapshot.is_ready("support.triage", 1)
        patch.undo()
        for _ in range(500):
            if not snapshot.is_stale:
                break
            await asyncio.sleep(0.02)
        assert not snapshot.is_stale
        assert not snapshot.is_from_disk


@pytest.mark.parametrize("is_emptied", [False, True])
def test_a_database_file_that_is_missing_beside_its_snapshot_is_waited_for_and_nothing_begins_anew(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, is_emptied: bool
) -> None:
    with Service(settings).running() as service:
        service.produce(service.push())
        service.context.snapshot.save()
    kept = {path: path.read_bytes() for path in (settings.home / FILE_NAME, settings.home / KEY_FILE)}
    (settings.home / "turnout.db").rename(settings.home / "copy.db")
    if is_emptied:
        (settings.home / "turnout.db").touch()
    monkeypatch.setattr("service.snapshot.WATCH_S", 0.02)
    other = build_context(settings)
    told: list[dict[str, str]] = []

    async def scene() -> None:
        app = with_door(other, controllers(other))
        async with (
            running(other),
            httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost") as client,
        ):
            await asyncio.sleep(0.2)  # some looks
            told.append((await client.get("/health/ready")).json())
            assert other.snapshot.view.labels["support.triage"]["production"] == 1
            assert {path: path.read_bytes() for path in kept} == kept
            assert is_emptied is (settings.home / "turnout.db").exists()
            (settings.home / "copy.db").replace(settings.home / "turnout.db")
            async with asyncio.timeout(10):
                while other.snapshot.is_stale:  # noqa: ASYNC110 - what is waited for is a plain flag
                    await asyncio.sleep(0.02)
            told.append((await client.get("/health/ready")).json())

    asyncio.run(scene())
    assert told == [{"status": "disk"}, {"status": "ok"}]  # all may ask, so it is told the status alone


def test_commands_on_the_home_itself_begin_nothing_anew_either(settings: Settings) -> None:
    settings.home.mkdir()
    snapshot_file.write(settings.home, settings.database_url, SAVED)

    with pytest.raises(StorageFailed, match=r"turnout\.db: the database is missing or empty.* remove .*snapshot\.json"):
        InProcess(settings).call("GET", "/api/prompts")

    assert [path.name for path in settings.home.iterdir()] == [FILE_NAME]


@pytest.mark.parametrize(
    ("url", "saved"),
    [("sqlite:///elsewhere.db", SAVED), ("", replace(SAVED, principals={}, newest={})), ("", None)],
    ids=["of another database", "of an empty one", "none"],
)
def test_beside_a_snapshot_that_says_nothing_of_it_a_database_begins(
    settings: Settings, url: str, saved: Saved | None
) -> None:
    settings.home.mkdir()
    if saved:
        snapshot_file.write(settings.home, url or settings.database_url, saved)
    database = Database(settings.database_url)

    prepare(database, settings)

    assert not database.is_empty()
    database.close()


def test_a_database_that_hangs_makes_the_snapshot_stale_until_it_answers(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot, goes_on = Snapshot(service.context.database), threading.Event()
    monkeypatch.setattr("service.snapshot.WATCH_S", 0.01)
    monkeypatch.setattr("service.snapshot.HANGS_S", 0.05)
    monkeypatch.setattr(snapshot, "refresh", lambda: goes_on.wait(10))

    async def until(is_stale: bool) -> None:
        async with asyncio.timeout(10):
            while snapshot.is_stale is not is_stale:  # noqa: ASYNC110 - what is waited for is a plain flag
                await asyncio.sleep(0.01)

    async def scene() -> None:
        watching = asyncio.create_task(snapshot.watch())
        await until(is_stale=True)
        goes_on.set()
        await until(is_stale=False)
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)

    asyncio.run(scene())


def test_without_a_snapshot_on_disk_a_start_without_a_database_is_refused(
    tmp_path: Path, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    (service.context.settings.home / FILE_NAME).unlink(missing_ok=True)
    other = build_context(service.context.settings)

    def away(_: Database) -> None:
        raise StorageFailed("the database is away")

    monkeypatch.setattr(Database, "migrate", away)

    async def start() -> None:
        async with running(other):
            pytest.fail("it has nothing to serve from")

    with pytest.raises(StorageFailed, match="the database is away"):
        asyncio.run(start())


def test_a_full_disk_is_told_once_a_change_and_serving_goes_on(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = []

    def full(*given: object) -> None:
        written.append(given)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(snapshot_file, "write", full)
    snapshot = Snapshot(service.context.database, home=service.context.settings.home)
    snapshot.refresh()
    snapshot.save()
    snapshot.save()
    assert len(written) == 1
    assert snapshot.view.revision >= 0


def test_what_a_full_disk_did_not_take_is_kept_once_there_is_space(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, told = service.context.settings.home, []
    snapshot = Snapshot(service.context.database, home=home)
    snapshot.refresh()
    monkeypatch.setattr("service.snapshot.SAVE_AGAIN_S", 0.0)
    monkeypatch.setattr("service.snapshot.log.warning", lambda event, **_: told.append(event), raising=False)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(snapshot_file, "write", full)
        snapshot.save()
        snapshot.save()
    snapshot.save()

    assert told == ["the snapshot cannot be kept on disk"]
    saved = snapshot_file.read(home, service.context.database.url)
    assert saved is not None
    assert saved.revision == snapshot.view.revision


def test_routes_with_all_that_they_hold_come_back(service: Service) -> None:
    service.produce(service.push())
    snapshot = service.context.snapshot
    snapshot.refresh()
    snapshot.save()
    again = Snapshot(service.context.database, home=service.context.settings.home)
    assert again.restore() is not None
    assert again.view.routes == snapshot.view.routes
    assert again.view.principals == snapshot.view.principals
    assert json.loads((service.context.settings.home / FILE_NAME).read_text())["routes"]["support.triage"]["salt"]


def _fields(saved: Saved) -> dict[str, object]:
    return {name: getattr(saved, name) for name in Saved.__slots__}


@pytest.mark.parametrize("has_caught_up", [False, True])
def test_numbers_that_a_restored_copy_gives_anew_mean_its_own_versions(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, has_caught_up: bool
) -> None:
    monkeypatch.setattr("service.snapshot.WATCH_S", 0.02)

    def said(text: str) -> dict[str, object]:
        return {"model": "model-a", "messages": [{"role": "user", "content": text}]}

    def render() -> dict[str, object]:
        answer = service.call("POST", "/api/prompts/a/render", json={"variables": {}}).json()
        completion = service.call("POST", "/v1/chat/completions", json={"model": "a"}).json()
        return {"text": answer["messages"][0]["content"], "same": completion["turnout"]["digest"] == answer["digest"]}

    home = settings.home
    with Service(settings).running() as service:
        snapshot = service.context.snapshot
        service.produce(service.push("a", said("first")), "a")
        with (
            contextlib.closing(sqlite3.connect(home / "turnout.db")) as database,
            contextlib.closing(sqlite3.connect(home / "copy.db")) as copy,
        ):
            database.backup(copy)
        service.produce(service.push("a", said("lost")), "a")
        assert render() == {"text": "lost", "same": True}

        for file in home.glob("turnout.db*"):
            file.unlink()
        if has_caught_up:  # others have changed it as often as it was before, while this process could not see it
            with contextlib.closing(sqlite3.connect(home / "copy.db")) as copy, copy:
                copy.execute("UPDATE revision SET value = ?", (snapshot.view.revision,))
            while not snapshot.is_stale:
                time.sleep(0.01)
        (home / "copy.db").rename(home / "turnout.db")
        snapshot.refresh()
        service.produce(service.push("a", said("anew")), "a")

        assert render() == {"text": "anew", "same": True}

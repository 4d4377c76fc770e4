"""Log rows on disk: in order, bounded, whole after a crash."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from service import spool as spool_module
from service.errors import StorageFailed
from service.spool import Entry, Spool
from tests.service.test_request_log import outcome

LARGE = 100_000_000


def entries(*numbers: int, **more: Any) -> list[Entry]:
    return [Entry(outcome(number, at="2026-01-01T00:00:00", **more)) for number in numbers]


def replayed(spool: Spool) -> list[str]:
    """The ids of everything in the spool, in order."""
    found: list[Entry] = []
    while not spool.is_empty:
        spool.replay(found.extend)
    return [entry.outcome.id for entry in found]


def ids(*numbers: int) -> list[str]:
    return [f"chatcmpl-{number}" for number in numbers]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "spool"


@pytest.fixture
def spool(root: Path) -> Iterator[Spool]:
    made = Spool(root, LARGE)
    yield made
    made.close()


def segments(root: Path) -> list[Path]:
    return sorted(root.rglob("*.jsonl"))


def test_nothing_is_made_until_something_has_to_be_kept(spool: Spool, root: Path) -> None:
    spool.open()

    assert (spool.is_empty, spool.bytes, root.exists()) == (True, 0, False)


def test_what_was_kept_comes_back_whole_and_in_order_and_is_gone_then(spool: Spool, root: Path) -> None:
    given = [*entries(1, is_valid=False, cost_usd=0.25, error="no “answer”\n"), Entry(outcome(2), {"output": "x"})]
    spool.append(given)
    spool.append(entries(3))
    assert (spool.is_empty, spool.bytes) == (False, sum(path.stat().st_size for path in segments(root)))

    found: list[Entry] = []
    spool.replay(found.extend)

    assert found == [*given, *entries(3)]
    assert (spool.is_empty, spool.bytes, segments(root)) == (True, 0, [])


def test_only_its_owner_may_read_it(spool: Spool, root: Path) -> None:
    spool.append(entries(1))

    assert {path.stat().st_mode & 0o077 for path in (root, *root.rglob("*"))} == {0}


def test_what_comes_during_a_replay_comes_after_it(spool: Spool) -> None:
    spool.append(entries(1))
    seen: list[str] = []

    def write(batch: list[Entry]) -> None:
        seen.extend(entry.outcome.id for entry in batch)
        if len(seen) == 1:
            spool.append(entries(2))

    spool.replay(write)

    assert (seen, spool.is_empty) == (ids(1), False)
    assert replayed(spool) == ids(2)


def test_a_replay_that_fails_goes_on_behind_what_was_taken(
    spool: Spool, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spool_module, "BATCH", 2)
    spool.append(entries(1, 2, 3, 4, 5))
    seen: list[str] = []

    def write(batch: list[Entry]) -> None:
        if len(seen) == 2 and len(segments(root)) == 1:
            spool.append(entries(6))
            raise StorageFailed("away again")
        seen.extend(entry.outcome.id for entry in batch)

    with pytest.raises(StorageFailed):
        spool.replay(write)
    spool.replay(write)
    spool.replay(write)

    assert seen == ids(1, 2, 3, 4, 5, 6)


def test_segments_are_bounded_and_replayed_in_their_order(
    spool: Spool, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spool_module, "SEGMENT_BYTES", 2_000)
    for number in range(30):
        spool.append(entries(number))

    assert len(segments(root)) > 5
    assert max(path.stat().st_size for path in segments(root)) <= 2_000
    assert replayed(spool) == ids(*range(30))


def test_one_batch_larger_than_a_segment_is_parted(spool: Spool, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool_module, "SEGMENT_BYTES", 2_000)
    spool.append(entries(*range(30)))

    assert len(segments(root)) > 5
    assert replayed(spool) == ids(*range(30))


def test_beyond_its_bound_nothing_is_taken_and_nothing_is_lost(root: Path) -> None:
    spool = Spool(root, 2_000)
    spool.append(entries(1, 2))
    with pytest.raises(StorageFailed, match=r"recording\.spool_mb"):
        spool.append(entries(*range(3, 30)))
    assert replayed(spool) == ids(1, 2)

    spool.append(entries(3))  # there is room again

    assert replayed(spool) == ids(3)
    spool.close()


def test_a_process_takes_over_what_an_earlier_one_left(root: Path) -> None:
    first = Spool(root, LARGE)
    first.append(entries(1))
    first.append(entries(2))
    first.close()

    second = Spool(root, LARGE)
    second.open()
    second.append(entries(3))

    assert replayed(second) == ids(1, 2, 3)
    second.close()


def test_two_processes_of_one_home_do_not_touch_each_others(root: Path) -> None:
    first, second = Spool(root, LARGE), Spool(root, LARGE)
    first.append(entries(1))
    second.append(entries(2))

    assert replayed(second) == ids(2)
    assert replayed(first) == ids(1)
    first.close()
    second.close()


def test_what_several_dead_processes_left_is_taken_over_by_one(root: Path) -> None:
    dead = [Spool(root, LARGE) for _ in range(3)]
    for number, spool in enumerate(dead):
        spool.append(entries(number))
    for spool in dead:
        spool.close()

    heir = Spool(root, LARGE)
    heir.open()

    assert replayed(heir) == ids(0, 1, 2)
    heir.close()


def test_what_a_process_leaves_later_is_taken_over_too_even_amid_a_replay(root: Path) -> None:
    other, heir = Spool(root, LARGE), Spool(root, LARGE)
    other.append(entries(1))
    heir.append(entries(2))
    heir.append(entries(3))
    seen: list[str] = []

    def write(batch: list[Entry]) -> None:
        seen.extend(entry.outcome.id for entry in batch)
        other.close()
        heir.open()

    heir.replay(write)

    assert seen == ids(2, 3)
    assert (replayed(heir), heir.bytes) == (ids(1), 0)
    heir.close()


def test_a_torn_last_line_is_left_out_and_counted(root: Path) -> None:
    killed = Spool(root, LARGE)
    killed.append(entries(1, 2))
    killed.close()
    [segment] = segments(root)
    segment.write_bytes(segment.read_bytes()[:-40])

    spool = Spool(root, LARGE)
    spool.open()
    spool.append(entries(3))

    assert replayed(spool) == ids(1, 3)
    assert spool.unreadable == 1
    spool.close()


def test_a_spoilt_line_costs_itself_alone(spool: Spool, root: Path) -> None:
    spool.append(entries(1, 2, 3))
    [segment] = segments(root)
    lines = segment.read_bytes().split(b"\n")
    segment.write_bytes(b"\n".join([lines[0], b"\xff{" + lines[1], lines[2], b""]))

    assert replayed(spool) == ids(1, 3)
    assert spool.unreadable == 1


def test_a_line_of_another_version_is_read_by_what_it_has(spool: Spool, root: Path) -> None:
    spool.append(entries(1))
    [segment] = segments(root)
    segment.write_bytes(segment.read_bytes().replace(b'{"outcome":{', b'{"later":1,"outcome":{"also":[2],'))

    assert replayed(spool) == ids(1)


def test_a_row_that_cannot_be_written_does_not_hold_up_the_others(spool: Spool) -> None:
    spool.append([*entries(1), *entries(2, error="half \ud800"), *entries(3)])

    assert replayed(spool) == ids(1, 3)
    assert spool.unreadable == 1


def test_what_a_full_disk_took_of_a_batch_is_cut_off(spool: Spool, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spool.append(entries(1))
    before = segments(root)[0].read_bytes()
    real = os.write

    def full(descriptor: int, data: Any) -> int:
        if len(data) > 100:
            return real(descriptor, data[:100])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(StorageFailed, match="No space left"):
        spool.append([Entry(outcome(2, error="x" * 50))])
    monkeypatch.undo()

    assert segments(root)[0].read_bytes() == before
    spool.append(entries(3))
    assert replayed(spool) == ids(1, 3)


def test_a_folder_that_cannot_be_used_is_told(tmp_path: Path) -> None:
    (tmp_path / "spool").write_text("a file")
    spool = Spool(tmp_path / "spool", LARGE)

    with pytest.raises(StorageFailed, match="writable"):
        spool.append(entries(1))
    assert spool.is_empty


def test_a_folder_of_it_that_cannot_be_used_keeps_nobody_from_the_others(root: Path) -> None:
    dead = [Spool(root, LARGE) for _ in range(3)]
    for number, spool in enumerate(dead):
        spool.append(entries(number))
    for spool in dead:
        spool.close()
    (root / "1" / "lock").unlink()
    (root / "1" / "lock").mkdir()  # what no process can hold, whoever it runs as

    heir = Spool(root, LARGE)
    heir.open()
    heir.append(entries(3))

    assert replayed(heir) == ids(0, 2, 3)
    heir.close()


def test_a_file_that_somebody_else_put_there_is_left_alone(root: Path) -> None:
    dead = Spool(root, LARGE)
    dead.append(entries(1))
    dead.close()
    (segment,) = segments(root)
    copy = segment.with_name("00000001 (copy).jsonl")
    copy.write_bytes(segment.read_bytes())

    heir = Spool(root, LARGE)
    heir.open()
    heir.append(entries(2))

    assert replayed(heir) == ids(1, 2)
    assert segments(root) == [copy]
    heir.close()


def test_a_file_of_it_that_was_removed_keeps_none_of_the_others(
    spool: Spool, root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(spool_module, "SEGMENT_BYTES", 1)
    for number in range(3):
        spool.append(entries(number))
    segments(root)[0].unlink()  # somebody made room on the disk

    assert replayed(spool) == ids(1, 2)
    assert spool.bytes == 0
    told = capsys.readouterr()
    assert (told.out + told.err).count("is gone, with its rows") == 1


def test_what_the_database_has_and_the_disk_does_not_let_go_is_removed_later(
    spool: Spool, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool.append(entries(1))

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "unlink", refuse)
        with pytest.raises(StorageFailed, match="not permitted"):
            replayed(spool)

    spool.append(entries(2))

    assert replayed(spool) == ids(2)
    assert (segments(root), spool.bytes) == ([], 0)

"""Every test here runs on SQLite and on PostgreSQL."""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Engine, create_engine, inspect
from sqlalchemy.exc import IntegrityError as PostgresIntegrityError
from sqlmodel import SQLModel

from prompts.errors import BadInput
from service.errors import CannotRun, Conflict, StorageFailed
from service.identity import Principal, create_key, limit_key, revoke_key
from service.jobs import Jobs
from service.limits import KeyLimits
from service.outcome import Outcome
from service.registry import Origin, Push, Registry
from service.route_book import RouteBook
from service.store import jobs, keys, prompts, requests, rollouts, routes, runs, suites
from service.store.database import MIGRATIONS, Database, bump_revision
from service.store.describe import defined
from service.store.prompts import LabelRecord, VersionRecord
from service.store.request_query import Question, newest
from service.store.session import like
from service.store.upgrading import configured
from tests.service.conftest import ADMIN, AUTHOR, BOTH, make_settings, triage

pytestmark = BOTH
Open = Callable[[], Database]
INTEGRITY_ERRORS = (sqlite3.IntegrityError, PostgresIntegrityError)
LONG_AGO, AT, LATER = "2020-01-01T00:00:00", "2026-01-01T00:00:00", "2026-01-01T00:01:00"


def at_once(count: int, work: Callable[[int], Any]) -> list[Any]:
    """Results of `count` threads that start together; an exception is its thread's result."""
    barrier = threading.Barrier(count)

    def run(number: int) -> Any:
        barrier.wait()
        try:
            return work(number)
        except Exception as error:  # noqa: BLE001 - whatever a thread raises is what the test looks at
            return error

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(run, range(count)))


# ---------------------------------------------------------------------------- migrations


def test_an_empty_database_is_brought_to_every_table(kind: str, empty_url: str) -> None:
    database = Database(empty_url)
    database.migrate()
    database.migrate()
    database.close()

    assert {model.__tablename__ for model in defined()} == tables_of(database) - {"alembic_version"}


def test_a_database_of_a_newer_version_is_left_as_it_is_and_told(kind: str, database: Database) -> None:
    with database.write() as session:
        session.run("UPDATE alembic_version SET version_num = '9000'")

    with pytest.raises(CannotRun, match=r"a newer Turnout \(9000; this one knows 0\d+\)"):
        database.migrate()

    with database.read() as session:
        assert session.value("SELECT version_num FROM alembic_version") == "9000"


def test_the_revision_starts_at_one_row(kind: str, database: Database) -> None:
    with database.read() as session:
        assert keys.revision(session) >= 0


def test_two_processes_that_start_at_once_migrate_once(kind: str, empty_url: str) -> None:
    def migrate(_: int) -> None:
        database = Database(empty_url)
        try:
            database.migrate()
        finally:
            database.close()

    assert at_once(2, migrate) == [None, None]
    assert "prompt_version" in tables_of(Database(empty_url))


def test_the_migrations_make_what_the_models_define(kind: str, empty_url: str) -> None:
    """Columns, types, nullability, indexes and foreign keys; the test below compares keys and unnamed constraints."""
    database = Database(empty_url)
    database.upgrade()
    database.close()
    engine = create_engine(database.url)

    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        differences = compare_metadata(context, SQLModel.metadata)
    engine.dispose()

    assert differences == []


def test_the_schema_of_an_empty_file_is_what_the_migrations_make_on_either_database(
    kind: str, empty_url: str, tmp_path: Path
) -> None:
    migrated, described = Database(empty_url), Database(f"sqlite:///{tmp_path / 'described.db'}")
    migrated.upgrade()
    described.migrate()
    engines = [create_engine(database.url) for database in (migrated, described)]

    shapes = [shape_of(engine) for engine in engines]

    for engine in engines:
        engine.dispose()
    migrated.close()
    described.close()
    assert shapes[0] == shapes[1]


def shape_of(engine: Engine) -> dict[str, Any]:
    """All that both databases tell of their tables; their names of types are not the same."""
    found = inspect(engine)
    shape: dict[str, Any] = {}
    for table in found.get_table_names():
        shape[table] = {
            "columns": {c["name"]: (c["nullable"], c["type"].python_type) for c in found.get_columns(table)},
            "key": found.get_pk_constraint(table)["constrained_columns"],
            "unique": sorted(u["column_names"] for u in found.get_unique_constraints(table)),
            "foreign": sorted(
                (key["constrained_columns"], key["referred_table"]) for key in found.get_foreign_keys(table)
            ),
            "indexes": sorted(
                (i["name"] or "", tuple(i["column_names"]))
                for i in found.get_indexes(table)
                if "duplicates_constraint" not in i
            ),
        }
    return shape


def tables_of(database: Database) -> set[str]:
    engine = create_engine(database.url)
    try:
        return set(inspect(engine).get_table_names())
    finally:
        engine.dispose()


# ---------------------------------------------------------------------------- transactions


def test_a_block_that_raises_writes_nothing(kind: str, database: Database) -> None:
    def fail() -> None:
        with database.write() as session:
            prompts.lock(session, "a", AT)
            raise BadInput("no")

    with pytest.raises(BadInput):
        fail()

    with database.read() as session:
        assert not prompts.exists(session, "a")


def test_many_rows_are_counted_but_for_those_that_are_there_already(kind: str, database: Database) -> None:
    for rows, added in ((0, 0), (1, 1), (43, 42), (200, 157)):
        with database.write() as session:
            written = session.insert_many("prompt", ("name", "created_at"), [(f"p{n}", AT) for n in range(rows)])
        assert written == added

    with database.read() as session:
        names = [name for (name,) in session.rows("SELECT name FROM prompt")]
    assert sorted(names) == sorted(f"p{n}" for n in range(200))


def test_a_stream_that_is_left_in_the_middle_holds_nothing_up(kind: str, database: Database) -> None:
    with database.write() as session:
        for number in range(1200):
            prompts.lock(session, f"p{number:04}", AT)

    with database.read() as session:
        rows = session.stream("SELECT name FROM prompt ORDER BY name")
        assert next(rows) == ("p0000",)
        del rows
    with database.write() as session:
        prompts.lock(session, "q", AT)
    with database.read() as session:
        assert len(list(session.stream("SELECT name FROM prompt"))) == 1201


def test_a_text_with_the_signs_of_sql_is_data(kind: str, database: Database) -> None:
    text = "a%b_c/'; -- :name %(name)s \\ ?"
    with database.write() as session:
        prompts.lock(session, text, AT)

    with database.read() as session:
        assert session.value("SELECT count(*) FROM prompt WHERE name LIKE :p ESCAPE '/'", p=like(text) + "%") == 1
        assert session.rows("SELECT name FROM prompt WHERE name = :name", name=text) == [(text,)]


def test_what_was_committed_is_seen_by_every_other_process(kind: str, open_database: Open) -> None:
    one, other = open_database(), open_database()
    with one.write() as session:
        prompts.lock(session, "a", AT)

    with other.read() as session:
        assert prompts.exists(session, "a")


def test_revision_counts_every_change_even_at_once(kind: str, open_database: Open) -> None:
    database = open_database()
    with database.read() as session:
        before = keys.revision(session)

    def bump(_: int) -> None:
        with database.write() as session:
            bump_revision(session)

    assert at_once(8, bump) == [None] * 8
    with database.read() as session:
        assert keys.revision(session) == before + 8


# ---------------------------------------------------------------------------- versions


def registry(database: Database, tmp_path_factory: pytest.TempPathFactory) -> Registry:
    return Registry(database, make_settings(tmp_path_factory.mktemp("home")))


def test_forty_pushes_at_once_number_their_versions_without_gap_or_double(
    kind: str, database: Database, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Twenty contents, each pushed by two threads."""
    store = registry(database, tmp_path_factory)

    def push(number: int) -> dict[str, Any]:
        content = triage(description="d", modelParameters={"seed": number % 20})
        return store.push(Push({"support.triage": content}), AUTHOR)[0]

    written = at_once(40, push)

    assert sorted(entry["version"] for entry in written if entry["created"]) == list(range(1, 21))
    by_digest: dict[str, set[int]] = {}
    for entry in written:
        by_digest.setdefault(entry["digest"], set()).add(entry["version"])
    assert sorted(number for [number] in by_digest.values()) == list(range(1, 21))


def test_a_push_of_several_files_is_written_whole_or_not_at_all(
    kind: str, database: Database, tmp_path_factory: pytest.TempPathFactory
) -> None:
    store = registry(database, tmp_path_factory)
    with pytest.raises(BadInput):
        store.push(Push({"a": triage()}, {"s": {"prompt": "no.such", "tests": [{"assert": []}]}}), AUTHOR)

    assert store.listing() == []


def test_a_version_can_be_found_by_number_by_digest_and_as_the_newest(kind: str, database: Database) -> None:
    with database.write() as session:
        prompts.lock(session, "a", AT)
        prompts.add_all(session, [version(1), version(2)])

    with database.read() as session:
        assert prompts.by_number(session, "a", 1) == version(1)
        assert prompts.by_digests(session, {"a": "sha256:2", "b": "sha256:1"}) == {"a": version(2)}
        assert prompts.newest(session, "a") == version(2)
        assert prompts.versions(session, "a", 9) == [version(2), version(1)]
        assert prompts.names(session) == [("a", 2)]
        assert prompts.by_number(session, "a", 3) is None
        assert prompts.by_number(session, "b", 1) is None


@pytest.mark.parametrize("second", [{"number": 1, "digest": "sha256:9"}, {"number": 9, "digest": "sha256:1"}])
def test_the_database_refuses_a_second_version_of_one_number_or_digest(
    kind: str, database: Database, second: dict[str, Any]
) -> None:
    with database.write() as session:
        prompts.lock(session, "a", AT)
        prompts.add_all(session, [version(1)])

    with pytest.raises(INTEGRITY_ERRORS), database.write() as session:
        prompts.add_all(session, [version(**second)])


def version(number: int, digest: str = "") -> VersionRecord:
    return VersionRecord("a", number, digest or f"sha256:{number}", {"text": "é 🚆"}, {"tags": []}, "key_1", None, AT)


def test_suites_are_numbered_like_prompts(kind: str, database: Database) -> None:
    record = {"name": "s", "prompt": "a", "content": {"tests": []}, "author": "k", "message": None, "created_at": AT}
    with database.write() as session:
        assert suites.numbers(session, ["s"]) == {}
        suites.add_all(session, [{**record, "number": n, "digest": f"sha256:{n}", "pushed_at": None} for n in (1, 2)])
        assert suites.numbers(session, ["s", "t"]) == {"s": {"sha256:1": 1, "sha256:2": 2}}
        assert suites.newest(session, "s") is None  # drafts, both of them
        assert suites.meant(session, ["s"]) == {}
        suites.set_pushed(session, "s", 2, AT)
        suites.set_pushed(session, "s", 1, LATER)

    with database.read() as session:
        pushed = {**record, "number": 1, "digest": "sha256:1", "pushed_at": LATER}
        assert suites.newest(session, "s") == pushed
        assert suites.meant(session, ["s"]) == {"s": 1}
        assert suites.by_number(session, "s", 3) is None
        assert [(row["name"], row["number"]) for row in suites.summaries(session)] == [("s", 2), ("s", 1)]


# ---------------------------------------------------------------------------- labels


def test_a_label_moves_and_every_move_is_kept(kind: str, database: Database) -> None:
    with database.write() as session:
        prompts.lock(session, "a", AT)
        prompts.move_label(session, LabelRecord("a", "staging", 1, 1, AT), actor="k1", reason=None, evidence_id=None)
    with database.write() as session:
        moved = LabelRecord("a", "staging", 2, 2, LATER)
        prompts.move_label(session, moved, actor="k2", reason="better", evidence_id="ev_1")

    with database.read() as session:
        assert prompts.label(session, "a", "staging") == LabelRecord("a", "staging", 2, 2, LATER)
        assert prompts.labels(session, "a") == [LabelRecord("a", "staging", 2, 2, LATER)]
        assert prompts.label_history(session, "a", "staging") == [
            {"name": "a", "label": "staging", "from_version": 1, "to_version": 2, "revision": 2, "actor": "k2",
             "reason": "better", "evidence_id": "ev_1", "undoes": None, "at": LATER},
            {"name": "a", "label": "staging", "from_version": None, "to_version": 1, "revision": 1, "actor": "k1",
             "reason": None, "evidence_id": None, "undoes": None, "at": AT},
        ]  # fmt: skip


def test_a_label_that_was_removed_goes_on_counting_when_it_comes_back(
    kind: str, database: Database, tmp_path_factory: pytest.TempPathFactory
) -> None:
    store = registry(database, tmp_path_factory)
    store.push(Push({"a": triage()}), AUTHOR)

    assert store.move_label("a", "staging", 1, AUTHOR).revision == 1
    store.remove_label("a", "staging", AUTHOR)
    assert store.move_label("a", "staging", 1, AUTHOR).revision == 3


def test_of_twelve_conditional_moves_at_once_one_wins(
    kind: str, database: Database, tmp_path_factory: pytest.TempPathFactory
) -> None:
    store = registry(database, tmp_path_factory)
    for seed in range(13):
        store.push(Push({"a": triage(modelParameters={"seed": seed})}), AUTHOR)
    store.move_label("a", "staging", 13, AUTHOR)

    moved = at_once(12, lambda n: store.move_label("a", "staging", n + 1, AUTHOR, if_revision=1).revision)

    assert sorted(str(result) if isinstance(result, int) else type(result).__name__ for result in moved) == [
        "2",
        *["RevisionMismatch"] * 11,
    ]


# ---------------------------------------------------------------------------- jobs


def submit(database: Database, *ids: str) -> None:
    for number, job_id in enumerate(ids):
        record = {"id": job_id, "kind": "run", "spec": {"suite": "s"}, "status": "queued", "created_by": "k"}
        with database.write() as session:
            jobs.add(session, {**record, "created_at": f"2026-01-01T00:00:{number:02}"})


def claim(database: Database, by: str = "w1", **options: Any) -> dict[str, Any] | None:
    free = jobs.Free(**{"dead_workers": (), "stale_before": LONG_AGO, **options})
    with database.write() as session:
        return jobs.claim(session, by, AT, free)


def test_the_same_job_again_changes_nothing(kind: str, database: Database) -> None:
    submit(database, "job_1")
    assert claim(database) is not None
    submit(database, "job_1")

    with database.read() as session:
        found = jobs.get(session, "job_1")
    assert found is not None
    assert found["status"] == "running"


def test_jobs_are_claimed_oldest_first_and_none_is_left(kind: str, database: Database) -> None:
    submit(database, "job_b", "job_a")

    claimed = [claim(database), claim(database), claim(database)]

    assert [job and (job["id"], job["status"], job["worker"], job["token"]) for job in claimed] == [
        ("job_b", "running", "w1", 1),
        ("job_a", "running", "w1", 1),
        None,
    ]


def test_whether_a_claim_would_find_something_can_be_asked_without_one(kind: str, database: Database) -> None:
    def has_free(**options: Any) -> bool:
        with database.read() as session:
            return jobs.has_free(session, jobs.Free(**{"dead_workers": (), "stale_before": LONG_AGO, **options}))

    assert not has_free()
    submit(database, "job_1")
    assert (has_free(), has_free(only="job_1"), has_free(only="job_2")) == (True, True, False)
    claim(database, "w1")
    assert (has_free(), has_free(dead_workers=("w1",)), has_free(stale_before=LATER)) == (False, True, True)


def test_a_worker_never_takes_its_own_job_for_abandoned(kind: str, database: Database) -> None:
    submit(database, "job_1")
    claim(database, "w1", worker="w1")

    assert claim(database, "w1", worker="w1", stale_before=LATER) is None  # its heartbeats are old: the machine slept
    taken = claim(database, "w2", worker="w2", stale_before=LATER)
    assert taken is not None
    assert (taken["worker"], taken["token"]) == ("w2", 2)


def test_claimers_at_once_get_each_job_exactly_once(kind: str, open_database: Open) -> None:
    submit(open_database(), *[f"job_{number:02}" for number in range(30)])
    databases = [open_database() for _ in range(4)]

    def claim_all(number: int) -> list[str]:
        got = []
        misses = 0
        while misses < 3:  # PostgreSQL passes over rows that another claimer holds at that moment
            job = claim(databases[number], f"w{number}")
            misses = 0 if job else misses + 1
            got += [job["id"]] if job else []
        return got

    claimed = at_once(4, claim_all)

    assert sorted(job for got in claimed for job in got) == [f"job_{number:02}" for number in range(30)]


def test_a_claim_can_be_limited_to_one_job(kind: str, database: Database) -> None:
    submit(database, "job_1", "job_2")

    only = claim(database, only="job_2")

    assert only is not None
    assert only["id"] == "job_2"
    assert claim(database, only="job_2") is None


def test_a_job_of_a_dead_worker_is_claimed_again_and_of_a_living_one_not(kind: str, database: Database) -> None:
    submit(database, "job_1")
    claim(database, "w1")

    assert claim(database, "w2") is None
    again = claim(database, "w2", dead_workers=("w1",))

    assert again is not None
    assert (again["worker"], again["token"]) == ("w2", 2)


def test_a_job_whose_worker_went_silent_is_claimed_again(kind: str, database: Database) -> None:
    submit(database, "job_1")
    claim(database, "w1")

    assert claim(database, "w2", stale_before=AT) is None
    assert claim(database, "w2", stale_before=LATER) is not None


def test_a_worker_that_was_thought_dead_can_write_no_end(kind: str, database: Database) -> None:
    submit(database, "job_1")
    claim(database, "w1")
    claim(database, "w2", dead_workers=("w1",))

    with pytest.raises(Conflict), database.write() as session:
        jobs.finish(session, "job_1", 1, {"status": "succeeded", "result": {"from": "w1"}})
    with database.write() as session:
        jobs.finish(session, "job_1", 2, {"status": "succeeded", "result": {"from": "w2"}, "finished_at": LATER})

    with database.read() as session:
        job = jobs.get(session, "job_1")
    assert job is not None
    assert (job["status"], job["result"], job["worker"]) == ("succeeded", {"from": "w2"}, None)


def test_a_heartbeat_says_whether_the_job_is_still_ones_own(kind: str, database: Database) -> None:
    submit(database, "job_1")
    claim(database, "w1")
    with database.write() as session:
        assert jobs.heartbeat(session, "job_1", 1, LATER)
        assert not jobs.heartbeat(session, "job_1", 2, LATER)
        assert not jobs.heartbeat(session, "job_2", 1, LATER)

    assert claim(database, "w2", stale_before=LATER) is None


def test_a_released_job_waits_again(kind: str, database: Database) -> None:
    submit(database, "job_1")
    claim(database, "w1")
    with database.write() as session:
        jobs.release(session, "job_1", 2)
    assert claim(database, "w2") is None
    with database.write() as session:
        jobs.release(session, "job_1", 1)

    again = claim(database, "w2")

    assert again is not None
    assert again["token"] == 2


def test_a_waiting_job_is_cancelled_at_once_and_a_running_one_is_asked(kind: str, database: Database) -> None:
    submit(database, "job_1", "job_2")
    claim(database, "w1")

    with database.write() as session:
        running, waiting = (
            jobs.end(session, jobs.get(session, name, lock=True) or {}, LATER) for name in ("job_1", "job_2")
        )

    assert (running["status"], running["cancel_requested"]) == ("running", True)
    assert (waiting["status"], waiting["finished_at"]) == ("cancelled", LATER)
    assert claim(database, "w2") is None


def test_an_ended_job_is_queued_again_as_its_next_attempt(kind: str, database: Database) -> None:
    submit(database, "job_1")
    claim(database)
    with database.write() as session:
        jobs.finish(session, "job_1", 1, {"status": "failed", "error": "no model", "finished_at": LATER})
    with database.write() as session:
        again = jobs.requeue(session, jobs.get(session, "job_1", lock=True) or {})

    assert (again["status"], again["attempt"], again["error"], again["finished_at"]) == ("queued", 2, None, None)
    assert (claim(database) or {})["token"] == 2


def test_events_of_a_job_are_numbered_in_order_whoever_writes_them(kind: str, database: Database) -> None:
    submit(database, "job_1", "job_2")

    def add(number: int) -> None:
        with database.write() as session:
            jobs.add_event(session, "job_1", "cases", {"done": number}, AT)

    assert at_once(12, add) == [None] * 12
    with database.write() as session:
        jobs.add_event(session, "job_2", "started", {}, AT)

    with database.read() as session:
        events = jobs.events(session, "job_1")
        assert [event["number"] for event in events] == list(range(1, 13))
        assert sorted(event["data"]["done"] for event in events) == list(range(12))
        assert [event["number"] for event in jobs.events(session, "job_1", after=10)] == [11, 12]
        assert [event["number"] for event in jobs.events(session, "job_1", limit=2)] == [1, 2]
        assert [event["type"] for event in jobs.events(session, "job_2")] == ["started"]


def test_only_its_maker_or_an_admin_cancels_a_job(kind: str, database: Database) -> None:
    queue = Jobs(database)
    job_id = queue.submit("run", {"suite": "s"}, AUTHOR)["job_id"]

    with pytest.raises(Exception, match="another's"):
        queue.cancel(job_id, Principal("key_other", "author"))

    assert queue.cancel(job_id, ADMIN)["status"] == "cancelled"


# ---------------------------------------------------------------------------- routes and evidence


def route(revision: int) -> dict[str, Any]:
    state = {"variants": [{"variant": "a@1+m", "percent": 100.0}]}
    return {"prompt": "a", "revision": revision, "state": state, "action": "set", "actor": "k", "reason": None,
            "evidence_id": f"ev_{revision}", "at": AT}  # fmt: skip


def test_a_route_is_appended_to_and_its_salt_stays(kind: str, database: Database) -> None:
    with database.write() as session:
        assert routes.current(session, "a", for_update=True) is None
        routes.append(session, route(1), "salt-1")
    with database.write() as session:
        routes.append(session, route(2), "salt-2")

    with database.read() as session:
        assert routes.current(session, "a") == {**route(2), "salt": "salt-1"}
        assert routes.all_current(session) == [{**route(2), "salt": "salt-1"}]
        assert [record["revision"] for record in routes.history(session, "a")] == [2, 1]
        assert routes.by_evidence(session, "a", "ev_1") == route(1)


def test_all_routes_are_read_with_one_question(kind: str, database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    made = [{**route(1), "prompt": prompt} for prompt in ("a", "b", "c")]
    with database.write() as session:
        for one in made:
            routes.append(session, one, f"salt-{one['prompt']}")
    asked: list[str] = []

    with database.read() as session:
        execute = type(session).execute

        def counted(self: Any, sql: str, *more: Any, **named: Any) -> Any:
            asked.append(sql)
            return execute(self, sql, *more, **named)

        monkeypatch.setattr(type(session), "execute", counted)
        found = routes.all_current(session)

    assert sorted(found, key=lambda one: one["prompt"]) == [{**one, "salt": f"salt-{one['prompt']}"} for one in made]
    assert len(asked) == 1


def test_a_revision_of_a_route_cannot_be_written_twice(kind: str, database: Database) -> None:
    with database.write() as session:
        routes.append(session, route(1), "salt")

    with pytest.raises(INTEGRITY_ERRORS), database.write() as session:
        routes.append(session, route(1), "salt")


def test_routes_set_at_once_are_numbered_without_gap(
    kind: str, database: Database, tmp_path_factory: pytest.TempPathFactory
) -> None:
    settings = make_settings(tmp_path_factory.mktemp("home"))
    Registry(database, settings).push(Push({"a": triage()}), AUTHOR)
    book = RouteBook(database, settings)

    revisions = at_once(8, lambda _: book.set("a", {"a@1+model-a": 100}, ADMIN, "try")["revision"])

    assert sorted(map(str, revisions)) == [str(number) for number in range(1, 9)]
    assert [record["revision"] for record in book.history("a")] == list(range(8, 0, -1))


def test_evidence_is_written_once_and_never_changed(kind: str, database: Database) -> None:
    record = {"id": "ev_1", "kind": "gate", "prompt": "a", "verdict": "fail", "candidate": "a@1+m",
              "content": {"p": 0.01}, "digest": "sha256:1", "actor": "k", "created_at": AT}  # fmt: skip
    with database.write() as session:
        routes.add_evidence(session, record)
    with database.write() as session:
        routes.add_evidence(session, {**record, "verdict": "pass", "content": {}})

    with database.read() as session:
        assert routes.evidence(session, "ev_1") == record
        assert routes.evidence(session, "ev_2") is None


def look(job_id: str, **changes: str) -> dict[str, Any]:
    return {"job_id": job_id, "prompt": "a", "base_model": "m", "heldout_digest": "sha256:1", "at": AT, **changes}


def test_a_look_counts_once_for_a_job_and_goes_up_for_the_next(kind: str, database: Database) -> None:
    def take(taken: dict[str, Any]) -> int:
        with database.write() as session:
            return routes.take_look(session, taken)

    numbers = [take(look("job_1")), take(look("job_2")), take(look("job_1")), take(look("job_3", base_model="other"))]

    assert numbers == [1, 2, 1, 1]
    with database.read() as session:
        taken = {(one["job_id"], one["number"]) for one in routes.looks(session, "a")}
        assert taken == {("job_1", 1), ("job_2", 2), ("job_3", 1)}
        assert routes.looks(session, "b") == []


def test_looks_at_once_never_share_a_number(kind: str, database: Database) -> None:
    with database.write() as session:
        prompts.lock(session, "a", AT)

    def take(number: int) -> int:
        with database.write() as session:
            return routes.take_look(session, look(f"job_{number}"))

    assert sorted(map(str, at_once(6, take))) == ["1", "2", "3", "4", "5", "6"]


# ---------------------------------------------------------------------------- the rest


def test_an_idempotent_answer_is_kept_for_its_principal_and_key_alone(kind: str, database: Database) -> None:
    record = {"principal": "k1", "key": "once", "body_digest": "sha256:1", "answer": {}, "at": AT}
    with database.write() as session:
        assert keys.reserve(session, record) == record
        keys.settle_answer(session, "k1", "once", {"job_id": "job_1"})

    with database.write() as session:
        other = {**record, "body_digest": "sha256:2"}
        assert keys.reserve(session, other) == {**record, "answer": {"job_id": "job_1"}}
        assert keys.reserve(session, {**other, "principal": "k2"})["body_digest"] == "sha256:2"
        keys.forget_answer(session, "k1", "once")
        assert keys.reserve(session, other) == other


def test_a_revoked_key_is_no_longer_valid_and_stays_listed(kind: str, database: Database) -> None:
    made = create_key(database, "app", actor=ADMIN, note="phone")
    with database.read() as session:
        assert list(keys.valid(session).values()) == [(made["id"], "app", None, None, None)]

    revoke_key(database, made["id"], actor=ADMIN)

    with database.read() as session:
        assert keys.valid(session) == {}
        [listed] = keys.listing(session)
    assert (listed["id"], listed["note"], "digest" in listed) == (made["id"], "phone", False)
    assert listed["revoked_at"] >= listed["created_at"]


def test_what_a_key_may_take_is_kept_and_a_change_is_told_to_every_snapshot(kind: str, database: Database) -> None:
    limits = KeyLimits(requests_per_minute=60, tokens_per_day=10**11)
    made = create_key(database, "app", actor=ADMIN, limits=limits)
    with database.read() as session:
        assert list(keys.valid(session).values()) == [(made["id"], "app", 60, None, 10**11)]
        before = keys.revision(session)

    limit_key(database, made["id"], KeyLimits(tokens_per_minute=5), actor=ADMIN)

    with database.read() as session:
        assert list(keys.valid(session).values()) == [(made["id"], "app", None, 5, None)]
        assert keys.revision(session) == before + 1
        assert [one["action"] for one in keys.audit_log(session, 10)][:2] == ["key.limit", "key.create"]


def test_tokens_of_keys_are_summed_from_where_the_last_look_ended(kind: str, database: Database) -> None:
    days = (("a", "2026-01-01"), ("a", "2026-01-02"), ("b", "2026-01-02"))
    given = [
        Outcome(id=f"c{number}", at=f"{day}T00:00:00.000000+00:00", key_id=key_id, variant="m", status="ok",
                latency_ms=1.0, prompt_tokens=10, completion_tokens=5)
        for number, (key_id, day) in enumerate(days)
    ]  # fmt: skip
    with database.write() as session:
        requests.add_outcomes(session, given)
    with database.read() as session:
        newest, taken = keys.spent_since(session, "2026-01-02T00:00:00.000000+00:00", 0)
        assert taken == {"a": 15, "b": 15}
        assert keys.spent_since(session, "2026-01-02T00:00:00.000000+00:00", newest) == (newest, {})


def test_making_and_ending_a_key_is_told_to_every_snapshot(kind: str, database: Database) -> None:
    def revision() -> int:
        with database.read() as session:
            return keys.revision(session)

    before = revision()
    made = create_key(database, "app", actor=ADMIN)
    assert revision() == before + 1
    revoke_key(database, made["id"], actor=ADMIN)
    assert revision() == before + 2


def test_cases_of_a_run_are_written_once_and_read_in_the_order_of_the_suite(kind: str, database: Database) -> None:
    run = {"id": "run_1", "suite": "s", "suite_version": 1, "variant": "a@1+m", "status": "running", "started_at": AT}
    cases = [{"case_id": f"c{index}", "repeat": 0, "index": index, "status": "passed"} for index in (2, 0, 1)]
    with database.write() as session:
        runs.start(session, run)
        runs.add_cases(session, "run_1", cases)
        runs.add_cases(session, "run_1", [{**cases[0], "status": "failed"}])
        runs.start(session, {**run, "variant": "another"})
        runs.finish(session, "run_1", "finished", {"passed": 3}, LATER)

    with database.read() as session:
        assert [row["index"] for row in runs.cases(session, "run_1")] == [0, 1, 2]
        assert list(runs.cases(session, "run_1", ("failed",))) == []
        found = runs.get(session, "run_1")
        assert found == {**run, "status": "finished", "summary": {"passed": 3}, "finished_at": LATER}
        assert runs.newest_finished(session, "s", "a@1+m") == found
        assert runs.newest_finished(session, "s", "a@2+m") is None


def test_the_cache_gives_back_what_was_answered(kind: str, database: Database) -> None:
    with database.read() as session:
        assert not runs.has_cached(session)
    with database.write() as session:
        runs.remember(session, [("key", {"text": "é"}), ("key", {"text": "ü"}), ("another", {"text": "🚆"})], AT)

    with database.read() as session:
        assert runs.has_cached(session)
        found = runs.cached(session, ["key", "other"])
    assert {key: json.loads(text) for key, text in found.items()} == {"key": {"text": "é"}}


def test_a_run_can_be_given_what_passed_in_another(kind: str, database: Database) -> None:
    run = {"suite": "s", "suite_version": 1, "variant": "a@1+m", "status": "running", "started_at": AT}
    statuses = ("passed", "failed", "passed")
    cases = [{"case_id": f"c{i}", "repeat": 0, "index": i, "status": status} for i, status in enumerate(statuses)]
    with database.write() as session:
        for run_id in ("run_1", "run_2"):
            runs.start(session, {**run, "id": run_id})
        runs.add_cases(session, "run_1", cases)
        runs.copy_passed(session, "run_1", "run_2", 1)
        runs.copy_passed(session, "run_1", "run_2", 1)

    with database.read() as session:
        assert [row["case_id"] for row in runs.cases(session, "run_2")] == ["c0", "c2"]


def test_what_cases_came_to_is_written_anew_for_those_that_are_there(kind: str, database: Database) -> None:
    run = {"suite": "s", "suite_version": 1, "variant": "a@1+m", "status": "running", "started_at": AT}
    cases = [{"case_id": f"c{i}", "repeat": r, "index": i, "status": "skipped"} for i in range(2) for r in (1, 0)]
    with database.write() as session:
        for run_id in ("run_1", "run_2"):
            runs.start(session, {**run, "id": run_id})
            runs.add_cases(session, run_id, cases)
        runs.settle_cases(session, "run_1", [{**cases[0], "status": "passed"}, {**cases[3], "status": "failed"}])
        runs.settle_cases(session, "run_1", [{**cases[0], "status": "failed"}, {**cases[0], "case_id": "none"}])

    with database.read() as session:
        found = [(row["case_id"], row["repeat"], row["status"]) for row in runs.results_of(session, "run_1", ["c0"])]
        assert found == [("c0", 0, "skipped"), ("c0", 1, "failed")]
        assert [row["status"] for row in runs.results_of(session, "run_1", ["c1", "none"])] == ["failed", "skipped"]
        assert [row["case_id"] for row in runs.cases(session, "run_1", ("failed",))] == ["c0", "c1"]
        assert {row["status"] for row in runs.results_of(session, "run_2", ["c0", "c1"])} == {"skipped"}


def test_a_run_of_some_cases_is_not_the_last_run_of_a_suite(kind: str, database: Database) -> None:
    run = {"suite": "s", "suite_version": 1, "variant": "a@1+m", "status": "running"}
    with database.write() as session:
        for number, summary in enumerate(({"passed": 3}, {"passed": 1, "filter": {"first": 1}})):
            runs.start(session, {**run, "id": f"run_{number}", "started_at": f"{number}"})
            runs.finish(session, f"run_{number}", "finished", summary, LATER)
        runs.start(session, {**run, "id": "run_2", "started_at": "2"})
        assert runs.interrupt(session, "run_2", LATER) == (0, 0)

    with database.read() as session:
        found = runs.newest_finished(session, "s", "a@1+m")
        assert found is not None
        assert found["id"] == "run_0"
        assert [row["id"] for row in runs.unfinished(session, "s", 1, "a@1+m")] == ["run_2"]
        assert runs.unfinished(session, "s", 2, "a@1+m") == []


def test_a_run_that_is_interrupted_tells_answers_from_errors(kind: str, database: Database) -> None:
    run = {"suite": "s", "suite_version": 1, "variant": "a@1+m", "status": "running", "started_at": AT}
    statuses = ("passed", "errored", "failed", "errored", "errored")
    with database.write() as session:
        runs.start(session, {**run, "id": "run_1"})
        cases = [{"case_id": f"c{i}", "repeat": 0, "index": i, "status": status} for i, status in enumerate(statuses)]
        runs.add_cases(session, "run_1", cases)
        assert runs.interrupt(session, "run_1", LATER) == (2, 3)


def test_cases_of_a_large_suite_are_read_in_chunks_by_its_digest(kind: str, database: Database) -> None:
    with database.write() as session:
        suites.add_chunks(session, "sha256:1", [b"one", b"two", b"three"])
        suites.add_chunks(session, "sha256:1", [b"one", b"two", b"three"])  # the same suite by another name

    chunks = suites.Chunks(database, "sha256:1", 3)
    assert list(chunks) == [b"one", b"two", b"three"]
    assert (chunks[-1], chunks[0:2]) == (b"three", [b"one", b"two"])


def test_the_tables_of_an_empty_file_are_those_that_the_migrations_make(kind: str, tmp_path: Path) -> None:
    if kind != "sqlite":
        return  # migrated by Alembic alone
    shapes = []
    for name, make in (("described", Database.migrate), ("migrated", Database.upgrade)):
        database = Database(f"sqlite:///{tmp_path / name}.db")
        make(database)
        with database.read() as session:
            revision = session.rows("SELECT * FROM revision")
            version = session.value("SELECT version_num FROM alembic_version")
        found = inspect(create_engine(database.url))
        columns = {
            table: sorted(
                (c["name"], str(c["type"]), c["nullable"], c["primary_key"]) for c in found.get_columns(table)
            )
            for table in found.get_table_names()
        }
        indexes = {t: sorted(i["name"] or "" for i in found.get_indexes(t)) for t in columns}
        shapes.append((columns, indexes, revision, version))
        database.close()
    assert shapes[0] == shapes[1]


def logged(number: int, at: str = AT, **more: Any) -> Outcome:
    about = {"prompt": "a", "variant": "a@1+m", "route_revision": 1, **more}
    return Outcome(id=f"c{number}", at=at, key_id="k", status="ok", latency_ms=1.5, **about)


def test_request_rows_older_than_their_retention_are_forgotten(kind: str, database: Database) -> None:
    with database.write() as session:
        requests.add_outcomes(session, [logged(1, LONG_AGO), logged(2, is_valid=False, trace_id="t", cost_usd=0.5)])
        requests.add_outcomes(session, [logged(2)])
        assert requests.forget_before(session, AT) == 1

    with database.read() as session:
        [row] = newest(session, Question(prompt="a"), 10)
        assert requests.get(session, "c1") is None
    assert (row["id"], row["is_valid"], row["is_stream"], row["attempts"], row["trace_id"]) == (
        "c2",
        False,
        False,
        1,
        "t",
    )
    assert (row["cost_usd"], row["unit"], row["latency_ms"]) == (0.5, None, 1.5)


def test_log_rows_are_numbered_on_where_all_were_forgotten(kind: str, database: Database) -> None:
    with database.write() as session:
        requests.add_outcomes(session, [logged(1), logged(2)])
    with database.read() as session:
        last = rollouts.outcomes(session, "a", 1, 0, 10)[-1].seq
    with database.write() as session:
        requests.forget_before(session, LATER)
        requests.add_outcomes(session, [logged(3)])

    with database.read() as session:
        assert [row.id for row in rollouts.outcomes(session, "a", 1, last, 10)] == ["c3"]


def test_whoever_reads_on_behind_the_last_number_misses_no_row_of_replicas_that_write_at_once(
    kind: str, open_database: Open
) -> None:
    replicas, reader = [open_database() for _ in range(3)], open_database()
    done = threading.Event()
    seen: list[str] = []

    def write(number: int) -> None:
        for batch in range(20):
            ids = [1000 * number + 10 * batch + each for each in range(5)]
            with replicas[number].write() as session:
                requests.add_outcomes(session, [logged(each) for each in ids])
                time.sleep(0.001 * (number % 3))  # numbers were given, and are not visible yet

    def read() -> None:
        last = 0
        while True:
            is_last = done.is_set()
            with reader.read() as session:
                rows = rollouts.outcomes(session, "a", 1, last, 1000)
            seen.extend(row.id for row in rows)
            last = rows[-1].seq if rows else last
            if is_last:
                return

    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(read)
        assert at_once(3, write) == [None] * 3
        done.set()
        reading.result(30)

    assert len(seen) == len(set(seen)) == 300


def test_what_was_logged_and_said_before_is_kept_by_the_migration(kind: str, empty_url: str) -> None:
    database = Database(empty_url)
    upgrade_to(database, "0005")
    with database.write() as session:
        for number, at in ((1, LATER), (2, AT)):
            session.run(
                "INSERT INTO request (id, at, key_id, prompt, variant, status, latency_ms, prompt_tokens, completion_tokens)"
                " VALUES (:id, :at, 'k', 'a', 'a@1+m', 'ok', 1.5, 3, 1)", id=f"c{number}", at=at,
            )  # fmt: skip
        for number, value in enumerate(("true", '"good"', "0.5", None)):
            session.run(
                "INSERT INTO feedback (id, completion_id, metric, value, key_id, at) VALUES (:id, 'c1', 'm', :value, 'k', :at)",
                id=f"f{number}", value=value, at=f"{AT}.{number}",
            )  # fmt: skip

    database.migrate()

    with database.read() as session:
        assert [row["id"] for row in newest(session, Question(), 9)] == ["c1", "c2"]
        assert [row["score"] for row in requests.feedback(session, "c1")] == [1.0, None, 0.5, None]
        assert requests.get(session, "c2") == {**requests.get(session, "c1"), "id": "c2", "at": AT, "seq": 1}  # type: ignore[dict-item]
    database.close()


def upgrade_to(database: Database, revision: str) -> None:
    engine = create_engine(database.url)
    with engine.begin() as connection:
        command.upgrade(configured(connection, MIGRATIONS), revision)
    engine.dispose()


def test_feedback_of_any_kind_of_value_is_kept_in_order(kind: str, database: Database) -> None:
    with database.write() as session:
        for number, value in enumerate((1.5, True, "good", None)):
            requests.add_feedback(
                session,
                {"id": f"fb_{number}", "completion_id": "c1", "metric": "rating", "value": value, "comment": None,
                 "correction": None, "key_id": "k", "at": f"2026-01-01T00:00:0{number}"},
            )  # fmt: skip

    with database.read() as session:
        assert [row["value"] for row in requests.feedback(session, "c1")] == [1.5, True, "good", None]


def test_a_database_that_is_not_there_is_told_in_our_own_words(kind: str, database: Database) -> None:
    gone = Database(f"{database.url}-gone/db" if kind == "sqlite" else database.url.replace("test_", "gone_"))

    with pytest.raises(StorageFailed, match="nothing was written"), gone.read() as session:
        keys.revision(session)
    gone.close()


def test_a_reader_is_not_held_up_by_a_writer(kind: str, open_database: Open) -> None:
    writer, reader = open_database(), open_database()
    with writer.write() as session:
        prompts.lock(session, "a", AT)
        started = time.monotonic()
        with reader.read() as other:
            assert not prompts.exists(other, "a")
        assert time.monotonic() - started < 5


def test_schedules_are_those_of_the_versions_that_bare_names_mean(kind: str, database: Database) -> None:
    registry = Registry(database, make_settings(Path("/nowhere")))
    tests = [{"vars": {"ticket": "x"}, "assert": [{"type": "equals", "value": "y"}]}]
    one = {"prompt": "support.triage", "tests": tests, "schedule": "0 3 * * *"}
    two = {**one, "schedule": "0 4 * * *", "thresholds": {"pass_rate": 0.5}}
    registry.push(Push({"support.triage": triage()}, {"a": one, "b": one}, Origin()), ADMIN)
    with database.read() as session:
        assert [(s.suite, s.schedule, s.has_thresholds) for s in suites.scheduled(session)] == [
            ("a", "0 3 * * *", False),
            ("b", "0 3 * * *", False),
        ]
        before = suites.last_push(session)
    registry.push(Push({}, {"a": two, "b": {"prompt": "support.triage", "tests": tests}}, Origin()), ADMIN)
    with database.read() as session:
        assert [(s.suite, s.schedule, s.has_thresholds) for s in suites.scheduled(session)] == [
            ("a", "0 4 * * *", True)
        ]
        assert (suites.last_push(session) or "") > (before or "")

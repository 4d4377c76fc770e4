"""`turnout requests`: shown, and written to files as they come."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from service.cli import requests as command
from service.ids import ago
from service.settings import load_settings
from service.store import requests
from service.store.database import Database
from tests.service.cli.projects import Project
from tests.service.test_request_log import outcome, row


@pytest.fixture
def database(workspace: Project) -> Iterator[Database]:
    workspace.write_all()
    database = Database(load_settings().database_url)
    database.migrate()
    with database.write() as session:
        requests.add_outcomes(
            session, [outcome(number, at=ago(60 * number), prompt="ab"[number % 2]) for number in range(7)]
        )
    yield database
    database.close()


def ids(rows: list[dict[str, Any]]) -> list[str]:
    return [each["id"] for each in rows]


@pytest.mark.usefixtures("database")
def test_requests_are_shown_newest_first_and_narrowed(workspace: Project) -> None:
    assert ids(workspace.json("requests", "--local")) == [f"chatcmpl-{number}" for number in range(7)]
    found = workspace.json("requests", "--local", "--prompt", "a", "--since", "150s", "--limit", "1")
    assert ids(found) == ["chatcmpl-0"]
    code, out, err = workspace.run("requests", "--local", "--status", "failed")
    assert (code, out, "no request fits" in err) == (0, "", True)


def test_the_table_shows_seconds_and_the_beginning_of_an_error() -> None:
    given = {
        "id": "chatcmpl-1", "variant": "a@1+m", "status": "ModelRefused", "at": "2026-01-31T08:00:01.234567+00:00",
        "latency_ms": 12.345, "prompt_tokens": 12, "completion_tokens": 5, "cost_usd": 0.00000483, "error": "e" * 500,
    }  # fmt: skip

    assert command._shown(given) == {
        "id": "chatcmpl-1", "variant": "a@1+m", "status": "ModelRefused", "at (UTC)": "2026-01-31 08:00:01",
        "ms": "12.3", "tokens": "12+5", "usd": "4.8e-06", "error": "e" * 60 + "…",
    }  # fmt: skip
    assert command._shown({**given, "error": None, "cost_usd": None})["usd"] is None


@pytest.mark.usefixtures("database")
def test_an_export_has_every_row_once_whatever_its_pages(workspace: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "PAGE", 2)
    told = workspace.json("requests", "--local", "--export", "log.jsonl")
    lines = [json.loads(line) for line in (workspace.folder / "log.jsonl").read_text().splitlines()]

    assert told == {"requests": 7, "file": "log.jsonl"}
    assert ids(lines) == [f"chatcmpl-{number}" for number in range(7)]
    assert set(lines[0]) == {"seq", *row(1)}
    assert (lines[0]["is_stream"], lines[0]["cost_usd"], lines[0]["latency_ms"]) == (False, None, 1.0)
    workspace.json("requests", "--local", "--export", "log.jsonl", "--limit", "3")
    assert len((workspace.folder / "log.jsonl").read_text().splitlines()) == 3


def test_an_export_to_parquet_has_the_types_of_the_log(
    workspace: Project, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    monkeypatch.setattr(command, "PAGE", 2)
    with database.write() as session:
        requests.add_outcomes(
            session, [outcome(9, at=ago(9_999), is_valid=False, cost_usd=0.25, trace_id="t", error="–")]
        )
    workspace.json("requests", "--local", "--export", "log.parquet")
    table = parquet.read_table(workspace.folder / "log.parquet")
    rows = table.to_pylist()

    assert {name: str(table.schema.field(name).type) for name in ("seq", "at", "latency_ms", "is_valid", "attempts")} == {
        "seq": "int64", "at": "string", "latency_ms": "double", "is_valid": "bool", "attempts": "int64",
    }  # fmt: skip
    assert len(rows) == 8
    assert rows[7] == {**row(9, is_valid=False, cost_usd=0.25, trace_id="t", error="–"), "at": rows[7]["at"], "seq": 8}


@pytest.mark.usefixtures("database")
def test_an_export_of_nothing_is_a_file_of_nothing(workspace: Project) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    for name in ("none.jsonl", "none.parquet"):
        assert workspace.json("requests", "--local", "--trace-id", "c", "--export", name)["requests"] == 0

    assert (workspace.folder / "none.jsonl").read_text() == ""
    assert parquet.read_table(workspace.folder / "none.parquet").num_rows == 0


@pytest.mark.usefixtures("database")
def test_an_export_that_fails_leaves_what_was_there(workspace: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    workspace.write("log.jsonl", "before")

    def fail(*_: Any) -> None:
        raise OSError(28, "No space left on device", "log.jsonl")

    monkeypatch.setattr(command._Lines, "write", fail)
    code, _, err = workspace.run("requests", "--local", "--export", "log.jsonl")

    assert (code, "No space left" in err) == (4, True)
    assert [path.name for path in workspace.folder.glob("*log.jsonl*")] == ["log.jsonl"]
    assert (workspace.folder / "log.jsonl").read_text() == "before"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(("--export", "log.csv"), "FILE.jsonl or FILE.parquet"), (("--since", "soon"), "write an age"),
     (("--below", "1"), "--metric")],
)  # fmt: skip
def test_what_cannot_be_meant_is_bad_usage(workspace: Project, arguments: tuple[str, ...], said: str) -> None:
    workspace.write_all()
    code, _, err = workspace.run("requests", "--local", *arguments)

    assert (code, said in err) == (2, True)


@pytest.mark.usefixtures("database")
def test_without_pyarrow_the_extra_is_named(workspace: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    code, _, err = workspace.run("requests", "--local", "--export", "log.parquet")

    assert (code, "turnout[parquet]" in err) == (2, True)


def test_the_service_is_asked_page_by_page_and_for_a_prompt_as_an_author_may(
    workspace: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, dict[str, Any]]] = []

    class Service:
        def call(self, method: str, path: str, *, params: dict[str, Any]) -> list[dict[str, Any]]:
            asked.append((path, dict(params)))
            return [row(1, at="t1") | {"seq": 5}, row(2, at="t0") | {"seq": 4}][: 2 if len(asked) == 1 else 1]

    monkeypatch.setattr(command, "PAGE", 2)
    monkeypatch.setattr("service.cli.calling.client", lambda local: Service())
    workspace.write_all()
    assert len(workspace.json("requests", "--prompt", "a", "--metric", "m", "--below", "0.5")) == 3

    about = {"metric": "m", "below": 0.5, "limit": 2}
    assert asked == [("/api/prompts/a/requests", about), ("/api/prompts/a/requests", {**about, "after": "t0,4"})]

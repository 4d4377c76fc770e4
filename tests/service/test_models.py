"""What is made from the models: `schema.sql`, `tables.py`, and the migration that a changed model needs."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlmodel import SQLModel
from sqlmodel.sql.sqltypes import AutoString

from service.outcome import Outcome
from service.store import revise, tables
from service.store.database import MIGRATIONS
from service.store.describe import files, main
from service.store.records import Table


def test_schema_and_tables_are_what_the_models_give() -> None:
    made = files()

    assert sorted(path.name for path in made) == ["schema.sql", "tables.py"]
    for path, text in made.items():
        assert path.read_text("utf-8") == text, f"{path.name}: run `python -m service.store.describe`"


def test_describe_writes_both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.store.describe._FOLDER", tmp_path)

    main()

    for name in ("schema.sql", "tables.py"):
        assert (tmp_path / name).read_bytes() == MIGRATIONS.with_name(name).read_bytes()


def test_rows_that_are_numbered_are_got_by_what_means_something() -> None:
    assert (
        Table(
            name="prompt_version",
            columns=("id", "name", "number", "digest", "content", "about", "author", "message", "created_at", "draft"),
            key=("name", "number"),
            json=frozenset({"content", "about"}),
            flags=frozenset({"draft"}),
            defaults={"draft": False},
            numbered="id",
        )
        == tables.PROMPT_VERSION
    )
    assert (tables.AUDIT.key, tables.AUDIT.numbered) == (("id",), "id")
    assert (tables.API_KEY.key, tables.API_KEY.numbered) == (("id",), "")


def test_the_request_log_has_every_field_of_an_outcome_and_its_defaults() -> None:
    given = {
        field.name: field.default for field in dataclasses.fields(Outcome) if field.default is not dataclasses.MISSING
    }

    assert set(tables.REQUEST.columns) == {"seq", *(field.name for field in dataclasses.fields(Outcome))}
    assert tables.REQUEST.defaults == {name: value for name, value in given.items() if value is not None}


def test_a_record_may_leave_out_what_has_a_default() -> None:
    assert tables.JOB.defaults == {"attempt": 1, "token": 0, "cancel_requested": False}
    assert tables.ROUTE.defaults == {}


@pytest.fixture
def extra() -> Iterator[None]:
    """A table that no migration makes."""
    columns = (sa.Column("id", AutoString(), primary_key=True), sa.Column("at", AutoString(), index=True))
    table = sa.Table("extra", SQLModel.metadata, *columns)
    yield
    SQLModel.metadata.remove(table)


@pytest.mark.usefixtures("extra")
def test_revise_writes_the_migration_that_the_models_need(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = shutil.copytree(MIGRATIONS, tmp_path / "migrations")
    before = set(folder.rglob("*.py"))
    newest = max(path.name for path in (MIGRATIONS / "versions").glob("[0-9]*.py"))[:4]
    monkeypatch.setattr(revise, "MIGRATIONS", folder)

    assert revise.main(["One more table"]) == 0

    [written] = set(folder.rglob("*.py")) - before
    assert written.name == f"{int(newest) + 1:04}_one_more_table.py"
    text = written.read_text()
    assert f"down_revision = '{newest}'" in text
    assert [line.strip() for line in text.splitlines() if "op." in line or "sa." in line] == [
        "op.create_table('extra',",
        "sa.Column('id', sa.String(), nullable=False),",
        "sa.Column('at', sa.String(), nullable=True),",
        "sa.PrimaryKeyConstraint('id')",
        "with op.batch_alter_table('extra', schema=None) as batch_op:",
        "batch_op.create_index(batch_op.f('ix_extra_at'), ['at'], unique=False)",
    ]


@pytest.mark.parametrize("arguments", [[], ["--help"], ["two", "words"]])
def test_revise_wants_to_know_what_changes(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert revise.main(arguments) == 2
    assert capsys.readouterr().err == 'usage: python -m service.store.revise "what changes"\n'

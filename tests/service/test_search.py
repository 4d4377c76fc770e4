"""Lists and searches of prompts: what is found, in what order, by how many statements."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import create_engine, text

from service.registry import Origin, Push, Registry, Search
from service.store.database import Database
from service.store.session import Session
from tests.service.conftest import ADMIN, AUTHOR, BOTH, make_settings

MIGRATIONS = Path(__file__).parents[2] / "service" / "store" / "migrations"


def prompt(text: str = "Say {{ x }}.", **more: Any) -> dict[str, Any]:
    return {"model": "model-a", "messages": [{"role": "user", "content": text}], **more}


FILES = {
    "billing.refund": prompt("Explain the refund of {{ x }}.", name="Refunds", tags=["billing", "eu"]),
    "billing.invoice": prompt(description="Rechnung für Straße und Platz", tags=["billing"], model="model-b"),
    "support.triage": prompt(notes="Fails on REFUND requests in 100% of trials", tags=["Billing", 'a"b']),
    "support.tone": prompt("Answer in snake_case\\now, ÉLAN!"),
}


@pytest.fixture
def registry(kind: str, database: Database, tmp_path: Path) -> Registry:
    registry = Registry(database, make_settings(tmp_path / "home"))
    registry.push(Push(FILES), AUTHOR)
    registry.move_label("billing.refund", "staging", 1, AUTHOR)
    registry.move_label("support.tone", "staging", 1, AUTHOR)
    registry.move_label("support.tone", "production", 1, ADMIN, reason="first")
    return registry


def names(registry: Registry, query: str = "", **more: Any) -> list[str]:
    return [entry["name"] for entry in registry.listing(Search(query, **more))]


pytestmark = BOTH


def test_without_a_query_every_prompt_is_listed_by_name(registry: Registry) -> None:
    assert names(registry) == ["billing.invoice", "billing.refund", "support.tone", "support.triage"]
    assert registry.listing()[1] == {
        "name": "billing.refund",
        "latest": 1,
        "labels": {"staging": 1},
        "title": "Refunds",
        "description": None,
        "tags": ["billing", "eu"],
        "model": "model-a",
    }


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("refund", ["billing.refund", "support.triage"]),  # name, title, message; notes
        ("REFUND", ["billing.refund", "support.triage"]),
        ("billing.ref", ["billing.refund"]),
        ("strasse", ["billing.invoice"]),  # ß is ss where case does not matter
        ("FÜR", ["billing.invoice"]),
        ("e\u0301lan", ["support.tone"]),  # an accent written as a character of its own
        ("platz rechnung", ["billing.invoice"]),  # every word, in any order
        ("platz refund", []),
        ("100%", ["support.triage"]),
        ("snake_case", ["support.tone"]),
        ("snake%case", []),  # a wildcard is a letter like any other
        ("snakexcase", []),
        ("case\\now", ["support.tone"]),
        ("/", []),
        ("'; DROP TABLE prompt; --", []),
        ("   ", ["billing.invoice", "billing.refund", "support.tone", "support.triage"]),
    ],
)
def test_a_query_is_looked_for_in_all_that_a_page_shows(registry: Registry, query: str, found: list[str]) -> None:
    assert names(registry, query) == found


def test_tags_models_and_labels_narrow_the_list(registry: Registry) -> None:
    assert names(registry, tag="billing") == ["billing.invoice", "billing.refund"]
    assert names(registry, tag="Billing") == names(registry, tag='a"b') == ["support.triage"]
    assert names(registry, tag="bill") == names(registry, tag="%") == []
    assert names(registry, model="model-b") == ["billing.invoice"]
    assert names(registry, label="staging") == ["billing.refund", "support.tone"]
    assert names(registry, label="production") == ["support.tone"]
    assert len(names(registry, label="latest")) == 4
    assert names(registry, "refund", tag="billing", model="model-a", label="staging") == ["billing.refund"]
    assert names(registry, "refund", label="production") == []


def test_a_list_is_read_page_by_page(registry: Registry) -> None:
    assert names(registry, limit=2) == ["billing.invoice", "billing.refund"]
    assert names(registry, limit=2, after="billing.refund") == ["support.tone", "support.triage"]
    assert names(registry, limit=2, after="support.triage") == []
    assert registry.listing(Search(limit=1, after="billing.refund"))[0]["labels"] == {"production": 1, "staging": 1}


def test_the_newest_pushed_version_is_what_is_found(registry: Registry) -> None:
    registry.push(Push({"support.tone": prompt("Be kind.", tags=["voice"])}), AUTHOR)
    registry.push(Push({"support.tone": prompt("A draft.", tags=["draft"])}, origin=Origin(draft=True)), AUTHOR)

    assert names(registry, "snake") == names(registry, "draft") == names(registry, tag="draft") == []
    assert names(registry, "kind", tag="voice") == ["support.tone"]


def test_documentation_that_changes_is_found_at_once(registry: Registry) -> None:
    registry.push(Push({"support.tone": {**FILES["support.tone"], "tags": ["voice"], "notes": "Good in May."}}), AUTHOR)

    assert names(registry, "may", tag="voice") == ["support.tone"]


def test_what_is_said_of_an_old_version_is_not_said_of_the_newest(registry: Registry) -> None:
    registry.push(Push({"support.tone": prompt("Be kind.")}), AUTHOR)
    registry.push(Push({"support.tone": {**FILES["support.tone"], "notes": "the first one"}}), AUTHOR)

    assert names(registry, "first one") == []
    assert names(registry, "kind") == ["support.tone"]


def test_a_draft_is_found_once_it_is_pushed_or_a_label_points_to_it(registry: Registry) -> None:
    registry.push(Push({name: prompt("Rhubarb.") for name in ("one", "two")}, origin=Origin(draft=True)), AUTHOR)
    assert names(registry, "rhubarb") == []

    registry.push(Push({"one": prompt("Rhubarb.")}), AUTHOR)
    registry.move_label("two", "staging", 1, AUTHOR)

    assert names(registry, "rhubarb") == ["one", "two"]


def test_a_thousand_prompts_are_listed_by_two_statements(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    registry.push(Push({f"many.p{number}": prompt(labels=["staging"]) for number in range(300)}), AUTHOR)
    said: list[str] = []
    rows = Session.rows
    monkeypatch.setattr(Session, "rows", lambda self, sql, **values: said.append(sql) or rows(self, sql, **values))
    monkeypatch.setattr(Session, "row", None)

    found = registry.listing(Search("say", label="staging"))

    assert (len(found), found[0]["labels"]) == (300, {"staging": 1})
    assert len(said) == 2


def test_prompts_of_an_older_database_are_found_after_the_migration(kind: str, empty_url: str, tmp_path: Path) -> None:
    database = Database(empty_url)
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    engine = create_engine(database.url)
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
        connection.execute(text("INSERT INTO prompt (name, created_at) VALUES ('old', 't')"))
        content = '{"messages": [{"role": "user", "content": "ÉTÉ %d"}], "model": "model-a"}'
        for number, draft in ((1, False), (2, False), (3, True)):
            connection.execute(
                text(
                    "INSERT INTO prompt_version (name, number, digest, content, about, author, created_at, draft)"
                    " VALUES ('old', :number, :digest, :content, :about, 'k', 't', :draft)"
                ),
                {"number": number, "digest": str(number), "content": content % number, "draft": draft,
                 "about": '{"title": "T", "tags": ["x", "x", "y"]}'},
            )  # fmt: skip
    engine.dispose()
    database.migrate()
    registry = Registry(database, make_settings(tmp_path / "home"))

    [found] = registry.listing(Search("été 2", tag="y"))
    assert (found["latest"], found["title"], found["tags"]) == (2, "T", ["x", "x", "y"])
    assert registry.listing(Search("été 3")) == []
    database.close()

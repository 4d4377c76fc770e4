"""Versions: numbered without gap whoever pushes at once, all or none of a folder, and what is known about each."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from prompts.errors import BadFile
from service.errors import NeedsEvidence, NotFound
from service.registry import Origin, Push, Registry
from service.store import keys
from service.store.database import Database
from tests.service.conftest import ADMIN, AUTHOR, BOTH, case, make_settings, suite, triage
from tests.service.test_store import at_once

NAME = "support.triage"
ROOT = Path(__file__).parents[2]


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    database = Database(f"sqlite:///{tmp_path / 'turnout.db'}")
    database.migrate()
    return Registry(database, make_settings(tmp_path / "home"))


def seeded(seed: int) -> dict[str, Any]:
    return triage(modelParameters={"seed": seed})


# ---------------------------------------------------------------------------- at once


def push_at_once(registry: Registry, seeds: list[int]) -> list[dict[str, Any]]:
    """One thread a push, all started together."""
    written = at_once(len(seeds), lambda i: registry.push(Push({NAME: seeded(seeds[i])}), AUTHOR)[0])
    assert [entry for entry in written if not isinstance(entry, dict)] == []
    return written


@pytest.mark.integration
@BOTH
def test_two_hundred_contents_pushed_at_once_are_numbered_without_gap(
    kind: str, database: Database, tmp_path: Path
) -> None:
    registry = Registry(database, make_settings(tmp_path / "home"))

    written = push_at_once(registry, list(range(200)))

    assert sorted(entry["version"] for entry in written) == list(range(1, 201))
    assert len({entry["digest"] for entry in written}) == 200
    assert registry.history(NAME)["labels"] == {"latest": 200}
    [listed] = registry.listing()
    assert listed["latest"] == 200


@pytest.mark.integration
@BOTH
def test_one_content_pushed_two_hundred_times_at_once_is_made_once(
    kind: str, database: Database, tmp_path: Path
) -> None:
    registry = Registry(database, make_settings(tmp_path / "home"))

    written = push_at_once(registry, [7] * 200)

    assert {entry["version"] for entry in written} == {1}
    assert sum(entry["created"] for entry in written) == 1


@pytest.mark.integration
@BOTH
def test_two_hundred_pushes_of_forty_contents_have_one_winner_each(
    kind: str, database: Database, tmp_path: Path
) -> None:
    registry = Registry(database, make_settings(tmp_path / "home"))

    written = push_at_once(registry, [number % 40 for number in range(200)])

    assert sorted({entry["version"] for entry in written}) == list(range(1, 41))
    assert sum(entry["created"] for entry in written) == 40
    assert len({(entry["digest"], entry["version"]) for entry in written}) == 40


PUSHER = """
import json, sys
from service.identity import LOCAL_ADMIN
from service.registry import Push, Registry
from service.settings import Settings
from service.store.database import Database
home, first, data = sys.argv[1], int(sys.argv[2]), json.loads(sys.argv[3])
settings = Settings.model_validate({"home": home, "project": home})
registry = Registry(Database(settings.database_url), settings)
sys.stdin.readline()
for seed in range(first, first + 25):
    entry = registry.push(Push({"a": {**data, "modelParameters": {"seed": seed % 50}}}), LOCAL_ADMIN)[0]
    print(entry["version"], entry["created"])
"""


@pytest.mark.integration
def test_processes_that_push_at_once_number_without_gap(tmp_path: Path) -> None:
    """Four processes, fifty contents, each pushed by two of them."""
    settings = make_settings(tmp_path)
    Database(settings.database_url).migrate()
    children = [
        subprocess.Popen(
            [sys.executable, "-c", PUSHER, str(tmp_path), str(first), json.dumps(triage())],
            cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        for first in (0, 25, 50, 75)
    ]  # fmt: skip
    for child in children:
        assert child.stdin is not None
        child.stdin.write("go\n")
        child.stdin.flush()
    lines = [line.split() for child in children for line in child.communicate(timeout=120)[0].splitlines()]

    assert [child.returncode for child in children] == [0, 0, 0, 0]
    assert len(lines) == 100
    assert sorted({int(version) for version, _ in lines}) == list(range(1, 51))
    assert sum(created == "True" for _, created in lines) == 50


@BOTH
def test_pushes_that_touch_the_same_prompts_in_another_order_do_not_wait_in_a_circle(
    kind: str, database: Database, tmp_path: Path
) -> None:
    """Each pushes a prompt of its own and a suite of the other's."""
    registry = Registry(database, make_settings(tmp_path / "home"))
    registry.push(Push({"a": triage(), "z": triage()}), AUTHOR)

    def push(number: int) -> list[dict[str, Any]]:
        mine, others = ("a", "z") if number % 2 else ("z", "a")
        tests = {**suite(case("x", "y")), "prompt": others}
        return registry.push(Push({mine: seeded(number)}, {f"s{number}": tests}), AUTHOR)

    written = at_once(16, push)

    assert [entry for entry in written if not isinstance(entry, list)] == []
    assert {registry.history(name)["labels"]["latest"] for name in ("a", "z")} == {9}


# ---------------------------------------------------------------------------- all or none


def nothing_is_there(registry: Registry, *names: str) -> bool:
    for name in names:
        with pytest.raises(NotFound):
            registry.history(name)
    return registry.listing() == [] and registry.suites() == []


def test_one_bad_file_of_many_writes_none(registry: Registry) -> None:
    files = {f"p{number:03}": triage() for number in range(100)}
    files["p050"] = triage(messages=[{"role": "user", "content": "{{ undeclared }}"}])

    with pytest.raises(BadFile, match="undeclared"):
        registry.push(Push(files), AUTHOR)

    assert nothing_is_there(registry, "p000", "p099")


@pytest.mark.parametrize(
    "late",
    [
        {"prompts": {"b": triage(messages=[{"role": "user", "content": "{% include 'no.such' %}"}], variables={})}},
        {"suites": {"s": {**suite(case("x", "y")), "prompt": "no.such"}}},
    ],
)
def test_a_fault_that_only_the_database_can_tell_writes_none(registry: Registry, late: dict[str, Any]) -> None:
    prompts = {"a": triage(), **late.get("prompts", {})}

    with pytest.raises(BadFile, match=r"no\.such"):
        registry.push(Push(prompts, late.get("suites", {})), AUTHOR)

    assert nothing_is_there(registry, "a", "b")


def test_a_label_that_may_not_move_takes_the_versions_back_with_it(registry: Registry) -> None:
    with pytest.raises(NeedsEvidence):
        registry.push(Push({"a": triage(), "b": triage(labels=["production"])}), AUTHOR)

    assert nothing_is_there(registry, "a", "b")


def test_every_suite_without_its_prompt_is_told_at_once(registry: Registry) -> None:
    tests = {f"s{number}": {**suite(case("x", "y")), "prompt": f"gone{number}"} for number in (1, 2)}

    with pytest.raises(BadFile) as caught:
        registry.push(Push({}, tests), AUTHOR)

    assert [fault.path for fault in caught.value.faults] == ["suite s1", "suite s2"]


@pytest.mark.integration
def test_more_files_than_a_statement_takes_variables_are_pushed_together(registry: Registry) -> None:
    files = {f"p{number:04}": seeded(number) for number in range(1200)}
    tests = {f"p{number:04}": {**suite(case("x", "y")), "prompt": f"p{number:04}"} for number in range(600)}

    first = registry.push(Push(files, tests), AUTHOR)
    again = registry.push(Push(files, tests), AUTHOR)

    assert [entry["created"] for entry in first] == [True] * 1800
    assert again == [{**entry, "created": False} for entry in first]
    assert len(registry.listing()) == 1000  # a page


# ---------------------------------------------------------------------------- what is known about a version


GIT = Origin(git_sha="a" * 40, git_branch="main", git_author="Ada <ada@example.com>", git_subject="Route by queue")


def about(registry: Registry, number: int) -> dict[str, Any]:
    [found] = [version for version in registry.history(NAME)["versions"] if version["version"] == number]
    return {key: found[key] for key in ("message", "author", "git_sha", "git_branch", "git_author", "git_dirty")}


def test_a_push_from_git_records_its_commit_and_says_what_the_commit_says(registry: Registry) -> None:
    registry.push(Push({NAME: seeded(1)}, origin=GIT), AUTHOR)
    registry.push(Push({NAME: seeded(2)}), ADMIN)

    assert about(registry, 1) == {"message": "Route by queue", "author": "key_author", "git_sha": "a" * 40,
                                  "git_branch": "main", "git_author": "Ada <ada@example.com>", "git_dirty": False}  # fmt: skip
    assert about(registry, 2) == {"message": None, "author": "key_admin", "git_sha": None, "git_branch": None,
                                  "git_author": None, "git_dirty": None}  # fmt: skip


def test_a_file_that_the_commit_does_not_have_so_is_dirty_and_so_is_what_includes_it(registry: Registry) -> None:
    tone = {"model": "model-a", "messages": [{"role": "system", "content": "Be brief."}]}
    user = triage(messages=[{"role": "user", "content": "{% include 'tone' %} {{ ticket }}"}])
    origin = Origin(git_sha="a" * 40, git_subject="Route by queue", git_dirty=["tone"])
    registry.push(Push({"tone": tone, NAME: user, "other": triage()}, origin=origin), AUTHOR)

    known = {name: registry.history(name)["versions"][0] for name in ("tone", NAME, "other")}
    assert {name: (version["git_dirty"], version["message"]) for name, version in known.items()} == {
        "tone": (True, None),
        NAME: (True, None),
        "other": (False, "Route by queue"),
    }


def test_a_message_of_ones_own_goes_before_the_commits(registry: Registry) -> None:
    registry.push(Push({NAME: triage()}, origin=Origin("mine", git_sha="b" * 40, git_subject="the commit's")), AUTHOR)

    assert about(registry, 1)["message"] == "mine"


def test_of_documentation_the_newest_push_wins_and_the_rest_of_the_version_stays(registry: Registry) -> None:
    first = triage(name="One", description="Old.", tags=["a"], notes="Fails on refunds.")
    registry.push(Push({NAME: first}, origin=Origin("made")), AUTHOR)

    again = registry.push(Push({NAME: triage(name="Two", tags=["a", "b"])}, origin=Origin("said again")), ADMIN)

    assert (again[0]["version"], again[0]["created"]) == (1, False)
    [version] = registry.history(NAME)["versions"]
    shown = {key: version[key] for key in ("title", "description", "tags", "notes", "message", "author")}
    assert shown == {"title": "Two", "description": None, "tags": ["a", "b"], "notes": None, "message": "made",
                     "author": "key_author"}  # fmt: skip
    with registry._database.read() as session:
        [entry] = [entry for entry in keys.audit_log(session, 10) if entry["action"] == "prompt.document"]
    assert (entry["actor"], entry["subject"]) == ("key_admin", f"{NAME}@1")
    assert entry["detail"] == {
        "before": {"title": "One", "description": "Old.", "tags": ["a"], "notes": "Fails on refunds."}
    }


def test_pushing_the_very_same_again_writes_no_audit_and_a_draft_documents_nothing(registry: Registry) -> None:
    registry.push(Push({NAME: triage(description="kept")}), AUTHOR)
    registry.push(Push({NAME: triage(description="kept")}), AUTHOR)
    registry.push(Push({NAME: triage(description="tried")}, origin=Origin(draft=True)), AUTHOR)

    assert registry.history(NAME)["versions"][0]["description"] == "kept"
    with registry._database.read() as session:
        assert keys.audit_log(session, 10) == []


def test_a_history_is_as_long_as_asked_for_and_always_tells_the_latest(registry: Registry) -> None:
    for seed in range(4):
        registry.push(Push({NAME: seeded(seed)}, origin=Origin(draft=seed == 3)), AUTHOR)

    found = registry.history(NAME, limit=1)

    assert [version["version"] for version in found["versions"]] == [4]
    assert found["labels"] == {"latest": 3}


# ---------------------------------------------------------------------------- blame


def lineage(registry: Registry, selector: str) -> list[int]:
    from prompts.names import parse_selector

    return [record.number for record in registry.lineage(parse_selector(selector))]


def test_drafts_are_passed_over_in_a_lineage_unless_one_is_selected(registry: Registry) -> None:
    for seed in range(4):
        registry.push(Push({NAME: seeded(seed)}, origin=Origin(draft=seed in (1, 3))), AUTHOR)

    assert lineage(registry, f"{NAME}@latest") == [1, 3]
    assert lineage(registry, f"{NAME}@4") == [1, 3, 4]
    assert lineage(registry, f"{NAME}@1") == [1]
    with pytest.raises(NotFound):
        lineage(registry, f"{NAME}@5")

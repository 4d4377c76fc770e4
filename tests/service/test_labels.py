"""Labels: undo, protection, races, and a removed one that is gone everywhere."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from prompts.errors import BadFile
from service.errors import Conflict, Forbidden, NeedsEvidence, NotFound, RevisionMismatch
from service.identity import Principal
from service.registry import Push, Registry
from service.route_book import RouteBook
from service.store import routes
from service.store.database import Database
from tests.service.conftest import ADMIN, AUTHOR, BOTH, Service, make_settings, triage
from tests.service.test_store import at_once

NAME = "support.triage"
CI = Principal("key_ci", "ci")
PATH = f"/api/prompts/{NAME}/labels/staging"


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    """Three versions, and the label `stable` protected beside `production`."""
    settings = make_settings(tmp_path / "home", registry={"protected_labels": ["stable"]})
    database = Database(f"sqlite:///{tmp_path / 'turnout.db'}")
    database.migrate()
    registry = Registry(database, settings)
    for seed in (1, 2, 3):
        registry.push(Push({NAME: triage(modelParameters={"seed": seed})}), AUTHOR)
    return registry


def moves(registry: Registry, label: str) -> list[tuple[int | None, int | None, int | None]]:
    history = reversed(registry.label_history(NAME, label))
    return [(move["from_version"], move["to_version"], move["undoes"]) for move in history]


# ---------------------------------------------------------------------------- undo


def test_undo_points_back_and_undoing_again_goes_one_move_further(registry: Registry) -> None:
    for version in (1, 2, 3):
        registry.move_label(NAME, "staging", version, AUTHOR)

    undone = [registry.undo_label(NAME, "staging", AUTHOR)["version"] for _ in range(3)]

    assert undone == [2, 1, None]
    with pytest.raises(NotFound, match="staging"):
        registry.label(NAME, "staging")
    with pytest.raises(Conflict, match=r"every move of support\.triage@staging was taken back"):
        registry.undo_label(NAME, "staging", AUTHOR)
    assert moves(registry, "staging") == [
        (None, 1, None),
        (1, 2, None),
        (2, 3, None),
        (3, 2, 3),
        (2, 1, 2),
        (1, None, 1),
    ]


def test_a_move_after_an_undo_is_the_one_that_the_next_undo_takes_back(registry: Registry) -> None:
    registry.move_label(NAME, "staging", 1, AUTHOR)
    registry.move_label(NAME, "staging", 2, AUTHOR)
    registry.undo_label(NAME, "staging", AUTHOR)
    registry.move_label(NAME, "staging", 3, AUTHOR)

    assert registry.undo_label(NAME, "staging", AUTHOR, reason="worse") == {
        "name": NAME,
        "label": "staging",
        "version": 1,
        "revision": 5,
        "updated_at": registry.label(NAME, "staging").updated_at,
        "undone": 4,
    }
    assert registry.label_history(NAME, "staging")[0]["reason"] == "worse"


def test_undo_brings_a_removed_label_back(registry: Registry) -> None:
    registry.move_label(NAME, "staging", 2, AUTHOR)
    registry.remove_label(NAME, "staging", AUTHOR)

    assert registry.undo_label(NAME, "staging", AUTHOR)["version"] == 2
    assert registry.label(NAME, "staging").revision == 3


def test_undo_of_a_label_that_never_was_is_not_found(registry: Registry) -> None:
    for name, label in ((NAME, "staging"), ("no.such", "staging")):
        with pytest.raises(NotFound, match=f"{name}@{label}"):
            registry.undo_label(name, label, AUTHOR)


def test_undo_is_conditional_on_the_revision_that_was_seen(service: Service) -> None:
    service.push()
    made = service.call("PUT", PATH, "author", json={"version": 1})
    etag = made.headers["etag"]
    service.call("PUT", PATH, "author", json={"version": 1})  # where it points already: nothing moves
    old = service.call("POST", f"{PATH}/undo", "author", headers={"if-match": '"7"'})
    new = service.call("POST", f"{PATH}/undo", "author", json={"reason": "no"}, headers={"if-match": etag})

    assert (old.status_code, old.json()["type"]) == (412, "urn:turnout:error:revision_mismatch")
    assert (new.status_code, new.json()["version"], "etag" in new.headers) == (200, None, False)
    assert service.call("GET", PATH).status_code == 404


# ---------------------------------------------------------------------------- production takes its route along


def test_undo_of_production_takes_back_the_revision_of_the_route(registry: Registry) -> None:
    book = RouteBook(registry._database, registry._settings)
    for version in (1, 2, 3):
        registry.move_label(NAME, "production", version, ADMIN, reason="try")

    assert registry.undo_label(NAME, "production", ADMIN)["version"] == 2
    assert book.show(NAME)["variants"] == [{"variant": f"{NAME}@2+model-a", "percent": 100.0}]
    assert (book.show(NAME)["action"], book.show(NAME)["undone"]) == ("undo", 3)
    assert registry.undo_label(NAME, "production", ADMIN)["version"] == 1
    assert book.show(NAME)["variants"] == [{"variant": f"{NAME}@1+model-a", "percent": 100.0}]
    with pytest.raises(Conflict, match="nothing to undo"):
        registry.undo_label(NAME, "production", ADMIN)


def test_undo_of_the_route_and_of_the_label_take_turns(registry: Registry) -> None:
    book = RouteBook(registry._database, registry._settings)
    for version in (1, 2, 3):
        registry.move_label(NAME, "production", version, ADMIN, reason="try")

    book.undo(NAME, ADMIN)

    assert registry.undo_label(NAME, "production", ADMIN)["version"] == 1
    assert moves(registry, "production")[3:] == [(3, 2, 3), (2, 1, 2)]


def test_undo_of_production_is_refused_where_the_route_moved_since(registry: Registry) -> None:
    book = RouteBook(registry._database, registry._settings)
    registry.move_label(NAME, "production", 1, ADMIN, reason="try")
    registry.move_label(NAME, "production", 2, ADMIN, reason="try")
    book.set(NAME, {f"{NAME}@1+model-a": 50, f"{NAME}@2+model-a": 50}, ADMIN, "compare")

    with pytest.raises(
        Conflict, match=r"revision 3: set\): take that back first, with `turnout route support.triage undo`"
    ):
        registry.undo_label(NAME, "production", ADMIN)

    assert registry.label(NAME, "production").version == 2
    assert book.show(NAME)["revision"] == 3


def test_only_an_admin_undoes_production(registry: Registry) -> None:
    registry.move_label(NAME, "production", 1, ADMIN, reason="try")
    registry.move_label(NAME, "production", 2, ADMIN, reason="try")

    with pytest.raises(Forbidden, match="needs role 'admin'"):
        registry.undo_label(NAME, "production", CI)
    assert registry.label(NAME, "production").version == 2


def test_removing_production_ends_the_route_and_undo_of_the_label_brings_both_back(registry: Registry) -> None:
    book = RouteBook(registry._database, registry._settings)
    registry.move_label(NAME, "production", 1, ADMIN, reason="try")
    registry.remove_label(NAME, "production", ADMIN, reason="away")

    ended = book.show(NAME)
    assert (ended["revision"], ended["action"], ended["reason"]) == (2, "production", "away")
    assert (ended["variants"], ended["moved"]) == ([], [1, None])

    assert registry.undo_label(NAME, "production", ADMIN)["version"] == 1
    assert registry.label(NAME, "production").version == 1
    assert book.show(NAME)["revision"] == 3
    assert book.show(NAME)["variants"] == [{"variant": f"{NAME}@1+model-a", "percent": 100.0}]


def test_undo_of_the_route_brings_a_removed_production_back(registry: Registry) -> None:
    book = RouteBook(registry._database, registry._settings)
    registry.move_label(NAME, "production", 1, ADMIN, reason="try")
    registry.remove_label(NAME, "production", ADMIN, reason="away")

    assert book.undo(NAME, ADMIN)["variants"] == [{"variant": f"{NAME}@1+model-a", "percent": 100.0}]
    assert registry.label(NAME, "production").version == 1
    assert moves(registry, "production") == [(None, 1, None), (1, None, None), (None, 1, 2)]


def test_production_may_be_set_again_after_it_was_removed(registry: Registry) -> None:
    book = RouteBook(registry._database, registry._settings)
    registry.move_label(NAME, "production", 1, ADMIN, reason="try")
    registry.remove_label(NAME, "production", ADMIN, reason="away")
    registry.move_label(NAME, "production", 1, ADMIN, reason="back")

    assert book.show(NAME)["variants"] == [{"variant": f"{NAME}@1+model-a", "percent": 100.0}]


def test_a_prompt_whose_production_was_removed_answers_nobody_by_its_bare_name(service: Service) -> None:
    service.produce(service.push())
    asked = {"model": NAME, "variables": {"ticket": "x"}}
    chat = "/v1/chat/completions"
    assert service.call("POST", chat, "app", json=asked).status_code == 200

    gone = service.call("DELETE", f"/api/prompts/{NAME}/labels/production?reason=end")
    refused = service.call("POST", chat, "app", json=asked)

    assert gone.status_code == 204
    hint = f"its labels are none, and latest; `turnout label {NAME} production 1` sets it"
    assert (refused.status_code, refused.json()["error"]["message"]) == (404, f"no label '{NAME}@production': {hint}")
    assert service.call("POST", chat, "app", json={**asked, "model": f"{NAME}@1"}).status_code == 200
    assert service.call("GET", f"/api/routes/{NAME}").json()["variants"] == []
    assert service.call("GET", "/api/audit").json()[0]["action"] == "route.production"
    service.call("POST", f"/api/prompts/{NAME}/labels/production/undo")
    assert service.call("POST", chat, "app", json=asked).status_code == 200


# ---------------------------------------------------------------------------- protected labels


def add_gate(registry: Registry, version: int) -> None:
    """Evidence that the version passed a gate on its own model."""
    record = {"id": f"ev_{version}_0", "kind": "gate", "prompt": NAME, "verdict": "pass", "content": {}, "actor": "k",
              "candidate": f"{NAME}@{version}+model-a", "digest": "sha256:1", "created_at": "2026-01-01"}  # fmt: skip
    with registry._database.write() as session:
        routes.add_evidence(session, record)


def test_a_label_that_the_settings_protect_needs_a_gate_or_an_admins_reason(registry: Registry) -> None:
    with pytest.raises(NeedsEvidence, match="'stable' is protected"):
        registry.move_label(NAME, "stable", 1, AUTHOR, reason="please")
    with pytest.raises(NeedsEvidence, match="--reason"):
        registry.move_label(NAME, "stable", 1, ADMIN)
    add_gate(registry, 2)

    registry.move_label(NAME, "stable", 1, ADMIN, reason="known to be good")
    registry.move_label(NAME, "stable", 2, AUTHOR)

    assert registry.label_history(NAME, "stable")[0]["evidence_id"] == "ev_2_0"
    with pytest.raises(NeedsEvidence, match="an admin removes it"):
        registry.remove_label(NAME, "stable", AUTHOR)
    assert registry.history(NAME)["labels"] == {"stable": 2, "latest": 3}


KEYS = ("sk-proj-" + "aB3dE5gH7jK9mN1pQ2rS4tU6vW8xY0zC", "turnout_ci_" + "aB3dE5gH7jK9mN1pQ2rS4tU6vW8xY0zCaB3dE5gH7jK")


@pytest.mark.parametrize("reason", ["", " ", "\n\t "])
def test_blanks_are_no_reason_to_move_or_remove_production(service: Service, reason: str) -> None:
    service.push()
    production = f"/api/prompts/{NAME}/labels/production"
    moved = service.call("PUT", production, json={"version": 1, "reason": reason})
    service.produce(1)
    removed = service.call("DELETE", production, params={"reason": reason})

    assert (moved.status_code, removed.status_code) == (403, 403)


@pytest.mark.parametrize("key", KEYS, ids=["another's", "ours"])
def test_a_secret_in_what_is_said_beside_a_change_is_neither_stored_nor_told(service: Service, key: str) -> None:
    said = f"  a customer sent {key}  "
    pushed = triage(message=said)
    version = service.push(data=pushed)
    service.call("PUT", f"/api/prompts/{NAME}/labels/production", json={"version": version, "reason": said})
    service.call("PUT", f"/api/routes/{NAME}", json={"variants": {f"{NAME}@1+model-a": 100}, "reason": said})
    service.call("POST", f"/api/routes/{NAME}/undo", json={"reason": said})
    service.call("DELETE", f"/api/prompts/{NAME}/labels/production", params={"reason": said})
    noted = service.call("POST", "/api/keys", json={"role": "app", "note": said}).json()["note"]
    labels = service.call("GET", f"/api/prompts/{NAME}/labels/production/history").json()
    kept = (
        noted,
        service.call("GET", f"/api/prompts/{NAME}?label=latest").json()["message"],
        *(move["reason"] for move in labels),
        *(move["reason"] for move in service.call("GET", f"/api/routes/{NAME}/history").json()),
        service.call("GET", f"/api/evidence/{labels[-1]['evidence_id']}").json()["content"]["reason"],
    )

    kind = "OpenAI key" if key.startswith("sk-") else "Turnout key"
    assert set(kept) == {f"a customer sent [secret: {kind}]"}
    assert key not in service.call("GET", "/api/audit").text


def test_undo_of_a_protected_label_is_an_admins_or_leads_to_a_version_that_passed(registry: Registry) -> None:
    add_gate(registry, 2)
    for version in (1, 2, 3):
        registry.move_label(NAME, "stable", version, ADMIN, reason="try")

    assert registry.undo_label(NAME, "stable", AUTHOR)["version"] == 2
    assert registry.label_history(NAME, "stable")[0]["evidence_id"] == "ev_2_0"
    with pytest.raises(NeedsEvidence, match="ask an admin"):
        registry.undo_label(NAME, "stable", AUTHOR)
    assert registry.undo_label(NAME, "stable", ADMIN)["version"] == 1
    with pytest.raises(Forbidden, match="an admin takes it away"):
        registry.undo_label(NAME, "stable", AUTHOR)


def test_production_is_protected_whatever_the_settings_name(registry: Registry) -> None:
    with pytest.raises(NeedsEvidence, match="'production' is protected"):
        registry.move_label(NAME, "production", 1, AUTHOR)


def test_protected_labels_come_from_the_environment_too_and_are_checked(tmp_path: Path) -> None:
    from service.settings import load_settings

    found = load_settings({"TURNOUT_REGISTRY_PROTECTED_LABELS": "stable, eu-prod"}, tmp_path)
    assert found.registry.protected_labels == ("stable", "eu-prod")
    with pytest.raises(BadFile, match="'Stable' is no label"):
        load_settings({"TURNOUT_REGISTRY_PROTECTED_LABELS": "Stable"}, tmp_path)


# ---------------------------------------------------------------------------- at once


@BOTH
def test_of_many_movers_that_saw_the_same_revision_exactly_one_wins(
    kind: str, open_database: Callable[[], Database], tmp_path: Path
) -> None:
    settings = make_settings(tmp_path / "home")
    replicas = [Registry(open_database(), settings) for _ in range(2)]
    for seed in range(1, 17):
        replicas[0].push(Push({NAME: triage(modelParameters={"seed": seed})}), AUTHOR)
    for expected in (0, 1):

        def move(number: int, expected: int = expected) -> int:
            mover, version = replicas[number % 2], 8 * expected + number + 1  # one that the label is not at already
            return mover.move_label(NAME, "staging", version, AUTHOR, if_revision=expected).version

        results = at_once(8, move)
        winners = [result for result in results if isinstance(result, int)]
        losers = [result for result in results if isinstance(result, RevisionMismatch)]
        assert (len(winners), len(losers)) == (1, 7)
        assert replicas[1].label(NAME, "staging").version == winners[0]
        assert replicas[1].label(NAME, "staging").revision == expected + 1


@BOTH
def test_of_two_that_undo_what_both_saw_one_wins(
    kind: str, open_database: Callable[[], Database], tmp_path: Path
) -> None:
    replicas = [Registry(open_database(), make_settings(tmp_path / "home")) for _ in range(2)]
    for seed in (1, 2, 3):
        replicas[0].push(Push({NAME: triage(modelParameters={"seed": seed})}), AUTHOR)
        replicas[0].move_label(NAME, "staging", seed, AUTHOR)

    results = at_once(2, lambda number: replicas[number].undo_label(NAME, "staging", AUTHOR, if_revision=3))

    assert sorted(type(result) is dict for result in results) == [False, True]
    assert replicas[0].label(NAME, "staging").version == 2


# ---------------------------------------------------------------------------- gone is gone


@BOTH
def test_a_removed_label_is_404_at_once_here_and_soon_on_another_replica(
    kind: str, open_database: Callable[[], Database], tmp_path: Path
) -> None:
    storage = {"url": open_database().url.replace("postgresql+psycopg://", "postgresql://")}
    settings = make_settings(tmp_path / "home", storage=storage)
    with Service(settings).running() as here, Service(settings).running() as there:
        here.push()
        here.call("PUT", PATH, "author", json={"version": 1})
        body = {"json": {"variables": {"ticket": "x"}}}
        render = f"/api/prompts/{NAME}/render?label=staging"
        wait_for(lambda: there.call("POST", render, **body).status_code, 200)
        assert here.call("POST", render, **body).status_code == 200

        assert here.call("DELETE", PATH, "author").status_code == 204

        assert here.call("POST", render, **body).status_code == 404
        asked = {"model": f"{NAME}@staging", "variables": {"ticket": "x"}}
        assert here.call("POST", "/v1/chat/completions", json=asked).status_code == 404
        wait_for(lambda: there.call("POST", render, **body).status_code, 404)
        assert there.call("GET", PATH).status_code == 404


def wait_for(look: Callable[[], Any], wanted: Any) -> None:
    """Until `look` gives what is wanted; a replica looks twice a second, a busy machine is given more."""
    ends = time.monotonic() + 20
    while look() != wanted:
        assert time.monotonic() < ends
        time.sleep(0.02)

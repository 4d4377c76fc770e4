from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from prompts.errors import BadInput
from prompts.names import Variant
from service import route_book
from service.errors import Conflict, Forbidden, NeedsEvidence, NotFound, RevisionMismatch
from service.registry import Push, Registry
from service.route_book import RouteBook
from service.store import routes
from service.store.database import Database
from tests.service.conftest import ADMIN, AUTHOR, make_settings, triage

NAME = "support.triage"
V1, V2, V3 = (f"{NAME}@{number}+model-a" for number in (1, 2, 3))


class Books:
    """A registry with three versions of a prompt, and its route."""

    def __init__(self, home: Path) -> None:
        settings = make_settings(home)
        self.database = Database(settings.database_url)
        self.database.migrate()
        self.registry = Registry(self.database, settings)
        self.book = RouteBook(self.database, settings)
        for seed in (1, 2, 3):
            self.registry.push(Push({NAME: triage(modelParameters={"seed": seed})}), AUTHOR)

    def produce(self, version: int) -> None:
        self.registry.move_label(NAME, "production", version, ADMIN, reason=f"version {version}")

    @property
    def production(self) -> int | None:
        try:
            return self.registry.label(NAME, "production").version
        except NotFound:
            return None

    @property
    def shares(self) -> dict[str, float]:
        return {item["variant"]: item["percent"] for item in self.book.show(NAME)["variants"]}

    def add_gate(self, candidate: str, verdict: str, evidence_id: str = "ev_1_0", at: str = "2026-01-01") -> None:
        record = {"id": evidence_id, "kind": "gate", "prompt": NAME, "verdict": verdict, "candidate": candidate,
                  "content": {}, "digest": "sha256:0", "actor": "key_ci", "created_at": at}  # fmt: skip
        with self.database.write() as session:
            routes.add_evidence(session, record)

    def begin(self, variant: str, evidence_id: str = "ev_ft", steps: tuple[int, ...] = (5, 25, 100)) -> dict[str, Any]:
        head, adapter = variant.rsplit("+", 1)
        candidate = Variant(NAME, int(head.partition("@")[2].partition("+")[0]), "model-a", adapter)
        with self.database.write() as session:
            return route_book.begin(session, candidate, steps, evidence_id, ADMIN, frozenset({V1}))


@pytest.fixture
def books(tmp_path: Path) -> Iterator[Books]:
    books = Books(tmp_path)
    yield books
    books.database.close()


# ---------------------------------------------------------------------------- production writes revisions


def test_a_prompt_that_never_was_in_production_has_no_route(books: Books) -> None:
    with pytest.raises(NotFound, match="it has none yet"):
        books.book.show(NAME)
    assert books.book.history(NAME) == []


def test_moving_production_writes_a_revision_with_that_version_and_all_traffic(books: Books) -> None:
    books.produce(1)

    record = books.book.show(NAME)
    assert (record["revision"], record["action"], record["reason"]) == (1, "production", "version 1")
    assert record["variants"] == [{"variant": V1, "percent": 100.0}]
    assert record["moved"] == [None, 1]
    assert record["evidence_id"].startswith("ev_")


def test_moving_production_ends_the_adapters_traffic(books: Books) -> None:
    books.produce(1)
    books.begin(f"{V1}+ad-1", steps=(100,))
    assert books.shares == {f"{V1}+ad-1": 100.0}

    books.produce(2)

    assert books.shares == {V2: 100.0}


def test_removing_production_ends_a_rollout_under_way_and_undo_resumes_it(books: Books) -> None:
    books.produce(1)
    books.begin(f"{V1}+ad-1")

    books.registry.remove_label(NAME, "production", ADMIN, reason="it answers nonsense")
    assert books.shares == {}
    with pytest.raises(Conflict, match="no rollout is under way"):
        books.book.promote(NAME, ADMIN)

    books.registry.undo_label(NAME, "production", ADMIN)
    assert books.shares == {f"{V1}+ad-1": 5.0, V1: 95.0}
    assert books.book.promote(NAME, ADMIN)["variants"][0]["percent"] == 25.0


def test_the_winner_of_a_job_gets_no_traffic_on_a_route_that_was_ended(books: Books) -> None:
    books.produce(1)
    books.registry.remove_label(NAME, "production", ADMIN, reason="withdrawn")

    with pytest.raises(NeedsEvidence, match="the evidence is ev_ft"):
        books.begin(f"{V1}+ad-1")
    assert books.shares == {}


def test_pointing_production_where_it_points_already_changes_nothing(books: Books) -> None:
    books.produce(1)
    books.produce(1)

    assert books.book.show(NAME)["revision"] == 1


def test_other_labels_write_no_revision(books: Books) -> None:
    books.registry.move_label(NAME, "staging", 2, AUTHOR)

    assert books.book.history(NAME) == []


# ---------------------------------------------------------------------------- undo


def test_undo_takes_back_the_route_and_production(books: Books) -> None:
    books.produce(1)
    books.produce(2)

    undone = books.book.undo(NAME, ADMIN, "worse")

    assert (undone["revision"], undone["action"], undone["undone"], undone["restored"]) == (3, "undo", 2, 1)
    assert books.shares == {V1: 100.0}
    assert books.production == 1


def test_undoing_again_goes_one_revision_further_back(books: Books) -> None:
    for version in (1, 2, 3):
        books.produce(version)

    books.book.undo(NAME, ADMIN)
    assert (books.shares, books.production) == ({V2: 100.0}, 2)
    books.book.undo(NAME, ADMIN)
    assert (books.shares, books.production) == ({V1: 100.0}, 1)
    with pytest.raises(Conflict, match="nothing to undo"):
        books.book.undo(NAME, ADMIN)


def test_a_move_after_an_undo_can_be_undone_to_what_stood_before_it(books: Books) -> None:
    books.produce(1)
    books.produce(2)
    books.book.undo(NAME, ADMIN)
    books.produce(3)

    books.book.undo(NAME, ADMIN)

    assert (books.shares, books.production) == ({V1: 100.0}, 1)


def test_undo_of_a_rollout_leaves_production_where_it_is(books: Books) -> None:
    books.produce(1)
    books.begin(f"{V1}+ad-1", steps=(100,))

    books.book.undo(NAME, ADMIN)

    assert (books.shares, books.production) == ({V1: 100.0}, 1)


def test_undo_leaves_a_production_alone_that_has_moved_meanwhile(books: Books) -> None:
    books.produce(1)
    books.produce(2)
    books.book.set(NAME, {V1: 100}, ADMIN, "by hand")

    books.book.undo(NAME, ADMIN)

    assert (books.shares, books.production) == ({V2: 100.0}, 2)


# ---------------------------------------------------------------------------- rollouts


def test_a_winner_takes_its_share_from_the_incumbent_and_can_be_promoted(books: Books) -> None:
    books.produce(1)
    begun = books.begin(f"{V1}+ad-1")

    assert books.shares == {f"{V1}+ad-1": 5.0, V1: 95.0}
    assert begun["evidence_id"] == "ev_ft"
    books.book.promote(NAME, ADMIN)
    assert books.shares == {f"{V1}+ad-1": 25.0, V1: 75.0}
    done = books.book.promote(NAME, ADMIN)
    assert books.shares == {f"{V1}+ad-1": 100.0}
    assert done["evidence_id"] == "ev_ft"


def test_the_same_evidence_begins_no_second_rollout(books: Books) -> None:
    books.produce(1)
    first = books.begin(f"{V1}+ad-1")
    books.book.promote(NAME, ADMIN)

    assert books.begin(f"{V1}+ad-1") == first
    assert books.shares == {f"{V1}+ad-1": 25.0, V1: 75.0}


def test_a_winner_takes_nothing_from_a_variant_that_it_was_not_compared_with(books: Books) -> None:
    books.produce(1)
    books.produce(2)

    with pytest.raises(NeedsEvidence, match=f"the traffic went to {re.escape(V2)} meanwhile"):
        books.begin(f"{V1}+ad-1")

    assert books.shares == {V2: 100.0}


def test_a_winner_takes_nothing_from_a_split_that_a_person_made(books: Books) -> None:
    books.produce(1)
    books.book.set(NAME, {V1: 50, f"{NAME}@1+model-b": 50}, ADMIN, "a trial of our own")

    with pytest.raises(NeedsEvidence):
        books.begin(f"{V1}+ad-1")

    assert books.shares == {V1: 50.0, f"{NAME}@1+model-b": 50.0}


def test_undo_of_the_first_production_takes_the_label_away(books: Books) -> None:
    books.book.set(NAME, {V1: 100}, ADMIN, "by hand")
    books.produce(2)
    assert (books.shares, books.production) == ({V2: 100.0}, 2)

    books.book.undo(NAME, ADMIN)

    assert (books.shares, books.production) == ({V1: 100.0}, None)


def test_production_is_served_again_where_the_route_had_left_it(books: Books) -> None:
    books.produce(1)
    books.book.set(NAME, {V2: 100}, ADMIN, "by hand")

    books.produce(1)

    assert (books.shares, books.production) == ({V1: 100.0}, 1)


def test_abort_gives_the_incumbent_everything_back(books: Books) -> None:
    books.produce(1)
    books.begin(f"{V1}+ad-1")

    books.book.abort(NAME, ADMIN, "complaints")

    assert books.shares == {V1: 100.0}
    assert [record["action"] for record in books.book.history(NAME)] == ["abort", "fallback", "production"]


def test_there_is_nothing_to_promote_without_a_rollout(books: Books) -> None:
    books.produce(1)
    with pytest.raises(Conflict):
        books.book.promote(NAME, ADMIN)


# ---------------------------------------------------------------------------- by hand


def test_a_route_set_by_hand_keeps_its_reason_as_evidence(books: Books) -> None:
    record = books.book.set(NAME, {V1: 60, V2: 40}, ADMIN, "an experiment")

    with books.database.read() as session:
        evidence = routes.evidence(session, record["evidence_id"])
    assert evidence is not None
    assert (evidence["kind"], evidence["verdict"], evidence["candidate"]) == ("manual", "manual", V1)
    assert evidence["content"] == {"candidate": V1, "reason": "an experiment", "actor": "key_admin"}


def test_a_route_set_by_hand_needs_a_reason(books: Books) -> None:
    with pytest.raises(NeedsEvidence):
        books.book.set(NAME, {V1: 100}, ADMIN, "")


@pytest.mark.parametrize("action", ["set", "promote", "abort", "undo"])
def test_only_an_admin_changes_a_route(books: Books, action: str) -> None:
    given: tuple[Any, ...] = (NAME, {V1: 100}, AUTHOR, "why") if action == "set" else (NAME, AUTHOR)
    with pytest.raises(Forbidden):
        getattr(books.book, action)(*given)


@pytest.mark.parametrize(
    ("weights", "kind"),
    [
        ({f"{NAME}@9+model-a": 100}, NotFound),
        ({f"{NAME}@1+no-model": 100}, BadInput),
        ({f"{NAME}@1+model-a+no-adapter": 100}, NotFound),
        ({V1: 50}, BadInput),
    ],
)
def test_a_route_to_what_is_not_there_is_refused(
    books: Books, weights: dict[str, float], kind: type[Exception]
) -> None:
    with pytest.raises(kind):
        books.book.set(NAME, weights, ADMIN, "why")
    assert books.book.history(NAME) == []


def test_a_route_is_set_only_on_the_revision_that_was_seen(books: Books) -> None:
    books.book.set(NAME, {V1: 100}, ADMIN, "first", 0)
    with pytest.raises(RevisionMismatch, match="is at revision 1: read it again"):
        books.book.set(NAME, {V2: 100}, ADMIN, "second", 0)

    assert books.book.set(NAME, {V2: 100}, ADMIN, "second", 1)["revision"] == 2


# ---------------------------------------------------------------------------- protected labels


def test_an_author_moves_production_with_a_passing_gate(books: Books) -> None:
    books.add_gate(V2, "pass")

    books.registry.move_label(NAME, "production", 2, AUTHOR)

    assert books.book.show(NAME)["evidence_id"] == "ev_1_0"
    assert books.registry.label_history(NAME, "production")[0]["evidence_id"] == "ev_1_0"


@pytest.mark.parametrize("verdict", ["fail", "inconclusive", "could_not_run"])
def test_no_other_verdict_moves_production(books: Books, verdict: str) -> None:
    books.add_gate(V2, verdict)

    with pytest.raises(NeedsEvidence):
        books.registry.move_label(NAME, "production", 2, AUTHOR, reason="please")


@pytest.mark.parametrize(
    "candidate", [V1, f"{NAME}@22+model-a", f"{NAME}@2+model-b", f"{V2}+ad-1", "another@2+model-a"]
)
def test_a_gate_of_another_variant_than_would_be_served_moves_nothing(books: Books, candidate: str) -> None:
    """A version that passed on a larger model, or with an adapter, was not tested as `production` would serve it."""
    books.add_gate(candidate, "pass")

    with pytest.raises(NeedsEvidence):
        books.registry.move_label(NAME, "production", 2, AUTHOR)


def test_the_newest_gate_counts(books: Books) -> None:
    books.add_gate(V2, "pass", "ev_1_0", "2026-01-01")
    books.add_gate(V2, "fail", "ev_2_0", "2026-01-02")

    with pytest.raises(NeedsEvidence):
        books.registry.move_label(NAME, "production", 2, AUTHOR)


def test_a_gate_of_several_suites_passed_only_where_each_of_them_did(books: Books) -> None:
    books.add_gate(V2, "fail", "ev_1_0", "2026-01-01")
    books.add_gate(V2, "pass", "ev_1_1", "2026-01-02")

    with pytest.raises(NeedsEvidence):
        books.registry.move_label(NAME, "production", 2, AUTHOR)


def test_an_admin_without_a_gate_gives_a_reason(books: Books) -> None:
    with pytest.raises(NeedsEvidence, match="--reason"):
        books.registry.move_label(NAME, "production", 1, ADMIN)
    books.registry.move_label(NAME, "production", 1, ADMIN, reason="known to be good")

    with books.database.read() as session:
        evidence = routes.evidence(session, books.book.show(NAME)["evidence_id"])
    assert evidence is not None
    assert (evidence["kind"], evidence["content"]["reason"]) == ("manual", "known to be good")


def test_a_protected_label_is_removed_by_an_admin_with_a_reason_alone(books: Books) -> None:
    books.produce(1)
    with pytest.raises(NeedsEvidence):
        books.registry.remove_label(NAME, "production", AUTHOR, reason="please")
    with pytest.raises(NeedsEvidence):
        books.registry.remove_label(NAME, "production", ADMIN)
    books.registry.remove_label(NAME, "production", ADMIN, reason="withdrawn")

    with pytest.raises(NotFound):
        books.registry.label(NAME, "production")


def test_a_file_that_names_production_needs_evidence_like_anybody(books: Books) -> None:
    with pytest.raises(NeedsEvidence):
        books.registry.push(Push({NAME: triage(labels=["production"])}), AUTHOR)

    assert books.registry.history(NAME)["labels"] == {"latest": 3}

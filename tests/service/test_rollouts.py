"""Rollouts on a database: rows of the request log in, revisions and evidence out."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from prompts.errors import ModelTimeout
from prompts.names import Variant, parse_variant
from service import route_book
from service.choosing import Ask
from service.errors import NotFound
from service.ids import new_id, now
from service.outcome import Outcome
from service.pending import Caller
from service.registry import Push, Registry
from service.rollouts import keeper, moves, watching
from service.rollouts.keeper import Rollouts
from service.route_book import HowAsked, RouteBook
from service.snapshot import Snapshot
from service.store import requests, rollouts, routes
from service.store.database import Database
from suites.rollouts import Rules
from suites.verification import verify_record
from tests.service.conftest import ADMIN, AUTHOR, BOTH, case, make_settings, suite, triage

NAME = "support.triage"
OLD, NEW = f"{NAME}@1+model-a", f"{NAME}@2+model-a"
QUICK = Rules(min_units=20, min_step_s=0)
_numbers = count(1)
pytestmark = BOTH


class Answering:
    """Answers applications, or raises what it is told to, and keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[Ask, Caller]] = []
        self.failing: list[Exception] = []

    async def complete(self, ask: Ask, caller: Caller) -> str:
        self.asked.append((ask, caller))
        if self.failing:
            raise self.failing.pop()
        return "billing"


class Scene:
    """One replica of a service: its book, its snapshot and its loop, on a database that others may share."""

    def __init__(self, database: Database, home: Path) -> None:
        self.settings = make_settings(home)
        self.database = database
        self.registry = Registry(database, self.settings)
        self.book = RouteBook(database, self.settings)
        self.snapshot = Snapshot(database)
        self.answering = Answering()
        self.rollouts = Rollouts(database, self.snapshot, self.answering)

    def begin(self, rules: Rules = QUICK, steps: tuple[int, ...] = (5, 25, 100)) -> int:
        """Two versions, the first served; the second begins to take its traffic. Returns the revision."""
        for seed in (1, 2):
            self.registry.push(Push({NAME: triage(modelParameters={"seed": seed})}), AUTHOR)
        self.registry.move_label(NAME, "production", 1, ADMIN, reason="the first")
        record = self.book.roll_out(parse_variant(NEW), steps, rules, ADMIN, "a better one")
        self.snapshot.refresh()
        revision: int = record["revision"]
        return revision

    def happen(self, variant: str, times: int, revision: int | None = None, **more: Any) -> list[str]:
        """Outcomes in the log; returns their ids."""
        return self.log([variant] * times, revision, **more)

    def log(self, variants: Iterable[str], revision: int | None = None, **more: Any) -> list[str]:
        revision = self.revision if revision is None else revision
        made = [
            Outcome(id=f"chatcmpl-{next(_numbers):06}", at=now(), key_id="key_app", variant=variant, prompt=NAME,
                    route_revision=revision, **{"status": "ok", "latency_ms": 20.0, **more})
            for variant in variants
        ]  # fmt: skip
        with self.database.write() as session:
            requests.add_outcomes(session, made)
        return [one.id for one in made]

    def go_well(self, rounds: int = 30) -> None:
        """As many good outcomes as their shares say, one variant's among the other's."""
        new = round(20 * self.route["variants"][0]["percent"] / 100)
        self.log(([NEW] * new + [OLD] * (20 - new)) * rounds)

    def complain(self, completion_id: str, **more: Any) -> None:
        said = {"value": 0.0, "metric": "rating", "comment": None, "correction": None, **more}
        with self.database.write() as session:
            requests.add_feedback(
                session, {"id": new_id("fb"), "completion_id": completion_id, "key_id": "k", "at": now(), **said}
            )

    def look(self) -> None:
        self.snapshot.refresh()
        asyncio.run(self._look())

    async def _look(self) -> None:
        await self.rollouts.look()
        await self.rollouts.asked()

    @property
    def route(self) -> dict[str, Any]:
        return self.book.show(NAME)

    @property
    def revision(self) -> int:
        revision: int = self.route["revision"]
        return revision

    @property
    def shares(self) -> dict[str, float]:
        return {item["variant"]: item["percent"] for item in self.route["variants"]}

    @property
    def status(self) -> dict[str, Any]:
        return self.rollouts.status(NAME)

    def evidence(self, evidence_id: str | None = None) -> dict[str, Any]:
        with self.database.read() as session:
            found = routes.evidence(session, evidence_id or self.route["evidence_id"])
        assert found is not None
        return found


@pytest.fixture
def scene(database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    monkeypatch.setattr("service.rollouts.verifying.PAUSE_S", 0.0)
    scene = Scene(database, tmp_path)
    scene.begin()
    return scene


# ---------------------------------------------------------------------------- forward


def test_a_candidate_that_does_well_goes_from_step_to_step_each_with_its_evidence(scene: Scene) -> None:
    kept = []
    for shares in ({NEW: 25.0, OLD: 75.0}, {NEW: 100.0}):
        scene.go_well(rounds=300)
        scene.look()
        assert scene.shares == shares
        assert (scene.route["action"], scene.route["actor"]) == ("promote", "rollouts")
        kept.append(scene.evidence())

    assert [record["content"]["given"]["share"] for record in kept] == [5, 25]
    assert [(record["kind"], record["verdict"], record["candidate"]) for record in kept] == [
        ("rollout", "promote", NEW)
    ] * 2
    assert [verify_record(record) for record in kept] == [[], []]
    assert scene.status["state"] == "finished"


def test_a_step_goes_on_until_there_is_enough_to_say(scene: Scene) -> None:
    scene.go_well(rounds=10)
    scene.look()

    status = scene.status
    assert scene.shares == {NEW: 5.0, OLD: 95.0}
    assert (status["state"], status["reason"]) == ("running", "10 of 20 units a variant")
    assert status["units"] == {
        "candidate": {"units": 10, "bad": 0, "bad_share": 0.0}, "incumbent": {"units": 190, "bad": 0, "bad_share": 0.0}
    }  # fmt: skip
    assert status["e_promote"] > 1
    assert (status["step"], status["steps"], status["share"]) == (0, [5, 25, 100], 5)


def test_outcomes_of_another_revision_do_not_count(scene: Scene) -> None:
    scene.happen(NEW, 50, revision=scene.revision - 1, status="ModelTimeout")
    scene.look()

    assert scene.status["units"]["candidate"]["units"] == 0
    assert scene.route["action"] == "rollout"


# ---------------------------------------------------------------------------- back


def test_clear_harm_takes_the_traffic_back_at_once(scene: Scene) -> None:
    scene.happen(OLD, 60)
    scene.happen(NEW, 2, status="ModelTimeout")
    scene.look()

    assert scene.shares == {OLD: 100.0}
    assert (scene.route["action"], scene.route["actor"]) == ("rollback", "rollouts")
    assert scene.route["reason"] == "clear harm: 2 of 2 bad with the candidate, 0 of 60 bad with the incumbent"
    assert verify_record(scene.evidence()) == []
    assert scene.status["state"] == "rolled_back"
    assert scene.snapshot.view.routes[NAME].revision == scene.revision  # at once in this process


def test_complaints_take_the_traffic_back(scene: Scene) -> None:
    ids = scene.happen(NEW, 5)
    scene.happen(OLD, 95)
    scene.look()
    assert scene.status["state"] == "running"

    for completion_id in ids[:2]:
        scene.complain(completion_id)
    scene.look()

    assert scene.shares == {OLD: 100.0}


@pytest.mark.parametrize(("more", "bad"), [({"value": 1.0}, 0), ({"metric": "tone"}, 0), ({"value": False}, 1),
                                           ({"value": None, "correction": "billing"}, 1)])  # fmt: skip
def test_what_feedback_means(scene: Scene, more: dict[str, Any], bad: int) -> None:
    (completion_id,) = scene.happen(NEW, 1)
    scene.complain(completion_id, **more)
    scene.look()

    assert scene.status["units"]["candidate"] == {"units": 1, "bad": bad, "bad_share": float(bad)}


def test_undo_brings_the_step_back_and_leaves_it_to_a_person(scene: Scene) -> None:
    scene.happen(NEW, 3, status="ModelTimeout")
    scene.look()
    assert scene.shares == {OLD: 100.0}

    scene.book.undo(NAME, ADMIN, "it was the network")
    scene.go_well(rounds=300)
    scene.look()
    assert scene.shares == {NEW: 5.0, OLD: 95.0}
    assert scene.status["state"] == "paused"
    assert "went back to this step" in scene.status["reason"]

    scene.book.resume(NAME, ADMIN)
    scene.go_well(rounds=300)
    scene.look()
    assert scene.shares == {NEW: 25.0, OLD: 75.0}


# ---------------------------------------------------------------------------- neither


def test_a_broken_split_pauses_for_good_whoever_looks(scene: Scene, tmp_path: Path) -> None:
    scene.happen(NEW, 100)
    scene.happen(OLD, 200)
    scene.look()
    assert scene.status["state"] == "paused"
    assert scene.status["reason"].startswith("sample ratio: 100 of 300 units")

    scene.happen(OLD, 1700)  # the ratio mends, the doubt stays
    again = Rollouts(scene.database, scene.snapshot, scene.answering)
    asyncio.run(again.look())

    assert again.status(NAME)["state"] == "paused"
    kept = scene.evidence(moves.evidence_id(NAME, scene.revision, "pause"))
    assert (kept["verdict"], kept["content"]["given"]["candidate_units"]["good"]) == ("pause", 100)
    assert verify_record(kept) == []

    scene.book.resume(NAME, ADMIN, "the cache asked twice")
    scene.look()
    assert scene.status["state"] == "running"


def test_a_rollout_that_a_person_holds_is_not_promoted_but_taken_back(scene: Scene) -> None:
    scene.book.pause(NAME, ADMIN, "over the weekend")
    scene.snapshot.refresh()
    scene.go_well(rounds=300)
    scene.look()
    assert (scene.status["state"], scene.status["reason"]) == ("paused", "over the weekend")
    assert scene.status["e_promote"] > 20

    scene.happen(NEW, 5, status="ModelTimeout")
    scene.look()
    assert scene.shares == {OLD: 100.0}


def test_silence_pauses(scene: Scene) -> None:
    scene.go_well(rounds=300)
    look = watching.Step(scene.database, NAME, scene.revision, scene.snapshot.view.routes[NAME].state.rollout).look(  # type: ignore[arg-type]
        datetime.now(UTC) + timedelta(minutes=11)
    )

    assert (look.decision.verdict, look.decision.e_promote > 20) == ("pause", True)
    assert look.decision.reason.startswith("silence")


def test_while_rows_are_still_to_be_read_nothing_is_decided(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "BATCH", 100)
    monkeypatch.setattr(watching, "MOST_BATCHES", 1)
    scene.happen(OLD, 60)
    scene.happen(NEW, 3, status="ModelTimeout")
    scene.happen(OLD, 137)  # 200 rows: two batches to the brim

    scene.look()
    scene.look()
    assert scene.route["action"] == "rollout"

    scene.look()
    assert scene.route["action"] == "rollback"


# ---------------------------------------------------------------------------- replicas


def test_of_several_replicas_that_come_to_a_verdict_one_writes_it(
    scene: Scene, open_database: Callable[[], Database], tmp_path: Path
) -> None:
    other = Scene(open_database(), tmp_path / "other")
    other.snapshot.refresh()
    scene.go_well(rounds=300)
    stale = scene.revision

    scene.look()
    written = moves.step(other.database, NAME, stale, "promote", {"about": "step"}, "too late")

    assert written is None
    assert [record["revision"] for record in scene.book.history(NAME)] == [3, 2, 1]
    other.look()
    assert other.revision == 3


def test_a_replica_that_is_started_anew_counts_the_same(scene: Scene) -> None:
    (completion_id,) = scene.happen(NEW, 1, unit="0a")
    scene.happen(OLD, 30, status="ModelTimeout")
    scene.look()
    scene.complain(completion_id)
    scene.look()
    again = Rollouts(scene.database, scene.snapshot, scene.answering)

    figures = ("units", "e_promote", "e_roll_back", "e_split")
    assert {name: again.status(NAME)[name] for name in figures} == {name: scene.status[name] for name in figures}


# ---------------------------------------------------------------------------- the last step


@pytest.fixture
def finished(scene: Scene) -> Scene:
    """The candidate has all the traffic, and was not asked yet."""
    scene.book.promote(NAME, ADMIN)
    scene.book.promote(NAME, ADMIN)
    assert scene.shares == {NEW: 100.0}
    return scene


def test_a_promotion_is_verified_by_a_request_of_the_kind_that_applications_send(finished: Scene) -> None:
    finished.registry.push(Push({}, {"support": suite(case("I was charged twice", "billing"))}), AUTHOR)
    for _ in range(2):
        finished.look()

    ((ask, caller),) = finished.answering.asked
    assert (ask.model, ask.pin, ask.variables, caller.principal.role) == (
        NAME,
        NEW,
        {"ticket": "I was charged twice"},
        "admin",
    )
    assert finished.status["is_verified"]
    assert verify_record(finished.evidence(moves.evidence_id(NAME, finished.revision, "verified"))) == []


def test_without_a_suite_the_variables_are_made_from_their_schemas(finished: Scene) -> None:
    finished.look()

    assert finished.answering.asked[0][0].variables == {"ticket": "verification"}
    assert finished.status["is_verified"]


def test_one_failure_of_the_request_is_forgiven(finished: Scene) -> None:
    finished.answering.failing = [ModelTimeout("slow")]
    finished.look()

    assert finished.status["is_verified"]


def test_a_promotion_whose_candidate_answers_nothing_is_taken_back(finished: Scene) -> None:
    finished.answering.failing = [ModelTimeout("slow")] * 3
    finished.look()

    assert finished.shares == {OLD: 100.0}
    assert finished.route["reason"] == "after the promotion 3 requests of ours failed: slow"
    assert verify_record(finished.evidence()) == []


def test_a_candidate_that_takes_long_to_answer_holds_up_no_look(
    finished: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def hang(*_: Any) -> None:
        finished.answering.asked.append(_)
        await asyncio.sleep(60)

    async def look_twice() -> None:
        for _ in range(2):
            await finished.rollouts.look()
            await asyncio.sleep(0.05)
        await finished.rollouts.aclose()

    monkeypatch.setattr(finished.answering, "complete", hang)
    finished.snapshot.refresh()
    asyncio.run(asyncio.wait_for(look_twice(), 10))

    assert len(finished.answering.asked) == 1  # not asked again while it is being asked
    assert not finished.status["is_verified"]


def test_a_rollout_that_has_ended_is_no_longer_told_to_metrics(scene: Scene) -> None:
    scene.look()
    assert set(scene.rollouts.looks()) == {NAME}

    scene.happen(NEW, 3, status="ModelTimeout")
    scene.look()
    scene.look()

    assert scene.rollouts.looks() == {}


def test_complaints_from_long_before_a_start_count_too(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    (completion_id,) = scene.happen(NEW, 1)
    scene.complain(completion_id)
    monkeypatch.setattr(watching, "COMPLAINTS_S", -60.0)  # as if much time had passed

    again = Rollouts(scene.database, scene.snapshot, scene.answering)

    assert again.status(NAME)["units"]["candidate"]["bad"] == 1


def test_an_old_promotion_is_not_asked_for_again(finished: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeper, "VERIFY_WITHIN_S", 0.0)
    finished.look()

    assert finished.answering.asked == []


# ---------------------------------------------------------------------------- schedules


def test_planned_shares_are_taken_when_they_are_due_in_the_name_of_who_planned_them(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = (("2099-01-01T00:00:00Z", {NEW: 50, OLD: 50}), ("2099-01-02T00:00:00Z", {NEW: 100}))
    scene.book.set(NAME, {OLD: 100}, ADMIN, "new year", how=HowAsked(schedule=plan))
    scene.look()
    assert scene.shares == {OLD: 100.0}

    for at, shares in (("2099-01-01T08:00:00", {NEW: 50.0, OLD: 50.0}), ("2099-01-02T08:00:00", {NEW: 100.0})):
        for module in (keeper, moves):
            monkeypatch.setattr(module, "now", lambda at=at: f"{at}.000000+00:00")
        scene.look()
        assert scene.shares == shares
        assert (scene.route["action"], scene.route["actor"], scene.route["reason"]) == (
            "schedule",
            ADMIN.id,
            "new year",
        )
        assert scene.evidence()["kind"] == "manual"

    revision = scene.revision
    scene.look()
    assert scene.revision == revision


def test_setting_shares_by_hand_ends_what_was_planned(scene: Scene) -> None:
    scene.book.set(NAME, {OLD: 100}, ADMIN, "plan", how=HowAsked(schedule=(("2099-01-01T00:00:00Z", {NEW: 100}),)))

    assert "schedule" not in scene.book.set(NAME, {OLD: 90, NEW: 10}, ADMIN, "by hand")


# ---------------------------------------------------------------------------- beside


def test_a_route_without_a_rollout_has_none_and_a_prompt_without_a_route_is_not_found(scene: Scene) -> None:
    scene.book.set(NAME, {OLD: 100}, ADMIN, "enough")

    assert scene.status["state"] == "none"
    with pytest.raises(NotFound, match=r"no prompt 'support\.other'"):
        scene.rollouts.status("support.other")


def test_a_rollout_by_hand_keeps_how_the_route_asks(scene: Scene) -> None:
    how = HowAsked(fallbacks=(OLD,), sticky="session")
    scene.book.set(NAME, {OLD: 100}, ADMIN, "with a fallback", how=how)
    record = scene.book.roll_out(parse_variant(NEW), (50, 100), QUICK, ADMIN, "again")

    assert (record["fallbacks"], record["sticky"]) == ([OLD], "session")
    assert record["rollout"]["rules"]["min_units"] == 20


def test_shadows_stand_beside_who_answered_and_count_for_no_rollout(scene: Scene) -> None:
    first, second, third = scene.log([OLD] * 3)
    scene.happen(NEW, 1, shadow_of=first)
    scene.happen(NEW, 1, shadow_of=second, status="ModelTimeout", latency_ms=50.0)
    scene.happen(NEW, 1, shadow_of=third, is_valid=False)
    scene.look()

    with scene.database.read() as session:
        (found,) = rollouts.beside(session, NAME, "2026-01-01")
        assert rollouts.beside(session, NAME, "2099-01-01") == []
    assert (found.shadow, found.answered, found.requests) == (NEW, OLD, 3)
    assert (found.both_failed, found.only_shadow_failed, found.only_answered_failed) == (0, 2, 0)
    assert (round(found.shadow_ms), found.answered_ms, found.compared) == (30, 20.0, 0)
    assert scene.status["units"]["candidate"]["units"] == 0


def test_a_route_that_cannot_be_moved_stops_no_other(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    scene.registry.push(Push({"support.another": triage()}), AUTHOR)
    scene.registry.push(Push({"support.another": triage(model="model-b")}), AUTHOR)
    scene.book.set("support.another", {"support.another@1+model-a": 100}, ADMIN, "x")
    scene.book.roll_out(parse_variant("support.another@2+model-b"), (5, 100), QUICK, ADMIN, "x")
    scene.happen(NEW, 3, status="ModelTimeout")
    decide = scene.rollouts._decide

    def fails_for_another(prompt: str, revision: int, rollout: Any) -> None:
        if prompt != NAME:
            raise KeyError("a bug")
        decide(prompt, revision, rollout)

    monkeypatch.setattr(scene.rollouts, "_decide", fails_for_another)
    scene.look()

    assert scene.shares == {OLD: 100.0}


def test_the_loop_outlasts_a_database_that_is_away(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeper, "LOOK_S", 0.0)
    looked: list[int] = []

    async def look() -> None:
        looked.append(len(looked))
        if len(looked) == 1:
            raise OSError("away")
        if len(looked) == 3:
            raise asyncio.CancelledError

    monkeypatch.setattr(scene.rollouts, "look", look)
    with pytest.raises(asyncio.CancelledError):
        asyncio.run(scene.rollouts.run())
    assert looked == [0, 1, 2]


def test_a_winner_of_a_job_is_held_to_what_its_suite_says(scene: Scene) -> None:
    scene.book.set(NAME, {OLD: 100}, ADMIN, "before the job")
    with scene.database.write() as session:
        record = route_book.begin(session, Variant(NAME, 1, "model-a", "ad-1"), (5, 100), "ev_ft", ADMIN,
                                  frozenset({OLD}), Rules(margin=0.1, latency_budget_ms=2000.0))  # fmt: skip

    assert (record["rollout"]["rules"]["margin"], record["rollout"]["rules"]["latency_budget_ms"]) == (0.1, 2000.0)

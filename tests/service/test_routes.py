"""Routes over HTTP, from what an admin sets to who gets what."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from service.context import build_context
from service.settings import Settings
from tests.service.conftest import Service, make_settings, triage
from tests.service.test_completions import wait_for

NAME = "support.triage"
OLD, NEW = f"{NAME}@1+model-a", f"{NAME}@2+model-b"
OTHER = f"{NAME}@1+model-b"
USERS = [f"user-{number}" for number in range(300)]
CHARGED = {"ticket": "I was charged twice"}


class Replica(Service):
    """Another service on the database of `first`, with its keys."""

    def __init__(self, settings: Settings, first: Service) -> None:
        super().__init__(settings)
        self._first = first

    def _make_keys(self) -> None:
        self.keys = dict(self._first.keys)


@pytest.fixture
def routed(service: Service) -> Service:
    """Two versions on two models, half of the people each."""
    service.push()
    service.push(data=triage(model="model-b"))
    put(service, {OLD: 50, NEW: 50})
    return service


def put(service: Service, variants: dict[str, float], status: int = 200, **more: Any) -> dict[str, Any]:
    answer = service.call("PUT", f"/api/routes/{NAME}", json={"variants": variants, "reason": "a test", **more})
    assert answer.status_code == status, answer.text
    found: dict[str, Any] = answer.json()
    return found


@pytest.mark.parametrize(
    "more", [{}, {"schedule": [{"at": "2099-01-01T00:00Z", "variants": {OLD: 50, f"{NAME}@01+model-a": 50}}]}]
)
def test_one_variant_has_one_share_however_it_is_written(routed: Service, more: dict[str, Any]) -> None:
    twice = {OLD: 100} if more else {OLD: 50, f"{NAME}@01+model-a": 50}

    assert put(routed, twice, 400, **more)["detail"] == f"{OLD!r} is named twice: give it one share"


@pytest.mark.parametrize("what", ["", "/history", "/rollout", "/shadows", "/explain?user=jane"])
def test_what_is_asked_of_the_route_of_no_prompt_is_told_so(service: Service, what: str) -> None:
    service.push("unrouted")
    unknown = service.call("GET", f"/api/routes/nobody{what}", "author")
    unrouted = service.call("GET", f"/api/routes/unrouted{what}", "author")

    assert (unknown.status_code, unknown.json()["detail"]) == (404, "no prompt 'nobody'")
    assert unrouted.status_code == (200 if what in ("/history", "/shadows") else 404)


@pytest.mark.parametrize("reason", ["", "  ", "\t\n"])
def test_blanks_are_no_reason(routed: Service, reason: str) -> None:
    assert put(routed, {NEW: 100}, 403, reason=reason)["type"] == "urn:turnout:error:needs_evidence"
    rollout = {"candidate": NEW, "reason": reason}
    assert routed.call("POST", f"/api/routes/{NAME}/rollout", json=rollout).status_code == 403


def complete(service: Service, role: str = "app", headers: dict[str, str] | None = None, **more: Any) -> Any:
    body = {"model": NAME, "variables": CHARGED, **more}
    return service.call("POST", "/v1/chat/completions", role, json=body, headers=headers or {})


def served(service: Service, **more: Any) -> str:
    answer = complete(service, **more)
    assert answer.status_code == 200, answer.text
    variant: str = answer.headers["x-turnout-variant"]
    return variant


def explained(service: Service, **params: Any) -> dict[str, Any]:
    answer = service.call("GET", f"/api/routes/{NAME}/explain", "author", params=params)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


# ---------------------------------------------------------------------------- who gets what, and why


def test_what_is_explained_is_what_is_served(routed: Service) -> None:
    for user in USERS[:40]:
        assert explained(routed, user=user)["variant"] == served(routed, user=user)
        assert explained(routed, session=user)["variant"] == served(routed, headers={"x-turnout-session": user})


def test_an_explanation_names_the_point_the_share_and_the_revision(routed: Service) -> None:
    found = explained(routed, user="jane")

    first = found["spans"][0]
    assert (first["variant"], first["from"], first["to"]) == (OLD, 0.0, 50.0)
    assert (found["revision"], found["by"], len(found["unit"])) == (1, "user", 16)
    assert (found["variant"] == OLD) == (found["point"] < 50)
    assert found["why"].startswith(f"point {found['point']:.4f} lies in ")


def test_nobody_in_particular_gets_a_variant_by_chance(routed: Service) -> None:
    found = explained(routed)

    assert (found["variant"], found["unit"], found["by"]) == (None, None, "nobody")
    assert {served(routed) for _ in range(40)} == {OLD, NEW}


def test_a_user_comes_before_a_session_and_a_safety_identifier_before_both(routed: Service) -> None:
    for user in USERS[:20]:
        alone = served(routed, user=user)
        assert served(routed, user=user, headers={"x-turnout-session": "another"}) == alone
        assert served(routed, user="another", safety_identifier=user) == alone


@pytest.mark.parametrize(
    ("sticky", "same", "by"),
    [
        ("session", {"user": "anybody", "headers": {"x-turnout-session": "s"}}, {"session": "s", "user": "x"}),
        ({"variables": ["ticket"]}, {"user": "anybody"}, {"variables": json.dumps(CHARGED), "user": "x"}),
    ],
)
def test_a_route_may_keep_together_what_is_of_one_session_or_has_the_same_variables(
    routed: Service, sticky: Any, same: dict[str, Any], by: dict[str, str]
) -> None:
    put(routed, {OLD: 50, NEW: 50}, sticky=sticky)

    found = {served(routed, **{**same, "user": user}) for user in USERS[:20]}
    assert found == {explained(routed, **by)["variant"]}


def test_a_route_that_is_sticky_by_session_takes_a_user_without_one_for_nobody(routed: Service) -> None:
    put(routed, {OLD: 50, NEW: 50}, sticky="session")

    assert {served(routed, user="jane") for _ in range(40)} == {OLD, NEW}


def test_growing_a_share_moves_nobody_who_is_in_a_share_that_did_not_shrink(routed: Service) -> None:
    put(routed, {OLD: 20, NEW: 30, OTHER: 50})
    before = {user: explained(routed, user=user)["variant"] for user in USERS}

    put(routed, {OLD: 40, NEW: 30, OTHER: 30})

    after = {user: explained(routed, user=user)["variant"] for user in USERS}
    assert {before[user] for user in USERS if before[user] != after[user]} == {OTHER}
    assert {after[user] for user in USERS if before[user] != after[user]} == {OLD}


def test_the_log_keeps_a_digest_of_who_asked_and_never_the_name(routed: Service) -> None:
    served(routed, user="jane@example.com")
    served(routed)
    routed.wait(routed.context.request_log.flush())

    rows = routed.call("GET", "/api/requests").json()
    units = [row["unit"] for row in rows.get("requests", rows) if row["prompt"] == NAME] if isinstance(rows, dict) else [
        row["unit"] for row in rows]  # fmt: skip
    assert sorted(units, key=str) == sorted([explained(routed, user="jane@example.com")["unit"], None], key=str)
    assert "jane" not in json.dumps(rows)


# ---------------------------------------------------------------------------- pins


def test_an_author_asks_a_variant_by_name_which_is_no_part_of_the_route(routed: Service) -> None:
    answer = complete(routed, "author", {"x-turnout-variant": OTHER}, user="jane")

    assert answer.headers["x-turnout-variant"] == OTHER
    assert answer.json()["turnout"]["route_revision"] is None


@pytest.mark.parametrize(
    ("role", "pin", "status"),
    [
        ("app", OTHER, 403),
        ("author", f"{NAME}@9+model-a", 404),
        ("author", f"{NAME}@1+no-such-model", 404),
        ("author", f"{NAME}@1+model-a+no-such-adapter", 404),
        ("author", "another@1+model-a", 400),
        ("author", NAME, 400),
    ],
)
def test_a_variant_that_cannot_be_pinned_is_refused(routed: Service, role: str, pin: str, status: int) -> None:
    answer = complete(routed, role, {"x-turnout-variant": pin})

    assert answer.status_code == status, answer.text


def test_a_pin_that_is_no_variant_is_told_by_its_header(routed: Service) -> None:
    error = complete(routed, "author", {"x-turnout-variant": "garbage"}).json()["error"]

    assert (error["param"], error["code"]) == ("x-turnout-variant", "bad_name")
    assert error["message"].startswith("x-turnout-variant: 'garbage' is no variant: write ")


def test_a_plain_model_has_no_variants_to_pin(routed: Service) -> None:
    body = {"model": "model-a", "messages": [{"role": "user", "content": "x"}]}
    answer = routed.call("POST", "/v1/chat/completions", "author", json=body, headers={"x-turnout-variant": OTHER})

    assert answer.status_code == 400


# ---------------------------------------------------------------------------- how a route asks


def test_a_fallback_answers_where_the_variant_cannot(routed: Service) -> None:
    put(routed, {f"{NAME}@1+dead": 100}, fallbacks=[OLD])

    assert served(routed) == OLD


def test_what_is_left_out_stays_and_what_is_empty_goes(routed: Service) -> None:
    put(routed, {OLD: 100}, fallbacks=[NEW], shadows=[OTHER], sticky="session")

    kept = put(routed, {OLD: 90, NEW: 10})
    assert (kept["fallbacks"], kept["shadows"], kept["sticky"]) == ([NEW], [OTHER], "session")

    gone = put(routed, {OLD: 100}, fallbacks=[], shadows=[], sticky=None)
    assert not {"fallbacks", "shadows", "sticky"} & gone.keys()


@pytest.mark.parametrize(
    ("more", "status", "param"),
    [
        ({"fallbacks": ["another@1+model-a"]}, 400, "fallbacks"),
        ({"shadows": [f"{NAME}@9+model-a"]}, 404, None),
        ({"fallbacks": ["x"] * 2}, 400, "variant"),
        ({"sticky": "moon"}, 400, None),
        ({"sticky": {"variables": []}}, 400, None),
        ({"sticky": {"variables": ["ticket", "nope"]}}, 400, "sticky"),
        ({"schedule": [{"at": "2020-01-01T00:00:00Z", "variants": {OLD: 100}}]}, 400, "schedule[0].at"),
        ({"schedule": [{"at": "2099-01-01T00:00:00Z", "variants": {OLD: 90}}]}, 400, "schedule[0].variants"),
        ({"schedule": [{"at": "2099-01-01T00:00:00Z", "variants": {f"{NAME}@9+model-a": 100}}]}, 404, None),
    ],
)
def test_what_a_route_cannot_ask_is_refused(
    routed: Service, more: dict[str, Any], status: int, param: str | None
) -> None:
    answer = put(routed, {OLD: 100}, status, **more)

    if param is not None:
        assert answer["param"] == param


def test_undo_brings_shares_and_how_a_route_asks_back(routed: Service) -> None:
    before = {user: explained(routed, user=user)["variant"] for user in USERS}
    put(routed, {OLD: 10, NEW: 20, OTHER: 70}, fallbacks=[OLD])

    undone = routed.call("POST", f"/api/routes/{NAME}/undo", json={}).json()

    assert "fallbacks" not in undone
    assert {user: explained(routed, user=user)["variant"] for user in USERS} == before


# ---------------------------------------------------------------------------- rollouts


def test_a_rollout_begins_waits_goes_on_and_ends_by_hand(routed: Service) -> None:
    put(routed, {OLD: 100})
    path = f"/api/routes/{NAME}"

    begun = routed.call("POST", f"{path}/rollout", json={"candidate": NEW, "steps": [10, 100], "rules": {"margin": 0.05},
                                                         "reason": "try it"}).json()  # fmt: skip
    assert [item["percent"] for item in begun["variants"]] == [10.0, 90.0]
    status = routed.call("GET", f"{path}/rollout", "author").json()
    assert (status["state"], status["share"], status["rules"]["margin"]) == ("running", 10.0, 0.05)

    routed.call("POST", f"{path}/pause", json={"reason": "over lunch"})
    status = routed.call("GET", f"{path}/rollout", "author").json()
    assert (status["state"], status["reason"]) == ("paused", "over lunch")

    routed.call("POST", f"{path}/resume")
    assert routed.call("GET", f"{path}/rollout", "author").json()["state"] == "running"

    assert routed.call("POST", f"{path}/abort").json()["variants"] == [{"variant": OLD, "percent": 100.0}]
    assert routed.call("GET", f"{path}/rollout", "author").json()["state"] == "aborted"


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"candidate": NEW}, 403),  # without a reason
        ({"candidate": NEW, "reason": "x", "steps": [50, 20, 100]}, 400),
        ({"candidate": "another@1+model-a", "reason": "x"}, 400),
        ({"candidate": NEW, "reason": "x", "rules": {"margin": 2}}, 400),
        ({"candidate": NEW, "reason": "x", "rules": {"moon": 2}}, 400),
        ({"candidate": NEW, "reason": "x"}, 409),  # two variants share the traffic
    ],
)
def test_a_rollout_that_cannot_begin_is_refused(routed: Service, body: dict[str, Any], status: int) -> None:
    if status != 409:
        put(routed, {OLD: 100})
    answer = routed.call("POST", f"/api/routes/{NAME}/rollout", json=body)

    assert answer.status_code == status, answer.text


# ---------------------------------------------------------------------------- live


def test_new_shares_are_served_at_once_in_the_process_that_they_were_set_in(routed: Service) -> None:
    for variant in (OLD, NEW, OTHER):
        put(routed, {variant: 100})
        assert served(routed, user="jane") == variant


def test_new_shares_are_served_within_a_second_on_every_replica(routed: Service, tmp_path: Path) -> None:
    settings = make_settings(tmp_path / "other", storage={"url": routed.settings.database_url})
    with Replica(settings, routed).running() as other:
        for variant in (OLD, NEW):
            put(routed, {variant: 100})
            began = time.monotonic()
            while served(other, user="jane") != variant:
                assert time.monotonic() - began < 1.5
                time.sleep(0.02)
            assert time.monotonic() - began < 1.0


def test_a_route_that_has_ended_serves_nobody_and_says_so(routed: Service) -> None:
    routed.produce(1)
    routed.call("DELETE", f"/api/prompts/{NAME}/labels/production", params={"reason": "withdrawn"})

    assert explained(routed, user="jane")["why"].startswith("the route has ended")


def test_a_context_for_one_question_moves_nothing(routed: Service) -> None:
    context = build_context(routed.settings, is_service=False)

    routed.wait(context.rollouts.run())  # ends at once


# ---------------------------------------------------------------------------- shadows


def test_a_shadow_is_asked_beside_the_answer_and_compared_with_it(tmp_path: Path) -> None:
    with Service(make_settings(tmp_path, recording={"bodies": True})).running() as service:
        service.push()
        service.push(data=triage(model="model-b"))
        put(service, {OLD: 100}, shadows=[NEW, f"{NAME}@1+dead"])
        for ticket in ("I was charged twice", "I forgot my password"):  # billing, account; the shadow says billing
            assert served(service, variables={"ticket": ticket}) == OLD
        rows = wait_for(lambda: whole(service, 4))

    same, dead = sorted(rows, key=lambda row: row["both_failed"] + row["only_shadow_failed"])
    assert (same["shadow"], same["answered"], same["requests"], same["p_value"]) == (NEW, OLD, 2, 1.0)
    assert (same["compared"], same["same_output"]) == (2, 1)
    assert (dead["shadow"], dead["only_shadow_failed"], dead["only_answered_failed"], dead["p_value"]) == (
        f"{NAME}@1+dead", 2, 0, 0.25
    )  # fmt: skip


def whole(service: Service, requests: int) -> list[dict[str, Any]] | None:
    """The comparison, once that many questions to shadows are in the log."""
    service.wait(service.context.request_log.flush())
    found: list[dict[str, Any]] = service.call("GET", f"/api/routes/{NAME}/shadows", "author").json()
    return found if sum(row["requests"] for row in found) == requests else None


def test_how_long_back_shadows_are_compared_is_bounded(routed: Service) -> None:
    assert routed.call("GET", f"/api/routes/{NAME}/shadows", params={"hours": 0}).status_code == 400
    assert routed.call("GET", f"/api/routes/{NAME}/shadows", params={"hours": 1}).json() == []

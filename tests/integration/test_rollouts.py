"""A real service over HTTP, and an upstream on which a fifth of the candidate's requests fail: traffic leaves by itself."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from suites.verification import verify_record
from tests.service.conftest import triage
from tests.service.protocol import Scripted, scripted
from tests.service.test_completions import wait_for
from tests.service.upstreams import Asked, answers, says

pytestmark = pytest.mark.integration
NAME = "support.triage"
OLD, NEW = f"{NAME}@1+up", f"{NAME}@2+up-b"
REQUESTS_S = 50
PATH = f"/api/routes/{NAME}"


def begin(server: Scripted, steps: list[int], rules: dict[str, Any] | None = None) -> None:
    """Two versions on two models; the second begins to take the traffic of the first."""
    for model in ("up", "up-b"):
        server.call("POST", f"/api/prompts/{NAME}/versions", triage(model=model), role="author")
    server.call("PUT", f"/api/prompts/{NAME}/labels/production", {"version": 1, "reason": "the first"})
    body = {"candidate": NEW, "steps": steps, "rules": rules or {}, "reason": "a better one"}
    server.call("POST", f"{PATH}/rollout", body)


def a_fifth_fails(server: Scripted) -> None:
    """Each fifth request that reaches the candidate fails, however often it is asked again."""
    seen: dict[str, bool] = {}

    async def act(asked: Asked) -> None:
        ticket = asked.body["messages"][-1]["content"]
        if asked.body["model"] == "up-b":
            seen.setdefault(ticket, len(seen) % 5 == 4)
        await (says(500, {"error": {"message": "out of memory"}}) if seen.get(ticket) else answers("billing"))(asked)

    server.upstream.otherwise = act


async def ask(server: Scripted, seconds: float) -> list[tuple[float, int, str]]:
    """Requests at a steady rate, whatever becomes of them: when each was asked, its status, and who answered."""
    headers = {"authorization": f"Bearer {server.keys['app']}"}
    async with httpx.AsyncClient(base_url=server.url, headers=headers, timeout=30) as client:
        began = time.monotonic()

        async def one(number: int) -> tuple[float, int, str]:
            at = number / REQUESTS_S
            await asyncio.sleep(max(0.0, began + at - time.monotonic()))
            body = {"model": NAME, "variables": {"ticket": f"number {number}"}}
            answer = await client.post("/v1/chat/completions", json=body)
            return at, answer.status_code, answer.headers.get("x-turnout-variant", "")

        return await asyncio.gather(*(one(number) for number in range(round(seconds * REQUESTS_S))))


def test_a_canary_of_which_a_fifth_fails_loses_its_traffic_within_ten_seconds(tmp_path: Path) -> None:
    with scripted(tmp_path) as server:
        begin(server, [5, 25, 100])
        a_fifth_fails(server)

        came = asyncio.run(ask(server, 14))

        route = server.call("GET", PATH)
        assert route["variants"] == [{"variant": OLD, "percent": 100.0}], server.call("GET", f"{PATH}/rollout")
        assert (route["action"], route["actor"]) == ("rollback", "rollouts")
        assert max(at for at, _, variant in came if variant == NEW) < 10
        assert {status for at, status, _ in came if at > 11} == {200}
        assert {variant for at, _, variant in came if at > 11} == {OLD}

        evidence = server.call("GET", f"/api/evidence/{route['evidence_id']}")
        assert (evidence["kind"], evidence["verdict"]) == ("rollout", "roll_back")
        assert evidence["content"]["given"]["candidate_units"]["bad"] >= 2
        assert verify_record(evidence) == []

        undone = server.call("POST", f"{PATH}/undo", {"reason": "the upstream was mended"})
        assert [item["percent"] for item in undone["variants"]] == [5.0, 95.0]
        assert server.call("GET", f"{PATH}/rollout")["state"] == "paused"


def test_a_candidate_that_does_well_gets_all_the_traffic_and_is_asked_once_more(tmp_path: Path) -> None:
    with scripted(tmp_path) as server:
        begin(server, [50, 100], {"min_step_s": 1, "min_units": 50, "margin": 0.2})

        came = asyncio.run(ask(server, 6))

        assert {status for _, status, _ in came} == {200}
        status = wait_for(lambda: _verified(server))
        assert (status["state"], status["variants"]) == ("finished", [{"variant": NEW, "percent": 100.0}])
        assert [one["action"] for one in server.call("GET", f"{PATH}/history")] == ["promote", "rollout", "production"]


def test_a_promotion_is_taken_back_where_the_candidate_does_not_answer_the_request_after_it(tmp_path: Path) -> None:
    with scripted(tmp_path) as server:
        begin(server, [50, 100])

        async def refuses(asked: Asked) -> None:
            fails = asked.body["model"] == "up-b"
            await (says(401, {"error": {"message": "no such key"}}) if fails else answers("billing"))(asked)

        server.upstream.otherwise = refuses
        server.call("POST", f"{PATH}/promote", {})

        route = wait_for(lambda: _route_after(server, "rollback"))
        assert route["variants"] == [{"variant": OLD, "percent": 100.0}]
        assert route["reason"].startswith("after the promotion 3 requests of ours failed: ")


def _verified(server: Scripted) -> Any:
    status = server.call("GET", f"{PATH}/rollout")
    return status if status.get("is_verified") else None


def _route_after(server: Scripted, action: str) -> Any:
    route = server.call("GET", PATH)
    return route if route["action"] == action else None

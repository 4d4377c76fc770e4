"""Who answers where the first variant cannot, and who is asked beside it without ever being answered from."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from service.shadows import Shadows
from tests.service.conftest import triage
from tests.service.protocol import PERSON, Scripted, replies, scripted
from tests.service.test_completions import turnout_of, wait_for
from tests.service.upstreams import Asked, answers, chunks_of, says, silent, streams

VARIABLES: Any = {"variables": {"ticket": "I was charged twice"}}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scripted]:
    """`triage`: 1 on `dead`, 2 on `up`, 3 on `up` with another variable, 4 on `up` that must fit a schema."""
    with scripted(tmp_path_factory.mktemp("home")) as server:
        other = triage(model="up", variables={"letter": {"type": "string"}})
        other["messages"] = [{"role": "user", "content": "{{ letter }}"}]
        schema = {"responseFormat": "json_schema", "jsonSchema": PERSON, "repair": 1}
        for version in (triage(model="dead"), triage(model="up"), other, triage(model="up", **schema)):
            server.push("triage", version)
        yield server


@pytest.fixture
def client(server: Scripted) -> Iterator[Any]:
    with server.client() as client:
        yield client


def route(server: Scripted, first: str, **more: Any) -> None:
    body = {"variants": {f"triage@{first}": 100}, "reason": "a test", "fallbacks": [], "shadows": [], **more}
    server.call("PUT", "/api/routes/triage", body)


def ask(client: Any, **more: Any) -> Any:
    return client.chat.completions.create(model="triage", messages=[], extra_body=VARIABLES, **more)


def first_of(stream: Any) -> Any:
    """The first chunk of a stream that is read to its end."""
    first, *_ = stream
    return first


@pytest.mark.parametrize("is_stream", [False, True])
def test_a_fallback_answers_where_the_first_cannot_and_the_record_names_both(
    server: Scripted, client: Any, is_stream: bool
) -> None:
    route(server, "1+dead", fallbacks=["triage@2+up"])
    server.script()
    found = first_of(ask(client, stream=True)) if is_stream else ask(client)

    assert turnout_of(found)["variant"] == found.model == "triage@2+up"
    row = server.row(found.id)
    assert (row["variant"], row["chosen"], row["status"]) == ("triage@2+up", "triage@1+dead", "ok")
    assert row["attempts"] > 1


def test_no_fallback_is_told_of_where_another_route_has_changed_meanwhile(server: Scripted, client: Any) -> None:
    """The snapshot makes its choices anew then: what is held of the first one is equal to it, and not the same object."""
    route(server, "2+up")
    server.script(*[answers("billing")] * 3)
    before = ask(client)
    server.push("other", triage(model="up"))
    server.call("PUT", "/api/routes/other", {"variants": {"other@1+up": 100}, "reason": "a test"})
    after = [ask(client), client.chat.completions.create(model="up", messages=[{"role": "user", "content": "x"}])]

    assert [server.row(found.id)["chosen"] for found in (before, *after)] == [None] * 3


def test_fallbacks_are_asked_in_their_order_and_the_last_ones_error_is_told(server: Scripted, client: Any) -> None:
    route(server, "1+dead", fallbacks=["triage@2+up-b", "triage@2+up"])
    server.script(*[says(500, {"error": {"message": "broken"}}, {"Retry-After": "0"})] * 9)
    with pytest.raises(openai.InternalServerError) as caught:
        ask(client)

    assert "broken" in caught.value.message
    assert caught.value.response.headers.get("x-turnout-variant") is None
    server.script()


def test_a_fallback_that_takes_other_variables_is_passed_over(server: Scripted, client: Any) -> None:
    route(server, "1+dead", fallbacks=["triage@3+up", "triage@2+up"])
    server.script()

    assert turnout_of(ask(client))["version"] == 2


@pytest.mark.parametrize("status", [400, 413, 422])
def test_what_is_the_callers_own_fault_is_given_to_no_fallback(server: Scripted, client: Any, status: int) -> None:
    route(server, "2+up", fallbacks=["triage@2+up-b"])
    server.script(says(status, {"error": {"message": "too long"}}))
    with pytest.raises(openai.BadRequestError):
        ask(client)

    assert len(server.asked) == 1


def test_an_answer_that_misses_its_schema_after_all_repairs_is_given_to_the_fallback(
    server: Scripted, client: Any
) -> None:
    route(server, "4+up", fallbacks=["triage@2+up"])
    server.script(*[replies({"content": "no JSON"})] * 2, answers("billing"))
    found = ask(client)

    assert (found.choices[0].message.content, turnout_of(found)["version"]) == ("billing", 2)
    row = server.row(found.id)
    assert (row["is_valid"], row["attempts"]) == (None, 3)


def test_no_fallback_is_asked_once_the_answer_has_begun(server: Scripted, client: Any) -> None:
    route(server, "2+up", fallbacks=["triage@2+up-b"])
    server.script(streams(chunks_of("one", "two")[:2], ends="cut"))
    with pytest.raises(openai.APIError):
        list(ask(client, stream=True))

    assert len(server.asked) == 1


# ---------------------------------------------------------------------------- shadows


@pytest.mark.parametrize("is_stream", [False, True])
def test_a_shadow_is_asked_beside_the_answer_and_recorded_alone(server: Scripted, client: Any, is_stream: bool) -> None:
    route(server, "2+up", shadows=["triage@2+up-b"])
    server.script()
    found = first_of(ask(client, stream=True)) if is_stream else ask(client)

    assert turnout_of(found)["variant"] == "triage@2+up"

    def find() -> Any:
        rows: Any = server.call("GET", "/api/requests")
        rows = rows if isinstance(rows, list) else rows["requests"]
        return next((row for row in rows if row["shadow_of"] == found.id), None)

    shadow = wait_for(find)
    assert (shadow["variant"], shadow["status"], shadow["chosen"]) == ("triage@2+up-b", "ok", None)
    assert shadow["id"] != found.id
    assert server.row(found.id)["shadow_of"] is None


def test_an_answer_does_not_wait_for_a_shadow_that_hangs_or_fails(server: Scripted, client: Any) -> None:
    route(server, "2+up", shadows=["triage@2+up-b"])
    server.script(answers("first"), silent())

    assert ask(client, timeout=5).choices[0].message.content == "first"

    route(server, "2+up", shadows=["triage@1+dead"])
    assert ask(client, timeout=5).choices[0].message.content == "billing"


def test_a_shadow_that_fails_closes_the_model_to_nobody_who_waits(tmp_path: Path) -> None:
    with scripted(tmp_path) as server, server.client() as client:
        for tokens in (1, 2):
            server.push("triage", triage(model="up", modelParameters={"max_tokens": tokens}))
        route(server, "1+up", shadows=["triage@2+up"])

        async def only_the_first(asked: Asked) -> None:
            await (answers("billing") if asked.body["max_tokens"] == 1 else says(500, {}))(asked)

        server.upstream.otherwise = only_the_first
        for _ in range(20):
            ask(client)

        def failed() -> bool:
            return len(server.call("GET", "/api/requests?status=ModelUnavailable")) == 20

        wait_for(failed)
        for _ in range(20):
            assert ask(client).choices[0].message.content == "billing"


def test_shadows_beyond_the_bound_are_dropped_and_counted() -> None:
    async def run() -> tuple[int, int, int]:
        shadows, done = Shadows(most=2), 0
        gate = asyncio.Event()

        async def work() -> None:
            nonlocal done
            await gate.wait()
            done += 1

        for _ in range(5):
            shadows.start(work)
        in_flight = shadows.in_flight
        gate.set()
        for _ in range(10):
            await asyncio.sleep(0)
        return in_flight, shadows.dropped, done

    assert asyncio.run(run()) == (2, 3, 2)


def test_shadows_under_way_end_with_the_service() -> None:
    async def run() -> bool:
        shadows = Shadows()
        shadows.start(lambda: asyncio.sleep(60))
        await asyncio.sleep(0)
        await shadows.aclose()
        await shadows.aclose()
        return shadows.in_flight == 0

    assert asyncio.run(run())

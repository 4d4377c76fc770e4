"""The official `openai` package as the client of a real server on loopback."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
import uvicorn

from service.app import build_app
from service.identity import KEY_FILE
from service.listening import listen
from service.settings import Settings
from tests.service.conftest import make_settings, triage
from tests.service.postgres import running_postgres

CHARGED = {"ticket": "I was charged twice"}
NO_ROOTS = ssl.SSLContext(
    ssl.PROTOCOL_TLS_CLIENT
)  # for plain HTTP: to read the trusted roots takes longer than a request


class Server:
    """A uvicorn server in a thread, and clients with a key of each role."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.keys: dict[str, str] = {}
        self.url = ""

    @contextlib.contextmanager
    def running(self) -> Iterator[Server]:
        with listen("127.0.0.1", 0) as listener:
            config = uvicorn.Config(build_app(self.settings), log_level="error", ws="none", timeout_graceful_shutdown=2)
            server = uvicorn.Server(config)
            thread = threading.Thread(target=server.run, args=([listener],))
            thread.start()
            wait_for(lambda: server.started)
            self.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
            try:
                self.keys["admin"] = (self.settings.home / KEY_FILE).read_text().strip()
                for role in ("app", "author"):
                    self.keys[role] = self.call("POST", "/api/keys", {"role": role})["key"]
                yield self
            finally:
                server.should_exit = True
                thread.join()

    def call(self, method: str, path: str, body: Any = None, role: str = "admin") -> Any:
        headers = {"authorization": f"Bearer {self.keys[role]}"}
        answer = httpx.request(method, self.url + path, json=body, headers=headers, timeout=30, verify=NO_ROOTS)
        assert answer.status_code < 300, answer.text
        return answer.json()

    def client(self, role: str = "app", **more: Any) -> openai.OpenAI:
        key = self.keys.get(role, role)
        http = openai.DefaultHttpxClient(verify=NO_ROOTS)
        return openai.OpenAI(
            base_url=f"{self.url}/v1", api_key=key, max_retries=0, timeout=30, http_client=http, **more
        )

    def push(self, name: str, data: dict[str, Any]) -> int:
        version: int = self.call("POST", f"/api/prompts/{name}/versions", data, "author")["version"]
        return version

    def produce(self, name: str, version: int) -> None:
        self.call("PUT", f"/api/prompts/{name}/labels/production", {"version": version, "reason": "set up by a test"})


def wait_for(is_so: Callable[[], Any], within_s: float = 20.0) -> Any:
    ends = time.monotonic() + within_s
    while not (found := is_so()):
        assert time.monotonic() < ends, "it did not come about in time"
        time.sleep(0.02)
    return found


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """`support.triage`: 1 on model-a is production, 2 on model-b is staging; `half`: a route of both halves."""
    with Server(make_settings(tmp_path_factory.mktemp("home"))).running() as server:
        for name in ("support.triage", "half"):
            assert server.push(name, triage()) == 1
            assert server.push(name, triage(model="model-b")) == 2
            server.produce(name, 1)
        server.call("PUT", "/api/prompts/support.triage/labels/staging", {"version": 2}, "author")
        halves = {"half@1+model-a": 50, "half@2+model-b": 50}
        server.call("PUT", "/api/routes/half", {"variants": halves, "reason": "an even split"})
        server.push("unreleased", triage())
        yield server


@pytest.fixture
def client(server: Server) -> Iterator[openai.OpenAI]:
    with server.client() as client:
        yield client


def complete(client: openai.OpenAI, model: str = "support.triage", **more: Any) -> Any:
    body: dict[str, Any] = {"messages": [], "extra_body": {"variables": more.pop("variables", CHARGED)}, **more}
    return client.chat.completions.create(model=model, **body)


def turnout_of(completion: Any) -> dict[str, Any]:
    """The object that the client's types do not know."""
    extra: dict[str, Any] = completion.model_extra["turnout"]
    return extra


# ---------------------------------------------------------------------------- who answers


@pytest.mark.parametrize(
    ("model", "variant", "revision"),
    [
        ("support.triage", "support.triage@1+model-a", 1),
        ("support.triage@production", "support.triage@1+model-a", None),
        ("support.triage@staging", "support.triage@2+model-b", None),
        ("support.triage@latest", "support.triage@2+model-b", None),
        ("support.triage@1", "support.triage@1+model-a", None),
        ("support.triage@2", "support.triage@2+model-b", None),
    ],
)
def test_a_prompt_is_a_model_by_name_label_or_version(
    client: openai.OpenAI, model: str, variant: str, revision: int | None
) -> None:
    completion = complete(client, model)

    assert completion.choices[0].message.content == "billing"
    assert completion.choices[0].finish_reason == "stop"
    assert completion.model == variant
    shown = turnout_of(completion)
    assert (shown["prompt"], shown["variant"], shown["route_revision"]) == ("support.triage", variant, revision)
    assert shown["version"] == int(variant.partition("@")[2][0])
    assert shown["digest"].startswith("sha256:")


def test_a_version_that_no_label_points_to_is_read_when_asked_for(server: Server, client: openai.OpenAI) -> None:
    server.push("archive", triage())
    server.push("archive", triage(model="model-b"))

    assert turnout_of(complete(client, "archive@1"))["version"] == 1


def test_a_model_alias_answers_messages_of_any_role(client: openai.OpenAI) -> None:
    messages: Any = [{"role": "system", "content": "Route."}, {"role": "user", "content": "my password"}]
    completion = client.chat.completions.create(model="model-a", messages=messages)

    assert completion.choices[0].message.content == "account"
    assert turnout_of(completion) == {
        "prompt": None,
        "version": None,
        "digest": None,
        "variant": "model-a",
        "route_revision": None,
    }


def test_messages_follow_those_of_the_template(client: openai.OpenAI) -> None:
    completion = complete(client, messages=[{"role": "user", "content": "I forgot my password"}])

    assert completion.choices[0].message.content == "account"


def test_usage_is_what_the_model_counted(client: openai.OpenAI) -> None:
    usage = complete(client).usage

    assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (7, 1, 8)


def test_the_variant_stands_in_a_header_too(client: openai.OpenAI) -> None:
    answer = client.chat.completions.with_raw_response.create(
        model="support.triage@staging", messages=[], extra_body={"variables": CHARGED}
    )

    assert answer.headers["x-turnout-variant"] == "support.triage@2+model-b"


def test_prompts_and_aliases_are_listed_as_models(client: openai.OpenAI) -> None:
    listed = {model.id for model in client.models.list()}

    assert {"support.triage", "half", "model-a", "model-b", "priced"} <= listed


# ---------------------------------------------------------------------------- routes


def variant_for(client: openai.OpenAI, **more: Any) -> str:
    return str(turnout_of(complete(client, "half", **more))["variant"])


def test_a_person_stays_on_one_variant_and_people_spread_over_both(client: openai.OpenAI) -> None:
    users = [f"user-{number}" for number in range(60)]
    first = [variant_for(client, user=user) for user in users]
    again = [variant_for(client, user=user) for user in users]

    assert first == again
    assert set(first) == {"half@1+model-a", "half@2+model-b"}
    assert 12 <= first.count("half@1+model-a") <= 48  # outside with a chance of 2 in a million


def test_safety_identifier_keeps_a_person_too_and_goes_before_user(client: openai.OpenAI) -> None:
    by_user = {user: variant_for(client, user=user) for user in ("anna", "ben", "carla", "dov", "eve", "finn")}
    by_identifier = {user: variant_for(client, safety_identifier=user, user="all the same") for user in by_user}

    assert by_identifier == by_user


def test_requests_of_nobody_in_particular_are_spread(client: openai.OpenAI) -> None:
    assert {variant_for(client) for _ in range(40)} == {"half@1+model-a", "half@2+model-b"}


def test_a_label_or_a_version_bypasses_the_route(client: openai.OpenAI) -> None:
    for user in ("anna", "ben", "carla", "dov"):
        assert turnout_of(complete(client, "half@2", user=user))["variant"] == "half@2+model-b"
        assert turnout_of(complete(client, "half@production", user=user))["variant"] == "half@1+model-a"


def test_a_route_that_moves_is_followed_by_the_next_request(server: Server, client: openai.OpenAI) -> None:
    server.push("moving", triage())
    server.push("moving", triage(model="model-b"))
    server.produce("moving", 1)
    assert turnout_of(complete(client, "moving")) | {"digest": ""} == {
        "prompt": "moving", "version": 1, "digest": "", "variant": "moving@1+model-a", "route_revision": 1,
    }  # fmt: skip

    server.produce("moving", 2)
    assert turnout_of(complete(client, "moving"))["variant"] == "moving@2+model-b"

    server.call("POST", "/api/routes/moving/undo", {"reason": "worse"})
    assert turnout_of(complete(client, "moving"))["variant"] == "moving@1+model-a"
    assert turnout_of(complete(client, "moving@production"))["variant"] == "moving@1+model-a"


# ---------------------------------------------------------------------------- refusals


def refused(client: openai.OpenAI, kind: type[openai.APIStatusError], model: str, **more: Any) -> dict[str, Any]:
    with pytest.raises(kind) as caught:
        complete(client, model, **more)
    body = caught.value.response.json()
    assert body.keys() == {"error"}
    assert body["error"].keys() == {"message", "type", "param", "code"}
    error: dict[str, Any] = body["error"]
    return error


@pytest.mark.parametrize(
    ("more", "param", "code"),
    [
        ({"variables": {}}, "variables.ticket", "missing_variable"),
        ({"variables": {"ticket": "a", "queue": "b"}}, "variables.queue", "unexpected_variable"),
        ({"variables": {"ticket": 7}}, "variables.ticket", "invalid_variable"),
        ({"variables": {"ticket": "x" * 4001}}, "variables.ticket", "invalid_variable"),
        ({"variables": ["a"]}, "variables", "bad_input"),
        ({"messages": [{"role": "system", "content": "obey"}]}, "messages[0].role", "render_error"),
        ({"messages": [{"role": "user", "content": "a"}, {"role": "developer", "content": "b"}]}, "messages[1].role",
         "render_error"),
        ({"n": 0}, "n", "bad_input"),
        ({"n": True}, "n", "bad_input"),
        ({"extra_body": {"no_such_field": 1}}, "no_such_field", "bad_input"),
    ],
)  # fmt: skip
def test_a_request_that_its_giver_can_mend_is_400_and_names_its_field(
    client: openai.OpenAI, more: dict[str, Any], param: str, code: str
) -> None:
    error = refused(client, openai.BadRequestError, "support.triage", **more)

    assert (error["type"], error["param"], error["code"]) == ("invalid_request_error", param, code)
    assert error["message"]


@pytest.mark.parametrize(
    "model", ["no.such", "support.triage@9", "support.triage@nightly", "model-a@production", "unreleased", "No Such!"]
)
def test_what_is_not_there_is_404_and_never_another_version(client: openai.OpenAI, model: str) -> None:
    error = refused(client, openai.NotFoundError, model)

    assert (error["type"], error["code"]) == ("invalid_request_error", "model_not_found")


def test_what_is_not_there_says_what_is(client: openai.OpenAI) -> None:
    label = refused(client, openai.NotFoundError, "support.triage@nightly")["message"]
    version = refused(client, openai.NotFoundError, "support.triage@9")["message"]

    assert label.startswith("no label 'support.triage@nightly': its labels are ")
    assert "production" in label
    assert version.startswith("no version 'support.triage@9': its newest is ")


def test_a_path_that_is_not_served_is_no_missing_model(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as raised:
        client.completions.create(model="model-a", prompt="x")

    assert raised.value.code == "no_such_path"
    assert "no such path '/v1/completions'" in str(raised.value)


def test_a_model_alias_takes_no_variables(client: openai.OpenAI) -> None:
    assert refused(client, openai.BadRequestError, "model-a")["param"] == "variables"


def test_a_model_alias_needs_a_message(client: openai.OpenAI) -> None:
    error = refused(client, openai.BadRequestError, "model-a", extra_body={})

    assert error["param"] == "messages"


def test_a_model_that_does_not_answer_is_502_and_says_which(client: openai.OpenAI) -> None:
    with pytest.raises(openai.APIStatusError) as caught:
        client.chat.completions.create(model="dead", messages=[{"role": "user", "content": "hello"}])

    error = caught.value.response.json()["error"]
    assert (caught.value.status_code, error["type"], error["code"]) == (502, "server_error", "model_unavailable")
    assert "127.0.0.1:9" in error["message"]


def test_a_key_that_is_not_ours_is_refused_in_openais_shape(server: Server) -> None:
    with server.client("sk-invented") as stranger, pytest.raises(openai.AuthenticationError) as caught:
        complete(stranger)

    error = caught.value.response.json()["error"]
    assert (error["type"], error["code"]) == ("authentication_error", "invalid_api_key")
    assert "sk-invented" not in caught.value.response.text


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'"text"', b"\xff", b'{"model": 7}', b'{"messages": []}'])
def test_a_body_that_is_no_request_is_400(server: Server, body: bytes) -> None:
    headers = {"authorization": f"Bearer {server.keys['app']}", "content-type": "application/json"}
    answer = httpx.post(f"{server.url}/v1/chat/completions", content=body, headers=headers, verify=NO_ROOTS)

    assert (answer.status_code, answer.json()["error"]["type"]) == (400, "invalid_request_error")


def test_a_body_that_is_too_large_is_413(tmp_path: Path) -> None:
    with Server(make_settings(tmp_path, server={"max_body_bytes": 2048})).running() as small:
        answer = httpx.post(
            f"{small.url}/v1/chat/completions",
            json={"model": "model-a", "messages": [{"role": "user", "content": "x" * 3000}]},
            headers={"authorization": f"Bearer {small.keys['app']}"},
            verify=NO_ROOTS,
        )

    assert answer.status_code == 413


# ---------------------------------------------------------------------------- streams


def test_a_stream_says_first_where_it_comes_from_and_then_the_answer(client: openai.OpenAI) -> None:
    chunks = list(complete(client, stream=True))

    assert turnout_of(chunks[0])["variant"] == "support.triage@1+model-a"
    assert all("turnout" not in (chunk.model_extra or {}) for chunk in chunks[1:])
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "billing"
    assert chunks[-1].choices[0].finish_reason == "stop"
    assert len({chunk.id for chunk in chunks}) == 1
    assert {chunk.object for chunk in chunks} == {"chat.completion.chunk"}


def test_a_stream_ends_with_its_usage_where_that_was_asked_for(client: openai.OpenAI) -> None:
    chunks = list(complete(client, stream=True, stream_options={"include_usage": True}))

    assert chunks[-1].choices == []
    assert chunks[-1].usage.total_tokens == 8
    assert all(chunk.usage is None for chunk in chunks[:-1])


def test_a_stream_carries_the_variants_header(client: openai.OpenAI) -> None:
    with client.chat.completions.with_streaming_response.create(
        model="support.triage", messages=[], stream=True, extra_body={"variables": CHARGED}
    ) as answer:
        assert answer.headers["x-turnout-variant"] == "support.triage@1+model-a"
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert list(answer.iter_lines())[-2:] == ["data: [DONE]", ""] or "data: [DONE]" in answer.text()


def test_a_stream_that_cannot_begin_is_refused_like_any_request(client: openai.OpenAI) -> None:
    error = refused(client, openai.BadRequestError, "support.triage", stream=True, variables={})

    assert error["param"] == "variables.ticket"


# ---------------------------------------------------------------------------- the log and feedback


def logged(server: Server, completion_id: str) -> dict[str, Any]:
    def find() -> dict[str, Any] | None:
        rows = server.call("GET", "/api/requests")
        return next((row for row in rows if row["id"] == completion_id), None)

    found: dict[str, Any] = wait_for(find)
    return found


def test_a_completion_is_written_to_the_request_log(server: Server, client: openai.OpenAI) -> None:
    completion = complete(client)

    row = logged(server, completion.id)
    assert {name: row[name] for name in ("prompt", "variant", "status", "prompt_tokens", "completion_tokens", "error")} == {
        "prompt": "support.triage", "variant": "support.triage@1+model-a", "status": "ok", "prompt_tokens": 7,
        "completion_tokens": 1, "error": None,
    }  # fmt: skip
    assert row["latency_ms"] >= row["upstream_ms"] >= 0


def test_what_a_priced_completion_cost_is_logged(server: Server, client: openai.OpenAI) -> None:
    messages: Any = [{"role": "user", "content": "one two three"}]
    completion = client.chat.completions.create(model="priced", messages=messages)

    assert logged(server, completion.id)["cost_usd"] == pytest.approx((3 * 1.0 + 1 * 2.0) / 1e6)


def test_a_completion_that_failed_is_logged_with_its_reason(server: Server, client: openai.OpenAI) -> None:
    with pytest.raises(openai.APIStatusError):
        client.chat.completions.create(model="dead", messages=[{"role": "user", "content": "hello"}])

    def find() -> dict[str, Any] | None:
        return next((row for row in server.call("GET", "/api/requests") if row["variant"] == "dead"), None)

    row = wait_for(find)
    assert row["status"] == "ModelUnavailable"
    assert "127.0.0.1:9" in row["error"]


def test_no_text_of_a_person_stands_in_the_log(server: Server, client: openai.OpenAI) -> None:
    completion = complete(client, variables={"ticket": "charged, says Zebulon"})

    assert "Zebulon" not in json.dumps(logged(server, completion.id))


def test_a_completion_is_rated_by_its_id_at_once(server: Server, client: openai.OpenAI) -> None:
    completion = complete(client)
    body = {"completion_id": completion.id, "metric": "queue", "value": False, "correction": "account"}

    kept = server.call("POST", "/api/feedback", body, "app")

    assert kept["variant"] == "support.triage@1+model-a"
    assert (kept["metric"], kept["value"], kept["correction"]) == ("queue", False, "account")


def test_a_completion_of_another_replica_is_rated_before_its_row_is_in_the_database(tmp_path: Path) -> None:
    settings = make_settings(tmp_path / "home")
    with Server(settings).running() as one, Server(settings).running() as other, one.client() as client:
        one.push("triage", triage())
        one.produce("triage", 1)
        for number in range(5):
            completion = complete(client, "triage", variables={"ticket": f"charged {number}"})
            body = {"completion_id": completion.id, "value": 1}
            headers = {"authorization": f"Bearer {one.keys['app']}"}
            answer = httpx.post(f"{other.url}/api/feedback", json=body, headers=headers, verify=NO_ROOTS)
            assert (answer.status_code, answer.json()["variant"]) == (201, "triage@1+model-a")


def test_a_key_that_the_service_lacks_is_no_fault_of_the_caller(tmp_path: Path) -> None:
    keyless = {"engine": "openai", "base_url": "http://127.0.0.1:9/v1", "api_key_env": "NOT_THERE"}
    with (
        Server(make_settings(tmp_path / "home", models={"up": keyless})).running() as server,
        server.client() as client,
    ):
        with pytest.raises(
            openai.APIStatusError, match="needs its key in the environment variable NOT_THERE"
        ) as caught:
            client.chat.completions.create(model="up", messages=[{"role": "user", "content": "hello"}])
        assert (caught.value.status_code, caught.value.code) == (502, "model_refused")
        assert caught.value.response.headers["x-should-retry"] == "false"


def test_a_secret_in_what_people_say_is_neither_stored_nor_told(server: Server, client: openai.OpenAI) -> None:
    key = "sk-proj-" + "aB3dE5gH7jK9mN1pQ2rS4tU6vW8xY0zC"
    body = {"completion_id": complete(client).id, "comment": f"it told {key}", "correction": f"use {key}", "value": key}

    kept = server.call("POST", "/api/feedback", body, "app")

    assert kept["completion_id"] == body["completion_id"]
    assert key not in json.dumps(kept)
    assert "[secret: OpenAI key]" in kept["comment"]


def test_an_app_rates_its_own_completions_only(server: Server, client: openai.OpenAI) -> None:
    completion = complete(client)
    other = server.call("POST", "/api/keys", {"role": "app"})["key"]
    body = {"completion_id": completion.id, "value": 1}

    def rate(key: str) -> int:
        headers = {"authorization": f"Bearer {key}"}
        return httpx.post(f"{server.url}/api/feedback", json=body, headers=headers, verify=NO_ROOTS).status_code

    assert (rate(other), rate(server.keys["app"]), rate(server.keys["author"])) == (403, 201, 201)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"completion_id": "chatcmpl-none", "value": 1}, 404),
        ({"completion_id": "chatcmpl-none"}, 400),
        ({"value": 1}, 400),
        ({"completion_id": "chatcmpl-none", "value": 1, "stars": 5}, 400),
    ],
)
def test_feedback_that_says_nothing_or_is_of_nothing_is_refused(
    server: Server, body: dict[str, Any], status: int
) -> None:
    headers = {"authorization": f"Bearer {server.keys['app']}"}
    answer = httpx.post(f"{server.url}/api/feedback", json=body, headers=headers, verify=NO_ROOTS)

    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"


# ---------------------------------------------------------------------------- without a database


@pytest.mark.integration
def test_serving_goes_on_while_the_database_is_away_and_catches_up_after(tmp_path: Path) -> None:
    with running_postgres() as postgres:
        settings = make_settings(tmp_path, storage={"url": postgres.fresh_url()})
        with Server(settings).running() as server, server.client() as client:
            server.push("support.triage", triage())
            server.produce("support.triage", 1)
            admin = {"authorization": f"Bearer {server.keys['admin']}"}
            before = complete(client)

            postgres.stop()
            wait_for(lambda: readiness(server) == (200, "stale"))
            during = complete(client)
            refusal = httpx.get(f"{server.url}/api/prompts", headers=admin, verify=NO_ROOTS)

            postgres.start()
            wait_for(lambda: readiness(server) == (200, "ok"))
            after = complete(client)

            assert [c.choices[0].message.content for c in (before, during, after)] == ["billing"] * 3
            assert (refusal.status_code, refusal.headers["retry-after"]) == (503, "1")
            assert refusal.json()["type"] == "urn:turnout:error:storage_failed"
            assert [logged(server, c.id)["status"] for c in (before, during, after)] == ["ok"] * 3


def readiness(server: Server) -> tuple[int, str]:
    answer = httpx.get(f"{server.url}/health/ready", verify=NO_ROOTS)
    return answer.status_code, answer.json()["status"]


def test_serving_goes_on_while_the_database_file_is_replaced(tmp_path: Path) -> None:
    with Server(make_settings(tmp_path)).running() as server, server.client() as client:
        server.push("support.triage", triage())
        server.produce("support.triage", 1)
        for file in tmp_path.glob("turnout.db*"):
            file.rename(tmp_path / f"old-{file.name}")
        (tmp_path / "turnout.db").write_bytes(b"this is no database " * 1000)

        answers = [complete(client).choices[0].message.content for _ in range(5)]

    assert answers == ["billing"] * 5


def test_what_is_answered_while_the_database_file_is_away_is_in_it_when_it_is_back(tmp_path: Path) -> None:
    settings = make_settings(tmp_path, recording={"durable": True})
    with Server(settings).running() as server, server.client() as client:
        server.push("support.triage", triage())
        server.produce("support.triage", 1)
        before = complete(client)

        for file in tmp_path.glob("turnout.db*"):
            file.rename(tmp_path / f"kept-{file.name}")
        wait_for(lambda: readiness(server) == (200, "stale"))
        during = complete(client)
        assert not list(tmp_path.glob("turnout.db*"))

        for file in tmp_path.glob("kept-*"):
            file.rename(tmp_path / file.name.removeprefix("kept-"))
        wait_for(lambda: readiness(server) == (200, "ok"))

        assert [logged(server, c.id)["status"] for c in (before, during)] == ["ok"] * 2


def test_no_completion_waits_for_a_writer_of_the_database(tmp_path: Path) -> None:
    with Server(make_settings(tmp_path)).running() as server, server.client() as client:
        server.push("support.triage", triage())
        server.produce("support.triage", 1)
        with contextlib.closing(sqlite3.connect(tmp_path / "turnout.db", isolation_level=None)) as writer:
            writer.execute("BEGIN IMMEDIATE")
            started = time.monotonic()
            answers = [complete(client).choices[0].message.content for _ in range(5)]
            seconds = time.monotonic() - started
            writer.execute("ROLLBACK")

    assert answers == ["billing"] * 5
    assert seconds < 5  # a writer that waits for another gives up after twenty

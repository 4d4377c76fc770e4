"""Routes beside Litestar behave as those within it: methods, paths, bodies, errors, the document of the API."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest

from prompts.errors import BadInput
from service.api import http_errors
from service.api.direct import Direct, DirectRoute
from service.api.exchange import Exchange
from service.api.hot import HOT
from service.api.strict_json import parse_json
from tests.service.conftest import Service, make_settings

CHAT = "/v1/chat/completions"
RENDER = "/api/prompts/support.triage/render"
BODY = {"model": "support.triage", "variables": {"ticket": "I was charged twice"}}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with Service(make_settings(tmp_path_factory.mktemp("home"))).running() as service:
        service.push()
        service.produce(1)
        yield service


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "HEAD"])
def test_a_method_that_a_path_does_not_have_is_405_and_says_which_it_has(service: Service, method: str) -> None:
    answer = service.call(method, CHAT, "app")

    assert (answer.status_code, answer.headers["allow"]) == (405, "OPTIONS, POST")
    assert method == "HEAD" or answer.json()["error"]["type"] == "invalid_request_error"


def test_a_problem_of_api_paths_has_its_form(service: Service) -> None:
    answer = service.call("DELETE", RENDER, "app")

    assert (answer.status_code, answer.headers["content-type"]) == (405, "application/problem+json")
    assert answer.json()["title"] == "Method not allowed"


def test_options_tells_the_methods(service: Service) -> None:
    answer = service.call("OPTIONS", CHAT, "app")

    assert (answer.status_code, answer.headers["allow"], answer.content) == (204, "OPTIONS, POST", b"")


def test_hosts_are_remembered_within_bounds(service: Service) -> None:
    for number in range(400):
        assert service.call("POST", CHAT, None, headers={"host": f"localhost:{number}"}).status_code == 401
    assert service.call("POST", CHAT, None, headers={"host": "localhost:" + "9" * 5000}).status_code == 401

    assert len(service.app._known) == 256
    assert max(map(len, service.app._known)) < 300


@pytest.mark.parametrize("path", [CHAT + "/", CHAT, "/v1/responses/"])
def test_a_slash_at_the_end_changes_nothing(service: Service, path: str) -> None:
    body = BODY if "chat" in path else {"prompt": {"id": "support.triage", "variables": BODY["variables"]}}

    assert service.call("POST", path, "app", json=body).status_code == 200


@pytest.mark.parametrize(
    "path", ["/api/prompts//render", "/api/prompts/a/b/render", "/api/prompts/render", "/v1/chat/completions/x"]
)
def test_a_path_that_is_nearly_one_is_404(service: Service, path: str) -> None:
    assert service.call("POST", path, "app", json={}).status_code in (404, 405)


def test_a_body_of_gzip_is_unpacked(service: Service) -> None:
    packed = gzip.compress(json.dumps(BODY).encode())
    answer = service.call("POST", CHAT, "app", content=packed, headers={"content-encoding": "gzip"})

    assert answer.json()["choices"][0]["message"]["content"] == "billing"


def test_a_body_that_comes_in_pieces_is_put_together(service: Service) -> None:
    async def pieces() -> Any:
        for byte in json.dumps(BODY).encode():
            yield bytes([byte])

    answer = service.call("POST", CHAT, "app", content=pieces())

    assert answer.json()["choices"][0]["message"]["content"] == "billing"


def test_a_body_beyond_its_bound_is_413_however_it_comes(service: Service) -> None:
    limit = service.settings.server.max_body_bytes

    async def pieces() -> Any:
        for _ in range(limit // 65536 + 2):
            yield b" " * 65536

    for content in (b" " * (limit + 1), pieces()):
        answer = service.call("POST", CHAT, "app", content=content)
        assert (answer.status_code, answer.json()["error"]["code"]) == (413, "too_large")


@pytest.mark.parametrize("path", [CHAT, "/v1/responses", "/v1/embeddings", RENDER])
@pytest.mark.parametrize("body", ['{"variables": {"a": 1, "a": 2}}', r'{"variables": {"a": 1, "\u0061": 2}}'])
def test_a_key_that_is_given_twice_is_refused(service: Service, path: str, body: str) -> None:
    answer = service.call("POST", path, "app", content=body, headers={"content-type": "application/json"})

    assert answer.status_code == 400
    assert "gives 'a' twice in one object" in answer.text


@pytest.mark.parametrize(
    "text",
    [
        '{"a": "b: c", "d": ["e:f", {"g": ":"}]}',
        "[]",
        '{"a": 1e5, "b": 123456789012345678901234567890}',
        '{"a":{"a":{"a":1}}}',
    ],
)
def test_a_body_is_read_as_json_reads_it(text: str) -> None:
    assert parse_json(text.encode()) == json.loads(text)


@pytest.mark.parametrize(
    "text", ['{"a":1,"a":1}', '[{"b":0},{"a":1,"b":2,"a":1}]', '{"a:":1,"b":{"c":1,"c":2}}', '{"a" :1,"a"\n: 2}']
)
def test_no_way_of_writing_hides_a_key_that_is_given_twice(text: str) -> None:
    with pytest.raises(BadInput, match="twice"):
        parse_json(text.encode())


@pytest.mark.parametrize("query", ["versoin=1", "version=one", "version=0", "version=1&label=staging", "label=%00"])
def test_a_query_of_a_rendering_means_what_it_says(service: Service, query: str) -> None:
    answer = service.call("POST", f"{RENDER}?{query}", "app", json={"variables": BODY["variables"]})

    assert (answer.status_code, answer.json()["param"] in ("version", "versoin", "label")) == (400, True)


def test_an_answer_tells_its_length(service: Service) -> None:
    for answer in (service.call("POST", CHAT, "app", json=BODY), service.call("POST", RENDER, "app", json={})):
        assert int(answer.headers["content-length"]) == len(answer.content)


def test_the_document_of_the_api_has_the_routes_that_litestar_does_not_know(service: Service) -> None:
    paths = service.call("GET", "/schema", "app").json()["paths"]

    for route in HOT:
        operation = paths[route.path][route.method.lower()]
        assert operation["summary"] == (route.handler.__doc__ or "").partition("\n")[0]
    assert paths[CHAT]["post"]["requestBody"]["content"]["application/json"]["schema"]["required"] == ["model"]
    assert "/v1/models" in paths


def test_the_document_of_the_api_says_how_one_brings_a_key_and_what_stands_in_headers_and_forms(
    service: Service,
) -> None:
    document = service.call("GET", "/schema", "app").json()
    paths = document["paths"]
    label = paths["/api/prompts/{name}/labels/{label}"]
    conditional = (label["put"], label["delete"], paths["/api/routes/{name}"]["put"])
    form = paths["/v1/files"]["post"]["requestBody"]["content"]["multipart/form-data"]["schema"]

    assert document["components"]["securitySchemes"] == {"key": {"type": "http", "scheme": "bearer"}}
    assert document["security"] == [{"key": []}]
    assert [paths[f"/health/{name}"]["get"]["security"] for name in ("live", "ready")] == [[{}], [{}]]
    assert all("If-Match" in {one["name"] for one in operation["parameters"]} for operation in conditional)
    assert form["required"] == ["file", "purpose"]


@pytest.mark.parametrize(
    ("method", "path", "named", "status"),
    [
        ("GET", "/api/prompts/{name}", {"name": "no.such"}, 404),
        ("GET", "/api/prompts?limit=0", {}, 400),
        ("POST", "/api/push", {}, 400),
        ("POST", "/v1/chat/completions", {}, 400),
        ("GET", "/v1/models/{name}", {"name": "nothing"}, 404),
    ],
)
def test_the_document_of_the_api_describes_refusals_as_they_are_sent(
    service: Service, method: str, path: str, named: dict[str, str], status: int
) -> None:
    document = service.call("GET", "/schema", "author").json()
    answer = service.call(method, path.format(**named), "author", **({"json": {"nope": 1}} if method == "POST" else {}))

    described = document["paths"][path.partition("?")[0]][method.lower()]["responses"]
    assert answer.status_code == status
    assert "400" not in described
    content = described["4XX"]["content"][answer.headers["content-type"]]
    jsonschema.validate(answer.json(), content["schema"])


def test_the_document_of_the_api_names_the_kinds_of_what_is_no_json(service: Service) -> None:
    paths = service.call("GET", "/schema", "app").json()["paths"]
    plain = {
        "/metrics": "text/plain; version=0.0.4",
        "/api/adapters/{name}/card": "text/markdown",
        "/api/adapters/{name}/export": "application/x-tar",
        "/api/datasets/{digest}/examples": "application/jsonl",
        "/v1/files/{file_id}/content": "application/octet-stream",
    }

    assert {path: next(iter(paths[path]["get"]["responses"]["200"]["content"])) for path in plain} == plain
    versions = paths["/api/prompts/{name}/versions"]["post"]["responses"]
    assert sorted(versions) == ["200", "201", "4XX", "5XX"]
    assert "application/json" in paths["/health/ready"]["get"]["responses"]["503"]["content"]


@pytest.mark.parametrize("path", ["/schema/other", "/schema/openapi.yaml"])
def test_what_is_no_document_below_the_schema_is_told_as_everywhere(service: Service, path: str) -> None:
    answer = service.call("GET", path, "app")

    assert (answer.status_code, answer.headers["content-type"]) == (404, "application/problem+json")
    assert answer.json()["detail"] == f"no such path {path!r}: /schema lists those that are served"


def direct(service: Service, handler: Any) -> tuple[int, bytes]:
    """What a route with this handler answers."""
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {"type": "http.disconnect"}

    principal = next(iter(service.context.snapshot.view.principals.values()))
    state = {"principal": principal, "headers": {}}
    scope: Any = {"type": "http", "method": "POST", "path": "/api/x", "state": state, "query_string": b""}
    app = Direct(service.litestar, service.context, [DirectRoute("POST", "/api/x", "app", handler)])
    asyncio.run(app(scope, receive, send))
    return (sent[0]["status"], sent[1]["body"]) if sent else (0, b"")


def test_a_fault_of_ours_is_500_and_shows_nothing_of_itself(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    logged: list[Any] = []
    monkeypatch.setattr(http_errors.log, "exception", lambda *_, **more: logged.append(more["exc_info"]), raising=False)

    async def fail(_: Exchange) -> None:
        raise KeyError("a secret")

    status, body = direct(service, fail)

    assert (status, json.loads(body)["title"]) == (500, "Internal error")
    assert b"secret" not in body
    assert isinstance(logged[0], KeyError)


def test_a_client_that_leaves_before_its_body_is_whole_is_not_answered(service: Service) -> None:
    async def read(exchange: Exchange) -> None:
        await exchange.json()

    assert direct(service, read) == (0, b"")


def test_a_client_that_has_left_cancels_what_it_waits_for(service: Service) -> None:
    ended: list[str] = []

    async def wait(exchange: Exchange) -> None:
        with exchange.cancelled_when_hung_up():
            try:
                await asyncio.sleep(30)
            except asyncio.CancelledError:
                ended.append("cancelled")
                raise

    assert (direct(service, wait), ended) == ((0, b""), ["cancelled"])


def test_a_cancellation_from_elsewhere_is_passed_on(service: Service) -> None:
    async def end(exchange: Exchange) -> None:
        with exchange.cancelled_when_hung_up():
            raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        direct(service, end)

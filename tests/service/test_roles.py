from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from litestar import get
from litestar.handlers import HTTPRouteHandler

from service.api.gatekeeper import Gatekeeper
from service.api.hot import HOT
from service.app import HANDLERS, build_litestar, inside, with_door
from service.identity import ROLES
from tests.service.conftest import Service, make_settings

# CONTRACT.md §5: app (complete, render, rate its own completions), author (+ push, run, files, jobs, evidence),
# ci (+ gate, metrics), admin (+ protected labels, routes, keys, others' jobs).
LEAST_ROLE: dict[str, str] = {
    "GET /health/live": "open",
    "GET /health/ready": "open",
    "GET /metrics": "ci",
    "GET /schema": "app",
    "GET /schema/openapi.json": "app",
    "GET /schema/{path}": "app",
    "POST /v1/chat/completions": "app",
    "POST /v1/responses": "app",
    "POST /v1/embeddings": "app",
    "GET /v1/models": "app",
    "GET /v1/models/{name}": "app",
    "DELETE /v1/models/{name}": "author",
    "POST /v1/files": "author",
    "GET /v1/files": "author",
    "GET /v1/files/{file_id}": "author",
    "GET /v1/files/{file_id}/content": "author",
    "DELETE /v1/files/{file_id}": "author",
    "POST /v1/fine_tuning/jobs": "author",
    "GET /v1/fine_tuning/jobs": "author",
    "GET /v1/fine_tuning/jobs/{tuning_id}": "author",
    "POST /v1/fine_tuning/jobs/{tuning_id}/cancel": "author",
    "POST /v1/fine_tuning/jobs/{tuning_id}/pause": "author",
    "POST /v1/fine_tuning/jobs/{tuning_id}/resume": "author",
    "GET /v1/fine_tuning/jobs/{tuning_id}/events": "author",
    "GET /v1/fine_tuning/jobs/{tuning_id}/checkpoints": "author",
    "GET /v1/fine_tuning/checkpoints/{rest}": "author",
    "POST /v1/fine_tuning/checkpoints/{rest}": "author",
    "DELETE /v1/fine_tuning/checkpoints/{rest}": "author",
    "GET /v1/fine_tuning/alpha/{rest}": "author",
    "POST /v1/fine_tuning/alpha/{rest}": "author",
    "DELETE /v1/fine_tuning/alpha/{rest}": "author",
    "POST /api/prompts/{name}/render": "app",
    "GET /api/prompts/{name}/template": "app",
    "GET /api/changes": "app",
    "POST /api/feedback": "app",
    "GET /api/prompts": "author",
    "GET /api/prompts/{name}/requests": "author",
    "POST /api/push": "author",
    "GET /api/prompts/{name}": "author",
    "GET /api/prompts/{name}/versions": "author",
    "POST /api/prompts/{name}/versions": "author",
    "GET /api/prompts/{name}/versions/{number}": "author",
    "GET /api/prompts/{name}/diff": "author",
    "POST /api/prompts/{name}/diff": "author",
    "GET /api/prompts/{name}/blame": "author",
    "GET /api/prompts/{name}/page": "author",
    "GET /api/prompts/{name}/labels/{label}": "author",
    "PUT /api/prompts/{name}/labels/{label}": "author",
    "DELETE /api/prompts/{name}/labels/{label}": "author",
    "POST /api/prompts/{name}/labels/{label}/undo": "author",
    "GET /api/prompts/{name}/labels/{label}/history": "author",
    "GET /api/suites": "author",
    "GET /api/suites/{name}": "author",
    "PUT /api/suites/{name}": "author",
    "POST /api/matrices": "author",
    "POST /api/runs": "author",
    "GET /api/runs": "author",
    "GET /api/runs/{run_id}": "author",
    "GET /api/runs/{run_id}/cases": "author",
    "GET /api/runs/{run_id}/events": "author",
    "POST /api/gates": "ci",
    "GET /api/gates/{gate_id}": "author",
    "POST /api/finetunes": "author",
    "POST /api/advice": "author",
    "GET /api/advice/{advice_id}": "author",
    "POST /api/calibrations": "author",
    "GET /api/calibrations": "author",
    "POST /api/datasets": "author",
    "GET /api/datasets": "author",
    "GET /api/datasets/{digest}": "author",
    "GET /api/datasets/{digest}/examples": "author",
    "POST /api/examples/collect": "author",
    "GET /api/examples": "author",
    "POST /api/examples/{example_id}/accept": "author",
    "POST /api/examples/{example_id}/reject": "author",
    "GET /api/evidence/{evidence_id}": "author",
    "GET /api/jobs": "author",
    "GET /api/jobs/{job_id}": "author",
    "GET /api/jobs/{job_id}/events": "author",
    "POST /api/jobs/{job_id}/cancel": "author",
    "POST /api/jobs/{job_id}/resume": "author",
    "GET /api/models": "author",
    "GET /api/upstreams": "author",
    "GET /api/adapters": "author",
    "GET /api/adapters/{name}": "author",
    "GET /api/adapters/{name}/card": "author",
    "GET /api/adapters/{name}/export": "author",
    "DELETE /api/adapters/{name}": "admin",
    "POST /api/adapters/prune": "admin",
    "GET /api/routes/{name}": "author",
    "GET /api/routes/{name}/history": "author",
    "GET /api/routes/{name}/rollout": "author",
    "GET /api/routes/{name}/explain": "author",
    "GET /api/routes/{name}/shadows": "author",
    "PUT /api/routes/{name}": "admin",
    "POST /api/routes/{name}/rollout": "admin",
    "POST /api/routes/{name}/pause": "admin",
    "POST /api/routes/{name}/resume": "admin",
    "POST /api/routes/{name}/promote": "admin",
    "POST /api/routes/{name}/abort": "admin",
    "POST /api/routes/{name}/undo": "admin",
    "POST /api/keys": "admin",
    "GET /api/keys": "admin",
    "DELETE /api/keys/{key_id}": "admin",
    "PUT /api/keys/{key_id}/limits": "admin",
    "POST /api/reload": "admin",
    "GET /api/audit": "admin",
    "GET /api/requests": "admin",
}
VALUES = {"name": "no.such", "number": "1", "label": "staging", "run_id": "run_0", "gate_id": "job_0", "advice_id": "adv_0",
          "job_id": "job_0", "evidence_id": "ev_0", "key_id": "key_0", "file_id": "file-0", "tuning_id": "ftjob-0", "rest": "a",
          "digest": "sha256:000000", "example_id": "ex_0", "path": "no-such-page"}  # fmt: skip


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with Service(make_settings(tmp_path_factory.mktemp("home"))).running() as service:
        yield service


def routes_of(service: Service) -> set[str]:
    """Every method and path that the app answers, as Litestar has them and beside it; OPTIONS is Litestar's own."""
    found = {f"{route.method} {route.path}" for route in HOT}
    for route in service.litestar.routes:
        for handler in getattr(route, "route_handlers", ()):
            assert isinstance(handler, HTTPRouteHandler)
            found |= {f"{method} {_plain(route.path_format)}" for method in handler.http_methods if method != "OPTIONS"}
    return found


def _plain(path: str) -> str:
    return path.rstrip("/") or "/"


def ask(service: Service, route: str, role: str | None) -> int:
    method, _, path = route.partition(" ")
    body: Any = {} if method in ("POST", "PUT") else None
    return service.call(method, path.format(**VALUES), role, json=body).status_code


def test_every_route_of_the_app_stands_in_the_table_with_its_least_role(service: Service) -> None:
    assert routes_of(service) == set(LEAST_ROLE)


def test_only_health_is_open(service: Service) -> None:
    open_routes = {route for route in routes_of(service) if ask(service, route, None) != 401}

    assert open_routes == {"GET /health/live", "GET /health/ready"}


def test_a_key_that_is_not_ours_opens_nothing_else_either(service: Service) -> None:
    open_routes = {route for route in routes_of(service) if ask(service, route, "turnout_admin_invented") != 401}

    assert open_routes == {"GET /health/live", "GET /health/ready"}


@pytest.mark.parametrize("role", ROLES)
def test_a_role_may_use_what_the_table_gives_it_and_is_refused_the_rest(service: Service, role: str) -> None:
    allowed = {route for route in routes_of(service) if ask(service, route, role) not in (401, 403)}

    rank = {name: index for index, name in enumerate(("open", *ROLES))}
    assert allowed == {route for route, least in LEAST_ROLE.items() if rank[least] <= rank[role]}


def test_a_path_that_does_not_exist_needs_a_key_too(service: Service) -> None:
    assert service.call("GET", "/no/such/path", None).status_code == 401
    assert service.call("GET", "/no/such/path", "app").status_code == 404


@pytest.mark.parametrize("path", ["//api/keys", "/health/../api/keys", "/health/%2e%2e/api/keys", "/health/x"])
def test_no_spelling_of_a_path_reaches_a_handler_without_a_key(service: Service, path: str) -> None:
    answer = service.call("GET", f"http://localhost{path}", None)

    assert answer.status_code in (401, 404)
    assert "role" not in answer.text


def test_a_handler_that_does_not_say_whom_it_is_for_is_refused_to_everyone(service: Service) -> None:
    @get("/api/new")
    async def new() -> str:
        return "reached"

    litestar = build_litestar(service.context)
    litestar.register(new)
    app = with_door(service.context, litestar)

    async def asked(role: str | None) -> int:
        headers = {"authorization": f"Bearer {service.keys[role]}"} if role else {}
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost") as client:
            return (await client.get("/api/new", headers=headers)).status_code

    assert {role: service.wait(asked(role)) for role in (None, *ROLES)} == {None: 401} | dict.fromkeys(ROLES, 403)


def test_a_balancer_may_ask_for_health_by_head(service: Service) -> None:
    assert service.call("HEAD", "/health/ready", None).status_code == 200
    assert service.call("HEAD", "/health/nope", None).status_code == 404
    assert service.call("HEAD", "/api/prompts", None).status_code == 401


def test_health_tells_its_status_alone(service: Service) -> None:
    assert service.call("GET", "/health/live", None).json() == {"status": "ok"}
    assert service.call("GET", "/health/ready", None).json() == {"status": "ok"}
    service.context.request_log.is_stuck = True
    assert service.call("GET", "/health/ready", None).json() == {"status": "log"}


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example:8600", "[::1]evil.example", ""]
)
@pytest.mark.parametrize("path", ["/health/live", "/api/prompts", "/v1/models"])
def test_a_request_for_another_host_is_refused_before_anything_else(service: Service, host: str, path: str) -> None:
    answer = service.call("GET", path, headers={"host": host})

    assert answer.status_code == 421


@pytest.mark.parametrize(
    "hosts", [("evil.example", "localhost"), ("localhost", "evil.example"), ("localhost", "localhost")]
)
def test_a_request_with_two_host_headers_is_refused(service: Service, hosts: tuple[str, str]) -> None:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {"type": "http.disconnect"}

    headers = [(b"host", host.encode()) for host in hosts]
    scope = {"type": "http", "method": "GET", "path": "/health/live", "query_string": b"", "headers": headers}
    service.wait(service.app(scope, receive, send))

    assert sent[0]["status"] == 421


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.1:8600", "localhost:1", "LOCALHOST", "[::1]:8600", "[::1]"])
def test_loopback_names_are_always_good_hosts(service: Service, host: str) -> None:
    assert service.call("GET", "/health/live", None, headers={"host": host}).status_code == 200


def test_a_host_that_the_settings_allow_is_good(service: Service) -> None:
    settings = make_settings(service.settings.home, server={"allowed_hosts": ["turnout.example.com"]})
    app = Gatekeeper(inside(service.context, service.litestar), settings, service.context.snapshot)

    async def ask_by_name() -> int:
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(app), base_url="http://turnout.example.com"
        ) as client:
            return (await client.get("/health/live")).status_code

    assert service.wait(ask_by_name()) == 200


@pytest.mark.parametrize("header", ["", "Bearer", "Bearer ", "Basic YTpi", "Bearer é", "bearer x y"])
def test_a_header_that_holds_no_key_of_ours_is_401_and_says_how(service: Service, header: str) -> None:
    answer = service.call("GET", "/api/prompts", None, headers={"authorization": header.encode("latin-1")})

    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    assert answer.headers["content-type"] == "application/problem+json"


def test_a_revoked_key_is_refused_at_once(service: Service) -> None:
    made = service.call("POST", "/api/keys", json={"role": "author", "note": "for a minute"}).json()
    assert service.call("GET", "/api/prompts", made["key"]).status_code == 200

    assert service.call("DELETE", f"/api/keys/{made['id']}").status_code == 204

    assert service.call("GET", "/api/prompts", made["key"]).status_code == 401


def test_keys_are_listed_without_their_secrets(service: Service) -> None:
    listed = service.call("GET", "/api/keys")

    limits = {"requests_per_minute", "tokens_per_minute", "tokens_per_day"}
    assert {"id", "role", "note", "created_at", "revoked_at"} | limits == listed.json()[0].keys()
    assert not any(key in listed.text for key in service.keys.values())


def test_an_unknown_role_is_refused(service: Service) -> None:
    answer = service.call("POST", "/api/keys", json={"role": "root"})

    assert (answer.status_code, answer.json()["param"]) == (400, "role")


def test_making_and_ending_keys_is_audited(service: Service) -> None:
    made = service.call("POST", "/api/keys", json={"role": "app"}).json()
    service.call("DELETE", f"/api/keys/{made['id']}")

    newest = service.call("GET", "/api/audit", params={"limit": 2}).json()

    assert [(entry["action"], entry["subject"]) for entry in newest] == [
        ("key.revoke", made["id"]),
        ("key.create", made["id"]),
    ]


def test_all_handlers_are_registered() -> None:
    assert len(HANDLERS) == len(set(HANDLERS))

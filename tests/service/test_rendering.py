"""Rendering for applications, templates to fill, and the stream of changes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from prompts.names import Variant
from service import changes as changes_module
from service.api import rendering
from service.changes import Change, Changes
from service.identity import Principal
from service.routing import RouteState
from service.snapshot import Routed, View, changed
from service.splits import Weighted
from tests.service.conftest import Service, make_settings, triage

RENDER = "/api/prompts/two/render"
TEMPLATE = "/api/prompts/{}/template"
TICKET = {"variables": {"ticket": "x"}}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """`two`: version 1 in production, 2 newest; `logic` needs the server to be rendered."""
    with Service(make_settings(tmp_path_factory.mktemp("home"))).running() as service:
        service.push("two")
        service.push("two", triage(model="model-b"))
        service.produce(1, "two")
        service.push("logic", triage(messages=[{"role": "user", "content": "{{ ticket | upper }}"}]))
        yield service


# ---------------------------------------------------------------------------- render


def test_a_rendering_has_an_etag_of_its_own_and_is_not_sent_again(service: Service) -> None:
    first = service.call("POST", RENDER, "app", json=TICKET)
    etag = first.headers["etag"]
    again = service.call("POST", RENDER, "app", json=TICKET, headers={"if-none-match": etag})

    assert first.status_code == 200
    assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", etag)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (RENDER, {"variables": {"ticket": "y"}}),
        (RENDER, {**TICKET, "messages": [{"role": "user", "content": "more"}]}),
        (RENDER + "?version=2", TICKET),
    ],
)
def test_another_result_has_another_etag(service: Service, path: str, body: dict[str, Any]) -> None:
    etag = service.call("POST", RENDER, "app", json=TICKET).headers["etag"]
    other = service.call("POST", path, "app", json=body, headers={"if-none-match": etag})

    assert other.status_code == 200
    assert other.headers["etag"] != etag


@pytest.mark.parametrize("sent", ["{}", "W/{}", '"other", {}', '"other" , W/{}', "*"])
def test_every_way_to_name_an_etag_is_understood(service: Service, sent: str) -> None:
    etag = service.call("POST", RENDER, "app", json=TICKET).headers["etag"]
    headers = {"if-none-match": sent.format(etag)}

    assert service.call("POST", RENDER, "app", json=TICKET, headers=headers).status_code == 304


def test_placeholders_are_rendered_in_their_slots(service: Service) -> None:
    content = [{"placeholder": "history"}, {"role": "user", "content": "{{ ticket }}"}]
    service.push("placed", triage(messages=content, placeholders={"history": {"maxMessages": 1}}))
    path, given = "/api/prompts/placed/render?label=latest", [{"role": "assistant", "content": "before"}]

    answer = service.call("POST", path, "app", json={**TICKET, "placeholders": {"history": given}})
    refused = service.call("POST", path, "app", json={**TICKET, "placeholders": {"history": given * 2}})

    assert answer.json()["messages"] == [*given, {"role": "user", "content": "x"}]
    assert (refused.status_code, refused.json()["param"]) == (400, "placeholders.history")


@pytest.mark.parametrize(
    "body",
    [b"{", b"[]", b'{"variables": []}', b'{"messages": {}}', b'{"messages": [1]}', b'{"placeholders": {"h": 1}}'],
)
def test_a_body_of_another_shape_is_400(service: Service, body: bytes) -> None:
    answer = service.call("POST", RENDER, "app", content=body, headers={"content-type": "application/json"})

    assert answer.status_code == 400
    assert answer.headers["content-type"] == "application/problem+json"


def test_a_version_that_nobody_asked_for_before_is_rendered_too(service: Service) -> None:
    service.push("many")
    service.push("many", triage(model="model-b"))
    service.context.snapshot._compiled.pop(("many", 1))

    assert service.call("POST", "/api/prompts/many/render?version=1", "app", json=TICKET).json()["version"] == 1


def test_the_list_of_versions_has_an_etag_that_a_label_moves(service: Service) -> None:
    path = "/api/prompts/listed/versions"
    service.push("listed")
    etag = service.call("GET", path).headers["etag"]
    assert service.call("GET", path, headers={"if-none-match": etag}).status_code == 304

    service.call("PUT", "/api/prompts/listed/labels/staging", "author", json={"version": 1})

    moved = service.call("GET", path, headers={"if-none-match": etag})
    assert (moved.status_code, moved.json()["labels"]) == (200, {"latest": 1, "staging": 1})


# ---------------------------------------------------------------------------- template


def test_a_template_is_given_as_text_and_substitutions(service: Service) -> None:
    answer = service.call("GET", TEMPLATE.format("two"), "app")

    assert answer.json() == {
        "name": "two",
        "version": 1,
        "digest": answer.json()["digest"],
        "model": "model-a",
        "parameters": {"temperature": 0},
        "variables": {"ticket": {"type": "string", "maxLength": 4000}},
        "placeholders": {},
        "local": True,
        "messages": [
            {"role": "system", "content": [{"text": "Route the ticket."}]},
            {"role": "user", "content": [{"variable": "ticket"}]},
        ],
        "max_characters": 2097152,
    }
    assert answer.headers["etag"] == f'"{answer.json()["digest"]}"'
    assert answer.headers["turnout-revision"] == str(service.context.snapshot.view.revision)


def test_a_template_that_is_known_is_not_sent_again_and_its_revision_is(service: Service) -> None:
    etag = service.call("GET", TEMPLATE.format("two"), "app").headers["etag"]
    service.push("unrelated")
    again = service.call("GET", TEMPLATE.format("two"), "app", headers={"if-none-match": etag})

    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["turnout-revision"] == str(service.context.snapshot.view.revision)


def test_a_template_with_logic_says_that_it_is_rendered_here(service: Service) -> None:
    found = service.call("GET", TEMPLATE.format("logic") + "?label=latest", "app").json()

    assert (found["local"], found["messages"], found["version"]) == (False, None, 1)
    assert found["variables"] == {"ticket": {"type": "string", "maxLength": 4000}}


def test_placeholders_are_told_with_what_a_client_has_to_check(service: Service) -> None:
    content = [{"placeholder": "history"}, {"role": "user", "content": "{{ ticket }}"}]
    service.push("slots", triage(messages=content, placeholders={"history": {"maxMessages": 1}}))

    found = service.call("GET", TEMPLATE.format("slots") + "?version=1", "app").json()

    assert found["placeholders"] == {"history": {"description": None, "default": None, "maxMessages": 1}}
    assert found["messages"] == [{"placeholder": "history"}, {"role": "user", "content": [{"variable": "ticket"}]}]


@pytest.mark.parametrize(
    ("query", "status"),
    [("?label=none", 404), ("?version=99", 404), ("?version=1&label=production", 400), ("?version=0", 400)],
)
def test_a_template_is_selected_as_everything_else(service: Service, query: str, status: int) -> None:
    assert service.call("GET", TEMPLATE.format("two") + query, "app").status_code == status


def test_a_template_of_a_removed_label_is_404_at_once(service: Service) -> None:
    path = TEMPLATE.format("two") + "?label=canary"
    service.call("PUT", "/api/prompts/two/labels/canary", "author", json={"version": 2})
    etag = service.call("GET", path, "app").headers["etag"]

    service.call("DELETE", "/api/prompts/two/labels/canary", "author")

    assert service.call("GET", path, "app", headers={"if-none-match": etag}).status_code == 404


# ---------------------------------------------------------------------------- what has moved


def _view(**more: Any) -> View:
    labels = {"a": {"production": 1}, "b": {"production": 1, "staging": 2}}
    return View(**{"revision": 1, "labels": labels, "newest": {"a": 1, "b": 2}, **more})


def _route(revision: int) -> dict[str, Routed]:
    return {"a": Routed(RouteState((Weighted(Variant("a", 1, "m"), 100),)), revision, "salt")}


@pytest.mark.parametrize(
    ("after", "names"),
    [
        (_view(revision=9), set()),
        (_view(principals={"digest": Principal("key", "app")}), set()),
        (_view(labels={"a": {"production": 1}, "b": {"production": 2, "staging": 2}}), {"b"}),
        (_view(labels={"a": {"production": 1}, "b": {"production": 1}}), {"b"}),
        (_view(labels={}), {"a", "b"}),
        (_view(newest={"a": 2, "b": 2}), {"a"}),
        (_view(newest={"a": 1, "b": 2, "c": 1}), {"c"}),
        (_view(newest={"a": 1}, labels={"a": {"production": 1}}), {"b"}),
        (_view(routes=_route(1)), {"a"}),
    ],
)
def test_a_prompt_has_changed_when_a_label_its_newest_version_or_its_route_moved(after: View, names: set[str]) -> None:
    assert changed(_view(), after) == names
    assert changed(after, _view()) == names


def test_a_route_that_moved_changes_its_prompt_alone() -> None:
    assert changed(_view(routes=_route(1)), _view(routes=_route(2))) == {"a"}
    assert changed(_view(routes=_route(1)), _view(routes=_route(1))) == set()


def test_the_revision_is_told_without_a_stream_too(service: Service) -> None:
    assert service.call("GET", "/api/changes", "app").json() == {"revision": service.context.snapshot.view.revision}


class Stream:
    """The events of one stream, read on the service's loop."""

    def __init__(self, service: Service, principal: Principal, seen: str | None = None) -> None:
        self._service = service
        self._chunks: AsyncIterator[bytes] = rendering._stream(service.context, principal, seen)

    def next(self) -> tuple[str, str]:
        """The kind and the data of the next event; ("", "") for one that is only an id or a comment."""
        fields = dict(line.split(": ", 1) for line in self.raw().decode().splitlines() if line and line[0] != ":")
        return fields.get("event", ""), fields.get("data", "")

    def raw(self) -> bytes:
        return bytes(self._service.wait(anext(self._chunks)))

    def close(self) -> None:
        self._service.wait(self._chunks.aclose())  # type: ignore[attr-defined]  # it is a generator


@pytest.fixture
def principal(service: Service) -> Principal:
    return Principal(service.ids["app"], "app")


def test_a_stream_says_hello_and_then_what_moves_as_it_moves(service: Service, principal: Principal) -> None:
    service.push("moving")
    service.push("moving", triage(model="model-b"))
    stream = Stream(service, principal)
    revision = service.context.snapshot.view.revision

    assert stream.raw().decode() == f'id: {revision}\nevent: hello\ndata: {{"revision": {revision}}}\n\n'
    service.call("PUT", "/api/prompts/moving/labels/staging", "author", json={"version": 1})
    assert stream.next() == ("changed", '{"prompts": ["moving"]}')
    service.call("DELETE", "/api/prompts/moving/labels/staging", "author")
    assert stream.next() == ("changed", '{"prompts": ["moving"]}')
    service.produce(1, "moving")
    assert stream.next() == ("changed", '{"prompts": ["moving"]}')
    stream.close()


def test_what_moves_no_prompt_only_tells_the_revision(service: Service, principal: Principal) -> None:
    stream = Stream(service, principal)
    stream.next()

    service.call("POST", "/api/keys", json={"role": "app"})

    assert stream.raw().decode() == f"id: {service.context.snapshot.view.revision}\n\n"
    stream.close()


def test_a_stream_that_was_away_is_told_that_it_may_have_missed_some(service: Service, principal: Principal) -> None:
    revision = service.context.snapshot.view.revision
    for seen in (str(revision - 1), str(revision + 1), "nonsense"):
        stream = Stream(service, principal, seen)
        assert [stream.next()[0], stream.next()[0]] == ["hello", "all"]
        stream.close()

    current = Stream(service, principal, str(revision))
    current.next()
    service.push("since")
    assert current.next() == ("changed", '{"prompts": ["since"]}')
    current.close()


def test_a_stream_that_reads_slowly_is_told_once(service: Service, principal: Principal) -> None:
    stream = Stream(service, principal)
    stream.next()
    for name in ("slow-a", "slow-b"):
        service.push(name)

    assert json.loads(stream.next()[1]) == {"prompts": ["slow-a", "slow-b"]}
    stream.close()


def test_silence_is_broken_by_a_comment(
    service: Service, principal: Principal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rendering, "KEEP_ALIVE_S", 0.01)
    stream = Stream(service, principal)
    stream.next()

    assert stream.raw() == b": still here\n\n"
    stream.close()


def test_the_stream_of_a_revoked_key_ends(service: Service) -> None:
    made = service.call("POST", "/api/keys", json={"role": "app"}).json()
    stream = Stream(service, Principal(made["id"], "app"))
    stream.next()

    service.call("DELETE", f"/api/keys/{made['id']}")

    with pytest.raises(StopAsyncIteration):
        stream.raw()


def test_streams_end_with_the_service_and_leave_nothing_behind(tmp_path_factory: pytest.TempPathFactory) -> None:
    with Service(make_settings(tmp_path_factory.mktemp("ending"))).running() as service:
        changes = service.context.snapshot.changes
        stream = Stream(service, Principal(service.ids["app"], "app"))
        stream.next()
        assert len(changes) == 1

        changes.close()

        with pytest.raises(StopAsyncIteration):
            stream.raw()
        assert len(changes) == 0
        late = Stream(service, Principal(service.ids["app"], "app"))
        late.next()
        with pytest.raises(StopAsyncIteration):
            late.raw()


def test_a_stream_that_the_client_leaves_is_forgotten(service: Service, principal: Principal) -> None:
    changes = service.context.snapshot.changes
    before = len(changes)
    stream = Stream(service, principal)
    stream.next()
    assert len(changes) == before + 1

    stream.close()

    assert len(changes) == before


def test_a_listener_that_lags_far_behind_is_told_all_and_holds_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(changes_module, "MAX_WAITING", 3)

    async def scenario() -> list[Change | None]:
        changes = Changes()
        with changes.listening() as listener:
            for number in range(3):
                changes.publish(Change(number, frozenset([f"p{number}"])))
            first = await listener.next(5)
            for number in range(10):
                changes.publish(Change(number, frozenset([f"p{number}"])))
            await asyncio.sleep(0)
            return [first, await listener.next(5), await listener.next(0)]

    assert asyncio.run(scenario()) == [
        Change(2, frozenset({"p0", "p1", "p2"})),
        Change(9, frozenset(), is_all=True),
        None,
    ]

"""What a prompt gives, and what it refuses before any request."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from tests.client.conftest import KEY, Driver, FakeService, problem, template
from turnout import BadSelector, BadVariables, NotFound, Refused, Rendered, Turnout, Unreachable

NAME = "support.triage"


def test_a_rendering_holds_plain_messages_and_where_they_come_from(client: Driver) -> None:
    assert client.render(NAME, {"ticket": "I was {{ charged }}"}) == Rendered(
        messages=[
            {"role": "system", "content": "Route the ticket."},
            {"role": "user", "content": "Ticket: I was {{ charged }}"},
        ],
        model="model-a",
        parameters={"temperature": 0},
        name=NAME,
        version=1,
        digest="sha256:1",
    )


def test_a_prompt_says_what_it_is(client: Driver) -> None:
    found = client.prompt(NAME)

    assert (found.name, found.version, found.digest, found.model, found.parameters, found.is_local) == (
        NAME, 1, "sha256:1", "model-a", {"temperature": 0}, True
    )  # fmt: skip
    assert found.variables == {"ticket": {"type": "string", "maxLength": 40}}
    assert "is_fallback=False" in repr(found)


def test_variables_come_as_a_mapping_or_by_name(client: Driver) -> None:
    found = client.prompt(NAME)

    assert client.fill(found, {"ticket": "x"}) == client.fill(found, ticket="x")


def test_what_a_caller_changes_in_a_rendering_changes_no_other(client: Driver) -> None:
    first = client.render(NAME, {"ticket": "x"})
    first.messages[0]["content"] = "changed"
    first.parameters["temperature"] = 1

    assert client.render(NAME, {"ticket": "x"}).messages[0]["content"] == "Route the ticket."
    assert client.render(NAME, {"ticket": "x"}).parameters == {"temperature": 0}


def test_a_default_stands_for_what_is_not_given(client: Driver, fake: FakeService) -> None:
    fake.templates[1] = template(1, variables={"ticket": {"type": "string", "default": "none", "maxLength": 2}})

    assert client.render(NAME).messages[1]["content"] == "Ticket: none"


@pytest.mark.parametrize(
    ("given", "param", "said"),
    [
        ({}, "variables.ticket", "missing variable 'ticket'"),
        ({"ticket": "x", "queue": "y"}, "variables.queue", "the prompt declares ticket"),
        ({"ticket": 1}, "variables.ticket", "expected a string, found int"),
        ({"ticket": "x" * 41}, "variables.ticket", "41 characters, allowed are 0 to 40"),
    ],
)
@pytest.mark.parametrize("is_local", [True, False])
def test_variables_that_do_not_fit_are_refused_before_any_request(
    client: Driver, fake: FakeService, given: dict[str, Any], param: str, said: str, is_local: bool
) -> None:
    fake.templates[1] = template(1, local=is_local)
    found = client.prompt(NAME)

    with pytest.raises(BadVariables, match=said) as caught:
        client.fill(found, given)
    assert caught.value.param == param
    assert fake.count == 1


def test_a_value_outside_an_enum_is_refused_with_what_there_is(client: Driver, fake: FakeService) -> None:
    fake.templates[1] = template(1, variables={"ticket": {"type": "string", "enum": ["a", "b"]}})

    with pytest.raises(BadVariables, match="'c' is not one of 'a', 'b'"):
        client.render(NAME, {"ticket": "c"})
    assert client.render(NAME, {"ticket": "b"}).messages[1]["content"] == "Ticket: b"


def test_a_message_that_grows_beyond_what_the_service_would_render_is_refused(
    client: Driver, fake: FakeService
) -> None:
    fake.templates[1] = template(1, max_characters=20)

    assert client.render(NAME, {"ticket": "x" * 12}).version == 1
    with pytest.raises(BadVariables, match="more than 20 characters"):
        client.render(NAME, {"ticket": "x" * 13})


HISTORY = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]}]
WITH_HISTORY = template(
    1,
    placeholders={"history": {"maxMessages": 2}, "hints": {"default": [{"role": "user", "content": "be kind"}]}},
    messages=[
        {"role": "system", "content": [{"text": "Hello."}]},
        {"placeholder": "history"},
        {"placeholder": "hints"},
        {"role": "user", "content": [{"variable": "ticket"}]},
    ],
)


def test_placeholders_stand_in_their_slots_and_messages_follow(client: Driver, fake: FakeService) -> None:
    fake.templates[1] = WITH_HISTORY
    last = [{"role": "user", "content": [{"type": "text", "text": "and this"}], "name": "ann"}]

    found = client.render(NAME, {"ticket": "x"}, placeholders={"history": HISTORY}, messages=last)

    assert found.messages == [
        {"role": "system", "content": "Hello."},
        *HISTORY,
        {"role": "user", "content": "be kind"},
        {"role": "user", "content": "x"},
        *last,
    ]


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({}, "placeholders.history"),
        ({"placeholders": {"history": [], "others": []}}, "placeholders.others"),
        ({"placeholders": {"history": "hi"}}, "placeholders.history"),
        ({"placeholders": {"history": HISTORY * 2}}, "placeholders.history"),
        ({"placeholders": {"history": [{"role": "system", "content": "obey"}]}}, "placeholders.history[0].role"),
        ({"placeholders": {"history": []}, "messages": [{"role": "developer"}]}, "messages[0].role"),
        ({"placeholders": {"history": []}, "messages": [{"role": "user", "content": 7}]}, "messages[0].content"),
        ({"placeholders": {"history": []}, "messages": "hi"}, "messages"),
    ],
)
def test_lists_of_messages_that_do_not_fit_are_refused_before_any_request(
    client: Driver, fake: FakeService, more: dict[str, Any], param: str
) -> None:
    fake.templates[1] = WITH_HISTORY

    with pytest.raises(BadVariables) as caught:
        client.render(NAME, {"ticket": "x"}, **more)
    assert caught.value.param == param
    assert fake.count == 1


# ---------------------------------------------------------------------------- rendered by the service


def test_a_template_with_logic_is_rendered_by_the_service_in_the_version_that_was_fetched(
    client: Driver, fake: FakeService
) -> None:
    fake.templates[1] = template(1, local=False, messages=None)
    found = client.prompt(NAME)
    fake.labels["production"] = 2

    rendered = client.fill(found, {"ticket": "x"}, messages=[{"role": "user", "content": "y"}])

    assert (rendered.version, rendered.messages) == (1, [{"role": "user", "content": "rendered there"}])
    assert fake.asked[1][0] == "POST /api/prompts/support.triage/render?version=1"
    assert fake.bodies[1] == {
        "variables": {"ticket": "x"}, "placeholders": {}, "messages": [{"role": "user", "content": "y"}]
    }  # fmt: skip


def test_what_only_the_service_can_refuse_names_its_field_too(client: Driver, fake: FakeService) -> None:
    fake.templates[1] = template(1, local=False, messages=None)

    with pytest.raises(BadVariables) as caught:
        client.render(NAME, {"ticket": "too long"})
    assert caught.value.param == "variables.ticket"


def test_while_the_service_is_away_such_a_prompt_needs_a_fallback(client: Driver, fake: FakeService) -> None:
    fake.templates[1] = template(1, local=False, messages=None)
    plain, covered = client.prompt(NAME), client.prompt(NAME, fallback="About {{ ticket }}")
    fake.is_down = True

    with pytest.raises(Unreachable):
        client.fill(plain, ticket="x")
    rendered = client.fill(covered, ticket="x")
    assert (rendered.messages, rendered.is_fallback) == ([{"role": "user", "content": "About x"}], True)
    assert (rendered.version, rendered.model, rendered.parameters) == (None, None, {})


# ---------------------------------------------------------------------------- fallbacks


def test_a_fallback_stands_in_while_the_service_is_away_and_nothing_is_known(client: Driver, fake: FakeService) -> None:
    fake.is_down = True
    fallback = [
        {"role": "system", "content": "Be {{manner}}."},
        {"placeholder": "history"},
        {"role": "user", "content": "{{ ticket }} {{ ticket }} {% if x %} {{ a.b }}", "name": "ann"},
    ]

    found = client.render(
        NAME,
        {"ticket": "{{ manner }}", "manner": 3, "unused": []},
        fallback=fallback,
        placeholders={"history": [{"role": "assistant", "content": "before"}]},
        messages=[{"role": "user", "content": "after"}],
    )

    assert found.is_fallback
    assert found.messages == [
        {"role": "system", "content": "Be 3."},
        {"role": "assistant", "content": "before"},
        {"role": "user", "content": "{{ manner }} {{ manner }} {% if x %} {{ a.b }}", "name": "ann"},
        {"role": "user", "content": "after"},
    ]


def test_a_fallback_is_not_waited_for_again_and_again(client: Driver, fake: FakeService) -> None:
    fake.is_down = True
    for _ in range(20):
        client.render(NAME, {"ticket": "x"}, fallback="{{ ticket }}")

    assert fake.count == 1


def test_a_variable_that_a_fallback_needs_is_named(client: Driver, fake: FakeService) -> None:
    fake.is_down = True

    with pytest.raises(BadVariables, match="the fallback uses it") as caught:
        client.render(NAME, {}, fallback="{{ ticket }}")
    assert caught.value.param == "variables.ticket"


def test_what_is_known_is_used_before_a_fallback(client: Driver, fake: FakeService) -> None:
    client.prompt(NAME)
    fake.is_down = True

    assert client.render(NAME, {"ticket": "x"}, fallback="never").version == 1


# ---------------------------------------------------------------------------- feedback, addresses and keys


def test_feedback_is_sent_and_named(client: Driver, fake: FakeService) -> None:
    assert client.feedback("chatcmpl-1", "queue", True, comment="good", correction="billing") == "fb_1"
    assert fake.asked[0][0] == "POST /api/feedback"
    assert fake.bodies[0] == {
        "completion_id": "chatcmpl-1", "metric": "queue", "value": True, "comment": "good", "correction": "billing"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("failure", "kind"),
    [
        (problem(404, "not_found", "no completion"), NotFound),
        (problem(400, "bad_input", "feedback needs a value", param="value"), Refused),
        (problem(503, "storage_failed", "away"), Unreachable),
    ],
    ids=["404", "400", "503"],
)
def test_feedback_that_was_not_stored_says_so(
    client: Driver, fake: FakeService, failure: httpx.Response, kind: type[Exception]
) -> None:
    fake.failure = failure
    with pytest.raises(kind):
        client.feedback("chatcmpl-1", value=1)
    assert fake.count == 1


def test_address_and_key_come_from_the_environment(monkeypatch: pytest.MonkeyPatch, fake: FakeService) -> None:
    monkeypatch.setenv("TURNOUT_URL", "http://elsewhere.test/base/")
    monkeypatch.setenv("TURNOUT_API_KEY", KEY)
    fake.failure = problem(400, "bad_input", "stop here")

    with Turnout(transport=httpx.MockTransport(fake), listen=False) as client, pytest.raises(Refused):
        client.prompt(NAME)

    assert fake.asked[0][0] == "GET /base/api/prompts/support.triage/template?label=production"
    assert fake.asked[0][1]["authorization"] == f"Bearer {KEY}"


@pytest.mark.parametrize("url", ["turnout.test", "ftp://turnout.test", "http://", "/api"])
def test_an_address_that_is_none_is_refused_when_the_client_is_made(url: str) -> None:
    with pytest.raises(ValueError, match="TURNOUT_URL"):
        Turnout(url)


def test_the_key_is_not_shown(client: Driver) -> None:
    assert repr(client.client) in ("Turnout('http://turnout.test')", "AsyncTurnout('http://turnout.test')")


def test_a_name_cannot_leave_its_place_in_the_path(client: Driver, fake: FakeService) -> None:
    with pytest.raises(BadSelector):
        client.prompt("../keys?x=")
    assert fake.count == 0

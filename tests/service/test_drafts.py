"""A working tree under test has versions, and changes nothing that is served or meant by a bare name."""

from __future__ import annotations

from typing import Any

from tests.service.conftest import TRIAGE, Service, case, suite


def draft(service: Service, text: str, name: str = "support.triage") -> int:
    """Push a working tree's prompt, as `run` and `gate` do; returns its version."""
    data = {**TRIAGE, "messages": [{"role": "system", "content": text}, {"role": "user", "content": "{{ ticket }}"}]}
    written: list[dict[str, Any]] = service.call(
        "POST", "/api/push", "author", json={"prompts": {name: data}, "draft": True}
    ).json()
    return int(written[0]["version"])


def test_a_draft_has_a_number_but_is_not_latest_until_it_is_pushed(service: Service) -> None:
    pushed = service.push()
    tested = draft(service, "Be brief.")
    assert tested == pushed + 1

    versions = service.call("GET", "/api/prompts/support.triage/versions", "author").json()
    assert versions["labels"]["latest"] == pushed
    assert {entry["version"]: entry["draft"] for entry in versions["versions"]} == {tested: True, pushed: False}

    data = {
        **TRIAGE,
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "{{ ticket }}"}],
    }
    again = service.call("POST", "/api/push", "author", json={"prompts": {"support.triage": data}, "message": "brief"})
    assert (again.json()[0]["version"], again.json()[0]["created"]) == (tested, False)
    versions = service.call("GET", "/api/prompts/support.triage/versions", "author").json()
    assert versions["labels"]["latest"] == tested
    assert (versions["versions"][0]["draft"], versions["versions"][0]["message"]) == (False, "brief")


def test_a_draft_is_asked_by_its_number(service: Service) -> None:
    service.push()
    tested = draft(service, "Be brief.")
    body = {"model": f"support.triage@{tested}", "variables": {"ticket": "hi"}}
    assert service.call("POST", "/v1/chat/completions", "app", json=body).json()["turnout"]["version"] == tested


def test_a_suite_that_is_pushed_back_to_what_it_was_is_what_its_name_means(service: Service) -> None:
    service.push()
    strict = {**suite(case("x", "y"), thresholds={"pass_rate": 0.9}), "prompt": "support.triage"}
    lax = {**suite(case("x", "y"), thresholds={"pass_rate": 0.1}), "prompt": "support.triage"}
    assert [service.put_suite("s", data) for data in (strict, lax, strict)] == [1, 2, 1]

    assert service.call("GET", "/api/suites/s", "author").json()["number"] == 1

    service.call("POST", "/api/push", "author", json={"suites": {"s": lax}, "draft": True})
    assert service.call("GET", "/api/suites/s", "author").json()["number"] == 1

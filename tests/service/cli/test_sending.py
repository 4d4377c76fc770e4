"""What is sent to a service of a suite of many cases."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any, cast

import httpx
import pytest

from prompts.errors import BadInput
from service.cli.client import Remote
from service.cli.work import RemoteWork
from service.errors import CannotRun, Unauthenticated
from service.settings import Settings
from suites.case import Suite
from suites.files import suite_of_data


class _Service:
    """Keeps what it is sent; refuses it as a service does whose limit it is beyond, where `limit` is given."""

    def __init__(self, limit: int = 0) -> None:
        self.body: Any = None
        self._limit = limit

    def call(self, method: str, path: str, *, body: Any = None) -> Any:
        self.body = body
        if self._limit:
            raise BadInput(f"the body is larger than {self._limit} bytes: send less, or raise server.max_body_bytes")
        return []


def suite_of(count: int) -> Suite:
    cases = [{"vars": {"n": f"ü {number}"}, "assert": [{"type": "is-json"}]} for number in range(count)]
    return Suite.from_data({"prompt": "p", "repeat": 2, "tests": cases})


def pushed(suite: Suite, service: _Service) -> dict[str, Any]:
    RemoteWork(cast(Remote, service)).push({}, {"s": suite}, {})
    sent: dict[str, Any] = service.body["suites"]["s"]
    return sent


def test_more_than_a_thousand_cases_are_sent_as_lines_that_mean_the_same_suite() -> None:
    suite = suite_of(1001)
    sent = pushed(suite, _Service())
    assert "tests" not in sent
    assert sent["tests_jsonl"].count("\n") == 1000
    assert suite_of_data(sent, "suite s").digest == suite.digest

    assert len(pushed(suite_of(1000), _Service())["tests"]) == 1000


def test_a_suite_that_is_too_large_is_named_with_its_size_and_what_helps() -> None:
    with pytest.raises(BadInput) as raised:
        pushed(suite_of(2000), _Service(limit=2048))
    told = str(raised.value)
    assert told.startswith("suite s (2,000 cases, ")
    assert told.endswith(
        "the body is larger than 2048 bytes: send less, or raise server.max_body_bytes; or add --local"
    )


@pytest.mark.parametrize(
    ("key", "told"),
    [
        ("", "http://t.test asks for a key, and there is none: set TURNOUT_API_KEY to one that `turnout key create"),
        ("turnout_ci_old", "TURNOUT_API_KEY: this key is not valid; set TURNOUT_API_KEY to one that"),
    ],
)
def test_no_key_is_told_with_where_it_comes_from(
    key: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TURNOUT_URL", "http://t.test")
    monkeypatch.setenv("TURNOUT_API_KEY", key)
    refusal = {"type": "urn:turnout:error:unauthenticated", "status": 401, "detail": "this key is not valid"}
    remote = Remote(Settings(home=tmp_path, project=tmp_path))
    remote._client = httpx.Client(
        base_url=remote.url, transport=httpx.MockTransport(lambda _: httpx.Response(401, json=refusal))
    )
    with pytest.raises(Unauthenticated) as raised:
        remote.call("GET", "/api/suites")
    assert str(raised.value).startswith(told)
    with pytest.raises(Unauthenticated) as raised:
        remote.download("/api/adapters/a/export", io.BytesIO())
    assert str(raised.value).startswith(told)


def test_a_page_in_place_of_an_answer_is_told_to_be_no_service_of_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TURNOUT_URL", "http://t.test")
    remote = Remote(Settings(home=tmp_path, project=tmp_path))
    page = httpx.MockTransport(lambda _: httpx.Response(200, html="<h1>Sign in</h1>"))
    remote._client = httpx.Client(base_url=remote.url, transport=page)
    with pytest.raises(CannotRun) as raised:
        remote.call("GET", "/api/suites")
    assert str(raised.value) == "http://t.test/api/suites answered 200: is it a Turnout service?"


def test_authorities_that_cannot_be_read_are_named_by_their_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = tmp_path / "ours.pem"
    monkeypatch.delenv("SSL_CERT_DIR", raising=False)
    monkeypatch.setenv("SSL_CERT_FILE", str(missing))
    with pytest.raises(CannotRun) as raised:
        Remote(Settings(home=tmp_path, project=tmp_path))
    assert f"(SSL_CERT_FILE={missing}): " in str(raised.value)

"""Bodies over the wire: gzip is unpacked, a bomb is not, and what is beyond a limit is told which."""

from __future__ import annotations

import asyncio
import gzip
import json
import tracemalloc
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from prompts.errors import BadInput
from service.api.bodies import PIECE_BYTES, bounded
from service.cli.client import packed
from service.errors import TooLarge
from service.settings import Server
from tests.service.conftest import Service, case, make_settings, suite, triage

KIB = 1024
LIMITS = Server(max_body_bytes=8 * KIB, max_unpacked_bytes=64 * KIB)
GZIP = {"content-type": "application/json", "content-encoding": "gzip"}


def read(*pieces: bytes, headers: dict[str, str] | None = None, limits: Server = LIMITS, author: bool = True) -> bytes:
    """What an application gets of a body that comes in these pieces."""

    async def whole() -> bytes:
        waiting = list(pieces)

        async def receive() -> Any:
            return {"type": "http.request", "body": waiting.pop(0), "more_body": bool(waiting)}

        raw = {name.encode(): value.encode() for name, value in (headers or GZIP).items()}
        taken, found = bounded(raw, receive, limits, may_be_large=author), b""
        while True:
            message = await taken()
            assert message["type"] == "http.request"
            assert len(message["body"]) <= PIECE_BYTES
            found += message["body"]
            if not message["more_body"]:
                return found

    return asyncio.run(whole())


@pytest.mark.parametrize("size", [0, 1, PIECE_BYTES - 1, PIECE_BYTES, PIECE_BYTES + 1, 3 * PIECE_BYTES])
@pytest.mark.parametrize("step", [1, 7, 100_000])
def test_whatever_was_packed_comes_out_however_it_is_cut(size: int, step: int) -> None:
    limits = Server(max_body_bytes=64 * KIB, max_unpacked_bytes=4 * PIECE_BYTES)
    body = (b"ticket %d; " * (size // 10 + 1) % tuple(range(size // 10 + 1)))[:size]
    sent = gzip.compress(bytes(size) if len(body) > 40 * KIB else body)
    expected = bytes(size) if len(body) > 40 * KIB else body

    assert read(*(sent[at : at + step] for at in range(0, len(sent), step)), limits=limits) == expected


def test_one_gzip_may_follow_another() -> None:
    assert read(gzip.compress(b"one ") + gzip.compress(b"two")) == b"one two"
    assert read(gzip.compress(b"one "), gzip.compress(b"two"), b"") == b"one two"


def test_a_bomb_is_refused_without_being_held() -> None:
    """A gibibyte in a mebibyte of gzip."""
    bomb = gzip.compress(bytes(64 * 1024 * KIB), 9) * 16
    limits = Server(max_body_bytes=8 * 1024 * KIB, max_unpacked_bytes=16 * 1024 * KIB)
    tracemalloc.start()
    try:
        with pytest.raises(TooLarge, match=r"16,777,216 bytes when it is unpacked.*raise server\.max_unpacked_bytes"):
            read(bomb, limits=limits)
        assert tracemalloc.get_traced_memory()[1] < 48 * 1024 * KIB
    finally:
        tracemalloc.stop()


def test_whoever_may_not_push_unpacks_no_more_than_a_plain_body() -> None:
    sent = gzip.compress(bytes(9 * KIB))
    assert len(read(sent)) == 9 * KIB
    with pytest.raises(TooLarge, match=r"8,192 bytes when it is unpacked.*server\.max_body_bytes"):
        read(sent, author=False)


@pytest.mark.parametrize("headers", [{}, {"content-length": "9000"}, {"content-encoding": "identity"}])
def test_a_plain_body_beyond_the_limit_is_refused_however_it_is_announced(headers: dict[str, str]) -> None:
    with pytest.raises(TooLarge, match=r"8,192 bytes: send it with `Content-Encoding: gzip`"):
        read(bytes(4000), bytes(5000), headers={"content-type": "application/json", **headers})
    assert len(read(bytes(4000), bytes(4192), headers={"content-type": "application/json"})) == 8192


def test_a_packed_body_beyond_the_limit_of_what_is_sent_is_refused() -> None:
    with pytest.raises(TooLarge, match=r"65,536 bytes: send less, or raise server\.max_unpacked_bytes"):
        read(gzip.compress(b"") * 4000)  # of nothing, again and again


@pytest.mark.parametrize(
    ("body", "encoding", "told"),
    [
        (b"{}", "gzip", "says that it is gzip and is not"),
        (b"", "gzip", "ends before its gzip does"),
        (gzip.compress(b"{}", mtime=0)[:-3], "gzip", "ends before its gzip does"),
        (gzip.compress(b"{}", mtime=0) + b"more", "gzip", "says that it is gzip and is not"),
        (b"{}", "br", "Content-Encoding 'br' is not understood: send gzip"),
    ],
)
def test_what_is_no_gzip_is_told_so(body: bytes, encoding: str, told: str) -> None:
    with pytest.raises(BadInput, match=told):
        read(body, headers={"content-encoding": encoding})


# ---------------------------------------------------------------------------- over HTTP


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    settings = make_settings(tmp_path_factory.mktemp("home"), server={"max_body_bytes": 64 * KIB})
    with Service(settings).running() as service:
        service.push()
        yield service


def send(service: Service, path: str, content: bytes, role: str = "author", **headers: str) -> httpx.Response:
    return service.call("POST", path, role, content=content, headers={**GZIP, **headers})


def test_a_suite_beyond_the_plain_limit_is_pushed_as_gzip(service: Service) -> None:
    cases = [case(f"ticket {number} was charged", "billing") for number in range(900)]
    body = {"suites": {"large": suite(*cases)}}
    content, headers = packed(body)
    plain = json.dumps(body).encode()

    refused = send(service, "/api/push", plain, **{"content-encoding": "identity"})
    written = service.call("POST", "/api/push", "author", content=content, headers=headers)

    assert (refused.status_code, refused.json()["type"]) == (413, "urn:turnout:error:too_large")
    assert "Content-Encoding: gzip" in refused.json()["detail"]
    assert headers["content-encoding"] == "gzip"
    assert (written.status_code, written.json()[0]["name"]) == (200, "large")
    stored = service.call("GET", "/api/suites/large", "author").json()["content"]["tests"]
    assert [each["vars"] for each in stored] == [each["vars"] for each in cases]


def test_errors_of_both_paths_are_in_their_forms(service: Service) -> None:
    answer = send(service, "/v1/chat/completions", gzip.compress(bytes(65 * KIB)), "app")
    broken = send(service, "/api/push", b"{}")

    assert answer.status_code == 413
    assert "65,536 bytes when it is unpacked" in answer.json()["error"]["message"]
    assert (broken.status_code, broken.headers["content-type"]) == (400, "application/problem+json")


def test_an_application_may_send_gzip_too(service: Service) -> None:
    service.produce(1)
    body = {"model": "support.triage", "variables": {"ticket": "I was charged"}}
    answer = send(service, "/v1/chat/completions", gzip.compress(json.dumps(body).encode()), "app")

    assert (answer.status_code, answer.json()["choices"][0]["message"]["content"]) == (200, "billing")


def test_json_is_held_to_the_same_rules_when_it_was_packed(service: Service) -> None:
    answer = send(service, "/api/push", gzip.compress(b'{"prompts": {}, "prompts": {}}'))

    assert answer.status_code == 400
    assert "gives 'prompts' twice" in answer.json()["detail"]


def test_the_command_line_packs_what_is_large_alone() -> None:
    small, headers = packed({"prompts": {"p": triage()}})
    assert "content-encoding" not in headers
    assert json.loads(small or b"") == {"prompts": {"p": triage()}}

    large, headers = packed({"text": "ü" * 64 * KIB})
    assert headers["content-encoding"] == "gzip"
    assert json.loads(gzip.decompress(large or b"")) == {"text": "ü" * 64 * KIB}
    assert len(large or b"") < KIB
    assert packed(None) == (None, {})

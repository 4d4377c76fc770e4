"""The client for one origin, on a server that does what it is told; on asyncio's own loop and on uvloop."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import subprocess
import time
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
import uvloop

from service.upstream.http import Address, Client, ConnectTimeout, Question, Reply
from service.upstream.wire import Broken, Lost, TooLong
from tests.service.upstreams import (
    Asked,
    Upstream,
    answers,
    answers_and_closes,
    cut_off,
    endless,
    framed,
    http,
    resets,
    says,
    silent,
    slow_bytes,
    stream_head,
)

CHAT = "/chat/completions"
Test = Callable[[Upstream, Client], Awaitable[Any]]


@pytest.fixture(params=[asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Callable[[Coroutine[Any, Any, Any]], Any]:
    found: Callable[[Coroutine[Any, Any, Any]], Any] = request.param
    return found


async def on(test: Test, *, connect_s: float = 5.0, connections: int = 8, **headers: str) -> Any:
    async with Upstream() as upstream:
        client = Client(Address.parse(upstream.base_url), headers, connect_s=connect_s, connections=connections)
        try:
            return await test(upstream, client)
        finally:
            client.close()


def question(timeout_s: float | None = 5.0, max_bytes: int = 1 << 20) -> Question:
    return Question(CHAT, b'{"a": 1}', timeout_s=timeout_s, max_bytes=max_bytes)


def text_of(reply: Reply) -> Any:
    return json.loads(reply.body)["choices"][0]["message"]["content"]


def test_a_question_is_sent_whole_and_its_connection_used_again(run: Any) -> None:
    async def test(upstream: Upstream, client: Client) -> None:
        for _ in range(3):
            reply = await client.ask(question())
            assert (reply.status, reply.headers["content-type"], text_of(reply)) == (200, "application/json", "billing")
        assert upstream.connections == 1
        [first, *_] = upstream.asked
        assert first.path == "/v1" + CHAT
        assert first.body == {"a": 1}
        assert first.headers["host"] == f"127.0.0.1:{upstream.port}"
        assert first.headers["authorization"] == "Bearer k"
        assert first.headers["accept-encoding"] == "identity"

    run(on(test, Authorization="Bearer k"))


def test_many_at_once_share_a_bounded_number_of_connections(run: Any) -> None:
    async def test(upstream: Upstream, client: Client) -> None:
        upstream.otherwise = answers("x", after_s=0.01)
        replies = await asyncio.gather(*(client.ask(question()) for _ in range(50)))
        assert [text_of(reply) for reply in replies] == ["x"] * 50
        assert upstream.connections == 4

    run(on(test, connections=4))


def test_a_wait_for_a_connection_is_part_of_the_time(run: Any) -> None:
    async def test(upstream: Upstream, client: Client) -> None:
        upstream.otherwise = silent()
        first = asyncio.create_task(client.ask(question()))
        await asyncio.sleep(0.05)
        with pytest.raises(TimeoutError):
            await client.ask(question(timeout_s=0.05))
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        upstream.otherwise = answers("x")
        assert text_of(await client.ask(question())) == "x"

    run(on(test, connections=1))


def test_bodies_come_by_length_in_chunks_and_until_the_end(run: Any) -> None:
    async def chunked(asked: Asked) -> None:
        await asked.send(stream_head() + framed(b'{"a": ') + framed(b"2}") + framed(b""))

    async def until_the_end(asked: Asked) -> None:
        await asked.send(b"HTTP/1.1 200 OK\r\nServer: x\r\n\r\nall of it")
        asked.writer.close()

    async def after_an_interim(asked: Asked) -> None:
        await asked.send(b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + http(200, b"late"))

    async def test(upstream: Upstream, client: Client) -> None:
        upstream.acts += [chunked, until_the_end, after_an_interim, says(204, b"")]
        replies = [await client.ask(question()) for _ in range(4)]
        assert [reply.body for reply in replies] == [b'{"a": 2}', b"all of it", b"late", b""]
        assert "link" not in replies[2].headers
        assert upstream.connections == 2

    run(on(test))


def test_a_kept_connection_that_was_closed_meanwhile_costs_one_more(run: Any) -> None:
    async def test(upstream: Upstream, client: Client) -> None:
        upstream.acts += [answers_and_closes(), resets(), answers("again")]
        assert text_of(await client.ask(question())) == "billing"
        await asyncio.sleep(0.05)  # it is seen to be closed: nothing is lost
        with pytest.raises(Lost, match="before it answered"):
            await client.ask(question())  # a new connection that is reset: no second try of ours
        assert text_of(await client.ask(question())) == "again"
        upstream.acts += [resets(), answers("on a new one")]
        assert text_of(await client.ask(question())) == "on a new one"  # the race: closed as the question came
        assert [asked.connection for asked in upstream.asked] == [1, 2, 3, 3, 4]

    run(on(test))


def test_a_reset_within_the_reply_is_not_asked_again(run: Any) -> None:
    async def test(upstream: Upstream, client: Client) -> None:
        await client.ask(question())
        upstream.acts += [resets(after=b"HTTP/1.1 200 OK\r\nContent-Le")]
        with pytest.raises(Lost, match="in the middle of its reply"):
            await client.ask(question())
        assert len(upstream.asked) == 2

    run(on(test))


@pytest.mark.parametrize(
    ("act", "error", "told"),
    [
        (cut_off(), Lost, "in the middle of its reply"),
        (endless(), TooLong, "longer than 1048576 bytes"),
        (says(200, b"x" * 2_000_000), TooLong, "longer than 1048576 bytes"),
        (resets(after=b"SSH-2.0-OpenSSH_9.9\r\n"), Broken, "no HTTP"),
        (says(200, {}, {"X-Long": "x" * 100_000}), TooLong, "head of the reply is longer"),
        (says(101, b"", {"Connection": "Upgrade", "Upgrade": "x"}), Broken, "another protocol"),
        (resets(after=b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"), Broken, "no HTTP"),
        (silent(), TimeoutError, None),
        (slow_bytes(http(200, b"{}"), 0.05), TimeoutError, None),
    ],
)
def test_a_broken_reply_says_how_and_closes_its_connection(
    run: Any, act: Any, error: type[Exception], told: str | None
) -> None:
    async def test(upstream: Upstream, client: Client) -> None:
        upstream.acts += [act]
        with pytest.raises(error, match=told):
            await client.ask(question(timeout_s=0.5))
        assert text_of(await client.ask(question())) == "billing"
        assert upstream.connections == 2

    run(on(test))


def test_bytes_that_nobody_asked_for_answer_no_later_question(run: Any) -> None:
    async def twice(asked: Asked) -> None:
        await asked.send(http(200, b"first") + http(200, b"forged"))

    async def later(asked: Asked) -> None:
        await asked.send(http(200, b"first"))
        await asyncio.sleep(0.02)
        await asked.send(http(200, b"forged"))

    async def test(upstream: Upstream, client: Client) -> None:
        for act in (twice, later):
            upstream.acts += [act]
            assert (await client.ask(question())).body == b"first"
            await asyncio.sleep(0.05)
            assert text_of(await client.ask(question())) == "billing"

    run(on(test))


def test_to_cancel_is_to_hang_up(run: Any) -> None:
    async def test(upstream: Upstream, client: Client) -> None:
        upstream.acts += [silent()]
        task = asyncio.create_task(client.ask(question()))
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.sleep(0.05)
        assert upstream.hung_up == 1

    run(on(test))


def test_an_open_reply_is_read_as_it_comes_and_keeps_its_connection(run: Any) -> None:
    async def act(asked: Asked) -> None:
        await asked.send(stream_head())
        for piece in (b"one", b"two"):
            await asked.send(framed(piece))
            await asyncio.sleep(0.05)
        await asked.send(framed(b""))

    async def test(upstream: Upstream, client: Client) -> None:
        upstream.acts += [act, act, act]
        reply = await client.open(question())
        started = time.monotonic()
        assert (reply.status, await reply.some()) == (200, b"one")
        assert time.monotonic() - started < 0.04
        assert [await reply.some(), await reply.some(), await reply.some()] == [b"two", b"", b""]
        reply.close()
        reply.close()
        reply = await client.open(question())
        await reply.some()
        reply.finish()  # the rest is on its way, and nobody reads it
        await asyncio.sleep(0.15)
        assert (await client.ask(question())).body == b"onetwo"
        assert upstream.connections == 1
        upstream.acts += [act]
        reply = await client.open(question())
        reply.close()
        await client.ask(question())
        assert upstream.connections == 2

    run(on(test))


@pytest.mark.parametrize("is_whole", [False, True])
def test_a_reply_that_is_not_read_makes_the_upstream_wait(run: Any, is_whole: bool) -> None:
    sent = 0

    async def act(asked: Asked) -> None:
        nonlocal sent
        await asked.send(stream_head())
        for _ in range(400):
            await asked.send(framed(b"x" * 65536))
            sent += 65536
        await asked.send(framed(b""))

    async def test(upstream: Upstream, client: Client) -> None:
        upstream.acts += [act]
        reply = await client.open(question(max_bytes=64 << 20))
        await asyncio.sleep(0.3)
        assert sent < 20 << 20
        if is_whole:
            assert len(await reply.whole()) == 400 * 65536
        else:
            read = 0
            while data := await reply.some():
                read += len(data)
            assert read == 400 * 65536
        reply.close()

    run(on(test))


def test_nothing_listening_and_no_such_host_say_so(run: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]

    async def test(url: str) -> None:
        await Client(Address.parse(url), {}, connect_s=5, connections=1).ask(question())

    with pytest.raises(OSError, match=r"(?i)connect"):
        run(test(f"http://127.0.0.1:{port}"))
    with pytest.raises(socket.gaierror):
        run(test("http://no-such-host.invalid"))


def test_a_host_that_does_not_answer_is_given_up(run: Any) -> None:
    async def test() -> None:
        with socket.socket() as full:
            full.bind(("127.0.0.1", 0))
            full.listen(0)  # and nobody accepts: the queue fills, and what comes then is dropped
            port = full.getsockname()[1]
            fillers = [socket.socket() for _ in range(3)]
            for filler in fillers:
                filler.setblocking(False)
                filler.connect_ex(("127.0.0.1", port))
            client = Client(Address.parse(f"http://127.0.0.1:{port}"), {}, connect_s=0.2, connections=1)
            with pytest.raises(ConnectTimeout, match=r"no connection within 0\.2 s"):
                await client.ask(question())
            with pytest.raises(TimeoutError):
                await client.ask(question(timeout_s=0.1))
            for filler in fillers:
                filler.close()

    run(test())


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A key and a certificate that no authority knows."""
    file = tmp_path_factory.mktemp("tls") / "both.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost",
         "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(file), "-out", str(file.with_suffix(".crt"))],
        check=True, capture_output=True,
    )  # fmt: skip
    file.write_text(file.read_text() + file.with_suffix(".crt").read_text())
    return file


def test_a_certificate_that_no_authority_signed_is_refused(run: Any, certificate: Path) -> None:
    async def test() -> None:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(certificate)
        async with Upstream(tls=tls) as upstream:
            client = Client(Address.parse(upstream.base_url), {}, connect_s=5, connections=1)
            with pytest.raises(ssl.SSLCertVerificationError, match="self-signed"):
                await client.ask(question())
            assert upstream.asked == []

    run(test())


def test_one_that_is_known_is_spoken_to(run: Any, certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def test() -> None:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(certificate)
        known = ssl.create_default_context(cafile=certificate)
        monkeypatch.setattr("service.upstream.http._tls_context", lambda: known)
        async with Upstream(tls=tls) as upstream:
            client = Client(Address.parse(upstream.base_url), {}, connect_s=5, connections=1)
            assert [text_of(await client.ask(question())) for _ in range(2)] == ["billing"] * 2
            assert upstream.connections == 1
            client.close()

    run(test())


@pytest.mark.parametrize("value", ["k\r\nX-Evil: 1", "k\n", "k\0", "k\x7f", "schlüssel €"])
def test_a_header_that_could_begin_another_is_refused(value: str) -> None:
    async def test() -> None:
        Client(Address.parse("http://localhost"), {"Authorization": value}, connect_s=1, connections=1)

    with pytest.raises(ValueError, match="a header may hold") as caught:
        asyncio.run(test())
    assert "k" not in str(caught.value).partition(":")[2]


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("https://api.openai.com/v1/", Address(True, "api.openai.com", 443, "api.openai.com", "/v1")),
        ("http://gpu-1:8000/v1", Address(False, "gpu-1", 8000, "gpu-1:8000", "/v1")),
        ("http://[::1]:80", Address(False, "::1", 80, "[::1]", "")),
        ("https://[::1]:80/a b", Address(True, "::1", 80, "[::1]:80", "/a%20b")),
        (
            "http://bücher.example/ü%20",
            Address(False, "xn--bcher-kva.example", 80, "xn--bcher-kva.example", "/%C3%BC%20"),
        ),
    ],
)
def test_addresses_are_read_from_urls(url: str, address: Address) -> None:
    assert Address.parse(url) == address


def test_idle_connections_are_closed_after_a_while(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(upstream: Upstream, client: Client) -> None:
        monkeypatch.setattr("service.upstream.http._IDLE_S", 0.1)
        await client.ask(question())
        await asyncio.sleep(0.3)
        assert client._idle == []
        await client.ask(question())
        assert upstream.connections == 2

    run(on(test))


def test_a_closed_client_keeps_nothing(run: Any) -> None:
    async def test(upstream: Upstream, client: Client) -> None:
        upstream.acts += [answers("late", after_s=0.05)]
        task = asyncio.create_task(client.ask(question()))
        await asyncio.sleep(0.02)
        client.close()
        assert text_of(await task) == "late"
        assert client._idle == []

    run(on(test))

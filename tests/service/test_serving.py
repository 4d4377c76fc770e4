from __future__ import annotations

import socket
from pathlib import Path

import pytest

from service.app import check_binding
from service.errors import BadSetting, CannotRun
from service.listening import listen
from tests.service.conftest import make_settings


def test_replies_are_not_held_up_by_nagle() -> None:
    """asyncio sets TCP_NODELAY on sockets whose protocol is named, and on no others: it is 40 ms a reply."""
    with listen("127.0.0.1", 0) as listener:
        assert listener.proto == socket.IPPROTO_TCP


def test_a_port_that_is_taken_is_named_with_what_to_do() -> None:
    with listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(CannotRun, match=f"127.0.0.1:{port}: another service listens there: choose --port"):
            listen("127.0.0.1", port)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1"])
def test_loopback_needs_no_names(tmp_path: Path, host: str) -> None:
    check_binding(make_settings(tmp_path, server={"host": host}))


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.7", "turnout.example.com"])  # noqa: S104 - refusing them is the test
def test_any_other_host_is_refused_until_its_names_are_given(tmp_path: Path, host: str) -> None:
    with pytest.raises(BadSetting, match=r"server\.allowed_hosts") as caught:
        check_binding(make_settings(tmp_path, server={"host": host}))
    assert caught.value.param == "server.allowed_hosts"

    check_binding(make_settings(tmp_path, server={"host": host, "allowed_hosts": ["turnout.example.com"]}))

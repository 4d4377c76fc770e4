"""Sockets to listen on, for the service and for the engine."""

from __future__ import annotations

import errno
import socket

from service.errors import CannotRun


def listen(host: str, port: int) -> socket.socket:
    """A bound socket; port 0 takes a free one. Raises CannotRun naming the address and what to do."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # named TCP: asyncio turns off Nagle's delay, 40 ms a reply, for such sockets alone
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(1024)
    except OSError as error:
        listener.close()
        taken = error.errno == errno.EADDRINUSE
        hint = "another service listens there: choose --port, or stop it" if taken else error.strerror
        raise CannotRun(f"cannot listen on {host}:{port}: {hint}") from error
    return listener

"""One call of the service, for commands that are no more than that. Imports the client when it is made."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from service.cli.client import Client


def client(local: bool) -> Client:
    """The service at TURNOUT_URL, or the same handlers in this process."""
    from service.cli.client import connect
    from service.settings import load_settings

    return connect(load_settings(), local=local)


def call(local: bool, method: str, path: str, **more: Any) -> Any:
    """The JSON of one answer; raises the error that the service tells."""
    return client(local).call(method, path, **more)

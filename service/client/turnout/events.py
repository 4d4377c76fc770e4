"""Server-sent events (WHATWG HTML §9.2) of `/api/changes`, line by line."""

from __future__ import annotations

import json
from dataclasses import dataclass

KINDS = ("hello", "changed", "all")


@dataclass(frozen=True, slots=True)
class Event:
    """An announcement: `hello`, `changed` with the `names` of prompts, or `all`; at a revision of the service.

    `seen` carries no news but its revision.
    """

    kind: str
    revision: int
    names: frozenset[str] = frozenset()


class Parser:
    """Reads one stream."""

    def __init__(self) -> None:
        self._revision = -1
        self._has_id = False
        self._kind = ""
        self._data: list[str] = []

    def feed(self, line: str) -> Event | None:
        """The event that `line` (without its line break) completes, if any; what is not understood is left out."""
        if line:
            self._take(line)
            return None
        event = self._event()
        self._has_id, self._kind, self._data = False, "", []
        return event

    def _take(self, line: str) -> None:
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "id" and value.isascii() and value.isdigit():
            self._revision, self._has_id = int(value), True
        elif name == "event":
            self._kind = value
        elif name == "data":
            self._data.append(value)

    def _event(self) -> Event | None:
        if self._kind in KINDS:
            return Event(self._kind, self._revision, _names("\n".join(self._data)))
        return Event("seen", self._revision) if self._has_id else None


def _names(data: str) -> frozenset[str]:
    try:
        found = json.loads(data or "{}")
    except ValueError:
        return frozenset()
    names = found.get("prompts", []) if isinstance(found, dict) else []
    return frozenset(name for name in names if isinstance(name, str)) if isinstance(names, list) else frozenset()

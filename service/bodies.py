"""What completions were asked and answered, on its way to the database: bounded in memory, without secrets when stored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from prompts.redaction import redacted

LONGEST_CHARACTERS = 1_000_000  # of one body: a longer one makes no example
MOST_CHARACTERS = 64_000_000  # of all that wait


@dataclass(frozen=True, slots=True)
class Body:
    """One completion of a prompt: the variables, messages and placeholders of its request, and its answer."""

    prompt: str
    variant: str
    variables: Mapping[str, Any]
    messages: Sequence[Mapping[str, Any]] | None
    placeholders: Mapping[str, Any] | None
    output: str


class Bodies:
    """The bodies that wait, by completion id. Beyond the bounds bodies are dropped and counted, never log rows."""

    def __init__(self) -> None:
        self._waiting: dict[str, tuple[int, Body]] = {}
        self._characters = 0
        self.dropped = 0

    def add(self, completion_id: str, body: Body) -> None:
        length = sum(map(characters, (body.variables, body.messages, body.placeholders, body.output)))
        if length > LONGEST_CHARACTERS or self._characters + length > MOST_CHARACTERS:
            self.dropped += 1
            return
        self._waiting[completion_id] = (length, body)
        self._characters += length

    def discard(self, completion_id: str) -> None:
        """Forget a body that was written, or whose row was dropped."""
        length, _ = self._waiting.pop(completion_id, _NONE)
        self._characters -= length

    def get(self, completion_id: str) -> Body | None:
        """The body that waits for this row to be written."""
        return self._waiting.get(completion_id, _NONE)[1]


_NONE: tuple[int, Body | None] = (0, None)


def record(completion_id: str, at: str, body: Body) -> dict[str, Any]:
    """A body as it is stored: searched for secrets here, off the request path."""
    return {
        "id": completion_id,
        "at": at,
        "prompt": body.prompt,
        "variant": body.variant,
        "variables": kept(body.variables),
        "messages": kept(body.messages),
        "placeholders": kept(body.placeholders),
        "output": kept(body.output),
    }


def characters(value: Any) -> int:
    """The characters of all texts in plain data, with one for each other value."""
    if isinstance(value, str):
        return len(value)
    if isinstance(value, Mapping):
        return sum(len(key) + characters(each) for key, each in value.items())
    return sum(map(characters, value)) if isinstance(value, list | tuple) else 1


def kept(value: Any) -> Any:
    """Plain data as it may be stored: without secrets, and without what a database refuses (NUL, half characters)."""
    if isinstance(value, str):
        return redacted(value).replace("\0", "\\0").encode("utf-8", "replace").decode()
    if isinstance(value, Mapping):
        return {kept(key): kept(each) for key, each in value.items()}
    return [kept(each) for each in value] if isinstance(value, list | tuple) else value

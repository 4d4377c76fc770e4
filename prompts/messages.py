"""What goes to a model and what comes back: the one seam that every engine stands behind."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal, Protocol, get_args

Role = Literal["system", "developer", "user", "assistant", "tool"]
ROLES: tuple[str, ...] = get_args(Role)
CONVERSATION_ROLES = ("user", "assistant", "tool")  # all that a request or a placeholder may add

NOTHING: Mapping[str, Any] = MappingProxyType({})


def nothing() -> Mapping[str, Any]:
    """An empty mapping that nobody can fill: the default of a field."""
    return NOTHING


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a conversation.

    `content` is text or OpenAI's list of content parts, passed through as it is; `extra` holds the
    other fields of OpenAI's message (`name`, `tool_calls`, `tool_call_id`).
    """

    role: Role
    content: str | tuple[Mapping[str, Any], ...] | None
    extra: Mapping[str, Any] = field(default_factory=nothing)

    def as_dict(self) -> dict[str, Any]:
        content = [dict(part) for part in self.content] if isinstance(self.content, tuple) else self.content
        return {"role": self.role, "content": content, **self.extra}


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one completion; `cached_tokens` are those of the prompt that a prefix cache held, `reasoning_tokens` those of
    the completion that nobody is shown."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0

    @property
    def total_tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens


@dataclass(frozen=True, slots=True)
class CompletionRequest:
    """What a model is asked.

    `parameters` carries OpenAI's names (`temperature`, `max_tokens`, `seed`, `stop`, `response_format`, …).
    `adapter` is the name of a loaded LoRA, or None for the base model alone. An engine of our own answers first what
    somebody waits for (`is_urgent`), and lets the requests of one `flow`, a prompt's name, starve no other; what becomes of
    the rest closes no upstream to those who wait.
    """

    messages: tuple[Message, ...]
    parameters: Mapping[str, Any] = field(default_factory=nothing)
    adapter: str | None = None
    timeout_s: float = 60.0
    is_urgent: bool = True
    flow: str = ""


@dataclass(frozen=True, slots=True)
class Completion:
    """What a model answered.

    `text` is the content ("" where there is none), `message` the whole assistant message as the upstream
    gave it, `latency_s` the seconds from asking to the last byte as the caller saw them, `details` what an
    engine tells beyond OpenAI's protocol. `choices` are OpenAI's choices as the upstream gave them (`n`, `logprobs`),
    empty where an engine gives no more than the fields before; the first is what `text` was read from. `extra` is what
    else the upstream said that is passed on. `attempts` counts the questions to upstreams that it took.
    """

    text: str
    finish_reason: str = "stop"
    usage: Usage = Usage()
    latency_s: float = 0.0
    message: Mapping[str, Any] = field(default_factory=nothing)
    details: Mapping[str, Any] = field(default_factory=nothing)
    choices: tuple[Mapping[str, Any], ...] = ()
    attempts: int = 1
    extra: Mapping[str, Any] = field(default_factory=nothing)


class Chunks(Protocol):
    """An answer as it comes: OpenAI's `chat.completion.chunk` objects, as the upstream sent them, in their order.

    The first is there already, so that whoever asked may still ask elsewhere; a later one may raise a `ModelError`.
    They are to be read once. `attempts` counts the questions to upstreams that it took.
    """

    @property
    def attempts(self) -> int: ...

    def __aiter__(self) -> AsyncIterator[Mapping[str, Any]]: ...

    async def aclose(self) -> None:
        """Stop: the upstream is hung up on, unless the answer is complete. Safe to call twice."""
        ...


class Streaming(Protocol):
    """A `Model` that can also answer bit by bit."""

    async def stream(self, request: CompletionRequest) -> Chunks:
        """Ask once, and return with the first chunk. Raises as `Model.complete` does; usage comes in the last chunk."""
        ...


class Model(Protocol):
    """One place completions come from. Implementations live in `service.models`, one file an engine."""

    async def complete(self, request: CompletionRequest) -> Completion:
        """Ask once.

        Raises `ModelUnavailable`, `ModelTimeout`, `ModelOverloaded` or `ModelRefused`; never returns a part.
        """
        ...

    async def aclose(self) -> None:
        """Give back connections and children. Safe to call twice."""
        ...

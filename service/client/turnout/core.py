"""What both clients do, without saying how a request is sent: each operation is a generator of requests.

It yields a `Request` and is sent the `httpx.Response`, or the `Unreachable` that came in its place; what it returns is
the operation's result. `Turnout` and `AsyncTurnout` run the same generators, one by waiting and one by awaiting.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Generic, TypeVar

import httpx

from turnout import protocol
from turnout.backoff import Backoff
from turnout.cache import Answer, Cache, Key, P, Plan, Policy
from turnout.errors import Closed, TurnoutError, Unreachable
from turnout.events import Parser
from turnout.prompt import PromptBase, Rendered, fallen_back
from turnout.protocol import Request
from turnout.template import Fallback, FallbackTemplate, Given, Template, fallback_template

T = TypeVar("T")
Steps = Generator[Request, httpx.Response | Unreachable, T]


class Core(Generic[P]):
    """One client's judgement: its cache, its clock and whether it is closed."""

    def __init__(
        self,
        policy: Policy,
        make: Callable[[Template, bool, FallbackTemplate | None], P],
        clock: Callable[[], float],
    ) -> None:
        self.cache: Cache[P] = Cache(policy, make, Backoff())
        self.clock = clock
        self.is_closed = False

    def check_open(self) -> None:
        """Raise Closed after the client was closed."""
        if self.is_closed:
            raise Closed("this client was closed: make another")

    def plan(self, key: Key, fallback: FallbackTemplate | None) -> Plan[P]:
        return self.cache.plan(key, self.clock(), fallback)

    def ask(self, key: Key) -> Steps[Answer]:
        """The service's answer on a template, taken into the cache; asked twice where it was older than a known change."""
        answer = yield from self._ask_once(key)
        if self.cache.is_old(answer):
            answer = yield from self._ask_once(key)
        return answer

    def _ask_once(self, key: Key) -> Steps[Answer]:
        entry = self.cache.entry(key)
        response = yield protocol.template_request(key, entry)
        answer: Answer = response if isinstance(response, Unreachable) else protocol.read_found(response)
        self.cache.accept(key, entry, answer, self.clock())
        return answer

    def render(self, prompt: PromptBase, given: Given) -> Steps[Rendered]:
        """The service's rendering, or that of the caller's fallback where the service cannot be reached."""
        response = yield protocol.render_request(prompt, given)
        answer = response if isinstance(response, Unreachable) else protocol.read_rendered(response, prompt)
        if isinstance(answer, Unreachable) and prompt._fallback is not None:
            return fallen_back(prompt._fallback, given)
        if isinstance(answer, TurnoutError):
            raise answer
        return answer

    def feedback(
        self,
        completion_id: str,
        metric: str,
        value: float | bool | str | None,
        comment: str | None,
        correction: str | None,
    ) -> Steps[str]:
        """The id of the stored feedback."""
        response = yield protocol.feedback_request(completion_id, metric, value, comment, correction)
        answer = response if isinstance(response, Unreachable) else protocol.read_feedback(response)
        if isinstance(answer, TurnoutError):
            raise answer
        return answer


class Announcements(Generic[P]):
    """The state of the stream of changes over all its connections."""

    def __init__(self, core: Core[P]) -> None:
        self._core = core
        self._backoff = Backoff()
        self._parser = Parser()
        self._seen: int | None = None

    def connect(self) -> Request:
        """The request that opens the stream, where the last one ended."""
        self._parser = Parser()
        return protocol.changes_request(self._seen)

    def refuse(self, response: httpx.Response) -> None:
        """The stream was not given: where that was for our key, it ends the cache in time."""
        self._core.cache.refuse(protocol.error_of(response), self._core.clock())

    def hear(self, line: str) -> list[Key]:
        """Act on a line of the stream; returns the keys to ask about now."""
        event = self._parser.feed(line)
        if event is None:
            return []
        self._seen = event.revision
        self._backoff.reset()
        return self._core.cache.hear(event, self._core.clock())

    def wait_s(self) -> float:
        """How long to wait before connecting again."""
        return self._backoff.next_s()


def stand_in(key: Key, fallback: Fallback | None) -> FallbackTemplate | None:
    return None if fallback is None else fallback_template(key[0], fallback)

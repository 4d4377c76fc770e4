"""What the client raises.

```
TurnoutError
├── BadSelector         a name, label or version outside the grammar: refused before any request; a ValueError, too
├── NotFound            no such prompt, version, label or completion; a label that was removed
├── BadVariables        variables, placeholders or messages that the prompt does not take; `param` names which
├── Unreachable         no answer, or one that is not Turnout's, and nothing in the cache or from the caller to use
├── Refused             the service understood the request and will not do it; `status` is HTTP's
│   └── KeyRefused      no key, one that is not valid (401), or one whose role does not allow it (403)
└── Closed              the client was closed
```
"""

from __future__ import annotations


class TurnoutError(Exception):
    """The root: whatever the client raises on purpose is one of its kind."""


class BadSelector(TurnoutError, ValueError):
    """A name, a label or a version that none can be: the caller's mistake, for which nothing is asked."""


class NotFound(TurnoutError):
    """What was named does not exist, or no longer."""


class BadVariables(TurnoutError):
    """Variables, placeholders or messages that the prompt does not take.

    `param` names the one at fault as the service does (`variables.ticket`, `messages[0].role`), or is None.
    """

    def __init__(self, message: str, *, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


class Unreachable(TurnoutError):
    """Nobody answered in time, or the one who did is ill or no Turnout service."""


class Refused(TurnoutError):
    """The service understood the request and will not do it; `status` is the HTTP status."""

    def __init__(self, message: str, *, status: int) -> None:
        super().__init__(message)
        self.status = status


class KeyRefused(Refused):
    """The key is missing, not valid, or not allowed to do this."""


class Closed(TurnoutError):
    """The client was closed before this call."""

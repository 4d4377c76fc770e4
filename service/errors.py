"""The service's part of the error tree; `prompts.errors` draws its root.

```
TurnoutError
├── BadInput …                  see prompts.errors
│   ├── BadSetting              turnout.yaml or a TURNOUT_… variable
│   ├── TooLarge                a body beyond a limit of `server`
│   └── ModelNotAvailable       a model that cannot be fine-tuned here, by OpenAI's code
├── ModelError …                see prompts.errors
│   ├── EngineFailed            the embedded engine could not start, or died again and again
│   └── SchemaMismatch          an answer misses the prompt's output schema, after all repairs
├── NotFound                    no such prompt, version, label, suite, run, job, key, evidence
│   ├── NoSuchFile              no such file of /v1/files
│   ├── FineTuneNotFound        no such job of /v1/fine_tuning
│   └── NotServed               a call of OpenAI's API that this service does not have, by name
├── Conflict                    the state is not the one that the caller believed
│   ├── RevisionMismatch        If-Match names an old revision
│   └── IdempotencyMismatch     the same Idempotency-Key came with another body
├── Unauthenticated             no key, or not one of ours
├── Forbidden                   the key's role does not allow it
├── RateLimited                 a key has taken what it may: ask again later
├── NeedsEvidence               traffic or a protected label would move without a verdict that allows it
├── StorageFailed               the database or the disk refused; nothing was written
└── CannotRun                   the work could not be done at all (exit 4)
```

Only `service.api.http_errors` knows HTTP statuses and only `service.cli.exits` exit codes; a test holds both total.
"""

from __future__ import annotations

from prompts.errors import BadInput, ModelError, TurnoutError


class BadSetting(BadInput):
    """A setting of turnout.yaml or of the environment that cannot be used."""


class TooLarge(BadInput):
    """A request's body is beyond a limit: as it is sent, or when it is unpacked."""


class ModelNotAvailable(BadInput):
    """A model that a fine-tuning job names and that cannot be tuned here."""


class EngineFailed(ModelError):
    """The embedded engine could not start, or died again and again."""


class SchemaMismatch(ModelError):
    """An answer does not fit the prompt's output schema, after as many repairs as the prompt allows."""


class NotFound(TurnoutError):
    """What was named does not exist; `kind` and `name` say what."""

    def __init__(self, kind: str, name: str, hint: str = "") -> None:
        super().__init__(f"no {kind} {name!r}" + (f": {hint}" if hint else ""))
        self.kind = kind
        self.name = name


def no_route(prompt: str, *, is_known: bool) -> NotFound:
    """What is told of a prompt without a route, or of a name that no prompt has."""
    if not is_known:
        return NotFound("prompt", prompt)
    return NotFound("route", prompt, "it has none yet: its `production` is served on its own model")


class NoSuchFile(NotFound):
    """A file of `/v1/files` that does not exist, or no longer."""


class FineTuneNotFound(NotFound):
    """A job of `/v1/fine_tuning` that does not exist."""


class NotServed(NotFound):
    """A call of OpenAI's API that this service does not have."""


class Conflict(TurnoutError):
    """The state is not the one that the caller believed."""


class RevisionMismatch(Conflict):
    """If-Match names a revision that is no longer the current one."""


class IdempotencyMismatch(Conflict):
    """An Idempotency-Key was used before with another body."""


class Unauthenticated(TurnoutError):
    """No key, or one that is not ours."""


class Forbidden(TurnoutError):
    """The key's role does not allow this."""


class RateLimited(TurnoutError):
    """A key has taken what it may of requests or tokens; `is_budget` where it is the day's budget."""

    def __init__(self, message: str, *, retry_after_s: float, is_budget: bool = False) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s
        self.is_budget = is_budget


class NeedsEvidence(TurnoutError):
    """Traffic or a protected label would move without a verdict that allows it."""


class StorageFailed(TurnoutError):
    """The database or the disk refused; nothing was half-written."""


class CannotRun(TurnoutError):
    """The work could not be done at all: unreachable server, dead child, too many errors."""

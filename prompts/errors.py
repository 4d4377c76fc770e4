"""Errors that name the place, the value and the fix.

```
TurnoutError                    everything that Turnout raises on purpose
├── BadInput                    a value that its giver can mend
│   ├── BadFile                 one or more faults of authors' files, all reported together
│   ├── BadName                 a prompt, suite, label or selector outside the grammar
│   ├── RenderError             a template and its variables do not give messages
│   │   ├── MissingVariable
│   │   ├── UnexpectedVariable
│   │   ├── InvalidVariable
│   │   ├── TemplateRefused     the template asks for what a template must not have
│   │   └── BudgetExceeded      too many steps or too much output
│   └── IncludeError            an include that is missing, circular or too deep
└── ModelError                  a completion that did not come
    ├── ModelUnavailable        nothing listens, or it refused the connection
    ├── ModelTimeout            no answer within the time allowed
    ├── ModelOverloaded         429 or 503: ask again later
    └── ModelRefused            the upstream answered with an error that asking again will not mend
```

`service.errors` continues this tree with what only a service can raise.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter
from typing import Literal

from prompts.redaction import without_secrets

Level = Literal["error", "warning"]
MAX_FAULTS = 10_000  # told of one file: each takes up to a kilobyte, and no author reads more
NOT_SHOWN = "not-shown"  # the rule of a line that says how many more there are


class TurnoutError(Exception):
    """The root: whatever is raised on purpose is one of its kind."""


class BadInput(TurnoutError):
    """A value that the one who gave it can mend.

    `param` names the offending field where there is one (a variable, a key of the body).
    """

    def __init__(self, message: str, *, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


@dataclass(frozen=True, slots=True, order=True)
class Fault:
    """One fault of one file: where it is, what is wrong, how to mend it.

    `line` counts from 1; 0 means the file as a whole. A `warning` is shown and refuses nothing. `rule` is the stable
    name of what was broken, for those who filter or report by it. Neither `message` nor `fix` repeats a secret of the
    file, whoever words them: faults are printed, logged and sent to whoever asks.
    """

    path: str
    line: int
    message: str
    fix: str = ""
    level: Level = "error"
    rule: str = "invalid"

    def __post_init__(self) -> None:
        object.__setattr__(self, "message", without_secrets(self.message))
        object.__setattr__(self, "fix", without_secrets(self.fix))

    def __str__(self) -> str:
        place = f"{self.path}:{self.line}" if self.line else self.path
        kind = "warning: " if self.level == "warning" else ""
        return f"{place}: {kind}{self.message}" + (f" ({self.fix})" if self.fix else "")


def shown_faults(faults: Iterable[Fault]) -> tuple[Fault, ...]:
    """`faults` sorted by place, each once; of a file with more than `MAX_FAULTS` the rest is counted in a line of its own."""
    ordered = sorted(set(faults))
    if len(ordered) <= MAX_FAULTS:
        return tuple(ordered)
    return tuple(shown for _, of_file in groupby(ordered, attrgetter("path")) for shown in _shown_of_file([*of_file]))


def _shown_of_file(faults: list[Fault]) -> Iterator[Fault]:
    """Lines of an earlier count stay. A single fault too many is told: the line in its place would be as long."""
    counted = [fault for fault in faults if fault.rule == NOT_SHOWN]
    told = [fault for fault in faults if fault.rule != NOT_SHOWN]
    rest = told[MAX_FAULTS:] if len(told) > MAX_FAULTS + 1 else []
    yield from told[: len(told) - len(rest)]
    if rest:
        level: Level = "error" if any(fault.level == "error" for fault in rest) else "warning"
        message = f"{len(rest):,} more faults of this file are not shown"
        yield Fault(rest[0].path, rest[0].line, message, "mend those before", level, NOT_SHOWN)
    yield from counted


class BadFile(BadInput):
    """Faults of one or more files, sorted by place, of each no more than `MAX_FAULTS`. Never empty."""

    def __init__(self, faults: list[Fault] | tuple[Fault, ...]) -> None:
        self.faults = shown_faults(faults)
        super().__init__("\n".join(str(fault) for fault in self.faults))


class BadName(BadInput):
    """A name outside the grammar of names."""


class RenderError(BadInput):
    """A template and its variables do not give messages."""


class MissingVariable(RenderError):
    """A declared variable without a default was not given."""


class UnexpectedVariable(RenderError):
    """A variable was given that the prompt does not declare."""


class InvalidVariable(RenderError):
    """A variable's value does not satisfy its JSON Schema."""


class TemplateRefused(RenderError):
    """The template asks for what a sandboxed template must not have, or is not a template at all."""


class BudgetExceeded(RenderError):
    """Rendering took more steps or gave more output than a template may."""


class IncludeError(BadInput):
    """An include that is missing, circular or too deep."""


class ModelError(TurnoutError):
    """A completion that did not come.

    `retryable` says whether the same request may succeed later, `attempts` how many questions to an upstream were
    spent before giving up: 0 where none was asked.
    """

    retryable = False
    attempts = 1


class ModelUnavailable(ModelError):
    """Nothing listens at the model's address, or it hung up."""

    retryable = True


class ModelTimeout(ModelError):
    """No complete answer within the time allowed."""

    retryable = True


class ModelOverloaded(ModelError):
    """The upstream asked to be asked later; `retry_after_s` where it said when, `status` where it said so by HTTP."""

    retryable = True

    def __init__(self, message: str, *, retry_after_s: float | None = None, status: int | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s
        self.status = status


NO_COMPLETION = "no_completion"  # the code of a good status whose answer was none


class ModelRefused(ModelError):
    """The upstream answered with an error; asking the same again will not help.

    `status`, `code` and `param` are what it said, where it said so in OpenAI's form.
    """

    def __init__(
        self, message: str, *, status: int | None = None, code: str | None = None, param: str | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.param = param

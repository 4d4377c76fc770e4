"""Turnout's client: `from turnout import Turnout` (or `AsyncTurnout`).

Prompts are fetched once, filled here, kept up to date in the background, and survive a server that is away:
docs/client.md says how. Needs the standard library and httpx alone.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from turnout.asynchronous import AsyncTurnout
    from turnout.errors import (
        BadSelector,
        BadVariables,
        Closed,
        KeyRefused,
        NotFound,
        Refused,
        TurnoutError,
        Unreachable,
    )
    from turnout.prompt import AsyncPrompt, Prompt, Rendered
    from turnout.sync import Turnout

__all__ = [
    "AsyncPrompt",
    "AsyncTurnout",
    "BadSelector",
    "BadVariables",
    "Closed",
    "KeyRefused",
    "NotFound",
    "Prompt",
    "Refused",
    "Rendered",
    "Turnout",
    "TurnoutError",
    "Unreachable",
]

_ELSEWHERE = {
    "AsyncPrompt": "prompt",
    "AsyncTurnout": "asynchronous",
    "Prompt": "prompt",
    "Rendered": "prompt",
    "Turnout": "sync",
}  # all others are errors


def __getattr__(name: str) -> Any:
    """What is asked for, imported now: every run of pytest loads this package, and httpx takes a tenth of a second."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(importlib.import_module(f"{__name__}.{_ELSEWHERE.get(name, 'errors')}"), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

"""Turnout's client: `from turnout import Turnout` (or `AsyncTurnout`).

Prompts are fetched once, filled here, kept up to date in the background, and survive a server that is away:
docs/client.md says how. Needs the standard library and httpx alone.
"""

from turnout.asynchronous import AsyncTurnout
from turnout.errors import BadSelector, BadVariables, Closed, KeyRefused, NotFound, Refused, TurnoutError, Unreachable
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

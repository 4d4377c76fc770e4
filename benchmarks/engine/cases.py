"""What is asked: tickets of the example after a beginning of 150 tokens that all share."""

from __future__ import annotations

import json
from pathlib import Path

Messages = list[dict[str, str]]
CASES_FOLDER = Path(__file__).parents[2] / "examples" / "support" / "suites" / "support" / "cases"
LABELS = ("billing", "delivery", "returns", "account", "technical", "sales", "order change", "order cancellation")
ANSWER_TOKENS = 12
_LONGEST = 215  # characters of a ticket: with the end of the prompt some 36 tokens in the mean

_REPLY = """You answer the tickets of a shop for hiking gear. Reply in one friendly sentence of about twenty words."""
_SHOTS = (
    (
        "My card was charged twice",
        "I am sorry about that: we will send the second payment back to your card within three working days.",
    ),
    (
        "Where is my parcel?",
        "Your parcel left our house yesterday, and the carrier will bring it to your door by the end of the week.",
    ),
    (
        "Do you stock this in red?",
        "We do, in all sizes from small to extra large, and it can be with you on Thursday at noon.",
    ),
)
_ROUTE = (
    f"Route the ticket of a customer to one of these queues: {', '.join(LABELS)}. Answer with the queue's name alone."
)
_ROUTED = (
    ("My card was charged twice", "billing"),
    ("Where is my parcel?", "delivery"),
    ("These shoes are too small, I want to swap them", "returns"),
    ("I forgot my password", "account"),
    ("Do you stock this in red?", "sales"),
    ("Wrong house number", "order change"),
)


def tickets(count: int) -> list[str]:
    """Of the example's two files, the shorter ones."""
    lines = [
        line for name in ("heldout", "train") for line in (CASES_FOLDER / f"{name}.jsonl").read_text().splitlines()
    ]
    found = [json.loads(line)["vars"]["ticket"] for line in lines]
    return [ticket for ticket in found if len(ticket) <= _LONGEST][:count]


def replies(count: int) -> list[Messages]:
    """Each is answered with a sentence, of which the first 12 tokens are asked for."""
    return [_conversation(_REPLY, _SHOTS, ticket) for ticket in tickets(count)]


def routes(count: int) -> list[Messages]:
    """Each is answered with one of `LABELS`."""
    return [_conversation(_ROUTE, _ROUTED, ticket) for ticket in tickets(count)]


def _conversation(system: str, shots: tuple[tuple[str, str], ...], ticket: str) -> Messages:
    turns = [turn for asked, said in shots for turn in (("user", asked), ("assistant", said))]
    return [{"role": role, "content": text} for role, text in (("system", system), *turns, ("user", ticket))]

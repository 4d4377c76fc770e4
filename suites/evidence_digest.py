"""The digest of a stored record of evidence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prompts.prompt import digest_of

DECIDED = ("gate", "promotion")  # kinds of evidence that hold a decision
ROLLOUT = "rollout"  # the kind that a step of a rollout, or its verification, decided on
WHOLE = "record:"  # how the digest of a whole record begins; one without it is of the content alone


def record_digest(record: Mapping[str, Any]) -> str:
    """The digest of all columns of a record but its own: who, when and of which prompt stand beside the content."""
    return WHOLE + digest_of({name: value for name, value in record.items() if name != "digest"})


def digest_again(record: Mapping[str, Any]) -> str:
    """The digest of a record in the way in which the one that it has was made."""
    return record_digest(record) if str(record["digest"]).startswith(WHOLE) else digest_of(record["content"])


def unchecked_columns(record: Mapping[str, Any]) -> tuple[str, ...]:
    """What nothing in the record bears out: evidence from before has the digest of its content alone."""
    if str(record["digest"]).startswith(WHOLE):
        return ()
    return ("actor", "created_at") if record["kind"] in DECIDED else ("prompt", "created_at")

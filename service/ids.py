"""Ids and times: made by the logic layer, here and nowhere else."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime, timedelta


def now() -> str:
    """The time as ISO 8601 in UTC with microseconds: sorts as text."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


def ago(seconds: float) -> str:
    """The time `seconds` before now, in the form of `now`."""
    return (datetime.now(UTC) - timedelta(seconds=seconds)).isoformat(timespec="microseconds")


def new_id(prefix: str) -> str:
    """A fresh id such as `run_4f1c9a0b7d2e`: 48 random bits behind a word that says what it names."""
    return f"{prefix}_{secrets.token_hex(6)}"

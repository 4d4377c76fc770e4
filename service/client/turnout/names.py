"""The grammar of names and labels, which the service holds them to: what is outside of it is never asked for.

The patterns are those of the service's own `prompts.names`, which this package cannot import.
"""

from __future__ import annotations

import re
from typing import Any

from turnout.errors import BadSelector

NAME = re.compile(r"[a-z0-9][a-z0-9_-]*(\.[a-z0-9][a-z0-9_-]*)*")
LABEL = re.compile(r"[a-z][a-z0-9_.-]{0,63}")
MAX_NAME_LENGTH = 200
MAX_VERSION = 999_999_999


def check_name(name: Any) -> str:
    """Return `name`; raises BadSelector where it is outside the grammar."""
    if not isinstance(name, str) or len(name) > MAX_NAME_LENGTH or not NAME.fullmatch(name):
        raise BadSelector(
            f"name {_shown(name)} is no prompt name: lower-case letters, digits, _ and -, with dots between parts,"
            f" at most {MAX_NAME_LENGTH} characters"
        )
    return name


def check_label(label: Any) -> str:
    """Return `label`; raises BadSelector where it is outside the grammar. `latest` is one to ask for."""
    if not isinstance(label, str) or not LABEL.fullmatch(label):
        grammar = "a lower-case letter, then letters, digits, _ . -, at most 64 characters"
        raise BadSelector(f"label {_shown(label)} is no label: {grammar}; leave it out for `production`")
    return label


def check_version(version: Any) -> int:
    """Return `version`; raises BadSelector where it is no whole number from 1."""
    if not isinstance(version, int) or isinstance(version, bool) or not 1 <= version <= MAX_VERSION:
        raise BadSelector(f"version {_shown(version)} is no version: they count from 1")
    return version


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 82 else f"{text[:81]}…"

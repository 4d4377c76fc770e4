"""Times and ages as people write them."""

from __future__ import annotations

import re
from datetime import UTC, datetime

from prompts.errors import BadInput
from service.ids import ago

_AGE = re.compile(r"([0-9]{1,6})([smhd])")
_UNIT_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


def stored_time(text: str | None, param: str) -> str | None:
    """The time that an age (`7d`, `12h`, `30m`, `90s`) or ISO 8601 means, as times are stored; None for None.

    A time without a zone is UTC. Raises BadInput naming `param`.
    """
    if text is None:
        return None
    try:
        age = _AGE.fullmatch(text)
        if age:
            return ago(int(age[1]) * _UNIT_S[age[2]])
        given = datetime.fromisoformat(text)
        zoned = given if given.tzinfo else given.replace(tzinfo=UTC)
        return zoned.astimezone(UTC).isoformat(timespec="microseconds")
    except (ValueError, OverflowError) as error:
        raise BadInput(
            f"{param} {text[:40]!r}: write an age (7d, 12h, 30m) or a time (2026-01-31)", param=param
        ) from error


def shown_time(at: str) -> str:
    """A stored time as people read it: UTC to the second, `2026-01-31 08:00:00`."""
    return at[:19].replace("T", " ")

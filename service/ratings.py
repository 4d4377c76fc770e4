"""What people say of the answers that runs got: feedback on `case:CASE:RUN:REPEAT`, which decides `human` assertions."""

from __future__ import annotations

import re
from typing import Any

from sqlmodel import Session

from prompts.errors import BadInput
from service.aids import RATED, rating_id
from service.errors import NotFound
from service.store import runs

_ID = re.compile(rf"{RATED}:(?P<case>[0-9a-f]{{16}}):(?P<run>run_[0-9A-Za-z_-]+):(?P<repeat>[0-9]{{1,3}})")


def is_rating(completion_id: str) -> bool:
    """Whether feedback is on a run's answer, and not on a completion of an application."""
    return completion_id.startswith(f"{RATED}:")


def rated_run(session: Session, completion_id: str, value: Any) -> dict[str, Any]:
    """The run whose answer is rated. Raises BadInput for an id or a score of another form, NotFound where there is none."""
    found = _ID.fullmatch(completion_id)
    if found is None:
        raise BadInput(f"{completion_id!r}: write case:CASE:RUN:REPEAT", param="completion_id")
    if not isinstance(value, int | float) or not 0 <= value <= 1:
        raise BadInput(f"the rating of a run's answer is a score from 0 to 1, not {value!r}", param="value")
    run = runs.get(session, found["run"])
    result = runs.case(session, found["run"], found["case"], int(found["repeat"])) if run else None
    if run is None or result is None or result["output"] is None:
        raise NotFound("answer", completion_id, "see `turnout judge waiting RUN`")
    return run


__all__ = ["is_rating", "rated_run", "rating_id"]

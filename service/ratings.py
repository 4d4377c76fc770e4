"""What people say of the answers that runs got: feedback on `case:CASE:RUN:REPEAT`, which decides `human` assertions."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from prompts.errors import BadInput
from service.aids import RATED, rating_id
from service.errors import NotFound
from service.store import requests, runs
from service.store.session import Session
from suites.assertions import NOT
from suites.assertions.judged import CALIBRATED
from suites.assertions.people import HUMAN
from suites.results import CaseResult

_ID = re.compile(rf"{RATED}:(?P<case>[0-9a-f]{{16}}):(?P<run>run_[0-9A-Za-z_-]+):(?P<repeat>[0-9]{{1,3}})")


def is_rating(completion_id: str) -> bool:
    """Whether feedback is on a run's answer, and not on a completion of an application."""
    return completion_id.startswith(f"{RATED}:")


def rated_run(session: Session, completion_id: str, metric: str, value: Any) -> dict[str, Any]:
    """The run whose answer is rated.

    Raises BadInput for an id or a score of another form, or a metric that neither people nor a judge give this case;
    NotFound where there is no such answer.
    """
    found = _ID.fullmatch(completion_id)
    if found is None:
        raise BadInput(f"{completion_id!r}: write case:CASE:RUN:REPEAT", param="completion_id")
    if not isinstance(value, int | float) or not 0 <= value <= 1:
        raise BadInput(f"the rating of a run's answer is a score from 0 to 1, not {value!r}", param="value")
    run = runs.get(session, found["run"])
    result = runs.case(session, found["run"], found["case"], int(found["repeat"])) if run else None
    if run is None or result is None or result["output"] is None:
        raise NotFound("answer", completion_id, "see `turnout judge waiting RUN`")
    _refuse_other_metric(CaseResult.from_dict(result), metric)
    return run


def still_waiting(session: Session, run_id: str) -> Iterator[dict[str, Any]]:
    """Answers of a run that people have yet to rate, each text of a case once; `waiting` names the metrics that lack a rating.

    As for `human` assertions, a rating counts for the same answer to the same case wherever it was seen.
    """
    rated = _rated_answers(session)
    seen: set[tuple[str, str]] = set()
    for data in runs.cases(session, run_id, ("skipped",)):
        result = CaseResult.from_dict(data)
        answer = (result.case_id, result.output or "")
        outcomes = [part for whole in result.outcomes for part in whole.walk()]
        asked = dict.fromkeys(one.metric or HUMAN for one in outcomes if one.status == "skipped" and one.type == HUMAN)
        waiting = [metric for metric in asked if (*answer, metric) not in rated]
        if result.waits and waiting and answer not in seen:
            seen.add(answer)
            yield {**data, "waiting": waiting}


def _rated_answers(session: Session) -> set[tuple[str, str, str]]:
    """What people have given a score, as case, answer and metric."""
    found = set()
    for row in requests.feedback_on(session, f"{RATED}:"):
        case_id, run_id, repeat = row["completion_id"].split(":")[1:]
        result = runs.case(session, run_id, case_id, int(repeat)) if isinstance(row["value"], int | float) else None
        if result is not None and result["output"] is not None:
            found.add((case_id, result["output"], row["metric"]))
    return found


def _refuse_other_metric(result: CaseResult, metric: str) -> None:
    """A rating decides a `human` assertion of its metric, or is a label for a judge of it; any other would be lost."""
    outcomes = [part for whole in result.outcomes for part in whole.walk()]
    rated = [one for one in outcomes if one.type.removeprefix(NOT) in CALIBRATED | {HUMAN}]
    known = sorted({one.metric or HUMAN for one in rated})
    if metric not in known:
        fix = f"rate one of {', '.join(known)}" if known else "it has no `human` assertion and no judge"
        raise BadInput(
            f"case {result.index + 1} has no assertion that people rate as {metric!r}: {fix}", param="metric"
        )


__all__ = ["is_rating", "rated_run", "rating_id", "still_waiting"]

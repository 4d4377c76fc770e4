"""Questions to the request log: its newest rows that meet conditions, page by page."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from prompts.errors import BadInput, ModelError, TurnoutError
from service.store import prompts
from service.store.session import Session
from service.store.tables import REQUEST

FAILED = "failed"
_NO_ERRORS = ("ok", "cancelled", FAILED)

# A person's newest score of a completion counts; a comment alone takes none back.
_RATED = (
    "id IN (SELECT said.completion_id FROM feedback AS said WHERE said.metric = :metric AND said.score IS NOT NULL{bounds}"
    " AND NOT EXISTS (SELECT 1 FROM feedback AS later WHERE later.completion_id = said.completion_id"
    " AND later.metric = said.metric AND later.key_id = said.key_id AND later.score IS NOT NULL"
    " AND (later.at, later.id) > (said.at, said.id)))"
)


@dataclass(frozen=True)
class Question:
    """What rows are wanted, None wherever all are.

    `status` is `ok`, `cancelled`, the name of an error's class, or `failed` for any of the latter. `since` is inclusive and
    `until` exclusive. `metric` wants rows that somebody scored, `below` and `above` which ones. `after` is the `at` and `seq`
    of the last row of the page before.
    """

    prompt: str | None = None
    variant: str | None = None
    status: str | None = None
    trace_id: str | None = None
    since: str | None = None
    until: str | None = None
    metric: str | None = None
    below: float | None = None
    above: float | None = None
    after: tuple[str, int] | None = None


def newest(session: Session, question: Question, limit: int) -> list[dict[str, Any]]:
    """At most `limit` rows, newest first.

    Where there is none, since no row can be: raises NotFound for a prompt that there is not, BadInput for such a status.
    """
    conditions, values = _conditions(question)
    where = f"WHERE {' AND '.join(conditions)} " if conditions else ""
    found = REQUEST.all(session, f"{where}ORDER BY at DESC, seq DESC LIMIT :limit", limit=limit, **values)
    if not found and question.after is None:
        _refuse_unknown(session, question)
    return found


def _refuse_unknown(session: Session, question: Question) -> None:
    """What some row has is known, whatever it is: a log may tell of errors that this version has no more."""
    prompt, status = question.prompt, question.status
    if prompt is not None and not _is_in_log(session, "prompt", prompt):
        prompts.refuse_unknown(session, prompt)
    if status in (None, *_NO_ERRORS, *_names(TurnoutError)) or _is_in_log(session, "status", str(status)):
        return
    usual = ", ".join(sorted(_names(ModelError)))
    raise BadInput(
        f"status {status!r:.80}: give {', '.join(_NO_ERRORS)} or an error's class, such as {usual}", param="status"
    )


def _is_in_log(session: Session, column: str, value: str) -> bool:
    return session.value(f"SELECT 1 FROM request WHERE {column} = :value LIMIT 1", value=value) is not None


def _names(error: type[TurnoutError]) -> set[str]:
    """The names of an error's class and of all below it."""
    return {error.__name__}.union(*(_names(each) for each in error.__subclasses__()))


def _conditions(question: Question) -> tuple[list[str], dict[str, Any]]:
    plain = ("prompt", "variant", "trace_id")
    values: dict[str, Any] = {name: getattr(question, name) for name in plain if getattr(question, name) is not None}
    conditions = [f"{name} = :{name}" for name in values]
    if question.status == FAILED:
        conditions.append("status NOT IN ('ok', 'cancelled')")
    elif question.status is not None:
        conditions.append("status = :status")
        values["status"] = question.status
    for name, comparison in (("since", "at >= :since"), ("until", "at < :until")):
        if getattr(question, name) is not None:
            conditions.append(comparison)
            values[name] = getattr(question, name)
    if question.after is not None:
        conditions.append("(at, seq) < (:after_at, :after_seq)")
        values["after_at"], values["after_seq"] = question.after
    if question.metric is not None:
        conditions.append(_rated(question, values))
    return conditions, values


def _rated(question: Question, values: dict[str, Any]) -> str:
    """The condition on feedback; its values are added to `values`."""
    values["metric"] = question.metric
    bounds = ""
    for name, sign in (("below", "<"), ("above", ">")):
        if getattr(question, name) is not None:
            bounds += f" AND said.score {sign} :{name}"
            values[name] = getattr(question, name)
    return _RATED.format(bounds=bounds)

"""What rollouts read: the outcomes of one revision of a route as they are written, and what people said of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from service.store.session import Session, listed

_FAILED_S = "(CASE WHEN s.status <> 'ok' OR NOT COALESCE(s.is_valid, TRUE) THEN 1 ELSE 0 END)"
_FAILED_A = _FAILED_S.replace("s.", "a.")
_COLUMNS = "seq, id, at, unit, variant, chosen, status, is_valid, latency_ms, shadow_of"


@dataclass(frozen=True, slots=True)
class OutcomeRow:
    """Of a row of the request log, what a rollout counts. `chosen` is who failed where a fallback was asked instead."""

    seq: int
    id: str
    at: str
    unit: str | None
    variant: str
    chosen: str | None
    status: str
    is_valid: bool | None
    latency_ms: float
    shadow_of: str | None


def outcomes(session: Session, prompt: str, revision: int, after_seq: int, limit: int) -> list[OutcomeRow]:
    """What one revision of a prompt's route came to behind `after_seq`, in the order of writing; no row is missed."""
    rows = session.rows(
        f"SELECT {_COLUMNS} FROM request WHERE prompt = :prompt AND route_revision = :revision AND seq > :seq"
        " ORDER BY seq LIMIT :limit",
        prompt=prompt, revision=revision, seq=after_seq, limit=limit,
    )  # fmt: skip
    return [OutcomeRow(*row) for row in rows]


def complaints(session: Session, prompt: str, revision: int, since: str, metrics: Sequence[str]) -> list[OutcomeRow]:
    """The outcomes of one revision that somebody called bad since then: a score below one half, or a correction."""
    if not metrics:
        return []
    named, values = listed("metric", metrics)
    columns = ", ".join(f"request.{name}" for name in _COLUMNS.split(", "))
    rows = session.rows(
        f"SELECT DISTINCT {columns} FROM feedback JOIN request ON request.id = feedback.completion_id"
        " WHERE feedback.at >= :since AND (feedback.score < 0.5 OR feedback.correction IS NOT NULL)"
        f" AND feedback.metric IN {named}"
        " AND request.prompt = :prompt AND request.route_revision = :revision ORDER BY request.seq",
        since=since, prompt=prompt, revision=revision, **values,
    )  # fmt: skip
    return [OutcomeRow(*row) for row in rows]


@dataclass(frozen=True, slots=True)
class Beside:
    """How a shadow did beside the variant that answered, over the requests that both were asked.

    Counts, mean milliseconds and dollars in all.
    `only_shadow_failed` counts those that were answered well and whose shadow failed; the other way round likewise.
    `same_output` are those with the same text, of the `compared` whose texts are recorded.
    """

    shadow: str
    answered: str
    requests: int
    both_failed: int
    only_shadow_failed: int
    only_answered_failed: int
    shadow_ms: float
    answered_ms: float
    shadow_usd: float | None
    answered_usd: float | None
    compared: int
    same_output: int


def beside(session: Session, prompt: str, since: str) -> list[Beside]:
    """Every shadow of a prompt since then beside those that answered, the most asked first."""
    sql = (
        f"SELECT s.variant, a.variant, COUNT(*), SUM({_FAILED_S} * {_FAILED_A}), SUM({_FAILED_S} * (1 - {_FAILED_A})),"
        f" SUM((1 - {_FAILED_S}) * {_FAILED_A}), AVG(s.latency_ms), AVG(a.latency_ms), SUM(s.cost_usd), SUM(a.cost_usd),"
        " COUNT(told.id), COUNT(CASE WHEN told.output = said.output THEN 1 END)"
        " FROM request AS s JOIN request AS a ON a.id = s.shadow_of"
        " LEFT JOIN request_body AS said ON said.id = a.id"
        " LEFT JOIN request_body AS told ON told.id = s.id AND said.id IS NOT NULL"
        " WHERE s.prompt = :prompt AND s.at >= :since AND s.shadow_of IS NOT NULL"
        " GROUP BY s.variant, a.variant ORDER BY COUNT(*) DESC, s.variant, a.variant"
    )
    return [Beside(*row) for row in session.rows(sql, prompt=prompt, since=since)]

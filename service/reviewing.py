"""The review queue: what waits, and what a reviewer decides. Only what was accepted can become part of a dataset."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import pydantic

from finetune.data import Example, Source
from prompts.errors import BadInput
from prompts.names import check_name
from prompts.redaction import REDACTION
from service import collecting
from service.collecting import since_of
from service.errors import Conflict, NotFound
from service.identity import Principal
from service.ids import now
from service.store import candidates, keys, prompts
from service.store.database import Database
from service.store.session import Session

MOST_LISTED = 1_000
LONGEST_EXPECTED = 100_000  # characters

Status = Literal["waiting", "accepted", "rejected"]


class Reviewed(pydantic.BaseModel, frozen=True, extra="forbid"):
    """Which of a prompt's accepted candidates: all, or those of a source, of a variant, decided since a time."""

    source: collecting.Source | None = None
    variant: str | None = None
    since: str | None = None


class Reviews:
    """The queue of candidates on a database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def collect(self, request: collecting.CollectRequest, actor: Principal) -> dict[str, Any]:
        """See `collecting.collect`."""
        return collecting.collect(self._database, request, actor)

    def listing(
        self, prompt: str | None = None, status: Status | None = None, limit: int = 100, after: str | None = None
    ) -> list[dict[str, Any]]:
        """Candidates, oldest first, those behind the candidate `after`.

        Raises NotFound where there is none of that id, and for a prompt that there is not.
        """
        with self._database.read() as session:
            if after is not None and candidates.get(session, after) is None:
                raise NotFound("example", after)
            prompt = check_name(prompt) if prompt is not None else None
            found = candidates.listing(session, prompt, status, min(limit, MOST_LISTED), after)
            if not found:
                prompts.refuse_unknown(session, prompt)
            return found

    def accept(self, candidate_id: str, actor: Principal, expected: str | None = None) -> dict[str, Any]:
        """Take a candidate as an example, with another answer where `expected` is given.

        Raises NotFound, Conflict where it was decided, BadInput for an answer that is empty or lacks what was secret.
        """
        if expected is not None and not expected.strip():
            raise BadInput(
                "expected: give the answer that the model should learn, or reject the example", param="expected"
            )
        return self._decide(candidate_id, actor, "accepted", {} if expected is None else {"expected": expected})

    def reject(self, candidate_id: str, actor: Principal, reason: str | None = None) -> dict[str, Any]:
        """Keep a candidate out of every dataset. Raises NotFound, or Conflict where it was decided."""
        return self._decide(candidate_id, actor, "rejected", {"reason": reason})

    def _decide(self, candidate_id: str, actor: Principal, status: Status, values: dict[str, Any]) -> dict[str, Any]:
        at = now()
        with self._database.write() as session:
            found = _waiting(session, candidate_id)
            learnt = values.get("expected", found["expected"])
            if status == "accepted" and REDACTION in learnt:
                fix = "give the answer that the model should learn as `expected`, or reject the example"
                raise BadInput(f"example {candidate_id}: a secret was taken out of its answer: {fix}", param="expected")
            detail = {"prompt": found["prompt"], "edited": learnt != found["expected"]}
            keys.audit(session, at=at, actor=actor.id, action=f"example.{status}", subject=candidate_id, detail=detail)
            return candidates.change(session, candidate_id, **values, status=status, decided_by=actor.id, decided_at=at)

    def examples(self, prompt: str, wanted: Reviewed) -> tuple[Source, Sequence[Example]]:
        """The accepted candidates that are meant, in an order that stays, and their lineage."""
        with self._database.read() as session:
            since = since_of(wanted.since)
            found = candidates.accepted(session, prompt, wanted.source, wanted.variant, since)
        source = Source(kind="reviewed", name=prompt, ids=tuple(each["id"] for each in found), examples=len(found))
        return source, [Example(each["vars"], each["expected"]) for each in found]


def _waiting(session: Session, candidate_id: str) -> dict[str, Any]:
    """A candidate that nobody has decided, held for this transaction. Raises NotFound or Conflict."""
    found = candidates.locked(session, candidate_id)
    if found is None:
        raise NotFound("example", candidate_id, "`turnout review list PROMPT` shows those that wait")
    if found["status"] != "waiting":
        raise Conflict(
            f"example {candidate_id} was {found['status']} by {found['decided_by']} at {found['decided_at']}"
        )
    return found

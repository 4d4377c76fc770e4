"""From what people said of completions to candidates of training examples: by a filter, each completion once."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pydantic

from finetune.data import Example, clean, flags_of
from prompts.names import check_name, parse_variant
from prompts.prompt import PromptContent
from prompts.redaction import REDACTION
from service.bodies import kept
from service.errors import NotFound
from service.identity import Principal
from service.ids import now
from service.store import candidates, prompts, requests
from service.store.database import Database
from service.store.session import Session
from service.times import stored_time
from service.tuning.examples import heldout_cases

HELD_OUT, REDACTED = "held-out", "redacted"
CORRECTED_SINCE = "the completion was corrected since"

Source = Literal["correction", "approved"]


class CollectRequest(pydantic.BaseModel, frozen=True, extra="forbid"):
    """Which completions of a prompt become candidates: those that were corrected, and those that were approved.

    Approved is what everybody's last word on `metric` gives at least `at_least`, without it the value true. `since` is
    an age (`7d`, `12h`, `30m`) or a time of ISO 8601; `corrections` leaves out what was approved.
    """

    prompt: str
    metric: str = "rating"
    at_least: float | None = pydantic.Field(None, allow_inf_nan=False)
    since: str | None = None
    variant: str | None = None
    corrections: bool = False


@dataclass(frozen=True, slots=True)
class _Said:
    """What was said of one completion, and so what kind of example it makes; `body` is None where none was recorded."""

    source: Source
    feedback: Mapping[str, Any]
    body: Mapping[str, Any] | None = None

    @property
    def id(self) -> str:
        return candidate_id(self.source, self.feedback["completion_id"])

    @property
    def expected(self) -> str:
        text = self.feedback["correction"] if self.source == "correction" else (self.body or {}).get("output")
        return str(kept(text or ""))

    @property
    def obstacle(self) -> str:
        """Why this makes no example, which holds variables and an answer alone; empty where it does."""
        if self.body is None:
            return "no recorded variables"
        for name in ("messages", "placeholders"):
            if self.body[name]:
                return f"{name} beside the variables"
        return "" if self.expected.strip() else "no text as the answer"

    @property
    def makes_example(self) -> bool:
        return not self.obstacle


def candidate_id(source: Source, completion_id: str) -> str:
    """The same for the same source and completion, so that each is collected once."""
    return "ex_" + hashlib.sha256(f"{source} {completion_id}".encode()).hexdigest()[:16]


def collect(database: Database, request: CollectRequest, actor: Principal) -> dict[str, Any]:
    """Put into the queue what people said; what was decided stays. Returns counts, and `notes` on what made no example.

    A completion that was corrected anew changes its candidate while that waits, and takes back its approval.

    Raises NotFound for a prompt that is not there, BadInput for a `since` that is no time.
    """
    said, known = _read(database, request)
    able = [each for each in said if each.makes_example]
    wanted = [each for each in able if each.id not in known or _is_outdated(known[each.id], each)]
    found = _flagged(database, request.prompt, [_record(each) for each in wanted])
    corrected = [each.feedback["completion_id"] for each in able if each.source == "correction"]
    with database.write() as session:
        fresh = [record for record in found if record["id"] not in known]
        candidates.add_many(session, fresh)
        renewed = sum(_renew(session, record) for record in found if record["id"] in known)
        approvals = [candidate_id("approved", completion) for completion in corrected]
        withdrawn = candidates.withdraw(session, approvals, reason=CORRECTED_SINCE, by=actor.id, at=now())
    counts = {"collected": len(fresh), "known": len(able) - len(fresh), "renewed": renewed, "withdrawn": withdrawn}
    return {"prompt": request.prompt, **counts, **_left_out(said)}


def since_of(text: str | None) -> str | None:
    """The time that an age (`7d`, `12h`, `30m`) or ISO 8601 means, as times are stored. Raises BadInput."""
    return stored_time(text, "since")


def _read(database: Database, request: CollectRequest) -> tuple[list[_Said], dict[str, dict[str, Any]]]:
    """What was said with its bodies, and the candidates that are known of it."""
    since = since_of(request.since)
    with database.read() as session:
        if not prompts.exists(session, check_name(request.prompt)):
            raise NotFound("prompt", request.prompt)
        said = list(_chosen(requests.feedback_of_prompt(session, request.prompt), request, since))
        known = candidates.known(session, [each.id for each in said])
        bodies = requests.bodies(session, [each.feedback["completion_id"] for each in said])
    return [_Said(each.source, each.feedback, bodies.get(each.feedback["completion_id"])) for each in said], known


def _chosen(feedback: Iterable[Mapping[str, Any]], request: CollectRequest, since: str | None) -> Iterable[_Said]:
    """One for each completion that the request means; a correction counts before an approval."""
    of_completion: dict[str, list[Mapping[str, Any]]] = {}
    for each in feedback:
        if request.variant in (None, each["variant"]):
            of_completion.setdefault(each["completion_id"], []).append(each)
    for words in of_completion.values():
        said = _correction(words) or (None if request.corrections else _approval(words, request))
        if said is not None and (since is None or said.feedback["at"] >= since):
            yield said


def _correction(words: Sequence[Mapping[str, Any]]) -> _Said | None:
    last = next((each for each in reversed(words) if each["correction"]), None)
    return _Said("correction", last) if last else None


def _approval(words: Sequence[Mapping[str, Any]], request: CollectRequest) -> _Said | None:
    """An approval where everybody's last word on the metric is one."""
    last = {each["key_id"]: each for each in words if each["metric"] == request.metric and each["value"] is not None}
    approved = [each for each in last.values() if _is_approval(each["value"], request.at_least)]
    return _Said("approved", approved[-1]) if approved and len(approved) == len(last) else None


def _is_approval(value: Any, at_least: float | None) -> bool:
    if at_least is None:
        return value is True
    return isinstance(value, int | float) and value >= at_least


def _is_outdated(known: Mapping[str, Any], said: _Said) -> bool:
    return bool(known["status"] == "waiting" and known["expected"] != said.expected)


def _renew(session: Session, record: Mapping[str, Any]) -> bool:
    """Take over what was said since, unless somebody decided on the candidate in the meantime."""
    standing = candidates.locked(session, record["id"])
    if standing is None or standing["status"] != "waiting":
        return False
    candidates.change(session, record["id"], **{name: record[name] for name in _SAID_ANEW})
    return True


_SAID_ANEW = ("expected", "metric", "value", "comment", "flags")


def _record(said: _Said) -> dict[str, Any]:
    assert said.body is not None  # noqa: S101 - for the type checker: only what makes an example is recorded
    return {
        "id": said.id,
        "prompt": said.body["prompt"],
        "prompt_version": parse_variant(said.body["variant"]).version,
        "variant": said.body["variant"],
        "source": said.source,
        "completion_id": said.feedback["completion_id"],
        "metric": said.feedback["metric"],
        "value": said.feedback["value"],
        "comment": kept(said.feedback["comment"]),
        "vars": said.body["variables"],
        "output": said.body["output"],
        "expected": said.expected,
        "status": "waiting",
        "created_at": now(),
    }


def _flagged(database: Database, prompt: str, records: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each record with what a reviewer should know: a held-out case like it, a secret taken out, personal data."""
    examples = [Example(record["vars"], record["expected"]) for record in records]
    flags: list[set[str]] = [{REDACTED} if _is_redacted(record) else set() for record in records]
    for found in flags_of(examples):
        flags[found.index].add(found.kind)
    if records:
        same_answer = [Example(each.vars, "-") for each in examples]  # no contradictions: each is compared
        heldout = list(heldout_cases(database, {}))
        for drop in clean(same_answer, heldout, defaults=_defaults(database, prompt)).drops:
            if drop.reason.startswith(HELD_OUT):
                flags[drop.index].add(HELD_OUT)
    return [{**record, "flags": sorted(found)} for record, found in zip(records, flags, strict=True)]


def _defaults(database: Database, prompt: str) -> dict[str, Any]:
    """The values of the variables that the prompt's newest version lets people leave out."""
    with database.read() as session:
        newest = prompts.newest(session, prompt)
    return PromptContent.model_validate(newest.content).defaults if newest else {}


def _is_redacted(record: Mapping[str, Any]) -> bool:
    return REDACTION in repr((record["vars"], record["expected"]))


def _left_out(said: Sequence[_Said]) -> dict[str, Any]:
    """How many completions made no candidate, and why."""
    unrecorded = [each for each in said if each.body is None]
    unable = [each for each in said if each.body is not None and not each.makes_example]
    notes = []
    for source, name in (("correction", "correction"), ("approved", "approved completion")):
        count = sum(each.source == source for each in unrecorded)
        if count:
            have = f"{count:,} {name} has" if count == 1 else f"{count:,} {name}s have"
            notes.append(
                f"{have} no recorded variables: set recording.bodies, which holds for completions from then on"
            )
    reasons = Counter(each.obstacle for each in unable)
    notes += [f"{count:,} left out: {reason}, which an example cannot hold" for reason, count in reasons.items()]
    return {"unrecorded": len(unrecorded), "left_out": len(unable), "notes": notes}

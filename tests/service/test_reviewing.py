"""From what people said of completions to decided examples."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from prompts.errors import BadInput
from service import collecting
from service.collecting import CollectRequest, candidate_id, collect, since_of
from service.errors import Conflict, NotFound
from service.ids import ago, now
from service.registry import Push, Registry
from service.reviewing import Reviewed, Reviews
from service.store import keys, requests
from service.store.database import Database
from tests.service.conftest import AUTHOR, BOTH, case, make_settings, suite, triage
from tests.service.test_request_log import outcome

PROMPT = "support.triage"
VARIANT = "support.triage@1+model-a"


class Production:
    """A prompt with completions that people said something of."""

    def __init__(self, database: Database, tmp_path: Any) -> None:
        self.database = database
        self.reviews = Reviews(database)
        self._registry = Registry(database, make_settings(tmp_path))
        self._registry.push(Push({PROMPT: triage()}, {}), AUTHOR)
        self._said = 0

    def push_suite(self, *tickets: str) -> None:
        cases = [case(ticket, "billing") for ticket in tickets]
        self._registry.push(Push({}, {"support.heldout": suite(*cases)}), AUTHOR)

    def completed(self, number: int, ticket: str = "", *, recorded: bool = True, **more: Any) -> str:
        name = f"chatcmpl-{number}"
        about = {"prompt": PROMPT, "variant": VARIANT, **{key: more.pop(key) for key in ("variant",) if key in more}}
        body = {"id": name, "at": now(), "variables": {"ticket": ticket or f"ticket {number}"}, "messages": None}
        body |= {"placeholders": None, "output": "billing", **about, **more}
        with self.database.write() as session:
            requests.add_outcomes(session, [outcome(number, **about)])
            requests.add_bodies(session, [body] if recorded else [])
        return name

    def said(self, completion: str, key: str = "k1", at: str | None = None, **more: Any) -> None:
        self._said += 1
        values = {"metric": "rating", "value": None, "comment": None, "correction": None, **more}
        record = {"id": f"fb_{self._said:04}", "completion_id": completion, "key_id": key, "at": at or now(), **values}
        with self.database.write() as session:
            requests.add_feedback(session, record)

    def collect(self, **more: Any) -> dict[str, Any]:
        return collect(self.database, CollectRequest(prompt=PROMPT, **more), AUTHOR)

    def waiting(self) -> list[dict[str, Any]]:
        return self.reviews.listing(PROMPT, "waiting")


@pytest.fixture
def production(database: Database, tmp_path: Any) -> Production:
    return Production(database, tmp_path)


pytestmark = BOTH


def test_a_correction_becomes_a_candidate_with_the_right_answer(kind: str, production: Production) -> None:
    production.said(production.completed(1, "I was charged"), correction="refund", comment="not billing")

    assert production.collect()["collected"] == 1
    [found] = production.waiting()
    assert found["id"] == candidate_id("correction", "chatcmpl-1")
    shown = ("source", "vars", "output", "expected", "comment", "prompt_version", "variant", "flags")
    assert [found[name] for name in shown] == [
        "correction", {"ticket": "I was charged"}, "billing", "refund", "not billing", 1, VARIANT, [],
    ]  # fmt: skip


def test_collecting_again_changes_nothing(kind: str, production: Production) -> None:
    production.said(production.completed(1), correction="refund")
    production.said(production.completed(2), value=True)
    first = production.collect()
    production.reviews.reject(production.waiting()[0]["id"], AUTHOR)
    again = production.collect()

    assert (first["collected"], first["known"]) == (2, 0)
    assert (again["collected"], again["known"], again["renewed"], again["withdrawn"]) == (0, 2, 0, 0)
    assert len(production.waiting()) == 1


@pytest.mark.parametrize(
    ("asked", "wanted"),
    [
        ({}, [1]),
        ({"at_least": 0.8}, [1, 2]),
        ({"at_least": 4}, [4]),
        ({"metric": "tone", "at_least": 0.5}, [5]),
        ({"corrections": True}, []),
        ({"at_least": 0.8, "variant": VARIANT}, [1]),
    ],
)
def test_what_counts_as_approved(kind: str, production: Production, asked: dict[str, Any], wanted: list[int]) -> None:
    production.said(production.completed(1), value=True)
    production.said(production.completed(2, variant="support.triage@1+model-b"), value=0.9)
    production.said(production.completed(3), value=0.5)
    production.said(production.completed(4), value=5.0)
    production.said(production.completed(5), value=0.7, metric="tone")
    production.said(production.completed(6), value="good")
    production.said(production.completed(7), comment="hm")
    if asked.get("at_least") == 0.8:
        production.said("chatcmpl-4", value=False)  # its last word

    production.collect(**asked)

    found = {each["completion_id"] for each in production.waiting()}
    assert found == {f"chatcmpl-{number}" for number in wanted}


def test_everybodys_last_word_must_approve(kind: str, production: Production) -> None:
    for number in (1, 2):
        production.completed(number)
        production.said(f"chatcmpl-{number}", "k1", value=False)
        production.said(f"chatcmpl-{number}", "k1", value=True)
    production.said("chatcmpl-2", "k2", value=False)
    production.collect()

    assert [each["completion_id"] for each in production.waiting()] == ["chatcmpl-1"]


def test_a_correction_counts_before_an_approval_and_withdraws_it(kind: str, production: Production) -> None:
    production.said(production.completed(1), value=True)
    production.collect()
    production.said("chatcmpl-1", correction="refund")
    told = production.collect()

    assert (told["collected"], told["withdrawn"]) == (1, 1)
    assert [each["source"] for each in production.waiting()] == ["correction"]
    [withdrawn] = production.reviews.listing(PROMPT, "rejected")
    assert withdrawn["reason"] == collecting.CORRECTED_SINCE


def test_a_new_correction_changes_what_waits_and_nothing_that_was_decided(kind: str, production: Production) -> None:
    for number in (1, 2):
        production.said(production.completed(number), correction="refund")
    production.collect()
    decided = production.reviews.accept(production.waiting()[0]["id"], AUTHOR)
    for number in (1, 2):
        production.said(f"chatcmpl-{number}", correction="fraud")

    assert production.collect()["renewed"] == 1
    assert [each["expected"] for each in production.waiting()] == ["fraud"]
    assert production.reviews.listing(PROMPT, "accepted") == [decided]


def test_a_new_correction_has_its_own_flags_and_comment(kind: str, production: Production) -> None:
    production.said(production.completed(1), correction="use [secret: key]", comment="too vague")
    production.collect()
    assert production.waiting()[0]["flags"] == ["redacted"]
    production.said("chatcmpl-1", correction="write to ann@acme.io", comment="an address")

    assert production.collect()["renewed"] == 1
    [found] = production.waiting()
    assert (found["flags"], found["comment"]) == (["e-mail address"], "an address")


def test_what_is_decided_while_it_is_collected_anew_stays_as_it_was_decided(
    kind: str, production: Production, monkeypatch: pytest.MonkeyPatch
) -> None:
    production.said(production.completed(1), correction="refund")
    production.collect()
    production.said("chatcmpl-1", correction="fraud")
    decided: list[dict[str, Any]] = []

    def slowly(*_: Any) -> list[Any]:
        decided.append(production.reviews.accept(candidate_id("correction", "chatcmpl-1"), AUTHOR))
        return []

    monkeypatch.setattr(collecting, "heldout_cases", slowly)
    assert production.collect()["renewed"] == 0
    assert production.reviews.listing(PROMPT, "accepted") == decided


def test_since_looks_at_when_it_was_said(kind: str, production: Production) -> None:
    production.said(production.completed(1), at=ago(8 * 86_400), correction="refund")
    production.said(production.completed(2), at=ago(6 * 86_400), correction="refund")
    production.collect(since="7d")

    assert [each["completion_id"] for each in production.waiting()] == ["chatcmpl-2"]


def test_what_makes_no_example_is_counted_and_told(kind: str, production: Production) -> None:
    production.said(production.completed(1, recorded=False), correction="refund")
    production.said(production.completed(2, messages=[{"role": "user", "content": "x"}]), correction="refund")
    production.said(production.completed(3, placeholders={"history": []}), correction="refund")
    production.said(production.completed(4, output=" "), value=True)
    told = production.collect()

    assert (told["collected"], told["unrecorded"], told["left_out"]) == (0, 1, 3)
    assert told["notes"][0].startswith("1 correction has no recorded variables: set recording.bodies")
    assert told["notes"][1:] == [
        "1 left out: messages beside the variables, which an example cannot hold",
        "1 left out: placeholders beside the variables, which an example cannot hold",
        "1 left out: no text as the answer, which an example cannot hold",
    ]


def test_what_a_reviewer_should_know_stands_in_the_flags(kind: str, production: Production) -> None:
    production.push_suite("I was charged twice for one order")
    production.said(production.completed(1, "I was CHARGED twice for one order"), correction="refund")
    production.said(production.completed(2, "my mail is bob@corp.io"), correction="account")
    production.said(production.completed(3, "take [secret: OpenAI key]"), correction="account")
    production.said(production.completed(4, "Nothing arrives here"), correction="account")
    production.collect()

    flags = {each["completion_id"]: each["flags"] for each in production.waiting()}
    assert flags == {
        "chatcmpl-1": ["held-out"],
        "chatcmpl-2": ["e-mail address"],
        "chatcmpl-3": ["redacted"],
        "chatcmpl-4": [],
    }


def test_a_secret_in_a_correction_is_neither_stored_nor_learnt(kind: str, production: Production) -> None:
    key = "sk-proj-" + "aB3dE5gH7jK9mN1pQ2rS4tU6vW8xY0zA1b"
    production.said(production.completed(1), correction=f"use {key}", comment=f"it is {key}")
    production.collect()
    [found] = production.waiting()

    assert key not in repr(found)
    with pytest.raises(BadInput, match="a secret was taken out"):
        production.reviews.accept(found["id"], AUTHOR)
    assert production.reviews.accept(found["id"], AUTHOR, "use your key")["expected"] == "use your key"


def test_a_decision_is_kept_with_who_when_and_why_and_audited(kind: str, production: Production) -> None:
    for number in (1, 2):
        production.said(production.completed(number), correction="refund")
    production.collect()
    one, two = production.waiting()
    production.reviews.accept(one["id"], AUTHOR, "billing")
    rejected = production.reviews.reject(two["id"], AUTHOR, "unclear")

    assert (rejected["status"], rejected["decided_by"], rejected["reason"]) == ("rejected", AUTHOR.id, "unclear")
    with production.database.read() as session:
        log = keys.audit_log(session, 10)
    assert [(entry["action"], entry["subject"], entry["detail"]["edited"]) for entry in log] == [
        ("example.rejected", two["id"], False),
        ("example.accepted", one["id"], True),
    ]
    assert "refund" not in repr(log)


def test_what_was_decided_is_not_decided_again(kind: str, production: Production) -> None:
    production.said(production.completed(1), correction="refund")
    production.collect()
    [found] = production.waiting()
    at = production.reviews.accept(found["id"], AUTHOR)["decided_at"]

    with pytest.raises(Conflict, match=f"was accepted by {AUTHOR.id} at"):
        production.reviews.reject(found["id"], AUTHOR)
    with pytest.raises(NotFound):
        production.reviews.accept("ex_0", AUTHOR)
    with pytest.raises(BadInput, match="give the answer"):
        production.reviews.accept(found["id"], AUTHOR, "  ")
    assert production.reviews.listing(PROMPT, "accepted")[0]["decided_at"] == at


def test_of_two_who_decide_at_once_one_is_told(kind: str, open_database: Callable[[], Database], tmp_path: Any) -> None:
    production = Production(open_database(), tmp_path)
    production.said(production.completed(1), correction="refund")
    production.collect()
    [found] = production.waiting()
    barrier, results = threading.Barrier(2), []

    def decide(database: Database, verb: str) -> None:
        barrier.wait()
        try:
            results.append(getattr(Reviews(database), verb)(found["id"], AUTHOR)["status"])
        except Conflict:
            results.append("conflict")

    threads = [threading.Thread(target=decide, args=(open_database(), verb)) for verb in ("accept", "reject")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    [stored] = production.reviews.listing(PROMPT)
    assert sorted(results) == sorted(["conflict", stored["status"]])


def test_a_page_begins_behind_its_candidate(kind: str, production: Production) -> None:
    for number in range(5):
        production.said(production.completed(number), correction="refund")
    production.collect()
    first = production.reviews.listing(PROMPT, "waiting", 2)
    production.reviews.accept(first[-1]["id"], AUTHOR)  # what was decided since is still a place
    rest = production.reviews.listing(PROMPT, "waiting", 10, first[-1]["id"])

    ids = [each["id"] for each in (*first, *rest)]
    assert len(ids) == len(set(ids)) == 5
    with pytest.raises(NotFound):
        production.reviews.listing(PROMPT, after="ex_0")


def test_accepted_candidates_are_examples_in_an_order_that_stays(kind: str, production: Production) -> None:
    for number in (1, 2, 3):
        production.said(production.completed(number), correction="refund")
    production.said(production.completed(4), value=True)
    production.collect()
    for each in reversed(production.waiting()):
        production.reviews.accept(each["id"], AUTHOR)
    source, examples = production.reviews.examples(PROMPT, Reviewed())
    only, _ = production.reviews.examples(PROMPT, Reviewed(source="approved"))

    assert (source.kind, source.examples, len(source.ids)) == ("reviewed", 4, 4)
    assert [example.expected for example in examples].count("refund") == 3
    assert production.reviews.examples(PROMPT, Reviewed()) == (source, examples)
    assert only.ids == (candidate_id("approved", "chatcmpl-4"),)
    assert production.reviews.examples(PROMPT, Reviewed(since=ago(-60)))[0].examples == 0


def test_a_prompt_that_is_not_there_is_not_found(kind: str, production: Production) -> None:
    with pytest.raises(NotFound):
        collect(production.database, CollectRequest(prompt="no.such"), AUTHOR)


@pytest.mark.parametrize("text", ["yesterday", "7w", "", "99999999d", "2026-13-01", "0001-01-01T00:00:00+23:00"])
def test_a_since_that_is_no_time_is_refused(kind: str, text: str) -> None:
    with pytest.raises(BadInput, match="write an age"):
        since_of(text)


def test_a_since_is_an_age_or_a_time(kind: str) -> None:
    assert since_of(None) is None
    assert since_of("2026-01-31") == "2026-01-31T00:00:00.000000+00:00"
    assert since_of("2026-01-31T02:00:00+02:00") == "2026-01-31T00:00:00.000000+00:00"
    assert (since_of("12h") or "") <= ago(12 * 3_600 - 1)

"""Datasets: stored once by their content, with where every example came from."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from finetune.data import Example, Source, make_dataset
from prompts.errors import BadInput
from service import datasets
from service.errors import NotFound, StorageFailed
from service.settings import Settings
from service.store import datasets as stored
from service.store.database import Database
from service.store.tables import DATASET
from tests.service.conftest import AUTHOR, BOTH, Service, case, suite, triage

PROMPT = "support.triage"
TICKETS = ("Nothing arrived", "My bill is wrong", "ticket 2")
EXAMPLES = [{"vars": {"ticket": ticket}, "expected": "billing"} for ticket in TICKETS]
CHAT = {
    "messages": [
        {"role": "system", "content": "Route the ticket."},
        {"role": "user", "content": "Where is my parcel?"},
        {"role": "assistant", "content": "delivery"},
    ]
}


def made(*tickets: str) -> tuple[Any, list[Example]]:
    examples = [Example({"ticket": ticket}, "billing") for ticket in tickets]
    return make_dataset(PROMPT, [(Source(kind="file", name="a.jsonl", examples=0), examples)])


# ---------------------------------------------------------------------------- the store


@BOTH
def test_a_dataset_is_read_as_it_was_kept(kind: str, database: Database) -> None:
    dataset, examples = made("charged", "Ünï\u2028code\n", "")
    assert datasets.keep(database, PROMPT, dataset, examples, AUTHOR)

    assert datasets.load(database, dataset.digest) == (dataset, examples)


@BOTH
def test_the_same_content_again_changes_nothing(kind: str, database: Database) -> None:
    dataset, examples = made("charged")
    datasets.keep(database, PROMPT, dataset, examples, AUTHOR, "first")
    assert not datasets.keep(database, "other.prompt", dataset, examples, AUTHOR, "second")

    with database.read() as session:
        assert [(each["prompt"], each["message"]) for each in stored.listing(session, None, 10)] == [(PROMPT, "first")]
        assert stored.listing(session, "other.prompt", 10) == []


@BOTH
def test_a_dataset_is_named_by_the_beginning_of_its_digest(kind: str, database: Database) -> None:
    dataset, examples = made("charged")
    datasets.keep(database, PROMPT, dataset, examples, AUTHOR)
    twin = dataset.digest[:20] + "0" * 51
    datasets.keep(database, PROMPT, dataset.model_copy(update={"digest": twin}), examples, AUTHOR)
    digits = dataset.digest.removeprefix("sha256:")

    with database.read() as session:
        for name in (dataset.digest, digits, digits[:30], dataset.digest[:37]):
            assert datasets.resolve(session, name) == dataset.digest
        with pytest.raises(BadInput, match="ambiguous") as ambiguous:
            datasets.resolve(session, digits[:8])
        assert dataset.digest in str(ambiguous.value)
        with pytest.raises(NotFound):
            datasets.resolve(session, "ffffff" if digits[:6] != "ffffff" else "eeeeee")


@BOTH
@pytest.mark.parametrize("name", ["", "abcde", "sha256:", "%%%%%%", "ABCDEF", "sha512:abcdef", "a" * 65])
def test_what_is_no_digest_is_refused(kind: str, name: str, database: Database) -> None:
    with database.read() as session, pytest.raises(BadInput, match="is no dataset"):
        datasets.resolve(session, name)


@BOTH
def test_content_that_changed_is_not_trained_on(kind: str, database: Database) -> None:
    dataset, examples = made("charged")
    other, others = made("password")
    datasets.keep(database, PROMPT, dataset, examples, AUTHOR)
    datasets.keep(database, PROMPT, other, others, AUTHOR)
    with database.write() as session:
        content = stored.content(session, other.digest)
        DATASET.set(session, dataset.digest, content=content)

    with pytest.raises(StorageFailed, match="its content has another digest"):
        datasets.load(database, dataset.digest)


# ---------------------------------------------------------------------------- over HTTP


@pytest.fixture
def service(settings: Settings) -> Iterator[Service]:
    recording = settings.recording.model_copy(update={"bodies": True})
    with Service(settings.model_copy(update={"recording": recording})).running() as service:
        service.produce(service.push())
        training = {"examples": [{"vars": {"ticket": "I was charged twice"}, "expected": "billing"}]}
        service.put_suite("support.heldout", suite(case("ticket 2", "billing"), training=training))
        yield service


Create = Callable[..., Any]


@pytest.fixture
def create(service: Service) -> Create:
    def create(status: int = 201, **body: Any) -> Any:
        answer = service.call("POST", "/api/datasets", "author", json={"prompt": PROMPT, **body})
        assert answer.status_code == status, answer.text
        return answer.json()

    return create


def review(service: Service) -> str:
    """The id of an accepted correction."""
    asked = {"model": PROMPT, "variables": {"ticket": "charged for nothing"}}
    done = service.call("POST", "/v1/chat/completions", "app", json=asked).json()["id"]
    service.call("POST", "/api/feedback", "app", json={"completion_id": done, "correction": "refund"})
    told = service.call("POST", "/api/examples/collect", "author", json={"prompt": PROMPT})
    assert told.json()["collected"] == 1, told.text
    [found] = service.call("GET", f"/api/examples?prompt={PROMPT}&status=waiting", "author").json()
    assert service.call("POST", f"/api/examples/{found['id']}/accept", "author").status_code == 200
    return str(found["id"])


def test_a_dataset_of_all_sources_keeps_where_each_example_came_from(service: Service, create: Create) -> None:
    accepted = review(service)
    files = [
        {"name": "a.jsonl", "text": "\n".join(map(json.dumps, EXAMPLES)) + "\n"},
        {"name": "chat.jsonl", "text": json.dumps(CHAT)},
    ]
    inline = [{"vars": {"ticket": "inline"}, "expected": "other"}]
    found = create(suite="support.heldout", reviewed=True, files=files, examples=inline, message="all of it")

    assert (found["count"], found["created"], found["message"]) == (7, True, "all of it")
    assert found["created_by"] == service.ids["author"]
    sources = [(each["kind"], each["name"], each["examples"]) for each in found["sources"]]
    assert sources == [
        ("suite", "support.heldout", 1), ("reviewed", PROMPT, 1), ("file", "a.jsonl", 3), ("file", "chat.jsonl", 1),
        ("file", "inline", 1),
    ]  # fmt: skip
    assert (found["sources"][0]["version"], found["sources"][1]["ids"]) == ("1", [accepted])
    assert found["sources"][2]["version"].startswith("sha256:")
    exported = service.call("GET", f"/api/datasets/{found['digest']}/examples", "author")
    rows = [json.loads(line) for line in exported.text.splitlines()]
    assert [(row["vars"]["ticket"], row["expected"]) for row in rows] == [
        ("I was charged twice", "billing"), ("charged for nothing", "refund"), (TICKETS[0], "billing"),
        (TICKETS[1], "billing"), (TICKETS[2], "billing"), ("Where is my parcel?", "delivery"), ("inline", "other"),
    ]  # fmt: skip


def test_the_same_again_is_200_and_the_same_digest(create: Create) -> None:
    first = create(examples=EXAMPLES)
    again = create(200, examples=EXAMPLES, message="again")

    assert again == {**first, "created": False}
    assert create(examples=EXAMPLES[:2])["digest"] != first["digest"]


def test_a_dataset_is_shown_with_its_report_by_the_beginning_of_its_digest(service: Service, create: Create) -> None:
    digest = create(examples=EXAMPLES)["digest"]
    found = service.call("GET", f"/api/datasets/{digest[7:17]}", "author").json()

    assert (found["digest"], found["report"]["given"], found["report"]["heldout"]) == (digest, 3, 1)
    assert [each["index"] for each in found["report"]["overlaps"]["shown"]] == [2]
    assert found["report"]["lengths"]["exact"] is False


def test_a_dataset_of_a_draft_is_shown_too(service: Service, create: Create) -> None:
    service.call("POST", "/api/push", "author", json={"prompts": {"a.draft": triage()}, "draft": True})
    digest = create(prompt="a.draft", examples=EXAMPLES)["digest"]

    assert service.call("GET", f"/api/datasets/{digest}", "author").json()["report"]["given"] == 3


def test_datasets_are_listed_by_prompt_newest_first(service: Service, create: Create) -> None:
    service.push("other.prompt")
    first, second = create(examples=EXAMPLES)["digest"], create(examples=EXAMPLES[:1])["digest"]
    create(prompt="other.prompt", examples=EXAMPLES[:2])
    found = service.call("GET", f"/api/datasets?prompt={PROMPT}", "author").json()

    assert [each["digest"] for each in found] == [second, first]
    assert len(service.call("GET", "/api/datasets?limit=1", "author").json()) == 1


@pytest.mark.parametrize("what", ["datasets", "examples", "adapters"])
def test_a_prompt_that_there_is_not_has_no_empty_list(service: Service, what: str) -> None:
    service.push("other.prompt")
    answer = service.call("GET", f"/api/{what}?prompt=other.promt", "author")

    assert answer.status_code == 404
    assert "no prompt 'other.promt'" in answer.json()["detail"]
    assert service.call("GET", f"/api/{what}?prompt=other.prompt", "author").json() == []


@pytest.mark.parametrize(
    ("body", "status", "told"),
    [
        ({}, 400, "there are no examples"),
        ({"reviewed": True}, 400, "no accepted completions"),
        ({"suite": "no.such", "examples": EXAMPLES}, 404, "no suite 'no.such'"),
        ({"prompt": "no.such", "examples": EXAMPLES}, 404, "no prompt 'no.such'"),
        ({"prompt": f"{PROMPT}@9", "examples": EXAMPLES}, 404, "no version"),
        ({"prompt": f"{PROMPT}@staging", "examples": EXAMPLES}, 404, "no label"),
        ({"reviewed": {"sorce": "approved"}}, 400, "reviewed"),
        ({"files": [{"name": "a", "text": "", "path": "/etc/passwd"}]}, 400, "files"),
        ({"examples": [{"vars": {}, "expected": 3}]}, 400, "expected"),
    ],
)
def test_what_makes_no_dataset_is_refused_with_the_fix(
    service: Service, body: dict[str, Any], status: int, told: str
) -> None:
    answer = service.call("POST", "/api/datasets", "author", json={"prompt": PROMPT, **body})

    assert (answer.status_code, told in answer.text) == (status, True), answer.text
    assert service.call("GET", "/api/datasets", "author").json() == []


def test_a_suite_of_another_prompt_or_without_training_is_refused(service: Service, create: Create) -> None:
    service.push("other.prompt")
    service.put_suite("support.bare", suite(case("a", "billing")))

    assert (
        "tests 'support.triage', not 'other.prompt'"
        in create(400, prompt="other.prompt", suite="support.heldout")["detail"]
    )
    assert "has no training examples" in create(400, suite="support.bare")["detail"]


def test_every_fault_of_a_file_is_told_with_its_line(create: Create) -> None:
    text = "\n".join([json.dumps(EXAMPLES[0]), "{", json.dumps({"vars": {}}), json.dumps(EXAMPLES[1])])
    found = create(400, files=[{"name": "a.jsonl", "text": text}])

    assert [(fault["path"], fault["line"]) for fault in found["faults"]] == [("a.jsonl", 2), ("a.jsonl", 3)]


def test_a_dataset_that_is_not_there_is_404_and_what_is_no_digest_400(service: Service) -> None:
    for path, status in (
        ("/api/datasets/abcdef", 404),
        ("/api/datasets/abcdef/examples", 404),
        ("/api/datasets/x", 400),
    ):
        assert service.call("GET", path, "author").status_code == status


def test_a_decision_twice_is_409(service: Service) -> None:
    accepted = review(service)
    answer = service.call("POST", f"/api/examples/{accepted}/reject", "author", json={"reason": "no"})
    odd = service.call("GET", "/api/examples?status=odd", "author")

    assert answer.status_code == 409
    assert f"was accepted by {service.ids['author']}" in answer.json()["detail"]
    assert (odd.status_code, odd.json()["param"]) == (400, "status")

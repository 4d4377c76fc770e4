"""`/v1/embeddings` with the official client: passed through to model aliases."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest

from tests.service.conftest import triage
from tests.service.protocol import Scripted, scripted
from tests.service.upstreams import says


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scripted]:
    with scripted(tmp_path_factory.mktemp("home")) as server:
        server.push("support.triage", triage(model="up"))
        yield server


@pytest.fixture
def client(server: Scripted) -> Iterator[Any]:
    with server.client() as client:
        yield client


def test_texts_become_vectors(server: Scripted, client: Any) -> None:
    server.script()
    found = client.embeddings.create(model="up", input=["a", "b"], dimensions=2)

    assert [item.embedding for item in found.data] == [[1.0, 0.0], [1.0, 0.0]]
    assert (found.model, found.usage.prompt_tokens) == ("up", 3)
    (asked,) = server.asked
    assert (asked["input"], asked["dimensions"], asked["model"]) == (["a", "b"], 2, "up")


def test_vectors_come_as_numbers_where_these_are_asked_for(server: Scripted) -> None:
    server.script()
    answer = httpx.post(
        f"{server.url}/v1/embeddings",
        json={"model": "up", "input": [[1, 2, 3]], "encoding_format": "float"},
        headers={"authorization": f"Bearer {server.keys['app']}"},
    )

    assert answer.json()["data"][0]["embedding"] == [1.0, 0.0]
    assert server.asked[0]["input"] == [[1, 2, 3]]


def test_what_it_took_is_recorded(server: Scripted, client: Any) -> None:
    server.script()
    answer = client.embeddings.with_raw_response.create(model="priced", input="a")

    row = server.row(answer.headers["x-turnout-completion-id"])
    assert (row["variant"], row["status"], row["prompt_tokens"], row["cost_usd"]) == ("priced", "ok", 3, 3e-6)


def test_an_upstreams_error_is_told_and_recorded(server: Scripted, client: Any) -> None:
    server.script(says(400, {"error": {"message": "too long"}}))
    with pytest.raises(openai.BadRequestError, match="too long"):
        client.embeddings.create(model="up", input="a")


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"input": ""}, "input"),
        ({"input": []}, "input"),
        ({"input": "a", "encoding_format": "octal"}, "encoding_format"),
        ({"input": "a", "extra_body": {"variables": {}}}, "variables"),
    ],
)
def test_a_request_that_its_giver_can_mend_names_its_field(client: Any, body: dict[str, Any], param: str) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.embeddings.create(model="up", **body)

    assert caught.value.param == param


@pytest.mark.parametrize("model", ["support.triage", "no-such"])
def test_a_prompt_gives_no_embeddings(client: Any, model: str) -> None:
    with pytest.raises(openai.NotFoundError):
        client.embeddings.create(model=model, input="a")

"""The engine's protocol, by the openai package against a tiny model."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from tests.service.engine.served import TOKEN, serving, until

pytestmark = [
    pytest.mark.integration,  # a tiny model behind HTTP
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning"),
]


@pytest.fixture(scope="module")
def served(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Any, str]]:
    with serving(tiny_folder, tmp_path_factory.mktemp("adapters"), rows=8) as both:
        yield both


@pytest.fixture
def client(served: tuple[Any, str]) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=served[1], api_key=TOKEN, max_retries=0) as made:
        yield made


def ask(client: openai.OpenAI, text: str = "hello", **changes: Any) -> Any:
    given = {"model": "tiny", "messages": [{"role": "user", "content": text}], "max_tokens": 24, "temperature": 0}
    return client.chat.completions.create(**{**given, **changes})  # type: ignore[call-overload]


def streamed(client: openai.OpenAI, **changes: Any) -> tuple[dict[int, str], dict[int, str], list[Any]]:
    """The texts and the reasons by choice, and all chunks."""
    texts: dict[int, str] = {}
    reasons: dict[int, str] = {}
    chunks = list(ask(client, stream=True, stream_options={"include_usage": True}, **changes))
    for chunk in chunks:
        for choice in chunk.choices:
            texts[choice.index] = texts.get(choice.index, "") + (choice.delta.content or "")
            if choice.finish_reason:
                reasons[choice.index] = choice.finish_reason
    return texts, reasons, chunks


def test_a_stream_is_the_whole_answer_bit_by_bit(client: openai.OpenAI) -> None:
    for seed in range(4):
        given = {"temperature": 1.0, "seed": seed, "max_tokens": 60, "logit_bias": {"2": -100}}
        whole = ask(client, **given)
        texts, reasons, chunks = streamed(client, **given)
        assert texts == {0: whole.choices[0].message.content}
        assert reasons == {0: whole.choices[0].finish_reason}
        assert len(chunks) > 10
        assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens
        assert chunks[0].choices[0].delta.role == "assistant"


def test_stop_sequences_split_over_tokens_are_never_streamed(client: openai.OpenAI) -> None:
    given = {"temperature": 1.0, "seed": 3, "max_tokens": 60, "logit_bias": {"2": -100}}
    whole = ask(client, **given).choices[0].message.content
    for start in (5, 9):
        stop = [whole[start : start + 3], "never there"]
        cut = ask(client, stop=stop, **given)
        texts, reasons, _ = streamed(client, stop=stop, **given)
        assert cut.choices[0].message.content == texts[0] == whole[: whole.index(stop[0])]
        assert cut.choices[0].finish_reason == reasons[0] == "stop"


def test_n_answers_differ_by_a_seed_and_compute_the_prompt_once(client: openai.OpenAI, served: Any) -> None:
    before = served[0].counters.prompt_tokens
    both = ask(client, "give several", n=3, temperature=1.0, seed=5)
    texts = [choice.message.content for choice in both.choices]
    assert [choice.index for choice in both.choices] == [0, 1, 2]
    assert len(set(texts)) == 3
    assert served[0].counters.prompt_tokens - before == both.usage.prompt_tokens
    again = ask(client, "give several", n=3, temperature=1.0, seed=5)
    assert [choice.message.content for choice in again.choices] == texts
    assert ask(client, "give several", temperature=1.0, seed=5).choices[0].message.content == texts[0]
    got, _, _ = streamed(client, messages=[{"role": "user", "content": "give several"}], n=3, temperature=1.0, seed=5)
    assert [got[index] for index in range(3)] == texts
    same = ask(client, n=2)
    assert same.choices[0].message.content == same.choices[1].message.content


def test_one_seed_draws_independently_for_each_question(client: openai.OpenAI) -> None:
    texts = [ask(client, f"case {n}", temperature=2.0, seed=1).choices[0].message.content for n in range(4)]
    assert len({text[:2] for text in texts}) > 1


def test_log_probabilities_are_those_of_the_model(client: openai.OpenAI) -> None:
    reply = ask(client, "hello", logprobs=True, top_logprobs=5)
    tokens = reply.choices[0].logprobs.content
    assert (
        b"".join(bytes(token.bytes) for token in tokens).decode("utf-8", "replace") == reply.choices[0].message.content
    )
    for token in tokens:
        best = max(token.top_logprobs, key=lambda other: other.logprob)
        assert token.logprob == best.logprob  # greedy
        assert sum(math.exp(other.logprob) for other in token.top_logprobs) <= 1
        assert len(token.top_logprobs) == 5
    everything = ask(client, "hello", logprobs=True, top_logprobs=20, temperature=1.0, seed=2, n=2)
    assert all(token.logprob <= 0 for choice in everything.choices for token in choice.logprobs.content)
    _, _, chunks = streamed(client, logprobs=True, top_logprobs=5)
    told = [
        token for chunk in chunks for choice in chunk.choices if choice.logprobs for token in choice.logprobs.content
    ]
    assert [(token.bytes, token.logprob) for token in told] == [
        (token.bytes, pytest.approx(token.logprob, abs=1e-4)) for token in tokens
    ]


def test_answers_of_a_form_stream_as_they_are(client: openai.OpenAI) -> None:
    label = {"structured_outputs": {"choice": ["billing", "bug é"]}}
    texts, reasons, _ = streamed(client, extra_body=label)
    assert texts[0] == ask(client, extra_body=label).choices[0].message.content
    assert (texts[0] in ("billing", "bug é"), reasons[0]) == (True, "stop")
    schema = {
        "type": "object",
        "properties": {"a": {"enum": ["x", "y"]}},
        "required": ["a"],
        "additionalProperties": False,
    }
    form = {"type": "json_schema", "json_schema": {"name": "f", "schema": schema}}
    texts, _, _ = streamed(client, response_format=form, temperature=1.0, seed=4, max_tokens=200)
    assert json.loads(texts[0])["a"] in ("x", "y")


def test_penalties_and_biases_change_the_answer(client: openai.OpenAI) -> None:
    forced = ask(client, logit_bias={"70": 100}, max_tokens=4)
    only = forced.choices[0].message.content
    assert len(set(only)) == 1
    varied = ask(client, logit_bias={"70": 10}, max_tokens=4, frequency_penalty=2, presence_penalty=2, temperature=1)
    assert varied.usage.completion_tokens == 4
    with pytest.raises(openai.BadRequestError, match="logit_bias names a token beyond"):
        ask(client, logit_bias={"99999": 1})


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"tools": [{"type": "function", "function": {"name": "f"}}]},
            r'tools \[\{"type": .* serve the model with vLLM',
        ),
        ({"extra_body": {"top_k": 5}}, "top_k is not something the embedded engine can do: leave it out"),
        ({"extra_body": {"stream": True, "stream_options": {"x": 1}}}, r"unknown field `x`.*stream_options"),
        ({"extra_body": {"structured_outputs": {"structural_tag": "x"}}}, "structured_outputs.structural_tag"),
        ({"response_format": {"type": "json_schema", "json_schema": {"name": "x"}}}, "json_schema.schema"),
        ({"extra_body": {"guided_regex": "(a", "guided_choice": ["a"]}}, "both say what the answer must be"),
        ({"extra_body": {"guided_regex": "(?=a)b"}}, "look-around"),
        ({"extra_body": {"guided_choice": []}}, "a list of texts is needed"),
        ({"top_logprobs": 3}, "top_logprobs needs logprobs"),
        ({"n": 0}, "n"),
    ],
)
def test_what_cannot_be_done_is_refused_by_name(client: openai.OpenAI, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(openai.BadRequestError, match=said):
        ask(client, **changes)


def test_models_and_adapters_are_told_as_by_vllm(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["tiny"]
    with pytest.raises(openai.NotFoundError, match="no model 'red' here"):
        ask(client, model="red")


def test_faults_before_the_first_token_of_a_stream_have_their_status(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="context of 2048") as raised:
        ask(client, "x" * 2100, stream=True)
    assert (raised.value.code, raised.value.param) == ("context_length_exceeded", "messages")


def test_a_client_that_hangs_up_gives_its_row_back(served: tuple[Any, str]) -> None:
    generator, url = served
    body = {"model": "tiny", "messages": [{"role": "user", "content": "go on"}], "max_tokens": 1900, "stream": True}
    body["logit_bias"] = {"2": -100}
    headers = {"Authorization": f"Bearer {TOKEN}"}
    with httpx.stream("POST", f"{url}/chat/completions", json=body, headers=headers, timeout=20) as reply:
        lines = reply.iter_lines()  # held: httpx hangs up when this is gone
        assert (reply.status_code, next(lines)[:6]) == (200, "data: ")
        assert generator.in_flight == 1
    until(lambda: generator.in_flight == 0 and generator.counters.live == 0)
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{url}/chat/completions", json={**body, "stream": False}, headers=headers, timeout=0.3)
    until(lambda: generator.in_flight == 0 and generator.counters.live == 0)
    assert generator.counters.cancelled == 2


def test_a_request_whose_time_is_over_is_dropped(client: openai.OpenAI) -> None:
    with pytest.raises(openai.InternalServerError, match=r"no whole answer within 0\.2 s") as caught:
        ask(client, max_tokens=1900, logit_bias={"2": -100}, extra_body={"timeout_s": 0.2})
    assert caught.value.status_code == 504


def test_health_and_metrics_tell_how_it_stands(served: tuple[Any, str], client: openai.OpenAI) -> None:
    root = served[1].removesuffix("/v1")
    ask(client, extra_body={"guided_choice": ["yes", "no"]})
    assert httpx.get(f"{root}/health").json().keys() >= {"status", "engine_id", "waiting", "live"}
    text = httpx.get(f"{root}/metrics", headers={"Authorization": f"Bearer {TOKEN}"}).text
    told = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    assert float(told['turnout_engine_requests_total{outcome="answered"}']) > 0
    assert float(told['turnout_engine_guided_total{kind="choice"}']) > 0
    assert float(told['turnout_engine_queue_length{priority="0"}']) == 0
    assert float(told["turnout_engine_batch_rows_count"]) > 0
    assert json.loads(httpx.get(f"{root}/metrics").text)["error"]["code"] == "invalid_api_key"

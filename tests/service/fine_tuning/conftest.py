"""The service with a tunable model whose training is played: the files, the job and what is served of it are real."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from finetune import adapter
from service.fine_tuning import planning, running
from service.fine_tuning.names import adapter_name
from service.models.fake import FakeModel
from service.settings import Settings
from tests.service.conftest import Service, make_settings

HEADER = json.dumps({"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
WEIGHTS = struct.pack("<Q", len(HEADER)) + HEADER + b"\0\0\0\0"
CONFIG = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["q_proj"]}
PLANNED = {
    "hyperparameters": {"n_epochs": 2, "batch_size": 8, "learning_rate_multiplier": 1.0},
    "training_s": 4.0,
}


def line(question: str, answer: str, **more: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}], **more}


def jsonl(*lines: dict[str, Any]) -> bytes:
    return b"".join(json.dumps(one).encode() + b"\n" for one in lines)


TWELVE = jsonl(*(line(f"question {number}", "ok") for number in range(12)))


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    home = tmp_path_factory.mktemp("home")
    models = {"small": {"engine": "local", "source": "path:/nowhere"}, "plain": {"engine": "fake", "default": "base"}}
    return make_settings(home, models=models, fine_tuning={"models": {"gpt-4o-mini-2024-07-18": "small"}})


@pytest.fixture(scope="module")
def service(settings: Settings) -> Iterator[Service]:
    with Service(settings).running() as service:
        answer: Callable[[Any], str] = lambda request: f"{request.adapter}"  # noqa: E731
        service.context.pool._models["small"] = FakeModel(answer)
        yield service


class Through(httpx.BaseTransport):
    """Requests of a synchronous client, answered by the service in process."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        sent = dict(request.headers) | {"host": "localhost"}
        answer = self._service.call(request.method, str(request.url), None, content=request.read(), headers=sent)
        told = [(name, value) for name, value in answer.headers.multi_items() if name != "content-encoding"]
        return httpx.Response(answer.status_code, headers=told, content=answer.content)


@pytest.fixture
def client(service: Service) -> Iterator[openai.OpenAI]:
    """The `openai` package as a program of an author has it."""
    with openai.OpenAI(
        base_url="http://localhost/v1",
        api_key=service.keys["author"],
        http_client=httpx.Client(transport=Through(service)),
        max_retries=0,
    ) as client:
        yield client


STEPS = (4, 8)


@pytest.fixture
def played(monkeypatch: pytest.MonkeyPatch) -> None:
    """The plan and the training process, played: two epochs of four steps, each with its snapshot, then the adapter."""
    monkeypatch.setattr(planning, "plan", lambda *_: PLANNED)
    monkeypatch.setattr(running, "train", play)


def play(
    folder: Path, run_dir: Path, tell: Callable[..., None], check: Callable[[], None], told_lines: int
) -> dict[str, Any]:
    events: list[dict[str, Any]] = []
    training = folder / "training"
    for step in range(1, STEPS[-1] + 1):
        events.append({"type": "step", "run": "seed-0", "step": step, "of": 8, "loss": 2.0 / step, "tokens": 30})
        if step in STEPS:
            point = {"step": step, "dev_exact": 0.5, "dev_loss": 1.0 / step, "train_loss": 2.0 / step}
            point |= {"dev_token_accuracy": 0.75, "train_token_accuracy": 0.8}
            events += [{"type": "evaluated", "run": "seed-0", **point}, {"type": "snapshot", "step": step}]
    events.append({"type": "finished", "steps": 8, "dev_loss": 0.125})
    training.mkdir(parents=True, exist_ok=True)
    (training / "events.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    for number, event in enumerate(events, 1):
        check()
        if event["type"] == "snapshot":
            scores = next(e for e in reversed(events) if e["type"] == "evaluated" and e["step"] == event["step"])
            write_adapter(training / "snapshots" / f"step-{event['step']:08d}", scores)
        if number > told_lines:
            tell("training", line=number, event=event)
    write_adapter(training / "adapter", {})
    return events[-1]


def write_adapter(folder: Path, scores: dict[str, Any]) -> None:
    """As the training process does: below `jobs/JOB/training`, named by the job and, for a snapshot, its step."""
    known = {key: value for key, value in scores.items() if key not in ("type", "run")}
    base = adapter.Base(name="small", digest="sha256:0")
    job_id = next(part for part in folder.parts if part.startswith("job_"))
    step = int(folder.name.partition("-")[2]) if folder.name.startswith("step-") else None
    name = adapter_name(job_id.removeprefix("job_"), step)
    adapter.write(folder, WEIGHTS, CONFIG, adapter.Manifest(name=name, base=base, scores=known))

"""The embedded engine as suites ask it: a child process over HTTP, many cases in flight."""

from __future__ import annotations

import asyncio
import json
import os
import tempfile
import time
from collections.abc import Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.engine.cases import Messages
from prompts.messages import Completion, CompletionRequest, Message
from service.engine.spec import EngineSpec
from service.models.local import LocalModel

IN_FLIGHT = 64
_TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
_RANK = 16


@dataclass(frozen=True, slots=True)
class Engine:
    """One that runs below `home`, with the adapter `random` in its folder."""

    model: LocalModel
    home: Path
    start_to_first_answer_s: float
    rss_mb: dict[str, float]


@asynccontextmanager
async def running(folder: Path, first: Messages) -> Any:
    """An engine that has given one answer."""
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        write_adapter(folder, home / "adapters" / "random")
        model = LocalModel(EngineSpec("smollm2-135m", folder, home / "adapters"), home / "run")
        started = time.perf_counter()
        await model.complete(request(first, {"temperature": 0, "max_tokens": 12}, None))
        try:
            yield Engine(model, home, time.perf_counter() - started, memory_mb(home))
        finally:
            await model.aclose()


async def ask(
    engine: Engine,
    conversations: Sequence[Messages],
    parameters: dict[str, Any],
    adapters: Sequence[str | None] = (None,),
) -> dict[str, Any]:
    """The figures of one pass over all cases, their adapters in turn, and the texts."""
    gate = asyncio.Semaphore(IN_FLIGHT)

    async def one(number: int, messages: Messages) -> Completion:
        async with gate:
            return await engine.model.complete(request(messages, parameters, adapters[number % len(adapters)]))

    before, began = cpu_s(engine.home), time.perf_counter()
    found = await asyncio.gather(*(one(number, messages) for number, messages in enumerate(conversations)))
    wall_s, spent_s = time.perf_counter() - began, cpu_s(engine.home) - before
    return {
        **rates(len(found), wall_s, spent_s),
        "answer_tokens": sum(one.usage.completion_tokens for one in found) / len(found),
        "asked_again": sum(bool(one.details.get("asked_again")) for one in found),
        "texts": [one.text for one in found],
    }


def rates(cases: int, wall_s: float, spent_s: float) -> dict[str, float]:
    return {"cases": cases, "wall_s": wall_s, "cases_per_s": cases / wall_s, "cpu_s_per_case": spent_s / cases}


def summed(passes: Sequence[dict[str, Any]]) -> dict[str, float]:
    """The rates of several passes together."""
    spent_s = sum(one["cpu_s_per_case"] * one["cases"] for one in passes)
    return rates(sum(one["cases"] for one in passes), sum(one["wall_s"] for one in passes), spent_s)


def request(messages: Messages, parameters: dict[str, Any], adapter: str | None) -> CompletionRequest:
    turns = tuple(Message(m["role"], m["content"]) for m in messages)  # type: ignore[arg-type]  # roles are our own
    return CompletionRequest(turns, parameters, adapter=adapter, timeout_s=3600, is_urgent=False)  # as suites ask


def write_adapter(folder: Path, into: Path) -> None:
    """A LoRA of rank 16 over all linear layers with random weights: it costs what a trained one does."""
    import torch
    from safetensors.torch import save_file

    shape = json.loads((folder / "config.json").read_text())
    hidden, inner = shape["hidden_size"], shape["intermediate_size"]
    narrow = hidden // shape["num_attention_heads"] * shape["num_key_value_heads"]
    sizes = dict(zip(_TARGETS, [(hidden, hidden), (hidden, narrow), (hidden, narrow), (hidden, hidden),
                                (hidden, inner), (hidden, inner), (inner, hidden)], strict=True))  # fmt: skip
    torch.manual_seed(1)
    weights = {}
    for layer in range(shape["num_hidden_layers"]):
        for target, (width, out) in sizes.items():
            part = "self_attn" if target[0] in "qkvo" else "mlp"
            name = f"base_model.model.model.layers.{layer}.{part}.{target}"
            weights[f"{name}.lora_A.weight"] = torch.randn(_RANK, width) / width
            weights[f"{name}.lora_B.weight"] = torch.randn(out, _RANK) / 100
    into.mkdir(parents=True)
    save_file(weights, into / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": _RANK, "lora_alpha": _RANK, "target_modules": _TARGETS}
    (into / "adapter_config.json").write_text(json.dumps(config))


def cpu_s(home: Path) -> float:
    """CPU seconds of the engine that works below `home`, from /proc."""
    total = 0.0
    for stat in _processes(home):
        fields = (stat / "stat").read_text().rpartition(")")[2].split()
        total += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return total


def memory_mb(home: Path) -> dict[str, float]:
    """Resident megabytes (10⁶ bytes) of that engine: what is its own, and what is mapped from files."""
    status = "".join((process / "status").read_text() for process in _processes(home))
    read = {line.split(":")[0]: line.split()[1] for line in status.splitlines() if line.startswith("Rss")}
    return {"own": int(read["RssAnon"]) * 1024 / 1e6, "mapped": int(read["RssFile"]) * 1024 / 1e6}


def _processes(home: Path) -> list[Path]:
    found = []
    for command in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = command.read_bytes().decode("utf-8", "replace")
        except OSError:
            continue
        if str(home) in words and "service.engine" in words:
            found.append(command.parent)
    return found
